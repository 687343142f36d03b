"""minisplade: learned sparse retrieval in NumPy and Numba, without torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minisplade.bm25 import BM25
    from minisplade.encoder import SparseEncoder
    from minisplade.errors import (
        CheckpointError,
        IndexFormatError,
        IndexLockedError,
        IndexWriteError,
        InputError,
        MiniSpladeError,
        ModelNotFoundError,
    )
    from minisplade.explain import Explanation, MatchExplanation
    from minisplade.fusion import fuse, rerank
    from minisplade.hybrid import HybridEncoder, HybridSearch
    from minisplade.index import Document, Hit, Hits, Index
    from minisplade.passages import PassageIndex, WindowedEncoder
    from minisplade.reranker import CrossEncoder
    from minisplade.trace import Trace
    from minisplade.vectors import SparseVector, SparseVectors, concatenate
    from minisplade.words import WholeWords

__version__ = "0.1.0"

__all__ = [
    "BM25",
    "CheckpointError",
    "CrossEncoder",
    "Document",
    "Explanation",
    "Hit",
    "Hits",
    "HybridEncoder",
    "HybridSearch",
    "Index",
    "IndexFormatError",
    "IndexLockedError",
    "IndexWriteError",
    "InputError",
    "MatchExplanation",
    "MiniSpladeError",
    "ModelNotFoundError",
    "PassageIndex",
    "SparseEncoder",
    "SparseVector",
    "SparseVectors",
    "Trace",
    "WholeWords",
    "WindowedEncoder",
    "concatenate",
    "fuse",
    "rerank",
]

_ROOMS = {
    "Document": "index",
    "BM25": "bm25",
    "CrossEncoder": "reranker",
    "Explanation": "explain",
    "Hit": "index",
    "Hits": "index",
    "HybridEncoder": "hybrid",
    "HybridSearch": "hybrid",
    "Index": "index",
    "MatchExplanation": "explain",
    "PassageIndex": "passages",
    "SparseEncoder": "encoder",
    "SparseVector": "vectors",
    "SparseVectors": "vectors",
    "Trace": "trace",
    "WholeWords": "words",
    "WindowedEncoder": "passages",
    "concatenate": "vectors",
    "fuse": "fusion",
    "rerank": "fusion",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import minisplade` costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'minisplade' has no attribute {name!r}")
    return getattr(import_module(f"minisplade.{_ROOMS.get(name, 'errors')}"), name)

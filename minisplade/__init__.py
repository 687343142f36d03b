"""minisplade: learned sparse retrieval in NumPy and Numba, without torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minisplade.encoder import SparseEncoder
    from minisplade.errors import (
        CheckpointError,
        IndexFormatError,
        InputError,
        MiniSpladeError,
        ModelNotFoundError,
    )
    from minisplade.index import Hit, Hits, Index
    from minisplade.reranker import CrossEncoder
    from minisplade.vectors import SparseVector, SparseVectors, concatenate

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "CrossEncoder",
    "Hit",
    "Hits",
    "Index",
    "IndexFormatError",
    "InputError",
    "MiniSpladeError",
    "ModelNotFoundError",
    "SparseEncoder",
    "SparseVector",
    "SparseVectors",
    "concatenate",
]

_ROOMS = {
    "CrossEncoder": "reranker",
    "Hit": "index",
    "Hits": "index",
    "Index": "index",
    "SparseEncoder": "encoder",
    "SparseVector": "vectors",
    "SparseVectors": "vectors",
    "concatenate": "vectors",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import minisplade` costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'minisplade' has no attribute {name!r}")
    return getattr(import_module(f"minisplade.{_ROOMS.get(name, 'errors')}"), name)

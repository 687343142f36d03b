"""Array types, and the letters that docstrings use for array shapes.

B  texts in a batch        T  tokens per text, padding included
D  hidden size             H  attention heads        K  size of one head, D / H
F  feed-forward size       V  vocabulary size: one dimension of a sparse vector per term
N  documents               P  postings or non-zero weights        Q  queries
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

BoolArray: TypeAlias = NDArray[np.bool_]
FloatArray: TypeAlias = NDArray[np.float32]
DoubleArray: TypeAlias = NDArray[np.float64]
IdArray: TypeAlias = NDArray[np.int32]
OffsetArray: TypeAlias = NDArray[np.int64]
ByteArray: TypeAlias = NDArray[np.uint8]
CodeArray: TypeAlias = NDArray[np.int8]
SumArray: TypeAlias = NDArray[np.int32]

Params: TypeAlias = dict[str, FloatArray]
"""The weights of a model by name, such as "layers.0.attention.query.weight"."""


def aligned_zeros(size: int, kind: type[np.generic]) -> NDArray[Any]:
    """Return zeros that start at a cache line, which vectors are loaded faster from."""
    room = np.zeros(size * kind().itemsize + 64, dtype=np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size * kind().itemsize].view(kind)


class PostingLists(NamedTuple):
    """The posting lists of all terms, as kernels take them.

    Documents fall into blocks of block_size; a cell is one term in one block. Cell
    term * num_blocks + block owns slots offsets[cell]:offsets[cell + 1] of the other arrays.
    """

    offsets: OffsetArray  # int64 (V * num_blocks + 1,)
    local_ids: NDArray[np.uint16]  # uint16 (P,), document ids less those of the block's first
    impacts: FloatArray  # float32 (P,), or (0,) in the compact form
    codes: NDArray[np.uint16]  # uint16 (P,) in the compact form, or (0,)
    rests: NDArray[np.uint16]  # as codes: an impact has the bits base + (code << shift) + rest
    peaks: FloatArray  # float32 (V,), the largest impact of each term
    rows: (
        FloatArray  # float32 (H, num_blocks * block_size), impacts of H frequent terms, with zeros
    )
    row_of: IdArray  # int32 (V,), the row of each term in rows, or -1
    smallest: float  # the smallest of all impacts
    base: int
    shift: int
    num_docs: int
    num_blocks: int
    block_size: int

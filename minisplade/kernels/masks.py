"""Comparing 64 numbers at a time, which gives one bit for each.

Where few of many numbers count, going from set bit to set bit spares a branch for each of the
others. LLVM makes what the processor has of it: four instructions of AVX-512, more of others.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minisplade.kernels.tiles import tile

LANES = 64
"""Numbers that are compared at a time."""


@tile(returns="uint64")
def reaching(array: NDArray[Any], start: int, least: Any) -> np.uint64:
    """Return a mask of which numbers of array[start : start + LANES] are least or more.

    array: of whole numbers, which must go so far; the first is the lowest bit.
    """
    bits = np.packbits(array[start : start + LANES] >= least, bitorder="little")
    return np.uint64(bits.view(np.uint64)[0])

"""Two things about memory that Numba has no words for: what is at an address, and needed soon."""

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minisplade.kernels.tiles import tile


@tile(returns="array")
def array_at(address: int, shape: tuple[int, ...], kind: Any) -> NDArray[Any]:
    """Return the array that is at an address; the caller keeps it alive.

    kind: a NumPy type, written out.
    """
    size = int(np.prod(shape))
    if size == 0:
        return np.zeros(shape, kind)
    room = (ctypes.c_char * (size * kind().itemsize)).from_address(int(address))
    return np.frombuffer(room, kind).reshape(shape)


@tile(returns="none")
def prefetch(array: NDArray[Any], index: int) -> None:
    """Bring a place of an array into the cache, without waiting for it.

    The place may be beyond the array. Without a compiler there is nothing to gain.
    """

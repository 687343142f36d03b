"""Numba's own compilation and cache, for the kernels of search, which allocate memory."""

from collections.abc import Callable
from typing import Any

from numba import config, njit

from minisplade.kernels.compiler import source_digest
from minisplade.runtime import compiled_code_dirs, is_writable

_place = next((folder for folder in compiled_code_dirs() if is_writable(folder)), None)


def jitted(function: Callable[..., Any], *, inline: bool = False) -> Any:
    """Compile a function when it is first called, to run without the interpreter's lock.

    What is compiled is kept where other kernels are, apart for each version of the source: Numba
    itself would not notice a change in what a kernel calls.
    """
    before = config.CACHE_DIR
    config.CACHE_DIR = before or (str(_place / source_digest()[:16]) if _place else "")
    try:
        return njit(cache=_place is not None, nogil=True, forceinline=inline)(function)
    finally:
        config.CACHE_DIR = before


def inlined(function: Callable[..., Any]) -> Any:
    """Do as jitted, and copy the code to wherever the function is called.

    Posting lists are some seventy numbers to machine code, and passing them costs as much as
    looking up a document.
    """
    return jitted(function, inline=True)

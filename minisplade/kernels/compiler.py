"""How kernels are compiled: to run without the interpreter's lock, and to be kept on disk."""

from collections.abc import Callable, Collection
from typing import Any, TypeVar, overload

from numba import config, njit

from minisplade.runtime import compiled_code_dir

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])

_place = compiled_code_dir()
if _place is not None:
    config.CACHE_DIR = str(_place)


@overload
def kernel(function: AnyFunction) -> AnyFunction: ...
@overload
def kernel(*, flags: Collection[str]) -> Callable[[AnyFunction], AnyFunction]: ...
def kernel(function: Any = None, *, flags: Collection[str] = ()) -> Any:
    """Compile a function of flat arrays and numbers when it is first called.

    flags: what LLVM may assume about floats, such as "reassoc", which lets a sum run in lanes.
    Without the compiler (NUMBA_DISABLE_JIT=1) the function runs as it is.
    """
    # error_model: a division that cannot fail needs no branch, so that loops become vectors.
    compiled = njit(cache=True, nogil=True, error_model="numpy", fastmath=set(flags))
    return compiled if function is None else compiled(function)

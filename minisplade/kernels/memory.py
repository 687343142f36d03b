"""Two things about memory that Numba has no words for: addresses, and what is needed soon."""

import ctypes
from typing import Any

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray


@intrinsic  # type: ignore[untyped-decorator]
def _compiled_pointer_to(typing_context: Any, address: Any) -> Any:
    """Take a whole number for a pointer."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), code


@intrinsic  # type: ignore[untyped-decorator]
def _compiled_prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Bring a place of an array into the cache, without waiting for it."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        own = context.make_array(kind)(context, builder, arguments[0])
        place = cgutils.get_item_pointer(
            context, builder, kind, own, [arguments[1]], wraparound=False
        )
        pointer = builder.bitcast(place, cgutils.voidptr_t)
        number = ir.IntType(32)
        shape = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [cgutils.voidptr_t], shape)
        builder.call(function, [pointer, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, index), code


def _plain_pointer_to(address: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(int(address))


def _plain_prefetch(array: NDArray[Any], index: Any) -> None:
    """Do nothing, as without a compiler there is nothing to gain."""


pointer_to = _plain_pointer_to if config.DISABLE_JIT else _compiled_pointer_to
prefetch = _plain_prefetch if config.DISABLE_JIT else _compiled_prefetch

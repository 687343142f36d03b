"""Comparing 64 numbers at a time, which gives one bit for each.

Where few of many numbers count, going from set bit to set bit spares a branch for each of the
others. LLVM makes what the processor has of it: four instructions of AVX-512, more of others.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic
from numpy.typing import NDArray

LANES = 64
"""Numbers that are compared at a time."""

_INT64 = ir.IntType(64)


@intrinsic  # type: ignore[untyped-decorator]
def _compiled_reaching(typing_context: Any, array: Any, start: Any, least: Any) -> Any:
    """Do as _plain_reaching, for an array of whole numbers."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        own = context.make_array(kind)(context, builder, arguments[0])
        number = context.get_data_type(kind.dtype)
        vector = ir.VectorType(number, LANES)
        place = builder.gep(own.data, [arguments[1]])
        values = builder.load(builder.bitcast(place, vector.as_pointer()))
        values.align = 1
        bound = context.cast(builder, arguments[2], signature.args[2], kind.dtype)
        nothing = ir.Constant(vector, ir.Undefined)
        first = builder.insert_element(nothing, bound, ir.Constant(ir.IntType(32), 0))
        same = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        bounds = builder.shuffle_vector(first, nothing, same)
        compare = builder.icmp_signed if kind.dtype.signed else builder.icmp_unsigned
        return builder.bitcast(compare(">=", values, bounds), _INT64)

    return types.uint64(array, types.int64, least), code


@intrinsic  # type: ignore[untyped-decorator]
def _compiled_lowest(typing_context: Any, mask: Any) -> Any:
    """Do as _plain_lowest."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        shape = ir.FunctionType(_INT64, [_INT64, ir.IntType(1)])
        function = builder.module.declare_intrinsic("llvm.cttz", [_INT64], shape)
        return builder.call(function, [arguments[0], ir.Constant(ir.IntType(1), 0)])

    return types.int64(types.uint64), code


def _plain_reaching(array: NDArray[Any], start: int, least: Any) -> np.uint64:
    """Return a mask of which numbers of array[start : start + LANES] are least or more.

    array: of whole numbers, which must go so far; the first is the lowest bit.
    """
    bits = np.packbits(array[start : start + LANES] >= least, bitorder="little")
    return np.uint64(bits.view(np.uint64)[0])


def _plain_lowest(mask: np.uint64) -> int:
    """Return the place of the lowest set bit, 64 where there is none."""
    number = int(mask)
    return (number & -number).bit_length() - 1 if number else LANES


reaching = _plain_reaching if config.DISABLE_JIT else _compiled_reaching
lowest = _plain_lowest if config.DISABLE_JIT else _compiled_lowest

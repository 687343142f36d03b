"""Comparing 64 numbers at a time, which gives one bit for each.

Where few of many numbers count, going from set bit to set bit spares a branch for each of the
others. LLVM makes what the processor has of it: four instructions of AVX-512, more of others.
"""

from typing import Any

import numpy as np
from numba import config, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from minisplade.kernels.ir import INT64, Emitter, vector
from minisplade.kernels.tiles import lowest_bit

LANES = 64
"""Numbers that are compared at a time."""


@intrinsic  # type: ignore[untyped-decorator]
def _compiled_reaching(typing_context: Any, array: Any, start: Any, least: Any) -> Any:
    """Do as _plain_reaching, for an array of whole numbers."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit, number = Emitter(context, builder, signature.args), signature.args[0].dtype
        lanes = vector(context.get_data_type(number), LANES)
        values = emit.load(emit.pointer(0, arguments[0], arguments[1], lanes))
        bound = context.cast(builder, arguments[2], signature.args[2], number)
        compare = builder.icmp_signed if number.signed else builder.icmp_unsigned
        return builder.bitcast(compare(">=", values, emit.splat(bound, LANES)), INT64)

    return types.uint64(array, types.int64, least), code


def _plain_reaching(array: NDArray[Any], start: int, least: Any) -> np.uint64:
    """Return a mask of which numbers of array[start : start + LANES] are least or more.

    array: of whole numbers, which must go so far; the first is the lowest bit.
    """
    bits = np.packbits(array[start : start + LANES] >= least, bitorder="little")
    return np.uint64(bits.view(np.uint64)[0])


reaching = _plain_reaching if config.DISABLE_JIT else _compiled_reaching
lowest = lowest_bit if config.DISABLE_JIT else lowest_bit.for_numba

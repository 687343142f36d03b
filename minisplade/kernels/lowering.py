"""The instructions of each tile, for LLVM.

LLVM vectorises simple loops well, but does not keep a block of sums in registers while it streams
two matrices past it. So tiles are put together here by hand; tiles.py says what they compute.
"""

import inspect
from collections.abc import Callable
from typing import Any

from numba import types
from numba.extending import intrinsic

from minisplade.kernels.ir import (
    FLOAT32,
    INT1,
    INT8,
    INT16,
    INT32,
    Emitter,
    Value,
    constant,
    vector,
)
from minisplade.kernels.tiles import LANES, PANEL, ROWS

RETURNS = {"int64": types.int64, "float32": types.float32, "none": types.void}


def intrinsic_of(definition: Callable[..., Any], returns: str) -> Any:
    """Return what Numba compiles a call of a tile to.

    An intrinsic becomes part of its caller; a call would cost as much as the tile itself.
    """
    lowering = LOWERINGS[definition.__name__]

    def typing(_: Any, *args: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Value:
            result = lowering(Emitter(context, builder, signature.args), *values)
            return context.get_dummy_value() if returns == "none" else result

        widened = (types.int64 if isinstance(arg, types.Integer) else arg for arg in args)
        return RETURNS[returns](*widened), generate

    parameters = inspect.signature(definition).parameters.values()
    plain = (p.replace(annotation=inspect.Parameter.empty) for p in parameters)
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    typing.__signature__ = inspect.Signature([context, *plain])  # type: ignore[attr-defined]
    typing.__name__ = definition.__name__
    return intrinsic(typing)


def multiply_tile(
    emit: Emitter,
    x: Value,
    x_start: Value,
    x_stride: Value,
    panel: Value,
    panel_start: Value,
    size: Value,
    out: Value,
    out_start: Value,
    out_stride: Value,
) -> None:
    """Broadcast one number a row and step, and multiply it with two vectors of weights."""
    builder, lanes = emit.builder, vector(FLOAT32, 8)
    columns = range(PANEL // 8)
    first_input = emit.pointer(0, x, x_start, FLOAT32)
    first_sum = emit.pointer(6, out, out_start, FLOAT32)
    inputs = [emit.moved(first_input, emit.product(x_stride, row)) for row in range(ROWS)]
    places = [emit.moved(first_sum, emit.product(out_stride, r), lanes) for r in range(ROWS)]
    weights = emit.pointer(3, panel, panel_start, lanes)
    zero = constant(lanes, 0.0)
    sums = [[emit.variable(zero) for _ in columns] for _ in places]
    with emit.steps(size) as step:
        at = emit.product(step.index, len(columns))
        taken = [emit.load(weights, emit.plus(at, column)) for column in columns]
        for row in range(ROWS):
            value = emit.splat(emit.load(inputs[row], step.index), 8)
            for column in columns:
                old = builder.load(sums[row][column])
                builder.store(emit.multiply_add(value, taken[column], old), sums[row][column])
    for row in range(ROWS):
        for column in columns:
            before = emit.load(places[row], column)
            total = builder.fadd(before, builder.load(sums[row][column]))
            emit.store(total, places[row], column)


def dot(emit: Emitter, a: Value, a_start: Value, b: Value, b_start: Value, size: Value) -> Value:
    """Add products in LANES partial sums."""
    builder, lanes = emit.builder, vector(FLOAT32, LANES)
    left, right = emit.pointer(0, a, a_start, lanes), emit.pointer(2, b, b_start, lanes)
    partial = emit.variable(constant(lanes, 0.0))
    with emit.steps(builder.udiv(size, constant(size.type, LANES))) as step:
        pair = emit.load(left, step.index), emit.load(right, step.index)
        builder.store(emit.multiply_add(*pair, builder.load(partial)), partial)
    return emit.total(builder.load(partial))


def bound_tile(
    emit: Emitter,
    codes: Value,
    codes_start: Value,
    size: Value,
    panel: Value,
    panel_start: Value,
    first_sums: Value,
    first_sums_start: Value,
    block: Value,
    scales: Value,
    slacks: Value,
    row: Value,
    floors: Value,
    floors_start: Value,
    hits: Value,
) -> Value:
    """Lower to AVX2: VPMADDUBSW multiplies bytes and adds pairs, at three times float32's rate."""
    builder = emit.builder
    bytes_, halves, words, floats = (
        vector(INT8, 32),
        vector(INT16, 16),
        vector(INT32, 8),
        vector(FLOAT32, 8),
    )
    columns = range(PANEL // 8)
    first_code = emit.pointer(0, codes, codes_start, INT8)
    inputs = [emit.moved(first_code, emit.product(size, token), INT32) for token in range(ROWS)]
    weights = emit.pointer(3, panel, panel_start, bytes_)
    starts = emit.pointer(5, first_sums, first_sums_start, halves)
    totals = [[emit.variable(constant(words, 0)) for _ in columns] for _ in range(ROWS)]
    sums = [[emit.variable(constant(halves, 0)) for _ in columns] for _ in range(ROWS)]
    steps = builder.udiv(block, constant(block.type, 4))
    with emit.steps(builder.udiv(size, block)) as part:
        for column in columns:
            at = emit.plus(emit.product(part.index, len(columns)), column)
            start = emit.load(starts, at)
            for token in range(ROWS):
                builder.store(start, sums[token][column])
        with emit.steps(steps) as step:
            place = emit.plus(emit.product(part.index, steps), step.index)
            at = emit.product(place, len(columns))
            taken = [emit.load(weights, emit.plus(at, column)) for column in columns]
            for token in range(ROWS):
                code = builder.bitcast(emit.splat(emit.load(inputs[token], place), 8), bytes_)
                for column in columns:
                    pairs = emit.call(
                        "llvm.x86.avx2.pmadd.ub.sw", code, taken[column], returns=halves
                    )
                    old = builder.load(sums[token][column])
                    builder.store(builder.add(old, pairs), sums[token][column])
        for token in range(ROWS):
            for column in columns:
                wide = emit.call(
                    "llvm.x86.avx2.pmadd.wd",
                    builder.load(sums[token][column]),
                    constant(halves, 1),
                    returns=words,
                )
                old = builder.load(totals[token][column])
                builder.store(builder.add(old, wide), totals[token][column])
    scale = emit.pointer(8, scales, row, FLOAT32)
    slack = emit.pointer(9, slacks, row, FLOAT32)
    floor = emit.pointer(11, floors, floors_start, floats)
    place = emit.pointer(13, hits, constant(row.type, 0), INT8)
    lowest = [emit.load(floor, column) for column in columns]
    found, either = [], constant(vector(INT1, 8), 0)
    for token in range(ROWS):
        times = emit.splat(emit.load(scale, token), 8)
        plus = emit.splat(emit.load(slack, token), 8)
        for column in columns:
            limit = emit.multiply_add(times, lowest[column], plus)
            product = builder.sitofp(builder.load(totals[token][column]), floats)
            # Unordered: NaN, where weights are too large for a bound, is a hit.
            found.append(builder.fcmp_unordered(">", product, limit))
            either = builder.or_(either, found[-1])
    union = builder.zext(builder.bitcast(either, INT8), row.type)
    with builder.if_then(builder.icmp_unsigned("!=", union, constant(row.type, 0)), likely=False):
        for at, hit in enumerate(found):
            emit.store(builder.bitcast(hit, INT8), place, at)
    return union


def float_from_bits(emit: Emitter, bits: Value) -> Value:
    """Look at the same register in another way."""
    # Numba adds int32 numbers as int64; LLVM narrows what is cut off here.
    narrow = bits if bits.type == INT32 else emit.builder.trunc(bits, INT32)
    return emit.builder.bitcast(narrow, FLOAT32)


LOWERINGS: dict[str, Callable[..., Value]] = {
    "multiply_tile": multiply_tile,
    "dot": dot,
    "bound_tile": bound_tile,
    "float_from_bits": float_from_bits,
}

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
    INT64,
    Emitter,
    Value,
    constant,
    vector,
)
from minisplade.kernels.tiles import LANES, PANEL, ROWS, TERMS
from minisplade.runtime import cpu_features

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


def register_lanes() -> int:
    """Return how many float32 or int32 numbers a vector register of this CPU has room for."""
    return 16 if {"avx512f", "avx512bw"} <= cpu_features() else 8


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
    """Add the products of one panel."""
    first_input = emit.pointer(0, x, x_start, FLOAT32)
    weights = emit.pointer(3, panel, panel_start, FLOAT32)
    first_sum = emit.pointer(6, out, out_start, FLOAT32)
    add_products(emit, first_input, x_stride, [weights], size, first_sum, out_stride)


def multiply_two_tiles(
    emit: Emitter,
    x: Value,
    x_start: Value,
    x_stride: Value,
    panels: Value,
    panels_start: Value,
    panel_size: Value,
    size: Value,
    out: Value,
    out_start: Value,
    out_stride: Value,
) -> None:
    """Add the products of both panels at once where registers are wide, and else in turn."""
    first_input = emit.pointer(0, x, x_start, FLOAT32)
    weights = emit.pointer(3, panels, panels_start, FLOAT32)
    first_sum = emit.pointer(7, out, out_start, FLOAT32)
    both = [weights, emit.moved(weights, panel_size)]
    if register_lanes() == PANEL:
        add_products(emit, first_input, x_stride, both, size, first_sum, out_stride)
        return
    for panel, place in zip(both, (first_sum, emit.moved(first_sum, PANEL))):
        add_products(emit, first_input, x_stride, [panel], size, place, out_stride)


def add_products(
    emit: Emitter,
    first_input: Value,
    x_stride: Value,
    panels: list[Value],
    size: Value,
    first_sum: Value,
    out_stride: Value,
) -> None:
    """Broadcast one number a row and step, and multiply it with some vectors of weights."""
    builder, lanes = emit.builder, register_lanes()
    numbers, in_panel = vector(FLOAT32, lanes), PANEL // lanes
    inputs = [emit.moved(first_input, emit.product(x_stride, row)) for row in range(ROWS)]
    places = [emit.moved(first_sum, emit.product(out_stride, r), numbers) for r in range(ROWS)]
    weights = [emit.moved(panel, 0, numbers) for panel in panels]
    zero = constant(numbers, 0.0)
    columns = range(in_panel * len(panels))
    sums = [[emit.variable(zero) for _ in columns] for _ in places]
    with emit.steps(size) as step:
        at = emit.product(step.index, in_panel)
        taken = [emit.load(w, emit.plus(at, part)) for w in weights for part in range(in_panel)]
        for row in range(ROWS):
            value = emit.splat(emit.load(inputs[row], step.index), lanes)
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
    return emit.folded(builder.load(partial), builder.fadd)


def largest(emit: Emitter, x: Value, start: Value, size: Value) -> Value:
    """Keep a maximum in every lane: one instruction, where Numba's max() minds NaN and zeros."""
    builder, numbers = emit.builder, vector(FLOAT32, 8)
    first = emit.pointer(0, x, start, numbers)
    best = emit.variable(emit.load(first))

    def larger(a: Value, b: Value) -> Value:
        return builder.select(builder.fcmp_ordered(">", a, b), a, b)

    with emit.steps(builder.udiv(size, constant(size.type, 8))) as step:
        builder.store(larger(emit.load(first, step.index), builder.load(best)), best)
    return emit.folded(builder.load(best), larger)


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
    """Add products of bytes for as many terms at once as 12 registers hold, then compare."""
    builder, lanes = emit.builder, register_lanes()
    numbers, at_once = vector(FLOAT32, lanes), 2 * lanes
    first_code = emit.pointer(0, codes, codes_start, INT8)
    inputs = [emit.moved(first_code, emit.product(size, token), INT32) for token in range(ROWS)]
    scale, slack = emit.pointer(8, scales, row, FLOAT32), emit.pointer(9, slacks, row, FLOAT32)
    first_hit = emit.pointer(13, hits, constant(row.type, 0), INT64)
    for place in range(ROWS * TERMS // 64):
        emit.store(constant(INT64, 0), first_hit, place)
    union = constant(row.type, 0)
    for start in range(0, TERMS, at_once):
        weights = emit.moved(emit.pointer(3, panel, panel_start, INT8), 4 * start)
        starts = emit.moved(emit.pointer(5, first_sums, first_sums_start, INT32), start)
        products = code_products(emit, inputs, weights, starts, size, block)
        floor = emit.moved(emit.pointer(11, floors, floors_start, FLOAT32), start, numbers)
        lowest = [emit.load(floor, column) for column in range(2)]
        found, either = [], constant(vector(INT1, lanes), 0)
        for token in range(ROWS):
            times = emit.splat(emit.load(scale, token), lanes)
            plus = emit.splat(emit.load(slack, token), lanes)
            for column in range(2):
                limit = emit.multiply_add(times, lowest[column], plus)
                product = builder.sitofp(products[token][column], numbers)
                # Unordered: NaN, where weights are too large for a bound, is a hit.
                found.append(builder.fcmp_unordered(">", product, limit))
                either = builder.or_(either, found[-1])
        mask = INT16 if lanes == 16 else INT8
        some = builder.zext(builder.bitcast(either, mask), row.type)
        with builder.if_then(builder.icmp_unsigned("!=", some, constant(row.type, 0)), False):
            for place, hit in enumerate(found):
                byte = (place // 2 * TERMS + start + place % 2 * lanes) // 8
                to = builder.bitcast(first_hit, INT8.as_pointer())
                emit.store(builder.bitcast(hit, mask), emit.moved(to, byte, mask))
        union = builder.or_(union, some)
    return union


def code_products(
    emit: Emitter, inputs: list[Value], weights: Value, starts: Value, size: Value, block: Value
) -> list[list[Value]]:
    """Multiply the codes of ROWS tokens with those of two registers of terms.

    One instruction of VNNI multiplies four bytes of each lane and adds all to 32 bits. AVX2 needs
    two, VPMADDUBSW and an addition, and adds to 16 bits, of which two halves are added at the end
    of a block: still three times as fast as float32.
    """
    builder, lanes = emit.builder, register_lanes()
    bytes_, halves, words = vector(INT8, 4 * lanes), vector(INT16, 2 * lanes), vector(INT32, lanes)
    vnni = bool({"avx512vnni" if lanes == 16 else "avxvnni"} & cpu_features())
    wide = lanes == 16
    multiply_bytes = "llvm.x86.avx512.pmaddubs.w.512" if wide else "llvm.x86.avx2.pmadd.ub.sw"
    add_halves = "llvm.x86.avx512.pmaddw.d.512" if wide else "llvm.x86.avx2.pmadd.wd"
    columns, kind = range(2), words if vnni else halves
    weights, starts = emit.moved(weights, 0, kind), emit.moved(starts, 0, words)
    totals = [[emit.variable(constant(words, 0)) for _ in columns] for _ in inputs]
    sums = (
        totals if vnni else [[emit.variable(constant(halves, 0)) for _ in columns] for _ in inputs]
    )
    in_step = TERMS // lanes
    steps = builder.udiv(block, constant(block.type, 4))
    with emit.steps(builder.udiv(size, block)) as part:
        with emit.steps(steps) as step:
            place = emit.plus(emit.product(part.index, steps), step.index)
            at = emit.product(place, in_step)
            taken = [emit.load(weights, emit.plus(at, column)) for column in columns]
            for token, code_pointer in enumerate(inputs):
                code = emit.splat(emit.load(code_pointer, place), lanes)
                for column in columns:
                    old = builder.load(sums[token][column])
                    if vnni:
                        name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
                        new = emit.call(name, old, code, taken[column], returns=words)
                    else:
                        pair = builder.bitcast(code, bytes_), builder.bitcast(taken[column], bytes_)
                        new = builder.add(old, emit.call(multiply_bytes, *pair, returns=halves))
                    builder.store(new, sums[token][column])
        for column in columns:
            start = emit.load(starts, emit.plus(emit.product(part.index, in_step), column))
            for token in range(ROWS):
                more = start
                if not vnni:
                    half = builder.load(sums[token][column])
                    builder.store(constant(halves, 0), sums[token][column])
                    more = builder.add(
                        emit.call(add_halves, half, constant(halves, 1), returns=words), start
                    )
                    # What wrapped around is a multiple of 2**16 away from the true sum.
                    up = constant(words, 16)
                    more = builder.ashr(builder.shl(more, up), up)
                old = builder.load(totals[token][column])
                builder.store(builder.add(old, more), totals[token][column])
    return [[builder.load(total) for total in row] for row in totals]


def float_from_bits(emit: Emitter, bits: Value) -> Value:
    """Look at the same register in another way."""
    # Numba adds int32 numbers as int64; LLVM narrows what is cut off here.
    narrow = bits if bits.type == INT32 else emit.builder.trunc(bits, INT32)
    return emit.builder.bitcast(narrow, FLOAT32)


LOWERINGS: dict[str, Callable[..., Value]] = {
    "multiply_tile": multiply_tile,
    "multiply_two_tiles": multiply_two_tiles,
    "dot": dot,
    "largest": largest,
    "bound_tile": bound_tile,
    "float_from_bits": float_from_bits,
}

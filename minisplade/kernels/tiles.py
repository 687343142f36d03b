"""Products of tiles whose sums stay in registers: what nearly all the time of encoding is spent on.

Each function below is its own definition, in NumPy, and runs as such when the compiler is switched
off. Compiled code gets the instructions that the lowering above it puts together.
"""

import numpy as np

from minisplade.arrays import ByteArray, CodeArray, FloatArray, HalfArray
from minisplade.kernels.ir import (
    FLOAT32,
    INT1,
    INT8,
    INT16,
    INT32,
    Emitter,
    Value,
    constant,
    lowered_by,
    vector,
)

ROWS = 6
"""Tokens in a tile: with PANEL columns, 12 sums of 8 lanes fill AVX2's 16 registers but for 4."""
PANEL = 16
"""Outputs in a tile, and in a packed panel of weights."""
LANES = 8
"""Partial sums of a dot product: part of the result's bytes, so the same on every CPU."""
CODE_OFFSET = 128
"""What is added to the int8 code of a hidden state to make it uint8."""


def _multiply_tile(
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
    builder, lanes = emit.builder, vector(FLOAT32, 8)
    columns = range(PANEL // 8)
    first_input = emit.pointer(0, x, x_start, FLOAT32)
    first_sum = emit.pointer(6, out, out_start, FLOAT32)
    inputs = [emit.moved(first_input, emit.product(x_stride, row)) for row in range(ROWS)]
    places = [emit.moved(first_sum, emit.product(out_stride, r), lanes) for r in range(ROWS)]
    weights = emit.pointer(3, panel, panel_start, lanes)
    sums = [[emit.variable(emit.load(place, column)) for column in columns] for place in places]
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
            emit.store(builder.load(sums[row][column]), places[row], column)


@lowered_by(_multiply_tile, returns="none")
def multiply_tile(
    x: FloatArray,
    x_start: int,
    x_stride: int,
    panel: FloatArray,
    panel_start: int,
    size: int,
    out: FloatArray,
    out_start: int,
    out_stride: int,
) -> None:
    """Add the product of ROWS rows and one panel to a tile of out.

    x: float32, its rows x_stride apart; panel: float32 (size, PANEL) from panel_start on; out:
    float32, its rows out_stride apart. Each sum runs over size in order, one rounding a step, so
    it does not depend on the tile that it is computed in.
    """
    weights = panel[panel_start : panel_start + size * PANEL].reshape(size, PANEL)
    for row in range(ROWS):
        inputs = x[x_start + row * x_stride :][:size]
        out[out_start + row * out_stride :][:PANEL] += inputs @ weights


def _dot(emit: Emitter, a: Value, a_start: Value, b: Value, b_start: Value, size: Value) -> Value:
    builder, lanes = emit.builder, vector(FLOAT32, LANES)
    left, right = emit.pointer(0, a, a_start, lanes), emit.pointer(2, b, b_start, lanes)
    partial = emit.variable(constant(lanes, 0.0))
    with emit.steps(builder.udiv(size, constant(size.type, LANES))) as step:
        pair = emit.load(left, step.index), emit.load(right, step.index)
        builder.store(emit.multiply_add(*pair, builder.load(partial)), partial)
    return emit.total(builder.load(partial))


@lowered_by(_dot, returns="float32")
def dot(a: FloatArray, a_start: int, b: FloatArray, b_start: int, size: int) -> np.float32:
    """Multiply two vectors, with LANES partial sums that are added by halves.

    a, b: float32, from their starts on; size: a multiple of LANES.
    """
    products = a[a_start : a_start + size] * b[b_start : b_start + size]
    partial = products.reshape(-1, LANES).sum(axis=0)
    while partial.size > 1:
        partial = partial[: partial.size // 2] + partial[partial.size // 2 :]
    return partial[0]


def _bound_tile(
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


@lowered_by(_bound_tile, returns="int64")
def bound_tile(
    codes: ByteArray,
    codes_start: int,
    size: int,
    panel: CodeArray,
    panel_start: int,
    first_sums: HalfArray,
    first_sums_start: int,
    block: int,
    scales: FloatArray,
    slacks: FloatArray,
    row: int,
    floors: FloatArray,
    floors_start: int,
    hits: ByteArray,
) -> int:
    """Find the pairs of ROWS tokens and PANEL terms whose logit may be positive.

    codes: uint8 (..., size), hidden states plus CODE_OFFSET; panel: int8 (size / 4, PANEL, 4);
    first_sums: int16 (size / block, PANEL, 2), what undoes CODE_OFFSET; scales, slacks: float32,
    from row on; floors: float32, from floors_start on. A pair is a hit unless product <= scale *
    floor + slack. hits: uint8 (2 * ROWS,), receives one bit for each pair, 8 terms a byte, if any
    is set. Sums within a block are int16 and wrap around, which is right as long as the true sum
    fits.
    Returns the union of all bytes of hits.
    """
    num_blocks, union = size // block, 0
    for column in range(PANEL):
        steps = panel[panel_start : panel_start + size * PANEL].reshape(-1, PANEL, 4)
        term = steps[:, column].reshape(num_blocks, -1, 2, 2).astype(np.int32)
        start = first_sums[first_sums_start:][: num_blocks * PANEL * 2].reshape(-1, PANEL, 2)
        for token in range(ROWS):
            code = codes[codes_start + token * size :][:size].reshape(num_blocks, -1, 2, 2)
            halves = (term * code).sum(axis=(1, 3)) + start[:, column]
            product = int(halves.astype(np.int16).sum(dtype=np.int32))
            with np.errstate(over="ignore", invalid="ignore"):  # no finite bound: always a hit
                limit = scales[row + token] * floors[floors_start + column] + slacks[row + token]
            bit = 1 << column % 8
            hits[2 * token + column // 8] &= 255 - bit
            if not product <= limit:
                hits[2 * token + column // 8] |= bit
                union |= bit
    return union


def _float_from_bits(emit: Emitter, bits: Value) -> Value:
    # Numba adds int32 numbers as int64; LLVM narrows what is cut off here.
    narrow = bits if bits.type == INT32 else emit.builder.trunc(bits, INT32)
    return emit.builder.bitcast(narrow, FLOAT32)


@lowered_by(_float_from_bits, returns="float32")
def float_from_bits(bits: int) -> np.float32:
    """Read the 32 bits of an integer as a float32."""
    return np.int32(bits).view(np.float32)

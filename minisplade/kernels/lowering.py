"""The instructions of each tile, for LLVM.

LLVM vectorises simple loops well, but does not keep a block of sums in registers while it streams
two matrices past it. So tiles are put together here by hand; tiles.py says what they compute.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

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
from minisplade.kernels.masks import LANES as MASK_LANES
from minisplade.kernels.tiles import COLUMNS, LANES, PANEL, ROWS, TALLEST, has_vnni, register_lanes

RETURNS = {
    "int64": types.int64,
    "uint64": types.uint64,
    "float32": types.float32,
    "none": types.void,
}


def intrinsic_of(definition: Callable[..., Any], returns: str) -> Any:
    """Return what Numba compiles a call of a tile to.

    An intrinsic becomes part of its caller; a call would cost as much as the tile itself.
    """
    lowering = LOWERINGS[definition.__name__]

    def typing(_: Any, *args: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Value:
            result = lowering(Emitter(context, builder, signature.args), *values)
            return context.get_dummy_value() if returns == "none" else result

        widened = [types.int64 if isinstance(arg, types.Integer) else arg for arg in args]
        kind = array_type(args) if returns == "array" else RETURNS[returns]
        return kind(*widened), generate

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
    rows: Value,
) -> None:
    """Add the products of one panel."""
    first_input = emit.pointer(0, x, x_start, FLOAT32)
    weights = emit.pointer(3, panel, panel_start, FLOAT32)
    first_sum = emit.pointer(6, out, out_start, FLOAT32)
    for height in each_height(emit, rows):
        add_products(emit, first_input, x_stride, [weights], size, first_sum, out_stride, height)


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
    rows: Value,
) -> None:
    """Add the products of both panels at once where registers are wide, and else in turn."""
    first_input = emit.pointer(0, x, x_start, FLOAT32)
    weights = emit.pointer(3, panels, panels_start, FLOAT32)
    first_sum = emit.pointer(7, out, out_start, FLOAT32)
    both = [weights, emit.moved(weights, panel_size)]
    if register_lanes() == PANEL:
        for height in each_height(emit, rows):
            add_products(emit, first_input, x_stride, both, size, first_sum, out_stride, height)
        return
    for panel, place in zip(both, (first_sum, emit.moved(first_sum, PANEL))):
        for height in each_height(emit, rows):
            add_products(emit, first_input, x_stride, [panel], size, place, out_stride, height)


def each_height(emit: Emitter, rows: Value) -> Iterator[int]:
    """Go through the heights of a tile, in the branch where rows is that one."""
    for height in range(ROWS, TALLEST + 1):
        here = emit.builder.icmp_signed("==", rows, constant(rows.type, height))
        with emit.builder.if_then(here):
            yield height


def add_products(
    emit: Emitter,
    first_input: Value,
    x_stride: Value,
    panels: list[Value],
    size: Value,
    first_sum: Value,
    out_stride: Value,
    rows: int,
) -> None:
    """Broadcast one number a row and step, and multiply it with some vectors of weights."""
    builder, lanes = emit.builder, register_lanes()
    numbers, in_panel = vector(FLOAT32, lanes), PANEL // lanes
    inputs = [emit.moved(first_input, emit.product(x_stride, row)) for row in range(rows)]
    places = [emit.moved(first_sum, emit.product(out_stride, r), numbers) for r in range(rows)]
    weights = [emit.moved(panel, 0, numbers) for panel in panels]
    zero = constant(numbers, 0.0)
    columns = range(in_panel * len(panels))
    sums = [[emit.variable(zero) for _ in columns] for _ in places]
    with emit.steps(size) as step:
        at = emit.product(step.index, in_panel)
        taken = [emit.load(w, emit.plus(at, part)) for w in weights for part in range(in_panel)]
        for row in range(rows):
            value = emit.splat(emit.load(inputs[row], step.index), lanes)
            for column in columns:
                old = builder.load(sums[row][column])
                builder.store(emit.multiply_add(value, taken[column], old), sums[row][column])
    for row in range(rows):
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
    depth: Value,
    panel: Value,
    panel_start: Value,
    first_sums: Value,
    first_sums_start: Value,
    block: Value,
    scales: Value,
    row: Value,
    slacks: Value,
    slacks_start: Value,
    floors: Value,
    floors_start: Value,
    number: Value,
    waiting: Value,
    count: Value,
) -> Value:
    """Write every number, and let the next one take its place unless the token waits."""
    builder, lanes = emit.builder, register_lanes()
    first_code = emit.pointer(0, codes, codes_start, INT8)
    products = Products(
        emit,
        [emit.moved(first_code, emit.product(size, token), INT32) for token in range(ROWS)],
        emit.pointer(4, panel, panel_start, INT8),
        emit.pointer(6, first_sums, first_sums_start, INT32),
    )
    products.add(depth, block)
    scale = emit.pointer(9, scales, row, FLOAT32)
    slack = emit.pointer(11, slacks, slacks_start, FLOAT32)
    floor = emit.pointer(13, floors, floors_start, vector(FLOAT32, lanes))
    first = emit.pointer(16, waiting, constant(INT64, 0), INT64)
    for token in range(ROWS):
        exceeded = products.exceeding(
            token, emit.load(scale, token), floor, emit.load(slack, token)
        )
        emit.store(emit.plus(number, token), first, count)
        mask = ir.IntType(lanes)
        any_of = builder.bitcast(functools.reduce(builder.or_, exceeded), mask)
        some = builder.icmp_unsigned("!=", any_of, constant(mask, 0))
        count = builder.add(count, builder.zext(some, count.type))
    return count


def bound_row(
    emit: Emitter,
    codes: Value,
    codes_start: Value,
    size: Value,
    panel: Value,
    panel_start: Value,
    first_sums: Value,
    first_sums_start: Value,
    block: Value,
    scale: Value,
    slack: Value,
    floors: Value,
    floors_start: Value,
) -> Value:
    """Make the comparisons' bits a number."""
    builder = emit.builder
    products = Products(
        emit,
        [emit.pointer(0, codes, codes_start, INT32)],
        emit.pointer(3, panel, panel_start, INT8),
        emit.pointer(5, first_sums, first_sums_start, INT32),
    )
    products.add(size, block)
    floor = emit.pointer(10, floors, floors_start, vector(FLOAT32, register_lanes()))
    exceeded = products.exceeding(0, scale, floor, slack)
    lanes = register_lanes()
    bits = constant(INT64, 0)
    for column, found in enumerate(exceeded):
        own = builder.zext(builder.bitcast(found, ir.IntType(lanes)), INT64)
        bits = builder.or_(bits, builder.shl(own, constant(INT64, column * lanes)))
    return bits


class Products:
    """The products of the codes of some tokens and of COLUMNS registers of terms, as they add up.

    One instruction of VNNI multiplies four bytes of each lane and adds all to 32 bits. Without it
    there are two, VPMADDUBSW and an addition, to 16 bits, of which two halves are added at the end
    of a piece: still three times as fast as float32.
    """

    def __init__(self, emit: Emitter, inputs: list[Value], weights: Value, starts: Value) -> None:
        """Take pointers to the codes of each token, of the terms, and to first sums."""
        self.emit, self.inputs = emit, inputs
        self.lanes = register_lanes()
        self.bytes = vector(INT8, 4 * self.lanes)
        self.halves, self.words = vector(INT16, 2 * self.lanes), vector(INT32, self.lanes)
        self.vnni = has_vnni()
        self.weights = emit.moved(weights, 0, self.words)
        self.starts = emit.moved(starts, 0, self.words)
        if self.vnni:
            first = [emit.load(self.starts, column) for column in range(COLUMNS)]
            self.totals = [[emit.variable(start) for start in first] for _ in inputs]
            self.sums = self.totals
        else:
            self.totals = self._zeros(self.words)
            self.sums = self._zeros(self.halves)

    def _zeros(self, kind: Any) -> list[list[Value]]:
        zero = constant(kind, 0)
        return [[self.emit.variable(zero) for _ in range(COLUMNS)] for _ in self.inputs]

    def exceeding(self, token: int, scale: Value, floor: Value, slack: Value) -> list[Value]:
        """Compare what has been added with scale * floor + slack, in all columns."""
        emit, found = self.emit, []
        times, plus = emit.splat(scale, self.lanes), emit.splat(slack, self.lanes)
        for column, total in enumerate(self.totals[token]):
            limit = emit.multiply_add(times, emit.load(floor, column), plus)
            product = emit.builder.sitofp(emit.builder.load(total), limit.type)
            # Unordered: NaN, where weights are too large for a bound, is a hit.
            found.append(emit.builder.fcmp_unordered(">", product, limit))
        return found

    def add(self, columns: Value, block: Value) -> None:
        """Add some columns, from the first on: piece by piece, which is all at once with VNNI."""
        emit, builder = self.emit, self.emit.builder
        four = constant(INT64, 4)
        all_steps = builder.udiv(columns, four)
        if self.vnni:
            with emit.steps(all_steps) as step:
                self._add_step(step.index)
            return
        left = emit.variable(all_steps)
        whole = builder.udiv(block, four)
        step, piece = (emit.variable(constant(INT64, 0)) for _ in range(2))
        with emit.until_zero(left):
            before = builder.load(left)
            less = builder.icmp_signed("<", before, whole)
            steps = builder.select(less, before, whole)
            with emit.steps(steps) as inner:
                self._add_step(emit.plus(builder.load(step), inner.index))
            self._end_piece(builder.load(piece))
            builder.store(emit.plus(builder.load(step), steps), step)
            builder.store(emit.plus(builder.load(piece), 1), piece)
            builder.store(builder.sub(before, steps), left)

    def _add_step(self, step: Value) -> None:
        """Add four columns."""
        emit, builder, lanes = self.emit, self.emit.builder, self.lanes
        at = emit.product(step, COLUMNS)
        taken = [emit.load(self.weights, emit.plus(at, column)) for column in range(COLUMNS)]
        for token, code_pointer in enumerate(self.inputs):
            code = emit.splat(emit.load(code_pointer, step), lanes)
            for column, old_sum in enumerate(self.sums[token]):
                pair, old = (code, taken[column]), builder.load(old_sum)
                if self.vnni:
                    name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
                    new = emit.call(name, old, *pair, returns=self.words)
                else:
                    name = "avx512.pmaddubs.w.512" if lanes == 16 else "avx2.pmadd.ub.sw"
                    two = (builder.bitcast(side, self.bytes) for side in pair)
                    products = emit.call(f"llvm.x86.{name}", *two, returns=self.halves)
                    new = builder.add(old, products)
                builder.store(new, old_sum)

    def _end_piece(self, piece: Value) -> None:
        """Undo CODE_OFFSET, and bring 16-bit sums into the totals."""
        emit, builder = self.emit, self.emit.builder
        name = "avx512.pmaddw.d.512" if self.lanes == 16 else "avx2.pmadd.wd"
        for column in range(COLUMNS):
            at = emit.plus(emit.product(piece, COLUMNS), column)
            start = emit.load(self.starts, at)
            for sums, totals in zip(self.sums, self.totals):
                halves = builder.load(sums[column]), constant(self.halves, 1)
                both = emit.call(f"llvm.x86.{name}", *halves, returns=self.words)
                builder.store(constant(self.halves, 0), sums[column])
                # What has wrapped around is a multiple of 2**16 away from the true sum.
                up = constant(self.words, 16)
                more = builder.ashr(builder.shl(builder.add(both, start), up), up)
                builder.store(builder.add(builder.load(totals[column]), more), totals[column])


def lowest_bit(emit: Emitter, bits: Value) -> Value:
    """Count the zeros below it."""
    return emit.call("llvm.cttz.i64", bits, constant(INT1, 0), returns=INT64)


def float_from_bits(emit: Emitter, bits: Value) -> Value:
    """Look at the same register in another way."""
    # Numba adds int32 numbers as int64; LLVM narrows what is cut off here.
    narrow = bits if bits.type == INT32 else emit.builder.trunc(bits, INT32)
    return emit.builder.bitcast(narrow, FLOAT32)


def reaching(emit: Emitter, array: Value, start: Value, least: Value) -> Value:
    """Compare all at once, and let the bits of the result follow each other."""
    number = emit.arg_types[0].dtype
    lanes = vector(emit.context.get_data_type(number), MASK_LANES)
    values = emit.load(emit.pointer(0, array, start, lanes))
    bound = emit.context.cast(emit.builder, least, types.int64, number)
    compare = emit.builder.icmp_signed if number.signed else emit.builder.icmp_unsigned
    mask = compare(">=", values, emit.splat(bound, MASK_LANES))
    return emit.builder.bitcast(mask, INT64)


def array_type(arg_types: Sequence[Any]) -> Any:
    """Say what array_at returns, from the types of its address, shape and kind."""
    return types.Array(arg_types[2].dtype, len(arg_types[1]), "C")


def array_at(emit: Emitter, address: Value, shape: Value, _: Value) -> Value:
    """Fill in the fields of Numba's array, which has no owner here."""
    kind = array_type(emit.arg_types)
    array = emit.context.make_array(kind)(emit.context, emit.builder)
    item = constant(INT64, emit.context.get_abi_sizeof(emit.context.get_data_type(kind.dtype)))
    sizes = emit.parts(shape)
    steps = [item]
    for size in reversed(sizes[1:]):
        steps.insert(0, emit.product(steps[0], size))
    data = emit.builder.inttoptr(address, array.data.type)
    populate_array(array, data, sizes, steps, item, None)
    return array._getvalue()


def prefetch(emit: Emitter, array: Value, index: Value) -> None:
    """Ask for a cache line that is to be read and to stay near."""
    place = emit.pointer(0, array, index, INT8)
    how = (constant(INT32, number) for number in (0, 3, 1))  # read, keep, data
    emit.call("llvm.prefetch.p0i8", place, *how, returns=ir.VoidType())


LOWERINGS: dict[str, Callable[..., Value]] = {
    "multiply_tile": multiply_tile,
    "multiply_two_tiles": multiply_two_tiles,
    "dot": dot,
    "largest": largest,
    "bound_tile": bound_tile,
    "bound_row": bound_row,
    "lowest_bit": lowest_bit,
    "reaching": reaching,
    "array_at": array_at,
    "prefetch": prefetch,
    "float_from_bits": float_from_bits,
}

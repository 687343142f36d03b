"""Products of tiles whose sums stay in registers: what nearly all the time of encoding is spent on.

Each function below is its own definition, in NumPy, and runs as such when the compiler is switched
off. Compiled code gets the instructions that lowering.py puts together for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, update_wrapper
from typing import Any

import numpy as np

from minisplade.arrays import BoolArray, ByteArray, CodeArray, FloatArray, OffsetArray, SumArray
from minisplade.runtime import cpu_features

ROWS = 6
"""Tokens in a tile: with PANEL columns, 12 sums of 8 lanes fill AVX2's 16 registers but for 4."""
PANEL = 16
"""Outputs in a tile, and in a packed panel of weights."""
LANES = 8
"""Partial sums of a dot product: part of the result's bytes, so the same on every CPU."""
CODE_OFFSET = 128
"""What is added to the int8 code of a hidden state to make it uint8."""


def register_lanes() -> int:
    """Return how many float32 or int32 numbers a vector register has room for."""
    return 16 if {"avx512f", "avx512bw"} <= cpu_features() else 8


TALLEST = ROWS + (2 if register_lanes() == 16 else 0)
"""Tokens in the tallest tile of a product: with 32 registers there is room for some more."""
FEW_ROWS = 10 * ROWS
"""Where there are no more, what the last tile is short of counts."""

COLUMNS = 4 if register_lanes() == 16 else 2
"""Registers of terms that are bounded at once: the more, the fewer loads for each product."""
TERMS = COLUMNS * register_lanes()
"""Terms that are bounded at once, and whose codes are packed together."""


def has_vnni() -> bool:
    """Tell whether one instruction multiplies bytes and adds the products to 32 bits."""
    return ("avx512vnni" if register_lanes() == 16 else "avxvnni") in cpu_features()


class Tile:
    """A definition in NumPy, with the name under which lowering.py has its instructions."""

    def __init__(self, definition: Callable[..., Any], returns: str) -> None:
        """Take the definition, and the type of its result: "none", "int64" or "float32"."""
        self.definition, self.returns = definition, returns
        update_wrapper(self, definition)

    def __call__(self, *args: Any) -> Any:
        """Run the definition."""
        return self.definition(*args)

    @cached_property
    def for_numba(self) -> Any:
        """What compiled code calls instead; importing Numba waits until something is compiled."""
        from minisplade.kernels import lowering

        return lowering.intrinsic_of(self.definition, self.returns)


def tile(returns: str) -> Callable[[Callable[..., Any]], Tile]:
    """Make a function a Tile."""
    return lambda definition: Tile(definition, returns)


@tile(returns="none")
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
    rows: int,
) -> None:
    """Add the product of some rows and one panel to a tile of out.

    x: float32, its rows x_stride apart; panel: float32 (size, PANEL) from panel_start on; out:
    float32, its rows out_stride apart; rows: from ROWS to TALLEST. Each sum starts at 0, where it
    loses least, runs over size in order with one rounding a step, and is added to out once: so it
    does not depend on the tile that it is computed in.
    """
    weights = panel[panel_start : panel_start + size * PANEL].reshape(size, PANEL)
    for row in range(rows):
        inputs = x[x_start + row * x_stride :][:size]
        out[out_start + row * out_stride :][:PANEL] += inputs @ weights


@tile(returns="none")
def multiply_two_tiles(
    x: FloatArray,
    x_start: int,
    x_stride: int,
    panels: FloatArray,
    panels_start: int,
    panel_size: int,
    size: int,
    out: FloatArray,
    out_start: int,
    out_stride: int,
    rows: int,
) -> None:
    """Do multiply_tile for two panels, panel_size apart, and columns of out side by side.

    Two tiles give AVX-512 as many sums at once as its multipliers need, and share the rows of x.
    """
    for panel in range(2):
        start, to = panels_start + panel * panel_size, out_start + panel * PANEL
        multiply_tile(x, x_start, x_stride, panels, start, size, out, to, out_stride, rows)


def whole_tiles(count: int) -> int:
    """Return the least number of rows, count or more, that tiles of ROWS to TALLEST make up."""
    missed = count % ROWS
    if count <= FEW_ROWS and missed <= (TALLEST - ROWS) * (count // ROWS):
        return count
    return round_up(count, ROWS)


def multiply(
    x: FloatArray,
    x_start: int,
    x_stride: int,
    rows: int,
    size: int,
    panels: FloatArray,
    panels_start: int,
    panel_size: int,
    out: FloatArray,
    out_start: int,
    out_stride: int,
    width: int,
) -> None:
    """Add the product of some rows and panels to out, tile by tile.

    x, out: as in multiply_tile; rows: a number that whole_tiles returns; panels: float32, the first
    from panels_start on, the next panel_size further on; width: columns, a whole number of panels.
    """
    for column in range(0, width, 2 * PANEL):
        panel = panels_start + column // PANEL * panel_size
        row = 0
        while row < rows:
            height = min(ROWS + (rows - row) % ROWS, TALLEST)
            at, to = x_start + row * x_stride, out_start + row * out_stride + column
            if column + PANEL < width:
                multiply_two_tiles(
                    x, at, x_stride, panels, panel, panel_size, size, out, to, out_stride, height
                )
            else:
                multiply_tile(x, at, x_stride, panels, panel, size, out, to, out_stride, height)
            row += height


def round_up(size: int, unit: int) -> int:
    """Return the least multiple of unit that is not below size."""
    return (size + unit - 1) // unit * unit


def panels_of(weight: FloatArray, size_in: int) -> FloatArray:
    """Cut a matrix (out, in) into flat panels (out / PANEL, size_in, PANEL), with zeros added."""
    size_out, columns = weight.shape
    padded = np.pad(weight, [(0, -size_out % PANEL), (0, size_in - columns)])
    return padded.reshape(-1, PANEL, size_in).swapaxes(1, 2).reshape(-1)


@tile(returns="float32")
def dot(a: FloatArray, a_start: int, b: FloatArray, b_start: int, size: int) -> np.float32:
    """Multiply two vectors, with LANES partial sums that are added by halves.

    a, b: float32, from their starts on; size: a multiple of LANES.
    """
    products = a[a_start : a_start + size] * b[b_start : b_start + size]
    partial = products.reshape(-1, LANES).sum(axis=0)
    while partial.size > 1:
        partial = partial[: partial.size // 2] + partial[partial.size // 2 :]
    return partial[0]


@tile(returns="float32")
def largest(x: FloatArray, start: int, size: int) -> np.float32:
    """Return the maximum of some numbers that are none of them NaN.

    x: float32, from start on; size: a multiple of PANEL, not 0.
    """
    return x[start : start + size].max()


@tile(returns="int64")
def bound_tile(
    codes: ByteArray,
    codes_start: int,
    size: int,
    depth: int,
    panel: CodeArray,
    panel_start: int,
    first_sums: SumArray,
    first_sums_start: int,
    block: int,
    scales: FloatArray,
    row: int,
    slacks: FloatArray,
    slacks_start: int,
    floors: FloatArray,
    floors_start: int,
    number: int,
    waiting: OffsetArray,
    count: int,
) -> int:
    """Find the tokens of a tile that may have a positive logit, by the first columns of codes.

    codes: uint8 (..., size), hidden states plus CODE_OFFSET, ROWS of them from codes_start on;
    panel: int8 (size / 4, TERMS, 4), of which depth columns are looked at; scales: float32, from
    row on; slacks: float32, from slacks_start on; floors: float32, from floors_start on. A token
    waits unless product <= scale * floor + slack for all terms.

    The number of each such token, which is number for the first of the tile, is appended to
    waiting, int64, which has room for ROWS more. count: how many wait; returns how many do now.
    Nothing depends on what is found but that count, so the processor has nothing to guess.

    Columns are added in pieces of a block, or of what is left if that is less. first_sums: int32
    (pieces, TERMS), what undoes CODE_OFFSET. With VNNI, one piece must do. Without it, the true
    product within a piece must fit 16 bits: then it does not matter that sums of some columns may
    wrap around on the way there, because 16 bits is what they are kept in.
    """
    for token in range(ROWS):
        state = codes[codes_start + token * size :][:depth]
        products = _products(state, panel, panel_start, first_sums[first_sums_start:], block)
        limit = scales[row + token], floors[floors_start:], slacks[slacks_start + token]
        waiting[count] = number + token
        count += int(_exceeding(products, *limit).any())
    return count


@tile(returns="int64")
def bound_row(
    codes: ByteArray,
    codes_start: int,
    size: int,
    panel: CodeArray,
    panel_start: int,
    first_sums: SumArray,
    first_sums_start: int,
    block: int,
    scale: np.float32,
    slack: np.float32,
    floors: FloatArray,
    floors_start: int,
) -> int:
    """Find the terms whose logit at one token may be positive, by all columns of codes.

    Arguments as in bound_tile. Returns one bit for each term, unless product <= scale * floor +
    slack.
    """
    state = codes[codes_start : codes_start + size]
    products = _products(state, panel, panel_start, first_sums[first_sums_start:], block)
    hits = _exceeding(products, scale, floors[floors_start:], slack)
    return sum(1 << int(place) for place in np.flatnonzero(hits))


def _products(
    state: ByteArray, panel: CodeArray, start: int, first_sums: SumArray, block: int
) -> SumArray:
    """Multiply the codes of a token with TERMS terms, from start on in panel."""
    pieces = pieces_of(state.size, block)
    steps = panel[start : start + state.size * TERMS].reshape(-1, TERMS, 4)
    terms = steps.swapaxes(0, 1).reshape(TERMS, state.size)
    undone = first_sums[: pieces * TERMS].reshape(pieces, TERMS).sum(axis=0)
    return terms.astype(np.int32) @ state.astype(np.int32) + undone


def _exceeding(
    products: SumArray, scale: np.float32, floors: FloatArray, slack: np.float32
) -> BoolArray:
    """Tell which products are hits; where a limit is not finite, all are."""
    with np.errstate(over="ignore", invalid="ignore"):
        return ~(products <= scale * floors[:TERMS] + slack)


@tile(returns="int64")
def lowest_bit(bits: int) -> int:
    """Return the place of the lowest of 64 bits that is set, 64 where there is none."""
    number = int(bits)
    return (number & -number).bit_length() - 1 if number else 64


def pieces_of(columns: int, block: int) -> int:
    """Return how many pieces columns are added in."""
    return (columns + block - 1) // block


@tile(returns="float32")
def float_from_bits(bits: int) -> np.float32:
    """Read the 32 bits of an integer as a float32."""
    return np.int32(bits).view(np.float32)

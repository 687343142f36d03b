"""Products of tiles whose sums stay in registers: what nearly all the time of encoding is spent on.

Each function below is its own definition, in NumPy, and runs as such when the compiler is switched
off. Compiled code gets the instructions that lowering.py puts together for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, update_wrapper
from typing import Any

import numpy as np

from minisplade.arrays import ByteArray, CodeArray, FloatArray, SumArray
from minisplade.runtime import cpu_features

ROWS = 6
"""Tokens in a tile: with PANEL columns, 12 sums of 8 lanes fill AVX2's 16 registers but for 4."""
PANEL = 16
"""Outputs in a tile, and in a packed panel of weights."""
TERMS = 32
"""Terms that are bounded at once, and whose codes are packed together."""
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
    rests: FloatArray,
    early: int,
    late: int,
    floors: FloatArray,
    term_rests: FloatArray,
    floors_start: int,
    hits: ByteArray,
) -> int:
    """Find the pairs of ROWS tokens and TERMS terms whose logit may be positive.

    codes: uint8 (..., size), hidden states plus CODE_OFFSET; panel: int8 (size / 4, TERMS, 4);
    scales: float32, from row on; slacks: float32, from late on; floors: float32, from floors_start
    on. A pair is a hit unless product <= scale * floor + slack. hits: uint8 (ROWS, TERMS / 8),
    flat, receives one bit for each pair, 8 terms a byte. Returns a number other than 0 if there is
    any.

    It looks at the first depth columns, and goes on unless product <= scale * floor + slack - rest
    * term_rest for all pairs: slacks and rests, float32, from early on, and term_rests, from
    floors_start on, allow for what the other columns may hold.

    Columns are added in pieces of a block, or of what is left before and after depth if that is
    less. first_sums: int32 (pieces, TERMS), what undoes CODE_OFFSET. Without VNNI, the true product
    within a piece must fit 16 bits: then it does not matter that sums of some columns may wrap
    around on the way there, because 16 bits is what they are kept in.
    """
    states = codes[codes_start : codes_start + ROWS * size].reshape(ROWS, size)
    steps = panel[panel_start : panel_start + size * TERMS].reshape(-1, TERMS, 4)
    terms = steps.swapaxes(0, 1).reshape(TERMS, size)
    pieces = pieces_of(depth, block) + pieces_of(size - depth, block)
    starts = first_sums[first_sums_start:][: pieces * TERMS].reshape(pieces, TERMS)
    products = np.zeros((ROWS, TERMS), dtype=np.int32)
    floor = floors[floors_start : floors_start + TERMS]
    rest = rests[early : early + ROWS, None] * term_rests[floors_start:][:TERMS]
    stages = (0, depth, early, rest), (depth, size, late, np.float32(0))
    for first, last, row_slacks, beyond in stages:
        products += states[:, first:last].astype(np.int32) @ terms[:, first:last].T.astype(np.int32)
        before = pieces_of(depth, block) if first else 0
        products += starts[before : before + pieces_of(last - first, block)].sum(axis=0)
        with np.errstate(over="ignore", invalid="ignore"):  # no finite bound: always a hit
            slack = slacks[row_slacks : row_slacks + ROWS, None]
            found = ~(products <= scales[row : row + ROWS, None] * floor + (slack - beyond))
        if not found.any():
            return 0
    hits[: ROWS * TERMS // 8] = np.packbits(found, axis=1, bitorder="little").reshape(-1)
    return 1


def pieces_of(columns: int, block: int) -> int:
    """Return how many pieces columns are added in."""
    return (columns + block - 1) // block


@tile(returns="float32")
def float_from_bits(bits: int) -> np.float32:
    """Read the 32 bits of an integer as a float32."""
    return np.int32(bits).view(np.float32)

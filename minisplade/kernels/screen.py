"""The decoder in small integers, and hidden states too: what bounds a logit from above.

The bound. Let h be a hidden state, w a row of the decoder and b its bias; u = A h + a is h along
other axes, and v those weights for which v·A h = w·h. With codes p = round(u / s), q = round(v / t)
and scales s, t of one's choice,

    (w·h + b) / (s t) = p·q + (b - v·a) / (s t) + u/s · (v/t - q) + (u/s - p) · q,

and by Cauchy and Schwarz the last two terms are at most |u|/s |v/t - q| + |u/s - p| |q|. The logit
can be positive only if p·q > floor / s + slack, where floor = (v·a - b) / t belongs to the term,
and -slack, the sum of those two bounds at their largest over all terms, to the token. It is
widened by more than float32 can lose on the way, in u, in the bound or in the logit itself.

Most of v·u lies in its first columns, if the axes are chosen for that (models/screening.py). The
others add at most the product of their lengths, so for most tiles the codes of the first columns
are enough, with the slack of those alone. Scales t are so large that v/t is nowhere longer beyond
a depth than some length that all terms share: then what the others add belongs to the token too.

Codes are as large as the sums allow, which VNNI keeps in 32 bits. Without it they are kept in 16,
because then twice as many are added at once: |p| |q| has to stay below 2**15 in every block of
columns.
"""

import math
from typing import NamedTuple

import numpy as np

from minisplade.arrays import (
    ByteArray,
    CodeArray,
    DoubleArray,
    FloatArray,
    IdArray,
    OffsetArray,
    SumArray,
)
from minisplade.kernels.compiler import kernel
from minisplade.kernels.layers import linear
from minisplade.kernels.tiles import (
    CODE_OFFSET,
    LANES,
    TERMS,
    float_from_bits,
    round_up,
)

STATE_LIMIT = np.float32(127)
"""The largest code of a hidden state."""
WIDER = 1 + 2.0**-16
NEVER = np.float32(3e38)
WAITING = 256
"""Room for tokens with panels of terms that have to be looked at again."""


TURNED, LENGTH, CONSTANT = range(3)
"""Places in Screen.limits: the largest |v|/t, |w|/t and |v·a - b|/t of all terms."""
AXES, SHIFT, RESIDUE = range(3)
"""Places in Screen.turning: bounds of |A|, |a| and |w - v A| / |w|."""


class Coding(NamedTuple):
    """What the codes of a vector have to keep to."""

    block: int  # columns that are added in one sum
    longest: float  # the length that no block may have before it is rounded
    largest: int  # the largest code of a weight


class Screen(NamedTuple):
    """The decoder in codes, and what bounds its logits.

    Terms stand in an order of their own, in panels of TERMS, each with a depth of its own.
    """

    coding: Coding
    panels: CodeArray  # int8, flat (V / TERMS, size / 4, TERMS, 4)
    first_sums: SumArray  # int32, flat (V / TERMS, blocks, TERMS): what undoes CODE_OFFSET
    early_sums: SumArray  # as first_sums, for the columns up to each panel's depth
    floors: FloatArray  # float32 (V rounded up to whole panels,)
    order: IdArray  # int32, as floors: the term that stands there, or any where floors has NEVER
    depths: IdArray  # int32 (V / TERMS,), places in depth_choices
    depth_choices: OffsetArray  # int64 (choices,), columns
    beyond: DoubleArray  # float64 (choices,): the length of v/t beyond each depth, at most
    axes: FloatArray  # float32 panels of A, (D / PANEL, D, PANEL), flat
    shift: FloatArray  # float32, a, rounded up to whole panels
    turning: DoubleArray  # float64 (3,)
    limits: DoubleArray  # float64 (3,)
    lost: DoubleArray  # float64 (choices,): the largest |v/t - q| of the columns up to each depth
    kept: DoubleArray  # float64 (choices,): the largest |q| of them


class HeadScratch(NamedTuple):
    """The working memory of one thread."""

    turned: FloatArray  # float32, flat (rows, D rounded up to whole panels)
    block: FloatArray  # float32, as Scratch.block
    codes: ByteArray  # uint8, flat (rows, size)
    scales: FloatArray  # float32 (rows,)
    slacks: FloatArray  # float32, flat (choices, rows): of each depth, and what may lie beyond it
    waiting: OffsetArray  # int64 (WAITING,): the panel in the upper half, the token in the lower
    logits: FloatArray  # float32 (ROWS * PANEL,)
    margins: FloatArray  # float32 (rows,)


def coding_of(hidden: int, wide: bool) -> Coding:
    """Return how vectors of so many numbers are coded; wide: whether sums have 32 bits or 16."""
    if wide:
        return Coding(block=round_up(hidden, 4), longest=1e30, largest=127)
    blocks = (hidden + 127) // 128
    block = round_up((hidden + blocks - 1) // blocks, 4)
    # A vector shorter than this is shorter than the root of 2**15 when each entry is rounded, and
    # 255 * 63 * 2 fits the 16 bits that one instruction adds a pair in.
    return Coding(block, math.sqrt(2**15 - 1) - 0.5 * math.sqrt(block) - 1e-6, largest=63)


def code_columns(hidden: int, coding: Coding) -> int:
    """Return the columns of codes: whole blocks."""
    return round_up(hidden, coding.block)


def usable(scale: float) -> float:
    """Keep a scale clear of overflow and of 0; any gives a valid bound."""
    return scale if 1e-30 < scale < 1e30 else 1.0


def code_of(x: float, largest_code: int) -> int:
    """Round to a code; what does not fit is cut, and counts as rounding error."""
    return int(min(max(np.rint(x), -largest_code), largest_code))


@kernel
def pack_terms(
    rows: DoubleArray,
    lengths: DoubleArray,
    biases: DoubleArray,
    first: int,
    squares: DoubleArray,
    screen: Screen,
) -> None:
    """Fill the places of some terms in a Screen whose order, depths, axes and shift are given.

    rows: float64 (terms, hidden), v of each; lengths: float64 (terms,), |w| of each; biases:
    float64 (terms,), b - v·a of each; first: the place of the first; squares: float64 (blocks,),
    to work in.
    """
    hidden, blocks = rows.shape[1], squares.size
    block, largest_code = screen.coding.block, screen.coding.largest
    size = block * blocks
    limits = screen.limits
    for i in range(rows.shape[0]):
        place, row = first + i, rows[i]
        panel, column = place // TERMS, place % TERMS
        choice = screen.depths[panel]
        depth, beyond = screen.depth_choices[choice], screen.beyond[choice]
        scale = 0.0
        squares[:] = 0
        for j in range(hidden):
            squares[j // block] += row[j] * row[j]
            scale = max(scale, abs(row[j]) / largest_code)
        for j in range(blocks):
            scale = max(scale, math.sqrt(squares[j]) / screen.coding.longest)
        rest = 0.0
        for j in range(depth, hidden):
            rest += row[j] * row[j]
        rest = math.sqrt(rest) * WIDER
        scale = usable(max(scale, rest / beyond))
        lost, kept, choice = 0.0, 0.0, 0
        for j in range(size):
            exact = row[j] / scale if j < hidden else 0.0
            code = code_of(exact, largest_code)
            lost += (exact - code) ** 2
            kept += code * code
            screen.panels[((panel * (size // 4) + j // 4) * TERMS + column) * 4 + j % 4] = code
            at = (panel * blocks + j // block) * TERMS + column
            screen.first_sums[at] -= CODE_OFFSET * code
            if j < depth:
                screen.early_sums[at] -= CODE_OFFSET * code
            if j + 1 == screen.depth_choices[choice]:
                screen.lost[choice] = max(screen.lost[choice], math.sqrt(lost))
                screen.kept[choice] = max(screen.kept[choice], math.sqrt(kept))
                choice += 1
        # Numbers too large for a scale have no bound: such a term is always a hit.
        screen.floors[place] = -biases[i] / scale if rest <= scale * beyond * WIDER else -NEVER
        limits[TURNED] = max(limits[TURNED], math.sqrt(squares.sum()) / scale)
        limits[LENGTH] = max(limits[LENGTH], lengths[i] / scale)
        limits[CONSTANT] = max(limits[CONSTANT], abs(biases[i]) / scale)


@kernel
def largest_size(x: FloatArray) -> np.float32:
    """Return the largest number, signs aside: as whole numbers, their bits have the same order."""
    bits, best = x.view(np.int32), 0
    for i in range(bits.size):
        best = max(best, bits[i] & 0x7FFFFFFF)
    return float_from_bits(best)


@kernel(flags={"reassoc", "nsz"})
def sum_of_squares(x: FloatArray) -> float:
    """Add squares in float64, in any order."""
    total = 0.0
    for i in range(x.size):
        total += np.float64(x[i]) * np.float64(x[i])
    return total


@kernel(flags={"reassoc", "nsz"})
def encode_row(x: FloatArray, inverse: np.float32, codes: ByteArray) -> float:
    """Write the codes of some numbers, and return the sum of squares of what rounding lost."""
    lost = 0.0
    for i in range(x.size):
        exact = x[i] * inverse
        code = np.rint(min(max(exact, -STATE_LIMIT), STATE_LIMIT))
        codes[i] = np.uint8(np.int32(code) + CODE_OFFSET)
        lost += np.float64(exact - code) * np.float64(exact - code)
    return lost


@kernel
def quantise(
    states: FloatArray,
    stride: int,
    hidden: int,
    count: int,
    rows: int,
    screen: Screen,
    scratch: HeadScratch,
) -> None:
    """Turn hidden states into codes, with the scale and the slacks of each.

    states: float32 (rows, stride), of which count rows are tokens and hidden columns count.
    """
    block, size = screen.coding.block, code_columns(hidden, screen.coding)
    turned, limits, turning = scratch.turned, screen.limits, screen.turning
    choices = screen.depth_choices
    linear(
        states,
        stride,
        hidden,
        screen.axes,
        screen.shift,
        rows,
        turned,
        screen.shift.size,
        False,
        scratch.block,
    )
    # The roundings of a logit: LANES partial sums, their tree, and the bias. Then those of u.
    rounding = (hidden / LANES + 16) * 2.0**-24
    turn_rounding = (hidden + 16) * 2.0**-24
    for row in range(rows):
        codes = scratch.codes[row * size : (row + 1) * size]
        if row >= count:
            codes[:] = CODE_OFFSET
            scratch.scales[row] = 0
            for choice in range(choices.size):
                scratch.slacks[choice * rows + row] = NEVER
            continue
        line = turned[row * screen.shift.size : row * screen.shift.size + hidden]
        squares, scale = 0.0, largest_size(line) / STATE_LIMIT
        for start in range(0, hidden, block):
            more = sum_of_squares(line[start : min(hidden, start + block)])
            scale = max(scale, math.sqrt(more) / screen.coding.longest)
            squares += more
        inverse = np.float32(1 / usable(scale * WIDER))
        length = math.sqrt(sum_of_squares(states[row * stride : row * stride + hidden]))
        slack = (rounding + turning[RESIDUE]) * length * limits[LENGTH]
        slack += turn_rounding * (turning[AXES] * length + turning[SHIFT]) * limits[TURNED]
        slack = (slack + 2.0**-20 * limits[CONSTANT]) * inverse + 3
        scratch.scales[row] = inverse
        codes[hidden:] = CODE_OFFSET
        lost, first, before = 0.0, 0, 0.0
        for choice in range(choices.size):
            last = min(hidden, choices[choice])
            part = line[first:last]
            lost += encode_row(part, inverse, codes[first:last])
            before += sum_of_squares(part)
            more = math.sqrt(before) * inverse * screen.lost[choice]
            more += math.sqrt(lost) * screen.kept[choice]
            rest = math.sqrt(max(0.0, squares - before) + 2.0**-40 * squares) * inverse
            more += rest * screen.beyond[choice]
            scratch.slacks[choice * rows + row] = -(slack + more) * WIDER
            first = last

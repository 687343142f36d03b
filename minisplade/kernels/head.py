"""From transformed hidden states to sparse vectors, without ever holding the logits.

Nearly all logits of a SPLADE model are negative: three of 30,522 are positive at a token of
splade-tiny. So pool_screened first bounds every logit from above with small integers, and computes
the few that may be positive in float32. pool_all computes every one, to the same bits.

The bound. Let h be a hidden state, w a row of the decoder and b its bias; c is any vector near the
hidden states. With codes p = round((h - c) / s), q = round(w / t) and scales s, t of one's choice,

    (w·h + b) / (s t) = p·q + (w·c + b) / (s t) + (h - c)/s · (w/t - q) + ((h - c)/s - p) · q,

and by Cauchy and Schwarz the last two terms are at most |h - c|/s |w/t - q| + |(h - c)/s - p| |q|.
The logit can be positive only if p·q > s⁻¹ floor - slack, where floor = -(w·c + b) / t belongs to
the term and slack, the sum of those two bounds at their largest over all terms, to the token. Both
are widened by more than float32 can lose on the way, in the bound or in the logit itself.

Scales are as small as keeps |p| |q| below 2**15 in every block of columns: then all partial sums
fit 16 bits, and the processor adds twice as many at once.
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
from minisplade.kernels.tiles import (
    CODE_OFFSET,
    LANES,
    PANEL,
    ROWS,
    TERMS,
    bound_tile,
    dot,
    multiply_tile,
    round_up,
)

BLOCK = 128
"""Columns whose products are added in 16 bits."""
NORM_LIMIT = math.sqrt(2**15 - 1) - 0.5 * math.sqrt(BLOCK) - 1e-6
"""The longest vector whose square, with every entry rounded, is still below 2**15."""
STATE_LIMIT, WEIGHT_LIMIT = 127, 63
"""Largest codes: 255 * 63 * 2 still fits the 16 bits that one instruction adds a pair in."""
PANELS_AT_ONCE = 4
"""Panels that stay in L1 while all rows pass by: 16 KB for 128 columns."""
FEW = 16
"""Screening pays while less than one pair in so many survives it."""
WIDER = 1 + 2.0**-16
NEVER = np.float32(3e38)

LOG, LOG_LOG = 1, 2
"""Activations: log(1 + x) of the positive part, once or twice."""


class Screen(NamedTuple):
    """The decoder in codes, and what bounds its logits."""

    panels: CodeArray  # int8, flat (V / TERMS, size / 4, TERMS, 4)
    first_sums: SumArray  # int32, flat (V / TERMS, size / block, TERMS)
    floors: FloatArray  # float32 (V rounded up to whole panels,)
    centre: FloatArray  # float32 (D,)
    limits: DoubleArray  # float64 (4,): largest |w/t - q|, |q|, |w|/t and |b|/t


class HeadScratch(NamedTuple):
    """The working memory of one thread."""

    codes: ByteArray  # uint8, flat (rows, size)
    scales: FloatArray  # float32 (rows,)
    slacks: FloatArray  # float32 (rows,)
    hits: ByteArray  # uint8 (ROWS * TERMS / 8,)
    shifted: DoubleArray  # float64 (D,)
    logits: FloatArray  # float32 (ROWS * PANEL,)
    margins: FloatArray  # float32 (rows,)


def block_of(hidden: int) -> int:
    """Return the size of the blocks that the columns of codes are padded to a multiple of."""
    return round_up((hidden + num_blocks_of(hidden) - 1) // num_blocks_of(hidden), 4)


def num_blocks_of(hidden: int) -> int:
    """Return how many blocks a vector of codes has."""
    return (hidden + BLOCK - 1) // BLOCK


@kernel
def scale_of(x: DoubleArray, hidden: int, block: int, largest_code: int) -> float:
    """Choose a scale that keeps codes below largest_code, and each block below NORM_LIMIT.

    x: float64 (hidden,).
    """
    scale = 0.0
    for start in range(0, hidden, block):
        squares = 0.0
        for i in range(start, min(hidden, start + block)):
            squares += x[i] * x[i]
            scale = max(scale, abs(x[i]) / largest_code)
        scale = max(scale, math.sqrt(squares) / NORM_LIMIT)
    # Any scale gives a valid bound; this one only has to stay clear of overflow and of 0.
    return scale if 1e-30 < scale < 1e30 else 1.0


def code_of(x: float, largest_code: int) -> int:
    """Round to a code; what does not fit is cut, and counts as rounding error."""
    return int(min(max(np.rint(x), -largest_code), largest_code))


@kernel
def pack_screen(
    decoder: FloatArray, bias: FloatArray, hidden: int, row: DoubleArray, screen: Screen
) -> None:
    """Fill a Screen, whose centre is given.

    decoder: float32 (V, D or more columns), of which hidden count; bias: float32 (V,);
    row: float64 (hidden,), to work in.
    """
    block = block_of(hidden)
    size = block * num_blocks_of(hidden)
    limits = screen.limits
    for term in range(screen.floors.size):
        if term >= bias.size:
            screen.floors[term] = NEVER
            continue
        product = 0.0
        for i in range(hidden):
            row[i] = decoder[term, i]
            product += row[i] * screen.centre[i]
        scale = scale_of(row, hidden, block, WEIGHT_LIMIT)
        panel, column = term // TERMS, term % TERMS
        lost, kept, length = 0.0, 0.0, 0.0
        for i in range(hidden):
            exact = row[i] / scale
            code = code_of(exact, WEIGHT_LIMIT)
            lost += (exact - code) ** 2
            kept += code * code
            length += exact * exact
            screen.panels[((panel * (size // 4) + i // 4) * TERMS + column) * 4 + i % 4] = code
            at = (panel * (size // block) + i // block) * TERMS + column
            screen.first_sums[at] -= CODE_OFFSET * code
        screen.floors[term] = -(product + bias[term]) / scale
        limits[0] = max(limits[0], math.sqrt(lost))
        limits[1] = max(limits[1], math.sqrt(kept))
        limits[2] = max(limits[2], math.sqrt(length))
        limits[3] = max(limits[3], (abs(product) + abs(bias[term])) / scale)


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
    """Turn hidden states into codes, with the scale and slack of each.

    states: float32 (rows, stride), of which count rows are tokens and hidden columns count.
    """
    block = block_of(hidden)
    size = block * num_blocks_of(hidden)
    shifted = scratch.shifted
    limits = screen.limits
    # The roundings of a logit: LANES partial sums, their tree, and the bias.
    rounding = (hidden / LANES + 16) * 2.0**-24
    for row in range(rows):
        codes = scratch.codes[row * size : (row + 1) * size]
        codes[:] = CODE_OFFSET
        if row >= count:
            scratch.scales[row], scratch.slacks[row] = 0, NEVER
            continue
        line = states[row * stride : row * stride + hidden]
        length = 0.0
        for i in range(hidden):
            shifted[i] = np.float64(line[i]) - screen.centre[i]
            length += np.float64(line[i]) ** 2
        scale = scale_of(shifted, hidden, block, STATE_LIMIT)
        lost, moved = 0.0, 0.0
        for i in range(hidden):
            exact = shifted[i] / scale
            code = code_of(exact, STATE_LIMIT)
            lost += (exact - code) ** 2
            moved += exact * exact
            codes[i] = code + CODE_OFFSET
        slack = math.sqrt(moved) * limits[0] + math.sqrt(lost) * limits[1]
        slack += rounding * math.sqrt(length) / scale * limits[2]
        slack += 2.0**-20 * limits[3] / scale + 1
        scratch.scales[row] = 1 / scale
        scratch.slacks[row] = -slack * WIDER


@kernel
def pool_screened(
    states: FloatArray,
    stride: int,
    hidden: int,
    offsets: OffsetArray,
    owners: IdArray,
    decoder: FloatArray,
    decoder_stride: int,
    bias: FloatArray,
    screen: Screen,
    scratch: HeadScratch,
    pooled: FloatArray,
) -> bool:
    """Raise pooled to the largest logit of each text and term, where that is positive.

    states: float32 (rows, stride); offsets: int64 (B + 1,); owners: int32 (rows,), the text of
    each row; decoder: float32, flat (V, decoder_stride), columns padded with zeros to a multiple
    of LANES; bias: float32 (V,); pooled: float32 (B, V). Returns whether it went to the end:
    it stops where too much survives for this to pay, and then pool_all has to do it.
    """
    size = block_of(hidden) * num_blocks_of(hidden)
    blocks = num_blocks_of(hidden)
    rows = round_up(offsets[-1], ROWS)
    quantise(states, stride, hidden, offsets[-1], rows, screen, scratch)
    num_panels = screen.floors.size // TERMS
    codes, scales, slacks, hits = scratch.codes, scratch.scales, scratch.slacks, scratch.hits
    panels, first_sums, floors = screen.panels, screen.first_sums, screen.floors
    survivors, seen = 0, 0
    for first in range(0, num_panels, PANELS_AT_ONCE):
        last = min(num_panels, first + PANELS_AT_ONCE)
        for row in range(0, rows, ROWS):
            for panel in range(first, last):
                if not bound_tile(
                    codes,
                    row * size,
                    size,
                    panels,
                    panel * TERMS * size,
                    first_sums,
                    panel * TERMS * blocks,
                    size // blocks,
                    scales,
                    slacks,
                    row,
                    floors,
                    panel * TERMS,
                    hits,
                ):
                    continue
                for place in range(ROWS * TERMS // 8):
                    bits = hits[place]
                    token = row + place * 8 // TERMS
                    term = panel * TERMS + place * 8 % TERMS
                    while bits:
                        if bits & 1 and token < offsets[-1] and term < bias.size:
                            survivors += 1
                            logit = bias[term] + dot(
                                states,
                                token * stride,
                                decoder,
                                term * decoder_stride,
                                decoder_stride,
                            )
                            if logit > pooled[owners[token], term]:
                                pooled[owners[token], term] = logit
                        bits >>= 1
                        term += 1
        seen += rows * (last - first) * TERMS
        if survivors * FEW > seen and survivors > 1000:
            return False
    return True


@kernel
def pool_all(
    states: FloatArray,
    stride: int,
    hidden: int,
    offsets: OffsetArray,
    owners: IdArray,
    decoder: FloatArray,
    decoder_stride: int,
    bias: FloatArray,
    panels: FloatArray,
    first_sums: FloatArray,
    longest: float,
    activation: int,
    add: bool,
    scratch: HeadScratch,
    pooled: FloatArray,
) -> None:
    """Compute every logit; keep the largest of each text and term, or add what is activated.

    Arguments as in pool_screened, and the decoder once more as float32 panels (V / PANEL, hidden,
    PANEL), with the biases of whole panels as first_sums and the length of the longest row. A tile
    of logits may be rounded otherwise than dot rounds, so a maximum is computed again by dot; for
    sums of many, tiles are as good.
    activation: LOG or LOG_LOG, which only sums need here.
    """
    rows = round_up(offsets[-1], ROWS)
    logits, margins = scratch.logits, scratch.margins
    largest_bias = 0.0
    for term in range(bias.size):
        largest_bias = max(largest_bias, abs(bias[term]))
    for row in range(rows):
        line = states[row * stride : row * stride + hidden]
        squares = 0.0
        for i in range(hidden):
            squares += np.float64(line[i]) ** 2
        # Both sums may be wrong by a rounding a step, relative to the sizes of what they add.
        size = math.sqrt(squares) * longest + largest_bias
        margins[row] = (hidden + 32) * 2.0**-23 * size + 1e-30
    for first in range(0, bias.size, PANEL):
        width = min(PANEL, bias.size - first)
        for row in range(0, rows, ROWS):
            for place in range(ROWS * PANEL):
                logits[place] = first_sums[first + place % PANEL]
            multiply_tile(
                states, row * stride, stride, panels, first * hidden, hidden, logits, 0, PANEL
            )
            for token in range(row, min(row + ROWS, offsets[-1])):
                best = pooled[owners[token], first : first + width]
                tile = logits[(token - row) * PANEL : (token - row) * PANEL + width]
                if add:
                    for i in range(width):
                        if tile[i] > 0:
                            best[i] += activate(tile[i], activation)
                    continue
                margin = margins[token]
                if not any_above(tile, best, margin):
                    continue
                for i in range(width):
                    if not tile[i] + margin <= best[i]:
                        logit = bias[first + i] + dot(
                            states,
                            token * stride,
                            decoder,
                            (first + i) * decoder_stride,
                            decoder_stride,
                        )
                        if logit > best[i]:
                            best[i] = logit


def any_above(values: FloatArray, limits: FloatArray, margin: np.float32) -> bool:
    """Tell whether any value may be above its limit; counting, unlike stopping, runs in lanes."""
    above = 0
    for i in range(values.size):
        above += not values[i] + margin <= limits[i]
    return above > 0


def activate(logit: np.float32, activation: int) -> np.float32:
    """Saturate a positive logit: pooling.activate."""
    weight = np.float32(math.log1p(np.float64(logit)))
    if activation == LOG_LOG:
        weight = np.float32(math.log1p(np.float64(weight)))
    return weight


@kernel
def take_active(
    pooled: FloatArray, activation: int, activated: bool, term_ids: IdArray, weights: FloatArray
) -> int:
    """Write the terms above 0 and their weights, set pooled back to 0, and return their number.

    pooled: float32 (V,), logits, or weights where activated; term_ids: int32 and weights: float32,
    room for V each.
    """
    count = 0
    for term in range(pooled.size):
        value = pooled[term]
        if value > 0:
            term_ids[count] = term
            weights[count] = value if activated else activate(value, activation)
            count += 1
            pooled[term] = 0
    return count

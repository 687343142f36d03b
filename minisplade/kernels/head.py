"""From transformed hidden states to sparse vectors, without ever holding the logits.

Nearly all logits of a SPLADE model are negative: three of 30,522 are positive at a token of
splade-tiny. So pool_screened first bounds every logit from above with small integers, and computes
the few that may be positive in float32; screen.py has the bound. pool_all computes every one, to
the same bits.
"""

import math

import numpy as np

from minisplade.arrays import FloatArray, IdArray, OffsetArray
from minisplade.kernels.compiler import kernel
from minisplade.kernels.screen import WAITING, HeadScratch, Screen, code_columns, quantise
from minisplade.kernels.tiles import (
    PANEL,
    ROWS,
    TERMS,
    bound_row,
    bound_tile,
    dot,
    largest,
    lowest_bit,
    multiply_tile,
    round_up,
)

ROWS_AT_ONCE = 20 * ROWS
"""Tokens whose codes stay in L1 while all panels pass by: 15 KB for 128 columns."""
FEW = 20
"""Screening pays while less than one of so many pairs of tokens and terms survives it."""
TERMS_AT_ONCE = 4 * PANEL
"""Terms that are looked at together for one that is active."""
LOG, LOG_LOG = 1, 2
"""Activations: log(1 + x) of the positive part, once or twice."""


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

    states: float32 (rows, stride); offsets: int64 (B + 1,); owners: int32 (tokens,), the text of
    each token; decoder: float32, flat (V, decoder_stride), columns padded with zeros to a multiple
    of LANES; bias: float32 (V,); pooled: float32 (B, V). Returns whether it went to the end:
    it stops where too much survives for this to pay, and then pool_all has to do it.
    """
    block, size = screen.coding.block, code_columns(hidden, screen.coding)
    pieces = size // block
    rows = round_up(offsets[-1], ROWS)
    quantise(states, stride, hidden, offsets[-1], rows, screen, scratch)
    survivors, count = 0, 0
    for first in range(0, rows, ROWS_AT_ONCE):
        last = min(rows, first + ROWS_AT_ONCE)
        for panel in range(screen.depths.size):
            choice = screen.depths[panel]
            depth = screen.depth_choices[choice]
            for row in range(first, last, ROWS):
                count = bound_tile(
                    scratch.codes,
                    row * size,
                    size,
                    depth,
                    screen.panels,
                    panel * TERMS * size,
                    screen.early_sums,
                    panel * TERMS * pieces,
                    block,
                    scratch.scales,
                    row,
                    scratch.slacks,
                    choice * rows + row,
                    screen.floors,
                    panel * TERMS,
                    (panel << 32) + row,
                    scratch.waiting,
                    count,
                )
            if count > WAITING - ROWS_AT_ONCE - ROWS or panel + 1 == screen.depths.size:
                survivors += raise_pooled(
                    states,
                    stride,
                    owners,
                    decoder,
                    decoder_stride,
                    bias,
                    offsets[-1],
                    rows,
                    size,
                    screen,
                    scratch,
                    count,
                    pooled,
                )
                count = 0
                # Of all pairs, not of those seen: a learned order has the likely ones first.
                if survivors > 1000 and survivors * FEW > rows * screen.floors.size:
                    return False
    return True


def raise_pooled(
    states: FloatArray,
    stride: int,
    owners: IdArray,
    decoder: FloatArray,
    decoder_stride: int,
    bias: FloatArray,
    tokens: int,
    rows: int,
    size: int,
    screen: Screen,
    scratch: HeadScratch,
    count: int,
    pooled: FloatArray,
) -> int:
    """Look at all columns for what waits, and compute the logits that still may be positive.

    tokens: how many there are; rows: of codes, as many and some more; size: columns of codes;
    count: how many wait; other arguments as in pool_screened. Returns how many logits that were.
    """
    block, last_choice = screen.coding.block, screen.depth_choices.size - 1
    pieces = size // block
    survivors = 0
    for i in range(count):
        panel, token = scratch.waiting[i] >> 32, scratch.waiting[i] & 0xFFFFFFFF
        bits = bound_row(
            scratch.codes,
            token * size,
            size,
            screen.panels,
            panel * TERMS * size,
            screen.first_sums,
            panel * TERMS * pieces,
            block,
            scratch.scales[token],
            scratch.slacks[last_choice * rows + token],
            screen.floors,
            panel * TERMS,
        )
        while bits:
            place = panel * TERMS + lowest_bit(bits)
            bits &= bits - 1
            if token < tokens:
                survivors += 1
                term = screen.order[place]
                logit = bias[term] + dot(
                    states,
                    token * stride,
                    decoder,
                    term * decoder_stride,
                    decoder_stride,
                )
                if logit > pooled[owners[token], term]:
                    pooled[owners[token], term] = logit
    return survivors


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
                states, row * stride, stride, panels, first * hidden, hidden, logits, 0, PANEL, ROWS
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


@kernel
def score_terms(
    states: FloatArray,
    stride: int,
    decoder: FloatArray,
    decoder_stride: int,
    bias: FloatArray,
    term_ids: IdArray,
    logits: FloatArray,
) -> None:
    """Compute the logits of some terms at every token, to the bit as maxima are pooled.

    Arguments as in pool_screened; term_ids: int32 (P,); logits: float32 (tokens, P).
    """
    for token in range(logits.shape[0]):
        for place in range(term_ids.size):
            term = np.int64(term_ids[place])
            logits[token, place] = bias[term] + dot(
                states, token * stride, decoder, term * decoder_stride, decoder_stride
            )


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
    for first in range(0, pooled.size, TERMS_AT_ONCE):
        last = min(first + TERMS_AT_ONCE, pooled.size)
        # Nearly everywhere there is nothing, which a maximum in lanes sees sooner.
        if last - first == TERMS_AT_ONCE and not largest(pooled, first, TERMS_AT_ONCE) > 0:
            continue
        for term in range(first, last):
            value = pooled[term]
            if value > 0:
                term_ids[count] = term
                weights[count] = value if activated else activate(value, activation)
                count += 1
                pooled[term] = 0
    return count

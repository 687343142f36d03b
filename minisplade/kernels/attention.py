"""Attention over packed texts: each token looks at those of its own text, head by head."""

import math
from typing import NamedTuple

import numpy as np

from minisplade.arrays import FloatArray, OffsetArray
from minisplade.kernels.compiler import kernel
from minisplade.kernels.tiles import (
    PANEL,
    ROWS,
    float_from_bits,
    largest,
    multiply,
    round_up,
    whole_tiles,
)

QUERY_BLOCK = 4 * ROWS
"""Tokens that look at once: with a text of 250, their scores stay in L1."""

EVERYTHING = 1 << 30
"""A window that no text is wider than."""

ONE = np.float32(1)
LOG2_E = np.float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
TO_WHOLE = np.float32(1.5 * 2**23)
"""Adding it to a small number rounds that to a whole one: float32 has no bits left for more."""
E0, E1, E2, E3, E4, E5 = (
    np.float32(c)
    for c in (1.9875691e-4, 1.3981999e-3, 8.3334519e-3, 4.1665796e-2, 1.6666665e-1, 0.5)
)
EXP_LIMIT, LOWEST = np.float32(-87), np.float32(-3e38)


class AttentionScratch(NamedTuple):
    """The working memory of one thread, float32 and flat."""

    keys: FloatArray  # (T / PANEL, K, PANEL), of one head
    values: FloatArray  # (K / PANEL, T, PANEL), of one head
    scores: FloatArray  # (QUERY_BLOCK, T)
    sums: FloatArray  # (QUERY_BLOCK, K)


@kernel(flags={"reassoc", "nsz"})
def total(x: FloatArray) -> np.float32:
    """Return the sum, whose order is fixed when this is compiled."""
    result = np.float32(0)
    for i in range(x.size):
        result += x[i]
    return result


@kernel
def softmax(x: FloatArray, start: int, count: int, scale: np.float32) -> None:
    """Turn scores times scale into shares of 1, in place: functional.softmax.

    x: float32, finite, count numbers from start on, and room up to a multiple of PANEL, where
    nothing of use is left. Source of the exponential: x = n ln 2 + r with n whole, a polynomial
    for exp(r) with the coefficients of Cephes' expf (Moshier 1992), and n added to the exponent.
    """
    size = round_up(count, PANEL)
    for i in range(start + count, start + size):
        x[i] = LOWEST  # whose exponential is too small to change a sum of 1 or more
    highest = largest(x, start, size)
    line = x[start : start + size]
    for i in range(size):
        value = max((line[i] - highest) * scale, EXP_LIMIT)
        whole = (value * LOG2_E + TO_WHOLE) - TO_WHOLE
        r = (value - whole * LN2_HIGH) - whole * LN2_LOW
        power = ((((E0 * r + E1) * r + E2) * r + E3) * r + E4) * r + E5
        power = power * r * r + r + ONE
        line[i] = power * float_from_bits((np.int32(whole) + np.int32(127)) << np.int32(23))
    share = ONE / total(line)
    for i in range(size):
        line[i] *= share


@kernel
def hide(scores: FloatArray, stride: int, rows: int, seen: int, place: int, window: int) -> None:
    """Give what is out of sight no share.

    scores: float32 (rows, stride), seen columns of which count; place: of the first row among the
    columns; window: how many columns each way a row sees.
    """
    for row in range(rows):
        for other in range(seen):
            if abs(other - place - row) > window:
                scores[row * stride + other] = LOWEST


@kernel
def attention(
    wide: FloatArray,
    wide_stride: int,
    hidden: int,
    num_heads: int,
    offsets: OffsetArray,
    mixed: FloatArray,
    mixed_stride: int,
    window: int,
    scratch: AttentionScratch,
) -> None:
    """Let the tokens of each text look at each other: functional.attention, one head at a time.

    wide: float32 (rows, wide_stride), query, key and value side by side; offsets: int64 (B + 1,),
    the first row of each text; mixed: float32 (rows, mixed_stride), receives (rows, D); window: how
    many tokens each way a token sees, EVERYTHING or fewer.
    """
    size = hidden // num_heads
    scale = ONE / np.float32(math.sqrt(size))
    width = round_up(size, PANEL)
    keys, values, scores, sums = scratch.keys, scratch.values, scratch.scores, scratch.sums
    for text in range(offsets.size - 1):
        first, last = offsets[text], offsets[text + 1]
        count = last - first
        for head in range(num_heads):
            query = head * size
            pack_keys(wide, wide_stride, first, count, hidden + query, size, keys)
            pack_values(wide, wide_stride, first, count, 2 * hidden + query, size, values)
            for block in range(0, count, QUERY_BLOCK):
                rows = min(QUERY_BLOCK, count - block)
                tiles = whole_tiles(rows)
                # Keys from start on, a whole number of panels before the first that is seen.
                start = max(0, block - window) // PANEL * PANEL
                seen = min(count, block + rows + window) - start
                stride = round_up(seen, PANEL)
                scores[: tiles * stride] = np.float32(0)
                sums[: tiles * width] = np.float32(0)
                at, key, panel = (first + block) * wide_stride + query, start * size, size * PANEL
                multiply(
                    wide, at, wide_stride, tiles, size, keys, key, panel, scores, 0, stride, stride
                )
                if window < count:
                    hide(scores, stride, rows, seen, block - start, window)
                for row in range(rows):
                    softmax(scores, row * stride, seen, scale)
                value, panel = start * PANEL, count * PANEL
                multiply(
                    scores, 0, stride, tiles, seen, values, value, panel, sums, 0, width, width
                )
                for row in range(rows):
                    to = (first + block + row) * mixed_stride + query
                    for i in range(size):
                        mixed[to + i] = sums[row * width + i]


@kernel
def pack_keys(
    wide: FloatArray,
    stride: int,
    first: int,
    count: int,
    column: int,
    size: int,
    keys: FloatArray,
) -> None:
    """Lay out the keys of one head, transposed, as panels (count / PANEL, size, PANEL)."""
    for start in range(0, count, PANEL):
        at, to = (first + start) * stride + column, start * size
        if start + PANEL <= count:
            for i in range(size):
                for token in range(PANEL):
                    keys[to + i * PANEL + token] = wide[at + token * stride + i]
        else:
            for i in range(size):
                for token in range(PANEL):
                    here = token < count - start
                    number = wide[at + token * stride + i] if here else np.float32(0)
                    keys[to + i * PANEL + token] = number


@kernel
def pack_values(
    wide: FloatArray,
    stride: int,
    first: int,
    count: int,
    column: int,
    size: int,
    values: FloatArray,
) -> None:
    """Lay out the values of one head as panels (size / PANEL, count, PANEL)."""
    for i in range(0, size, PANEL):
        for token in range(count):
            at, to = (first + token) * stride + column + i, i * count + token * PANEL
            if i + PANEL <= size:
                for j in range(PANEL):
                    values[to + j] = wide[at + j]
            else:
                for j in range(PANEL):
                    values[to + j] = wide[at + j] if i + j < size else np.float32(0)

"""The layers of a BERT encoder over packed tokens: texts one after another, without padding.

Rows are tokens, each with room for a whole number of panels; the number of rows is rounded up to
whole tiles, and what the spare rows hold is never looked at. The plain twins are in functional.py.
"""

import math
from typing import NamedTuple

import numpy as np

from minisplade.arrays import FloatArray, IdArray, OffsetArray
from minisplade.functional import ERF_DENOMINATOR, ERF_NUMERATOR
from minisplade.kernels.compiler import kernel
from minisplade.kernels.tiles import PANEL, ROWS, float_from_bits, multiply_tile

ROW_BLOCK = 42 * ROWS
INPUT_BLOCK = 256
"""A block of rows and inputs is 252 KB and stays in L2, while panels of 16 KB pass through L1."""
PASSED_STRIDE = INPUT_BLOCK + PANEL
"""Rows of a copied block: not a power of 2 apart, or they would all want the same lines of L1."""
QUERY_BLOCK = 4 * ROWS

P0, P1, P2, P3, P4, P5 = (np.float32(c) for c in ERF_NUMERATOR)
Q0, Q1, Q2, Q3, Q4, Q5 = (np.float32(c) for c in ERF_DENOMINATOR)
ERF_LIMIT = np.float32(4)
HALF, ONE, SQRT_HALF = np.float32(0.5), np.float32(1), np.float32(math.sqrt(0.5))
LOG2_E = np.float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
TO_WHOLE = np.float32(1.5 * 2**23)
"""Adding it to a small number rounds that to a whole one: float32 has no bits left for more."""
E0, E1, E2, E3, E4, E5 = (
    np.float32(c)
    for c in (1.9875691e-4, 1.3981999e-3, 8.3334519e-3, 4.1665796e-2, 1.6666665e-1, 0.5)
)
EXP_LIMIT = np.float32(-87)


class LayerWeights(NamedTuple):
    """One encoder layer: weights in panels (out / PANEL, in, PANEL), each flat, float32."""

    mix_weight: FloatArray  # query, key and value, one below the other
    mix_bias: FloatArray
    output_weight: FloatArray
    output_bias: FloatArray
    attention_norm_weight: FloatArray
    attention_norm_bias: FloatArray
    up_weight: FloatArray
    up_bias: FloatArray
    down_weight: FloatArray
    down_bias: FloatArray
    norm_weight: FloatArray
    norm_bias: FloatArray


class Scratch(NamedTuple):
    """The working memory of one thread, float32 and flat."""

    states: FloatArray  # (rows, D)
    wide: FloatArray  # (rows, the larger of 3 D and F)
    mixed: FloatArray  # (rows, D)
    keys: FloatArray  # (T / PANEL, K, PANEL), of one head
    values: FloatArray  # (K / PANEL, T, PANEL), of one head
    scores: FloatArray  # (QUERY_BLOCK, T)
    head: FloatArray  # (QUERY_BLOCK, K)
    block: FloatArray  # (ROW_BLOCK, PASSED_STRIDE)


def round_up(size: int, unit: int) -> int:
    """Return the least multiple of unit that is not below size."""
    return (size + unit - 1) // unit * unit


@kernel
def linear(
    x: FloatArray,
    x_stride: int,
    size: int,
    weight: FloatArray,
    bias: FloatArray,
    rows: int,
    out: FloatArray,
    out_stride: int,
    add: bool,
    block: FloatArray,
) -> None:
    """Compute x Wᵀ + b, or add it to what out holds.

    x: float32 (rows, x_stride), of which size columns count; weight: float32 panels; bias: float32
    (out,), a whole number of panels; out: float32 (rows, out_stride), receives (rows, out); block:
    float32 (ROW_BLOCK, PASSED_STRIDE), room for a copy of what is multiplied at a time.
    """
    width = bias.size
    for row in range(rows):
        line = out[row * out_stride : row * out_stride + width]
        if add:
            for column in range(width):
                line[column] += bias[column]
        else:
            for column in range(width):
                line[column] = bias[column]
    for first_row in range(0, rows, ROW_BLOCK):
        last_row = min(rows, first_row + ROW_BLOCK)
        for start in range(0, size, INPUT_BLOCK):
            count = min(size - start, INPUT_BLOCK)
            inputs, stride, origin = x, x_stride, first_row * x_stride
            if size > INPUT_BLOCK:
                inputs, stride, origin = block, PASSED_STRIDE, 0
                for row in range(first_row, last_row):
                    at = row * x_stride + start
                    to = (row - first_row) * PASSED_STRIDE
                    for i in range(count):
                        block[to + i] = x[at + i]
            for column in range(0, width, PANEL):
                panel = column * size + start * PANEL
                for row in range(first_row, last_row, ROWS):
                    at, to = origin + (row - first_row) * stride, row * out_stride + column
                    multiply_tile(inputs, at, stride, weight, panel, count, out, to, out_stride)


@kernel(flags={"reassoc", "nsz"})
def layer_norm(
    x: FloatArray,
    stride: int,
    size: int,
    rows: int,
    weight: FloatArray,
    bias: FloatArray,
    eps: float,
) -> None:
    """Normalise rows in place: functional.layer_norm.

    x: float32 (rows, stride), of which size columns count; weight, bias: float32 (size,). The
    flags let the sums run in lanes; their order is fixed when this is compiled.
    """
    scale = ONE / np.float32(size)
    for row in range(rows):
        line = x[row * stride : row * stride + size]
        total = np.float32(0)
        for i in range(size):
            total += line[i]
        mean = total * scale
        squares = np.float32(0)
        for i in range(size):
            line[i] -= mean
            squares += line[i] * line[i]
        shrink = ONE / np.float32(math.sqrt(squares * scale + np.float32(eps)))
        for i in range(size):
            line[i] = line[i] * shrink * weight[i] + bias[i]


@kernel
def gelu(x: FloatArray, count: int) -> None:
    """Apply functional.gelu to the first count numbers, in place: the same erf, term by term."""
    for i in range(count):
        value = x[i]
        z = min(max(value * SQRT_HALF, -ERF_LIMIT), ERF_LIMIT)
        s = z * z
        numerator = ((((P0 * s + P1) * s + P2) * s + P3) * s + P4) * s + P5
        denominator = ((((Q0 * s + Q1) * s + Q2) * s + Q3) * s + Q4) * s + Q5
        x[i] = HALF * value * (ONE + z * numerator / denominator)


@kernel(flags={"nnan", "nsz"})
def largest(x: FloatArray) -> np.float32:
    """Return the maximum of finite numbers; the flags let it run in lanes."""
    best = x[0]
    for i in range(x.size):
        best = max(best, x[i])
    return best


@kernel(flags={"reassoc", "nsz"})
def total(x: FloatArray) -> np.float32:
    """Return the sum, whose order is fixed when this is compiled."""
    result = np.float32(0)
    for i in range(x.size):
        result += x[i]
    return result


@kernel
def softmax(x: FloatArray, scale: np.float32) -> None:
    """Turn scores times scale into shares of 1, in place: functional.softmax.

    x: float32 (T,), finite. Source of the exponential: x = n ln 2 + r with n whole, a polynomial
    for exp(r) with the coefficients of Cephes' expf (Moshier 1992), and n added to the exponent.
    """
    highest = largest(x)
    for i in range(x.size):
        value = max((x[i] - highest) * scale, EXP_LIMIT)
        whole = (value * LOG2_E + TO_WHOLE) - TO_WHOLE
        r = (value - whole * LN2_HIGH) - whole * LN2_LOW
        power = ((((E0 * r + E1) * r + E2) * r + E3) * r + E4) * r + E5
        power = power * r * r + r + ONE
        x[i] = power * float_from_bits((np.int32(whole) + np.int32(127)) << np.int32(23))
    share = ONE / total(x)
    for i in range(x.size):
        x[i] *= share


@kernel
def attention(
    wide: FloatArray,
    wide_stride: int,
    hidden: int,
    num_heads: int,
    offsets: OffsetArray,
    mixed: FloatArray,
    mixed_stride: int,
    scratch: Scratch,
) -> None:
    """Let the tokens of each text look at each other: functional.attention, one head at a time.

    wide: float32 (rows, wide_stride), query, key and value side by side; offsets: int64 (B + 1,),
    the first row of each text; mixed: float32 (rows, mixed_stride), receives (rows, D).
    """
    size = hidden // num_heads
    scale = ONE / np.float32(math.sqrt(size))
    width = round_up(size, PANEL)
    for text in range(offsets.size - 1):
        first, last = offsets[text], offsets[text + 1]
        count = last - first
        stride = round_up(count, PANEL)
        for head in range(num_heads):
            query = head * size
            pack_keys(wide, wide_stride, first, count, hidden + query, size, scratch.keys)
            pack_values(wide, wide_stride, first, count, 2 * hidden + query, size, scratch.values)
            for block in range(0, count, QUERY_BLOCK):
                rows = min(QUERY_BLOCK, count - block)
                tiles = round_up(rows, ROWS)
                scratch.scores[: tiles * stride] = np.float32(0)
                scratch.head[: tiles * width] = np.float32(0)
                for column in range(0, stride, PANEL):
                    for row in range(0, tiles, ROWS):
                        at = (first + block + row) * wide_stride + query
                        to = row * stride + column
                        multiply_tile(
                            wide,
                            at,
                            wide_stride,
                            scratch.keys,
                            column * size,
                            size,
                            scratch.scores,
                            to,
                            stride,
                        )
                for row in range(rows):
                    softmax(scratch.scores[row * stride : row * stride + count], scale)
                for column in range(0, width, PANEL):
                    for row in range(0, tiles, ROWS):
                        multiply_tile(
                            scratch.scores,
                            row * stride,
                            stride,
                            scratch.values,
                            column * count,
                            count,
                            scratch.head,
                            row * width + column,
                            width,
                        )
                for row in range(rows):
                    to = (first + block + row) * mixed_stride + query
                    for i in range(size):
                        mixed[to + i] = scratch.head[row * width + i]


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
    for token in range(round_up(count, PANEL)):
        to = token // PANEL * size * PANEL + token % PANEL
        at = (first + token) * stride + column
        for i in range(size):
            keys[to + i * PANEL] = wide[at + i] if token < count else np.float32(0)


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
            at = (first + token) * stride + column + i
            to = (i * count) + token * PANEL
            for j in range(PANEL):
                values[to + j] = wide[at + j] if i + j < size else np.float32(0)


@kernel
def embed(
    input_ids: IdArray,
    offsets: OffsetArray,
    word: FloatArray,
    position: FloatArray,
    token_type: FloatArray,
    norm_weight: FloatArray,
    norm_bias: FloatArray,
    eps: float,
    scratch: Scratch,
    stride: int,
) -> None:
    """Add what each token is to where it stands, and normalise: bert.embed.

    input_ids: int32 (N,); offsets: int64 (B + 1,); word: float32 (V, D); position: float32 (.., D);
    token_type: float32 (D,), 0 where the model has none; stride: from one row of
    scratch.states to the next.
    """
    size, states = word.shape[1], scratch.states
    for text in range(offsets.size - 1):
        for row in range(offsets[text], offsets[text + 1]):
            token, place = input_ids[row], row - offsets[text]
            for i in range(size):
                states[row * stride + i] = word[token, i] + position[place, i] + token_type[i]
    layer_norm(states, stride, size, offsets[-1], norm_weight, norm_bias, eps)


@kernel
def encoder_layer(
    weights: LayerWeights,
    num_heads: int,
    eps: float,
    offsets: OffsetArray,
    hidden: int,
    scratch: Scratch,
) -> None:
    """Run one layer over scratch.states, in place: bert.encoder_layer."""
    rows = round_up(offsets[-1], ROWS)
    stride = round_up(hidden, PANEL)
    states, wide, mixed, block = scratch.states, scratch.wide, scratch.mixed, scratch.block
    mix = weights.mix_bias.size
    linear(
        states, stride, hidden, weights.mix_weight, weights.mix_bias, rows, wide, mix, False, block
    )
    attention(wide, mix, hidden, num_heads, offsets, mixed, stride, scratch)
    linear(
        mixed,
        stride,
        hidden,
        weights.output_weight,
        weights.output_bias,
        rows,
        states,
        stride,
        True,
        block,
    )
    layer_norm(
        states,
        stride,
        hidden,
        rows,
        weights.attention_norm_weight,
        weights.attention_norm_bias,
        eps,
    )
    inner = weights.up_bias.size
    linear(
        states, stride, hidden, weights.up_weight, weights.up_bias, rows, wide, inner, False, block
    )
    gelu(wide, rows * inner)
    linear(
        wide,
        inner,
        inner,
        weights.down_weight,
        weights.down_bias,
        rows,
        states,
        stride,
        True,
        block,
    )
    layer_norm(states, stride, hidden, rows, weights.norm_weight, weights.norm_bias, eps)


@kernel
def transform(
    weight: FloatArray,
    bias: FloatArray,
    norm_weight: FloatArray,
    norm_bias: FloatArray,
    eps: float,
    rows: int,
    hidden: int,
    scratch: Scratch,
) -> None:
    """Prepare scratch.states for the decoder, and leave that in scratch.mixed: mlm_transform."""
    stride = round_up(hidden, PANEL)
    linear(
        scratch.states,
        stride,
        hidden,
        weight,
        bias,
        rows,
        scratch.mixed,
        stride,
        False,
        scratch.block,
    )
    gelu(scratch.mixed, rows * stride)
    layer_norm(scratch.mixed, stride, hidden, rows, norm_weight, norm_bias, eps)

"""The layers of a BERT encoder over packed tokens: texts one after another, without padding.

Rows are tokens, each with room for a whole number of panels; the number of rows is rounded up to
whole tiles, and what the spare rows hold is never looked at. The plain twins are in functional.py.
"""

import math
from typing import NamedTuple

import numpy as np

from minisplade.arrays import FloatArray, IdArray, OffsetArray
from minisplade.functional import ERF_DENOMINATOR, ERF_NUMERATOR
from minisplade.kernels.attention import EVERYTHING, AttentionScratch, attention
from minisplade.kernels.compiler import kernel
from minisplade.kernels.tiles import PANEL, ROWS, multiply, round_up, whole_tiles

ROW_BLOCK = 42 * ROWS
INPUT_BLOCK = 512
"""A block of rows and inputs is 252 KB and stays in L2, while panels of 16 KB pass through L1."""
PASSED_STRIDE = INPUT_BLOCK + PANEL
"""Rows of a copied block: not a power of 2 apart, or they would all want the same lines of L1."""

P0, P1, P2, P3, P4, P5 = (np.float32(c) for c in ERF_NUMERATOR)
Q0, Q1, Q2, Q3, Q4, Q5 = (np.float32(c) for c in ERF_DENOMINATOR)
ERF_LIMIT = np.float32(4)
HALF, ONE, SQRT_HALF = np.float32(0.5), np.float32(1), np.float32(math.sqrt(0.5))


class Tokens(NamedTuple):
    """Texts one after another: their token ids and types, and what embed finds out of them."""

    input_ids: IdArray  # int32 (rows,)
    types: IdArray  # int32 (rows,), rows of the table of token types
    offsets: OffsetArray  # int64 (B + 1,), the first row of each text; the last texts may be empty
    places: IdArray  # int32 (rows,), rows of the table of positions
    owners: IdArray  # int32 (rows,), the text of each


class Embeddings(NamedTuple):
    """What tokens are, where they stand and of which type, float32, and the norm of the sum."""

    word: FloatArray  # (V, D)
    position: FloatArray  # (places, D), or one row of 0 where tokens are rotated
    token_type: FloatArray  # (types, D), or one row of 0 where the model has none
    norm_weight: FloatArray
    norm_bias: FloatArray


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


class TransformWeights(NamedTuple):
    """What stands between the encoder and the decoder: a layer in panels, and a norm."""

    weight: FloatArray
    bias: FloatArray
    norm_weight: FloatArray
    norm_bias: FloatArray


class Scratch(NamedTuple):
    """The working memory of one thread, float32 and flat."""

    states: FloatArray  # (rows, D)
    wide: FloatArray  # (rows, the larger of 3 D and F)
    mixed: FloatArray  # (rows, D)
    block: FloatArray  # (ROW_BLOCK, PASSED_STRIDE)


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
            panels, to = start * PANEL, first_row * out_stride
            multiply(
                inputs,
                origin,
                stride,
                last_row - first_row,
                count,
                weight,
                panels,
                size * PANEL,
                out,
                to,
                out_stride,
                width,
            )


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


@kernel
def place(tokens: Tokens, position_offset: int, pad_token_id: int) -> None:
    """Fill in where each token stands, bert.positions, and whose it is."""
    offsets, places = tokens.offsets, tokens.places
    for text in range(offsets.size - 1):
        counted = 0
        for row in range(offsets[text], offsets[text + 1]):
            tokens.owners[row] = text
            places[row] = row - offsets[text]
            if position_offset:
                real = int(tokens.input_ids[row] != pad_token_id)
                counted += real
                places[row] = counted * real + position_offset - 1


@kernel
def embed(
    tokens: Tokens,
    tables: Embeddings,
    position_offset: int,
    pad_token_id: int,
    eps: float,
    scratch: Scratch,
    stride: int,
) -> None:
    """Add what each token is to where it stands, and normalise: bert.embed.

    stride: from one row of scratch.states to the next.
    """
    place(tokens, position_offset, pad_token_id)
    word, position, token_type = tables.word, tables.position, tables.token_type
    size, count, states = word.shape[1], tokens.offsets[-1], scratch.states
    for row in range(count):
        token, kind = tokens.input_ids[row], tokens.types[row]
        # Where tokens are rotated, there is one row for all places.
        at = min(tokens.places[row], position.shape[0] - 1)
        for i in range(size):
            states[row * stride + i] = word[token, i] + position[at, i] + token_type[kind, i]
    layer_norm(states, stride, size, count, tables.norm_weight, tables.norm_bias, eps)


@kernel
def final_norm(
    weight: FloatArray, bias: FloatArray, eps: float, tokens: Tokens, hidden: int, scratch: Scratch
) -> None:
    """Normalise scratch.states once more, where layers leave them as they come."""
    rows, stride = whole_tiles(tokens.offsets[-1]), round_up(hidden, PANEL)
    layer_norm(scratch.states, stride, hidden, rows, weight, bias, eps)


@kernel
def encoder_layer(
    weights: LayerWeights,
    num_heads: int,
    eps: float,
    tokens: Tokens,
    hidden: int,
    scratch: Scratch,
    attending: AttentionScratch,
) -> None:
    """Run one layer over scratch.states, in place: bert.encoder_layer."""
    offsets = tokens.offsets
    rows = whole_tiles(offsets[-1])
    stride = round_up(hidden, PANEL)
    states, wide, mixed, block = scratch.states, scratch.wide, scratch.mixed, scratch.block
    mix = weights.mix_bias.size
    linear(
        states, stride, hidden, weights.mix_weight, weights.mix_bias, rows, wide, mix, False, block
    )
    attention(wide, mix, hidden, num_heads, offsets, mixed, stride, EVERYTHING, attending)
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
    weights: TransformWeights, eps: float, tokens: Tokens, hidden: int, scratch: Scratch
) -> None:
    """Prepare scratch.states for the decoder, and leave that in scratch.mixed: mlm_transform."""
    rows, stride = whole_tiles(tokens.offsets[-1]), round_up(hidden, PANEL)
    states, mixed, block = scratch.states, scratch.mixed, scratch.block
    linear(states, stride, hidden, weights.weight, weights.bias, rows, mixed, stride, False, block)
    gelu(mixed, rows * stride)
    layer_norm(mixed, stride, hidden, rows, weights.norm_weight, weights.norm_bias, eps)

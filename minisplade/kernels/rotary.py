"""The layer of ModernBERT and GTE over packed tokens: rotary positions and a gate.

Rows are laid out as in layers.py, whose products and norms these are; the plain twins are in
functional.py and models/bert.py.
"""

import numpy as np

from minisplade.arrays import FloatArray, IdArray
from minisplade.kernels.attention import AttentionScratch, attention
from minisplade.kernels.compiler import kernel
from minisplade.kernels.layers import LayerWeights, Scratch, Tokens, gelu, layer_norm, linear
from minisplade.kernels.tiles import PANEL, round_up, whole_tiles


@kernel
def rotate(
    wide: FloatArray,
    stride: int,
    hidden: int,
    num_heads: int,
    places: IdArray,
    cos: FloatArray,
    sin: FloatArray,
) -> None:
    """Turn queries and keys by the places of their tokens, in place: functional.rotate.

    wide: float32 (rows, stride), query, key and value side by side; places: int32 (N,); cos, sin:
    float32 (places, K / 2).
    """
    half = cos.shape[1]
    for row in range(places.size):
        place = places[row]
        for head in range(2 * num_heads):  # those of the keys follow those of the queries
            at = row * stride + head * (hidden // num_heads)
            for i in range(half):
                first, second = wide[at + i], wide[at + half + i]
                wide[at + i] = first * cos[place, i] - second * sin[place, i]
                wide[at + half + i] = second * cos[place, i] + first * sin[place, i]


@kernel
def gate(wide: FloatArray, rows: int, inner: int) -> None:
    """Multiply the second half of each row by gelu of the first, into the first.

    wide: float32 (rows, 2 * inner).
    """
    for row in range(rows):
        at = 2 * row * inner
        gelu(wide[at : at + inner], inner)
        for i in range(inner):
            wide[at + i] *= wide[at + inner + i]


@kernel
def normalised(
    states: FloatArray,
    stride: int,
    hidden: int,
    rows: int,
    weight: FloatArray,
    bias: FloatArray,
    eps: float,
    out: FloatArray,
) -> None:
    """Leave states as they are and put layer_norm of them into out, float32 (rows, stride)."""
    for i in range(rows * stride):
        out[i] = states[i]
    layer_norm(out, stride, hidden, rows, weight, bias, eps)


@kernel
def rotary_layer(
    weights: LayerWeights,
    num_heads: int,
    eps: float,
    tokens: Tokens,
    cos: FloatArray,
    sin: FloatArray,
    window: int,
    pre_norm: bool,
    hidden: int,
    scratch: Scratch,
    attending: AttentionScratch,
) -> None:
    """Run one layer over scratch.states, in place: bert.encoder_layer.

    weights: up_weight holds the gate, and below it what that is multiplied with. An attention norm
    without weights, (0,), leaves its input as it is. Others as in rotate and attention.
    """
    offsets = tokens.offsets
    rows, stride = whole_tiles(offsets[-1]), round_up(hidden, PANEL)
    states, wide, mixed, block = scratch.states, scratch.wide, scratch.mixed, scratch.block
    first_weight, first_bias = weights.attention_norm_weight, weights.attention_norm_bias
    mix, inner = weights.mix_bias.size, weights.up_bias.size // 2
    inputs = states
    if pre_norm and first_weight.size > 0:
        normalised(states, stride, hidden, rows, first_weight, first_bias, eps, mixed)
        inputs = mixed
    linear(
        inputs, stride, hidden, weights.mix_weight, weights.mix_bias, rows, wide, mix, False, block
    )
    rotate(wide, mix, hidden, num_heads, tokens.places[: offsets[-1]], cos, sin)
    attention(wide, mix, hidden, num_heads, offsets, mixed, stride, window, attending)
    output, output_bias = weights.output_weight, weights.output_bias
    linear(mixed, stride, hidden, output, output_bias, rows, states, stride, True, block)
    inputs = states
    if pre_norm:
        second_weight, second_bias = weights.norm_weight, weights.norm_bias
        normalised(states, stride, hidden, rows, second_weight, second_bias, eps, mixed)
        inputs = mixed
    else:
        layer_norm(states, stride, hidden, rows, first_weight, first_bias, eps)
    up, up_bias = weights.up_weight, weights.up_bias
    linear(inputs, stride, hidden, up, up_bias, rows, wide, 2 * inner, False, block)
    gate(wide, rows, inner)
    down, down_bias = weights.down_weight, weights.down_bias
    linear(wide, 2 * inner, inner, down, down_bias, rows, states, stride, True, block)
    if not pre_norm:
        layer_norm(states, stride, hidden, rows, weights.norm_weight, weights.norm_bias, eps)


def rotation_tables(
    num_places: int, size: int, base: float, scaling: float
) -> tuple[FloatArray, FloatArray]:
    """Return cosines and sines of the angles of functional.rotate: float32 (places, K / 2)."""
    frequency = (base * scaling) ** (-np.arange(0, size, 2) / size) / scaling ** (2 / size)
    angle = np.arange(num_places, dtype=np.float32)[:, None] * frequency.astype(np.float32)
    return np.cos(angle), np.sin(angle)

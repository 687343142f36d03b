"""SPLADE pooling: from the logits of every position to one weight per term."""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from minisplade.arrays import BoolArray, FloatArray, IdArray

Strategy = Literal["max", "sum"]
Activation = Literal["relu", "log1p_relu"]

TILE_LOGITS = 1 << 22
"""Logits held at once by pool_tiles: 16 MB."""


def splade_pool(
    logits: FloatArray,
    attention_mask: BoolArray,
    strategy: Strategy = "max",
    activation: Activation = "relu",
) -> FloatArray:
    """Pool the logits of all tokens into one non-negative weight per term.

    logits: float32 (B, T, V); attention_mask: bool (B, T); returns float32 (B, V).
    Source: Formal et al. 2021, "SPLADE v2", equation 2 (max) and "SPLADE", equation 1 (sum).
    """
    # Padding must count as a logit that cannot win: 0 after activation.
    masked = np.where(attention_mask[..., None], logits, 0)
    if strategy == "sum":
        return activate(masked, activation).sum(axis=1)
    # The activation never decreases, so pooling first needs T times fewer logarithms.
    return activate(masked.max(axis=1), activation)


def activate(logits: FloatArray, activation: Activation = "relu") -> FloatArray:
    """Saturate logits: log(1 + max(x, 0)), and once more log(1 + ·) for "log1p_relu".

    logits: float32, any shape; returns the same shape.
    """
    weights = np.log1p(np.maximum(logits, 0))
    return np.log1p(weights) if activation == "log1p_relu" else weights


def pool_tiles(
    transformed: FloatArray,
    decoder_weight: FloatArray,
    decoder_bias: FloatArray,
    attention_mask: BoolArray,
    strategy: Strategy = "max",
    activation: Activation = "relu",
) -> FloatArray:
    """Compute splade_pool(transformed @ decoder) a slice of the vocabulary at a time.

    transformed: float32 (B, T, D); decoder_weight: float32 (V, D); decoder_bias: float32 (V,);
    attention_mask: bool (B, T); returns float32 (B, V). Never holds more than TILE_LOGITS logits,
    or those of 64 terms.
    """
    num_texts, num_tokens, _ = transformed.shape
    pooled = np.empty((num_texts, decoder_bias.size), dtype=np.float32)
    for terms, logits in _logit_tiles(transformed, decoder_weight, decoder_bias):
        logits = logits.reshape(num_texts, num_tokens, -1)
        pooled[:, terms] = splade_pool(logits, attention_mask, strategy, activation)
    return pooled


def chosen_logits(
    transformed: FloatArray,
    decoder_weight: FloatArray,
    decoder_bias: FloatArray,
    term_ids: IdArray,
) -> FloatArray:
    """Return the logits of some terms at every token of one text, to the bit as pool_tiles has.

    transformed: float32 (1, T, D); term_ids: int32 (P,), increasing; returns float32 (T, P).
    """
    # Other products than those of pool_tiles, only of these terms say, may round otherwise.
    parts = [
        logits[:, term_ids[(term_ids >= terms.start) & (term_ids < terms.stop)] - terms.start]
        for terms, logits in _logit_tiles(transformed, decoder_weight, decoder_bias)
    ]
    return np.concatenate(parts, axis=1)


def _logit_tiles(
    transformed: FloatArray, decoder_weight: FloatArray, decoder_bias: FloatArray
) -> Iterator[tuple[slice, FloatArray]]:
    """Yield slices of the vocabulary with their logits, float32 (B T, width of the slice)."""
    flat = transformed.reshape(-1, transformed.shape[-1])
    step = max(64, TILE_LOGITS // max(1, flat.shape[0]))
    for start in range(0, decoder_bias.size, step):
        terms = slice(start, min(start + step, decoder_bias.size))
        yield terms, flat @ decoder_weight[terms].T + decoder_bias[terms]

"""SPLADE pooling: from the logits of every position to one weight per term."""

from typing import Literal

import numpy as np

from minisplade.arrays import BoolArray, FloatArray

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
    num_texts, num_tokens, hidden = transformed.shape
    flat = transformed.reshape(-1, hidden)
    vocab_size = decoder_bias.size
    step = max(64, TILE_LOGITS // max(1, flat.shape[0]))
    pooled = np.empty((num_texts, vocab_size), dtype=np.float32)
    for start in range(0, vocab_size, step):
        terms = slice(start, start + step)
        logits = flat @ decoder_weight[terms].T  # (B T, step)
        logits += decoder_bias[terms]
        logits = logits.reshape(num_texts, num_tokens, -1)
        pooled[:, terms] = splade_pool(logits, attention_mask, strategy, activation)
    return pooled

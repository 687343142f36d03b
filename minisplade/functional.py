"""The layers of a BERT encoder as pure functions over arrays.

Weights are stored as in the checkpoint, output size first. All functions keep the dtype of their
input, so float32 in means float32 throughout.
"""

import math

import numpy as np

from minisplade.arrays import BoolArray, FloatArray

LOWEST = np.finfo(np.float32).min

ERF_NUMERATOR = (
    1.974806519e-06,
    0.0002880411912,
    0.004003690133,
    0.05346761871,
    0.1962501962,
    1.128378976,
)
ERF_DENOMINATOR = (
    3.748060162e-05,
    0.001216368157,
    0.01544451434,
    0.1164769112,
    0.5072533669,
    1.0,
)


def linear(x: FloatArray, weight: FloatArray, bias: FloatArray | float = 0) -> FloatArray:
    """Apply x Wᵀ + b to the last axis.

    x: float32 (..., in); weight: float32 (out, in); bias: float32 (out,), or 0 for none;
    returns (..., out).
    """
    # One flat product: NumPy would multiply a stack of small matrices one by one. In float64,
    # because float32 products lose more on some CPUs than two implementations may differ by.
    flat = x.reshape(-1, x.shape[-1]).astype(np.float64) @ weight.T.astype(np.float64) + bias
    return flat.astype(x.dtype).reshape(*x.shape[:-1], weight.shape[0])


def layer_norm(
    x: FloatArray, weight: FloatArray, bias: FloatArray | float, eps: float
) -> FloatArray:
    """Shift and scale every vector to mean 0 and variance 1, then by weight and bias.

    x: float32 (..., D); weight, bias: float32 (D,), or 0 for no bias; returns (..., D).
    Source: Ba, Kiros and Hinton 2016, "Layer Normalization", equation 4, with the biased variance.
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + eps) * weight + bias


def erf(x: FloatArray) -> FloatArray:
    """Approximate the error function, which NumPy lacks, to 4e-7 absolute in float32.

    x: float32, any shape; returns the same shape.
    Source: erf(x) = x P(x²) / Q(x²) for |x| < 4, beyond which float32 erf is 1; the coefficients
    are a minimax fit made by scripts/fit_erf.py.
    """
    x = np.clip(x, -4, 4)
    square = x * x
    return x * _polynomial(square, ERF_NUMERATOR) / _polynomial(square, ERF_DENOMINATOR)


def gelu(x: FloatArray) -> FloatArray:
    """Weigh x by the chance that a standard normal variable is below it: x Φ(x).

    x: float32, any shape; returns the same shape.
    Source: Hendrycks and Gimpel 2016, "Gaussian Error Linear Units", section 2. The exact form
    with erf, as BERT checkpoints are trained with, not the tanh approximation of GPT-2.
    """
    return 0.5 * x * (1 + erf(x * math.sqrt(0.5)))


def tanh_gelu(x: FloatArray) -> FloatArray:
    """Approximate gelu as GPT-2 and ALBERT do, who were trained with it.

    x: float32, any shape; returns the same shape. Source: the same paper, section 2.
    """
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def softmax(x: FloatArray) -> FloatArray:
    """Turn the last axis into positive numbers that sum to 1.

    x: float32 (..., T); returns the same shape.
    """
    # exp overflows above 88; shifting by the maximum does not change the quotient.
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def attention(
    query: FloatArray,
    key: FloatArray,
    value: FloatArray,
    attention_mask: BoolArray,
    window: int | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Mix values by query-key similarity, ignoring padding and what is further off than window.

    query, key, value: float32 (B, H, T, K); attention_mask: bool (B, T), True at tokens; window:
    how many tokens each way a token sees, None for all; returns float32 (B, H, T, K), and the
    shares that each token took of every other, float32 (B, H, T, T).
    Source: Vaswani et al. 2017, "Attention Is All You Need", equation 1; for the window, Beltagy
    et al. 2020, "Longformer", section 3.1.
    """
    # math.sqrt, because a NumPy float64 scalar would promote everything after it.
    scores = query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1])  # (B, H, T, T)
    seen = attention_mask[:, None, None, :]
    if window is not None:
        place = np.arange(query.shape[2])
        seen = seen & (np.abs(place - place[:, None]) <= window)
    # Lowest float rather than -inf: a row without any token must not become NaN.
    scores = np.where(seen, scores, LOWEST)
    shares = softmax(scores)
    return shares @ value, shares


def rotate(x: FloatArray, base: float, scaling: float = 1) -> FloatArray:
    """Turn pairs of numbers by an angle that grows with the place of the token.

    x: float32 (B, H, T, K), of which i and i + K / 2 are a pair; returns the same shape. base: how
    much slower the last pair turns than the first, nearly; scaling: by how much texts may be
    longer than those of training, 1 for not at all.
    Source: Su et al. 2021, "RoFormer", equation 34, in the order of pairs of GPT-NeoX; for scaling,
    the fixed NTK-aware form of GTE: base times scaling, and frequencies over scaling^(2 / K).
    """
    size = x.shape[-1]
    frequency = (base * scaling) ** (-np.arange(0, size, 2) / size) / scaling ** (2 / size)
    # In float32 as in training: far into a text, angles carry rounding that the weights know.
    angle = np.arange(x.shape[2], dtype=np.float32)[:, None] * frequency.astype(np.float32)
    cos, sin = np.cos(angle), np.sin(angle)  # (T, K / 2)
    first, second = x[..., : size // 2], x[..., size // 2 :]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _polynomial(x: FloatArray, coefficients: tuple[float, ...]) -> FloatArray:
    """Evaluate a polynomial by Horner's rule, highest power first."""
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total *= x
        total += coefficient
    return total

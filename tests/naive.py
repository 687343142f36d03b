"""Slow and obvious versions of what minisplade computes: loops and float64, no cleverness."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def attention(
    query: Floats, key: Floats, value: Floats, mask: NDArray[np.bool_], window: int = 1 << 30
) -> Floats:
    """Mix values one query token at a time; arrays (B, H, T, K), mask (B, T)."""
    mixed = np.zeros(value.shape)
    for b, h, t in np.ndindex(*query.shape[:3]):
        tokens = [int(s) for s in np.flatnonzero(mask[b]) if abs(s - t) <= window]
        scores = [float(query[b, h, t] @ key[b, h, s]) for s in tokens]
        powers = [math.exp((s - max(scores)) / math.sqrt(query.shape[-1])) for s in scores]
        for s, power in zip(tokens, powers, strict=True):
            mixed[b, h, t] += power / sum(powers) * value[b, h, s]
    return mixed


def splade_pool(logits: Floats, mask: NDArray[np.bool_], strategy: str, activation: str) -> Floats:
    """Pool logits (B, T, V) into (B, V), one position after the other."""
    pooled = np.zeros((logits.shape[0], logits.shape[2]))
    for b, t, v in np.ndindex(*logits.shape):
        if mask[b, t]:
            weight = math.log1p(max(0.0, float(logits[b, t, v])))
            if activation == "log1p_relu":
                weight = math.log1p(weight)
            pooled[b, v] = pooled[b, v] + weight if strategy == "sum" else max(pooled[b, v], weight)
    return pooled


def top_k(scores: Sequence[float], k: int) -> list[int]:
    """Rank the positive scores, highest first, equal ones by place."""
    ranked = sorted((-score, place) for place, score in enumerate(scores) if score > 0)
    return [place for _, place in ranked[:k]]


def search(documents: Floats, query: Floats, k: int) -> tuple[list[int], list[float]]:
    """Compare a dense query (V,) with every dense document (N, V), term after term."""
    pairs = [zip(document.tolist(), query.tolist(), strict=True) for document in documents]
    scores = [sum(impact * weight for impact, weight in pair) for pair in pairs]
    best = top_k(scores, k)
    return best, [scores[place] for place in best]

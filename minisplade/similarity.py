"""How alike sparse vectors are: dot product, cosine, and negative distances."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import FloatArray
from minisplade.errors import InputError
from minisplade.vectors import AnyVectors, SparseVector, SparseVectors, as_rows


def similarity(a: AnyVectors, b: AnyVectors, name: str = "dot") -> FloatArray:
    """Compare every row of a with every row of b; returns float32 (rows of a, rows of b).

    name: "dot", "cosine", or "euclidean" and "manhattan", which are distances with a minus sign,
    so that more alike is always higher. Raises InputError where the vocabularies differ in size.
    """
    compare = _function(name)
    rows, others = _checked(a, b)
    return np.stack([compare(row, others) for row in rows]) if len(rows) else _nothing(others)


def similarity_pairwise(a: AnyVectors, b: AnyVectors, name: str = "dot") -> FloatArray:
    """Compare row i of a with row i of b; returns float32 (B,); see similarity."""
    compare = _function(name)
    rows, others = _checked(a, b)
    if len(rows) != len(others):
        raise InputError(f"{len(rows)} vectors cannot be paired with {len(others)}")
    scores = [compare(row, as_rows(other))[0] for row, other in zip(rows, others, strict=True)]
    return np.array(scores, dtype=np.float32)


def dot(row: SparseVector, others: SparseVectors) -> FloatArray:
    """Sum the products of the weights of common terms; float32 (B,), summed in float64."""
    dense = row.toarray()
    return _sum_rows(dense[others.term_ids].astype(np.float64) * others.weights, others)


def cosine(row: SparseVector, others: SparseVectors) -> FloatArray:
    """Divide the dot product by both lengths; a vector without terms has cosine 0."""
    lengths = _length(row) * np.sqrt(_sum_rows(np.square(others.weights, dtype=float), others))
    # The smallest normal number keeps 0 / 0 at 0.
    cosines = dot(row, others) / np.maximum(lengths, np.finfo(np.float32).tiny)
    return cosines.astype(np.float32)


def euclidean(row: SparseVector, others: SparseVectors) -> FloatArray:
    """Return minus the straight-line distance."""
    squares = _sum_rows(np.square(others.weights, dtype=float), others)
    gap = _length(row) ** 2 + squares - 2 * dot(row, others).astype(np.float64)
    return -np.sqrt(np.maximum(gap, 0)).astype(np.float32)


def manhattan(row: SparseVector, others: SparseVectors) -> FloatArray:
    """Return minus the sum of absolute differences."""
    # |x - y| = x + y - 2 min(x, y) for weights that are not negative.
    shared = np.minimum(row.toarray()[others.term_ids], others.weights)
    return -(row.weights.sum() + _sum_rows(others.weights - 2.0 * shared, others))


SIMILARITIES: dict[str, Callable[[SparseVector, SparseVectors], FloatArray]] = {
    "dot": dot,
    "cosine": cosine,
    "euclidean": euclidean,
    "manhattan": manhattan,
}


def _function(name: str) -> Callable[[SparseVector, SparseVectors], FloatArray]:
    if name not in SIMILARITIES:
        raise InputError(f"similarity {name!r} is unknown; known: {', '.join(SIMILARITIES)}")
    return SIMILARITIES[name]


def _checked(a: AnyVectors, b: AnyVectors) -> tuple[SparseVectors, SparseVectors]:
    if a.num_terms != b.num_terms:
        raise InputError(
            f"vectors over {a.num_terms} and {b.num_terms} terms; encode both with the same model"
        )
    return as_rows(a), as_rows(b)


def _nothing(others: SparseVectors) -> FloatArray:
    return np.zeros((0, len(others)), dtype=np.float32)


def _length(row: SparseVector) -> float:
    return float(np.linalg.norm(row.weights.astype(np.float64)))


def _sum_rows(values: NDArray[Any], vectors: SparseVectors) -> FloatArray:
    """Add up the values (P,) of each row; returns float32 (B,)."""
    rows = np.repeat(np.arange(len(vectors)), np.diff(vectors.offsets))
    return np.bincount(rows, weights=values, minlength=len(vectors)).astype(np.float32)

"""Similarities against dense arithmetic in float64."""

import numpy as np
import pytest

from minisplade import InputError, SparseVectors
from minisplade.similarity import similarity, similarity_pairwise

RNG = np.random.default_rng(5)
A = (RNG.random((4, 12)) * (RNG.random((4, 12)) < 0.5)).astype("f4")
B = (RNG.random((4, 12)) * (RNG.random((4, 12)) < 0.5)).astype("f4")
B[2] = 0

EXPECTED = {
    "dot": lambda a, b: a @ b,
    "cosine": lambda a, b: a @ b / max(1e-30, np.linalg.norm(a) * np.linalg.norm(b)),
    "euclidean": lambda a, b: -np.linalg.norm(a - b),
    "manhattan": lambda a, b: -np.abs(a - b).sum(),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_all_pairs_and_row_pairs(name: str) -> None:
    a, b = SparseVectors.from_dense(A), SparseVectors.from_dense(B)
    expected = [[EXPECTED[name](x, y) for y in B.astype(float)] for x in A.astype(float)]
    assert similarity(a, b, name) == pytest.approx(np.array(expected), abs=1e-6)
    assert similarity_pairwise(a, b, name) == pytest.approx(np.diag(expected), abs=1e-6)
    assert similarity(a[0], b, name) == pytest.approx(np.array(expected)[:1], abs=1e-6)


def test_no_rows() -> None:
    a, b = SparseVectors.from_dense(A), SparseVectors.from_dense(B)
    assert similarity(a[:0], b).shape == (0, 4)
    assert similarity(a, b[:0]).shape == (4, 0)
    assert similarity_pairwise(a[:0], b[:0]).shape == (0,)


def test_what_cannot_be_compared() -> None:
    a = SparseVectors.from_dense(A)
    with pytest.raises(InputError, match="12 and 3 terms"):
        similarity(a, SparseVectors.from_dense(A[:, :3]))
    with pytest.raises(InputError, match="4 vectors cannot be paired with 2"):
        similarity_pairwise(a, a[:2])
    with pytest.raises(InputError, match="'jaccard' is unknown; known: dot"):
        similarity(a, a, "jaccard")

"""Scoring and selection against brute force, compiled and not."""

import os
import subprocess
import sys

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minisplade import SparseVectors
from minisplade.index import search as search_module
from minisplade.index.postings import build_postings
from minisplade.index.search import add_scores_reference, search, select_top_k
from minisplade.kernels.scoring import add_scores

# Small whole numbers make sums exact, so that equality is equality, and ties are frequent.
DOCUMENTS = hnp.arrays(
    np.float32, st.tuples(st.integers(0, 30), st.just(7)), elements=st.integers(0, 3).map(float)
)
QUERY = hnp.arrays(np.float32, 7, elements=st.integers(0, 3).map(float))


@given(DOCUMENTS, QUERY, st.integers(1, 40))
def test_search_is_brute_force(documents: np.ndarray, query: np.ndarray, k: int) -> None:
    postings = build_postings(SparseVectors.from_dense(documents))
    doc_ids, scores = search(postings, SparseVectors.from_dense(query[None])[0], k)
    assert (doc_ids.tolist(), scores.tolist()) == naive.search(documents, query, k)
    assert (doc_ids.dtype, scores.dtype) == (np.int32, np.float32)


@given(DOCUMENTS, QUERY, st.integers(1, 40))
def test_search_without_numba_is_the_same(documents: np.ndarray, query: np.ndarray, k: int) -> None:
    postings = build_postings(SparseVectors.from_dense(documents))
    vector = SparseVectors.from_dense(query[None])[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_module, "find_spec", lambda name: None)
        doc_ids, scores = search(postings, vector, k)
    assert (doc_ids.tolist(), scores.tolist()) == naive.search(documents, query, k)


@given(DOCUMENTS)
def test_postings_are_the_transpose(documents: np.ndarray) -> None:
    postings = build_postings(SparseVectors.from_dense(documents))
    postings.check()
    dense = np.zeros_like(documents)
    for term in range(postings.num_terms):
        own = slice(postings.offsets[term], postings.offsets[term + 1])
        assert np.all(np.diff(postings.doc_ids[own]) > 0)
        dense[postings.doc_ids[own], term] = postings.impacts[own]
    assert np.array_equal(dense, documents)


def test_kernel_and_reference_add_the_same_scores() -> None:
    rng = np.random.default_rng(11)
    dense = rng.random((500, 60), dtype=np.float32) * (rng.random((500, 60)) < 0.2)
    postings = build_postings(SparseVectors.from_dense(dense))
    query = SparseVectors.from_dense(rng.random((1, 60), dtype=np.float32))[0]
    arrays = postings.offsets, postings.doc_ids, postings.impacts, query.term_ids, query.weights
    compiled, reference = np.zeros((2, 500), dtype=np.float32)
    add_scores(*arrays, compiled)
    add_scores_reference(postings, query, reference)
    assert np.abs(compiled - reference).max() <= 1e-5
    assert compiled == pytest.approx(naive.add_scores(*arrays, 500), rel=1e-5)


@pytest.mark.parametrize("k", [1, 10, 299, 300, 1000])
def test_top_k_matches_full_sort(k: int) -> None:
    scores = np.random.default_rng(0).integers(0, 5, 300).astype(np.float32)  # many ties
    assert select_top_k(scores, k).tolist() == naive.top_k(scores.tolist(), k)


def test_these_tests_pass_with_the_compiler_switched_off() -> None:
    if os.environ.get("NUMBA_DISABLE_JIT") == "1":
        return  # this is the inner run
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-2000:]

"""Search against brute force: every form, filter, mode and thread count, compiled and not."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minisplade import InputError, SparseVector, SparseVectors
from minisplade.index import search as search_module
from minisplade.index.filters import EVERYTHING, Filter
from minisplade.index.parts import Parts
from minisplade.index.postings import Postings, build_postings
from minisplade.index.search import (
    SearchOptions,
    drop_light_terms,
    search,
    search_many,
    search_parts,
    search_reference,
)
from minisplade.kernels import retrieval, waiting

TERMS = 7
WHOLE = st.integers(0, 3).map(float)  # ties are frequent
CLOSE = st.sampled_from([0, 0, 1, 1 + 2**-23, 1 + 2**-22, 1 - 2**-24, 2 + 2**-22, 3])
WIDE = st.just(0.0) | st.floats(2**-100, 2**100, width=32)
MIXED = st.just(0.0) | st.floats(2**-8, 2**3, width=32)


def dense_rows(elements: st.SearchStrategy[float], most: int = 40) -> st.SearchStrategy[np.ndarray]:
    shape = st.tuples(st.integers(0, most), st.just(TERMS))
    return hnp.arrays(np.float32, shape, elements=elements, fill=st.just(0.0))


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, SearchOptions]:
    """Documents, of which some are repeated, one query and options."""
    elements = draw(st.sampled_from([WHOLE, CLOSE, WIDE, MIXED]))
    documents = draw(dense_rows(elements))
    if len(documents) and draw(st.booleans()):
        documents = documents[draw(st.lists(st.integers(0, len(documents) - 1), max_size=60))]
    query = draw(hnp.arrays(np.float32, TERMS, elements=elements))
    allowed = EVERYTHING
    if draw(st.booleans()):
        mask = draw(hnp.arrays(np.bool_, len(documents)))
        allowed = Filter.from_mask(mask, len(documents))
    options = SearchOptions(draw(st.integers(1, 70)), allowed, draw(st.integers(1, 3)))
    return documents, query, options


def forms(documents: np.ndarray, block_size: int) -> list[Postings]:
    plain = build_postings(SparseVectors.from_dense(documents), block_size=block_size)
    rows = plain.with_rows(1e6)
    return [plain, plain.to_compact(), rows, rows.to_compact()]


def expected(
    documents: np.ndarray, query: np.ndarray, options: SearchOptions
) -> tuple[list[int], list[float]]:
    documents = documents.astype(np.float64)
    if options.allowed is not EVERYTHING:
        documents[~options.allowed.allowed] = 0
    return naive.search(documents, query.astype(np.float64), options.k)


def test_threads_that_refuse_a_query_answer_it_once() -> None:
    """Scores that float32 cannot hold are left to the reference, by the whole and not by parts."""
    documents = np.zeros((16, TERMS), dtype=np.float32)
    documents[[3, 14], 0] = 2.0**-100
    query = SparseVectors.from_dense(np.eye(1, TERMS, dtype=np.float32) * 2.0**-40)[0]
    for postings in forms(documents, block_size=1):
        for threads in (1, 2, 3):
            doc_ids, _ = search(postings, query, SearchOptions(5, num_threads=threads))
            assert doc_ids.tolist() == [3, 14]


@settings(deadline=None)
@given(cases(), st.sampled_from([1, 4, 16, 16_384]))
def test_search_is_brute_force(
    case: tuple[np.ndarray, np.ndarray, SearchOptions], block_size: int
) -> None:
    documents, query, options = case
    best, scores = expected(documents, query, options)
    vector = SparseVectors.from_dense(query[None])[0]
    for postings in forms(documents, block_size):
        postings.check()
        for answer in (search, search_reference):
            doc_ids, found = answer(postings, vector, options)
            assert doc_ids.tolist() == best
            assert (doc_ids.dtype, found.dtype) == (np.int32, np.float32)
            with np.errstate(over="ignore"):
                assert found == pytest.approx(np.array(scores).astype(np.float32), rel=2e-6)


@settings(deadline=None)
@given(dense_rows(WHOLE | MIXED), dense_rows(WHOLE | MIXED, 20), st.integers(1, 3))
def test_a_batch_is_one_by_one(documents: np.ndarray, queries: np.ndarray, threads: int) -> None:
    vectors = SparseVectors.from_dense(queries)
    options = SearchOptions(5)
    for postings in forms(documents, 8):
        many = search_many(postings, vectors, replace(options, num_threads=threads))
        for vector, (doc_ids, scores) in zip(vectors, many, strict=True):
            alone = search(postings, vector, options)
            assert doc_ids.tolist() == alone[0].tolist()
            assert scores.tolist() == alone[1].tolist()


@settings(deadline=None)
@given(cases(), st.floats(0.05, 1), st.floats(0, 5))
def test_approximate_results_keep_their_promise(
    case: tuple[np.ndarray, np.ndarray, SearchOptions], alpha: float, epsilon: float
) -> None:
    documents, query, options = case
    if not (documents.size and query.any()) or max(documents.max(), query.max()) > 2**40:
        return
    options = replace(options, alpha=alpha, epsilon=epsilon)
    _, best = expected(documents, query, options)
    vector = SparseVectors.from_dense(query[None])[0]
    for postings in forms(documents, 4):
        shorter, lost = drop_light_terms(Parts.of([(postings, EVERYTHING)]), vector, epsilon)
        assert lost <= epsilon
        found = search(postings, shorter, options)[1].tolist()
        assert len(found) <= len(best)
        for rank, score in enumerate(best):
            got = found[rank] if rank < len(found) else 0.0
            # Float32 has no room for the smallest scores.
            assert got >= alpha * (score - lost) * (1 - 1e-6) - 1e-37


def many_documents(seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Enough documents of uneven terms for lists to wait and for guesses to matter."""
    rng = np.random.default_rng(seed)
    often = np.array([0.9, 0.8, 0.6, 0.3, 0.1, 0.03, 0.01])
    documents = rng.gamma(2.0, 0.5, (1500, TERMS)) * (rng.random((1500, TERMS)) < often)
    return documents.astype(np.float32), np.array([0.1, 0.1, 0.2, 0.8, 1, 2, 3], np.float32)


def wait_early(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.environ.get("NUMBA_DISABLE_JIT") == "1":
        # Compiled kernels have this number built in; uncompiled ones can be made to wait early.
        monkeypatch.setattr(waiting, "WAITING_LENGTH", 1)
        monkeypatch.setattr(retrieval, "WAITING_SHARE", 0.6)


@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize("share", [None, 0.5, 0.004])
def test_lists_that_wait_change_nothing(
    monkeypatch: pytest.MonkeyPatch, k: int, share: float | None
) -> None:
    wait_early(monkeypatch)
    documents, query = many_documents()
    allowed = EVERYTHING
    if share:
        mask = np.random.default_rng(1).random(len(documents)) < share
        allowed = Filter.from_mask(mask, len(documents))
    options = SearchOptions(k, allowed)
    vector = SparseVectors.from_dense(query[None])[0]
    for postings in forms(documents, 128):
        best, scores = expected(documents, query, options)
        doc_ids, found = search(postings, vector, options)
        assert doc_ids.tolist() == best
        assert found.tolist() == pytest.approx(scores, rel=2e-6)
        threads = replace(options, num_threads=2)
        assert search(postings, vector, threads)[0].tolist() == best


@pytest.mark.parametrize("k", [1, 10, 100])
def test_lists_that_wait_in_several_parts(monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    wait_early(monkeypatch)
    documents, query = many_documents()
    options = SearchOptions(k)
    best, scores = expected(documents, query, options)
    vector = SparseVectors.from_dense(query[None])[0]
    for form in range(3):
        pieces = np.split(documents, [700, 800, 1250])
        parts = Parts.of([(forms(piece, 128)[form], EVERYTHING) for piece in pieces])
        doc_ids, found = search_parts(parts, vector, options)
        assert doc_ids.tolist() == best
        assert found.tolist() == pytest.approx(scores, rel=2e-6)


def test_an_empty_part_does_not_keep_kernels_from_searching(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    documents, query = many_documents()
    pieces = documents[:700], np.zeros((5, TERMS), np.float32), documents[700:]
    postings = [build_postings(SparseVectors.from_dense(piece)) for piece in pieces]
    parts = Parts.of([(own, EVERYTHING) for own in postings])
    monkeypatch.setattr(search_module, "_reference", None)
    vector = SparseVectors.from_dense(query[None])[0]
    doc_ids, _ = search_parts(parts, vector, SearchOptions(10))
    best = expected(documents, query, SearchOptions(10))[0]
    assert doc_ids.tolist() == [doc_id + 5 * (doc_id >= 700) for doc_id in best]


def test_several_python_threads_may_search_at_once() -> None:
    documents, _ = many_documents()
    queries = SparseVectors.from_dense(many_documents(seed=6)[0][:40])
    for postings in forms(documents, 128)[:2]:
        alone = [search(postings, query, SearchOptions(7)) for query in queries]
        with ThreadPoolExecutor(4) as pool:
            answer = partial(search, postings, options=SearchOptions(7))
            together = pool.map(answer, queries)
            for (doc_ids, scores), (expected_ids, expected) in zip(together, alone, strict=True):
                assert doc_ids.tolist() == expected_ids.tolist()
                assert scores.tolist() == expected.tolist()


def test_a_wrong_guess_from_the_first_block_is_made_good() -> None:
    documents = np.zeros((1024, TERMS), np.float32)
    documents[:128, 0] = 5  # all that is heavy is in the first block
    documents[128:, 0] = 1
    vector = SparseVectors.from_dense(np.eye(TERMS, dtype=np.float32)[:1])[0]
    for postings in forms(documents, 128):
        doc_ids, scores = search(postings, vector, SearchOptions(200))
        assert doc_ids.tolist() == list(range(200))
        assert scores.tolist() == [5] * 128 + [1] * 72


def test_a_batch_goes_on_after_a_query_that_float32_cannot_hold() -> None:
    documents = np.array([[1e30, 1], [1e-30, 2]], np.float32)
    queries = SparseVectors.from_dense(np.array([[1e30, 0], [0, 1], [1e-30, 0]], np.float32))
    for postings in forms(documents, 4):
        found = list(search_many(postings, queries, SearchOptions(2)))
        assert [doc_ids.tolist() for doc_ids, _ in found] == [[0, 1], [1, 0], [0, 1]]
        assert found[0][1].tolist() == [np.inf, pytest.approx(1)]


@pytest.mark.parametrize(
    ("term_ids", "weights", "message"),
    [
        ([0, 7], [1, 1], "term ids 0 to 7; expected 0 to 6"),
        ([-1, 2], [1, 1], "term ids -1 to 2"),
        ([2, 1], [1, 1], "must increase"),
        ([2, 2], [1, 1], "must increase"),
        ([1, 2], [1, -1], "must be positive"),
        ([1, 2], [1, np.nan], "must be positive"),
        ([1, 2], [np.inf, 1], "must be positive"),
    ],
)
def test_queries_that_kernels_could_not_take(
    term_ids: list[int], weights: list[float], message: str
) -> None:
    postings = forms(many_documents()[0], 128)[0]
    query = SparseVector(np.array(term_ids, np.int32), np.array(weights, np.float32), TERMS)
    for threads in (1, 2):
        with pytest.raises(InputError, match=message):
            search(postings, query, SearchOptions(num_threads=threads))


@pytest.mark.parametrize(
    ("term_ids", "weights", "message"),
    [
        (np.array([2**32 + 1]), np.ones(1, np.float32), "term_ids is int64"),
        (np.array([1.5]), np.ones(1, np.float32), "term_ids is float64"),
        (np.array([1], np.int32), np.array([1e300]), "weights is float64"),
        (np.array([1], np.int32), np.ones(2, np.float32), "1 term ids, but 2 weights"),
        (np.ones((1, 1), np.int32), np.ones((1, 1), np.float32), "expected int32 with one axis"),
    ],
)
def test_queries_of_other_kinds(term_ids: np.ndarray, weights: np.ndarray, message: str) -> None:
    postings = forms(many_documents()[0], 128)[0]
    with pytest.raises(InputError, match=message):
        search(postings, SparseVector(term_ids, weights, TERMS), SearchOptions())
    many = SparseVectors(np.array([0, term_ids.size]), term_ids, weights, TERMS)
    with pytest.raises(InputError, match=message):
        list(search_many(postings, many, SearchOptions()))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer sends signals here")
def test_a_signal_may_search_during_a_search() -> None:
    documents, queries = many_documents()[0], SparseVectors.from_dense(np.eye(TERMS, dtype="f4"))
    postings = forms(documents, 128)[0]
    expected = [search(postings, query, SearchOptions(5))[0].tolist() for query in queries]
    inside = []

    def search_too(*_: object) -> None:
        inside.append(search(postings, queries[1], SearchOptions(9))[0].tolist()[:5])
        signal.setitimer(signal.ITIMER_REAL, 0.0003)

    before = signal.signal(signal.SIGALRM, search_too)
    signal.setitimer(signal.ITIMER_REAL, 0.0003)
    try:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            found = [search(postings, query, SearchOptions(5))[0].tolist() for query in queries]
            assert found == expected
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert inside and all(found == expected[1] for found in inside)


def test_arrays_with_gaps_and_blocks_of_any_size() -> None:
    documents, dense_query = many_documents()
    plain, query = (
        SparseVectors.from_dense(documents),
        SparseVectors.from_dense(dense_query[None])[0],
    )
    gaps = SparseVectors(
        plain.offsets,
        np.repeat(plain.term_ids, 2)[::2],
        np.repeat(plain.weights, 2)[::2],
        plain.num_terms,
    )
    for block_size in (3, 200, 256):
        postings = build_postings(gaps, block_size=block_size)
        found = search(postings, query, SearchOptions(20))
        expected = search_reference(postings, query, SearchOptions(20))
        assert found[0].tolist() == expected[0].tolist()


@settings(deadline=None, max_examples=30)
@given(cases())
def test_search_without_numba_is_the_same(
    case: tuple[np.ndarray, np.ndarray, SearchOptions],
) -> None:
    documents, query, options = case
    vectors = SparseVectors.from_dense(query[None])
    compiled = search(forms(documents, 8)[0], vectors[0], options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_module, "_kernels", lambda: None)
        patch.setattr("minisplade.index.postings.find_spec", lambda name: None)
        for postings in forms(documents, 8):
            for found in (
                search(postings, vectors[0], options),
                next(iter(search_many(postings, vectors, options))),
            ):
                assert found[0].tolist() == compiled[0].tolist()
                assert found[1] == pytest.approx(compiled[1], rel=2e-6)


def test_these_tests_pass_with_the_compiler_switched_off() -> None:
    if os.environ.get("NUMBA_DISABLE_JIT") == "1":
        return  # this is the inner run
    here = os.path.dirname(__file__)
    files = [os.path.join(here, name) for name in ("test_search.py", "test_search_kernels.py")]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *files],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-2000:]

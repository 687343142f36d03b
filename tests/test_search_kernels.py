"""Each kernel of the search against its naive twin."""

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minisplade import SparseVectors
from minisplade.index.postings import build_postings
from minisplade.index.search import select_top_k
from minisplade.kernels import scoring, selection

DOCUMENTS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 30), st.just(5)),
    elements=st.just(0.0) | st.floats(2**-6, 2**6, width=32),
)
SCORES = hnp.arrays(np.float32, 256, elements=st.integers(0, 9).map(float), fill=st.just(0.0))


def keys_of(scores: np.ndarray) -> np.ndarray:
    return np.array(
        [selection.make_key(score, i) for i, score in enumerate(scores) if score > 0], np.int64
    )


def test_keys_hold_scores_and_documents() -> None:
    key = selection.make_key(np.float32(1.5), 70_000)
    assert selection.score_of(key) == 1.5
    assert selection.ID_MASK - (key & selection.ID_MASK) == 70_000
    assert selection.make_key(np.float32(1.5), 69_999) > key > selection.make_key(1.25, 0)


@settings(deadline=None)
@given(SCORES, st.integers(1, 300))
def test_partition_largest(scores: np.ndarray, k: int) -> None:
    keys = keys_of(scores)
    k = min(k, keys.size)
    if k:
        expected = sorted(keys.tolist(), reverse=True)
        assert selection.partition_largest(keys, keys.size, k) == expected[k - 1]
        assert sorted(keys[:k].tolist(), reverse=True) == expected[:k]


@pytest.mark.parametrize("size", [0, 1, 48, 49, 300])
@pytest.mark.parametrize("spread", [0, 1e-5, 1, 1e5])
def test_sort_descending(size: int, spread: float) -> None:
    scores = 1 + spread * np.random.default_rng(size).random(size, np.float32)
    keys = keys_of(scores.astype(np.float32))
    expected = sorted((key >> 32 for key in keys.tolist()), reverse=True)
    whole = sorted(keys.tolist())
    selection.sort_descending(keys, size, np.empty_like(keys))
    assert (keys >> 32).tolist() == expected
    assert sorted(keys.tolist()) == whole


@pytest.mark.parametrize("size", [0, 1, 2, 7, 64, 100])
def test_sort_exactly(size: int) -> None:
    rng = np.random.default_rng(size)
    scores, doc_ids = rng.integers(0, 5, size).astype(np.float64), rng.permutation(size)
    expected = sorted(zip(-scores, doc_ids, strict=True))
    selection.sort_exactly(scores, doc_ids)
    assert list(zip(-scores, doc_ids, strict=True)) == expected


@settings(deadline=None)
@given(SCORES, st.sampled_from([1, 2.5, 9, 100]))
def test_collect(scores: np.ndarray, limit: float) -> None:
    keys = np.zeros(300, np.int64)
    count = selection.collect(scores, np.float32(limit), 1000, keys, 2)
    places = [i for i, score in enumerate(scores) if score >= limit]
    assert keys[2:count].tolist() == [selection.make_key(scores[i], 1000 + i) for i in places]


@settings(deadline=None)
@given(SCORES, st.integers(1, 300))
def test_score_of_rank_is_reached_by_that_many(scores: np.ndarray, rank: int) -> None:
    found = selection.score_of_rank(scores, rank, np.empty(256, np.int64))
    assert found == 0 or np.count_nonzero(scores >= found) >= rank
    if rank <= 256:
        assert found == sorted(scores.tolist(), reverse=True)[rank - 1]  # a lane per document


@settings(deadline=None)
@given(DOCUMENTS, st.sampled_from([1, 4, 16]))
def test_postings_are_the_transpose(documents: np.ndarray, block_size: int) -> None:
    vectors = SparseVectors.from_dense(documents)
    plain = build_postings(vectors, block_size=block_size)
    for postings in (plain, plain.to_compact()):
        postings.check()
        dense = np.zeros_like(documents)
        for term in range(postings.num_terms):
            doc_ids, impacts = postings.list_of(term)
            assert np.all(np.diff(doc_ids) > 0)
            dense[doc_ids, term] = impacts
        assert np.array_equal(dense, documents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minisplade.index.postings.find_spec", lambda name: None)
        again = build_postings(vectors, block_size=block_size).lists
    for part, other in zip(again, plain.lists, strict=True):
        assert np.array_equal(part, other)


@settings(deadline=None)
@given(DOCUMENTS, st.sampled_from([4, 16]))
def test_cells_and_single_documents(documents: np.ndarray, block_size: int) -> None:
    plain = build_postings(SparseVectors.from_dense(documents), block_size=block_size)
    stage = np.empty(scoring.STAGE, np.int32)
    term_ids, weights = np.arange(5, dtype=np.int32), np.ones(5, np.float32)
    for postings in (plain, plain.to_compact(), plain.with_rows(1e6)):
        lists = postings.lists
        for block in range(lists.num_blocks):
            own = documents[block * block_size : (block + 1) * block_size]
            for term in range(5):
                scores = np.zeros(block_size, np.float32)
                scoring.add_cell(lists, term, block, 2.0, scores, stage)
                cut = 2.0 ** (lists.shift - 23) if postings.is_compact else 0
                least = 2 * own[:, term] * (1 - cut)
                assert np.all(scores[: len(own)] <= 2 * own[:, term])
                assert np.all(scores[: len(own)] >= least)
                for place, impact in enumerate(own[:, term]):
                    slot = scoring.slot_of(lists, term * lists.num_blocks + block, place)
                    assert (scoring.impact_at(lists, slot) if slot >= 0 else 0) == impact
        doc_ids = np.arange(0, len(documents), 2)
        found = np.empty(doc_ids.size)
        scoring.exact_scores(lists, term_ids, weights, doc_ids, found)
        singly = [scoring.exact_score(lists, term_ids, weights, doc_id) for doc_id in doc_ids]
        assert found.tolist() == singly
        for doc_id, document in enumerate(documents.astype(np.float64)):
            exact = scoring.exact_score(lists, term_ids, weights, doc_id)
            assert exact == naive.search(document[None], np.ones(5), 1)[1][0] if exact else True


@pytest.mark.parametrize("k", [1, 10, 299, 300, 1000])
def test_top_k_matches_full_sort(k: int) -> None:
    scores = np.random.default_rng(0).integers(0, 5, 300).astype(np.float32)  # many ties
    assert select_top_k(scores, k).tolist() == naive.top_k(scores.tolist(), k)

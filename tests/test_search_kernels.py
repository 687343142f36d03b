"""Each kernel of the search against its naive twin."""

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minisplade import SparseVectors
from minisplade.index.filters import EVERYTHING
from minisplade.index.parts import Parts
from minisplade.index.postings import build_postings
from minisplade.index.search import select_top_k
from minisplade.kernels import scoring, selection, waiting
from minisplade.kernels.compiler import kernel
from minisplade.kernels.masks import reaching
from minisplade.kernels.tiles import lowest_bit

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
def test_the_kth_score(scores: np.ndarray, k: int) -> None:
    keys = keys_of(scores)
    k = min(k, keys.size)
    if k:
        kth = sorted(scores.tolist(), reverse=True)[k - 1]
        assert selection.score_at(keys, keys.size, k) == kth
        assert selection.value_at(keys, k, 63) == sorted(keys.tolist(), reverse=True)[k - 1]
        expected = [key for key in keys.tolist() if selection.score_of(key) >= kth]
        kept = selection.keep_reaching(keys, keys.size, kth)
        assert keys[:kept].tolist() == expected


@pytest.mark.parametrize(("kind", "num_bits"), [(np.int32, 31), (np.int64, 63)])
def test_value_at_any_rank(kind: type, num_bits: int) -> None:
    rng = np.random.default_rng(num_bits)
    values = np.concatenate([rng.integers(0, 2**num_bits, 50), [0, 0, 7, 7, 2**num_bits - 1]])
    expected = sorted(values.tolist(), reverse=True)
    found = [selection.value_at(values.astype(kind), r + 1, num_bits) for r in range(values.size)]
    assert found == expected


@pytest.mark.parametrize("size", [0, 1, 48, 49, 300])
@pytest.mark.parametrize("spread", [0, 1e-5, 1, 1e5])
def test_sort_descending(size: int, spread: float) -> None:
    scores = 1 + spread * np.random.default_rng(size).random(size, np.float32)
    keys = keys_of(scores.astype(np.float32))
    expected = sorted((key >> 32 for key in keys.tolist()), reverse=True)
    whole = sorted(keys.tolist())
    selection.sort_descending(keys, size, np.empty_like(keys), np.empty(selection.DIGITS, np.int64))
    assert (keys >> 32).tolist() == expected
    assert sorted(keys.tolist()) == whole


@pytest.mark.parametrize("size", [0, 1, 2, 7, 64, 100])
def test_sort_exactly(size: int) -> None:
    rng = np.random.default_rng(size)
    scores, doc_ids = rng.integers(0, 5, size).astype(np.float64), rng.permutation(size)
    expected = sorted(zip(-scores, doc_ids, strict=True))
    selection.sort_exactly(scores, doc_ids, np.empty_like(scores), np.empty_like(doc_ids))
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


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.int64])
def test_masks(kind: type) -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, 100, dtype=kind, endpoint=True)
    for least in [*values[:20], kind(0), np.iinfo(kind).max]:
        mask, expected = masking(values, 30, int(least)), values[30:94] >= least
        assert [int(mask) >> i & 1 for i in range(64)] == expected.tolist()
        places = np.flatnonzero(expected)
        assert lowest_in(np.uint64(mask).view(np.int64)) == (places[0] if places.size else 64)


@kernel
def masking(values: np.ndarray, start: int, least: int) -> int:
    return reaching(values, start, least)


@kernel
def lowest_in(mask: int) -> int:
    return lowest_bit(mask)


@pytest.mark.parametrize("with_rows", [False, True])
def test_look_up(with_rows: bool) -> None:
    rng = np.random.default_rng(5)
    documents = (rng.random((700, 3)) * (rng.random((700, 3)) < [0.05, 0.5, 1])).astype("f4")
    pieces = np.split(documents, [400, 500])
    postings = [build_postings(SparseVectors.from_dense(own), block_size=128) for own in pieces]
    if with_rows:
        postings = [own.with_rows(1e6) for own in postings]
    parts = Parts.of([(own, EVERYTHING) for own in postings])  # searched as 0, 2, 1
    doc_ids = [*range(0, 400, 3), *range(500, 700, 7), *range(400, 500, 2)]
    for term in range(3):
        keys = np.array([selection.make_key(1.0, doc_id) for doc_id in doc_ids], np.int64)
        slots = np.empty_like(keys)
        waiting.look_up(parts.table, term, 2.0, 0, 1, keys, keys.size, slots)
        assert [selection.ID_MASK - (key & selection.ID_MASK) for key in keys.tolist()] == doc_ids
        for key, doc_id in zip(keys.tolist(), doc_ids, strict=True):
            added = 2 * documents[doc_id, term] if doc_id >= 256 else 0  # after two whole blocks
            assert selection.score_of(key) == np.float32(1) + np.float32(added)


def test_cells_with_many_postings() -> None:
    rng = np.random.default_rng(4)
    uneven = rng.random((4000, 5)) < np.linspace(0.02, 1, 4000)[:, None] ** [0, 0.5, 1, 2, 4]
    lists = build_postings(SparseVectors.from_dense(uneven.astype(np.float32))).lists
    for term in range(5):
        for place, present in enumerate(uneven[:, term]):
            cell = term * lists.num_blocks
            start, end = lists.offsets[cell : cell + 2].tolist()
            for guess in {
                scoring.even_slot(lists, cell, place),
                start,
                (start + end) // 2,
                end - 1,
            }:
                slot = scoring.slot_of(lists, cell, place, guess)
                assert (slot >= 0) == present
                assert slot < 0 or lists.local_ids[slot] == place


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
                cell = term * lists.num_blocks + block
                start, end = lists.offsets[cell : cell + 2]
                for place, impact in enumerate(own[:, term] if end > start else []):
                    even = scoring.even_slot(lists, cell, place)
                    for guess in (even, start, end - 1):
                        assert start <= guess < end
                        slot = scoring.slot_of(lists, cell, place, guess)
                        assert (scoring.impact_at(lists, slot) if slot >= 0 else 0) == impact
        doc_ids = np.arange(0, len(documents), 2)
        found, sums = np.full(doc_ids.size + 1, 9.0), np.empty(block_size)
        theirs = np.append(doc_ids, len(documents)) + 100  # the last is of other lists
        scoring.exact_scores(lists, term_ids, weights, 100, theirs, sums, found)
        singly = [scoring.exact_score(lists, term_ids, weights, doc_id) for doc_id in doc_ids]
        assert found.tolist() == [*singly, 9.0]
        for doc_id, document in enumerate(documents.astype(np.float64)):
            exact = scoring.exact_score(lists, term_ids, weights, doc_id)
            assert exact == naive.search(document[None], np.ones(5), 1)[1][0] if exact else True


@pytest.mark.parametrize("k", [1, 10, 299, 300, 1000])
def test_top_k_matches_full_sort(k: int) -> None:
    scores = np.random.default_rng(0).integers(0, 5, 300).astype(np.float32)  # many ties
    assert select_top_k(scores, k).tolist() == naive.top_k(scores.tolist(), k)

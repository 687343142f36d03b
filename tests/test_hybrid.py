"""Hybrid search against dense arithmetic on the fields apart; whole words against the words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minisplade import BM25, HybridEncoder, HybridSearch, Index, InputError, SparseEncoder
from minisplade.words import WholeWords, words_of

TEXTS = [
    "The cat sat on the mat.",
    "A sailor crosses the ocean in a small boat, error 0x80070005.",
    "Doctors treat patients with medicine in a hospital.",
    "numpy.linalg.norm computes the length of a vector, see ISO-8601",
    "Kittens sleep all day; so do cats.",
    "",
    "Error 0x8007000E means that memory ran out.",
]
QUERIES = ["travel by sea", "cats", "error 0x80070005", "norm of a vector", "", "zzzz"]
FIELDS = ["splade", "bm25", "words"]


class Reverse:
    """A reranker that finds the last one best."""

    def predict(self, inputs: list[tuple[str, str]]) -> NDArray[np.float64]:
        return np.arange(len(inputs), dtype=np.float64)


@pytest.fixture(scope="module")
def hybrid(encoder: SparseEncoder) -> HybridSearch:
    encoders = {
        "splade": encoder,
        "bm25": BM25.fit(TEXTS),
        "words": WholeWords(encoder.tokenizer, 1 << 12),
    }
    return HybridSearch.from_texts(TEXTS, encoders, keys=[f"k{i}" for i in range(len(TEXTS))])


def scores_by_field(hybrid: HybridSearch) -> dict[str, NDArray[np.float64]]:
    """Return float64 (Q, N) for each field, from its own encoder alone."""
    scores = {}
    for field, encoder in hybrid.encoder.encoders.items():
        queries = encoder.encode_query(QUERIES).toarray().astype(np.float64)
        blocks = [block.toarray() for block in encoder.encode_stream(TEXTS)]
        scores[field] = queries @ np.concatenate(blocks).T
    return scores


def ranked(scores: NDArray[np.float64]) -> list[tuple[str, float]]:
    order = sorted(range(scores.size), key=lambda i: (-scores[i], i))
    return [(f"k{i}", float(scores[i])) for i in order if scores[i] > 0]


def assert_ranked(hits: Any, expected: list[tuple[str, float]]) -> None:
    assert [hit.key for hit in hits] == [key for key, _ in expected]
    assert [hit.score for hit in hits] == pytest.approx([s for _, s in expected], rel=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weights", [{}, {"words": 0.1, "splade": 2.0}, {"bm25": 0}])
def test_linear_fusion_is_exact(
    hybrid: HybridSearch, normalize: bool, weights: dict[str, float]
) -> None:
    fields = scores_by_field(hybrid)
    found = hybrid.search(QUERIES, k=len(TEXTS), weights=weights, normalize=normalize)
    for place, hits in enumerate(found):
        total = np.zeros(len(TEXTS))
        for field in FIELDS:
            own = fields[field][place]
            best = own.max() if normalize and own.max() > 0 else 1.0
            total += weights.get(field, 1.0) * own / best
        assert_ranked(hits, ranked(total))


def test_reciprocal_rank_fusion_ranks_the_fields_apart(hybrid: HybridSearch) -> None:
    fields = scores_by_field(hybrid)
    found = hybrid.search(QUERIES, k=len(TEXTS), fusion="rrf", weights={"bm25": 2.0}, rrf_k=10)
    for place, hits in enumerate(found):
        total = np.zeros(len(TEXTS))
        for field in FIELDS:
            for rank, (key, _) in enumerate(ranked(fields[field][place]), start=1):
                total[int(key[1:])] += (2.0 if field == "bm25" else 1.0) / (10 + rank)
        assert_ranked(hits, ranked(total))


def test_one_query_is_as_one_of_many(hybrid: HybridSearch) -> None:
    for fusion in ("linear", "rrf"):
        many = hybrid.search(QUERIES, k=3, fusion=fusion)
        for query, hits in zip(QUERIES, many, strict=True):
            assert list(hybrid.search(query, k=3, fusion=fusion)) == list(hits)


def test_queries_may_be_vectors(hybrid: HybridSearch) -> None:
    vectors = hybrid.encoder.encode_query(QUERIES)
    assert [list(h) for h in hybrid.search(vectors)] == [list(h) for h in hybrid.search(QUERIES)]
    assert list(hybrid.search(vectors[1])) == list(hybrid.search(QUERIES[1]))
    with pytest.raises(InputError, match="queries given as text"):
        hybrid.search(vectors, rerank=Reverse())
    with pytest.raises(InputError, match="query has 30522 terms, the fields"):
        hybrid.search(hybrid.encoder.encoders["splade"].encode_query("cats"))


def test_an_index_with_a_hybrid_encoder_adds_the_fields_up(hybrid: HybridSearch) -> None:
    assert isinstance(hybrid.index.encoder, HybridEncoder)
    plain = hybrid.index.search("cats", k=5)
    assert list(plain) == list(hybrid.search("cats", k=5, normalize=False))
    terms = hybrid.encoder.terms
    shares = hybrid.index.matching_terms(hybrid.encoder.encode_query("cats"), plain[0].doc_id)
    assert {terms[i] for i, _ in shares} >= {"cat", "cats"}  # the stem and the subword


def test_filters_hold_in_every_field(hybrid: HybridSearch) -> None:
    allowed = np.arange(len(TEXTS)) >= 4
    for fusion in ("linear", "rrf"):
        hits = hybrid.search("cats error 0x80070005", fusion=fusion, filter=allowed)
        assert {hit.key for hit in hits} <= {"k4", "k5", "k6"}
        # The best of what is allowed has the whole share of its field.
        assert hits[0].score > 0


def test_rerank_looks_at_more_than_k(hybrid: HybridSearch) -> None:
    first = hybrid.search("cats", k=3)
    (best,) = hybrid.search("cats", k=1, rerank=Reverse(), rerank_depth=3)
    assert (best.key, best.score) == (first[2].key, 2.0)


def test_fields_are_kept_in_files(hybrid: HybridSearch, tmp_path: Path) -> None:
    encoders = dict(hybrid.encoder.encoders)
    hybrid.index.save(tmp_path / "index")
    encoders["bm25"].save(tmp_path / "bm25")
    encoders["bm25"] = BM25.load(tmp_path / "bm25")
    loaded = HybridSearch(Index.load(tmp_path / "index"), HybridEncoder(encoders))
    for query in QUERIES:
        assert list(loaded.search(query)) == list(hybrid.search(query))


def test_identifiers_are_told_apart_by_whole_words(hybrid: HybridSearch) -> None:
    hits = hybrid.search("0x80070005", weights={"splade": 0, "bm25": 0})
    assert [hit.key for hit in hits] == ["k1"]
    hits = hybrid.search("NumPy.linalg.norm", weights={"splade": 0, "bm25": 0})
    assert [hit.key for hit in hits] == ["k3"]


def test_words_of_a_text() -> None:
    assert words_of("COVID-19 (C++, C#) a/b me@example.org. \uff26ull") == {
        *("covid-19", "covid", "19", "c++", "c#", "c", "a/b", "a", "b"),
        *("me@example.org", "me", "example", "org", "full"),
    }


def test_words_that_the_vocabulary_has_are_left_to_the_model(encoder: SparseEncoder) -> None:
    words = WholeWords(encoder.tokenizer, 1 << 20)
    vectors = words.encode_document(["the cat sat", "angiotensin of the cat", ""]).check()
    expected = [[], [words.term_id("angiotensin")], []]
    assert [row.term_ids.tolist() for row in vectors] == expected
    assert words.encode_query("Angiotensin?") == vectors[1]


def test_arguments_are_checked(hybrid: HybridSearch, encoder: SparseEncoder) -> None:
    with pytest.raises(InputError, match="no field 'bm'; there are"):
        hybrid.search("cats", weights={"bm": 1})
    with pytest.raises(InputError, match="fusion is 'max'"):
        hybrid.search("cats", fusion="max")
    with pytest.raises(InputError, match="no encoders"):
        HybridEncoder({})
    other = Index.from_texts(["cat"], BM25.fit(["cat"]))
    with pytest.raises(InputError, match="query has 30522 terms, .* 1;"):
        HybridSearch(other, HybridEncoder({"splade": encoder})).search("cat")

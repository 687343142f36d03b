"""BM25 weights against the formulas as they are printed, word by word."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from minisplade import BM25, Index, IndexFormatError, InputError, analysis
from minisplade.analysis import english, simple

TEXTS = [
    "the cat sat on the mat",
    "a cat and another cat",
    "dogs chase cats",
    "",
    "the the the dog's bone",
    "mat mat mat cat",
]
QUERIES = ["cat", "the mat", "cat cat dog", "unknown words", "", "chase the dog's cats"]


def score(method: str, query: str, document: str, k1: float, b: float, delta: float) -> float:
    """Add up the formula over the words of the query that the document has."""
    words, collection = simple(document), [simple(text) for text in TEXTS]
    length = sum(map(len, collection)) / len(collection)
    total = 0.0
    for word in simple(query):
        tf, df, n = words.count(word), sum(word in own for own in collection), len(collection)
        if tf == 0:
            continue
        norm = k1 * (1 - b + b * len(words) / length)
        if method == "lucene":
            total += math.log(1 + (n - df + 0.5) / (df + 0.5)) * tf / (tf + norm)
        elif method == "atire":
            total += math.log(n / df) * tf * (k1 + 1) / (tf + norm)
        else:
            total += math.log((n + 1) / df) * (tf * (k1 + 1) / (tf + norm) + delta)
    return total


@pytest.mark.parametrize("method", ["lucene", "atire", "bm25+"])
@pytest.mark.parametrize(("k1", "b", "delta"), [(1.2, 0.75, 1.0), (0.9, 0.4, 0.5), (0, 1, 0)])
def test_scores_are_the_formula(method: str, k1: float, b: float, delta: float) -> None:
    bm25 = BM25.fit(TEXTS, method=method, k1=k1, b=b, delta=delta, analyzer="simple")
    queries, documents = bm25.encode_query(QUERIES), bm25.encode_document(TEXTS).check()
    found = queries.check().toarray().astype(float) @ documents.toarray().T
    expected = [[score(method, q, d, k1, b, delta) for d in TEXTS] for q in QUERIES]
    assert found == pytest.approx(np.array(expected), rel=1e-6, abs=1e-6)


def test_search_ranks_by_the_formula() -> None:
    bm25 = BM25.fit(TEXTS, analyzer="simple")
    index = Index.from_texts(TEXTS, bm25)
    for query, hits in zip(QUERIES, index.search(QUERIES, k=6), strict=True):
        scores = [score("lucene", query, text, 1.2, 0.75, 0) for text in TEXTS]
        positive = sorted((-s, i) for i, s in enumerate(scores) if s > 0)
        assert hits.doc_ids.tolist() == [i for _, i in positive]


def test_words_unknown_to_the_collection_lengthen_a_document() -> None:
    bm25 = BM25.fit(["cat", "dog"], analyzer="simple")
    short, long = bm25.encode_document(["cat", "cat never seen"])
    assert len(long) == 1
    assert long.weights[0] < short.weights[0]


def test_a_word_of_every_document_weighs_nothing_in_atire() -> None:
    vectors = BM25.fit(["cat", "cat dog"], method="atire", analyzer="simple")
    assert [len(row) for row in vectors.encode_document(["cat", "cat dog"]).check()] == [0, 1]


def test_english_analysis() -> None:
    words = english("The cats' toys weren't in O'Neil's houses; RUNNING \u00c9cole 3.14 cat's")
    assert words == "cat toy weren't o'neil hous run \u00e9cole 3 14 cat".split()
    assert english("The And IS") == english("") == []


def test_one_text_gives_one_vector() -> None:
    bm25 = BM25.fit(TEXTS)
    assert bm25.encode_query("cats") == bm25.encode_query(["cats"])[0]
    assert bm25.encode_document("cats") == bm25.encode_document(["cats"])[0]
    assert bm25.encode_query("cats").to_dict(bm25.terms) == {"cat": 1.0}


def test_a_collection_without_words_finds_nothing() -> None:
    bm25 = BM25.fit(["", "?"])
    assert len(Index.from_texts(["", "?"], bm25).search("cat")) == 0


def test_saved_statistics_load(tmp_path: Path) -> None:
    bm25 = BM25.fit(TEXTS, method="bm25+", k1=0.9, b=0.4, delta=0.7)
    bm25.save(tmp_path / "bm25")
    loaded = BM25.load(tmp_path / "bm25")
    assert repr(loaded) == repr(bm25)
    assert loaded.encode_document(TEXTS) == bm25.encode_document(TEXTS)
    assert loaded.encode_query(QUERIES) == bm25.encode_query(QUERIES)
    BM25.fit([""]).save(tmp_path / "bm25")
    assert BM25.load(tmp_path / "bm25").terms == []


def test_files_that_are_no_statistics_are_refused(tmp_path: Path) -> None:
    bm25 = BM25.fit(TEXTS)
    vectors = bm25.encode_document(TEXTS)
    vectors.save(tmp_path / "vectors")
    with pytest.raises(IndexFormatError, match="not a minisplade-bm25 file"):
        BM25.load(tmp_path / "vectors")
    bm25.num_docs = 2
    bm25.save(tmp_path / "damaged")
    with pytest.raises(IndexFormatError, match="document frequencies beyond 1 to 2"):
        BM25.load(tmp_path / "damaged")


def test_without_the_stemmer_there_is_the_simple_analyzer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Stemmer", None)
    analysis._stemmer.cache_clear()
    with pytest.raises(InputError, match="pip install 'minisplade.bm25.', or choose analyzer='sim"):
        BM25.fit(TEXTS)
    assert "cats" in BM25.fit(TEXTS, analyzer="simple").terms


def test_arguments_are_checked() -> None:
    for arguments, message in [
        ({"method": "okapi"}, "method is 'okapi'; known: lucene, atire, bm25+"),
        ({"k1": -1}, "k1 is -1; expected 0 to inf"),
        ({"b": 1.5}, "b is 1.5; expected 0 to 1"),
        ({"analyzer": "french"}, "analyzer is 'french'; known: english, simple, or a function"),
    ]:
        with pytest.raises(InputError, match=message):
            BM25.fit(TEXTS, **arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no texts to fit"):
        BM25.fit([])
    with pytest.raises(InputError, match="inputs are one str"):
        BM25.fit("one text")
    with pytest.raises(InputError, match="text 1 is int"):
        BM25.fit(["a", 1])  # type: ignore[list-item]
    with pytest.raises(InputError, match="a function cannot be saved"):
        BM25.fit(TEXTS, analyzer=str.split).save("nowhere")

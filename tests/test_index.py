"""Index: keys, texts, files and what it refuses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import GOLDEN

from minisplade import Hit, Index, IndexFormatError, InputError, SparseEncoder, SparseVectors

DENSE = np.array([[0, 2, 1], [3, 0, 0], [0, 0, 0], [0, 2, 1]], dtype=np.float32)
VECTORS = SparseVectors.from_dense(DENSE)
KEYS = ["first", "second", "ünïcode 日本", "fourth"]
TEXTS = ["one\ntext", "", "two", "naïve"]


def query(*weights: float) -> SparseVectors:
    return SparseVectors.from_dense(np.array([weights], dtype=np.float32))


def test_hits_are_ranked_and_ties_keep_document_order() -> None:
    hits = Index.from_vectors(VECTORS, KEYS, TEXTS).search(query(0.5, 1, 0)[0])
    assert list(hits) == [
        Hit("first", 2.0, 0, "one\ntext"),
        Hit("fourth", 2.0, 3, "naïve"),
        Hit("second", 1.5, 1, ""),
    ]
    assert hits.keys == ("first", "fourth", "second")
    assert hits.doc_ids.tolist() == [0, 3, 1] and hits.scores.tolist() == [2, 2, 1.5]
    assert hits[-1].key == "second" and [h.key for h in hits[:2]] == ["first", "fourth"]


def test_documents_without_a_common_term_are_no_hits() -> None:
    index = Index.from_vectors(VECTORS)
    assert len(index.search(query(0, 0, 0)[0])) == 0
    assert [hit.key for hit in index.search(query(1, 0, 0)[0], k=100)] == ["1"]


def test_many_queries_give_many_hits() -> None:
    index = Index.from_vectors(VECTORS, KEYS)
    rows = SparseVectors.from_dense(np.eye(3, dtype=np.float32))
    found = index.search(rows, k=1)
    assert [[hit.key for hit in hits] for hits in found] == [["second"], ["first"], ["first"]]
    assert found[0][0].text is None


def test_matching_terms_sum_to_the_score() -> None:
    index = Index.from_vectors(VECTORS)
    vector = query(1, 0.5, 4)[0]
    for hit in index.search(vector):
        terms = index.matching_terms(vector, hit.doc_id)
        assert sum(share for _, share in terms) == hit.score
        assert {term for term, _ in terms} == set(np.flatnonzero(DENSE[hit.doc_id]).tolist())
    assert index.matching_terms(vector, 0) == [(2, 4.0), (1, 1.0)]
    with pytest.raises(InputError, match="doc_id is 4; this index has 0 to 3"):
        index.matching_terms(vector, 4)


def test_texts_and_queries_go_through_the_encoder() -> None:
    encoder = SparseEncoder(GOLDEN / "bert", prompts={"query": "the ", "document": "a "})
    index = Index.from_texts(["cat", "mat on the mat"], encoder, ["c", "m"])
    expected = encoder.similarity(encoder.encode_query("cat"), encoder.encode_document(["cat"]))
    by_key = {hit.key: hit.score for hit in index.search("cat")}
    assert by_key["c"] == pytest.approx(float(expected[0, 0]), rel=1e-5)
    many = index.search(["cat", "mat"], k=2)
    assert many[0].keys == index.search("cat", k=2).keys
    assert index.search("cat")[0].text in ("cat", "mat on the mat")
    assert Index.from_texts(["cat"], encoder, keep_texts=False).search("cat")[0].text is None


@pytest.mark.parametrize("texts", [None, TEXTS])
def test_save_and_load(tmp_path: Path, texts: list[str] | None) -> None:
    index = Index.from_vectors(VECTORS, KEYS, texts)
    index.save(tmp_path / "i.minisplade")
    again = Index.load(tmp_path / "i.minisplade")
    vector = query(0.5, 1, 0)[0]
    assert list(again.search(vector)) == list(index.search(vector))
    assert (len(again), again.keys, again.texts) == (4, index.keys, index.texts)
    assert repr(again) == "Index(4 documents, 5 postings over 3 terms, encoder None)"


def test_an_index_of_no_documents(tmp_path: Path) -> None:
    index = Index.from_vectors(VECTORS[:0], [])
    index.save(tmp_path / "empty")
    assert len(Index.load(tmp_path / "empty").search(query(1, 1, 1)[0])) == 0


def test_an_index_remembers_its_encoder(tmp_path: Path) -> None:
    encoder = SparseEncoder(GOLDEN / "bert")
    Index.from_texts(["cat"], encoder).save(tmp_path / "i")
    assert Index.load(tmp_path / "i").encoder_name == str(GOLDEN / "bert")
    with pytest.raises(InputError, match="needs an encoder: .*golden/bert"):
        Index.load(tmp_path / "i").search("cat")
    assert len(Index.load(tmp_path / "i", encoder).search("cat")) == 1


def test_every_damage_that_could_mislead_a_kernel_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "i.minisplade"
    Index.from_vectors(VECTORS, KEYS).save(path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 16):
        path.write_bytes(whole[:size])
        with pytest.raises(IndexFormatError, match=r"i\.minisplade"):
            Index.load(path)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:  # a damaged impact or key stays readable; nothing may crash or read outside
            Index.load(path).search(query(1, 1, 1)[0])
        except (IndexFormatError, InputError):
            pass


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Index.from_vectors(VECTORS, ["a"]), "1 keys for 4 documents"),
        (lambda: Index.from_vectors(VECTORS, list("abca")), "key 'a' stands for two documents"),
        (lambda: Index.from_vectors(VECTORS, [1, 2, 3, 4]), "key 0 is int; expected str"),
        (lambda: Index.from_vectors(VECTORS, KEYS, ["one"]), "1 texts for 4 documents"),
        (lambda: Index.from_vectors(VECTORS).search(query(1, 2)), "query has 2 terms, index has 3"),
        (lambda: Index.from_vectors(VECTORS).search(query(1, 2, 3), 0), "k is 0; expected"),
        (lambda: Index.from_vectors(VECTORS).search(query(1, 2, 3), 1.5), "k is 1.5; expected"),
        (lambda: Index.from_vectors(VECTORS).search("text"), "needs an encoder"),
        (lambda: Index.from_texts([], SparseEncoder(GOLDEN / "bert")), "no texts to index"),
    ],
)
def test_wrong_arguments_are_explained(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()

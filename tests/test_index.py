"""Index: keys, texts, files and what it refuses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import GOLDEN

from minisplade import Hit, Index, IndexFormatError, InputError, SparseEncoder, SparseVectors
from minisplade.arrays import PostingLists
from minisplade.files import write_arrays
from minisplade.index.exchange import held_snapshot
from minisplade.index.postings import build_postings, make_postings, no_rows
from minisplade.index.stream import build_from_stream

DENSE = np.array([[0, 2, 1], [3, 0, 0], [0, 0, 0], [0, 2, 1]], dtype=np.float32)
VECTORS = SparseVectors.from_dense(DENSE)
KEYS = ["first", "second", "ünïcode 日本", "fourth"]
INDEX = Index.from_vectors(VECTORS, KEYS)
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
        (lambda: INDEX.search(query(1, 2, 3), num_threads=0), "num_threads is 0; expected"),
        (lambda: INDEX.search(query(1, 2, 3), alpha=0), "alpha is 0; expected more than 0"),
        (lambda: INDEX.search(query(1, 2, 3), alpha=1.5), "alpha is 1.5; expected"),
        (lambda: INDEX.search(query(1, 2, 3), epsilon=-1), "epsilon is -1; expected 0 or more"),
        (lambda: INDEX.search(query(1, 2, 3), filter=np.ones(3, bool)), r"expected bool .*\(4,\)"),
        (lambda: INDEX.search(query(1, 2, 3), filter=np.ones(4)), "filter is float64"),
        (lambda: INDEX.make_filter(["first", "?"]), r"filter names '\?', which is not"),
        (lambda: Index.from_texts([], SparseEncoder(GOLDEN / "bert")), "no texts to index"),
    ],
)
def test_wrong_arguments_are_explained(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def random_vectors(num_docs: int = 300, seed: int = 3) -> SparseVectors:
    rng = np.random.default_rng(seed)
    dense = rng.random((num_docs, 12), np.float32) * (rng.random((num_docs, 12)) < 0.4)
    return SparseVectors.from_dense(dense)


def test_a_filter_limits_the_hits() -> None:
    index = Index.from_vectors(VECTORS, KEYS)
    vector = query(0.5, 1, 0)[0]
    for chosen in (["fourth", "second"], np.array([False, True, False, True])):
        assert index.search(vector, filter=index.make_filter(chosen)).keys == ("fourth", "second")
    assert index.search(vector, filter=np.zeros(4, np.bool_)).keys == ()
    many = index.search(query(0.5, 1, 0), filter=np.array([True, False, False, False]))
    assert many[0].keys == ("first",)


def test_hits_tell_what_they_promise() -> None:
    index, exact = Index.from_vectors(random_vectors()), Index.from_vectors(random_vectors())
    for vector in random_vectors(20, seed=4):
        best = exact.search(vector)
        assert (best.alpha, best.epsilon) == (1, 0)
        hits = index.search(vector, alpha=0.8, epsilon=0.3)
        assert hits.alpha == 0.8 and 0 <= hits.epsilon <= 0.3
        for hit, other in zip(hits, best, strict=True):
            assert hit.score >= 0.8 * (other.score - hits.epsilon) - 1e-6
    several = index.search(random_vectors(20, seed=4), alpha=0.8, epsilon=0.3)
    assert several[-1].epsilon == hits.epsilon
    assert several[-1].doc_ids.tolist() == hits.doc_ids.tolist()


def test_the_compact_form_is_kept_and_finds_the_same(tmp_path: Path) -> None:
    vectors, queries = random_vectors(), random_vectors(20, seed=4)
    plain = Index.from_vectors(vectors)
    Index.from_vectors(vectors, compact=True).save(tmp_path / "i")
    compact = Index.load(tmp_path / "i")
    assert compact.postings.is_compact and not plain.postings.is_compact
    assert plain.postings.searched_bytes > compact.postings.searched_bytes
    for threads in (1, 2):
        for one, other in zip(
            plain.search(queries), compact.search(queries, num_threads=threads), strict=True
        ):
            assert one.doc_ids.tolist() == other.doc_ids.tolist()
            assert one.scores == pytest.approx(other.scores, rel=1e-6)
    assert compact.matching_terms(queries[0], 7) == plain.matching_terms(queries[0], 7)


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("sizes", [[300], [100, 0, 200], [1] * 300, [0, 299, 1], [64] * 4 + [44]])
def test_a_stream_builds_the_same_postings(sizes: list[int], compact: bool) -> None:
    vectors = random_vectors()
    cuts = np.concatenate([[0], np.cumsum(sizes)])
    blocks = (vectors[a:b] for a, b in zip(cuts[:-1], cuts[1:], strict=True))
    streamed = build_from_stream(blocks, compact, block_size=64)
    whole = build_postings(vectors, compact, block_size=64)
    streamed.check()
    for part, other in zip(streamed.lists, whole.lists, strict=True):
        assert np.array_equal(part, other)


def test_streams_that_cannot_be_indexed() -> None:
    with pytest.raises(InputError, match="no vectors to index"):
        Index.from_stream([])
    with pytest.raises(InputError, match="expected one common size"):
        build_from_stream([random_vectors(4), VECTORS], block_size=4)
    assert len(Index.from_stream([VECTORS[:0]])) == 0


@pytest.mark.parametrize("damage", [None, "order", "range", "length"])
def test_files_of_version_1_stay_readable(tmp_path: Path, damage: str | None) -> None:
    vectors = random_vectors(40)
    by_term = np.argsort(vectors.term_ids, kind="stable")
    rows = np.repeat(np.arange(40, dtype=np.int32), np.diff(vectors.offsets))
    lengths = np.bincount(vectors.term_ids, minlength=12)
    keys = "".join(f"{i:02}" for i in range(40)).encode()
    arrays = {
        "offsets": np.concatenate([[0], np.cumsum(lengths)]),
        "doc_ids": rows[by_term],
        "impacts": vectors.weights[by_term],
        "keys": np.frombuffer(keys, np.uint8),
        "key_offsets": np.arange(0, 81, 2),
    }
    if damage == "range":
        arrays["doc_ids"][5] = 40
    if damage == "order":
        arrays["doc_ids"][[0, 1]] = arrays["doc_ids"][[1, 0]]
    if damage == "length":
        arrays["impacts"] = arrays["impacts"][:-1]
    write_arrays(tmp_path / "i", arrays, "minisplade-index", 1, {"num_docs": "40"})
    if damage:
        with pytest.raises(IndexFormatError, match="is damaged: "):
            Index.load(tmp_path / "i")
        return
    index, again = Index.load(tmp_path / "i"), Index.from_vectors(vectors)
    for vector in random_vectors(10, seed=6):
        assert index.search(vector).doc_ids.tolist() == again.search(vector).doc_ids.tolist()
    assert index.keys[39] == "39"


def test_files_of_later_versions_are_refused(tmp_path: Path) -> None:
    write_arrays(tmp_path / "i", {}, "minisplade-index", 3, {})
    with pytest.raises(IndexFormatError, match="version 3, this minisplade reads up to 2"):
        Index.load(tmp_path / "i")


def test_slots_beyond_32_bits(tmp_path: Path) -> None:
    # A file with a hole stands for gigabytes of postings of term 0, which nobody reads.
    gap = 2**31 + 10
    local_ids = np.memmap(tmp_path / "ids", np.uint16, "w+", shape=(gap + 2,))
    impacts = np.memmap(tmp_path / "impacts", np.float32, "w+", shape=(gap + 2,))
    local_ids[gap:], impacts[gap:] = [1, 2], [3, 4]
    none = np.zeros(0, np.uint16)
    lists = PostingLists(
        offsets=np.array([0, gap, gap + 2]),
        local_ids=local_ids.view(np.ndarray),
        impacts=impacts.view(np.ndarray),
        codes=none,
        rests=none,
        peaks=np.array([1, 4], np.float32),
        **no_rows(2),
        smallest=1.0,
        base=0,
        shift=0,
        num_docs=3,
        num_blocks=1,
        block_size=128,
    )
    index = Index(held_snapshot(make_postings(lists), ["a", "b", "c"]))
    vector = SparseVectors.from_dense(np.array([[0, 2]], np.float32))[0]
    assert [(hit.key, hit.score) for hit in index.search(vector)] == [("c", 8), ("b", 6)]
    assert index.matching_terms(vector, 2) == [(1, 8.0)]

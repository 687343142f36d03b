"""An index in a folder: what its operations do, against a dict and brute force."""

import gc
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import naive
import numpy as np
import pytest
from conftest import GOLDEN
from faults import TERMS, State, matches, which
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from minisplade import (
    Document,
    Index,
    IndexFormatError,
    IndexLockedError,
    IndexWriteError,
    InputError,
    SparseEncoder,
    SparseVectors,
)
from minisplade.index.filters import EVERYTHING, Filter
from minisplade.index.merging import choose_merge, live_vectors
from minisplade.index.parts import Parts
from minisplade.index.postings import build_postings
from minisplade.index.search import SearchOptions, search_parts, search_parts_many

KEYS = st.sampled_from([f"k{i}" for i in range(12)] + ["日本", "a b", "nul\0key"])
WEIGHTS = st.lists(st.integers(0, 3), min_size=TERMS, max_size=TERMS).map(tuple)
ROWS = st.tuples(
    st.text(max_size=5), st.fixed_dictionaries({"year": st.integers(1990, 1999)}), WEIGHTS
)


def vectors_of(rows: list[Any]) -> SparseVectors:
    return SparseVectors.from_dense(np.array([row[2] for row in rows], np.float32))


class AgainstADict(RuleBasedStateMachine):
    """Random operations on a folder and on a dict that stands for it."""

    folder = "unset"

    @initialize(compact=st.booleans())
    def create(self, compact: bool) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.index = Index.create(self.folder, compact=compact)
        self.committed: State = {}
        self.state: State = {}

    @rule(documents=st.lists(st.tuples(KEYS, ROWS), min_size=1, max_size=6), commit=st.booleans())
    def add(self, documents: list[Any], commit: bool) -> None:
        keys, rows = [key for key, _ in documents], [row for _, row in documents]
        texts, metadata = [row[0] for row in rows], [row[1] for row in rows]
        self.index.add(keys, texts, metadata, vectors=vectors_of(rows))
        for key, row in documents:
            self.state.pop(key, None)
            self.state[key] = row
        if commit:
            self.commit(merge=False)

    @rule(keys=st.lists(KEYS, min_size=1, max_size=4, unique=True), text=st.text(max_size=5))
    def update(self, keys: list[str], text: str) -> None:
        if not set(keys) <= set(self.state):
            with pytest.raises(InputError, match="is not in this index, so it cannot be updated"):
                self.index.update(keys, metadata=[{"year": 1}] * len(keys))
            return
        rows = [self.state.pop(key) for key in keys]
        self.index.update(keys, [text] * len(keys), vectors=vectors_of(rows))
        self.index.update(keys, metadata=[{"year": 2000}] * len(keys))
        for key, row in zip(keys, rows, strict=True):
            self.state[key] = (text, {"year": 2000}, row[2])

    @rule(keys=st.lists(KEYS, min_size=1, max_size=6), commit=st.booleans())
    def delete(self, keys: list[str], commit: bool) -> None:
        assert self.index.delete(keys) == len(set(keys) & set(self.state))
        self.state = {key: row for key, row in self.state.items() if key not in keys}
        if commit:
            self.commit(merge=False)

    @rule(year=st.integers(1990, 2000), other=st.integers(1990, 2000))
    def delete_matching(self, year: int, other: int) -> None:
        gone = [key for key, row in self.state.items() if row[1]["year"] in (year, other)]
        assert self.index.delete({"or": [{"year": year}, {"year": other}]}) == len(gone)
        self.state = {key: row for key, row in self.state.items() if key not in gone}

    @rule(merge=st.booleans())
    def commit(self, merge: bool) -> None:
        self.index.commit(merge=merge)
        self.committed = dict(self.state)

    @rule()
    def roll_back(self) -> None:
        self.index.rollback()
        self.state = dict(self.committed)

    @precondition(lambda self: self.state == self.committed)
    @rule(everything=st.booleans())
    def merge(self, everything: bool) -> None:
        self.index.rollback()  # there may be changes that came to nothing
        self.index.compact() if everything else self.index.merge()
        if everything:
            assert self.index.stats().num_deleted == 0
            assert self.index.stats().num_segments == min(1, len(self.committed))

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = Index.open(self.folder)
        self.state = dict(self.committed)

    @invariant()
    def holds_what_was_committed(self) -> None:
        if hasattr(self, "committed"):
            assert matches(self.index, self.committed)

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self.index.close()
            assert which(self.folder, [self.committed]) == 0


@pytest.mark.parametrize("count", [200, pytest.param(5000, marks=pytest.mark.torture)])
def test_random_operations_against_a_dict(count: int, tmp_path: Path) -> None:
    in_memory = os.access("/dev/shm", os.W_OK)
    folder = Path(f"/dev/shm/{tmp_path.name}-{os.getpid()}") if in_memory else tmp_path / "i"

    class Machine(AgainstADict):
        pass

    Machine.folder = str(folder)
    settings_ = settings(
        max_examples=count,
        stateful_step_count=15,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(Machine, settings=settings_)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# Several segments are as one


def sums(documents: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return all float64 scores, added term after term."""
    scores = np.zeros(len(documents))
    for term, weight in enumerate(query.tolist()):
        scores += documents[:, term] * weight
    return scores


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("compact", [False, True])
def test_parts_are_searched_as_one(seed: int, compact: bool) -> None:
    rng = np.random.default_rng(seed)
    often = np.array([0.9, 0.8, 0.6, 0.3, 0.1, 0.03, 0.01])
    dense = rng.gamma(2.0, 0.5, (2400, 7)) * (rng.random((2400, 7)) < often)
    if seed % 2:
        dense = dense.round()  # many ties
    dense = np.concatenate([dense[:1200], dense[:600], dense[1200:]]).astype(np.float32)
    vectors, whole = SparseVectors.from_dense(dense), build_postings
    cuts = np.sort(rng.choice(3000, 9, replace=False))
    queries = SparseVectors.from_dense(
        (rng.gamma(2.0, 1.0, (12, 7)) * (rng.random((12, 7)) < 0.7)).astype(np.float32)
    )
    mask = rng.random(3000) < (0.9 if seed < 4 else 0.01)
    for shown in (None, mask):
        members = []
        for start, end in zip([0, *cuts], [*cuts, 3000]):
            allowed = EVERYTHING
            if shown is not None:
                allowed = Filter.from_mask(shown[start:end], int(end - start))
            members.append((whole(vectors[start:end], compact, block_size=256), allowed))
        parts = Parts.of(members)
        visible = dense.astype(np.float64) * (1 if shown is None else shown[:, None])
        for k in (1, 10, 300):
            for threads in (1, 2):
                options = SearchOptions(k, num_threads=threads)
                many = list(search_parts_many(parts, queries, options))
                for query, batched in zip(queries, many, strict=True):
                    scores = sums(visible, query.toarray())
                    best = naive.top_k(scores.tolist(), k)
                    for ids, found in (search_parts(parts, query, options), batched):
                        assert ids.tolist() == best
                        assert found == pytest.approx(scores[best], rel=2e-6)


def test_vectors_come_back_from_postings() -> None:
    rng = np.random.default_rng(0)
    dense = rng.random((700, 20), np.float32) * (rng.random((700, 20)) < 0.2)
    vectors, mask = SparseVectors.from_dense(dense), rng.random(700) < 0.5
    for compact in (False, True):
        postings = build_postings(vectors, compact, block_size=128)
        rows = [vector for block in live_vectors(postings, mask) for vector in block]
        assert SparseVectors.from_rows(rows, 20) == vectors[np.flatnonzero(mask)]


def test_choice_of_merges() -> None:
    assert choose_merge([(10, 10)] * 7) is None
    assert choose_merge([(10, 10)] * 8) == (0, 8)
    assert choose_merge([(9000, 9000)] + [(10, 10)] * 8) == (1, 9)
    assert choose_merge([(5000, 5000)] * 8 + [(10, 10)] * 3) == (0, 11)
    assert choose_merge([(9000, 9000), (100, 40), (10, 10)]) == (1, 2)
    sizes: list[tuple[int, int]] = []
    written = 0
    for _ in range(5000):
        sizes.append((1000, 1000))
        while chosen := choose_merge(sizes):
            start, end = chosen
            merged = sum(size for size, _ in sizes[start:end])
            written += merged
            sizes[start:end] = [(merged, merged)]
    assert len(sizes) < 40 and written < 7 * 5_000_000


# What people do


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """An index of three documents, in two segments, with metadata of all kinds."""
    made = Index.create(tmp_path / "index")
    dense = np.array([[1, 2, 0], [0, 2, 0], [0, 2, 5]], np.float32)
    vectors = SparseVectors.from_dense(dense)
    metadata = [{"lang": "en", "year": 1990}, {"lang": "fr", "tags": ["a", "b"], "year": 2001.5}]
    made.add(["one", "two"], ["text 1", None], metadata, vectors=vectors[:2])
    made.commit()
    made.add(["three"], None, [{"year": "2001", "ok": True, "deep": {"x": [1]}, "no": None}],
             vectors=vectors[2:])  # fmt: skip
    made.commit()
    return made


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({}, "one two three"),
        ({"lang": "en"}, "one"),
        ({"lang": ["en", "fr", "de"]}, "one two"),
        ({"lang": {"in": ["fr"]}, "year": {">": 1990}}, "two"),
        ({"year": {">=": 1990}}, "one two"),
        ({"year": {">=": 1990, "<": 2001.5}}, "one"),
        ({"year": {"<": "3"}}, "three"),
        ({"year": {"<=": "2001"}}, "three"),
        ({"year": {"=": 2001.5}}, "two"),
        ({"year": {}}, "one two three"),
        ({"ok": True}, "three"),
        ({"ok": 1}, "three"),
        ({"tags": "b"}, "two"),
        ({"tags": "c"}, ""),
        ({"no": {}}, ""),
        ({"not": {"lang": "en"}}, "two three"),
        ({"or": [{"lang": "en"}, {"ok": True}]}, "one three"),
        ({"or": []}, ""),
        ({"and": []}, "one two three"),
        ({"and": [{"lang": "fr"}, {"not": {"tags": "a"}}]}, ""),
        ({"lang": {">": "en"}}, "two"),
        ({"nowhere": 1}, ""),
    ],
)
def test_conditions(index: Index, condition: dict[str, Any], expected: str) -> None:
    query = SparseVectors.from_dense(np.array([[0, 1, 0]], np.float32))
    for chosen in (condition, index.make_filter(condition)):
        assert " ".join(index.search(query[0], filter=chosen).keys) == expected
        assert " ".join(index.search(query, filter=chosen)[0].keys) == expected
    assert index.delete(condition) == len(expected.split())
    index.rollback()


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"or": {"a": 1}}, "'or' has .* expected a list of conditions"),
        ({"not": [1]}, r"condition is \[1\]; expected a dict"),
        ({"year": {"~": 1}}, "compared by '~'; expected =, <, <=, >, >=, in"),
        ({"year": None}, "compared with None; expected str or number"),
        ({"year": float("nan")}, "compared with nan"),
        ({"year": {"<": 2**63}}, "compared with 9223372036854775808"),
        ({"year": "\ud800"}, "compared with"),
        ({"\ud800": 1}, "is no string"),
        ("one", "the string 'one'; expected a list of keys"),
    ],
)
def test_conditions_that_mean_nothing(index: Index, condition: Any, message: str) -> None:
    query = SparseVectors.from_dense(np.array([[0, 1, 0]], np.float32))[0]
    with pytest.raises(InputError, match=message):
        index.search(query, filter=condition)
    with pytest.raises(InputError):
        index.delete(condition)
    index.add(["x"], vectors=vectors_of([("", {}, (1, 1, 1))]))  # the lock was let go
    index.rollback()


def test_documents_come_back_as_they_were(index: Index) -> None:
    assert index.get("one") == Document("one", "text 1", {"lang": "en", "year": 1990})
    assert index.get("three") == Document(
        "three", None, {"year": "2001", "ok": True, "deep": {"x": [1]}, "no": None}
    )
    assert index.get("four") is None and index.get("\ud800") is None
    assert "two" in index and "four" not in index and 2 not in index
    assert len(index) == 3 and index.keys == ("one", "two", "three")
    assert index.texts == ("text 1", None, None)
    hit = index.search(SparseVectors.from_dense(np.array([[0, 0, 1]], np.float32))[0])[0]
    assert (hit.key, hit.score, hit.doc_id, hit.text) == ("three", 5.0, 2, None)
    assert hit.metadata == {"year": "2001", "ok": True, "deep": {"x": [1]}, "no": None}


def test_hits_stay_those_of_their_snapshot(index: Index) -> None:
    query = SparseVectors.from_dense(np.array([[0, 1, 0]], np.float32))[0]
    before, filter_ = index.search(query), index.make_filter(["one"])
    writer = Index.open(index.path or "")
    writer.delete(["one", "two"])
    writer.commit()
    writer.compact()
    assert before.keys == ("one", "two", "three") == index.search(query).keys
    assert index.refresh() and not index.refresh()
    assert index.search(query).keys == ("three",)
    assert before.keys == ("one", "two", "three")  # their files have no names any more
    with pytest.raises(InputError, match="before this one changed"):
        index.search(query, filter=filter_)


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="tells no mapped files")
def test_a_search_keeps_no_file_open(tmp_path: Path) -> None:
    folder = os.fspath(tmp_path / "one segment")
    index = Index.create(folder)
    index.add(["a"], vectors=vectors_of([("", {}, (1, 1, 1))]))
    index.commit()
    query = SparseVectors.from_dense(np.array([[0, 1, 0]], np.float32))[0]
    index.search(query)
    assert folder in Path("/proc/self/maps").read_text()
    del index
    gc.collect()
    assert folder not in Path("/proc/self/maps").read_text()


def test_one_writes_at_a_time(index: Index) -> None:
    other = Index.open(index.path or "")
    index.add(["x"], vectors=vectors_of([("", {}, (1, 1, 1))]))
    for write in (
        lambda: other.add(["y"], vectors=vectors_of([("", {}, (1, 1, 1))])),
        lambda: other.delete(["one"]),
    ):
        with pytest.raises(IndexLockedError, match="being changed by another writer"):
            write()
    index.commit()
    assert other.delete(["x", "one"]) == 2  # writers start from the newest generation
    other.commit()
    assert other.keys == ("two", "three")


def test_leaving_the_block_commits_or_forgets(index: Index) -> None:
    path = index.path or ""
    with Index.open(path) as writer:
        writer.delete(["one"])
    assert "one" not in Index.open(path)
    with pytest.raises(ZeroDivisionError), Index.open(path) as writer:
        writer.delete(["two"])
        raise ZeroDivisionError
    assert "two" in Index.open(path)


def test_merging_in_the_background(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index")
    rows = [("", {"year": 1995}, (1, n % 4, 0, 0, 0, 0, 0, 1, 1)) for n in range(60)]
    for number, row in enumerate(rows):
        index.add([f"k{number}"], [""], [row[1]], vectors=vectors_of([row]))
        index.commit(merge=False)
    assert index.stats().num_segments == 60
    thread = index.merge(background=True)
    index.delete(["k7"])  # while the merge is at work, or after it
    index.commit(merge=False)
    assert isinstance(thread, threading.Thread)
    thread.join()
    index.refresh()
    assert index.stats().num_segments <= 2
    assert matches(index, {f"k{n}": row for n, row in enumerate(rows) if n != 7})


def test_deletes_during_a_merge_are_kept(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    from minisplade.index import merging

    whole = merging.merge_segments

    def interrupted(*arguments: Any) -> Any:
        entry = whole(*arguments)
        with Index.open(index.path or "") as writer:
            assert writer.delete(["two", "three"]) == 2
            writer.add(["four"], vectors=SparseVectors.from_dense(np.ones((1, 3), np.float32)))
            assert {entry.postings.name, entry.documents.name} <= set(os.listdir(writer.path))
        return entry

    monkeypatch.setattr(merging, "merge_segments", interrupted)
    assert merging.merge(index.path or "", index.snapshot, everything=True)
    index.refresh()
    assert index.keys == ("one", "four")
    assert index.stats().num_segments == 2
    index.verify(full=True)


def test_export_and_import(index: Index, tmp_path: Path) -> None:
    assert index.export_jsonl(tmp_path / "all.jsonl") == 3
    with Index.create(tmp_path / "again") as again:
        assert again.import_jsonl(tmp_path / "all.jsonl") == 3
    assert again.keys == index.keys
    assert [again.get(key) for key in again.keys] == [index.get(key) for key in index.keys]
    again.export_jsonl(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_text() == (tmp_path / "all.jsonl").read_text()
    (tmp_path / "bad.jsonl").write_text('{"_id": "x", "term_ids": [1]}\n')
    with pytest.raises(InputError, match=r"bad\.jsonl, line 1: KeyError"):
        again.import_jsonl(tmp_path / "bad.jsonl")
    index.save(tmp_path / "file")
    assert Index.load(tmp_path / "file").keys == index.keys


def test_texts_go_through_the_encoder_that_is_remembered(tmp_path: Path) -> None:
    encoder = SparseEncoder(GOLDEN / "bert")
    with Index.create(tmp_path / "i", encoder) as index:
        index.add(["c", "m"], ["cat", "mat on the mat"])
        index.update(["m"], ["the mat"])
    again = Index.open(tmp_path / "i", encoder)
    assert again.encoder_name == str(GOLDEN / "bert") and again.search("cat")[0].text is not None
    expected = Index.from_texts(["cat", "the mat"], encoder, ["c", "m"]).search("mat")
    assert again.search("mat").keys == expected.keys
    assert again.search("mat").scores == pytest.approx(expected.scores, rel=1e-5)
    with pytest.raises(InputError, match=r"needs an encoder: Index\.open"):
        Index.open(tmp_path / "i").search("cat")
    with pytest.raises(InputError, match="vectors have 3 terms, this index has"):
        again.add(["x"], vectors=SparseVectors.from_dense(np.ones((1, 3), np.float32)))


def test_an_encoder_of_another_vocabulary_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SparseEncoder(GOLDEN / "bert")
    Index.create(tmp_path / "i", encoder)
    with pytest.raises(InputError, match=r"has \d+ terms, this index has \d+"):
        Index.open(tmp_path / "i", SparseEncoder())
    other = [*reversed(encoder.terms)]
    monkeypatch.setattr(SparseEncoder, "terms", property(lambda self: other))
    with pytest.raises(InputError, match="another vocabulary than"):
        Index.open(tmp_path / "i", encoder)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda i: i.add("one", vectors=None), "keys are the single 'one'"),
        (lambda i: i.add(map(str, range(3))), "keys are <map object .*; expected a list"),
        (lambda i: i.add(["x"], ["a", "b"]), "2 texts for 1 documents"),
        (lambda i: i.add(["x"], ["a"]), "text needs an encoder"),
        (lambda i: i.add([1], vectors=vectors_of([("", {}, (1, 1, 1))])), "key 0 is 1; expected"),
        (lambda i: i.add(["\ud800"], vectors=vectors_of([("", {}, (1, 1, 1))])), "key 0 is"),
        (lambda i: i.add(["x"], [3], vectors=vectors_of([("", {}, (1, 1, 1))])), "text of 'x' is"),
        (lambda i: i.add(["x"], vectors=vectors_of([("", {}, (1, 1, 1))] * 2)), "2 vectors for 1"),
        (lambda i: i.add(["x"], vectors=vectors_of([("", {}, (1, 1))])), "this index has 3"),
        (lambda i: i.add(["x"], metadata=[7], vectors=vectors_of([("", {}, (1, 1, 1))])),
         "metadata of 'x' is 7; expected a dict"),
        (lambda i: i.add(["x"], metadata=[{"a": float("nan")}], vectors=vectors_of(
            [("", {}, (1, 1, 1))])), "metadata of 'x' is not JSON"),
        (lambda i: i.add(["x"], metadata=[{"a": 2**63}], vectors=vectors_of(
            [("", {}, (1, 1, 1))])), "expected at most 64 bits"),
        (lambda i: i.add(["x"], metadata=[{"a": "\ud800"}], vectors=vectors_of(
            [("", {}, (1, 1, 1))])), "is not JSON"),
        (lambda i: i.update(["x"], metadata=[{}]), "'x' is not in this index"),
        (lambda i: i.delete("one"), "keys are the string 'one'"),
        (lambda i: Index.create(i.path), "is not empty; give another name"),
        (lambda i: Index.create(i.path + "/manifest"), "is a file; expected the name of a folder"),
        (lambda i: Index.from_vectors(vectors_of([("", {}, (1,))])).commit(), "is in memory"),
        (lambda i: Index.from_vectors(vectors_of([("", {}, (1,))])).delete([]), "is in memory"),
    ],
)  # fmt: skip
def test_wrong_arguments_change_nothing(
    index: Index, call: Callable[[Index], object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        call(index)
    assert index.commit() == 2
    index.verify(full=True)


def test_merging_waits_for_a_commit(index: Index) -> None:
    index.delete(["one"])
    with pytest.raises(InputError, match="commit or roll back first"):
        index.compact()
    index.commit()
    index.compact()
    assert index.stats().num_segments == 1


def test_a_folder_that_cannot_be_written(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("minisplade.disk.create", refuse)
    with pytest.raises(IndexWriteError, match="Permission denied; the last commit stands"):
        index.delete(["one"])
        index.commit()
    assert index.keys == ("one", "two", "three")


def test_ctrl_c_undoes_the_transaction(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: str, parts: list[bytes]) -> None:
        raise KeyboardInterrupt

    index.delete(["one"])
    monkeypatch.setattr("minisplade.disk.write_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        index.commit()
    monkeypatch.undo()
    index.delete(["two"])
    index.commit()
    assert index.keys == ("one", "three")


def test_files_that_are_not_an_index(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(IndexFormatError, match="is not a durable index"):
            Index.open(path)


FORMATS = Path(__file__).parent / "formats"


def test_a_stored_index_of_version_1_stays_readable(tmp_path: Path) -> None:
    shutil.copytree(FORMATS / "index_v1", tmp_path / "i")
    index = Index.open(tmp_path / "i")
    assert index.verify(full=True) > 10_000
    expected = json.loads((FORMATS / "index_v1.json").read_text(encoding="utf-8"))
    state = {key: (text, metadata, tuple(row)) for key, text, metadata, row in expected}
    assert index.stats().num_segments == 2 and index.stats().num_deleted > 0
    assert matches(index, state)
    index.compact()
    assert matches(index, state)


def test_a_later_version_is_refused(index: Index) -> None:
    path = Path(index.path or "") / "manifest"
    path.write_bytes(path.read_bytes().replace(b"manifest 1\n", b"manifest 2\n", 1))
    with pytest.raises(IndexFormatError, match="version 2, this minisplade reads up to 1; upgrade"):
        Index.open(index.path or "")


def test_an_index_without_documents_can_be_searched(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i")
    query = SparseVectors.from_dense(np.ones((2, 3), np.float32))
    for threads in (1, 2):
        assert len(index.search(query[0], num_threads=threads)) == 0
        assert [len(hits) for hits in index.search(query, num_threads=threads)] == [0, 0]
    assert len(index.search(query[0], filter={"year": 1})) == 0
    assert index.keys == () and index.stats().num_docs == 0 and index.verify(full=True) == 0

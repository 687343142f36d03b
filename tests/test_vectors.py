"""SparseVectors against dense arrays and SciPy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.sparse import csr_array

from minisplade import IndexFormatError, InputError, SparseVector, SparseVectors, concatenate

WEIGHTS = st.floats(0, 1e6, width=32).map(lambda w: w if w > 1e-30 else 0.0)
DENSE = hnp.arrays(np.float32, st.tuples(st.integers(0, 6), st.integers(1, 9)), elements=WEIGHTS)


def vectors_of(*rows: list[float]) -> SparseVectors:
    return SparseVectors.from_dense(np.array(rows, dtype=np.float32))


@given(DENSE)
def test_dense_and_back(dense: np.ndarray) -> None:
    vectors = SparseVectors.from_dense(dense).check()
    assert np.array_equal(vectors.toarray(), dense)
    assert vectors.shape == dense.shape == (len(vectors), vectors.num_terms)


@given(DENSE)
def test_scipy_and_dicts_and_back(dense: np.ndarray) -> None:
    vectors = SparseVectors.from_dense(dense)
    assert np.array_equal(vectors.to_scipy().toarray(), dense)
    assert SparseVectors.from_scipy(csr_array(dense)) == vectors
    assert SparseVectors.from_dicts(vectors.to_dicts(), vectors.num_terms) == vectors
    terms = [f"term {i}" for i in range(vectors.num_terms)]
    named = vectors.to_dicts(terms)
    assert SparseVectors.from_dicts(named, vectors.num_terms, terms) == vectors


@given(DENSE, st.data())
def test_indexing_is_numpys(dense: np.ndarray, data: st.DataObject) -> None:
    count = len(dense)
    several = hnp.arrays(np.int64, st.integers(0, 4), elements=st.integers(-count, count - 1))
    rows = data.draw(
        st.slices(count) | hnp.arrays(bool, count) | (several if count else st.nothing())
    )
    assert np.array_equal(SparseVectors.from_dense(dense)[rows].check().toarray(), dense[rows])


@given(DENSE, st.integers(1, 5))
def test_prune_keeps_the_heaviest(dense: np.ndarray, kept: int) -> None:
    expected = np.zeros_like(dense)
    for row in range(len(dense)):
        for term in sorted(range(dense.shape[1]), key=lambda t: (-dense[row, t], t))[:kept]:
            expected[row, term] = dense[row, term]
    assert np.array_equal(SparseVectors.from_dense(dense).prune(kept).check().toarray(), expected)


@given(st.lists(hnp.arrays(np.float32, st.tuples(st.integers(0, 4), st.just(3)), elements=WEIGHTS)))
def test_concatenation_stacks(parts: list[np.ndarray]) -> None:
    stacked = concatenate([SparseVectors.from_dense(part) for part in parts], 3)
    assert np.array_equal(stacked.toarray(), np.vstack([np.zeros((0, 3), "f4"), *parts]))


def test_rows_are_single_vectors() -> None:
    vectors = vectors_of([0, 2, 1], [0, 0, 0])
    first, second = vectors
    assert isinstance(first, SparseVector)
    assert (len(first), first.shape, first.to_dict()) == (2, (3,), {1: 2.0, 2: 1.0})
    assert first.to_dict(["a", "b", "c"]) == {"b": 2.0, "c": 1.0}
    assert first.toarray().tolist() == [0, 2, 1]
    assert len(second) == 0 and vectors[-1] == second != first
    assert SparseVectors.from_rows([first, second], 3) == vectors
    with pytest.raises(IndexError, match="row 2 of 2"):
        vectors[2]


def test_repr_helps() -> None:
    vectors = vectors_of([0, 2, 1], [0, 0, 3])
    assert repr(vectors) == "SparseVectors(shape=(2, 3), 1.5 active terms a row, small)"
    assert repr(vectors[0]) == "SparseVector(2 of 3 terms; 1: 2.00, 2: 1.00)"


def test_save_and_load(tmp_path: Path) -> None:
    vectors = vectors_of([0, 2, 1], [0, 0, 0], [4, 0, 0.5])
    vectors.save(tmp_path / "some" / "v.vectors")
    assert SparseVectors.load(tmp_path / "some" / "v.vectors") == vectors
    assert [path.name for path in (tmp_path / "some").iterdir()] == ["v.vectors"]


@pytest.mark.parametrize("damage", ["cut", "flip", "other"])
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "v.vectors"
    vectors_of([0, 2, 1], [4, 0, 0.5]).save(path)
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-3])
    elif damage == "flip":
        path.write_bytes(content[:-8] + b"\xff" * 8)  # weights become NaN, or ids negative
    else:
        path.write_bytes(b"not a safetensors file at all")
    with pytest.raises(IndexFormatError, match=r"v\.vectors"):
        SparseVectors.load(path)


def test_a_newer_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minisplade.vectors.FORMAT_VERSION", 99)
    vectors_of([1]).save(tmp_path / "v")
    monkeypatch.undo()
    with pytest.raises(IndexFormatError, match="version 99.*upgrade"):
        SparseVectors.load(tmp_path / "v")


def changed(**arrays: object) -> Callable[[], SparseVectors]:
    base = {
        "offsets": np.array([0, 2], dtype=np.int64),
        "term_ids": np.array([1, 2], dtype=np.int32),
        "weights": np.array([1, 2], dtype=np.float32),
        "num_terms": 3,
    }
    return lambda: SparseVectors(**(base | arrays)).check()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (changed(term_ids=np.array([1, 2])), "term_ids is int64"),
        (changed(weights=np.ones((2, 1), "f4")), "weights is float32 of shape"),
        (changed(weights=np.ones(3, "f4")), "2 term ids, but 3 weights"),
        (changed(offsets=np.array([0, 3])), "offsets must start at 0 and end at 2"),
        (changed(offsets=np.array([0, 3, 2])), "offsets decrease"),
        (changed(term_ids=np.array([2, 1], "i4")), "must increase"),
        (changed(term_ids=np.array([1, 1], "i4")), "must increase"),
        (changed(term_ids=np.array([1, 3], "i4")), "expected 0 to 2"),
        (changed(term_ids=np.array([-1, 1], "i4")), "expected 0 to 2"),
        (changed(weights=np.array([1, -1], "f4")), "positive and finite"),
        (changed(weights=np.array([1, np.nan], "f4")), "positive and finite"),
        (changed(weights=np.array([1, np.inf], "f4")), "positive and finite"),
        (lambda: SparseVectors.from_dicts([{"b": 1}], 1, ["a"]), 'row 0: "b" is not in'),
        (lambda: SparseVectors.from_dicts([{0: -1}], 1), "positive and finite"),
        (lambda: SparseVectors.from_dicts([{5: 1}], 1), "expected 0 to 0"),
        (lambda: vectors_of([1]).prune(0), "max_active_dims is 0"),
        (lambda: concatenate([vectors_of([1]), vectors_of([1, 2])]), "one common size"),
        (lambda: concatenate([]), "one common size"),
    ],
)
def test_bad_arrays_are_named(make: Callable[[], SparseVectors], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@given(
    st.lists(st.integers(0, 4), max_size=4).map(sorted) | st.just([3, 1]),
    st.lists(st.integers(0, 4), min_size=4, max_size=4) | st.just([-1, 0, 1, 2]) | st.just([5] * 4),
    st.just([1.0, 2.0, 3.0, 0.5]) | st.permutations([1.0, 0.0, -1.0, 2.0]),
)
@example([1, 2, 3], [4, 3, 3, 0], [1, 2, 3, 4])
@example([0, 2, 2, 4], [0, 1, 1, 0], [1, 2, 3, 4])
@example([2], [0, 4, 0, 4], [1, np.nan, 1, 1])
@example([2], [0, 4, 0, 4], [1, 1, 1, np.inf])
def test_arrays_are_sound_if_each_row_is(
    ends: list[int], term_ids: list[int], weights: list[float]
) -> None:
    offsets = [0, *ends, 4]
    rows = [term_ids[start:end] for start, end in zip(offsets, offsets[1:])]
    sound = (
        offsets == sorted(offsets)
        and all(row == sorted(set(row)) for row in rows)
        and all(0 <= term_id < 5 for term_id in term_ids)
        and all(0 < weight < np.inf for weight in weights)
    )
    vectors = SparseVectors(
        np.array(offsets, np.int64), np.array(term_ids, np.int32), np.array(weights, "f4"), 5
    )
    if sound:
        assert vectors.check() is vectors
    else:
        with pytest.raises(InputError):
            vectors.check()

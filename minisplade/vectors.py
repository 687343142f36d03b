"""Sparse vectors: rows of (term id, weight) pairs, the currency between encoders and the index."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import FloatArray, IdArray, OffsetArray
from minisplade.errors import IndexFormatError, InputError
from minisplade.files import read_arrays, write_arrays

if TYPE_CHECKING:
    from scipy.sparse import csr_array

FORMAT = "minisplade-vectors"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """One text as weights over the vocabulary; all terms not listed weigh 0."""

    term_ids: IdArray  # int32 (P,), increasing
    weights: FloatArray  # float32 (P,), positive
    num_terms: int  # V

    @property
    def shape(self) -> tuple[int]:
        """The shape of the dense vector, (V,)."""
        return (self.num_terms,)

    def __len__(self) -> int:
        """Count the active terms."""
        return self.term_ids.size

    def __eq__(self, other: object) -> bool:
        """Compare all terms and weights exactly."""
        if not isinstance(other, SparseVector):
            return NotImplemented
        return as_rows(self) == as_rows(other)

    def __repr__(self) -> str:
        """Name the size and the heaviest terms."""
        heaviest = np.argsort(-self.weights, kind="stable")[:4]
        pairs = [f"{self.term_ids[i]}: {self.weights[i]:.2f}" for i in heaviest]
        dots = ", ..." if len(self) > len(pairs) else ""
        return f"SparseVector({len(self)} of {self.num_terms} terms; {', '.join(pairs)}{dots})"

    def toarray(self) -> FloatArray:
        """Return the dense vector, float32 (V,)."""
        dense = np.zeros(self.num_terms, dtype=np.float32)
        dense[self.term_ids] = self.weights
        return dense

    def to_dict(self, terms: Sequence[str] | None = None) -> dict[Any, float]:
        """Return {term: weight}, by term id or, where terms (V,) are given, by their strings."""
        names = self.term_ids.tolist() if terms is None else [terms[i] for i in self.term_ids]
        return dict(zip(names, self.weights.tolist(), strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class SparseVectors:
    """Many sparse vectors as three flat arrays; row i owns slots offsets[i]:offsets[i + 1].

    The layout is that of a compressed sparse row (CSR) matrix of shape (B, V).
    """

    offsets: OffsetArray  # int64 (B + 1,), not decreasing, from 0
    term_ids: IdArray  # int32 (P,), increasing within a row
    weights: FloatArray  # float32 (P,), positive
    num_terms: int  # V

    @classmethod
    def from_rows(cls, rows: Iterable[SparseVector], num_terms: int) -> SparseVectors:
        """Stack single vectors into one batch."""
        return concatenate([as_rows(row) for row in rows], num_terms)

    @classmethod
    def from_dense(cls, dense: FloatArray) -> SparseVectors:
        """Keep the positive entries of a dense float32 (B, V)."""
        rows, term_ids = np.nonzero(dense > 0)
        counts = np.bincount(rows, minlength=dense.shape[0])
        return cls(
            offsets=_offsets_of(counts),
            term_ids=term_ids.astype(np.int32),
            weights=dense[rows, term_ids],
            num_terms=dense.shape[1],
        )

    @classmethod
    def from_dicts(
        cls, rows: Iterable[Mapping[Any, float]], num_terms: int, terms: Sequence[str] | None = None
    ) -> SparseVectors:
        """Build from one {term: weight} mapping a row; weights of 0 are left out.

        Keys are term ids, or strings where terms (V,) names them. Raises InputError for an unknown
        term or for a weight that is negative or not finite.
        """
        ids = None if terms is None else {term: i for i, term in enumerate(terms)}
        columns: list[list[int]] = []
        values: list[list[float]] = []
        for number, row in enumerate(rows):
            pairs = sorted((_term_id(key, ids, number), weight) for key, weight in row.items())
            kept = [(term_id, weight) for term_id, weight in pairs if weight != 0]
            columns.append([term_id for term_id, _ in kept])
            values.append([weight for _, weight in kept])
        vectors = cls(
            offsets=_offsets_of([len(column) for column in columns]),
            term_ids=np.array([i for column in columns for i in column], dtype=np.int32),
            weights=np.array([w for value in values for w in value], dtype=np.float32),
            num_terms=num_terms,
        )
        return vectors.check()

    @classmethod
    def from_scipy(cls, matrix: csr_array) -> SparseVectors:
        """Build from a SciPy sparse matrix or array of shape (B, V); raises InputError."""
        matrix = matrix.tocsr(copy=True)
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        vectors = cls(
            offsets=matrix.indptr.astype(np.int64),
            term_ids=matrix.indices.astype(np.int32),
            weights=matrix.data.astype(np.float32),
            num_terms=int(matrix.shape[1]),
        )
        return vectors.check()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SparseVectors:
        """Read a file written by save; raises IndexFormatError when it is not one or damaged."""
        arrays, metadata = read_arrays(path, FORMAT, FORMAT_VERSION)
        try:
            vectors = cls(
                offsets=arrays["offsets"],
                term_ids=arrays["term_ids"],
                weights=arrays["weights"],
                num_terms=int(metadata["num_terms"]),
            )
            return vectors.check()
        except (KeyError, ValueError) as error:
            raise IndexFormatError(f"{path} does not hold sparse vectors: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file; an existing file is replaced only when all is written."""
        arrays: dict[str, NDArray[Any]] = {
            "offsets": self.offsets,
            "term_ids": self.term_ids,
            "weights": self.weights,
        }
        write_arrays(path, arrays, FORMAT, FORMAT_VERSION, {"num_terms": str(self.num_terms)})

    def check(self) -> SparseVectors:
        """Return self if every invariant of the arrays holds; raise InputError if not.

        Compiled code reads past the end of an array silently, so arrays from outside come here.
        """
        offsets, term_ids, weights = self.offsets, self.term_ids, self.weights
        for name, array, dtype in (
            ("offsets", offsets, np.int64),
            ("term_ids", term_ids, np.int32),
            ("weights", weights, np.float32),
        ):
            if array.ndim != 1 or array.dtype != dtype:
                raise InputError(
                    f"{name} is {array.dtype} of shape {array.shape}; "
                    f"expected {np.dtype(dtype).name} with one axis"
                )
        if term_ids.size != weights.size:
            raise InputError(f"{term_ids.size} term ids, but {weights.size} weights")
        if offsets.size == 0 or offsets[0] != 0 or offsets[-1] != weights.size:
            raise InputError(f"offsets must start at 0 and end at {weights.size}")
        if np.any(offsets[1:] < offsets[:-1]):
            raise InputError("offsets decrease")
        if term_ids.size and not 0 <= term_ids.min() <= term_ids.max() < self.num_terms:
            raise InputError(
                f"term ids {term_ids.min()} to {term_ids.max()}; expected 0 to {self.num_terms - 1}"
            )
        ascends = term_ids[1:] > term_ids[:-1]
        starts = offsets[(offsets > 0) & (offsets < term_ids.size)]
        ascends[starts - 1] = True  # from row to row they may do as they like
        if not ascends.all():
            raise InputError("term ids must increase within each row, without repeats")
        if weights.size and not 0 < weights.min() <= weights.max() < np.inf:  # false for NaN too
            raise InputError("weights must be positive and finite")
        return self

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the dense matrix, (B, V)."""
        return len(self), self.num_terms

    @property
    def size_bytes(self) -> int:
        """The bytes that the three arrays take."""
        return self.offsets.nbytes + self.term_ids.nbytes + self.weights.nbytes

    def __len__(self) -> int:
        """Count the rows."""
        return self.offsets.size - 1

    @overload
    def __getitem__(self, rows: int) -> SparseVector: ...
    @overload
    def __getitem__(self, rows: slice | Sequence[int] | NDArray[Any]) -> SparseVectors: ...
    def __getitem__(self, rows: Any) -> SparseVector | SparseVectors:
        """Take one row by number, or several by slice, list of numbers or boolean mask."""
        if isinstance(rows, (int, np.integer)):
            row = int(rows)
            if not -len(self) <= row < len(self):
                raise IndexError(f"row {row} of {len(self)}")
            start, end = self.offsets[row % len(self)], self.offsets[row % len(self) + 1]
            return SparseVector(self.term_ids[start:end], self.weights[start:end], self.num_terms)
        chosen = np.arange(len(self))[rows]
        counts = np.diff(self.offsets)[chosen]
        offsets = _offsets_of(counts)
        # Slot j of the result comes from its row's old start plus its place in the row.
        slots = np.repeat(self.offsets[chosen] - offsets[:-1], counts) + np.arange(offsets[-1])
        return SparseVectors(offsets, self.term_ids[slots], self.weights[slots], self.num_terms)

    def __iter__(self) -> Iterator[SparseVector]:
        """Go through the rows."""
        return (self[row] for row in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Compare all rows, terms and weights exactly."""
        if not isinstance(other, SparseVectors):
            return NotImplemented
        return (
            self.num_terms == other.num_terms
            and np.array_equal(self.offsets, other.offsets)
            and np.array_equal(self.term_ids, other.term_ids)
            and np.array_equal(self.weights, other.weights)
        )

    def __repr__(self) -> str:
        """Name the shape, the mean number of active terms and the memory."""
        mean = self.weights.size / len(self) if len(self) else 0.0
        size = f"{self.size_bytes / 1e6:.1f} MB" if self.size_bytes >= 1e5 else "small"
        return f"SparseVectors(shape={self.shape}, {mean:.1f} active terms a row, {size})"

    def toarray(self) -> FloatArray:
        """Return the dense matrix, float32 (B, V)."""
        dense = np.zeros(self.shape, dtype=np.float32)
        dense[np.repeat(np.arange(len(self)), np.diff(self.offsets)), self.term_ids] = self.weights
        return dense

    def to_scipy(self) -> csr_array:
        """Return a scipy.sparse.csr_array of shape (B, V) over the same memory; needs SciPy."""
        from scipy.sparse import csr_array

        return csr_array((self.weights, self.term_ids, self.offsets), shape=self.shape)

    def to_dicts(self, terms: Sequence[str] | None = None) -> list[dict[Any, float]]:
        """Return one {term: weight} a row, by id or by the strings of terms (V,)."""
        return [row.to_dict(terms) for row in self]

    def prune(self, max_active_dims: int) -> SparseVectors:
        """Keep the heaviest max_active_dims terms of each row; of equal ones the lower ids."""
        if max_active_dims < 1:
            raise InputError(f"max_active_dims is {max_active_dims}; expected 1 or more")
        rows = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        by_weight = np.lexsort((self.term_ids, -self.weights, rows))
        place = np.arange(rows.size) - self.offsets[rows]  # rank within the row
        kept = np.sort(by_weight[place < max_active_dims])
        counts = np.minimum(np.diff(self.offsets), max_active_dims)
        return SparseVectors(
            _offsets_of(counts), self.term_ids[kept], self.weights[kept], self.num_terms
        )


AnyVectors = SparseVector | SparseVectors


def as_rows(vectors: AnyVectors) -> SparseVectors:
    """Return a batch as it is, and a single vector as a batch of one."""
    if isinstance(vectors, SparseVectors):
        return vectors
    offsets = np.array([0, len(vectors)], dtype=np.int64)
    return SparseVectors(offsets, vectors.term_ids, vectors.weights, vectors.num_terms)


def concatenate(batches: Sequence[SparseVectors], num_terms: int | None = None) -> SparseVectors:
    """Put the rows of several batches one after another; raises InputError if sizes differ.

    num_terms is V of the result, needed only where batches is empty.
    """
    sizes = {batch.num_terms for batch in batches} | ({num_terms} if num_terms else set())
    if len(sizes) != 1:
        raise InputError(f"vectors over {sorted(sizes)} terms; expected one common size")
    if len(batches) == 1:
        return batches[0]
    counts = [np.diff(batch.offsets) for batch in batches]
    return SparseVectors(
        offsets=_offsets_of(np.concatenate([np.zeros(0, np.int64), *counts])),
        term_ids=np.concatenate([np.zeros(0, np.int32), *(b.term_ids for b in batches)]),
        weights=np.concatenate([np.zeros(0, np.float32), *(b.weights for b in batches)]),
        num_terms=sizes.pop(),
    )


def _offsets_of(counts: Any) -> OffsetArray:
    """Return where each row starts, given how long each is."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def _term_id(key: Any, ids: dict[str, int] | None, row: int) -> int:
    """Look up one key of a row given as a dict."""
    if ids is None:
        return int(key)
    if key not in ids:
        raise InputError(f"row {row}: {json.dumps(key)} is not in the vocabulary")
    return ids[key]

"""Postings: for each term, which documents have it and how much it weighs there."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import FloatArray, IdArray, OffsetArray, PostingLists
from minisplade.errors import InputError
from minisplade.vectors import SparseVector, SparseVectors

BLOCK_SIZE = 32_768
"""Documents of a block: their scores take 128 KiB of the second-level cache, and cells are long."""

LONGEST_BLOCK = 65_536
MOST_DOCUMENTS = 2**31 - 1

ROW_SHARE = 0.25
"""A term in at least this share of all documents is worth a row with all of them."""

ROW_BYTES = 0.35
"""Rows may take so many bytes for each posting."""


@dataclass(frozen=True, slots=True)
class Postings:
    """The posting lists of all terms, in the plain form or in the compact one.

    The compact form cuts the bits of each impact in two: 16 that searching reads, and the rest,
    which only the documents that are nearly hits need. A loaded file leaves the rests on disk.
    """

    lists: PostingLists

    @property
    def num_docs(self) -> int:
        """The number of documents, N."""
        return self.lists.num_docs

    @property
    def num_terms(self) -> int:
        """The size of the vocabulary, V."""
        return self.lists.peaks.size

    @property
    def num_postings(self) -> int:
        """The number of postings, P."""
        return self.lists.local_ids.size

    @property
    def is_compact(self) -> bool:
        """Whether impacts are cut in two."""
        return self.lists.codes.size > 0

    @property
    def searched_bytes(self) -> int:
        """The bytes that searching reads: all but the rests of the compact form."""
        arrays = (part for part in self.lists if isinstance(part, np.ndarray))
        return sum(part.nbytes for part in arrays) - self.lists.rests.nbytes

    def check(self) -> None:
        """Raise InputError unless kernels can walk these arrays without leaving them."""
        lists = self.lists
        size = lists.block_size
        if not 1 <= size <= LONGEST_BLOCK or size & (size - 1):
            raise InputError(f"blocks of {size} documents; expected a power of two up to 65,536")
        if not 0 <= lists.num_docs <= MOST_DOCUMENTS:
            raise InputError(f"{lists.num_docs} documents; expected 0 to {MOST_DOCUMENTS}")
        if lists.num_blocks != -(-lists.num_docs // size):
            raise InputError(f"{lists.num_blocks} blocks of {size} for {lists.num_docs} documents")
        offsets = lists.offsets
        if offsets.size != self.num_terms * lists.num_blocks + 1:
            raise InputError(
                f"{offsets.size} offsets for {self.num_terms} terms in {lists.num_blocks} blocks"
            )
        if offsets[0] != 0 or np.any(offsets[1:] < offsets[:-1]):
            raise InputError("offsets of postings must start at 0 and not decrease")
        values = lists.codes if self.is_compact else lists.impacts
        if not offsets[-1] == lists.local_ids.size == values.size:
            raise InputError("offsets, document ids and impacts disagree about their length")
        if self.is_compact and lists.rests.size != values.size:
            raise InputError("the two halves of impacts disagree about their length")
        if not 0 <= lists.shift <= 16 or not 0 <= lists.base < 2**31:
            raise InputError(f"impacts cut at bit {lists.shift} above {lists.base}")
        self._check_local_ids()
        if not (np.all(lists.peaks >= 0) and np.all(np.isfinite(lists.peaks))):
            raise InputError("the largest impacts of terms must be positive and finite")

    def _check_local_ids(self) -> None:
        """Raise InputError where a posting names a document beyond its block."""
        lists = self.lists
        size = lists.block_size
        if size < LONGEST_BLOCK and lists.local_ids.size and lists.local_ids.max() >= size:
            raise InputError(f"postings name documents beyond their block of {size}")
        last = lists.num_docs - (lists.num_blocks - 1) * size
        if lists.num_blocks and last < size:
            ends = lists.offsets[lists.num_blocks :: lists.num_blocks]
            starts = lists.offsets[lists.num_blocks - 1 :: lists.num_blocks][: ends.size]
            filled = ends > starts
            # Within a cell documents ascend, so the last posting names the highest.
            if np.any(lists.local_ids[ends[filled] - 1] >= last):
                raise InputError(f"postings name documents outside 0 to {lists.num_docs - 1}")

    def list_of(self, term_id: int) -> tuple[IdArray, FloatArray]:
        """Return the documents of a term, int32 and in order, and its impacts, float32."""
        lists = self.lists
        first = term_id * lists.num_blocks
        bounds = lists.offsets[first : first + lists.num_blocks + 1]
        own = slice(bounds[0], bounds[-1]) if bounds.size else slice(0, 0)
        starts = np.arange(lists.num_blocks, dtype=np.int64) * lists.block_size
        doc_ids = np.repeat(starts, np.diff(bounds)) + lists.local_ids[own]
        return doc_ids.astype(np.int32), self.impacts_of(own)

    def impacts_of(self, own: slice | OffsetArray) -> FloatArray:
        """Return the impacts in some slots, float32."""
        lists = self.lists
        if not self.is_compact:
            return lists.impacts[own]
        bits = lists.base + (lists.codes[own].astype(np.int64) << lists.shift) + lists.rests[own]
        return bits.astype(np.int32).view(np.float32)

    def impacts_in(self, doc_id: int, query: SparseVector) -> FloatArray:
        """Return the impact of each term of the query in one document, 0 where it is absent."""
        impacts = np.zeros(len(query), dtype=np.float32)
        for place, term_id in enumerate(query.term_ids):
            doc_ids, own = self.list_of(int(term_id))
            slot = np.searchsorted(doc_ids, doc_id)
            if slot < doc_ids.size and doc_ids[slot] == doc_id:
                impacts[place] = own[slot]
        return impacts

    def to_compact(self) -> Postings:
        """Return the compact form of the same postings."""
        if self.is_compact:
            return self
        base, shift = cut_of(self.lists.smallest, self.lists.peaks)
        bits = self.lists.impacts.view(np.int32) - np.int32(base)
        none = np.zeros(0, dtype=np.float32)
        rests = (bits & ((1 << shift) - 1)).astype(np.uint16)
        codes = (bits >> shift).astype(np.uint16)
        return make_postings(
            self.lists._replace(impacts=none, codes=codes, rests=rests, base=base, shift=shift)
        )

    def with_rows(self, bytes_per_posting: float = ROW_BYTES) -> Postings:
        """Return the same postings with a row for each of the most frequent terms."""
        lists = self.lists
        width = lists.num_blocks * lists.block_size
        if not self.num_postings:
            return self
        lengths = np.diff(lists.offsets[:: lists.num_blocks])
        most = int(bytes_per_posting * self.num_postings // (4 * lists.num_docs))
        frequent = np.argsort(-lengths, kind="stable")[:most]
        frequent = frequent[lengths[frequent] >= ROW_SHARE * lists.num_docs]
        rows = np.zeros((frequent.size, width), dtype=np.float32)
        for row, term_id in zip(rows, frequent.tolist(), strict=True):
            doc_ids, impacts = self.list_of(term_id)
            row[doc_ids] = impacts
        row_of = np.full(self.num_terms, -1, dtype=np.int32)
        row_of[frequent] = np.arange(frequent.size, dtype=np.int32)
        return make_postings(lists._replace(rows=rows, row_of=row_of))


def cut_of(smallest: float, peaks: FloatArray) -> tuple[int, int]:
    """Choose base and shift so that the bits of all impacts fit 16 above base and shift."""
    if not peaks.size or not peaks.max():
        return 0, 0
    base = int(np.float32(smallest).view(np.int32))
    span = int(peaks.max().view(np.int32)) - base
    return base, max(0, span.bit_length() - 16)


def make_postings(lists: PostingLists) -> Postings:
    """Wrap arrays that nobody will change any more: contiguous, as kernels take them."""
    return Postings(lists._replace(**{n: _frozen(part) for n, part in lists._asdict().items()}))


def _frozen(part: Any) -> Any:
    if not isinstance(part, np.ndarray):
        return part
    view = np.ascontiguousarray(part).view()
    view.flags.writeable = False
    return view


def block_size_for(num_docs: int) -> int:
    """Choose the size of blocks: few documents need no more than one small block."""
    return min(BLOCK_SIZE, max(128, 1 << (num_docs - 1).bit_length()))


def build_postings(
    vectors: SparseVectors, compact: bool = False, block_size: int | None = None
) -> Postings:
    """Turn documents with terms into terms with documents, which is a sparse transpose.

    Raises InputError for vectors that are not what they should be.
    """
    vectors.check()
    block_size = block_size or block_size_for(len(vectors))
    arrays = _transposed(vectors, block_size)
    postings = finish_postings(*arrays, len(vectors), vectors.num_terms, block_size)
    return postings.to_compact() if compact else postings


def finish_postings(
    offsets: OffsetArray,
    local_ids: NDArray[np.uint16],
    impacts: FloatArray,
    num_docs: int,
    num_terms: int,
    block_size: int,
) -> Postings:
    """Complete the arrays of a transpose by what searching wants to know beforehand."""
    num_blocks = -(-num_docs // block_size)
    none = np.zeros(0, dtype=np.uint16)
    postings = make_postings(
        PostingLists(
            offsets=offsets,
            local_ids=local_ids,
            impacts=impacts,
            codes=none,
            rests=none,
            peaks=_peaks(offsets, impacts, num_blocks, num_terms),
            **no_rows(num_terms),
            smallest=float(impacts.min()) if impacts.size else 0.0,
            base=0,
            shift=0,
            num_docs=num_docs,
            num_blocks=num_blocks,
            block_size=block_size,
        )
    )
    return postings.with_rows()


def no_rows(num_terms: int) -> dict[str, NDArray[Any]]:
    """Return the two arrays of rows for postings that have none."""
    return {
        "rows": np.zeros((0, 0), dtype=np.float32),
        "row_of": np.full(num_terms, -1, dtype=np.int32),
    }


def _transposed(
    vectors: SparseVectors, block_size: int
) -> tuple[OffsetArray, NDArray[np.uint16], FloatArray]:
    """Sort all weights by cell, and by document within cells; returns offsets and both halves."""
    num_blocks = -(-len(vectors) // block_size)
    offsets = np.zeros(vectors.num_terms * num_blocks + 1, dtype=np.int64)
    if find_spec("numba") is None:
        return _transposed_reference(vectors, block_size, offsets)
    from minisplade.kernels.building import count_cells, fill_cells

    shape = 0, block_size, num_blocks
    rows = tuple(map(np.ascontiguousarray, (vectors.offsets, vectors.term_ids, vectors.weights)))
    count_cells(*rows[:2], *shape, offsets)
    np.cumsum(offsets, out=offsets)
    # NumPy's large arrays get large pages of memory, which halve the time of scattered reads.
    local_ids = np.empty(vectors.weights.size, dtype=np.uint16)
    impacts = np.empty(vectors.weights.size, dtype=np.float32)
    fill_cells(*rows, *shape, offsets[:-1].copy(), local_ids, impacts)
    return offsets, local_ids, impacts


def _transposed_reference(
    vectors: SparseVectors, block_size: int, offsets: OffsetArray
) -> tuple[OffsetArray, NDArray[np.uint16], FloatArray]:
    """Do as _transposed, in NumPy alone."""
    rows = np.repeat(np.arange(len(vectors), dtype=np.int64), np.diff(vectors.offsets))
    num_blocks = -(-len(vectors) // block_size)
    cells = vectors.term_ids.astype(np.int64) * num_blocks + rows // block_size
    np.cumsum(np.bincount(cells, minlength=offsets.size - 1), out=offsets[1:])
    # A stable sort leaves documents in order within each cell.
    by_cell = np.argsort(cells, kind="stable")
    return offsets, (rows % block_size)[by_cell].astype(np.uint16), vectors.weights[by_cell]


def _peaks(
    offsets: OffsetArray, impacts: FloatArray, num_blocks: int, num_terms: int
) -> FloatArray:
    """Return the largest impact of each term, float32 (V,)."""
    peaks = np.zeros(num_terms, dtype=np.float32)
    if find_spec("numba"):
        from minisplade.kernels.building import peaks_of

        peaks_of(offsets, impacts, num_blocks, peaks)
    elif num_blocks:
        lengths = np.diff(offsets[::num_blocks])
        np.maximum.at(peaks, np.repeat(np.arange(num_terms), lengths), impacts)
    return peaks

"""Parts: several postings that are searched as one index, in the form that kernels take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import FloatArray, OffsetArray, PostingLists
from minisplade.index.filters import EVERYTHING, Filter
from minisplade.index.postings import Postings

Part: TypeAlias = tuple[Postings, Filter]
"""Postings, and which of their documents may be found."""

LEAST_BLOCKS = 4
"""Blocks that are worth a thread of their own when threads share one query."""


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Postings and filters, and a table of where their arrays are; see kernels.parts.

    The largest stands first in the table, because what is found there tells best what others need
    not look at.
    """

    members: tuple[Part, ...]  # in the order of their documents
    peaks: FloatArray  # float32 (V,), the largest impact of each term
    lengths: OffsetArray  # int64 (V,), how many postings it has
    table: Any  # the PartTable of these arrays, as a Bundle; None without Numba or members
    num_docs: int
    num_terms: int
    widest: int  # documents of the longest block

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Parts:
        """Put parts together; all have the same vocabulary."""
        postings = [own for own, _ in parts]
        return cls._made_of(tuple(parts), _peaks_of(postings), _lengths_of(postings))

    def filtered(self, filters: Sequence[Filter]) -> Parts:
        """Return the same parts with other filters, one for each."""
        members = tuple((own, new) for (own, _), new in zip(self.members, filters, strict=True))
        return self._made_of(members, self.peaks, self.lengths)

    @classmethod
    def _made_of(cls, members: tuple[Part, ...], peaks: FloatArray, lengths: OffsetArray) -> Parts:
        has_table = find_spec("numba") and members
        return cls(
            members=members,
            peaks=peaks,
            lengths=lengths,
            table=_table_of(members, peaks, lengths) if has_table else None,
            num_docs=sum(postings.num_docs for postings, _ in members),
            num_terms=peaks.size,
            widest=max((own.lists.block_size for own, _ in members), default=1),
        )

    def shared_out(self, num_threads: int) -> list[Any]:
        """Cut the table into one for each thread, with some of the blocks, where it is worth it."""
        from minisplade.kernels.compiler import Bundle
        from minisplade.kernels.parts import END_BLOCK, FIRST_BLOCK, NUM_BLOCKS

        whole = self.table.value
        own_blocks = whole.rows[:, NUM_BLOCKS]
        num_blocks, ends = int(own_blocks.sum()), np.cumsum(own_blocks)
        threads = max(1, min(num_threads, num_blocks // LEAST_BLOCKS))
        if threads == 1:
            return [self.table]
        tables = []
        for thread in range(threads):
            low, high = (num_blocks * i // threads for i in (thread, thread + 1))
            rows = whole.rows.copy()
            rows[:, FIRST_BLOCK] = np.clip(low - (ends - own_blocks), 0, own_blocks)
            rows[:, END_BLOCK] = np.clip(high - (ends - own_blocks), 0, own_blocks)
            tables.append(Bundle(whole._replace(rows=rows)))
        return tables


def _table_of(members: Sequence[Part], peaks: FloatArray, lengths: OffsetArray) -> Any:
    """Write down what kernels need to know of all parts: addresses, so it keeps no file open."""
    from minisplade.kernels.compiler import Bundle
    from minisplade.kernels.parts import PartTable

    sizes = [postings.num_docs for postings, _ in members]
    starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    largest_first = sorted(range(len(members)), key=lambda place: -sizes[place])
    rows = [_row_of(*members[place], starts[place]) for place in largest_first]
    smallest = [members[place][0].lists.smallest for place in largest_first]
    table = PartTable(
        rows=np.array(rows, dtype=np.int64),
        smallest=np.array(smallest, dtype=np.float64),
        num_terms=peaks.size,
        peaks_at=_address_of(peaks),
        lengths_at=_address_of(lengths),
    )
    return Bundle(table)


def _peaks_of(parts: Sequence[Postings]) -> FloatArray:
    """Return the largest impact of each term in all parts, float32 (V,)."""
    peaks = [postings.lists.peaks for postings in parts] or [np.zeros(0, dtype=np.float32)]
    return peaks[0] if len(peaks) == 1 else np.maximum.reduce(peaks)


def _lengths_of(parts: Sequence[Postings]) -> OffsetArray:
    """Count the postings of each term in all parts, int64 (V,)."""
    lengths = np.zeros(parts[0].num_terms if parts else 0, dtype=np.int64)
    for lists in (postings.lists for postings in parts):
        if lists.num_blocks:
            lengths += np.diff(lists.offsets[:: lists.num_blocks])
    return lengths


def _row_of(postings: Postings, allowed: Filter, start: int) -> list[int]:
    """Return what kernels.parts has columns for."""
    from minisplade.kernels import parts

    lists: PostingLists = postings.lists
    row = [0] * parts.NUM_COLUMNS
    for column, name in enumerate(parts.ARRAYS):
        row[column] = _address_of(getattr(lists, name))
    row[parts.ALLOWED], row[parts.ALLOWED_IDS] = map(
        _address_of, (allowed.allowed, allowed.doc_ids)
    )
    row[parts.NUM_POSTINGS] = postings.num_postings
    row[parts.IS_COMPACT] = int(postings.is_compact)
    row[parts.NUM_TERMS] = postings.num_terms
    row[parts.NUM_ROWS] = lists.rows.shape[0]
    row[parts.BASE], row[parts.SHIFT] = lists.base, lists.shift
    row[parts.NUM_DOCS], row[parts.NUM_BLOCKS] = lists.num_docs, lists.num_blocks
    row[parts.BLOCK_SIZE] = lists.block_size
    row[parts.NUM_ALLOWED] = allowed.doc_ids.size
    row[parts.IS_FILTERED] = int(allowed is not EVERYTHING)
    row[parts.START], row[parts.END_BLOCK] = start, lists.num_blocks
    return row


def _address_of(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])

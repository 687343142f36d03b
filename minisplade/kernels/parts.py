"""Posting lists of several segments in one call: a table of where their arrays are in memory.

A kernel cannot take a list of arrays whose number it does not know beforehand, and calling it for
each segment costs more than searching a small one. So each segment is a row of whole numbers.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import BoolArray, IdArray, OffsetArray, PostingLists
from minisplade.kernels.compiler import kernel
from minisplade.kernels.memory import array_at

ARRAYS = ("offsets", "local_ids", "impacts", "codes", "rests", "peaks", "rows", "row_of")
"""The first columns: addresses of arrays of PostingLists, in this order."""

ALLOWED, ALLOWED_IDS = 8, 9
NUM_POSTINGS, IS_COMPACT, NUM_TERMS, NUM_ROWS = 10, 11, 12, 13
BASE, SHIFT, NUM_DOCS, NUM_BLOCKS, BLOCK_SIZE = 14, 15, 16, 17, 18
NUM_ALLOWED, IS_FILTERED = 19, 20
START, FIRST_BLOCK, END_BLOCK = 21, 22, 23
NUM_COLUMNS = 24
"""Addresses of the filter; sizes; the filter's size; the number of the segment's first document,
and the blocks that are to be searched."""


class PartTable(NamedTuple):
    """The segments that a query is put to. Whoever has it must keep alive what it points at."""

    rows: OffsetArray  # int64 (S, NUM_COLUMNS)
    smallest: NDArray[np.float64]  # float64 (S,), the smallest impact of each, 0 if it has none
    num_terms: int
    peaks_at: int  # address of the largest impacts of terms in all segments, float32 (V,)
    lengths_at: int  # address of the numbers of their postings, int64 (V,)


@kernel(inline=True)
def lists_at(parts: PartTable, place: int) -> PostingLists:
    """Return the posting lists of a part."""
    row = parts.rows[place]
    plain = row[NUM_POSTINGS] * (1 - row[IS_COMPACT])
    compact = row[NUM_POSTINGS] * row[IS_COMPACT]
    num_cells = row[NUM_TERMS] * row[NUM_BLOCKS]
    width = row[NUM_BLOCKS] * row[BLOCK_SIZE]
    return PostingLists(
        array_at(row[0], (num_cells + 1,), np.int64),
        array_at(row[1], (row[NUM_POSTINGS],), np.uint16),
        array_at(row[2], (plain,), np.float32),
        array_at(row[3], (compact,), np.uint16),
        array_at(row[4], (compact,), np.uint16),
        array_at(row[5], (row[NUM_TERMS],), np.float32),
        array_at(row[6], (row[NUM_ROWS], width), np.float32),
        array_at(row[7], (row[NUM_TERMS],), np.int32),
        float(parts.smallest[place]),
        int(row[BASE]),
        int(row[SHIFT]),
        int(row[NUM_DOCS]),
        int(row[NUM_BLOCKS]),
        int(row[BLOCK_SIZE]),
    )


@kernel(inline=True)
def filter_at(parts: PartTable, place: int) -> tuple[BoolArray, IdArray]:
    """Return the filter of a part: bool (N,) and int32, both empty for none."""
    row = parts.rows[place]
    return (
        array_at(row[ALLOWED], (row[NUM_DOCS] * row[IS_FILTERED],), np.bool_),
        array_at(row[ALLOWED_IDS], (row[NUM_ALLOWED],), np.int32),
    )

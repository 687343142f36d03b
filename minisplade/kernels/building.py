"""Turning documents with terms into terms with documents, cell by cell."""

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import FloatArray, IdArray, OffsetArray
from minisplade.kernels.compiler import kernel


@kernel
def count_cells(
    row_offsets: OffsetArray,
    term_ids: IdArray,
    first_row: int,
    block_size: int,
    num_blocks: int,
    offsets: OffsetArray,
) -> None:
    """Add the number of postings of each cell into offsets, one place after the cell's own.

    row_offsets: int64 (B + 1,); term_ids: int32 (P,), those of rows from document first_row on;
    offsets: int64 (V * num_blocks + 1,).
    """
    for row in range(row_offsets.size - 1):
        block = (first_row + row) // block_size
        for i in range(row_offsets[row], row_offsets[row + 1]):
            offsets[np.int64(term_ids[i]) * num_blocks + block + 1] += 1


@kernel
def fill_cells(
    row_offsets: OffsetArray,
    term_ids: IdArray,
    weights: FloatArray,
    first_row: int,
    block_size: int,
    num_blocks: int,
    next_slots: OffsetArray,
    local_ids: NDArray[np.uint16],
    impacts: FloatArray,
) -> None:
    """Put every weight of some rows into its cell's next free slot.

    row_offsets, term_ids, first_row: as in count_cells; weights: float32 (P,); next_slots: int64
    (V * num_blocks,), moved on; local_ids: uint16 and impacts: float32, as in PostingLists.
    """
    for row in range(row_offsets.size - 1):
        block = (first_row + row) // block_size
        local_id = np.uint16(first_row + row - block * block_size)
        for i in range(row_offsets[row], row_offsets[row + 1]):
            cell = np.int64(term_ids[i]) * num_blocks + block
            slot = next_slots[cell]
            next_slots[cell] = slot + 1
            local_ids[slot] = local_id
            impacts[slot] = weights[i]


@kernel
def peaks_of(offsets: OffsetArray, impacts: FloatArray, num_blocks: int, peaks: FloatArray) -> None:
    """Find the largest impact of each term; peaks: float32 (V,), 0 for terms without postings."""
    for term_id in range(peaks.size):
        peak = np.float32(0)
        for i in range(offsets[term_id * num_blocks], offsets[(term_id + 1) * num_blocks]):
            peak = max(peak, impacts[i])
        peaks[term_id] = peak

"""What queries read from posting lists: whole cells, or the impacts of single documents."""

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import FloatArray, IdArray, OffsetArray, PostingLists
from minisplade.kernels.compiler import kernel
from minisplade.kernels.masks import LANES, reaching
from minisplade.kernels.memory import prefetch
from minisplade.kernels.tiles import lowest_bit

LOOKUP_COST = 100
"""Looking up one document in a cell takes as long as adding so many postings."""

STRIDE, AHEAD = 64, 256
"""Postings are asked for in such strides, so many postings before they are added."""

ROW_GAIN = 4
"""So many documents of a row are added as fast as one posting."""

STAGE = 256
"""Impacts of the compact form that are turned into floats at a time."""


@kernel(inline=True)
def length_of(lists: PostingLists, term_id: int) -> int:
    """Count the postings of a term."""
    cell = np.int64(term_id) * lists.num_blocks
    return int(lists.offsets[cell + lists.num_blocks] - lists.offsets[cell])


@kernel(inline=True)
def is_long(lists: PostingLists, length: int) -> bool:
    """Tell whether a cell of this length takes longer than its part of a row, if there is one."""
    return bool(length * ROW_GAIN >= min(lists.block_size, lists.num_docs))


@kernel(inline=True)
def expect_postings(local_ids: NDArray[np.uint16], impacts: FloatArray, slot: int) -> None:
    """Bring STRIDE postings into the cache."""
    prefetch(local_ids, slot)
    prefetch(local_ids, slot + 32)
    prefetch(impacts, slot)
    prefetch(impacts, slot + 16)
    prefetch(impacts, slot + 32)
    prefetch(impacts, slot + 48)


@kernel(inline=True)
def expect_cell(lists: PostingLists, term_id: int, block: int) -> None:
    """Bring what add_cell does not ask for itself into the cache: the first postings."""
    cell = np.int64(term_id) * lists.num_blocks + block
    start, end = lists.offsets[cell], lists.offsets[cell + 1]
    if not is_long(lists, end - start):
        for slot in range(start, min(end, start + AHEAD), STRIDE):
            expect_postings(lists.local_ids, lists.impacts, slot)


@kernel(inline=True)
def add_cell(
    lists: PostingLists, term_id: int, block: int, weight: float, scores: FloatArray, stage: IdArray
) -> None:
    """Add weight times impact of every posting in one cell into scores.

    scores: float32, those of the block's documents; stage: int32 (STAGE,), scratch. The compact
    form adds the least impact that its codes allow for.
    """
    cell = np.int64(term_id) * lists.num_blocks + block
    length = lists.offsets[cell + 1] - lists.offsets[cell]
    row = lists.row_of[term_id] if is_long(lists, length) else -1
    if row >= 0:  # many documents at a time beat few documents one by one
        first = block * lists.block_size
        whole = lists.rows[row, first : min(first + lists.block_size, lists.num_docs)]
        for i in range(whole.size):
            scores[i] += np.float32(weight) * whole[i]
        return
    # Whole numbers without a sign spare the test for an index that counts from the end.
    start, end = np.uint64(lists.offsets[cell]), np.uint64(lists.offsets[cell + 1])
    factor = np.float32(weight)
    local_ids, impacts = lists.local_ids, lists.impacts
    if impacts.size:
        for first_slot in range(start, end, np.uint64(STRIDE)):
            if first_slot + np.uint64(AHEAD) < end:
                expect_postings(local_ids, impacts, np.int64(first_slot) + AHEAD)
            for i in range(first_slot, min(end, first_slot + np.uint64(STRIDE))):
                scores[local_ids[i]] += factor * impacts[i]
        return
    staged = stage.view(np.float32)
    base, shift = np.int32(lists.base), np.int32(lists.shift)
    for first in range(lists.offsets[cell], lists.offsets[cell + 1], STAGE):
        codes = lists.codes[first : min(first + STAGE, lists.offsets[cell + 1])]
        own_ids = local_ids[first : first + codes.size]
        for i in range(codes.size):
            stage[i] = base + (np.int32(codes[i]) << shift)
        for i in range(codes.size):
            scores[own_ids[i]] += factor * staged[i]


@kernel(inline=True)
def even_slot(lists: PostingLists, cell: int, local_id: int) -> int:
    """Return the slot that a document would have in a cell, were they spread evenly."""
    start, end = lists.offsets[cell], lists.offsets[cell + 1]
    return int(start + local_id * (end - start) // lists.block_size)


@kernel(inline=True)
def slot_of(lists: PostingLists, cell: int, local_id: int, guess: int) -> int:
    """Return the slot of a document in a cell, or -1 where the cell has no posting of it.

    The search starts at guess, doubles its steps from there (Bentley and Yao 1976), and compares
    the last few slots all at once.
    """
    start, end = lists.offsets[cell], lists.offsets[cell + 1]
    ids = lists.local_ids
    low, high = max(start, guess - LANES // 2), min(end, guess + LANES // 2)
    step = LANES
    while low > start and ids[low] > local_id:
        high, low = low, max(start, low - step)
        step *= 2
    while high < end and ids[high] <= local_id:
        low, high = high, min(end, high + step)
        step *= 2
    while high - low > LANES:
        middle = (low + high) >> 1
        if ids[middle] <= local_id:
            low = middle
        else:
            high = middle
    if low + LANES <= ids.size:
        low += lowest_bit(reaching(ids, low, np.uint16(local_id)))
    else:
        while low < high and ids[low] < local_id:
            low += 1
    return low if low < high and ids[low] == local_id else -1


@kernel(inline=True)
def impact_at(lists: PostingLists, slot: int) -> float:
    """Return the exact impact in a slot."""
    if lists.impacts.size:
        return np.float64(lists.impacts[slot])
    bits = lists.base + (np.int64(lists.codes[slot]) << lists.shift) + np.int64(lists.rests[slot])
    return np.float64(np.int32(bits).view(np.float32))


@kernel(inline=True)
def impact_of(lists: PostingLists, term_id: int, doc_id: int) -> float:
    """Return the exact impact of a term in a document, 0 where it is absent."""
    row = lists.row_of[term_id]
    if row >= 0:
        return np.float64(lists.rows[row, doc_id])
    block = doc_id // lists.block_size
    cell = np.int64(term_id) * lists.num_blocks + block
    local_id = doc_id - block * lists.block_size
    slot = slot_of(lists, cell, local_id, even_slot(lists, cell, local_id))
    return impact_at(lists, slot) if slot >= 0 else 0.0


@kernel
def exact_score(lists: PostingLists, term_ids: IdArray, weights: FloatArray, doc_id: int) -> float:
    """Return one document's dot product with a query, in float64, added in the query's order."""
    score = 0.0
    for j in range(term_ids.size):
        score += np.float64(weights[j]) * impact_of(lists, term_ids[j], doc_id)
    return score


@kernel
def exact_scores(
    lists: PostingLists,
    term_ids: IdArray,
    weights: FloatArray,
    first_doc: int,
    doc_ids: OffsetArray,
    sums: NDArray[np.float64],
    scores: NDArray[np.float64],
) -> None:
    """Do as exact_score for many documents, by whole cells of the blocks that they are in.

    doc_ids: int64, numbered through all parts, where these lists begin at first_doc; documents of
    other lists are left alone; sums: float64 scratch for a block; scores: float64, one for each
    document. Adds in the same order, so results are the same bits.
    """
    size = lists.block_size
    for block in range(lists.num_blocks):
        start = first_doc + block * size
        end = min(start + size, first_doc + lists.num_docs)
        own = 0
        for doc_id in doc_ids:
            own += start <= doc_id < end
        if own == 0:
            continue
        for i in range(size):
            sums[i] = 0.0
        for j in range(term_ids.size):
            cell = np.int64(term_ids[j]) * lists.num_blocks + block
            weight = np.float64(weights[j])
            for slot in range(lists.offsets[cell], lists.offsets[cell + 1]):
                sums[lists.local_ids[slot]] += weight * impact_at(lists, slot)
        for i in range(doc_ids.size):
            if start <= doc_ids[i] < end:
                scores[i] = sums[doc_ids[i] - start]

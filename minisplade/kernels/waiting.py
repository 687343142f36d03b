"""Lists that wait while others are scored, and are looked up for the few documents that can win.

Source: MaxScore, in Turtle and Flood 1995, "Query Evaluation", section 4.
"""

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import FloatArray, IdArray, OffsetArray, PostingLists
from minisplade.kernels.compiler import kernel
from minisplade.kernels.memory import prefetch
from minisplade.kernels.parts import NUM_DOCS, START, PartTable, lists_at
from minisplade.kernels.scoring import even_slot, impact_at, slot_of
from minisplade.kernels.selection import (
    KeyArray,
    document_of,
    keep_reaching,
    make_key,
    score_at,
    score_of,
)

UNIT = 2.0**-24
"""The relative error of rounding once to float32."""

WAITING_SHARE = 0.3
"""Lists wait while together they could lift a document by less than this share of the floor."""

WAITING_LENGTH = 200
"""A list waits only where it has this many postings for each of the k documents to look up."""

GUESS, ADD = range(2)
"""The steps of look_up: guess where postings are, and add what is there."""


@kernel
def order_lists(
    peaks: FloatArray,
    lengths: OffsetArray,
    term_ids: IdArray,
    weights: FloatArray,
    order: OffsetArray,
    bounds: NDArray[np.float64],
    merit: NDArray[np.float64],
) -> int:
    """Order the lists of a query by how little they can lift a document for each posting read.

    peaks: float32 (V,), the largest impact of each term; lengths: int64 (m,), the postings of each
    list; order: int64 (m,), places in the query; bounds: float64 (m + 1,); entry j is what the
    first j lists can add together; merit: float64 (m,), scratch. Lists without postings are left
    out; returns the number of the others.
    """
    count = 0
    for j in range(term_ids.size):
        if lengths[j] == 0:
            continue
        merit[j] = np.float64(weights[j]) * np.float64(peaks[term_ids[j]]) / lengths[j]
        place = count
        while place > 0 and merit[order[place - 1]] > merit[j]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = j
        count += 1
    bounds[0] = 0.0
    for place in range(count):
        j = order[place]
        bound = np.float64(weights[j]) * np.float64(peaks[term_ids[j]])
        # The surplus pays for the rounding of float32 products and sums.
        bounds[place + 1] = bounds[place] + bound * (1 + 2 * UNIT)
    return count


@kernel
def count_waiting(
    lengths: OffsetArray,
    order: OffsetArray,
    bounds: NDArray[np.float64],
    most: float,
    remaining: float,
    k: int,
) -> int:
    """Count how many lists, the first in order, had better wait while other blocks are scored.

    lengths, order and bounds: as in order_lists; most: what they may add together; remaining: the
    share of all documents that are in those blocks.
    """
    waiting = 0
    while waiting < order.size and bounds[waiting + 1] <= most:
        if lengths[order[waiting]] * remaining < WAITING_LENGTH * k:
            break
        waiting += 1
    return waiting


@kernel
def add_waiting(
    parts: PartTable,
    term_ids: IdArray,
    weights: FloatArray,
    order: OffsetArray,
    bounds: NDArray[np.float64],
    k: int,
    floor: float,
    slack: float,
    complete_place: int,
    complete_block: int,
    keys: KeyArray,
    count: int,
    slots: KeyArray,
) -> int:
    """Add the lists that waited to the scores in keys; return how many documents still can win.

    order: int64, the lists that waited; bounds: as in order_lists; floor: what the k best score at
    least; slack: how far apart, relatively, scores must be. Other arguments as in look_up.
    """
    for i in range(order.size - 1, -1, -1):
        if count >= k:
            floor = max(floor, score_at(keys, count, k) * (1 - slack))
            count = keep_reaching(keys, count, floor - bounds[i + 1])
        j = order[i]
        look_up(
            parts,
            term_ids[j],
            weights[j],
            complete_place,
            complete_block,
            keys,
            count,
            slots,
        )
    return count


@kernel
def look_up(
    parts: PartTable,
    term_id: int,
    weight: float,
    complete_place: int,
    complete_block: int,
    keys: KeyArray,
    count: int,
    slots: KeyArray,
) -> None:
    """Add one term to the scores in keys, but not to those that were complete before lists waited.

    complete_place, complete_block: the last block, of the part at a place in the table, whose
    scores are complete; keys: int64, part after part; slots: int64, scratch, as many.
    """
    # All documents take a step before any takes the next, so that they wait for memory together.
    for step in (GUESS, ADD):
        start = 0
        for place in range(parts.rows.shape[0]):
            end = start + count_own(parts, place, keys[start:count])
            if start < end and place >= complete_place:
                lists = lists_at(parts, place)
                complete = complete_block if place == complete_place else -1
                first_doc = parts.rows[place, START]
                own, own_slots = keys[start:end], slots[start:end]
                take_step(step, lists, term_id, weight, first_doc, complete, own, own_slots)
            start = end


@kernel
def count_own(parts: PartTable, place: int, keys: KeyArray) -> int:
    """Count how many keys, from the first on, are those of documents of one part."""
    start = parts.rows[place, START]
    end = start + parts.rows[place, NUM_DOCS]
    for i in range(keys.size):
        if not start <= document_of(keys[i]) < end:
            return i
    return int(keys.size)


@kernel(inline=True)
def take_step(
    step: int,
    lists: PostingLists,
    term_id: int,
    weight: float,
    first_doc: int,
    complete_block: int,
    keys: KeyArray,
    slots: KeyArray,
) -> None:
    """Take a step of look_up with documents of one part, which are numbered from first_doc on.

    slots: int64, as many as keys; where their postings are likely to be.
    """
    row = lists.row_of[term_id]
    for i in range(keys.size):
        doc_id = document_of(keys[i]) - first_doc
        block = doc_id // lists.block_size
        if block <= complete_block:
            continue
        cell = np.int64(term_id) * lists.num_blocks + block
        local_id = doc_id - block * lists.block_size
        if step == ADD:
            slot = slot_of(lists, cell, local_id, slots[i]) if row < 0 else -1
            impact = impact_at(lists, slot) if slot >= 0 else 0.0
            if row >= 0:
                impact = np.float64(lists.rows[row, doc_id])
            share = np.float32(weight) * np.float32(impact)
            keys[i] = make_key(np.float32(score_of(keys[i])) + share, doc_id + first_doc)
        elif row >= 0:
            prefetch(lists.rows[row], doc_id)
        else:
            slots[i] = even_slot(lists, cell, local_id)
            for away in (-32, 0, 32):
                prefetch(lists.local_ids, slots[i] + away)

"""The documents that may be among the k best: scoring block by block, and what can be left out.

Three facts make it fast. The scores of a block fit the cache. Once k documents reach some score,
the floor, others must reach it too, so the lists that could lift a document least may wait, to be
looked up for the few documents that still can win (Turtle and Flood 1995, MaxScore). And float32
sums are good enough to find those few; where they are too close to tell the order, float64 does.
"""

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import FloatArray, IdArray, OffsetArray, PostingLists
from minisplade.kernels.jit import jitted
from minisplade.kernels.memory import prefetch
from minisplade.kernels.parts import (
    BLOCK_SIZE,
    END_BLOCK,
    FIRST_BLOCK,
    IS_COMPACT,
    IS_FILTERED,
    NUM_DOCS,
    SHIFT,
    START,
    filter_at,
    lists_at,
)
from minisplade.kernels.scoring import (
    LOOKUP_COST,
    STAGE,
    add_cell,
    expect_cell,
    impact_of,
    length_of,
)
from minisplade.kernels.selection import (
    KeyArray,
    collect,
    collect_listed,
    keep_reaching,
    score_at,
    score_of_rank,
)
from minisplade.kernels.waiting import (
    UNIT,
    WAITING_SHARE,
    add_waiting,
    count_waiting,
    order_lists,
)

LARGEST, SMALLEST = 1e37, 1e-36
"""Float32 is trusted while no score can pass the one, and no product fall below the other."""

OUT_OF_RANGE, BAD_QUERY, FAILED_GUESS = -1, -2, -3
"""What find_candidates returns instead of a count; after the last it has to be called again."""

CELLS_AHEAD = 8
"""The first postings of a cell are asked for so many cells before they are added."""


@jitted
def check_query(
    peaks: FloatArray, smallest: NDArray[np.float64], term_ids: IdArray, weights: FloatArray
) -> int:
    """Return 0 for a query that kernels can take, BAD_QUERY or OUT_OF_RANGE.

    peaks: float32 (V,), the largest impact of each term; smallest: float64 (S,), the smallest
    impact of each part.
    """
    before = -1
    highest, lightest = 0.0, np.inf
    for j in range(term_ids.size):
        if term_ids[j] <= before or term_ids[j] >= peaks.size:
            return BAD_QUERY
        if not (weights[j] > 0 and weights[j] < np.inf):
            return BAD_QUERY
        before = term_ids[j]
        highest += np.float64(weights[j]) * np.float64(peaks[before])
        lightest = min(lightest, np.float64(weights[j]))
    least = np.inf
    for impact in smallest:  # 0 for parts without postings
        if 0 < impact < least:
            least = impact
    if highest > LARGEST or min(lightest, 1.0) * least < SMALLEST:
        return OUT_OF_RANGE
    return 0


@jitted
def base_slack(num_lists: int) -> float:
    """Return how far apart two float32 scores must be, relatively, to be in their true order.

    A sum of m positive products, each rounded, is off by at most a factor 1 + m * UNIT (Higham
    2002, section 3.1).
    """
    return 2.01 * (num_lists + 1) * UNIT


@jitted
def relative_slack(table: OffsetArray, num_lists: int) -> float:
    """Do as base_slack for some parts: the compact form's are low by 2 ** (shift - 23) at most."""
    return base_slack(num_lists) + compact_slack(table)


@jitted
def compact_slack(table: OffsetArray) -> float:
    """Return by how much, relatively, float32 scores of compact parts may be low."""
    slack = 0.0
    for place in range(table.shape[0]):
        if table[place, IS_COMPACT]:
            slack = max(slack, 2.0 ** (table[place, SHIFT] - 23))
    return slack


@jitted
def count_postings(
    table: OffsetArray, smallest: NDArray[np.float64], term_ids: IdArray, lengths: OffsetArray
) -> None:
    """Count the postings of each list in all parts; lengths: int64 (m,)."""
    lengths[:] = 0
    for place in range(table.shape[0]):
        lists = lists_at(table, smallest, place)
        for j in range(term_ids.size):
            prefetch(lists.row_of, term_ids[j])
            lengths[j] += length_of(lists, term_ids[j])


@jitted
def docs_before(table: OffsetArray, place: int, block: int) -> int:
    """Count the documents that are to be searched before a block of the part at a place."""
    count = 0
    for i in range(min(place + 1, table.shape[0])):
        end = table[i, END_BLOCK] if i < place else block
        end_doc = min(end * table[i, BLOCK_SIZE], table[i, NUM_DOCS])
        count += max(0, end_doc - table[i, FIRST_BLOCK] * table[i, BLOCK_SIZE])
    return count


@jitted
def score_block(
    lists: PostingLists,
    term_ids: IdArray,
    weights: FloatArray,
    order: OffsetArray,
    block: int,
    allowed_ids: IdArray,
    few: bool,
    scores: FloatArray,
) -> None:
    """Score the documents of a block by the lists in order.

    order: int64, places in the query; allowed_ids: int32, the only documents that matter, where
    they are few; scores: float32, what they and perhaps others score, 0 for the rest.
    """
    stage = np.empty(STAGE, np.int32)
    first_doc = block * lists.block_size
    for j in order[:CELLS_AHEAD]:
        expect_cell(lists, term_ids[j], block)
    scores[:] = 0
    for i in range(order.size):
        if i + CELLS_AHEAD < order.size:
            expect_cell(lists, term_ids[order[i + CELLS_AHEAD]], block)
        j = order[i]
        cell = np.int64(term_ids[j]) * lists.num_blocks + block
        length = lists.offsets[cell + 1] - lists.offsets[cell]
        if few and allowed_ids.size * LOOKUP_COST < length:
            for doc_id in allowed_ids:
                impact = np.float32(impact_of(lists, term_ids[j], doc_id))
                scores[doc_id - first_doc] += weights[j] * impact
        else:
            add_cell(lists, term_ids[j], block, weights[j], scores, stage)


@jitted
def guessed_rank(k: int, share: float) -> int:
    """Guess a rank in the first block whose score all k best documents reach.

    share: how many of them are there if they are spread evenly. Related documents are often
    neighbours, so it takes twice as many and some more: of 400 queries over passages of books, one
    in a hundred had more than that in the first quarter.
    """
    return min(k, int(2 * share + 6 * np.sqrt(share)) + 1)


@jitted
def find_candidates(
    table: OffsetArray,
    smallest: NDArray[np.float64],
    peaks: FloatArray,
    term_ids: IdArray,
    weights: FloatArray,
    k: int,
    alpha: float,
    hopeful: bool,
    all_scores: FloatArray,
    keys: KeyArray,
    spare: KeyArray,
) -> int:
    """Collect the keys of all documents that may be among the k best of all parts.

    table, smallest: as in lists_at; peaks: float32 (V,), the largest impact of each term; hopeful:
    guess a floor from the first block, which may fail; all_scores: float32 scratch for a block of
    any part; keys, spare: int64, room for a block more than there are documents. Returns their
    number, or what check_query does, or FAILED_GUESS.
    """
    status = check_query(peaks, smallest, term_ids, weights)
    if status < 0:
        return status
    lengths = np.empty(term_ids.size, np.int64)
    order = np.empty(term_ids.size, np.int64)
    bounds = np.empty(term_ids.size + 1, np.float64)
    count_postings(table, smallest, term_ids, lengths)
    num_lists = order_lists(peaks, lengths, term_ids, weights, order, bounds)
    if num_lists == 0:
        return 0
    order = order[:num_lists]
    slack = relative_slack(table, num_lists)
    num_docs = docs_before(table, table.shape[0], 0)
    hopeful = hopeful and table[:, IS_FILTERED].sum() == 0
    floor, guess = 0.0, 0.0
    waiting, count = 0, 0
    settled = False  # from then on lists may wait
    complete_place, complete_block = 0, -1
    for place in range(table.shape[0]):
        lists = lists_at(table, smallest, place)
        allowed, allowed_ids = filter_at(table, place)
        start = 0
        for block in range(table[place, FIRST_BLOCK], table[place, END_BLOCK]):
            first_doc = block * lists.block_size
            own = min(lists.block_size, lists.num_docs - first_doc)
            start += int(np.searchsorted(allowed_ids[start:], first_doc))
            end = start + int(np.searchsorted(allowed_ids[start:], first_doc + own))
            own_ids = allowed_ids[start:end]
            if allowed.size > 0 and own_ids.size == 0:
                continue
            few = allowed.size > 0 and own_ids.size * LOOKUP_COST < own
            # The last block may be shorter, and need not be looked at beyond.
            scores = all_scores[: (own + 127) // 128 * 128]
            score_block(lists, term_ids, weights, order[waiting:], block, own_ids, few, scores)
            if allowed.size > 0 and not few:
                for i in range(own):
                    scores[i] *= np.float32(allowed[first_doc + i])
            bar = floor / alpha
            if not settled:
                if not few:
                    rank = guessed_rank(k, k * own / num_docs) if hopeful else k
                    floor = max(floor, score_of_rank(scores, rank, spare) * (1 - slack))
                    guess = floor if rank < k else 0.0
                bar = floor
            limit = np.float32(max((bar - bounds[waiting]) * (1 - slack), SMALLEST / 2))
            if few:
                count = collect_listed(
                    scores, limit, first_doc, table[place, START], own_ids, keys, count
                )
            else:
                count = collect(scores, limit, table[place, START] + first_doc, keys, count)
            if count >= k and (not settled or count > k + k // 4 + 16):
                floor = max(floor, score_at(keys, count, k) * (1 - slack))
                count = keep_reaching(keys, count, floor - bounds[waiting])
            if not settled and floor > 0:
                settled, complete_place, complete_block = True, place, block
                most = WAITING_SHARE * floor / alpha
                remaining = 1 - docs_before(table, place, block + 1) / num_docs
                waiting = count_waiting(lengths, order, bounds, most, remaining, k)
    count = add_waiting(
        table,
        smallest,
        term_ids,
        weights,
        order[:waiting],
        bounds,
        k,
        floor,
        slack,
        complete_place,
        complete_block,
        keys,
        count,
        spare,
    )
    if count < k:
        return FAILED_GUESS if guess > 0 else count
    kth = score_at(keys, count, k)
    return FAILED_GUESS if kth < guess else keep_reaching(keys, count, kth * (1 - slack))

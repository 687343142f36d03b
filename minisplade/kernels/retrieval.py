"""The documents that may be among the k best: scoring block by block, and what can be left out.

Three facts make it fast. The scores of a block fit the cache. Once k documents reach some score,
the floor, others must reach it too, so the lists that could lift a document least may wait, to be
looked up for the few documents that still can win (Turtle and Flood 1995, MaxScore). And float32
sums are good enough to find those few; where they are too close to tell the order, float64 does.
"""

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import BoolArray, FloatArray, IdArray, OffsetArray, PostingLists
from minisplade.kernels.jit import jitted
from minisplade.kernels.memory import prefetch
from minisplade.kernels.scoring import LOOKUP_COST, STAGE, add_cell, impact_of
from minisplade.kernels.selection import (
    ID_MASK,
    KeyArray,
    collect,
    collect_listed,
    keep_reaching,
    make_key,
    score_at,
    score_of,
    score_of_rank,
)

UNIT = 2.0**-24
"""The relative error of rounding once to float32."""

LARGEST, SMALLEST = 1e37, 1e-36
"""Float32 is trusted while no score can pass the one, and no product fall below the other."""

OUT_OF_RANGE, BAD_QUERY = -1, -2
"""What search_query returns instead of a count."""

WAITING_SHARE = 0.3
"""Lists wait while together they could lift a document by less than this share of the floor."""

WAITING_LENGTH = 200
"""A list waits only where it has this many postings for each of the k documents to look up."""


@jitted
def check_query(lists: PostingLists, term_ids: IdArray, weights: FloatArray) -> int:
    """Return 0 for a query that kernels can take, BAD_QUERY or OUT_OF_RANGE."""
    num_terms = lists.peaks.size
    before = -1
    highest, lightest = 0.0, np.inf
    for j in range(term_ids.size):
        if term_ids[j] <= before or term_ids[j] >= num_terms:
            return BAD_QUERY
        if not (weights[j] > 0 and weights[j] < np.inf):
            return BAD_QUERY
        before = term_ids[j]
        highest += np.float64(weights[j]) * np.float64(lists.peaks[before])
        lightest = min(lightest, np.float64(weights[j]))
    if highest > LARGEST or min(lightest * lists.smallest, lists.smallest) < SMALLEST:
        return OUT_OF_RANGE
    return 0


@jitted
def order_lists(
    lists: PostingLists,
    term_ids: IdArray,
    weights: FloatArray,
    order: OffsetArray,
    bounds: NDArray[np.float64],
) -> int:
    """Order the lists of a query by how little they can lift a document for each posting read.

    order: int64 (m,), places in the query; bounds: float64 (m + 1,); entry j is what the first j
    lists can add together. Lists without postings are left out; returns the number of the others.
    """
    count = 0
    merit = np.empty(term_ids.size)
    for j in range(term_ids.size):
        cell = np.int64(term_ids[j]) * lists.num_blocks
        length = lists.offsets[cell + lists.num_blocks] - lists.offsets[cell]
        if length == 0:
            continue
        merit[j] = np.float64(weights[j]) * np.float64(lists.peaks[term_ids[j]]) / length
        place = count
        while place > 0 and merit[order[place - 1]] > merit[j]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = j
        count += 1
    bounds[0] = 0.0
    for place in range(count):
        j = order[place]
        bound = np.float64(weights[j]) * np.float64(lists.peaks[term_ids[j]])
        # The surplus pays for the rounding of float32 products and sums.
        bounds[place + 1] = bounds[place] + bound * (1 + 2 * UNIT)
    return count


@jitted
def base_slack(num_lists: int) -> float:
    """Return how far apart two float32 scores must be, relatively, to be in their true order.

    A sum of m positive products, each rounded, is off by at most a factor 1 + m * UNIT (Higham
    2002, section 3.1).
    """
    return 2.01 * (num_lists + 1) * UNIT


@jitted
def relative_slack(lists: PostingLists, num_lists: int) -> float:
    """Do as base_slack for some lists: the compact form's are low by 2 ** (shift - 23) at most."""
    slack = base_slack(num_lists)
    if lists.impacts.size == 0:
        slack += 2.0 ** (lists.shift - 23)
    return slack


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
    for j in order:
        cell = np.int64(term_ids[j]) * lists.num_blocks + block
        if lists.row_of[term_ids[j]] < 0:
            slot = lists.offsets[cell]
            prefetch(lists.local_ids, slot)
            prefetch(lists.local_ids, slot + 32)
            prefetch(lists.impacts, slot)
            prefetch(lists.impacts, slot + 16)
            prefetch(lists.impacts, slot + 32)
            prefetch(lists.impacts, slot + 48)
    scores[:] = 0
    for j in order:
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
def count_waiting(
    lists: PostingLists,
    term_ids: IdArray,
    order: OffsetArray,
    bounds: NDArray[np.float64],
    most: float,
    first_block: int,
    end_block: int,
    k: int,
) -> int:
    """Count how many lists, the first in order, had better wait while other blocks are scored.

    order and bounds: from order_lists; most: what they may add together.
    """
    waiting = 0
    while waiting < order.size and bounds[waiting + 1] <= most:
        cell = np.int64(term_ids[order[waiting]]) * lists.num_blocks
        length = lists.offsets[cell + end_block] - lists.offsets[cell + first_block]
        if length < WAITING_LENGTH * k:
            break
        waiting += 1
    return waiting


@jitted
def find_candidates(
    lists: PostingLists,
    term_ids: IdArray,
    weights: FloatArray,
    k: int,
    alpha: float,
    allowed: BoolArray,
    allowed_ids: IdArray,
    first_block: int,
    end_block: int,
    known: float,
    hopeful: bool,
    all_scores: FloatArray,
    keys: KeyArray,
    spare: KeyArray,
) -> int:
    """Collect the keys of all documents in some blocks that may be among the k best.

    allowed: bool (N,) and allowed_ids: int32, the same documents in order, or both empty for all;
    known: what k documents elsewhere score in truth, or 0; hopeful: guess a floor from the first
    block, which may fail. all_scores: float32 scratch for a block; keys: int64, room for a block
    more than there are documents; spare: as keys. Returns the number of keys, or -1 where the
    guess failed.
    """
    order = np.empty(term_ids.size, np.int64)
    bounds = np.empty(term_ids.size + 1, np.float64)
    num_lists = order_lists(lists, term_ids, weights, order, bounds)
    order = order[:num_lists]
    slack = relative_slack(lists, num_lists)
    filtered = allowed.size > 0
    place = int(np.searchsorted(allowed_ids, first_block * lists.block_size))
    floor, guess = known * (1 - slack), 0.0
    waiting, count, complete_block = 0, 0, first_block - 1
    settled = known > 0  # from then on lists may wait
    if settled:
        most = WAITING_SHARE * floor / alpha
        waiting = count_waiting(lists, term_ids, order, bounds, most, first_block, end_block, k)
    for block in range(first_block, end_block):
        first_doc = block * lists.block_size
        own = min(lists.block_size, lists.num_docs - first_doc)
        start = place
        place += int(np.searchsorted(allowed_ids[start:], first_doc + own))
        if filtered and start == place:
            continue
        own_ids = allowed_ids[start:place]
        few = filtered and own_ids.size * LOOKUP_COST < own
        # The last block may be shorter, and need not be looked at beyond.
        scores = all_scores[: (own + 127) // 128 * 128]
        score_block(lists, term_ids, weights, order[waiting:], block, own_ids, few, scores)
        if filtered and not few:
            for i in range(own):
                scores[i] *= np.float32(allowed[first_doc + i])
        bar = floor / alpha
        if not settled:
            if not few:
                share = k * own / ((end_block - first_block) * lists.block_size)
                rank = guessed_rank(k, share) if hopeful and not filtered else k
                all_scores[scores.size :] = 0
                floor = max(floor, score_of_rank(all_scores, rank, spare) * (1 - slack))
                guess = floor if rank < k else 0.0
            bar = floor
        limit = np.float32(max((bar - bounds[waiting]) * (1 - slack), SMALLEST / 2))
        if few:
            count = collect_listed(scores, limit, first_doc, own_ids, keys, count)
        else:
            count = collect(scores, limit, first_doc, keys, count)
        if count >= k and (not settled or count > k + k // 4 + 16):
            floor = max(floor, score_at(keys, count, k) * (1 - slack))
            count = keep_reaching(keys, count, floor - bounds[waiting])
        if not settled and floor > 0:
            settled, complete_block = True, block
            most = WAITING_SHARE * floor / alpha
            waiting = count_waiting(lists, term_ids, order, bounds, most, block, end_block, k)
    for i in range(waiting - 1, -1, -1):
        if count >= k:
            floor = max(floor, score_at(keys, count, k) * (1 - slack))
            count = keep_reaching(keys, count, floor - bounds[i + 1])
        elif known > 0:  # then fewer than k may do
            count = keep_reaching(keys, count, floor - bounds[i + 1])
        look_up(lists, term_ids[order[i]], weights[order[i]], complete_block, keys, count)
    if count < k:
        return -1 if guess > 0 else count
    kth = score_at(keys, count, k)
    return -1 if kth < guess else keep_reaching(keys, count, kth * (1 - slack))


@jitted
def look_up(
    lists: PostingLists,
    term_id: int,
    weight: float,
    complete_block: int,
    keys: KeyArray,
    count: int,
) -> None:
    """Add one term to the scores in keys, but not to those of blocks up to complete_block."""
    row = lists.row_of[term_id]
    for i in range(count):
        doc_id = ID_MASK - (keys[i] & ID_MASK)
        block = doc_id // lists.block_size
        if row >= 0:
            prefetch(lists.rows[row], doc_id)
        elif block > complete_block:
            cell = np.int64(term_id) * lists.num_blocks + block
            start, end = lists.offsets[cell], lists.offsets[cell + 1]
            guess = start + (doc_id - block * lists.block_size) * (end - start) // lists.block_size
            prefetch(lists.local_ids, guess)
            prefetch(lists.impacts, guess)
    for i in range(count):
        doc_id = ID_MASK - (keys[i] & ID_MASK)
        if doc_id // lists.block_size > complete_block:
            share = np.float32(weight) * np.float32(impact_of(lists, term_id, doc_id))
            keys[i] = make_key(np.float32(score_of(keys[i])) + share, doc_id)

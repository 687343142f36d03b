"""The documents that may be among the k best: scoring block by block, and what can be left out.

Three facts make it fast. The scores of a block fit the cache. Once k documents reach some score,
the floor, others must reach it too, so the lists that could lift a document least may wait, to be
looked up for the few documents that still can win (Turtle and Flood 1995, MaxScore). And float32
sums are good enough to find those few; where they are too close to tell the order, float64 does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import BoolArray, FloatArray, IdArray, OffsetArray, PostingLists
from minisplade.kernels.compiler import kernel
from minisplade.kernels.memory import array_at, prefetch
from minisplade.kernels.parts import (
    BLOCK_SIZE,
    END_BLOCK,
    FIRST_BLOCK,
    IS_COMPACT,
    IS_FILTERED,
    NUM_DOCS,
    SHIFT,
    START,
    PartTable,
    filter_at,
    lists_at,
)
from minisplade.kernels.scoring import (
    LOOKUP_COST,
    STAGE,
    add_cell,
    expect_cell,
    impact_of,
)
from minisplade.kernels.selection import (
    DIGITS,
    LEAST_LANES,
    KeyArray,
    collect,
    collect_listed,
    keep_reaching,
    score_at,
    score_of_rank,
)
from minisplade.kernels.tiles import round_up
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

CELLS_AHEAD = 6
"""The first postings of a cell are asked for so many cells before they are added."""


class SearchScratch(NamedTuple):
    """Some queries, their results, and working memory: kernels are given it and take none.

    Query i owns slots offsets[i]:offsets[i + 1] of term_ids and weights, and k slots of doc_ids and
    scores from i * k on, of which counts[i] are filled.
    """

    offsets: OffsetArray  # int64, for all queries and one more
    term_ids: IdArray  # int32, for the terms of all queries
    weights: FloatArray  # float32, as many
    counts: OffsetArray  # int64, for all queries
    doc_ids: IdArray  # int32, for all results
    scores: FloatArray  # float32, as many
    lengths: OffsetArray  # int64, for all terms of a query
    order: OffsetArray  # int64, as many
    merit: NDArray[np.float64]  # float64, as many
    bounds: NDArray[np.float64]  # float64, and one more
    block_scores: FloatArray  # float32, for the documents of a block, and to a multiple of 128
    sums: NDArray[np.float64]  # float64, as many
    stage: IdArray  # int32 (STAGE,)
    keys: KeyArray  # int64, for all documents and a block more
    spare: KeyArray  # int64, as many
    exact: NDArray[np.float64]  # float64, as many
    merged: NDArray[np.float64]  # float64, as many
    digits: OffsetArray  # int64 (DIGITS,)

    @classmethod
    def of_size(
        cls, num_queries: int, num_terms: int, num_results: int, block_size: int, num_docs: int
    ) -> SearchScratch:
        """Take memory for so much; what is never written is never taken, so room costs nothing."""
        block_size = round_up(block_size, LEAST_LANES)
        room = num_docs + block_size
        return cls(
            offsets=np.empty(num_queries + 1, np.int64),
            term_ids=np.empty(num_terms, np.int32),
            weights=np.empty(num_terms, np.float32),
            counts=np.empty(num_queries, np.int64),
            doc_ids=np.empty(num_results, np.int32),
            scores=np.empty(num_results, np.float32),
            lengths=np.empty(num_terms, np.int64),
            order=np.empty(num_terms, np.int64),
            merit=np.empty(num_terms, np.float64),
            bounds=np.empty(num_terms + 1, np.float64),
            block_scores=np.empty(block_size, np.float32),
            sums=np.empty(block_size, np.float64),
            stage=np.empty(STAGE, np.int32),
            keys=np.empty(room, np.int64),
            spare=np.empty(room, np.int64),
            exact=np.empty(room, np.float64),
            merged=np.empty(room, np.float64),
            digits=np.empty(DIGITS, np.int64),
        )


@kernel
def check_query(parts: PartTable, peaks: FloatArray, term_ids: IdArray, weights: FloatArray) -> int:
    """Return 0 for a query that kernels can take, BAD_QUERY or OUT_OF_RANGE.

    peaks: float32 (V,), the largest impact of each term.
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
    for impact in parts.smallest:  # 0 for parts without postings
        if 0 < impact < least:
            least = impact
    if highest > LARGEST or min(lightest, 1.0) * least < SMALLEST:
        return OUT_OF_RANGE
    return 0


@kernel
def base_slack(num_lists: int) -> float:
    """Return how far apart two float32 scores must be, relatively, to be in their true order.

    A sum of m positive products, each rounded, is off by at most a factor 1 + m * UNIT (Higham
    2002, section 3.1).
    """
    return 2.01 * (num_lists + 1) * UNIT


@kernel
def relative_slack(parts: PartTable, num_lists: int) -> float:
    """Do as base_slack for some parts: the compact form's are low by 2 ** (shift - 23) at most."""
    return base_slack(num_lists) + compact_slack(parts)


@kernel
def compact_slack(parts: PartTable) -> float:
    """Return by how much, relatively, float32 scores of compact parts may be low."""
    slack = 0.0
    for row in parts.rows:
        if row[IS_COMPACT]:
            slack = max(slack, 2.0 ** (row[SHIFT] - 23))
    return slack


@kernel
def expect_offsets(parts: PartTable, place: int, term_ids: IdArray) -> None:
    """Bring the places of a query's cells in a part into the cache; there may be no such part."""
    if place < parts.rows.shape[0]:
        lists = lists_at(parts, place)
        for term_id in term_ids:
            prefetch(lists.offsets, np.int64(term_id) * lists.num_blocks)


@kernel
def docs_before(parts: PartTable, place: int, block: int) -> int:
    """Count the documents that are to be searched before a block of the part at a place."""
    count = 0
    for i in range(min(place + 1, parts.rows.shape[0])):
        row = parts.rows[i]
        end = row[END_BLOCK] if i < place else block
        end_doc = min(end * row[BLOCK_SIZE], row[NUM_DOCS])
        count += max(0, end_doc - row[FIRST_BLOCK] * row[BLOCK_SIZE])
    return count


@kernel
def score_block(
    lists: PostingLists,
    term_ids: IdArray,
    weights: FloatArray,
    order: OffsetArray,
    block: int,
    mask: BoolArray,
    few_ids: IdArray,
    scores: FloatArray,
    stage: IdArray,
) -> None:
    """Score the documents of a block by the lists in order.

    order: int64, places in the query; mask: bool, which documents of the block may be found, or
    empty; few_ids: int32, the only ones that matter where they are few, or empty; scores: float32,
    what these and perhaps others score, 0 for the rest; stage: as in add_cell.
    """
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
        if 0 < few_ids.size * LOOKUP_COST < length:
            for doc_id in few_ids:
                impact = np.float32(impact_of(lists, term_ids[j], doc_id))
                scores[doc_id - first_doc] += weights[j] * impact
        else:
            add_cell(lists, term_ids[j], block, weights[j], scores, stage)
    for i in range(mask.size):
        scores[i] *= np.float32(mask[i])


@kernel
def guessed_rank(k: int, share: float) -> int:
    """Guess a rank in the first block whose score all k best documents reach.

    share: how many of them are there if they are spread evenly. Related documents are often
    neighbours, so it takes twice as many and some more: of 400 queries over passages of books, one
    in a hundred had more than that in the first quarter.
    """
    return min(k, int(2 * share + 6 * np.sqrt(share)) + 1)


@kernel
def find_candidates(
    parts: PartTable,
    scratch: SearchScratch,
    term_ids: IdArray,
    weights: FloatArray,
    k: int,
    alpha: float,
    hopeful: bool,
) -> int:
    """Collect the keys of all documents that may be among the k best of all parts.

    hopeful: guess a floor from the first block, which may fail. Returns how many of scratch.keys
    there are, or what check_query does, or FAILED_GUESS.
    """
    peaks = array_at(parts.peaks_at, (parts.num_terms,), np.float32)
    status = check_query(parts, peaks, term_ids, weights)
    if status < 0:
        return status
    keys, lengths, bounds = scratch.keys, scratch.lengths[: term_ids.size], scratch.bounds
    all_lengths = array_at(parts.lengths_at, (parts.num_terms,), np.int64)
    for j in range(term_ids.size):
        lengths[j] = all_lengths[term_ids[j]]
    num_lists = order_lists(peaks, lengths, term_ids, weights, scratch.order, bounds, scratch.merit)
    if num_lists == 0:
        return 0
    order = scratch.order[:num_lists]
    slack = relative_slack(parts, num_lists)
    num_docs = docs_before(parts, parts.rows.shape[0], 0)
    for row in parts.rows:
        hopeful = hopeful and not row[IS_FILTERED]
    floor, guess = 0.0, 0.0
    waiting, count = 0, 0
    settled = False  # from then on lists may wait
    complete_place, complete_block = 0, -1
    expect_offsets(parts, 0, term_ids)
    for place in range(parts.rows.shape[0]):
        expect_offsets(parts, place + 1, term_ids)
        row = parts.rows[place]
        lists = lists_at(parts, place)
        allowed, allowed_ids = filter_at(parts, place)
        for block in range(row[FIRST_BLOCK], row[END_BLOCK]):
            first_doc = block * lists.block_size
            own = min(lists.block_size, lists.num_docs - first_doc)
            start = np.searchsorted(allowed_ids, first_doc)
            end = np.searchsorted(allowed_ids, first_doc + own)
            if allowed.size > 0 and start == end:
                continue
            few = 0 < (end - start) * LOOKUP_COST < own
            few_ids = allowed_ids[start : end if few else start]
            mask = allowed[first_doc : first_doc + (0 if few else own)]
            # The last block may be shorter, and need not be looked at beyond.
            scores = scratch.block_scores[: round_up(own, LEAST_LANES)]
            score_block(
                lists,
                term_ids,
                weights,
                order[waiting:],
                block,
                mask,
                few_ids,
                scores,
                scratch.stage,
            )
            bar = floor / alpha
            if not settled:
                if not few:
                    rank = guessed_rank(k, k * own / num_docs) if hopeful else k
                    reached = score_of_rank(scores, rank, scratch.spare)
                    floor = max(floor, reached * (1 - slack))
                    guess = floor if rank < k else 0.0
                bar = floor
            limit = np.float32(max((bar - bounds[waiting]) * (1 - slack), SMALLEST / 2))
            if few:
                count = collect_listed(scores, limit, first_doc, row[START], few_ids, keys, count)
            else:
                count = collect(scores, limit, row[START] + first_doc, keys, count)
            if count >= k and (not settled or count > k + k // 4 + 16):
                floor = max(floor, score_at(keys, count, k) * (1 - slack))
                count = keep_reaching(keys, count, floor - bounds[waiting])
            if not settled and floor > 0:
                settled, complete_place, complete_block = True, place, block
                most = WAITING_SHARE * floor / alpha
                remaining = 1 - docs_before(parts, place, block + 1) / num_docs
                waiting = count_waiting(lengths, order, bounds, most, remaining, k)
    count = add_waiting(
        parts,
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
        scratch.spare,
    )
    if count < k:
        return FAILED_GUESS if guess > 0 else count
    kth = score_at(keys, count, k)
    return FAILED_GUESS if kth < guess else keep_reaching(keys, count, kth * (1 - slack))

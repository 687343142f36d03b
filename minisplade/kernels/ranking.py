"""Queries to all segments at once: what may be among the k best, and their exact order."""

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import FloatArray, IdArray, OffsetArray, PostingLists
from minisplade.kernels.jit import jitted
from minisplade.kernels.memory import prefetch
from minisplade.kernels.parts import (
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
from minisplade.kernels.retrieval import (
    base_slack,
    check_query,
    find_candidates,
    guessed_rank,
)
from minisplade.kernels.scoring import LOOKUP_COST, exact_score, exact_scores
from minisplade.kernels.selection import (
    ID_MASK,
    KeyArray,
    keep_reaching,
    score_at,
    score_of,
    sort_descending,
    sort_exactly,
)

FAILED_GUESS = -3
"""What find_in_parts returns where it has to be called again."""


@jitted
def expect_lists(lists: PostingLists, term_ids: IdArray) -> None:
    """Bring into the cache what says where the postings of a query are."""
    for term_id in term_ids:
        prefetch(lists.peaks, term_id)
        prefetch(lists.row_of, term_id)
        prefetch(lists.offsets, np.int64(term_id) * lists.num_blocks)


@jitted
def expect_postings(lists: PostingLists, term_ids: IdArray) -> None:
    """Bring the first postings of a query into the cache, once their places are there."""
    for term_id in term_ids:
        if 0 <= term_id < lists.peaks.size and lists.row_of[term_id] < 0:
            slot = lists.offsets[np.int64(term_id) * lists.num_blocks]
            prefetch(lists.local_ids, slot)
            prefetch(lists.local_ids, slot + 32)
            prefetch(lists.impacts, slot)
            prefetch(lists.impacts, slot + 16)


@jitted
def find_in_parts(
    table: OffsetArray,
    smallest: NDArray[np.float64],
    term_ids: IdArray,
    weights: FloatArray,
    k: int,
    alpha: float,
    hopeful: bool,
    block_scores: FloatArray,
    own_keys: KeyArray,
    spare: KeyArray,
    keys: KeyArray,
) -> int:
    """Collect the keys of all documents that may be among the k best of all parts.

    table, smallest: as in lists_at; hopeful: guess from the first part what score the k best reach,
    which may fail; block_scores: float32 scratch for a block of any part; own_keys, spare: int64,
    room for a block more than any part has documents; keys: int64, room for all documents. Each
    part only looks for documents that reach what those before have found. Returns their number,
    FAILED_GUESS, or what check_query does.
    """
    num_parts, num_docs = table.shape[0], table[:, NUM_DOCS].sum()
    count, known, guess = 0, 0.0, 0.0
    hopeful = hopeful and num_parts > 1 and table[:, IS_FILTERED].sum() == 0
    for place in range(min(2, num_parts) if num_parts > 1 else 0):
        expect_lists(lists_at(table, smallest, place), term_ids)
    slack = base_slack(term_ids.size) + compact_slack(table)
    for place in range(num_parts):
        lists = lists_at(table, smallest, place)
        status = check_query(lists, term_ids, weights)
        if status < 0:
            return status
        if place + 1 < num_parts:
            expect_postings(lists_at(table, smallest, place + 1), term_ids)
        if place + 2 < num_parts:
            expect_lists(lists_at(table, smallest, place + 2), term_ids)
        allowed, allowed_ids = filter_at(table, place)
        own_k = guessed_rank(k, k * lists.num_docs / num_docs) if hopeful and place == 0 else k
        found = -1
        for attempt in range(2):
            if found < 0:
                found = find_candidates(
                    lists,
                    term_ids,
                    weights,
                    own_k,
                    alpha,
                    allowed,
                    allowed_ids,
                    table[place, FIRST_BLOCK],
                    table[place, END_BLOCK],
                    known,
                    attempt == 0,
                    block_scores[: max(lists.block_size, 128)],
                    own_keys,
                    spare,
                )
        for i in range(found):
            keys[count + i] = own_keys[i] - table[place, START]
        count += found
        if count >= k:
            kth = score_at(keys, count, k)
            if place + 1 == num_parts:
                return FAILED_GUESS if kth < guess else count
            known = max(known, kth * (1 - slack))
            count = keep_reaching(keys, count, known)
        elif own_k < k and count >= own_k:
            guess = score_at(keys, count, own_k) * (1 - slack)
            known = guess * (1 - slack)
    return FAILED_GUESS if guess > 0 else count


@jitted
def compact_slack(table: OffsetArray) -> float:
    """Return by how much, relatively, float32 scores of compact parts may be low."""
    slack = 0.0
    for place in range(table.shape[0]):
        if table[place, IS_COMPACT]:
            slack = max(slack, 2.0 ** (table[place, SHIFT] - 23))
    return slack


@jitted
def rank_candidates(
    table: OffsetArray,
    smallest: NDArray[np.float64],
    term_ids: IdArray,
    weights: FloatArray,
    k: int,
    keys: KeyArray,
    count: int,
    spare: KeyArray,
    doc_ids: IdArray,
    scores: FloatArray,
) -> int:
    """Put the k best candidates in their true order, equal ones by document; return how many.

    keys: int64, from find_in_parts; spare: as keys; doc_ids: int32 and scores: float32, (k,).
    Scores that float32 cannot tell apart are computed again in float64.
    """
    slack = base_slack(term_ids.size) + compact_slack(table)
    if count > k:
        kth = score_at(keys, count, k)
        count = keep_reaching(keys, count, kth * (1 - slack))
    found = min(k, count)
    if compact_slack(table) > 0:
        # The compact form's sums leave out the last bits of impacts, so none of them is final.
        rank_close(table, smallest, term_ids, weights, keys[:count], doc_ids, scores)
        return found
    sort_descending(keys, count, spare)
    start = 0
    while start < found:
        end = start + 1
        while end < count and score_of(keys[end]) >= score_of(keys[end - 1]) * (1 - slack):
            end += 1
        if end - start == 1:
            doc_ids[start] = ID_MASK - (keys[start] & ID_MASK)
            scores[start] = score_of(keys[start])
        else:
            close = keys[start:end]
            rank_close(table, smallest, term_ids, weights, close, doc_ids[start:], scores[start:])
        start = end
    return found


@jitted
def rank_close(
    table: OffsetArray,
    smallest: NDArray[np.float64],
    term_ids: IdArray,
    weights: FloatArray,
    keys: KeyArray,
    doc_ids: IdArray,
    scores: FloatArray,
) -> None:
    """Order documents with nearly equal scores by their float64 scores, then by document.

    doc_ids: int32 and scores: float32 are filled, as far as they reach.
    """
    close_ids = ID_MASK - (keys & ID_MASK)
    exact = np.empty(close_ids.size, np.float64)
    score_exactly(table, smallest, term_ids, weights, close_ids, exact)
    sort_exactly(exact, close_ids)
    for i in range(min(close_ids.size, doc_ids.size)):
        doc_ids[i] = close_ids[i]
        scores[i] = exact[i]


@jitted
def score_exactly(
    table: OffsetArray,
    smallest: NDArray[np.float64],
    term_ids: IdArray,
    weights: FloatArray,
    doc_ids: OffsetArray,
    scores: NDArray[np.float64],
) -> None:
    """Compute the float64 scores of some documents, each in its part.

    doc_ids: int64, numbered through all parts; scores: float64, as many.
    """
    own_ids = np.empty(doc_ids.size, np.int64)
    own_places = np.empty(doc_ids.size, np.int64)
    own_scores = np.empty(doc_ids.size, np.float64)
    for place in range(table.shape[0]):
        lists = lists_at(table, smallest, place)
        first, count = table[place, START], 0
        for i in range(doc_ids.size):
            if first <= doc_ids[i] < first + lists.num_docs:
                own_ids[count], own_places[count] = doc_ids[i] - first, i
                count += 1
        if count == 0:
            continue
        length = 0
        for j in range(term_ids.size):
            cell = np.int64(term_ids[j]) * lists.num_blocks
            length += lists.offsets[cell + lists.num_blocks] - lists.offsets[cell]
        if count * term_ids.size * LOOKUP_COST > length + lists.num_docs:
            own = own_scores[:count]
            exact_scores(lists, term_ids, weights, own_ids[:count], own)
        else:
            for i in range(count):
                own_scores[i] = exact_score(lists, term_ids, weights, own_ids[i])
        for i in range(count):
            scores[own_places[i]] = own_scores[i]


@jitted
def search_queries(
    table: OffsetArray,
    smallest: NDArray[np.float64],
    offsets: OffsetArray,
    term_ids: IdArray,
    weights: FloatArray,
    k: int,
    alpha: float,
    block_scores: FloatArray,
    own_keys: KeyArray,
    spare: KeyArray,
    keys: KeyArray,
    doc_ids: IdArray,
    scores: FloatArray,
    found: OffsetArray,
) -> None:
    """Find the k best documents of all parts for each of several queries.

    offsets: int64 (Q + 1,); query i owns slots offsets[i]:offsets[i + 1] of term_ids and weights;
    doc_ids: int32 and scores: float32, (Q, k); found: int64 (Q,), how many there are, or BAD_QUERY
    for a query with terms or weights that are not allowed, or OUT_OF_RANGE where float32 could
    overflow or underflow; spare: int64, room for all documents and a block. Other arrays as in
    find_in_parts. This is the only function that is called for every query, because Numba compiles
    a function once for each that calls it.
    """
    for i in range(offsets.size - 1):
        own_ids = term_ids[offsets[i] : offsets[i + 1]]
        own_weights = weights[offsets[i] : offsets[i + 1]]
        count = FAILED_GUESS
        for attempt in range(2):
            if count == FAILED_GUESS:
                count = find_in_parts(
                    table,
                    smallest,
                    own_ids,
                    own_weights,
                    k,
                    alpha,
                    attempt == 0,
                    block_scores,
                    own_keys,
                    spare,
                    keys,
                )
        if count > 0:
            count = rank_candidates(
                table,
                smallest,
                own_ids,
                own_weights,
                k,
                keys,
                count,
                spare,
                doc_ids[i],
                scores[i],
            )
        found[i] = count

"""Queries to all segments at once: what may be among the k best, and their exact order."""

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import FloatArray, IdArray, OffsetArray
from minisplade.kernels.jit import jitted
from minisplade.kernels.parts import START, lists_at
from minisplade.kernels.retrieval import (
    FAILED_GUESS,
    compact_slack,
    find_candidates,
    relative_slack,
)
from minisplade.kernels.scoring import LOOKUP_COST, exact_score, exact_scores, length_of
from minisplade.kernels.selection import (
    ID_MASK,
    KeyArray,
    keep_reaching,
    score_at,
    score_of,
    sort_descending,
    sort_exactly,
)


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

    keys: int64, from find_candidates; spare: as keys; doc_ids: int32 and scores: float32, (k,).
    Scores that float32 cannot tell apart are computed again in float64.
    """
    slack = relative_slack(table, term_ids.size)
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
            length += length_of(lists, term_ids[j])
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
    peaks: FloatArray,
    offsets: OffsetArray,
    term_ids: IdArray,
    weights: FloatArray,
    k: int,
    alpha: float,
    block_scores: FloatArray,
    keys: KeyArray,
    spare: KeyArray,
    doc_ids: IdArray,
    scores: FloatArray,
    found: OffsetArray,
) -> None:
    """Find the k best documents of all parts for each of several queries.

    offsets: int64 (Q + 1,); query i owns slots offsets[i]:offsets[i + 1] of term_ids and weights;
    doc_ids: int32 and scores: float32, (Q, k); found: int64 (Q,), how many there are, or BAD_QUERY
    for a query with terms or weights that are not allowed, or OUT_OF_RANGE where float32 could
    overflow or underflow. Other arrays as in find_candidates. This is the only function that is
    called for every query, because Numba compiles a function once for each that calls it.
    """
    for i in range(offsets.size - 1):
        own_ids = term_ids[offsets[i] : offsets[i + 1]]
        own_weights = weights[offsets[i] : offsets[i + 1]]
        count = FAILED_GUESS
        for attempt in range(2):
            if count == FAILED_GUESS:
                count = find_candidates(
                    table,
                    smallest,
                    peaks,
                    own_ids,
                    own_weights,
                    k,
                    alpha,
                    attempt == 0,
                    block_scores,
                    keys,
                    spare,
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

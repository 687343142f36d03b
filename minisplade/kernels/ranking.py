"""Queries to all segments at once: what may be among the k best, and their exact order."""

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import FloatArray, IdArray, OffsetArray
from minisplade.kernels.compiler import kernel
from minisplade.kernels.parts import NUM_DOCS, START, PartTable, lists_at
from minisplade.kernels.retrieval import (
    FAILED_GUESS,
    SearchScratch,
    compact_slack,
    find_candidates,
    relative_slack,
)
from minisplade.kernels.scoring import LOOKUP_COST, exact_score, exact_scores, length_of
from minisplade.kernels.selection import (
    KeyArray,
    document_of,
    keep_reaching,
    score_at,
    score_of,
    sort_descending,
    sort_exactly,
)


@kernel
def rank_candidates(
    parts: PartTable,
    scratch: SearchScratch,
    term_ids: IdArray,
    weights: FloatArray,
    k: int,
    count: int,
    doc_ids: IdArray,
    scores: FloatArray,
) -> int:
    """Put the k best candidates in their true order, equal ones by document; return how many.

    count: of scratch.keys, from find_candidates; doc_ids: int32 and scores: float32, (k,). Scores
    that float32 cannot tell apart are computed again in float64.
    """
    keys = scratch.keys
    slack = relative_slack(parts, term_ids.size)
    if count > k:
        kth = score_at(keys, count, k)
        count = keep_reaching(keys, count, kth * (1 - slack))
    found = min(k, count)
    if compact_slack(parts) > 0:
        # The compact form's sums leave out the last bits of impacts, so none of them is final.
        rank_close(parts, scratch, term_ids, weights, keys[:count], doc_ids, scores)
        return found
    sort_descending(keys, count, scratch.spare, scratch.digits)
    start = 0
    while start < found:
        end = start + 1
        while end < count and score_of(keys[end]) >= score_of(keys[end - 1]) * (1 - slack):
            end += 1
        if end - start == 1:
            doc_ids[start] = document_of(keys[start])
            scores[start] = score_of(keys[start])
        else:
            close = keys[start:end]
            rank_close(parts, scratch, term_ids, weights, close, doc_ids[start:], scores[start:])
        start = end
    return found


@kernel
def rank_close(
    parts: PartTable,
    scratch: SearchScratch,
    term_ids: IdArray,
    weights: FloatArray,
    keys: KeyArray,
    doc_ids: IdArray,
    scores: FloatArray,
) -> None:
    """Order documents with nearly equal scores by their float64 scores, then by document.

    keys: int64, which become document ids; doc_ids: int32 and scores: float32 are filled, as far as
    they reach.
    """
    for i in range(keys.size):
        keys[i] = document_of(keys[i])
    exact = scratch.exact[: keys.size]
    score_exactly(parts, term_ids, weights, keys, scratch.sums, exact)
    sort_exactly(exact, keys, scratch.merged, scratch.spare)
    for i in range(min(keys.size, doc_ids.size)):
        doc_ids[i] = keys[i]
        scores[i] = exact[i]


@kernel
def score_exactly(
    parts: PartTable,
    term_ids: IdArray,
    weights: FloatArray,
    doc_ids: OffsetArray,
    sums: NDArray[np.float64],
    scores: NDArray[np.float64],
) -> None:
    """Compute the float64 scores of some documents, each in its part.

    doc_ids: int64, numbered through all parts; sums: float64 scratch for a block; scores: float64,
    as many as documents.
    """
    for place in range(parts.rows.shape[0]):
        first_doc = parts.rows[place, START]
        end_doc = first_doc + parts.rows[place, NUM_DOCS]
        own = 0
        for doc_id in doc_ids:
            own += first_doc <= doc_id < end_doc
        if own == 0:
            continue
        lists = lists_at(parts, place)
        length = 0
        for term_id in term_ids:
            length += length_of(lists, term_id)
        if own * term_ids.size * LOOKUP_COST > length + lists.num_docs:
            exact_scores(lists, term_ids, weights, first_doc, doc_ids, sums, scores)
            continue
        for i in range(doc_ids.size):
            if first_doc <= doc_ids[i] < end_doc:
                scores[i] = exact_score(lists, term_ids, weights, doc_ids[i] - first_doc)


@kernel
def search_queries(
    parts: PartTable, scratch: SearchScratch, num_queries: int, k: int, alpha: float
) -> None:
    """Find the k best documents of all parts for each of the first queries in scratch.

    counts become BAD_QUERY for a query with terms or weights that are not allowed, OUT_OF_RANGE
    where float32 could overflow or underflow.
    """
    offsets = scratch.offsets
    for i in range(num_queries):
        term_ids = scratch.term_ids[offsets[i] : offsets[i + 1]]
        weights = scratch.weights[offsets[i] : offsets[i + 1]]
        count = FAILED_GUESS
        for attempt in range(2):
            if count == FAILED_GUESS:
                hopeful = attempt == 0
                count = find_candidates(parts, scratch, term_ids, weights, k, alpha, hopeful)
        if count > 0:
            doc_ids = scratch.doc_ids[i * k : (i + 1) * k]
            scores = scratch.scores[i * k : (i + 1) * k]
            count = rank_candidates(parts, scratch, term_ids, weights, k, count, doc_ids, scores)
        scratch.counts[i] = count

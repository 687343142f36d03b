"""Exact search: term-at-a-time scoring of all documents, then the k best."""

from importlib.util import find_spec

import numpy as np

from minisplade.arrays import FloatArray, IdArray
from minisplade.index.postings import Postings
from minisplade.vectors import SparseVector


def search(postings: Postings, query: SparseVector, k: int) -> tuple[IdArray, FloatArray]:
    """Return the documents with the k highest positive dot products, and those scores.

    Returns doc_ids int32 and scores float32, both (k,) or shorter where fewer documents match.
    Source: term-at-a-time evaluation, Turtle and Flood 1995, "Query Evaluation", section 2.
    """
    scores = np.zeros(postings.num_docs, dtype=np.float32)
    # Small machines may leave Numba out: the same sums then come from NumPy.
    if find_spec("numba"):
        from minisplade.kernels.scoring import add_scores

        arrays = postings.offsets, postings.doc_ids, postings.impacts
        add_scores(*arrays, query.term_ids, query.weights, scores)
    else:
        add_scores_reference(postings, query, scores)
    best = select_top_k(scores, k)
    return best, scores[best]


def add_scores_reference(postings: Postings, query: SparseVector, scores: FloatArray) -> None:
    """Add weight times impact of every matching posting into scores, float32 (N,)."""
    for term_id, weight in zip(query.term_ids, query.weights, strict=True):
        own = slice(postings.offsets[term_id], postings.offsets[term_id + 1])
        # A term lists each document once, so no addition is lost.
        scores[postings.doc_ids[own]] += weight * postings.impacts[own]


def select_top_k(scores: FloatArray, k: int) -> IdArray:
    """Rank positive scores, highest first; equal scores by lower doc id.

    scores: float32 (N,); returns int32 (k,) or fewer.
    """
    doc_ids = np.flatnonzero(scores > 0)
    if doc_ids.size > k:
        kth_best = np.partition(scores[doc_ids], -k)[-k]
        doc_ids = doc_ids[scores[doc_ids] >= kth_best]
    return doc_ids[np.lexsort((doc_ids, -scores[doc_ids]))][:k].astype(np.int32)

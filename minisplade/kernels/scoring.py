"""Scoring documents from postings, and keeping the best."""

from minisplade.arrays import FloatArray, IdArray, OffsetArray
from minisplade.kernels.compiler import kernel


@kernel
def add_scores(
    offsets: OffsetArray,
    doc_ids: IdArray,
    impacts: FloatArray,
    term_ids: IdArray,
    weights: FloatArray,
    scores: FloatArray,
) -> None:
    """Add weight times impact of every matching posting into scores, one term after the other.

    offsets: int64 (V + 1,); doc_ids: int32 (P,); impacts: float32 (P,); term_ids: int32 and
    weights: float32, those of one query; scores: float32 (N,), changed in place.
    """
    for j in range(term_ids.size):
        weight = weights[j]
        for i in range(offsets[term_ids[j]], offsets[term_ids[j] + 1]):
            scores[doc_ids[i]] += weight * impacts[i]

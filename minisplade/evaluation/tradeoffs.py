"""What quality costs: shorter vectors, coarser impacts, and how many terms vectors have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisplade.arrays import OffsetArray
from minisplade.evaluation.collection import Collection
from minisplade.evaluation.metrics import MEASURES, measure
from minisplade.index import Index
from minisplade.vectors import SparseVectors

ACTIVE_DIMS = (8, 16, 32, 64, 128, 256)

IMPACT_BITS = (1, 2, 3, 4, 6, 8)


@dataclass(frozen=True, slots=True)
class Point:
    """One setting: its value, the quality with it, and the share of the postings that is left."""

    setting: int
    quality: float  # nDCG@10
    postings: float


@dataclass(frozen=True, slots=True)
class Tradeoffs:
    """Curves to choose a setting from, for one model on one collection."""

    quality: float  # nDCG@10 with all terms, in float32
    active_dims: list[Point]
    impact_bits: list[Point]
    query_sizes: OffsetArray  # int64 (Q,), active terms
    document_sizes: OffsetArray  # int64 (N,)


def find_tradeoffs(
    collection: Collection, queries: SparseVectors, documents: SparseVectors
) -> Tradeoffs:
    """Measure nDCG@10 with the heaviest terms of documents only, and with impacts of few bits."""
    total = max(1, documents.weights.size)

    def point(setting: int, changed: SparseVectors) -> Point:
        return Point(setting, _quality(collection, queries, changed), changed.weights.size / total)

    longest = int(np.diff(documents.offsets).max(initial=0))
    return Tradeoffs(
        quality=_quality(collection, queries, documents),
        active_dims=[point(n, documents.prune(n)) for n in ACTIVE_DIMS if n < longest],
        impact_bits=[point(bits, quantize(documents, bits)) for bits in IMPACT_BITS],
        query_sizes=np.diff(queries.offsets),
        document_sizes=np.diff(documents.offsets),
    )


def quantize(vectors: SparseVectors, bits: int) -> SparseVectors:
    """Round weights to whole steps, 2^bits - 1 of them up to the largest; what rounds to 0 goes.

    Source: Anh, de Kretser and Moffat 2001, "Vector-Space Ranking with Effective Early
    Termination", uniform quantisation.
    """
    steps = (1 << bits) - 1
    step = vectors.weights.max(initial=0) / steps
    rounded = np.rint(vectors.weights / step) if step else vectors.weights
    kept = rounded > 0
    offsets = np.concatenate([[0], np.cumsum(kept)])[vectors.offsets].astype(np.int64)
    weights = (rounded[kept] * step).astype(np.float32)
    return SparseVectors(offsets, vectors.term_ids[kept], weights, vectors.num_terms)


def _quality(collection: Collection, queries: SparseVectors, documents: SparseVectors) -> float:
    """Return the mean nDCG@10 of a search."""
    index = Index.from_vectors(documents, list(collection.documents))
    found = index.search(queries, k=10)
    run = {
        query: dict(zip(hits.keys, hits.scores.tolist()))
        for query, hits in zip(collection.queries, found, strict=True)
    }
    values = measure(collection.qrels, run, MEASURES[:1])[MEASURES[0]]
    return float(np.mean(list(values.values())))

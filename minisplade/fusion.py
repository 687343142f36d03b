"""Fusion: several rankings of the same documents made one, and the best of them ranked again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from minisplade.errors import InputError
from minisplade.index import Hit

RRF_K = 60
"""How much less the first ranks stand out; the value of the paper and of most systems."""

FUSIONS = ("linear", "rrf")


class Reranker(Protocol):
    """What can judge a query and a document together, such as a cross-encoder."""

    def predict(self, inputs: Any) -> Any:
        """Return one score for each (query, document) pair of texts."""
        ...


def fuse(
    rankings: Sequence[Sequence[Hit]],
    k: int = 10,
    *,
    fusion: str = "rrf",
    weights: Sequence[float] | None = None,
    rrf_k: float = RRF_K,
) -> list[Hit]:
    """Make one ranking of several for the same query, told apart by their keys.

    fusion: "rrf" adds weight / (rrf_k + rank) over the rankings that have a document, ranks from 1
    (Cormack, Clarke and Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet and
    individual Rank Learning Methods"). "linear" adds weight * score / best score of the ranking:
    a convex combination after normalisation by the theoretical minimum, 0, and the maximum (Bruch,
    Gai and Ingber 2023, "An Analysis of Fusion Functions for Hybrid Retrieval"). It
    takes a document that a ranking leaves out for one of score 0; HybridSearch knows better.
    weights: one for each ranking; None is 1 each. Equal ones come in document order. Raises
    InputError.
    """
    weights = [1.0] * len(rankings) if weights is None else list(weights)
    check_fusion(fusion, weights, len(rankings), rrf_k)
    scores: dict[str, float] = {}
    first: dict[str, Hit] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        best = ranking[0].score if ranking else 1.0
        for rank, hit in enumerate(ranking, start=1):
            share = hit.score / best if fusion == "linear" else 1 / (rrf_k + rank)
            scores[hit.key] = scores.get(hit.key, 0.0) + weight * share
            first.setdefault(hit.key, hit)
    hits = [replace(first[key], score=score) for key, score in scores.items() if score > 0]
    return sorted(hits, key=lambda hit: (-hit.score, hit.doc_id))[:k]


def rerank(query: str, hits: Sequence[Hit], reranker: Reranker, k: int | None = None) -> list[Hit]:
    """Rank hits again by what a reranker says of query and text; k of them, or all.

    Equal scores keep the order of hits. Raises InputError where hits come without texts, or the
    reranker gives another number of scores.
    """
    texts = [hit.text for hit in hits]
    if None in texts:
        raise InputError("re-ranking needs the texts of hits; index with keep_texts=True")
    if not hits:
        return []
    scores = [float(score) for score in reranker.predict([(query, text) for text in texts])]
    if len(scores) != len(hits):
        raise InputError(f"the reranker gave {len(scores)} scores for {len(hits)} pairs")
    judged = [replace(hit, score=score) for hit, score in zip(hits, scores)]
    return sorted(judged, key=lambda hit: -hit.score)[:k]


def check_fusion(fusion: str, weights: Sequence[float], count: int, rrf_k: float = RRF_K) -> None:
    """Raise InputError for what cannot be fused."""
    if fusion not in FUSIONS:
        raise InputError(f"fusion is {fusion!r}; known: {', '.join(FUSIONS)}")
    if len(weights) != count:
        raise InputError(f"{len(weights)} weights for {count} rankings")
    if not all(0 <= weight < float("inf") for weight in weights):
        raise InputError(f"weights are {list(weights)}; expected finite numbers, 0 or more")
    if not 0 < rrf_k < float("inf"):
        raise InputError(f"rrf_k is {rrf_k}; expected a number above 0")

"""Metrics of rankings, by sentence-transformers' definitions and by ir-measures; of sparsity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minisplade.arrays import DoubleArray
from minisplade.errors import InputError
from minisplade.evaluation.trec import Qrels, Run
from minisplade.vectors import SparseVectors

MEASURES = ("nDCG@10", "RR@10", "AP@100", "R@100")
"""What the table shows, in the names of ir-measures: the last is recall."""


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """How deep sentence-transformers' metrics look; the values are its defaults."""

    accuracy_at_k: Sequence[int] = (1, 3, 5, 10)
    precision_recall_at_k: Sequence[int] = (1, 3, 5, 10)
    ndcg_at_k: Sequence[int] = (10,)
    mrr_at_k: Sequence[int] = (10,)
    map_at_k: Sequence[int] = field(default=(100,))

    @property
    def deepest(self) -> int:
        """The number of documents that a ranking should have."""
        cutoffs = [self.accuracy_at_k, self.precision_recall_at_k, self.ndcg_at_k]
        return max(k for own in (*cutoffs, self.mrr_at_k, self.map_at_k) for k in own)


def ranking_metrics(
    rankings: Mapping[str, Sequence[str]],
    relevant: Mapping[str, set[str]],
    cutoffs: Cutoffs | None = None,
) -> dict[str, float]:
    """Average the metrics of sentence-transformers' InformationRetrievalEvaluator over queries.

    rankings: keys of documents by query, best first; relevant: those that should be there. The
    queries are those of rankings. Every gain is 1, and average precision is divided by the smaller
    of k and the number of relevant documents, unlike trec_eval's.
    """
    cutoffs = cutoffs or Cutoffs()
    per_query: dict[str, list[float]] = {}
    for query, ranking in rankings.items():
        own = relevant[query]
        found = np.array([key in own for key in ranking[: cutoffs.deepest]], dtype=np.float64)
        for name, value in _metrics(found, len(own), cutoffs).items():
            per_query.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in per_query.items()}


def _metrics(found: DoubleArray, count: int, cutoffs: Cutoffs) -> dict[str, float]:
    """Return the metrics of one query.

    found: float64, 1 at the ranks of relevant documents and 0 at others; count: of the relevant.
    """
    ranks = np.arange(1, found.size + 1)
    metrics: dict[str, float] = {}
    for k in cutoffs.accuracy_at_k:
        metrics[f"accuracy@{k}"] = float(found[:k].any())
    for k in cutoffs.precision_recall_at_k:
        metrics[f"precision@{k}"] = found[:k].sum() / k
    for k in cutoffs.precision_recall_at_k:
        metrics[f"recall@{k}"] = found[:k].sum() / count
    for k in cutoffs.ndcg_at_k:
        ideal = np.ones(min(k, count))
        metrics[f"ndcg@{k}"] = _dcg(found[:k]) / _dcg(ideal)
    for k in cutoffs.mrr_at_k:
        first = np.flatnonzero(found[:k])[:1]
        metrics[f"mrr@{k}"] = float(np.sum(1 / (first + 1)))
    for k in cutoffs.map_at_k:
        precisions = np.cumsum(found[:k]) / ranks[:k]
        metrics[f"map@{k}"] = float(np.sum(precisions * found[:k])) / min(k, count)
    return metrics


def _dcg(gains: DoubleArray) -> float:
    """Return the discounted cumulative gain, sum of gain / log2(rank + 1)."""
    return float(np.sum(gains / np.log2(np.arange(2, gains.size + 2))))


def active_dims(vectors: SparseVectors) -> float:
    """Return the mean number of active terms, rounded to float32 as sentence-transformers does."""
    return float(np.float32(vectors.weights.size) / np.float32(max(1, len(vectors))))


def sparsity_metrics(
    queries: SparseVectors, corpus: SparseVectors, counts: tuple[DoubleArray, DoubleArray]
) -> dict[str, float]:
    """Return the metrics of sparsity of sentence-transformers' SparseInformationRetrievalEvaluator.

    counts: from term_counts, of queries and corpus. avg_flops is the mean number of terms that a
    query and a document share (Paria et al. 2020, "Minimizing FLOPs to Learn Efficient Sparse
    Representations"); there it is summed in float32, here in float64.
    """
    of_queries, of_corpus = active_dims(queries), active_dims(corpus)
    return {
        "query_active_dims": of_queries,
        "query_sparsity_ratio": 1 - of_queries / queries.num_terms,
        "corpus_active_dims": of_corpus,
        "corpus_sparsity_ratio": 1 - of_corpus / corpus.num_terms,
        "avg_flops": mean_flops(counts, len(queries), len(corpus)),
    }


def term_counts(vectors: SparseVectors) -> DoubleArray:
    """Return how many vectors have each term, float64 (V,)."""
    return np.bincount(vectors.term_ids, minlength=vectors.num_terms).astype(np.float64)


def mean_flops(
    counts: tuple[DoubleArray, DoubleArray], num_queries: int, num_documents: int
) -> float:
    """Return the mean number of terms that a query and a document share."""
    return float(counts[0] @ counts[1]) / max(1, num_queries * num_documents)


def import_ir_measures() -> Any:
    """Return the package that measures runs; raises InputError where it is missing."""
    try:
        import ir_measures
    except ImportError as error:
        raise InputError(
            "metrics of runs need ir-measures: pip install 'minisplade[eval]'"
        ) from error
    return ir_measures


def measure(
    qrels: Qrels, run: Run, measures: Sequence[str] = MEASURES
) -> dict[str, dict[str, float]]:
    """Compute measures of ir-measures for each query; returns {measure: {query: value}}.

    measures: names such as "nDCG@10"; a query without hits has value 0. Equal scores are ranked as
    trec_eval does, by the names of documents, last first. Needs the package ir-measures; raises
    InputError.
    """
    ir_measures = import_ir_measures()
    values: dict[str, dict[str, float]] = {name: dict.fromkeys(qrels, 0.0) for name in measures}
    try:
        parsed: dict[Any, str] = {ir_measures.parse_measure(name): name for name in measures}
    except (NameError, ValueError, SyntaxError) as error:
        raise InputError(f"a measure that ir-measures does not know: {error}") from error
    known = {query: own for query, own in run.items() if query in qrels}
    for metric in ir_measures.iter_calc(list(parsed), qrels, known):
        values[parsed[metric.measure]][metric.query_id] = float(metric.value)
    return values

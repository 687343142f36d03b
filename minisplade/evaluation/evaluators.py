"""The evaluators of sentence-transformers, for minisplade's models: the same keys and values."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from minisplade.arrays import DoubleArray
from minisplade.encoder import SparseEncoder
from minisplade.errors import InputError
from minisplade.evaluation.collection import load_collection
from minisplade.evaluation.metrics import (
    Cutoffs,
    mean_flops,
    ranking_metrics,
    sparsity_metrics,
    term_counts,
)
from minisplade.index import Index
from minisplade.vectors import SparseVectors


class SparseInformationRetrievalEvaluator:
    """Measures how well a model finds the relevant documents of a corpus.

    Keys and values are those of sentence-transformers' class of this name: documents with equal
    scores are ranked by their keys, and such as share no term with the query come last.
    """

    def __init__(
        self,
        queries: Mapping[str, str],
        corpus: Mapping[str, str],
        relevant_docs: Mapping[str, set[str]],
        *,
        mrr_at_k: Sequence[int] = (10,),
        ndcg_at_k: Sequence[int] = (10,),
        accuracy_at_k: Sequence[int] = (1, 3, 5, 10),
        precision_recall_at_k: Sequence[int] = (1, 3, 5, 10),
        map_at_k: Sequence[int] = (100,),
        name: str = "",
        max_active_dims: int | None = None,
    ) -> None:
        """Take texts by key, and the keys of the relevant documents of each query.

        Queries without relevant documents are left out. name: put before every key of the result.
        max_active_dims: as in SparseEncoder.encode. Raises InputError where nothing is left.
        """
        self.queries = {key: text for key, text in queries.items() if relevant_docs.get(key)}
        if not self.queries or not corpus:
            raise InputError("no query with relevant documents, or no documents, to evaluate")
        self.corpus = {key: corpus[key] for key in sorted(corpus)}
        self.relevant_docs = {key: set(relevant_docs[key]) for key in self.queries}
        self.cutoffs = Cutoffs(accuracy_at_k, precision_recall_at_k, ndcg_at_k, mrr_at_k, map_at_k)
        self.name = name
        self.max_active_dims = max_active_dims
        self.primary_metric: str | None = None
        self.term_counts: tuple[DoubleArray, DoubleArray] | None = None

    def __call__(self, model: SparseEncoder) -> dict[str, float]:
        """Encode and search; returns metrics by name, such as "dot_ndcg@10" and "avg_flops"."""
        keep = self.max_active_dims
        queries = model.encode_query(self.queries.values(), max_active_dims=keep)
        corpus = model.encode_document(self.corpus.values(), max_active_dims=keep)
        return self.metrics(queries, corpus, model.similarity_fn_name)

    def metrics(
        self, queries: SparseVectors, corpus: SparseVectors, function: str = "dot"
    ) -> dict[str, float]:
        """Measure vectors that are there already, of self.queries and self.corpus in their order.

        function: "dot" or "cosine". Raises InputError.
        """
        rankings = self.rank(queries, corpus, function)
        found = ranking_metrics(rankings, self.relevant_docs, self.cutoffs)
        self.term_counts = term_counts(queries), term_counts(corpus)
        values = {f"{function}_{key}": value for key, value in found.items()}
        values |= sparsity_metrics(queries, corpus, self.term_counts)
        prefix = f"{self.name}_" if self.name else ""
        self.primary_metric = f"{prefix}{function}_ndcg@{max(self.cutoffs.ndcg_at_k)}"
        return {prefix + key: value for key, value in values.items()}

    def rank(
        self, queries: SparseVectors, corpus: SparseVectors, function: str = "dot"
    ) -> dict[str, list[str]]:
        """Rank the documents for each query, as deep as the metrics look."""
        if function not in ("dot", "cosine"):
            raise InputError(f"similarity is {function!r}; an index can rank by dot and cosine")
        keys = list(self.corpus)
        depth = min(self.cutoffs.deepest, len(keys))
        index = Index.from_vectors(_normalized(corpus) if function == "cosine" else corpus, keys)
        rankings = {}
        for query, hits in zip(self.queries, index.search(queries, depth), strict=True):
            # The others have score 0, and keys are in order.
            found = set(hits.keys)
            others = (key for key in keys if key not in found)
            rankings[query] = [*hits.keys, *(next(others) for _ in range(depth - len(found)))]
        return rankings


class SparseNanoBEIREvaluator:
    """Evaluates several small collections, such as those of NanoBEIR, and averages.

    Keys and values are those of sentence-transformers' class of this name, for folders in the
    layout of BEIR, such as NanoSciFact, each named after itself.
    """

    def __init__(
        self,
        folders: Sequence[str | os.PathLike[str]],
        *,
        split: str = "test",
        max_active_dims: int | None = None,
    ) -> None:
        """Read the collections; other arguments as in SparseInformationRetrievalEvaluator."""
        if not folders:
            raise InputError("no folders; expected one or more with a collection each")
        suffix = "" if max_active_dims is None else f"_{max_active_dims}"
        self.name = f"NanoBEIR_mean{suffix}"
        self.evaluators = []
        for folder in folders:
            collection = load_collection(folder, split)
            self.evaluators.append(
                SparseInformationRetrievalEvaluator(
                    collection.queries,
                    collection.documents,
                    collection.relevant,
                    name=collection.name + suffix,
                    max_active_dims=max_active_dims,
                )
            )
        self.primary_metric: str | None = None

    def __call__(self, model: SparseEncoder) -> dict[str, float]:
        """Evaluate each, and their means: "NanoBEIR_mean_dot_ndcg@10", ...

        Sparsity is averaged over all queries and all documents, not over collections.
        """
        results: dict[str, float] = {}
        values: dict[str, list[float]] = {}
        for evaluator in self.evaluators:
            own = evaluator(model)
            results |= own
            for key, value in own.items():
                values.setdefault(key.removeprefix(f"{evaluator.name}_"), []).append(value)
        num_queries = [len(evaluator.queries) for evaluator in self.evaluators]
        num_documents = [len(evaluator.corpus) for evaluator in self.evaluators]
        means = {key: float(np.mean(own)) for key, own in values.items()}
        for key in means:
            if key.startswith("query_"):
                means[key] = float(np.average(values[key], weights=num_queries))
            elif key.startswith("corpus_"):
                means[key] = float(np.average(values[key], weights=num_documents))
        counts = [evaluator.term_counts for evaluator in self.evaluators]
        of_queries = np.sum([own[0] for own in counts if own], axis=0)
        of_corpus = np.sum([own[1] for own in counts if own], axis=0)
        means["avg_flops"] = mean_flops(
            (of_queries, of_corpus), sum(num_queries), sum(num_documents)
        )
        self.primary_metric = f"{self.name}_{model.similarity_fn_name}_ndcg@10"
        return results | {f"{self.name}_{key}": value for key, value in means.items()}


def _normalized(vectors: SparseVectors) -> SparseVectors:
    """Divide each vector by its length, which leaves the order of cosines to dot products."""
    rows = np.repeat(np.arange(len(vectors)), np.diff(vectors.offsets))
    weights = vectors.weights.astype(np.float64)
    lengths = np.sqrt(np.bincount(rows, weights**2, len(vectors)))
    scaled = (weights / lengths[rows]).astype(np.float32)
    return SparseVectors(vectors.offsets, vectors.term_ids, scaled, vectors.num_terms)

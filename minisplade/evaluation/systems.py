"""The systems that are compared: searches over the same vectors of one collection."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minisplade.bm25 import BM25
from minisplade.encoder import SparseEncoder
from minisplade.evaluation.cache import VectorCache
from minisplade.evaluation.collection import Collection
from minisplade.evaluation.evaluators import SparseInformationRetrievalEvaluator
from minisplade.evaluation.trec import Run
from minisplade.fusion import Reranker, rerank
from minisplade.hybrid import HybridEncoder, HybridSearch, join_fields
from minisplade.index import Hit, Hits, Index
from minisplade.vectors import SparseVectors, concatenate
from minisplade.words import WholeWords

SYSTEMS = ("bm25", "splade", "hybrid", "rrf", "words")
"""BM25, the model, their linear and their reciprocal-rank fusion, and the linear one with whole
words as a third field of weight WORDS_WEIGHT."""

WORDS_WEIGHT = 0.1

RERANKED = "reranked"

RERANK_DEPTH = 100

TIMED_QUERIES = 200


class Bench:
    """The vectors and indexes of one collection, made when first needed."""

    def __init__(
        self,
        model: SparseEncoder,
        collection: Collection,
        vectors: VectorCache,
        max_seq_length: int | None,
        on_progress: Callable[[int], None] | None,
    ) -> None:
        """Encode what vectors does not hold; arguments as in evaluate."""
        self.model = model
        self.collection = collection
        self.texts = list(collection.documents.values())
        self.keys = list(collection.documents)
        questions = list(collection.queries.values())
        self.queries = vectors.encode_query(questions, on_progress)
        self.documents = vectors.encode_document(self.texts, max_seq_length, on_progress)
        self.fields: dict[str, tuple[Any, SparseVectors, SparseVectors]] = {
            "splade": (model, self.queries, self.documents)
        }
        self.searches: dict[tuple[str, ...], tuple[HybridSearch, SparseVectors]] = {}

    def search(self, system: str) -> tuple[HybridSearch, SparseVectors]:
        """Return an index of the fields of a system, and the queries for it."""
        names = {"bm25": ("bm25",), "splade": ("splade",), "words": ("splade", "bm25", "words")}
        chosen = names.get(system, ("splade", "bm25"))
        if chosen not in self.searches:
            parts = [self._field(name) for name in chosen]
            encoder = HybridEncoder({name: part[0] for name, part in zip(chosen, parts)})
            joined = join_fields([documents for _, _, documents in parts])
            index = Index.from_vectors(joined, self.keys)
            queries = join_fields([queries for _, queries, _ in parts])
            self.searches[chosen] = HybridSearch(index, encoder), queries
        return self.searches[chosen]

    def run(self, system: str, depth: int) -> Run:
        """Rank the documents of every query."""
        search, queries = self.search(system)
        found = search.search(queries, depth, **_options(system))
        return dict(zip(self.collection.queries, map(_scores, found), strict=True))

    def cost(self, system: str) -> tuple[float | None, int | None]:
        """Return the median time of a query in milliseconds, and the bytes that it may read."""
        if system == RERANKED:
            return None, None
        search, queries = self.search(system)
        few = queries[:TIMED_QUERIES]
        times = [_seconds(search, query, system) for query in few]
        return 1000 * float(np.median(times)), search.index.postings.searched_bytes

    def reranked(self, run: Run, reranker: Reranker) -> Run:
        """Judge the best of a run again."""
        texts = self.collection.documents
        judged = {}
        for query, own in run.items():
            best = list(own.items())[:RERANK_DEPTH]
            hits = [Hit(key, score, i, texts[key]) for i, (key, score) in enumerate(best)]
            judged[query] = _scores(rerank(self.collection.queries[query], hits, reranker))
        return judged

    def evaluator_metrics(self) -> dict[str, float]:
        """Return the metrics of sentence-transformers' evaluator, of the model alone."""
        collection = self.collection
        evaluator = SparseInformationRetrievalEvaluator(
            collection.queries, collection.documents, collection.relevant
        )
        places = {key: place for place, key in enumerate(self.keys)}
        in_order = self.documents[[places[key] for key in evaluator.corpus]]
        # Systems rank by dot products; the evaluator may rank by cosines, but by nothing else.
        function = "cosine" if self.model.similarity_fn_name == "cosine" else "dot"
        return evaluator.metrics(self.queries, in_order, function)

    def _field(self, name: str) -> tuple[Any, SparseVectors, SparseVectors]:
        """Return an encoder and what it makes of queries and documents."""
        if name not in self.fields:
            encoder: Any
            if name == "bm25":
                encoder = BM25.fit(self.texts)
            else:
                encoder = WholeWords(self.model.tokenizer)
            queries = encoder.encode_query(list(self.collection.queries.values()))
            documents = concatenate(list(encoder.encode_stream(self.texts)))
            self.fields[name] = encoder, queries, documents
        return self.fields[name]


def _options(system: str) -> Any:
    """Return how a system fuses its fields."""
    if system == "words":
        return {"weights": {"words": WORDS_WEIGHT}}
    if system == "rrf":
        return {"fusion": "rrf"}
    # One field needs no second search to find its best score.
    return {"normalize": system == "hybrid"}


def _scores(hits: Sequence[Hit]) -> dict[str, float]:
    """Return scores by key, equal ones lowered one after the other by the least float32 step.

    Readers of runs break ties by the names of documents; so they keep the ranks.
    """
    if isinstance(hits, Hits):
        keys, given = hits.keys, hits.scores.tolist()
    else:
        keys, given = tuple(hit.key for hit in hits), [hit.score for hit in hits]
    scores: dict[str, float] = {}
    ceiling = np.float32(np.inf)
    for key, score in zip(keys, given, strict=True):
        lowered = min(np.float32(score), ceiling)
        scores[key] = float(lowered)
        ceiling = np.nextafter(lowered, np.float32(-np.inf))
    return scores


def _seconds(search: HybridSearch, query: Any, system: str) -> float:
    """Time one query; the better of two tries, because the first may have to wait for memory."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        search.search(query, 10, **_options(system))
        times.append(time.perf_counter() - start)
    return min(times)

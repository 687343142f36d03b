"""Systems side by side: one model alone, against BM25, and with it, on test collections."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minisplade.analysis import english
from minisplade.bm25 import BM25
from minisplade.encoder import SparseEncoder
from minisplade.errors import InputError
from minisplade.evaluation.cache import VectorCache
from minisplade.evaluation.collection import Collection
from minisplade.evaluation.evaluators import SparseInformationRetrievalEvaluator
from minisplade.evaluation.metrics import MEASURES, import_ir_measures, measure
from minisplade.evaluation.significance import randomization_test
from minisplade.evaluation.tradeoffs import Tradeoffs, find_tradeoffs
from minisplade.evaluation.trec import Run
from minisplade.fusion import Reranker, rerank
from minisplade.hybrid import HybridEncoder, HybridSearch, join_fields
from minisplade.index import Hit, Hits, Index
from minisplade.runtime import cache_dir
from minisplade.vectors import SparseVectors, concatenate
from minisplade.words import WholeWords

SYSTEMS = ("bm25", "splade", "hybrid", "rrf", "words")
"""BM25, the model, their linear and their reciprocal-rank fusion, and the linear one with whole
words as a third field of weight WORDS_WEIGHT."""

DEFAULT_SYSTEMS = ("bm25", "splade", "hybrid")

WORDS_WEIGHT = 0.1

RERANKED = "reranked"

RERANK_DEPTH = 100

TIMED_QUERIES = 200

MAIN_MEASURE = MEASURES[0]


@dataclass(frozen=True, slots=True)
class SystemResult:
    """What one system did on one collection."""

    run: Run
    values: dict[str, dict[str, float]]  # by measure and query
    p_value: float | None  # of MAIN_MEASURE against the baseline
    search_ms: float | None  # median of single queries, k = 10, one thread, without encoding
    index_bytes: int | None  # what searching reads

    def mean(self, measure: str = MAIN_MEASURE) -> float:
        """Return the mean of a measure over queries."""
        return float(np.mean(list(self.values[measure].values())))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Systems on one collection."""

    collection: Collection
    systems: dict[str, SystemResult]
    baseline: str
    metrics: dict[str, float]  # of the model alone, as SparseInformationRetrievalEvaluator has them
    tradeoffs: Tradeoffs | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Systems on several collections."""

    model: str
    comparisons: list[Comparison]
    encode_ms: float  # median of single queries
    max_seq_length: int


def evaluate(
    model: SparseEncoder,
    collections: Iterable[Collection],
    *,
    systems: Sequence[str] = DEFAULT_SYSTEMS,
    reranker: Reranker | None = None,
    runs: Mapping[str, Run] | None = None,
    max_seq_length: int | None = None,
    depth: int = 100,
    cache: str | os.PathLike[str] | None = None,
    with_tradeoffs: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Run systems on collections, and measure them.

    systems: of SYSTEMS; the first is what the others are tested against. reranker: adds a system
    "reranked", the RERANK_DEPTH best of the last of systems judged again. runs: rankings of other
    systems, by name, for a single collection. max_seq_length: tokens of a document. depth:
    documents of a ranking. cache: the folder where vectors are kept; None is a folder in
    cache_dir. with_tradeoffs: also measure shorter vectors and coarser impacts, for the report.
    on_progress: told how many more texts are encoded. Raises InputError.
    """
    collections = list(collections)
    import_ir_measures()  # rather now than after hours of encoding
    if set(systems) != {"splade"}:
        english("")  # which needs a package too
    _check(systems, [collection.name for collection in collections], list(runs or {}))
    vectors = VectorCache(cache or Path(cache_dir()) / "vectors", model)
    compared = []
    for collection in collections:
        bench = _Bench(model, collection, vectors, max_seq_length, on_progress)
        found = {name: bench.run(name, depth) for name in systems}
        if reranker is not None:
            found[RERANKED] = bench.reranked(found[systems[-1]], reranker)
        results = {name: (run, *bench.cost(name)) for name, run in found.items()}
        results |= {name: (run, None, None) for name, run in (runs or {}).items()}
        shown = None
        if with_tradeoffs:
            shown = find_tradeoffs(collection, bench.queries, bench.documents)
        measured = _measured(collection, results)
        compared.append(
            Comparison(collection, measured, systems[0], bench.evaluator_metrics(), shown)
        )
    length = max_seq_length or model.max_seq_length
    return Evaluation(model.name, compared, _encode_ms(model, collections), length)


def _check(systems: Sequence[str], collections: Sequence[str], runs: Sequence[str]) -> None:
    """Raise InputError for names that are unknown, or that files could not be told apart by."""
    if not systems or any(name not in SYSTEMS for name in systems):
        raise InputError(f"systems are {list(systems)}; known: {', '.join(SYSTEMS)}")
    if not collections or len(set(collections)) < len(collections):
        raise InputError(
            f"collections are {list(collections)}; expected one or more, all named apart"
        )
    if runs and len(collections) != 1:
        raise InputError(f"runs belong to one collection, but there are {len(collections)}")
    for name in runs:
        if name in (*SYSTEMS, RERANKED) or not re.fullmatch(r"\w[\w.+-]*", name):
            raise InputError(
                f"a run is called {name!r}; expected letters, digits and . + - _, and not the name "
                "of a system"
            )


def _measured(
    collection: Collection, results: Mapping[str, tuple[Run, float | None, int | None]]
) -> dict[str, SystemResult]:
    """Measure runs, and test each against the first."""
    measured: dict[str, SystemResult] = {}
    baseline: list[float] = []
    for name, (run, search_ms, index_bytes) in results.items():
        values = measure(collection.qrels, run)
        own = [values[MAIN_MEASURE][query] for query in collection.queries]
        p_value = randomization_test(own, baseline) if baseline else None
        baseline = baseline or own
        measured[name] = SystemResult(run, values, p_value, search_ms, index_bytes)
    return measured


class _Bench:
    """The vectors and indexes of one collection, made when first needed."""

    def __init__(
        self,
        model: SparseEncoder,
        collection: Collection,
        vectors: VectorCache,
        max_seq_length: int | None,
        on_progress: Callable[[int], None] | None,
    ) -> None:
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
            index = Index.from_vectors(joined, self.keys, self.texts)
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
        return evaluator.metrics(self.queries, in_order, self.model.similarity_fn_name)

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


def _encode_ms(model: SparseEncoder, collections: Sequence[Collection]) -> float:
    """Return the median time of encoding one query, in milliseconds."""
    queries = [text for collection in collections for text in collection.queries.values()]
    times = []
    for text in queries[:: max(1, len(queries) // TIMED_QUERIES)]:
        start = time.perf_counter()
        model.encode_query(text)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))

"""Systems side by side: one model alone, against BM25, and with it, on test collections."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minisplade.analysis import english
from minisplade.encoder import SparseEncoder
from minisplade.errors import InputError
from minisplade.evaluation.cache import VectorCache
from minisplade.evaluation.collection import Collection
from minisplade.evaluation.metrics import MEASURES, import_ir_measures, measure
from minisplade.evaluation.significance import randomization_test
from minisplade.evaluation.systems import RERANKED, SYSTEMS, TIMED_QUERIES, Bench
from minisplade.evaluation.tradeoffs import Tradeoffs, find_tradeoffs
from minisplade.evaluation.trec import Run
from minisplade.fusion import Reranker
from minisplade.runtime import cache_dir

DEFAULT_SYSTEMS = ("bm25", "splade", "hybrid")

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
        bench = Bench(model, collection, vectors, max_seq_length, on_progress)
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


def _encode_ms(model: SparseEncoder, collections: Sequence[Collection]) -> float:
    """Return the median time of encoding one query, in milliseconds."""
    queries = [text for collection in collections for text in collection.queries.values()]
    times = []
    for text in queries[:: max(1, len(queries) // TIMED_QUERIES)]:
        start = time.perf_counter()
        model.encode_query(text)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))

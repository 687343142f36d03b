r"""Measure search against other engines, side by side, over real SPLADE vectors.

    python scripts/bench_search.py compare --documents books.npz --queries v3=splade_v3.tsv.gz \
        --engine minisplade --engine splade-index=PATH/TO/ITS/python
    python scripts/bench_search.py curve ... --sizes 16384,65536,131072,1048576 --plot curve.svg

Every engine runs in a process of its own, under the Python that is given for it, and all are asked
in turn, round after round, so that a busy moment of the machine hits all alike; each query counts
its fastest round. Queries are in the engine's own form before the clock starts. Results are
compared with a float64 brute force. Output is one JSON line per engine and setting.

--documents takes .npz (offsets, term_ids, weights, num_terms) or JSON lines of passages, which are
encoded with splade-tiny first (and kept as .npz in --cache). --queries takes NAME=FILE of lines
`id<TAB>tokens`, a token repeated once for every hundredth of its weight.
"""

import argparse
import gzip
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

Rows = dict[str, Any]  # offsets, term_ids, weights and num_terms, of many sparse vectors

REST_SECONDS = 0.4
"""Before each batch over threads: those of some engines go on spinning for a while after theirs."""


# Engines: what runs in a process of its own. Only NumPy may be imported outside their methods.


class Minisplade:
    """Index.search of minisplade."""

    module = "minisplade"
    compact = False

    def build(self, rows: Rows, folder: str) -> dict[str, float]:
        """Index all rows; returns sizes in bytes."""
        from minisplade import Index, SparseVectors

        keys = [str(i) for i in range(rows["offsets"].size - 1)]
        # Kernels are compiled, or read from the cache, before the clock starts.
        vectors = SparseVectors(
            rows["offsets"], rows["term_ids"], rows["weights"], int(rows["num_terms"])
        )
        Index.from_vectors(vectors[:10], compact=self.compact)
        start = time.perf_counter()
        index = Index.from_vectors(vectors, keys, compact=self.compact)
        seconds = time.perf_counter() - start
        path = os.path.join(folder, "index")
        index.save(path)
        self.index = Index.load(path) if self.compact else index
        return {
            "build_s": seconds,
            "ram_bytes": index.postings.searched_bytes,
            "disk_bytes": os.path.getsize(path),
        }

    def prepare(self, rows: Rows) -> Any:
        """Turn rows into queries."""
        from minisplade import SparseVectors

        self.batch = SparseVectors(
            rows["offsets"], rows["term_ids"], rows["weights"], int(rows["num_terms"])
        )
        return list(self.batch)

    def search(self, query: Any, k: int) -> Any:
        """Return the ids of the k best documents."""
        return self.index.search(query, k).doc_ids

    def search_all(self, queries: Any, k: int, threads: int) -> None:
        """Answer all queries with several threads."""
        self.index.search(self.batch, k, num_threads=threads)


class MinispladeCompact(Minisplade):
    """The same, in the compact form, mapped from its file."""

    compact = True


class SpladeIndex:
    """splade-index 0.2.0: its compiled retrieval function, over its three arrays."""

    module = "splade_index.numba.retrieve_utils"

    def build(self, rows: Rows, folder: str) -> dict[str, float]:
        """Transpose with SciPy, as fast as its arrays can be had."""
        from scipy.sparse import csr_array

        retrieval = import_module(self.module)

        num_docs = rows["offsets"].size - 1
        shape = num_docs, int(rows["num_terms"])
        start = time.perf_counter()
        matrix = csr_array((rows["weights"], rows["term_ids"], rows["offsets"]), shape=shape)
        columns = matrix.tocsc()
        columns.sort_indices()
        self.scores = {
            "data": columns.data.astype("float32"),
            "indices": columns.indices.astype("int32"),
            "indptr": columns.indptr.astype("int32"),
            "num_docs": num_docs,
        }
        seconds = time.perf_counter() - start
        self.retrieve = retrieval._retrieve_numba_functional
        size = sum(self.scores[name].nbytes for name in ("data", "indices", "indptr"))
        return {"build_s": seconds, "ram_bytes": size, "disk_bytes": size}

    def prepare(self, rows: Rows) -> Any:
        """Cut rows into pairs of arrays."""
        return _pairs(rows)

    def search(self, query: Any, k: int) -> Any:
        """Return the ids of the k best documents."""
        return self._retrieve([query], k, 1)[0]

    def search_all(self, queries: Any, k: int, threads: int) -> None:
        """Answer all queries with several threads."""
        self._retrieve(queries, k, threads)

    def _retrieve(self, queries: Any, k: int, threads: int) -> Any:
        return self.retrieve(
            [query[0] for query in queries],
            [query[1] for query in queries],
            self.scores,
            k=min(k, self.scores["num_docs"]),
            n_threads=threads,
            show_progress=False,
        )[0]


class QdrantEdge:
    """qdrant-edge: the inverted index of Qdrant, in this process."""

    module = "qdrant_edge"

    def build(self, rows: Rows, folder: str) -> dict[str, float]:
        """Insert all rows, then let it optimise."""
        q = import_module(self.module)
        self.q = q
        path = os.path.join(folder, "shard")
        os.makedirs(path)
        start = time.perf_counter()
        parameters = q.EdgeSparseVectorParams(full_scan_threshold=1)
        self.shard = q.EdgeShard.create(path, q.EdgeConfig(sparse_vectors={"s": parameters}))
        pairs = _pairs(rows)
        for first in range(0, len(pairs), 2000):
            points = [
                q.Point(first + i, {"s": q.SparseVector(ids.tolist(), weights.tolist())})
                for i, (ids, weights) in enumerate(pairs[first : first + 2000])
            ]
            self.shard.update(q.UpdateOperation.upsert_points(points))
        self.shard.flush()
        self.shard.optimize()
        size = sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())
        return {"build_s": time.perf_counter() - start, "disk_bytes": size}

    def prepare(self, rows: Rows) -> Any:
        """Make its own vector objects."""
        return [self.q.SparseVector(i.tolist(), w.tolist()) for i, w in _pairs(rows)]

    def search(self, query: Any, k: int) -> Any:
        """Return the ids of the k best documents."""
        nearest = self.q.Query.Nearest(query, using="s")
        request = self.q.QueryRequest(limit=k, query=nearest, with_vector=False, with_payload=False)
        return np.array([hit.id for hit in self.shard.query(request)])

    def search_all(self, queries: Any, k: int, threads: int) -> None:
        """Answer all queries with several threads."""
        _in_threads(self, queries, k, threads)


class Seismic:
    """Seismic, approximate: built for high recall, and asked the fastest way to 0.99 of it.

    That is, of query_cut 4 to 100 and heap_factor 0.3 to 1, for k = 10, the books and SPLADE-v3.
    It builds for minutes; SEISMIC_INDEX may name where the index is kept for the next time.
    """

    module = "seismic"
    cut, heap_factor = 5, 0.7

    def build(self, rows: Rows, folder: str) -> dict[str, float]:
        """Build with longer lists and more of each summary than by default, on one thread."""
        seismic = import_module(self.module)
        self.strings = seismic.get_seismic_string()
        kept = os.environ.get("SEISMIC_INDEX", os.path.join(folder, "kept"))
        path = f"{kept}.index.seismic"
        seconds = {}
        if not os.path.exists(path):
            start = time.perf_counter()
            dataset = seismic.SeismicDataset()
            keys = [str(i) for i in range(rows["offsets"].size - 1)]
            term_ids, offsets = rows["term_ids"].astype(np.int64), rows["offsets"].astype(np.int64)
            dataset.add_documents_by_id(keys, term_ids, rows["weights"], offsets)
            index = seismic.SeismicIndex.build_from_dataset(
                dataset,
                n_postings=4000,
                centroid_fraction=0.2,
                summary_energy=0.5,
                max_fraction=3.0,
                num_threads=1,
            )
            seconds = {"build_s": time.perf_counter() - start}
            index.save(kept)
        self.index = seismic.SeismicIndex.load(path)
        return {**seconds, "disk_bytes": os.path.getsize(path)}

    def prepare(self, rows: Rows) -> Any:
        """Name terms by strings, as it wants them."""
        pairs = _pairs(rows)
        return [(np.array([str(t) for t in ids], self.strings), w) for ids, w in pairs]

    def search(self, query: Any, k: int) -> Any:
        """Return the ids of the k best documents it finds."""
        found = self.index.search(
            "q", *query, k=k, query_cut=self.cut, heap_factor=self.heap_factor
        )
        return np.array([int(hit[2]) for hit in found])

    def search_all(self, queries: Any, k: int, threads: int) -> None:
        """Answer all queries with several threads."""
        self.index.batch_search(
            np.array([str(i) for i in range(len(queries))], self.strings),
            *map(list, zip(*queries)),
            k=k,
            query_cut=self.cut,
            heap_factor=self.heap_factor,
            num_threads=threads,
        )


ENGINES: dict[str, Any] = {
    "minisplade": Minisplade,
    "minisplade-compact": MinispladeCompact,
    "splade-index": SpladeIndex,
    "qdrant-edge": QdrantEdge,
    "seismic": Seismic,
}


def _pairs(rows: Rows) -> list[tuple[Any, Any]]:
    cuts = zip(rows["offsets"][:-1], rows["offsets"][1:], strict=True)
    return [(rows["term_ids"][a:b].copy(), rows["weights"][a:b].copy()) for a, b in cuts]


def _in_threads(engine: Any, queries: Any, k: int, threads: int) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda query: engine.search(query, k), queries))


def work(name: str) -> None:
    """Answer commands, one JSON line each, until input ends: the life of an engine's process."""
    engine = ENGINES[name]()
    queries: dict[str, Any] = {}
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # engines may print; only answers go to the real output
    pinned, everywhere = os.sched_getaffinity(0), range(os.cpu_count() or 1)
    for line in sys.stdin:
        command = json.loads(line)
        do = command["do"]
        answer: dict[str, Any] = {}
        if do == "build":
            with tempfile.TemporaryDirectory() as folder:
                answer = engine.build(_load(command["path"]), folder)
        elif do == "queries":
            queries[command["name"]] = engine.prepare(_load(command["path"]))
            # Threads that an engine starts at its first query may run where they like, later.
            os.sched_setaffinity(0, everywhere)
            engine.search(queries[command["name"]][0], 10)
            os.sched_setaffinity(0, pinned)
        elif do == "latency":
            answer["ns"] = []
            for query in queries[command["name"]]:
                before = time.perf_counter_ns()
                engine.search(query, command["k"])
                answer["ns"].append(time.perf_counter_ns() - before)
        elif do == "throughput":
            own = engine.prepare(_load(command["path"]))
            os.sched_setaffinity(0, everywhere)
            start = time.perf_counter()
            engine.search_all(own, command["k"], command["threads"])
            answer["qps"] = len(own) / (time.perf_counter() - start)
            os.sched_setaffinity(0, pinned)
        elif do == "results":
            ids = [engine.search(query, command["k"]) for query in queries[command["name"]]]
            answer["doc_ids"] = [np.asarray(one).tolist() for one in ids]
        out.write(json.dumps(answer) + "\n")
        out.flush()


def _load(path: str) -> Rows:
    with np.load(path) as file:
        return {name: file[name] for name in ("offsets", "term_ids", "weights", "num_terms")}


# The side that asks.


def installed(setting: str) -> bool:
    """Tell whether an engine can be imported where it should run; say so where it cannot."""
    name, _, python = setting.partition("=")
    if name not in ENGINES:
        raise SystemExit(f"engine {name!r} is unknown; there are {', '.join(ENGINES)}")
    command = [python or sys.executable, "-c", f"import {ENGINES[name].module}"]
    try:
        subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1]
        print(json.dumps({"engine": name, "skipped": why}), flush=True)
        return False
    return True


class Process:
    """An engine in its own process."""

    def __init__(self, setting: str) -> None:
        self.name, _, python = setting.partition("=")
        self.process = subprocess.Popen(
            [python or sys.executable, __file__, "work", self.name],
            env={**os.environ, "NUMBA_NUM_THREADS": str(os.cpu_count() or 1)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended; its message is above")
        return dict(json.loads(line))

    def close(self) -> None:
        """Let the process end."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def measure(options: argparse.Namespace, documents: str, queries: dict[str, str]) -> list[Rows]:
    """Build every engine, ask all in turn, and return one result for each setting."""
    engines = [Process(setting) for setting in options.engine]
    results = []
    sizes = {}
    for engine in engines:
        sizes[engine.name] = engine.ask(do="build", path=documents)
        for name, path in queries.items():
            engine.ask(do="queries", name=name, path=path)
    rows = _load(documents)
    for name, path in queries.items():
        truth = brute_force(rows, _load(path), max(options.k), options.checked)
        for k in options.k:
            best: dict[str, Any] = {}
            qps: dict[str, Any] = {}
            for turn in range(options.rounds + 1):
                for engine in engines:
                    ns = np.array(engine.ask(do="latency", name=name, k=k)["ns"])
                    if turn:  # the first round warms up
                        best[engine.name] = np.minimum(best.get(engine.name, ns), ns)
            for _ in range(options.rounds if options.threads > 1 else 0):
                for engine in engines:
                    time.sleep(REST_SECONDS)
                    ask = {"do": "throughput", "path": path, "k": k, "threads": options.threads}
                    rate = engine.ask(**ask)["qps"]
                    qps[engine.name] = max(rate, qps.get(engine.name, 0))
            for engine in engines:
                found = engine.ask(do="results", name=name, k=k)["doc_ids"]
                us = best[engine.name] / 1e3
                results.append(
                    {
                        "engine": engine.name,
                        "documents": rows["offsets"].size - 1,
                        "postings": rows["weights"].size,
                        "queries": name,
                        "k": k,
                        "p50_us": _percentile(us, 50),
                        "p95_us": _percentile(us, 95),
                        "p99_us": _percentile(us, 99),
                        "mean_us": round(float(us.mean()), 1),
                        **({f"qps_{options.threads}": round(qps[engine.name])} if qps else {}),
                        **agreement(found, truth, k),
                        **sizes[engine.name],
                    }
                )
                print(json.dumps(results[-1]), flush=True)
    for engine in engines:
        engine.close()
    return results


def _percentile(values: Any, share: float) -> float:
    return round(float(np.percentile(values, share)), 1)


def brute_force(rows: Rows, queries: Rows, k: int, most: int) -> list[tuple[Any, Any]]:
    """Score all documents in float64 for the first queries; returns the best k and all scores."""
    truth = []
    filled = np.flatnonzero(np.diff(rows["offsets"]))
    starts = rows["offsets"][:-1][filled]
    for term_ids, weights in _pairs(queries)[:most]:
        dense = np.zeros(int(rows["num_terms"]))
        dense[term_ids] = weights
        scores = np.zeros(rows["offsets"].size - 1)
        scores[filled] = np.add.reduceat(dense[rows["term_ids"]] * rows["weights"], starts)
        kept = min(k, np.count_nonzero(scores > 0))
        best = np.lexsort((np.arange(scores.size), -scores))[:kept]
        truth.append((best, scores))
    return truth


def agreement(found: list[list[int]], truth: list[tuple[Any, Any]], k: int) -> dict[str, float]:
    """Compare with brute force: the same ids in the same order, and recall of scores."""
    same, recall = 0, 0.0
    for ids, (best, scores) in zip(found, truth):
        same += ids == best[:k].tolist()
        if len(best):
            least = scores[best[:k][-1]]
            reached = np.count_nonzero(scores[ids] >= least - 1e-5 * least)
            recall += min(1.0, reached / len(best[:k]))
        else:
            recall += 1
    return {"same_order": round(same / len(truth), 4), "recall": round(recall / len(truth), 4)}


def read_queries(path: str, most: int) -> Rows:
    """Read repeated tokens as weights."""
    from minisplade import SparseVectors
    from minisplade.hub import find_model
    from minisplade.tokenization import term_strings
    from minisplade.vocabularies import load_tokenizer

    num_terms = 30_522
    terms = term_strings(load_tokenizer(find_model(), num_terms), num_terms)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [line.rstrip("\n").split("\t")[1].split() for line in file][:most]
    rows = [{token: n / 100 for token, n in Counter(tokens).items()} for tokens in lines]
    return _rows(SparseVectors.from_dicts(rows, num_terms, terms))


def read_documents(path: str, cache: Path) -> Rows:
    """Read vectors, or encode passages and keep their vectors."""
    if path.endswith(".npz"):
        return _load(path)
    kept = cache / f"{Path(path).parent.name}-splade-tiny.npz"
    if not kept.exists():
        from minisplade import SparseEncoder

        with gzip.open(path, "rt", encoding="utf-8") as file:
            texts = [json.loads(line)["text"] for line in file]
        rows = _rows(SparseEncoder().encode_document(texts, show_progress_bar=True))
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(kept, **rows)
    return _load(str(kept))


def _rows(vectors: Any) -> Rows:
    names = "offsets", "term_ids", "weights", "num_terms"
    return {name: np.asarray(getattr(vectors, name)) for name in names}


def resample(rows: Rows, size: int, seed: int = 0) -> Rows:
    """Take documents up to a size; beyond the real ones, altered copies of random ones.

    A copy loses a tenth of its terms, and its weights are multiplied by exp(x), x being normal
    with a standard deviation of 0.1, so that copies are as long but no two are alike.
    """
    real = rows["offsets"].size - 1
    rng = np.random.default_rng(seed)
    if size <= real:
        chosen = np.sort(rng.choice(real, size, replace=False))
    else:
        chosen = np.concatenate([np.arange(real), rng.integers(0, real, size - real)])
    counts = np.diff(rows["offsets"])[chosen]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    slots = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - rows["offsets"][chosen], counts)
    term_ids, weights = rows["term_ids"][slots], rows["weights"][slots]
    copied = np.repeat(np.arange(size) >= real, counts)
    weights[copied] *= np.exp(rng.normal(0, 0.1, np.count_nonzero(copied))).astype(np.float32)
    kept = ~copied | (rng.random(copied.size) > 0.1)
    kept_before = np.concatenate([[0], np.cumsum(kept)])
    return {
        "offsets": kept_before[offsets].astype(np.int64),
        "term_ids": term_ids[kept],
        "weights": weights[kept],
        "num_terms": rows["num_terms"],
    }


def extrapolate(results: list[Rows], documents: int) -> list[Rows]:
    """Carry the cost per posting of the largest size on to more documents."""
    largest = max(result["documents"] for result in results)
    lines = []
    for result in results:
        if result["documents"] == largest:
            factor = documents / largest
            lines.append(
                {
                    "engine": result["engine"],
                    "extrapolated_to": documents,
                    "k": result["k"],
                    "p50_ms": round(result["p50_us"] * factor / 1e3, 2),
                    "ram_gb": round(result.get("ram_bytes", 0) * factor / 1e9, 1),
                }
            )
    return lines


COLOURS = ("#c0392b", "#2471a3", "#1e8449", "#7d3c98", "#b9770e")


def draw(results: list[Rows], path: str) -> None:
    """Plot median latency over the number of documents, both axes logarithmic, as SVG."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for result in results:
        label = f"{result['engine']}, k = {result['k']}"
        lines.setdefault(label, []).append((result["documents"], result["p50_us"]))
    points = np.log10([point for line in lines.values() for point in line])
    low, high = np.floor(points.min(axis=0) * 4) / 4, np.ceil(points.max(axis=0) * 4) / 4

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x, y = (np.log10(point) - low) / (high - low)
        return 70 + 560 * float(x), 370 - 330 * float(y)

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 420" font-family="sans-serif" '
        'font-size="13"><rect width="860" height="420" fill="white"/>',
        '<text x="350" y="410" text-anchor="middle">documents</text>',
        '<text x="20" y="24">median time of one query, one thread</text>',
    ]
    for tick in sorted({x for line in lines.values() for x, _ in line}):
        x, _ = place((tick, 10 ** low[1]))
        parts.append(f'<line x1="{x:.0f}" y1="40" x2="{x:.0f}" y2="370" stroke="#ddd"/>')
        name = f"{tick / 1024:.0f}k" if tick < 2**20 else f"{tick / 2**20:.0f}M"
        parts.append(f'<text x="{x:.0f}" y="388" text-anchor="middle">{name}</text>')
    for tick in (1e1, 3e1, 1e2, 3e2, 1e3, 3e3, 1e4, 3e4):
        if low[1] <= np.log10(tick) <= high[1]:
            _, y = place((10 ** low[0], tick))
            parts.append(f'<line x1="70" y1="{y:.0f}" x2="630" y2="{y:.0f}" stroke="#ddd"/>')
            name = f"{tick:.0f} µs" if tick < 1e3 else f"{tick / 1e3:.0f} ms"
            parts.append(f'<text x="64" y="{y + 4:.0f}" text-anchor="end">{name}</text>')
    names = list(dict.fromkeys(result["engine"] for result in results))
    for number, (label, line) in enumerate(lines.items()):
        engine = label.split(",")[0]
        colour = COLOURS[names.index(engine) % len(COLOURS)]
        dashes = ("", "6 3", "2 3")[
            [k for k in lines if k.startswith(f"{engine},")].index(label) % 3
        ]
        path_points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, sorted(line)))
        style = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"'
        parts.append(f'<polyline points="{path_points}" {style}/>')
        y = 60 + 22 * number
        parts.append(f'<polyline points="645,{y} 675,{y}" {style}/>')
        parts.append(f'<text x="682" y="{y + 4}">{label}</text>')
    Path(path).write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def main() -> None:
    """Read the command line and run."""
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["compare", "curve"])
    parser.add_argument("--documents", required=True)
    parser.add_argument("--queries", action="append", required=True, metavar="NAME=FILE")
    parser.add_argument("--engine", action="append", required=True, metavar="NAME[=PYTHON]")
    parser.add_argument("--k", type=lambda text: [int(k) for k in text.split(",")], default="10")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of batches; 1 leaves them out")
    parser.add_argument("--max-queries", type=int, default=300)
    parser.add_argument("--checked", type=int, default=50, help="queries to brute-force")
    parser.add_argument("--sizes", default="16384,65536,131072,262144,524288,1048576")
    parser.add_argument("--plot", help="the SVG file that curve draws")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "minisplade")
    options = parser.parse_args()
    options.engine = [setting for setting in options.engine if installed(setting)]
    rows = read_documents(options.documents, options.cache)
    about = {"machine": platform.machine(), "python": platform.python_version()}
    print(json.dumps({**about, "numpy": np.__version__, "rounds": options.rounds}))
    with tempfile.TemporaryDirectory() as folder:
        queries = {}
        for setting in options.queries:
            name, _, path = setting.partition("=")
            queries[name] = os.path.join(folder, f"{name}.npz")
            np.savez(queries[name], **read_queries(path, options.max_queries))
        documents = os.path.join(folder, "documents.npz")
        if options.what == "compare":
            np.savez(documents, **rows)
            measure(options, documents, queries)
            return
        results = []
        for size in map(int, options.sizes.split(",")):
            np.savez(documents, **resample(rows, size))
            results += measure(options, documents, queries)
        for line in extrapolate(results, 8_800_000):
            print(json.dumps(line))
        if options.plot:
            draw(results, options.plot)


if __name__ == "__main__":
    main()

"""Measure a durable index on disk: opening, adding, committing, searching segments, size.

    python scripts/bench_index.py vectors.npz --queries splade_v3.tsv.gz
    python scripts/bench_index.py vectors.npz --engine qdrant-edge=ITS/bin/python

vectors.npz is what bench_search.py keeps of encoded passages (or give the passages). Prints a JSON
line for each figure. Other engines, those of bench_search.py, only write the same vectors, to be
weighed.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from bench_search import read_documents, read_queries

from minisplade import Index, SparseVectors

PEER = """
import sys, tempfile
sys.path.insert(0, sys.argv[1])
from bench_search import ENGINES, _load
with tempfile.TemporaryDirectory() as folder:
    print(ENGINES[sys.argv[2]]().build(_load(sys.argv[3]), folder)["disk_bytes"])
"""


def main() -> None:
    """Take the measurements that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("documents", help="an .npz of vectors, or passages to encode")
    parser.add_argument("--queries", help="lines of repeated tokens, as bench_search.py takes")
    parser.add_argument("--folder", type=Path, help="where to write (a temporary folder)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engine", action="append", default=[], metavar="NAME=PYTHON")
    options = parser.parse_args()
    for name, _, python in (engine.partition("=") for engine in options.engine):
        command = [python, "-c", PEER, str(Path(__file__).parent), name, options.documents]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        report(f"size, {name}", bytes=int(done.stdout))
    if options.engine:
        return
    rows = read_documents(options.documents, Path.home() / ".cache" / "minisplade")
    vectors = SparseVectors(**{**rows, "num_terms": int(rows["num_terms"])})
    with TemporaryDirectory(dir=options.folder) as folder:
        measure(vectors, options.queries, Path(folder), options.rounds)


def measure(vectors: SparseVectors, queries: str | None, folder: Path, rounds: int) -> None:
    """Print all figures for some vectors."""
    keys = [f"doc-{i:07}" for i in range(len(vectors))]
    warm = Index.create(folder / "warm")  # kernels are compiled before the clock starts
    warm.add(keys[:10], vectors=vectors[:10])
    warm.commit()
    warm.search(vectors[:2])

    one, ten = folder / "one", folder / "ten"
    seconds = []
    for _ in range(rounds):
        shutil.rmtree(one, ignore_errors=True)
        with Index.create(one) as index:
            seconds.append(timed(partial(index.add, keys, vectors=vectors)) + timed(index.commit))
    report(
        "add and commit",
        docs_per_second=len(vectors) / statistics.median(seconds),
        slowest_docs_per_second=len(vectors) / max(seconds),
    )
    report("size", bytes=index.stats().size_bytes, documents=len(vectors))
    report("size", bytes_per_posting=index.stats().size_bytes / vectors.weights.size)

    with Index.create(ten) as index:
        for part in np.array_split(np.arange(len(vectors)), 10):
            index.add(keys[part[0] : part[-1] + 1], vectors=vectors[part])
            index.commit(merge=False)

    opening = """
import sys, time
from minisplade import Index, SparseVectors
import minisplade.index, numpy as np
start = time.perf_counter()
index = Index.open(sys.argv[1])
opened = time.perf_counter()
query = SparseVectors.from_dicts([{100: 1.0, 2000: 2.0}], index.stats().num_terms)
index.search(query[0])
print(opened - start, time.perf_counter() - opened)
"""
    for path in (one, ten):
        times = [json_of(opening, path) for _ in range(rounds)]
        report(
            f"open, {path.name} segment(s)",
            milliseconds=1e3 * statistics.median(first for first, _ in times),
            first_search_milliseconds=1e3 * statistics.median(second for _, second in times),
        )

    with Index.open(one) as index:
        commits = []
        for number in range(4 * rounds):
            some = np.arange(number * 1000, (number + 1) * 1000) % len(vectors)
            index.add([f"new-{number}-{i}" for i in some], vectors=vectors[some])
            commits.append(1e3 * timed(partial(index.commit, merge=False)))
        report(
            "commit of 1,000 documents",
            milliseconds=statistics.median(commits),
            slowest_milliseconds=max(commits),
        )
    if queries:
        search_segments(one, ten, queries, rounds, vectors, keys)


def search_segments(
    one: Path, ten: Path, queries: str, rounds: int, vectors: SparseVectors, keys: list[str]
) -> None:
    """Compare one segment with ten, asked in turn, and check that both find the same."""
    rows = read_queries(queries, 300)
    asked = SparseVectors(**{**rows, "num_terms": int(rows["num_terms"])})
    shutil.rmtree(one)
    with Index.create(one) as index:
        index.add(keys, vectors=vectors)
    whole, parts = Index.open(one), Index.open(ten)
    for k in (10, 100, 1000):
        times: dict[str, list[list[float]]] = {"one": [], "ten": []}
        for _ in range(rounds):
            for name, index in (("one", whole), ("ten", parts)):
                times[name].append([timed(partial(index.search, q, k)) for q in asked])
        for query in asked:
            a, b = whole.search(query, k), parts.search(query, k)
            assert a.doc_ids.tolist() == b.doc_ids.tolist()
        best = {name: np.min(own, axis=0) for name, own in times.items()}
        report(
            f"search, k = {k}",
            microseconds_one=1e6 * float(np.median(best["one"])),
            microseconds_ten=1e6 * float(np.median(best["ten"])),
            ratio_of_medians=float(np.median(best["ten"]) / np.median(best["one"])),
            ratio_of_means=float(np.mean(best["ten"]) / np.mean(best["one"])),
        )


def timed(call: Callable[[], Any]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def json_of(code: str, path: Path) -> tuple[float, float]:
    """Run a program in a process of its own; returns the two numbers that it prints."""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = map(float, done.stdout.split())
    return first, second


def report(what: str, **figures: float) -> None:
    """Print one line."""
    print(json.dumps({"what": what, **{name: round(own, 3) for name, own in figures.items()}}))


if __name__ == "__main__":
    main()

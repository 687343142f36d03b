"""A table and a plot from the lines that scripts/bench_encode.py prints.

  python scripts/report_encode.py results.jsonl --svg docs/encode.svg

Prints Markdown: one row an engine, for splade-tiny with one thread, and below that one line a
shape with minisplade's speed over that of sentence-transformers.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from minisplade.figures import Colour, bars

Row = dict[str, Any]


def main() -> None:
    """Read result lines, print the tables and write the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", help="a file of JSON lines")
    parser.add_argument("--svg", help="where to write the plot")
    options = parser.parse_args()
    rows = [json.loads(line) for line in Path(options.results).read_text().splitlines()]
    speeds = [row for row in rows if "docs_per_s" in row]
    tiny = [row for row in speeds if row["shape"] == "tiny" and row["threads"] == 1]
    tiny.sort(key=lambda row: -float(row["docs_per_s"]))
    print(table(tiny))
    print()
    print(shapes(speeds))
    if options.svg:
        title = "splade-tiny, one thread: documents encoded per second"
        drawn = [bar_of(str(row["engine"]), float(row["docs_per_s"])) for row in tiny]
        Path(options.svg).parent.mkdir(parents=True, exist_ok=True)
        Path(options.svg).write_text(bars(title, drawn), encoding="utf-8")


def bar_of(engine: str, speed: float) -> tuple[str, float, str, Colour]:
    """Return a row of the plot."""
    return engine, speed, f"{speed:.0f}", "own" if engine.startswith("minisplade") else "other"


def table(rows: list[Row]) -> str:
    """Compare engines on splade-tiny."""
    lines = [
        "| engine | docs/s | tokens/s | one query, ms: p50, p99 | fresh process, s | peak MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        query = f"{row['query_ms_p50']:.2f}, {row['query_ms_p99']:.2f}"
        lines.append(
            f"| {row['engine']} | {row['docs_per_s']:.0f} | {row['tokens_per_s']:,} | {query} "
            f"| {row['cold_start_s']:.2f} | {row['peak_mb']} |"
        )
    return "\n".join(lines)


def shapes(rows: list[Row]) -> str:
    """Compare minisplade with sentence-transformers for each shape and number of threads."""
    lines = ["| shape | threads | minisplade, docs/s | times sentence-transformers |"]
    lines.append("|---|---|---|---|")
    speed = {(r["shape"], r["threads"], r["engine"]): float(r["docs_per_s"]) for r in rows}
    for (shape, threads, engine), ours in speed.items():
        theirs = speed.get((shape, threads, "sentence-transformers"))
        if engine == "minisplade":
            times = f"{ours / theirs:.1f}" if theirs else "-"
            lines.append(f"| {shape} | {threads} | {ours:.1f} | {times} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

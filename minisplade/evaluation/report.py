"""A report of an evaluation: one HTML page that needs nothing else, the same in Markdown, files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from minisplade import __version__
from minisplade.evaluation import figures
from minisplade.evaluation.compare import MAIN_MEASURE, Comparison, Evaluation, SystemResult
from minisplade.evaluation.metrics import MEASURES
from minisplade.evaluation.tradeoffs import Point
from minisplade.evaluation.trec import write_run
from minisplade.files import replacing
from minisplade.pages import element, page

EXTREMES = 5
"""Queries shown of those that win most and that lose most."""

SIGNIFICANT = 0.05

NOTES = """Gains are those of the judgements, and ideal rankings are over all judged documents; RR
is the reciprocal rank of the first relevant document, AP average precision, R recall. An asterisk
marks a difference of {measure} from {baseline} that a two-sided randomization test finds less than
{significant:.0%} likely to be chance. Search is the median of single queries for ten documents on
one thread, without encoding, which took {encode:.1f} ms. Documents were cut after {length} tokens.
Made with minisplade {version}."""


def write_report(
    evaluation: Evaluation, folder: str | os.PathLike[str], command: str | None = None
) -> Path:
    """Write report.html, report.md with its figures, runs and values of each query to a folder.

    command: what made the evaluation, to be shown. Returns the path of the page. Raises InputError
    where names of documents cannot stand in a run.
    """
    target = Path(folder)
    drawn: dict[str, str] = {"quality": _quality_figure(evaluation)}
    for comparison in evaluation.comparisons:
        drawn |= _figures(comparison)
    for name, svg in drawn.items():
        _write(target / "figures" / f"{name}.svg", svg)
    _write(target / "report.html", _html(evaluation, drawn, command))
    _write(target / "report.md", _markdown(evaluation, drawn, command))
    _write(target / "results.json", json.dumps(results(evaluation), indent=1))
    for comparison in evaluation.comparisons:
        name = comparison.collection.name
        _write(target / f"{name}.queries.tsv", _query_table(comparison))
        for system, result in comparison.systems.items():
            write_run(target / "runs" / f"{name}.{system}.trec", result.run, system)
    return target / "report.html"


def results(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return one row for each system on each collection, for programs."""
    rows = []
    for comparison in evaluation.comparisons:
        for system, result in comparison.systems.items():
            row: dict[str, Any] = {"collection": comparison.collection.name, "system": system}
            row |= {name: round(result.mean(name), 6) for name in MEASURES}
            row["p_value"] = result.p_value
            row["search_ms"] = result.search_ms and round(result.search_ms, 4)
            row["index_bytes"] = result.index_bytes
            if system == "splade":
                row["metrics"] = comparison.metrics
            rows.append(row)
    return rows


Cells = list[list[str]]


def summary_table(evaluation: Evaluation) -> Cells:
    """Return the main measure of every system, a row for each collection; the first row names."""
    systems = list(dict.fromkeys(s for own in evaluation.comparisons for s in own.systems))
    rows = [["collection", *systems, "documents", "queries"]]
    for comparison in evaluation.comparisons:
        collection = comparison.collection
        counts = [f"{len(collection.documents):,}", f"{len(collection.queries):,}"]
        means = [
            _marked(comparison.systems[name]) if name in comparison.systems else ""
            for name in systems
        ]
        rows.append([collection.name, *means, *counts])
    everywhere = [s for s in systems if all(s in own.systems for own in evaluation.comparisons)]
    if len(evaluation.comparisons) > 1 and everywhere == systems:
        means = [
            f"{np.mean([own.systems[name].mean() for own in evaluation.comparisons]):.4f}"
            for name in systems
        ]
        rows.append(["mean", *means, "", ""])
    return rows


def system_table(comparison: Comparison) -> Cells:
    """Return all measures of a collection, a row for each system; the first row names."""
    rows = [["system", *MEASURES, f"p against {comparison.baseline}", "search ms", "index MB"]]
    for name, result in comparison.systems.items():
        p_value = "" if result.p_value is None else f"{result.p_value:.4f}"
        search = "" if result.search_ms is None else f"{result.search_ms:.2f}"
        size = "" if result.index_bytes is None else f"{result.index_bytes / 1e6:.1f}"
        rows.append([name, *(f"{result.mean(m):.4f}" for m in MEASURES), p_value, search, size])
    return rows


def extremes_table(comparison: Comparison, system: str) -> Cells:
    """Return the queries that a system gains most on against the baseline, and loses most on."""
    gains = _gains(comparison, system)
    ordered = sorted(gains, key=lambda query: (-gains[query], query))
    best = [query for query in ordered[:EXTREMES] if gains[query] > 0]
    worst = [query for query in ordered[::-1][:EXTREMES] if gains[query] < 0]
    texts = comparison.collection.queries
    rows = [[f"{system} against {comparison.baseline}", "query"]]
    return rows + [[f"{gains[q]:+.3f}", _shortened(texts[q])] for q in (*best, *worst[::-1])]


def _gains(comparison: Comparison, system: str) -> dict[str, float]:
    own = comparison.systems[system].values[MAIN_MEASURE]
    base = comparison.systems[comparison.baseline].values[MAIN_MEASURE]
    return {query: own[query] - base[query] for query in comparison.collection.queries}


def _marked(result: SystemResult) -> str:
    is_significant = result.p_value is not None and result.p_value < SIGNIFICANT
    return f"{result.mean():.4f}{'*' if is_significant else ''}"


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 120 else f"{line[:119].rstrip()}…"


def _quality_figure(evaluation: Evaluation) -> str:
    groups = {
        own.collection.name: {name: result.mean() for name, result in own.systems.items()}
        for own in evaluation.comparisons
    }
    return figures.grouped_bars(f"{MAIN_MEASURE} of each system", groups)


def _figures(comparison: Comparison) -> dict[str, str]:
    """Draw what there is to draw of one collection, by name."""
    name, base = comparison.collection.name, comparison.baseline
    drawn = {}
    for system in comparison.systems:
        if system != base:
            title = f"{name}: {MAIN_MEASURE} of {system} less that of {base}"
            gains = list(_gains(comparison, system).values())
            drawn[f"{name}.{system}"] = figures.differences(title, gains, "queries")
    shown = comparison.tradeoffs
    if shown is None:
        return drawn
    level = comparison.systems[base].mean()
    dims = _curve(shown.active_dims, ("all", shown.quality))
    bits = _curve(shown.impact_bits, ("32", shown.quality))
    drawn[f"{name}.active_dims"] = figures.curves(
        f"{name}: {MAIN_MEASURE} by terms of a document",
        {base: [(setting, level) for setting, _ in dims], "the model": dims},
        "max_active_dims of documents",
    )
    drawn[f"{name}.impact_bits"] = figures.curves(
        f"{name}: {MAIN_MEASURE} by bits of an impact",
        {base: [(setting, level) for setting, _ in bits], "the model": bits},
        "bits of an impact",
    )
    sizes = {"queries": shown.query_sizes.tolist(), "documents": shown.document_sizes.tolist()}
    drawn[f"{name}.sizes"] = figures.histogram(
        f"{name}: share of vectors by number of active terms", sizes, "active terms"
    )
    return drawn


def _curve(points: Sequence[Point], whole: tuple[str, float]) -> list[tuple[str, float]]:
    return [*((str(point.setting), point.quality) for point in points), whole]


def tradeoff_table(comparison: Comparison) -> Cells:
    """Return what shorter vectors and coarser impacts cost and save; the first row names."""
    shown = comparison.tradeoffs
    rows = [["setting", MAIN_MEASURE, "postings left"]]
    if shown is None:
        return rows
    kinds = (("terms a document: {}", shown.active_dims), ("bits an impact: {}", shown.impact_bits))
    for label, points in kinds:
        for point in points:
            row = [label.format(point.setting), f"{point.quality:.4f}", f"{point.postings:.0%}"]
            rows.append(row)
    return [*rows, ["as they are", f"{shown.quality:.4f}", "100%"]]


def _sections(comparison: Comparison) -> list[Cells]:
    """Return the tables of one collection."""
    others = [name for name in comparison.systems if name != comparison.baseline]
    tables = [system_table(comparison)]
    if comparison.tradeoffs is not None:
        tables.append(tradeoff_table(comparison))
    return tables + [extremes_table(comparison, name) for name in others]


def _notes(evaluation: Evaluation) -> str:
    return NOTES.format(
        measure=MAIN_MEASURE,
        baseline=evaluation.comparisons[0].baseline,
        significant=SIGNIFICANT,
        encode=evaluation.encode_ms,
        length=evaluation.max_seq_length,
        version=__version__,
    )


def _html(evaluation: Evaluation, drawn: dict[str, str], command: str | None) -> str:
    title = f"Retrieval quality of {evaluation.model}"
    body = [f"<h1>{escape(title)}</h1>", _html_table(summary_table(evaluation))]
    body += [f'<p class="quiet">{escape(_notes(evaluation))}</p>']
    if command:
        body += [f"<p><code>{escape(command)}</code></p>"]
    body += [f'<div class="figures">{drawn["quality"]}</div>']
    for comparison in evaluation.comparisons:
        name = comparison.collection.name
        own = [svg for key, svg in drawn.items() if key.startswith(f"{name}.")]
        first, *others = _sections(comparison)
        body += [f"<h2>{escape(name)}</h2>", _html_table(first)]
        body += [f'<div class="figures">{"".join(own)}</div>', *map(_html_table, others)]
    return page(title, "\n".join(body))


def _html_table(rows: Cells) -> str:
    """Return a table that scrolls on its own where it is too wide."""
    lines = []
    for place, row in enumerate(rows):
        tag = "td" if place else "th"
        cells = [
            element(tag, escape(cell), class_="number" if _is_number(column, rows) else "words")
            for column, cell in enumerate(row)
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _is_number(column: int, rows: Cells) -> bool:
    cells = [row[column] for row in rows[1:]]
    return all(not cell or cell[0] in "+-.0123456789" for cell in cells) and column > 0


def _markdown(evaluation: Evaluation, drawn: dict[str, str], command: str | None) -> str:
    lines = [
        f"# Retrieval quality of {evaluation.model}",
        "",
        *markdown_table(summary_table(evaluation)),
    ]
    lines += ["", _notes(evaluation).replace("\n", " "), ""]
    if command:
        lines += [f"    {command}", ""]
    lines += ["![Quality of each system](figures/quality.svg)", ""]
    for comparison in evaluation.comparisons:
        name = comparison.collection.name
        first, *others = _sections(comparison)
        lines += [f"## {name}", "", *markdown_table(first), ""]
        lines += [f"![{key}](figures/{key}.svg)" for key in drawn if key.startswith(f"{name}.")]
        for table in others:
            lines += ["", *markdown_table(table)]
        lines.append("")
    return "\n".join(lines)


def markdown_table(rows: Cells) -> list[str]:
    """Return the lines of a table; the first row names its columns."""
    cells = [[escape(cell, quote=False).replace("|", "\\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def _query_table(comparison: Comparison) -> str:
    """Return tab-separated lines: each query with every measure of every system."""
    systems = comparison.systems
    names = [f"{system}:{name}" for system in systems for name in MEASURES]
    lines = ["\t".join(["query_id", "query", "relevant", *names])]
    relevant = comparison.collection.relevant
    for query, text in comparison.collection.queries.items():
        values = [f"{own.values[m][query]:.4f}" for own in systems.values() for m in MEASURES]
        text = " ".join(text.split())
        lines.append("\t".join([query, text, str(len(relevant[query])), *values]))
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())

"""What people and programs see: tables, JSON lines and messages; the only module that prints."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from minisplade.terminal import BOLD, on_one_line, styled, width

if TYPE_CHECKING:
    from tqdm import tqdm

    from minisplade.encoder import SparseEncoder
    from minisplade.explain import Explanation, MatchExplanation
    from minisplade.hub import KnownModel
    from minisplade.index import Hits, Index
    from minisplade.records import Record
    from minisplade.trace import Trace
    from minisplade.vectors import SparseVector, SparseVectors

SHOWN_TERMS = 6
SHOWN_BARS = 30
INDENT = " " * 14


def prepare_output() -> None:
    """Make every text printable: pipes carry UTF-8, terminals show ? for what they cannot."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller, as with `>&-`
            setattr(sys, name, open(os.devnull, "w"))
    if isinstance(sys.stdout, TextIOWrapper):
        if sys.stdout.isatty():
            sys.stdout.reconfigure(errors="replace")
        else:
            sys.stdout.reconfigure(encoding="utf-8")


def drop_output() -> None:
    """Send the rest nowhere when the reader, such as `head`, has left, or Python complains."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def wants_json(chosen: bool) -> bool:
    """Tell whether to print JSON lines: when asked to, or when a program reads."""
    return chosen or not sys.stdout.isatty()


def say(message: str) -> None:
    """Tell the person something that is no result."""
    print(message, file=sys.stderr, flush=True)


def print_line(line: str) -> None:
    """Print one line of results."""
    print(line)


def print_json(row: dict[str, Any]) -> None:
    """Print one row of results for programs."""
    print(json.dumps(row, ensure_ascii=False))


def rounded(terms: dict[str, float]) -> dict[str, float]:
    """Shorten weights to what float32 tells apart in practice."""
    return {term: round(weight, 4) for term, weight in terms.items()}


def with_progress(
    blocks: Iterable["SparseVectors"], total: int | None = None
) -> Iterator["SparseVectors"]:
    """Show on a terminal how many texts are encoded."""
    with progress(total) as bar:
        for block in blocks:
            bar.update(len(block))
            yield block


def progress(total: int | None) -> "tqdm[Any]":
    """Return a bar that a terminal shows, to be told how many texts more are encoded."""
    from tqdm import tqdm

    shown = sys.stderr.isatty()
    return tqdm(total=total, unit=" texts", desc="Encoding", disable=not shown)


def print_table(title: str, rows: list[list[str]]) -> None:
    """Print rows under a title, the first of which names the columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"\n{styled(title, BOLD)}")
    for row in rows:
        first, *others = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(["", first.strip().ljust(widths[0]), *others]).rstrip())


def print_model(model: "KnownModel", cached: bool, as_json: bool) -> None:
    """Print one known model."""
    if as_json:
        row = {"name": model.name, "repo_id": model.repo_id, "cached": cached}
        print_json({**row, "summary": model.summary})
    else:
        print(f"{model.name:20} {'cached' if cached else '-':7} {model.summary}")


def print_report(report: dict[str, Any], as_json: bool) -> None:
    """Print named rows, of which some are lists."""
    if as_json:
        print_json(report)
        return
    width = max(map(len, report)) + 2
    for name, content in report.items():
        lines = content if isinstance(content, list) else [content]
        for number, line in enumerate(lines):
            print(f"{name if number == 0 else '':{width}}{on_one_line(str(line))}")


def print_hits(
    index: "Index",
    encoder: "SparseEncoder",
    query: "Record",
    vector: "SparseVector",
    hits: "Hits",
    as_json: bool,
) -> None:
    """Print the hits of one query, each with the terms that made its score."""
    if not as_json:
        print(f"\n{styled(on_one_line(query.text), BOLD)}")
        if not hits:
            print("  no document shares a term with this query")
    for rank, hit in enumerate(hits, start=1):
        shares = index.matching_terms(vector, hit.doc_id)
        terms = {encoder.terms[term_id]: share for term_id, share in shares}
        if not as_json:
            _print_hit(rank, hit.score, hit.key, hit.text, terms)
            continue
        row = {"query_id": query.key, "query": query.text, "rank": rank, "key": hit.key}
        row |= {"score": round(hit.score, 4), "terms": rounded(terms)}
        row |= {"metadata": hit.metadata} if hit.metadata else {}
        print_json(row if hit.text is None else {**row, "text": hit.text})


def print_explanation(explanation: "Explanation", top: int | None, as_json: bool) -> None:
    """Print where the terms of a text come from."""
    from minisplade.explain.view import explanation_lines

    if not as_json:
        print("\n".join(explanation_lines(explanation, top or SHOWN_BARS)))
        return
    for term in explanation.terms[:top]:
        token = explanation.tokens[term.position]
        row = {"term": term.term, "weight": round(term.weight, 4), "expansion": term.is_expansion}
        print_json({**row, "token": token.string, "span": token.span})


def print_match(found: "MatchExplanation", top: int | None, as_json: bool) -> None:
    """Print what makes the score of a document."""
    from minisplade.explain.view import match_lines

    if not as_json:
        print("\n".join(match_lines(found, top or SHOWN_BARS)))
        return
    for matched in found.terms[:top]:
        row: dict[str, Any] = {"term": matched.term, "share": round(matched.share, 4)}
        sides = {
            "query": (found.query, matched.query),
            "document": (found.document, matched.document),
        }
        for side, (explanation, term) in sides.items():
            token = explanation.tokens[term.position]
            row[side] = {"weight": round(term.weight, 4), "token": token.string, "span": token.span}
        print_json(row)


def print_trace(trace: "Trace", as_json: bool) -> None:
    """Print a walk through the model, or one row for each of its stages."""
    from minisplade.trace.walk import walk

    if not as_json:
        print("\n".join(walk(trace)))
        return
    for stage in trace.stages:
        shapes = {name: [str(a.dtype), *a.shape] for name, a in stage.arrays.items()}
        print_json({"stage": stage.name, "functions": stage.functions, "arrays": shapes})


def _print_hit(
    rank: int, score: float, key: str, text: str | None, terms: dict[str, float]
) -> None:
    print(f"{rank:3}  {score:7.3f}  {styled(on_one_line(key), BOLD)}")
    if text is not None:
        print(f"{INDENT}{_snippet(text)}")
    shown = [f"{term} {share:.1f}" for term, share in list(terms.items())[:SHOWN_TERMS]]
    more = f" and {len(terms) - SHOWN_TERMS} more" if len(terms) > SHOWN_TERMS else ""
    print(f"{INDENT}= {' + '.join(shown)}{more}")


def _snippet(text: str) -> str:
    """Return the beginning of a text, as much as fits on a line."""
    room = max(width() - len(INDENT), 20)
    line = on_one_line(text[: 8 * room])
    return line if len(line) <= room else f"{line[: room - 1].rstrip()}…"

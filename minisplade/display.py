"""What people and programs see: tables, JSON lines and messages; the only module that prints."""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minisplade.encoder import SparseEncoder
    from minisplade.hub import KnownModel
    from minisplade.index import Hits, Index
    from minisplade.records import Record
    from minisplade.vectors import SparseVector, SparseVectors

SHOWN_TERMS = 6
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
    from tqdm import tqdm

    shown = sys.stderr.isatty()
    with tqdm(total=total, unit=" texts", desc="Encoding", disable=not shown) as bar:
        for block in blocks:
            bar.update(len(block))
            yield block


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
            print(f"{name if number == 0 else '':{width}}{_on_one_line(str(line))}")


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
        print(f"\n{_bold(_on_one_line(query.text))}")
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
        print_json(row if hit.text is None else {**row, "text": hit.text})


def _print_hit(
    rank: int, score: float, key: str, text: str | None, terms: dict[str, float]
) -> None:
    print(f"{rank:3}  {score:7.3f}  {_bold(_on_one_line(key))}")
    if text is not None:
        print(f"{INDENT}{_snippet(text)}")
    shown = [f"{term} {share:.1f}" for term, share in list(terms.items())[:SHOWN_TERMS]]
    more = f" and {len(terms) - SHOWN_TERMS} more" if len(terms) > SHOWN_TERMS else ""
    print(f"{INDENT}= {' + '.join(shown)}{more}")


def _snippet(text: str) -> str:
    """Return the beginning of a text, as much as fits on a line."""
    width = max(shutil.get_terminal_size((110, 24)).columns - len(INDENT), 20)
    line = _on_one_line(text[: 8 * width])
    return line if len(line) <= width else f"{line[: width - 1].rstrip()}…"


def _on_one_line(text: str) -> str:
    """Join lines, and replace characters that could steer the terminal."""
    line = " ".join(text.split())
    return "".join(character if character.isprintable() else "�" for character in line)


def _bold(text: str) -> str:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain or not sys.stdout.isatty() else f"\033[1m{text}\033[0m"

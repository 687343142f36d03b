"""Files of the Text Retrieval Conference and of those who followed: runs, judgements, topics."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from minisplade.errors import InputError
from minisplade.files import replacing
from minisplade.records import read_lines

Qrels: TypeAlias = dict[str, dict[str, int]]
"""Judgements: by query, the grade of each judged document; above 0 is relevant."""

Run: TypeAlias = dict[str, dict[str, float]]
"""Rankings: by query, the score of each document found, best first."""

Path: TypeAlias = str | os.PathLike[str]

TOPIC = re.compile(r"<top\b.*?(?=<top\b|</top>|\Z)|<topic\b.*?</topic>", re.S | re.I)
NUMBER = re.compile(r"<num>\s*(?:Number:)?\s*([^\s<]+)|<topic\s[^>]*number=\"([^\"]+)\"", re.I)
TITLE = re.compile(r"<(title|query)>\s*(?:Topic:)?(.*?)(?=<|\Z)", re.S | re.I)


def read_run(path: Path) -> Run:
    """Read a run: a line is `query Q0 document rank score tag`, split at spaces or tabs.

    Ranks are ignored, as trec_eval does; documents come by score, equal ones as in the file.
    Raises InputError, naming file and line.
    """
    run: Run = {}
    for number, line in read_lines(os.fspath(path)):
        parts = line.split()
        if len(parts) != 6:
            raise InputError(
                f"{path}, line {number}: {len(parts)} fields; expected 6: query Q0 document rank "
                "score tag"
            )
        own = run.setdefault(parts[0], {})
        if parts[2] in own:
            raise InputError(
                f"{path}, line {number}: query {parts[0]} has document {parts[2]} twice"
            )
        own[parts[2]] = _number(path, number, parts[4])
    return {
        query: dict(sorted(own.items(), key=lambda pair: -pair[1])) for query, own in run.items()
    }


def write_run(path: Path, run: Mapping[str, Mapping[str, float]], tag: str = "minisplade") -> None:
    """Write a run for trec_eval and its kin, all or nothing.

    Raises InputError for names with spaces, which no reader could split again.
    """
    for name in (tag, *run, *(key for own in run.values() for key in own)):
        if not name or len(name.split()) != 1 or name != name.strip():
            raise InputError(f"{name!r} cannot stand in a run: names are split at spaces")
    with replacing(path) as file:
        for query, own in run.items():
            for rank, (key, score) in enumerate(own.items(), start=1):
                file.write(f"{query} Q0 {key} {rank} {score!r} {tag}\n".encode())


def read_qrels(path: Path) -> Qrels:
    """Read judgements: `query 0 document grade` as TREC and MS MARCO write them, or BEIR's TSV.

    BEIR's has the columns query-id, corpus-id and score, named by a first line. Raises InputError,
    naming file and line.
    """
    qrels: Qrels = {}
    for number, line in read_lines(os.fspath(path)):
        parts = line.split("\t") if "\t" in line else line.split()
        if number == 1 and parts[0] in ("query-id", "query_id"):
            continue
        if len(parts) not in (3, 4):
            raise InputError(
                f"{path}, line {number}: {len(parts)} fields; expected query, document and grade, "
                "or query, 0, document and grade"
            )
        grade = _number(path, number, parts[-1])
        if grade != int(grade):
            raise InputError(f"{path}, line {number}: grade {parts[-1]} is no whole number")
        qrels.setdefault(parts[0].strip(), {})[parts[-2].strip()] = int(grade)
    return qrels


def read_topics(path: Path) -> dict[str, str]:
    """Read the queries of TREC topics, marked by tags, or of lines `number<TAB>query`.

    Of a topic with tags the title is the query, or the element query in newer ones. Raises
    InputError.
    """
    text = "\n".join(line for _, line in read_lines(os.fspath(path)))
    if not text.lstrip().startswith("<"):
        return dict(_tab_separated(path))
    topics: dict[str, str] = {}
    for topic in TOPIC.findall(text):
        number, title = NUMBER.search(topic), TITLE.search(topic)
        if number is None or title is None:
            shown = " ".join(topic.split())[:60]
            raise InputError(f"{path}: a topic without number or title: {shown}")
        topics[number[1] or number[2]] = " ".join(title[2].split())
    if not topics:
        raise InputError(f"{path} has no <top> or <topic>")
    return topics


def _tab_separated(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in read_lines(os.fspath(path)):
        key, tab, text = line.partition("\t")
        if not tab:
            raise InputError(f"{path}, line {number}: no tab; expected number<TAB>query")
        yield key.strip(), text.strip()


def _number(path: Path, line: int, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{path}, line {line}: {text!r} is not a number") from None

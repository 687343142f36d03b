"""Test collections: documents, queries and which of the one are relevant to the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minisplade.errors import InputError
from minisplade.evaluation.trec import Qrels, read_qrels, read_topics
from minisplade.records import read_lines, read_records

DOCUMENTS = ("corpus.jsonl", "collection.tsv", "docs.tsv", "msmarco-docs.tsv", "corpus.tsv")
QUERIES = (
    *("queries.jsonl", "queries.{split}.tsv", "queries.tsv"),
    *("topics.{split}.txt", "topics.{split}.xml", "topics.{split}.tsv"),
    *("topics.txt", "topics.xml", "topics.tsv"),
)
QRELS = ("qrels/{split}.tsv", "qrels.{split}.tsv", "qrels.{split}.txt", "qrels.tsv", "qrels.txt")

MSMARCO_DOCUMENT_FIELDS = 4
"""Fields of a line of msmarco-docs.tsv: id, url, title and body."""


@dataclass(frozen=True, slots=True)
class Collection:
    """A test collection; every query has a relevant document, which the collection may lack."""

    name: str
    documents: dict[str, str]  # text by key, in the order of the file
    queries: dict[str, str]
    qrels: Qrels  # of these queries; a grade above 0 is relevant

    @property
    def relevant(self) -> dict[str, set[str]]:
        """The relevant documents of each query."""
        return {
            query: {key for key, grade in own.items() if grade > 0}
            for query, own in self.qrels.items()
        }


def load_collection(
    path: str | os.PathLike[str],
    split: str = "test",
    *,
    documents: str | os.PathLike[str] | None = None,
    queries: str | os.PathLike[str] | None = None,
    qrels: str | os.PathLike[str] | None = None,
) -> Collection:
    """Read a folder in the layout of BEIR, of MS MARCO or with TREC's topics and judgements.

    Looks for the names in DOCUMENTS, QUERIES and QRELS, each also as .gz, {split} being split,
    such as "dev.small"; documents, queries and qrels name other files. Queries without a relevant
    document are left out, as trec_eval and sentence-transformers do. Raises InputError.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{path} is not a folder; expected one with a test collection")
    judged = read_qrels(_file(folder, QRELS, qrels, split, "judgements"))
    kept = {query: own for query, own in judged.items() if any(g > 0 for g in own.values())}
    texts = dict(read_queries(_file(folder, QUERIES, queries, split, "queries")))
    if missing := [query for query in kept if query not in texts]:
        if len(missing) == len(kept):
            raise InputError(f"{path}: no query of the judgements is among the queries")
        kept = {query: own for query, own in kept.items() if query in texts}
    if not kept:
        raise InputError(f"{path}: no query has a relevant document")
    return Collection(
        name=folder.resolve().name,
        documents=dict(read_documents(_file(folder, DOCUMENTS, documents, split, "documents"))),
        queries={query: texts[query] for query in texts if query in kept},
        qrels={query: kept[query] for query in texts if query in kept},
    )


def read_queries(path: Path) -> Iterator[tuple[str, str]]:
    """Yield key and text of each query of JSON lines, TREC topics or lines `key<TAB>text`."""
    if ".jsonl" in path.name:
        yield from ((record.key, record.text) for record in read_records(str(path)))
    else:
        yield from read_topics(path).items()


def read_documents(path: Path) -> Iterator[tuple[str, str]]:
    """Yield key and text of each document of JSON lines, or of MS MARCO's files with tabs.

    Title and text, or title and body, are joined by a space. Raises InputError, naming the line.
    """
    if ".jsonl" in path.name:
        records = read_records(str(path), distinct_keys=True)
        yield from ((record.key, record.text) for record in records)
        return
    seen: set[str] = set()
    for number, line in read_lines(str(path)):
        key, *fields = line.split("\t")
        if not fields:
            raise InputError(f"{path}, line {number}: no tab; expected key<TAB>text")
        if key in seen:
            raise InputError(f"{path}, line {number}: key {key!r} came before")
        seen.add(key)
        if len(fields) == MSMARCO_DOCUMENT_FIELDS - 1:
            fields = fields[1:]  # without the address
        yield key, " ".join(fields).strip()


def _file(
    folder: Path,
    names: tuple[str, ...],
    chosen: str | os.PathLike[str] | None,
    split: str,
    what: str,
) -> Path:
    """Return the first file there is."""
    if chosen is not None:
        return Path(chosen)
    wanted = [name.format(split=split) for name in names]
    for name in wanted:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise InputError(f"{folder} has no {what}: there is none of {', '.join(wanted)}")

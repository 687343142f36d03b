"""Documents beside the postings: keys, texts and metadata, in memory or in an SQLite file."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeAlias

from minisplade.errors import IndexFormatError, InputError

Row: TypeAlias = tuple[str, str | None, str | None]
"""Key, text, and metadata as JSON."""

Bounds: TypeAlias = Sequence[tuple[str, Any]]
"""Comparisons that one value of a field must pass: an operator of SQL, and a value."""

SCHEMA = """
CREATE TABLE documents (doc_id INTEGER PRIMARY KEY, key TEXT NOT NULL, text TEXT, metadata TEXT);
CREATE TABLE fields (
    name TEXT, value, doc_id INTEGER, PRIMARY KEY (name, value, doc_id)
) WITHOUT ROWID;
"""

KEYS_PER_QUERY = 500
"""Older SQLite takes no more than 999 parameters."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document as it is stored."""

    key: str
    text: str | None = None
    metadata: dict[str, Any] | None = None


class Documents(Protocol):
    """What a segment asks of its documents, which are numbered from 0."""

    def rows(self, doc_ids: Iterable[int]) -> Iterator[Row]:
        """Yield some documents, in the order asked for."""
        ...

    def find(self, keys: Sequence[str]) -> dict[str, int]:
        """Return the numbers of those keys that are there."""
        ...

    def with_field(self, name: str, bounds: Bounds) -> list[int]:
        """Return the documents that have a value in a field which passes all comparisons."""
        ...

    def check(self, num_docs: int) -> None:
        """Raise IndexFormatError unless all documents are there, whole."""
        ...


class HeldDocuments:
    """Documents in memory, without metadata."""

    def __init__(self, keys: Sequence[str], texts: Sequence[str] | None = None) -> None:
        self.keys = tuple(keys)
        self.texts = None if texts is None else tuple(texts)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {key: doc_id for doc_id, key in enumerate(self.keys)}

    def rows(self, doc_ids: Iterable[int]) -> Iterator[Row]:
        """Yield some documents, in the order asked for."""
        texts = self.texts
        return ((self.keys[i], None if texts is None else texts[i], None) for i in doc_ids)

    def find(self, keys: Sequence[str]) -> dict[str, int]:
        """Return the numbers of those keys that are there."""
        return {key: self._places[key] for key in keys if key in self._places}

    def with_field(self, name: str, bounds: Bounds) -> list[int]:
        """Return no documents, as there is no metadata."""
        return []

    def check(self, num_docs: int) -> None:
        """Do nothing: memory is trusted."""


class StoredDocuments:
    """Documents in an SQLite file that never changes.

    The file is opened at once, so that it stays readable after its name is gone.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        uri = f"{Path(os.path.abspath(path)).as_uri()}?mode=ro&immutable=1"
        try:
            self._connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        except sqlite3.Error as error:
            raise IndexFormatError(f"{path} cannot be opened: {error}") from error
        self._lock = threading.Lock()
        weakref.finalize(self, self._connection.close)

    def _ask(self, statement: str, parameters: Iterable[Any] = ()) -> list[Any]:
        try:
            with self._lock:
                return self._connection.execute(statement, tuple(parameters)).fetchall()
        except sqlite3.Error as error:
            raise IndexFormatError(f"{self.path} is damaged: {error}") from error

    def rows(self, doc_ids: Iterable[int]) -> Iterator[Row]:
        """Yield some documents, in the order asked for."""
        for doc_id in doc_ids:
            statement = "SELECT key, text, metadata FROM documents WHERE doc_id = ?"
            found = self._ask(statement, [int(doc_id)])
            if not found:
                raise IndexFormatError(f"{self.path} is damaged: document {doc_id} is missing")
            yield found[0]

    def find(self, keys: Sequence[str]) -> dict[str, int]:
        """Return the numbers of those keys that are there."""
        found: dict[str, int] = {}
        keys = [key for key in keys if is_text(key)]
        for start in range(0, len(keys), KEYS_PER_QUERY):
            asked = keys[start : start + KEYS_PER_QUERY]
            marks = ",".join("?" * len(asked))
            statement = f"SELECT key, doc_id FROM documents WHERE key IN ({marks})"
            found.update(self._ask(statement, asked))
        return found

    def with_field(self, name: str, bounds: Bounds) -> list[int]:
        """Return the documents that have a value in a field which passes all comparisons."""
        tests = "".join(f" AND value {operator} ?" for operator, _ in bounds)
        statement = f"SELECT DISTINCT doc_id FROM fields WHERE name = ?{tests}"
        return [row[0] for row in self._ask(statement, [name, *(value for _, value in bounds)])]

    def check(self, num_docs: int) -> None:
        """Raise IndexFormatError unless SQLite finds all in order and the documents are there."""
        problems = [row[0] for row in self._ask("PRAGMA integrity_check")]
        if problems != ["ok"]:
            raise IndexFormatError(f"{self.path} is damaged: {'; '.join(problems)}")
        found = self._ask("SELECT count(*), min(doc_id), max(doc_id) FROM documents")[0]
        if found != ((num_docs, 0, num_docs - 1) if num_docs else (0, None, None)):
            raise IndexFormatError(f"{self.path} does not number {num_docs} documents from 0 on")


def stored_documents(rows: Iterable[Row]) -> bytes:
    """Return the SQLite file of some documents; raises sqlite3.Error or OSError."""
    with TemporaryDirectory(prefix="minisplade-") as folder:
        path = os.path.join(folder, "documents")
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            # Only the finished file matters: it is made again after a crash.
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            connection.executescript(f"BEGIN; {SCHEMA}")
            rest = iter(rows)
            first = next(rest, None)
            if first:
                connection.execute("INSERT INTO documents VALUES (0, ?, ?, ?)", first)
            # SQLite numbers on by itself, faster than rows could be given numbers here.
            numbering_on = "INSERT INTO documents (key, text, metadata) VALUES (?, ?, ?)"
            connection.executemany(numbering_on, rest)
            some = "SELECT doc_id, metadata FROM documents WHERE metadata IS NOT NULL"
            stored = connection.execute(some)
            fields = (own for doc_id, metadata in stored for own in _fields_of(doc_id, metadata))
            connection.executemany("INSERT OR IGNORE INTO fields VALUES (?, ?, ?)", fields)
            connection.execute("CREATE UNIQUE INDEX documents_by_key ON documents (key)")
            connection.execute("COMMIT")
        finally:
            connection.close()
        return Path(path).read_bytes()


def _fields_of(doc_id: int, metadata: str) -> Iterator[tuple[str, Any, int]]:
    """Yield what filters may ask for: simple values, and those of lists."""
    for name, value in json.loads(metadata).items():
        for own in value if isinstance(value, list) else [value]:
            if isinstance(own, str | int | float):
                yield name, own, doc_id


def document_of(row: Row) -> Document:
    """Return a row with its metadata read."""
    key, text, metadata = row
    return Document(key, text, None if metadata is None else json.loads(metadata))


def is_text(text: Any) -> bool:
    """Tell whether something is a string that UTF-8 can hold, which half a surrogate pair is not.

    No other string is ever stored.
    """
    try:
        text.encode()
    except (AttributeError, UnicodeEncodeError):
        return False
    return isinstance(text, str)


def checked_metadata(metadata: Any, key: str) -> str | None:
    """Return the metadata of a document as JSON; raises InputError for what JSON cannot hold."""
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping) or not all(isinstance(name, str) for name in metadata):
        raise InputError(f"metadata of {key!r} is {metadata!r:.80}; expected a dict with str keys")
    try:
        dumped = json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False)
        dumped.encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"metadata of {key!r} is not JSON: {error}") from error
    for name, value in metadata.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, int) and not -(2**63) <= one < 2**63:
                raise InputError(f"{name!r} of {key!r} is {one}; expected at most 64 bits")
    return dumped

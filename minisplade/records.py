"""Documents from files: JSON lines, CSV, TSV or plain text, gzipped or not, or standard input."""

import csv
import gzip
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from minisplade.errors import InputError

KEY_FIELDS = ("_id", "id")
TEXT_FIELDS = ("title", "text")

csv.field_size_limit(sys.maxsize)  # a document may be longer than the module's 128 KiB


@dataclass(frozen=True, slots=True)
class Record:
    """One document or query."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a JSON object or CSV row make a record."""

    key: tuple[str, ...] = KEY_FIELDS  # the first one present
    text: tuple[str, ...] = TEXT_FIELDS  # those present, joined by a space


def read_records(
    path: str,
    fields: Fields | None = None,
    on_bad_line: Callable[[InputError], None] | None = None,
) -> Iterator[Record]:
    """Yield the records of a file, or of standard input where path is "-".

    The kind is told from the name: .jsonl (or .ndjson, .json), .csv, .tsv, anything else is plain
    text, one a line; .gz may follow. Standard input is JSON lines if its first line starts with
    "{". A record without a key field is named after its line. on_bad_line receives the error of
    each line that cannot be used, and the rest is read on; without it the error is raised.
    """
    fields = fields or Fields()
    with _opened(path) as lines:
        for number, read in _readers(path, lines, fields):
            try:
                record = read(number)
                if record is not None:
                    yield record
            except InputError as error:
                located = InputError(f"{_shown(path)}, line {number}: {error}")
                if on_bad_line is None:
                    raise located from None
                on_bad_line(located)


Reader = Callable[[int], Record | None]


def _readers(path: str, lines: TextIO, fields: Fields) -> Iterator[tuple[int, Reader]]:
    """Yield, per line, its number and what turns it into a record."""
    kind = Path(path.removesuffix(".gz")).suffix.lower()
    if kind in (".csv", ".tsv"):
        yield from _csv_readers(lines, "," if kind == ".csv" else "\t", fields)
        return
    is_json = kind in (".jsonl", ".ndjson", ".json")
    for number, line in enumerate(_decoded_lines(path, lines), start=1):
        is_json = is_json or (path == "-" and number == 1 and line.lstrip().startswith("{"))
        yield number, _line_reader(line, is_json, fields)


def _line_reader(line: str, is_json: bool, fields: Fields) -> Reader:
    def read(number: int) -> Record | None:
        if not line.strip():
            return None
        if not is_json:
            return Record(str(number), line.rstrip("\r\n"))
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"not JSON: {error}") from None
        if not isinstance(row, dict):
            raise InputError(f"JSON {type(row).__name__}; expected an object")
        return _record_of(row, number, fields)

    return read


def _csv_readers(lines: TextIO, delimiter: str, fields: Fields) -> Iterator[tuple[int, Reader]]:
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        # A quoted field may hold line breaks, so the reader knows the line, not a counter.
        number = rows.line_num + 1
        row: list[str] = []
        problem: str | None = None
        try:
            row = next(rows)
        except StopIteration:
            return
        except (csv.Error, UnicodeDecodeError) as error:
            problem = f"not {'CSV' if delimiter == ',' else 'TSV'}: {error}"
        if header is None and problem is None:
            header = row
            continue
        yield number, _row_reader(row, header or [], problem, fields)


def _row_reader(row: list[str], header: list[str], problem: str | None, fields: Fields) -> Reader:
    def read(number: int) -> Record | None:
        if problem:
            raise InputError(problem)
        if not row:
            return None
        if len(row) != len(header):
            raise InputError(f"{len(row)} fields; the first line names {len(header)}")
        return _record_of(dict(zip(header, row, strict=True)), number, fields)

    return read


def _record_of(row: dict[str, Any], number: int, fields: Fields) -> Record:
    """Pick key and text out of a row."""
    texts = [row[name] for name in fields.text if row.get(name) is not None]
    if not texts:
        raise InputError(
            f"no field {' or '.join(fields.text)}; there are {', '.join(map(str, row)) or 'none'}"
        )
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"text is {type(text).__name__} {text!r}; expected a string")
    key = next((row[name] for name in fields.key if row.get(name) is not None), number)
    if not isinstance(key, str | int):
        raise InputError(f"key is {type(key).__name__}; expected a string or whole number")
    return Record(str(key), " ".join(texts).strip())


def _decoded_lines(path: str, lines: Iterable[str]) -> Iterator[str]:
    try:
        yield from lines
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{_shown(path)} cannot be read: {error}") from error


@contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    """Open a file as UTF-8 text, whatever the locale; a byte order mark is dropped."""
    if path == "-":
        yield io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="")
        return
    try:
        opener = gzip.open if path.endswith(".gz") else open
        file = opener(path, "rt", encoding="utf-8-sig", newline="")
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror or error}") from error
    with file:
        yield file


def _shown(path: str) -> str:
    return "standard input" if path == "-" else path

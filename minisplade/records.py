"""Documents from files: JSON lines, CSV, TSV or plain text, gzipped or not, or standard input."""

import csv
import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from minisplade.errors import InputError

KEY_FIELDS = ("_id", "id")
TEXT_FIELDS = ("title", "text")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_KINDS = (".jsonl", ".ndjson", ".json")

# A document may be longer than the module's 128 KiB. More than this does not fit every C long.
csv.field_size_limit((1 << 31) - 1)


@dataclass(frozen=True, slots=True)
class Record:
    """One document or query."""

    key: str
    text: str
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a JSON object or CSV row make a record."""

    key: tuple[str, ...] = KEY_FIELDS  # the first one present
    text: tuple[str, ...] = TEXT_FIELDS  # those present, joined by a space
    metadata: tuple[str, ...] = ()  # those present are kept, for filters
    needs_key: bool = False  # without it, a record that has no key is named after its line


def read_records(
    path: str,
    fields: Fields | None = None,
    on_bad_line: Callable[[InputError], None] | None = None,
    distinct_keys: bool = False,
) -> Iterator[Record]:
    """Yield the records of a file, or of standard input where path is "-".

    The kind is told from the name: .jsonl (or .ndjson, .json), .csv, .tsv, anything else is plain
    text, one a line; .gz may follow. Standard input, and a file whose name has no ending, is JSON
    lines if its first line starts with "{". Blank lines are passed over.

    on_bad_line receives the error of each line that cannot be used, and the rest is read on;
    without it the error is raised. distinct_keys makes a line bad whose key came before. Raises
    InputError, naming file and line, also where the file itself cannot be read.
    """
    first_lines: dict[str, int] = {}
    with _opened(path) as file:
        lines = _Lines(file)
        try:
            read = _reader(path, lines, fields or Fields())
            while True:
                number = lines.number + 1
                try:
                    record = read(number)
                    if record is not None and distinct_keys:
                        _expect_new(record.key, number, first_lines)
                except StopIteration:
                    return
                except InputError as error:
                    located = InputError(f"{_shown(path)}, line {number}: {error}")
                    if on_bad_line is None:
                        raise located from None
                    on_bad_line(located)
                    continue
                if record is not None:
                    yield record
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(
                f"{_shown(path)} cannot be read past line {lines.number}: {error}"
            ) from error


def read_lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line that is not blank, without its end.

    path: as in read_records, of any kind. Raises InputError, naming file and line.
    """
    with _opened(path) as file:
        lines = _Lines(file)
        try:
            for line in lines:
                if line.strip():
                    yield lines.number, line.rstrip("\r\n")
        except InputError as error:
            raise InputError(f"{_shown(path)}, line {lines.number}: {error}") from None
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(
                f"{_shown(path)} cannot be read past line {lines.number}: {error}"
            ) from error


class _Lines:
    """The lines of a file, counted; one that is not UTF-8 raises InputError when its turn comes."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self.file)
        self.number += 1
        try:
            line.encode()
        except UnicodeEncodeError as error:
            raise InputError(_what_is_not_utf8(line, error.start)) from None
        return line


# Takes the number of the line where a record starts; None stands for a blank line.
Reader = Callable[[int], Record | None]


def _reader(path: str, lines: _Lines, fields: Fields) -> Reader:
    """Choose how the lines of a file become records."""
    kind = Path(path.removesuffix(".gz")).suffix.lower()
    if kind in DELIMITERS:
        return _csv_reader(path, lines, DELIMITERS[kind], fields)
    return _line_reader(lines, kind in JSON_KINDS if kind else None, fields)


def _line_reader(lines: _Lines, is_json: bool | None, fields: Fields) -> Reader:
    """Read one record a line; is_json None lets the first line tell."""

    def read(number: int) -> Record | None:
        nonlocal is_json
        line = next(lines).strip()
        if not line:
            return None
        if is_json is None:
            is_json = line.startswith("{")
        return _from_json(line, number, fields) if is_json else Record(str(number), line)

    return read


def _from_json(line: str, number: int, fields: Fields) -> Record:
    try:
        row = json.loads(line)
    except RecursionError:
        raise InputError("not JSON that can be read: it nests too deeply") from None
    except ValueError as error:
        raise InputError(f"not JSON: {error}; expected one object a line") from None
    if not isinstance(row, dict):
        raise InputError(f"the JSON is {_kind(row)}; expected one object a line")
    return _record_of(row, number, fields)


def _csv_reader(path: str, lines: _Lines, delimiter: str, fields: Fields) -> Reader:
    """Read one record a row, which may span lines, under the names that the first row gives."""
    rows = csv.reader(lines, delimiter=delimiter, strict=True)

    def read_row() -> list[str]:
        try:
            return next(rows)
        except csv.Error as error:
            raise InputError(f"not {'CSV' if delimiter == ',' else 'TSV'}: {error}") from None

    try:
        header = [name.strip() for name in next(_rows_of(read_row), [])]
        _check_header(header, fields)
    except InputError as error:
        # Without a header no line can be used, so there is nothing to skip.
        raise InputError(f"{path}, line {max(lines.number, 1)}: {error}") from None

    def read(number: int) -> Record | None:
        row = read_row()
        if not row:
            return None
        if len(row) != len(header):
            raise InputError(f"row of length {len(row)}; the first line names {len(header)} fields")
        return _record_of(dict(zip(header, row, strict=True)), number, fields)

    return read


def _rows_of(read_row: Callable[[], list[str]]) -> Iterator[list[str]]:
    """Yield the rows that are not blank; none for an empty file."""
    try:
        while True:
            if row := read_row():
                yield row
    except StopIteration:
        return


def _check_header(header: list[str], fields: Fields) -> None:
    """Raise InputError unless the first row of a table names the fields that are wanted, once."""
    if not header:
        return
    for name in {*fields.key, *fields.text}:
        if header.count(name) > 1:
            raise InputError(f"field {name!r} is there {header.count(name)} times")
    wanted = [fields.text, fields.key] if fields.needs_key else [fields.text]
    for names in wanted:
        if not set(names) & set(header):
            raise InputError(_no_field(names, header))


def _record_of(row: dict[str, Any], number: int, fields: Fields) -> Record:
    """Pick key and text out of a row."""
    found = {name: row[name] for name in fields.text if row.get(name) is not None}
    if not found:
        raise InputError(_no_field(fields.text, row))
    for name, text in found.items():
        if not isinstance(text, str):
            raise InputError(f"field {name!r} is {_kind(text)}; expected a string")
        _expect_unicode(name, text)
    key_field = next((name for name in fields.key if row.get(name) is not None), None)
    if key_field is None and fields.needs_key:
        raise InputError(_no_field(fields.key, row))
    key = number if key_field is None else row[key_field]
    if isinstance(key, bool) or not isinstance(key, str | int) or key == "":
        came = "empty" if key == "" else _kind(key)
        raise InputError(f"key {key_field!r} is {came}; expected a string or whole number")
    _expect_unicode(str(key_field), str(key))
    metadata = {name: row[name] for name in fields.metadata if row.get(name) is not None}
    return Record(str(key), " ".join(found.values()).strip(), metadata or None)


def _expect_new(key: str, number: int, first_lines: dict[str, int]) -> None:
    """Raise InputError for a key that an earlier line has."""
    if first_lines.setdefault(key, number) != number:
        raise InputError(f"key {key!r} is that of line {first_lines[key]} too; keys must differ")


def _expect_unicode(name: str, text: str) -> None:
    """Raise InputError for half of a surrogate pair, which JSON can spell but no text can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"field {name!r} has the lone surrogate {text[error.start]!r} at character "
            f"{error.start + 1}, which is not Unicode text"
        ) from None


def _no_field(names: tuple[str, ...], row: list[str] | dict[str, Any]) -> str:
    there = ", ".join(map(repr, row)) or "none"
    return f"no field {' or '.join(map(repr, names))} with a value; there are {there}"


def _kind(value: Any) -> str:
    """Name the kind of a JSON value as JSON does."""
    kinds = {bool: "a boolean", list: "an array", dict: "an object", str: "a string"}
    return "null" if value is None else kinds.get(type(value), "a number")


def _what_is_not_utf8(line: str, place: int) -> str:
    """Describe the first byte that _opened could not decode, and guess what the file is."""
    byte = ord(line[place]) & 0xFF
    if line.startswith(("\udcff\udcfe", "\udcfe\udcff")):
        return "UTF-16 text; convert it to UTF-8 first"
    return f"not UTF-8: byte 0x{byte:02x} after {place} characters"


@contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    """Open a file as UTF-8 text, whatever the locale; a byte order mark is dropped.

    What is not UTF-8 comes as lone surrogates, so that _Lines can tell which line is at fault.
    """
    if path != "-" and os.path.isdir(path):
        raise InputError(f"{path} is a folder; expected a file")
    if path == "-" and sys.stdin is None:
        raise InputError("standard input is closed")
    try:
        stored = sys.stdin.buffer if path == "-" else open(path, "rb")
        text = io.TextIOWrapper(
            _unzipped(path, stored), encoding="utf-8-sig", errors="surrogateescape", newline=""
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{_shown(path)} cannot be opened: {reason}") from error
    try:
        yield text
    finally:
        text.detach()  # so that standard input stays open
        if path != "-":
            stored.close()


def _unzipped(path: str, stored: Any) -> BinaryIO:
    """Unpack gzip, told by its name or its first two bytes."""
    if path.endswith(".gz") or stored.peek(2)[:2] == b"\x1f\x8b":
        return cast(BinaryIO, gzip.GzipFile(fileobj=stored))
    return cast(BinaryIO, stored)


def _shown(path: str) -> str:
    return "standard input" if path == "-" else path

"""Reading documents: every kind of input, and every way in which a line can be wrong."""

import gzip
import io
import json
import sys
from pathlib import Path

import pytest

from minisplade.errors import InputError
from minisplade.records import Fields, Record, read_records

DOG = Record("d", "the dog")


def read(folder: Path, name: str, content: bytes, fields: Fields | None = None) -> list[Record]:
    path = folder / name
    path.write_bytes(content)
    return list(read_records(str(path), fields))


def error_of(folder: Path, name: str, content: bytes, fields: Fields | None = None) -> str:
    """Return the message that reading ends with, the folder left out."""
    with pytest.raises(InputError) as caught:
        read(folder, name, content, fields)
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "the cat\nthe dog\n", [Record("1", "the cat"), Record("2", "the dog")]),
        ("a.txt", "the cat\r\nthe dog", [Record("1", "the cat"), Record("2", "the dog")]),
        ("a.txt", "\n  \nthe dog\n\n", [Record("3", "the dog")]),
        ("a.txt", "", []),
        ("a.txt", '{"text": "not JSON here"}\n', [Record("1", '{"text": "not JSON here"}')]),
        ("a.txt", "a\0b\n", [Record("1", "a\0b")]),
        ("a", '{"_id": "d", "text": "the dog"}\n', [DOG]),
        ("a.jsonl", '{"_id": "d", "text": "the dog"}\n', [DOG]),
        ("a.NDJSON", '{"id": "d", "text": "the dog"}\n', [DOG]),
        ("a.json", '\ufeff{"_id": "d", "text": "the dog"}\r\n\r\n', [DOG]),
        ("a.jsonl", '{"_id": "d", "title": "the", "text": "dog"}', [DOG]),
        ("a.jsonl", '{"_id": "d", "title": "", "text": "the dog"}', [DOG]),
        ("a.jsonl", '{"_id": "d", "title": null, "text": "the dog"}', [DOG]),
        ("a.jsonl", '{"_id": null, "id": 7, "text": "x", "year": 9}', [Record("7", "x")]),
        ("a.jsonl", '\n{"text": "x"}', [Record("2", "x")]),
        ("a.jsonl", '{"text": ""}', [Record("1", "")]),
        ("a.jsonl", '{"text": "\\ud83d\\ude00 \\u0000"}', [Record("1", "😀 \0")]),
        ("a.csv", "id,text\nd,the dog\n", [DOG]),
        ("a.csv", "\ufeffid, text\r\nd,the dog\r\n", [DOG]),
        ("a.csv", "id,text\rd,the dog\r", [DOG]),
        ("a.csv", "\n\nid,text\n\nd,the dog\n", [DOG]),
        ("a.csv", 'id,text\nd,"the ""dog"""\n', [Record("d", 'the "dog"')]),
        ("a.csv", 'text\n"two\nlines"\nlast\n', [Record("2", "two\nlines"), Record("4", "last")]),
        ("a.csv", "", []),
        ("a.csv", "id,text\n", []),
        ("a.tsv", "id\ttitle\ttext\nd\tthe\tdog\n", [DOG]),
    ],
)
def test_every_kind_of_file(
    tmp_path: Path, name: str, content: str, expected: list[Record]
) -> None:
    stored = content.encode()
    assert read(tmp_path, name, stored) == expected
    assert read(tmp_path, f"{name}.gz", gzip.compress(stored)) == expected


def test_gzip_is_told_by_content_too(tmp_path: Path) -> None:
    assert read(tmp_path, "a.txt", gzip.compress(b"the cat\n")) == [Record("1", "the cat")]


def test_fields_of_the_users_choice(tmp_path: Path) -> None:
    fields = Fields(key=("sku",), text=("notes", "name"), needs_key=True)
    table = b"sku,name,notes\nx1,Chair,four legs\n"
    assert read(tmp_path, "a.csv", table, fields) == [Record("x1", "four legs Chair")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt"])
def test_texts_may_be_huge(tmp_path: Path, name: str) -> None:
    text = "word " * 100_000 + "end"
    content = {"a.jsonl": json.dumps({"text": text}), "a.csv": f"text\n{text}", "a.txt": text}
    assert [record.text for record in read(tmp_path, name, content[name].encode())] == [text]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text"', "a.jsonl, line 2: not JSON: "),
        ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1: not JSON that can be read: it nests"),
        ("a.jsonl", b"[1]", "a.jsonl, line 1: the JSON is an array; expected one object a line"),
        ("a.jsonl", b"null", "a.jsonl, line 1: the JSON is null; expected one object a line"),
        ("a.json", b'[\n{"text": "a"}]', "a.json, line 1: not JSON: "),
        ("a.jsonl", b"{}", "line 1: no field 'title' or 'text' with a value; there are none"),
        ("a.jsonl", b'{"txt": "a"}', "with a value; there are 'txt'"),
        ("a.jsonl", b'{"text": 5}', "line 1: field 'text' is a number; expected a string"),
        ("a.jsonl", b'{"text": ["a"]}', "field 'text' is an array; expected a string"),
        ("a.jsonl", b'{"id": 1.5, "text": ""}', "key 'id' is a number; expected a string or whole"),
        ("a.jsonl", b'{"id": true, "text": ""}', "key 'id' is a boolean; expected"),
        ("a.jsonl", b'{"id": "", "text": ""}', "key 'id' is empty; expected"),
        ("a.jsonl", b'{"text": "ab\\ud800"}', "field 'text' has the lone surrogate '\\ud800' at"),
        ("a.jsonl", b'{"id": "\\udc00", "text": ""}', "field 'id' has the lone surrogate"),
        ("a.txt", b"ok\n\nab\xe9\n", "a.txt, line 3: not UTF-8: byte 0xe9 after 2 characters"),
        ("a.txt", b"\xed\xa0\x80", "a.txt, line 1: not UTF-8: byte 0xed after 0 characters"),
        ("a.csv", b"text\nok\n\xff\n", "a.csv, line 3: not UTF-8: byte 0xff"),
        ("a.txt", "hello".encode("utf-16"), "a.txt, line 1: UTF-16 text; convert it to UTF-8"),
        ("a.csv", b"text\n1,2\n", "a.csv, line 2: row of length 2; the first line names 1 field"),
        ("a.csv", b"id,text\n1\n", "a.csv, line 2: row of length 1; the first line names 2 fields"),
        ("a.csv", b'text\nok\n"open\nend\n', "a.csv, line 3: not CSV: unexpected end of data"),
        ("a.tsv", b'text\n"a" b\n', "a.tsv, line 2: not TSV: "),
        ("a.csv", b"id,body\n1,x\n", "line 1: no field 'title' or 'text' with a value; there are"),
        ("a.csv", b"text,text\n1,x\n", "a.csv, line 1: field 'text' is there 2 times"),
        ("a.csv", b"\xff\ntext\nok\n", "a.csv, line 1: not UTF-8"),
        ("a.gz", b"plain", "a.gz cannot be read past line 0: Not a gzipped file"),
        ("a.csv.gz", b"plain", "a.csv.gz cannot be read past line 0: Not a gzipped file"),
        ("a.gz", gzip.compress(b"hello\n" * 999)[:-9], "cannot be read past line"),
        ("a.gz", gzip.compress(b"hello")[:12] + b"\xff" * 20, "a.gz cannot be read past line 0"),
    ],
)
def test_errors_say_where_and_what(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    assert expected in error_of(tmp_path, name, content)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_key_field_that_was_asked_for_must_be_there(tmp_path: Path, name: str) -> None:
    content = {"a.csv": b"id,text\n1,x\n", "a.jsonl": b'{"id": "1", "text": "x"}\n'}[name]
    message = error_of(tmp_path, name, content, Fields(key=("sku",), needs_key=True))
    assert f"{name}, line 1: no field 'sku' with a value; there are 'id', 'text'" in message


@pytest.mark.parametrize(
    ("name", "content", "texts", "bad_lines"),
    [
        ("a.txt", b"one\n\xff\ntwo\n", ["one", "two"], [2]),
        ("a.jsonl", b'{"text": "one"}\n{\n5\n{"text": "two"}\n', ["one", "two"], [2, 3]),
        ("a.csv", b"text\none\nx,y\n\xff\ntwo\n", ["one", "two"], [3, 4]),
        ("a.csv", b'text\none\n"x"y\ntwo\n', ["one", "two"], [3]),
    ],
)
def test_bad_lines_can_be_passed_over(
    tmp_path: Path, name: str, content: bytes, texts: list[str], bad_lines: list[int]
) -> None:
    (tmp_path / name).write_bytes(content)
    errors: list[InputError] = []
    records = read_records(str(tmp_path / name), on_bad_line=errors.append)
    assert [record.text for record in records] == texts
    assert [str(e).split(": ")[0].rpartition(" line ")[2] for e in errors] == [*map(str, bad_lines)]


def test_a_broken_file_is_not_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"hello\n" * 9999)[:-20])
    with pytest.raises(InputError, match="cannot be read past line"):
        list(read_records(str(path), on_bad_line=lambda error: None))


def test_distinct_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1, "text": "a"}\n\n{"id": "1", "text": "b"}\n{"id": 2, "text": "c"}\n')
    assert len(list(read_records(str(path)))) == 3
    with pytest.raises(InputError, match="line 3: key '1' is that of line 1 too"):
        list(read_records(str(path), distinct_keys=True))
    errors: list[InputError] = []
    kept = list(read_records(str(path), on_bad_line=errors.append, distinct_keys=True))
    assert kept == [Record("1", "a"), Record("2", "c")]
    assert len(errors) == 1


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder; expected a file"):
        list(read_records(str(tmp_path)))
    with pytest.raises(InputError, match="cannot be opened: No such file"):
        list(read_records(str(tmp_path / "none.csv")))
    with pytest.raises(InputError, match="cannot be opened: .*null"):
        list(read_records("a\0b"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"the cat\n", [Record("1", "the cat")]),
        (b'\xef\xbb\xbf\n{"id": "d", "text": "the dog"}\n', [DOG]),
        (gzip.compress(b'{"id": "d", "text": "the dog"}\n'), [DOG]),
        (b"", []),
    ],
)
def test_standard_input(
    monkeypatch: pytest.MonkeyPatch, content: bytes, expected: list[Record]
) -> None:
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(content)))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert list(read_records("-")) == expected
    assert not stdin.buffer.closed


def test_closed_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        list(read_records("-"))

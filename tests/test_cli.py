"""The command line as people and scripts meet it: results, messages and exit codes."""

import fcntl
import gzip
import io
import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import GOLDEN

from minisplade import Document, Index, SparseEncoder, SparseVectors, __version__
from minisplade.arguments import COMMANDS
from minisplade.cli import main, make_parser

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    {"_id": "cat", "title": "Cats", "text": "a cat sat on the mat and slept"},
    {"_id": "tax", "title": "", "text": "how to file an income tax return"},
    {"_id": "gzip", "text": "compress a file with gzip"},
]
# A background job inherits a shell's habit to ignore SIGINT, so the default is put back first.
CHILD = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from minisplade.cli import main; sys.exit(main(sys.argv[1:]))"
)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", CHILD, *arguments]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder; children find the package, and print as if nothing was set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("NO_COLOR", "COLUMNS", "PYTHONIOENCODING"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of an index over DOCUMENTS."""
    folder = tmp_path_factory.mktemp("built")
    source, target = folder / "docs.jsonl", folder / "docs.minisplade"
    source.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS))
    assert main(["index", str(source), "-o", str(target)]) == 0
    return str(target)


def feed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(content)))
    monkeypatch.setattr(sys, "stdin", stdin)


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the message of a command that must fail with code 1, in one message, printing nothing.

    What a progress bar or a warning would say is part of the message.
    """
    assert main(list(arguments)) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("minisplade: ")
    assert "Traceback" not in printed.err
    return printed.err


# Results


def test_encode_prints_json_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, encoder: SparseEncoder
) -> None:
    feed(monkeypatch, b"hello world\n\nna\xc3\xafve caf\xc3\xa9\n")
    assert main(["encode"]) == 0
    printed = rows(capsys.readouterr().out)
    assert [row["_id"] for row in printed] == ["1", "3"]
    for row, text in zip(printed, ["hello world", "naïve café"], strict=True):
        expected = encoder.decode(encoder.encode(text))
        assert list(row["terms"]) == [term for term, _ in expected]
        assert list(row["terms"].values()) == pytest.approx([w for _, w in expected], abs=1e-4)


def test_encode_to_a_file(
    capsys: pytest.CaptureFixture[str], here: Path, encoder: SparseEncoder
) -> None:
    Path("t.txt.gz").write_bytes(gzip.compress(b"hello world\nthe cat\n"))
    assert main(["encode", "t.txt.gz", "-o", "t.vectors", "--top", "5", "--query"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "t.vectors: SparseVectors(shape=(2, 30522), 5.0 active terms a row" in printed.err
    expected = encoder.encode_query(["hello world", "the cat"], max_active_dims=5)
    loaded = SparseVectors.load("t.vectors")
    np.testing.assert_array_equal(loaded.term_ids, expected.term_ids)
    np.testing.assert_allclose(loaded.weights, expected.weights, atol=1e-5)


@pytest.mark.parametrize("name", ["empty.txt", "empty.jsonl", "empty.csv"])
def test_nothing_in_nothing_out(capsys: pytest.CaptureFixture[str], name: str) -> None:
    Path(name).touch()
    assert main(["encode", name]) == 0
    assert main(["encode", name, "-o", "v"]) == 0
    assert SparseVectors.load("v").shape == (0, 30522)
    assert capsys.readouterr().out == ""
    assert failure(capsys, "index", name, "-o", "i") == f"minisplade: {name} has no documents\n"
    assert not Path("i").exists()


def test_index_and_search(capsys: pytest.CaptureFixture[str], built: str) -> None:
    assert main(["search", built, "tax", "return", "-k", "1"]) == 0
    (hit,) = rows(capsys.readouterr().out)
    assert {key: hit[key] for key in ("query_id", "query", "rank", "key")} == {
        "query_id": "1",
        "query": "tax return",
        "rank": 1,
        "key": "tax",
    }
    assert hit["text"] == "how to file an income tax return"
    assert hit["score"] == pytest.approx(sum(hit["terms"].values()), abs=1e-2)


def test_search_with_a_file_of_queries(capsys: pytest.CaptureFixture[str], built: str) -> None:
    Path("q.tsv").write_text("id\ttext\nq1\tsleeping cat\nq2\tcompress\n")
    assert main(["search", built, "--queries", "q.tsv", "-k", "1"]) == 0
    printed = rows(capsys.readouterr().out)
    assert [(row["query_id"], row["key"]) for row in printed] == [("q1", "cat"), ("q2", "gzip")]


def test_fields_of_the_users_choice(capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.csv").write_text("sku,name,notes\nx1,Chair,four legs\nx2,Lamp,bright light\n")
    fields = ["--key-field", "sku", "--text-fields", "name, notes"]
    assert main(["index", "t.csv", "-o", "t.minisplade", *fields]) == 0
    assert Index.load("t.minisplade").keys == ("x1", "x2")
    assert Index.load("t.minisplade").texts == ("Chair four legs", "Lamp bright light")
    assert main(["index", "t.csv", "-o", "t.minisplade", *fields, "--no-texts"]) == 0
    assert Index.load("t.minisplade").texts is None
    capsys.readouterr()
    assert main(["search", "t.minisplade", "lamp"]) == 0
    assert "text" not in rows(capsys.readouterr().out)[0]


def test_an_index_finds_its_model_again(
    capsys: pytest.CaptureFixture[str], encoder: SparseEncoder
) -> None:
    encoder.save_pretrained("model")
    Path("t.txt").write_text("the cat\n")
    assert main(["index", "t.txt", "-o", "i", "--model", "model"]) == 0
    os.mkdir("elsewhere")
    os.chdir("elsewhere")
    assert main(["search", "../i", "cat"]) == 0
    os.rename("../model", "../moved")
    capsys.readouterr()
    message = failure(capsys, "search", "../i", "cat")
    assert "../i was made with a model that is not here (--model may tell where" in message
    assert main(["search", "../i", "cat", "--model", "../moved"]) == 0
    assert rows(capsys.readouterr().out)[0]["key"] == "1"


def test_an_index_in_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    documents = [{**document, "year": 2000 + i} for i, document in enumerate(DOCUMENTS)]
    Path("d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents))
    add = ["index", "add", "books", "d.jsonl", "--metadata-fields", "year"]
    assert main([*add, "--commit-every", "1"]) == 0
    assert "books: Index(3 documents" in capsys.readouterr().err
    assert main(["search", "books", "tax", "--where", '{"year": {"<": 2001}}']) == 0
    assert main(["search", "books", "tax", "-k", "1"]) == 0
    *early, best = rows(capsys.readouterr().out)
    assert {row["key"] for row in early} <= {"cat"}
    assert (best["key"], best["metadata"]) == ("tax", {"year": 2001})
    assert best["text"] == "how to file an income tax return"
    Path("u.jsonl").write_text('{"_id": "cat", "text": "unzip an archive"}\n')
    assert main(["index", "update", "books", "u.jsonl"]) == 0
    assert Index.open("books").get("cat") == Document("cat", "unzip an archive", {"year": 2000})
    Path("u.jsonl").write_text('{"_id": "dog", "text": "unzip an archive"}\n')
    capsys.readouterr()
    assert "'dog' is not in books" in failure(capsys, "index", "update", "books", "u.jsonl")
    assert main(["index", "delete", "books", "gzip", "nobody"]) == 0
    assert main(["index", "delete", "books", "--where", '{"year": 2001}']) == 0
    assert capsys.readouterr().err.count("books: 1 document deleted\n") == 2
    assert main(["index", "stats", "books"]) == 0
    (stats,) = rows(capsys.readouterr().out)
    assert (stats["num_docs"], stats["encoder"]) == (1, "splade-tiny")
    assert main(["index", "merge", "books", "--all"]) == 0
    assert main(["index", "verify", "books", "--full"]) == 0
    assert re.search(r"no damage found, \d{6} bytes read", capsys.readouterr().err)
    assert main(["index", "export", "books", "-o", "all.jsonl"]) == 0
    assert main(["index", "import", "copy", "all.jsonl"]) == 0
    assert Index.open("copy").get("cat") == Document("cat", "unzip an archive", {"year": 2000})
    assert "1 documents added" in capsys.readouterr().err
    (damaged,) = Path("books").glob("*.postings")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    assert "its checksum is wrong" in failure(capsys, "index", "verify", "books", "--full")
    assert "is no" not in failure(capsys, "search", "books", "cat")
    for where, expected in (("{", "--where is not JSON"), ("[1]", "expected fields, such as")):
        assert expected in failure(capsys, "index", "delete", "books", "--where", where)


def test_models(capsys: pytest.CaptureFixture[str], encoder: SparseEncoder) -> None:
    assert main(["models"]) == 0
    printed = {row["name"]: row for row in rows(capsys.readouterr().out)}
    assert printed["splade-tiny"]["cached"] is True
    assert printed["splade-small"]["repo_id"] == "rasyosef/splade-small"
    assert main(["models", "pull", "splade-tiny"]) == 0
    assert capsys.readouterr().out == f"{encoder.folder}\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_demo(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    built: str,
    as_json: bool,
) -> None:
    monkeypatch.setattr("minisplade.demo.load_demo_index", lambda encoder: Index.load(built))
    arguments = ["demo", "compress", "files", "-k", "1"]
    assert main([*arguments, "--json"] if as_json else arguments) == 0
    printed = capsys.readouterr().out
    if as_json:
        assert rows(printed)[0]["key"] == "gzip"
    else:
        query, hit, snippet, terms = printed.strip().splitlines()
        assert query == "compress files"
        assert re.fullmatch(r"  1 +\d+\.\d{3}  gzip", hit)
        assert snippet.strip() == "compress a file with gzip"
        assert re.match(r" +[=] \S+ \d+\.\d \+ ", terms)
    assert main(["demo"]) == 0
    assert "how do I compress a file" in capsys.readouterr().out


def test_demo_builds_its_index_once(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    encoder: SparseEncoder,
) -> None:
    from minisplade.records import Record

    monkeypatch.setattr("minisplade.commands.load_encoder", lambda name: encoder)
    monkeypatch.setattr("minisplade.demo.cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(
        "minisplade.demo.standard_library", lambda: iter([Record("zlib", "compress data")])
    )
    assert main(["demo", "compress"]) == 0
    printed = capsys.readouterr()
    assert "zlib" in printed.out
    assert "Indexing the documentation" in printed.err
    assert "Done: 1 docstrings" in printed.err
    assert main(["demo", "compress"]) == 0
    assert capsys.readouterr().err == ""


def test_skip_bad_counts(capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.jsonl").write_text('{"text": "a"}\n' + "broken\n" * 7 + '{"text": "b"}\n')
    assert main(["encode", "t.jsonl", "--skip-bad", "--top", "1"]) == 0
    printed = capsys.readouterr()
    assert [row["_id"] for row in rows(printed.out)] == ["1", "9"]
    *examples, count = printed.err.splitlines()
    assert len(examples) == 5
    assert examples[0].startswith("skipped: t.jsonl, line 2: not JSON: ")
    assert count == "7 bad lines skipped"


def test_verbose(capfd: pytest.CaptureFixture[str]) -> None:
    Path("t.txt").write_text("the cat\n")
    for flags, expected in (["-v"], True), ([], False):
        run = subprocess.run(
            command("index", "t.txt", "-o", "i", *flags), capture_output=True, text=True
        )
        assert run.returncode == 0
        assert ("minisplade: encoding 1 documents with SparseEncoder(" in run.stderr) == expected


# Wrong usage: code 2, and the usage of the command


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "required: COMMAND"),
        (["serch"], "did you mean 'search'?"),
        (["models", "pul"], "did you mean 'pull'?"),
        (["xyzzy"], "invalid choice: 'xyzzy'"),
        (["encode", "a", "b"], "unrecognized arguments: b"),
        (["encode", "--top", "0"], "argument --top: invalid whole number above 0 value: '0'"),
        (["encode", "--top", "9" * 30], "argument --top: invalid whole number above 0 value"),
        (["encode", "--text-fields", "a,,b"], "invalid list of names value: 'a,,b'"),
        (["index", "a"], "required: -o/--output"),
        (["index"], "required: input, -o/--output"),
        (["search"], "required: index"),
        (["index", "delete", "x"], "give either keys or --where"),
        (["index", "delete", "x", "k", "--where", "{}"], "give either keys or --where"),
        (["index", "add", "x"], "required: input"),
        (["search", "i"], "give either a query, such as"),
        (["search", "i", "  "], "give either a query, such as"),
        (["search", "i", "q", "--queries", "f"], "give either a query, such as"),
        (["search", "i", "q", "-k", "many"], "invalid whole number above 0 value: 'many'"),
        (["models", "pull"], "pull needs a name; known models: splade-tiny, "),
        (["models", "list", "splade-tiny"], "did you mean `models pull splade-tiny`?"),
    ],
)
def test_wrong_usage(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("usage: minisplade")
    assert expected in printed.err


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str], name: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    examples = capsys.readouterr().out.partition("examples:\n")[2].splitlines()
    assert len(examples) >= 2
    for example in examples:
        # Each example must parse: redirections and explanations left out.
        typed = re.split(r" {3,}| > ", example.partition("minisplade ")[2])[0]
        assert make_parser().parse_args(shlex.split(typed)).run


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"minisplade {__version__}\n"


# Errors: code 1 and one message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["encode", "none.txt"], "none.txt cannot be opened: No such file"),
        (["encode", "folder"], "folder is a folder; expected a file"),
        (["encode", "latin1.txt"], "latin1.txt, line 2: not UTF-8: byte 0xe9"),
        (["encode", "bad.gz"], "bad.gz cannot be read past line 0"),
        (["index", "twice.jsonl", "-o", "i"], "line 2: key 'x' is that of line 1 too"),
        (["index", "twice.jsonl", "-o", "twice.jsonl"], "twice.jsonl is the input too"),
        (["index", "good.txt", "-o", "none/i"], "none/i cannot be written: there is no folder"),
        (["index", "good.txt", "-o", "folder"], "folder is a folder; expected the name of a file"),
        (["index", "good.txt", "-o", "/dev/null"], "/dev/null is not a regular file"),
        (["index", "good.txt", "-o", "x" * 300], "File name too long"),
        (["encode", "good.txt", "-o", "none/v"], "none/v cannot be written: there is no folder"),
        (["encode", "good.txt", "-m", "splade-tinny"], "did you mean 'splade-tiny'?"),
        (
            ["encode", "good.txt", "-m", "folder"],
            "folder 'folder' has no config.json, so it is not",
        ),
        (["search", "none", "q"], "none does not exist"),
        (["search", "folder", "q"], "folder is not a durable index: it has no manifest"),
        (["search", "good.txt", "q"], "good.txt is not a safetensors file, or is cut short"),
        (["search", "vectors", "q"], "vectors is not a minisplade-index file"),
        (["search", "cut", "q"], "cut is not a safetensors file, or is cut short"),
        (["search", "small", "q"], "query has 30522 terms, index has 50; encode both"),
        (["models", "pull", "splade-tinny"], "did you mean 'splade-tiny'?"),
    ],
)
def test_errors(
    capsys: pytest.CaptureFixture[str], built: str, arguments: list[str], expected: str
) -> None:
    os.mkdir("folder")
    vectors = SparseVectors.from_dicts([{1: 2.0}], num_terms=50)
    vectors.save("vectors")
    Index.from_vectors(vectors).save("small")
    Path("cut").write_bytes(Path(built).read_bytes()[:-1])
    Path("good.txt").write_text("the cat\n")
    Path("latin1.txt").write_bytes(b"ok\ncaf\xe9\n")
    Path("bad.gz").write_bytes(gzip.compress(b"hello")[:12])
    Path("twice.jsonl").write_text('{"_id": "x", "text": "a"}\n{"_id": "x", "text": "b"}\n')
    before = sorted(os.listdir())
    assert expected in failure(capsys, *arguments)
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("output", ["none/i", "folder"])
def test_outputs_are_checked_before_the_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    def never(name: str | None) -> SparseEncoder:
        raise AssertionError("a model was loaded for an output that cannot be written")

    monkeypatch.setattr("minisplade.commands.load_encoder", never)
    os.mkdir("folder")
    Path("t.txt").write_text("the cat\n")
    failure(capsys, "index", "t.txt", "-o", output)
    failure(capsys, "encode", "t.txt", "-o", output)
    # So are repeated keys and bad lines of documents.
    Path("t.csv").write_text("id,text\n1,a\n1,b\n")
    assert "t.csv, line 3: key '1'" in failure(capsys, "index", "t.csv", "-o", "i")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device"), "minisplade: No space left on device\n"),
        (OSError(5, "I/O error", "disk"), "minisplade: disk: I/O error\n"),
        (MemoryError("to allocate 9 TB"), "minisplade: not enough memory to allocate 9 TB\n"),
    ],
)
def test_errors_of_the_machine(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    expected: str,
) -> None:
    def fail(name: str | None) -> SparseEncoder:
        raise error

    monkeypatch.setattr("minisplade.commands.load_encoder", fail)
    Path("t.txt").write_text("the cat\n")
    assert failure(capsys, "encode", "t.txt") == expected


def test_another_model_than_the_indexs_is_warned_about(
    caplog: pytest.LogCaptureFixture, built: str, encoder: SparseEncoder
) -> None:
    assert main(["search", built, "cat", "--model", str(encoder.folder)]) == 0
    assert "scores with" in caplog.text
    caplog.clear()
    assert main(["search", built, "cat", "--model", "splade-tiny"]) == 0
    assert caplog.text == ""


# Terminals, pipes and signals: in processes of their own


def on_terminal(*arguments: str, columns: int = 80) -> str:
    """Run a command with a terminal for its output and messages; returns both."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    child = subprocess.Popen(
        command(*arguments),
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            block = os.read(leader, 4096)
        except OSError:  # Linux says so where others report the end
            break
        if not block:
            break
        shown += block
    os.close(leader)
    assert child.wait(timeout=60) == 0, shown
    return shown.decode()


def test_terminal_shows_a_table_and_progress() -> None:
    documents = {"_id": "a\tb\u001b[31m", "text": "the cat \u001b]0;title\u0007 sat " + "and " * 99}
    Path("t.jsonl").write_text(json.dumps(documents) + "\n")
    shown = on_terminal("index", "t.jsonl", "-o", "i")
    assert "Encoding: 100%" in shown
    shown = on_terminal("search", "i", "cat")
    assert "\033[1mcat\033[0m" in shown
    assert "\033[1ma b\ufffd[31m\033[0m" in shown
    assert shown.count("\033") == 4  # what documents hold cannot steer the terminal
    assert max(map(len, shown.splitlines()[3:])) <= 80
    assert shown.splitlines()[3].endswith("…")
    assert rows(on_terminal("search", "i", "cat", "--json"))[0]["rank"] == 1


def test_pipes_carry_utf8_and_no_progress(here: Path) -> None:
    Path("t.jsonl").write_text('{"_id": "日本", "text": "naïve"}\n')
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    run = subprocess.run(
        command("encode", "t.jsonl", "--top", "1"), capture_output=True, env=environment
    )
    assert run.stderr == b""
    assert json.loads(run.stdout.decode())["_id"] == "日本"


def test_a_reader_that_leaves_is_no_error() -> None:
    # The vectors of 1,000 texts are more than a pipe holds.
    Path("t.txt").write_text("the cat\n" * 1000)
    first = subprocess.Popen(
        command("encode", "t.txt"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert first.stdout and first.stderr
    assert json.loads(first.stdout.readline())["_id"] == "1"
    first.stdout.close()
    assert first.stderr.read() == b""
    assert first.wait(timeout=60) == 0
    first.stderr.close()


@pytest.mark.parametrize(("closing", "code"), [(">&-", 0), ("2>&-", 0), ("<&-", 1)])
def test_closed_streams(closing: str, code: int) -> None:
    arguments = ["encode", "-"] if closing == "<&-" else ["models"]
    shell = ["sh", "-c", f'exec "$@" {closing}', "sh", *command(*arguments)]
    run = subprocess.run(shell, capture_output=True, text=True)
    assert run.returncode == code
    assert run.stderr == ("minisplade: standard input is closed\n" if code else "")


@pytest.mark.parametrize("arguments", [["index", "-v"], ["encode", "-v"]])
def test_ctrl_c(here: Path, arguments: list[str]) -> None:
    Path("t.txt").write_text("the cat sat on the mat and looked at the wizards\n" * 200_000)
    Path("out").write_text("what was there before")
    child = subprocess.Popen(
        command(*arguments, "t.txt", "-o", "out"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stderr
    assert b"encoding" in child.stderr.readline()
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, b"")
    assert err == b"minisplade: interrupted; nothing half-written was kept\n"
    assert sorted(os.listdir()) == ["out", "t.txt"]
    assert Path("out").read_text() == "what was there before"


def test_ctrl_c_keeps_the_last_commit(here: Path) -> None:
    Path("t.txt").write_text("the cat sat on the mat and looked at the wizards\n" * 200_000)
    child = subprocess.Popen(
        command("index", "add", "books", "t.txt", "--commit-every", "1", "-v"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.1)
        if Path("books/manifest").exists() and len(Index.open("books")):
            break
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, b"")
    assert err.endswith(b"minisplade: interrupted; nothing half-written was kept\n")
    index = Index.open("books")
    index.verify(full=True)
    assert 0 < len(index) < 200_000
    assert index.keys == tuple(str(i + 1) for i in range(len(index)))
    index.delete(["1"])
    index.commit()


@pytest.fixture
def collection(here: Path) -> Path:
    """Write DOCUMENTS as a test collection of two queries."""
    folder = here / "small"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in DOCUMENTS))
    queries = [{"_id": "1", "text": "a kitten sleeps"}, {"_id": "2", "text": "make files small"}]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n1\tcat\t1\n2\tgzip\t1\n")
    return folder


def test_eval_measures_and_reports(
    collection: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "run.trec").write_text("1 Q0 cat 1 1.0 x\n2 Q0 tax 1 1.0 x\n")
    options = ["--cache", "cache", "-o", "report", "--run-file", "theirs=run.trec"]
    assert main(["eval", "splade-tiny", str(collection), *options]) == 0
    printed = capsys.readouterr()
    found = {row["system"]: row for row in rows(printed.out)}
    assert list(found) == ["bm25", "splade", "hybrid", "theirs"]
    assert found["theirs"]["nDCG@10"] == 0.5
    own = found["splade"]
    assert own["nDCG@10"] == pytest.approx(own["metrics"]["dot_ndcg@10"], abs=1e-6)
    assert own["nDCG@10"] > 0.8
    assert printed.err.strip() == "report: report/report.html"
    page = (here / "report" / "report.html").read_text()
    assert "minisplade eval splade-tiny" in page
    assert sorted(path.name for path in (here / "report" / "runs").iterdir()) == [
        f"small.{name}.trec" for name in ("bm25", "hybrid", "splade", "theirs")
    ]


def test_eval_ranks_again(collection: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = str(GOLDEN / "pairs" / "bert")
    options = ["--cache", "cache", "--systems", "splade", "--rerank", judge]
    assert main(["eval", "splade-tiny", str(collection), *options]) == 0
    found = [row["system"] for row in rows(capsys.readouterr().out)]
    assert found == ["splade", "reranked"]


def test_eval_says_what_is_wrong(collection: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = failure(capsys, "eval", "splade-tiny", "nowhere")
    assert "nowhere is not a folder; expected one with a test collection" in message
    message = failure(capsys, "eval", "splade-tiny", "small", "--systems", "bm25,bm42")
    assert "known: bm25, splade, hybrid, rrf, words" in message
    message = failure(capsys, "eval", "splade-tiny", "small", "--run-file", "theirs=missing")
    assert "missing cannot be opened: No such file" in message
    message = failure(capsys, "eval", "splade-tiny", "small", "-o", "small/qrels.tsv")
    assert "small/qrels.tsv: File exists" in message
    with pytest.raises(SystemExit):
        main(["eval", "splade-tiny", "small", "--run-file", "a"])
    assert "invalid NAME=FILE value: 'a'" in capsys.readouterr().err

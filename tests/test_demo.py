"""The demonstration: what it finds in the standard library, and how well it answers."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from minisplade import Index, SparseEncoder, concatenate, demo
from minisplade.demo import build_demo_index, load_demo_index, standard_library
from minisplade.records import Record

ROOT = Path(__file__).parents[1]

# The whole library takes too long here; these modules hold the answers and their rivals.
MODULES = (
    "argparse getopt gzip optparse os random shutil smtplib statistics subprocess zlib"
).split()


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return list(standard_library())


def test_the_whole_library_is_there(records: list[Record]) -> None:
    keys = [record.key for record in records]
    assert len(set(keys)) == len(keys) > 4000
    expected = {
        "argparse",
        "getopt.getopt",
        "json.decoder.JSONDecoder.decode",
        "math.sqrt",  # compiled
        "random.Random.normalvariate",
        "smtplib.SMTP.sendmail",
        "xml.etree.ElementTree.parse",
        "zlib.compress",  # compiled
    }
    assert expected <= set(keys)
    modules = [key.partition(".")[0] for key in keys]
    assert set(modules) <= set(sys.stdlib_module_names)
    assert modules == sorted(modules)


def test_what_is_nobodys_documentation_is_left_out(records: list[Record]) -> None:
    for record in records:
        parts = record.key.split(".")
        assert not any(part.startswith("_") for part in parts), record.key
        assert parts[0] not in demo.SKIPPED, record.key
        assert not {"tests", "__main__"} & set(parts), record.key
    assert not any(record.key.startswith("unittest.test.") for record in records)


def test_texts_start_with_the_name_in_words(records: list[Record]) -> None:
    texts = {record.key: record.text for record in records}
    assert texts["zlib.compress"].startswith("zlib compress: Returns a bytes object")
    assert texts["smtplib.SMTP.sendmail"].startswith("smtplib SMTP sendmail: This command performs")
    assert all(text.partition(": ")[2].strip() for text in texts.values())


def test_source_is_read_but_not_run() -> None:
    code = (
        "import sys; from minisplade.demo import standard_library; before = set(sys.modules)\n"
        "list(standard_library())\n"
        "new = [sys.modules[name] for name in set(sys.modules) - before]\n"
        "assert not {'this', 'antigravity', 'smtplib', 'turtle'} & set(sys.modules)\n"
        "files = [getattr(module, '__file__', None) or '' for module in new]\n"
        "print([file for file in files if file.endswith('.py')])"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    # Compiled modules may load source modules that they are built on, such as decimal or copyreg.
    assert run.returncode == 0, run.stderr
    assert run.stdout.count(".py") < 10, run.stdout
    assert run.stderr == ""


def test_source_that_is_not_python(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def broken(:")
    (tmp_path / "b.py").write_bytes(b"\xff\0")
    (tmp_path / "c.py").write_text('"""Fine."""\nx = "\\d"\n')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [list(demo._from_source("m", tmp_path / f"{name}.py")) for name in "abcd"]
    assert found == [[], [], [("m", "Fine.")], []]


def test_a_name_comes_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "json"
    package.mkdir()
    (package / "__init__.py").write_text('def tool():\n    """First."""\n')
    (package / "tool.py").write_text('"""Second."""\n')
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    monkeypatch.setattr("sys.stdlib_module_names", frozenset({"json"}))
    assert list(standard_library()) == [Record("json.tool", "json tool: First.")]


@pytest.fixture(scope="module")
def reduced(records: list[Record], encoder: SparseEncoder) -> Index:
    chosen = [record for record in records if record.key.partition(".")[0] in MODULES]
    assert {record.key.partition(".")[0] for record in chosen} == set(MODULES)
    texts = [record.text for record in chosen]
    # The first sentences answer, and 128 tokens hold them.
    vectors = list(encoder.encode_stream(texts, max_seq_length=128))
    return Index.from_vectors(concatenate(vectors), [r.key for r in chosen], encoder=encoder)


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("parse command line arguments", ["getopt", "argparse"]),
        ("send an email", ["smtplib.SMTP.sendmail"]),
        ("random number from normal distribution", ["random.Random.normalvariate"]),
        ("how do I compress a file", ["gzip"]),
        ("run another program and read its output", ["subprocess"]),
    ],
)
def test_questions_find_their_answers(reduced: Index, question: str, answers: list[str]) -> None:
    best = [hit.key for hit in reduced.search(question, k=5)]
    for answer in answers:
        assert any(key == answer or key.startswith(f"{answer}.") for key in best), best


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let the library be two records, and the cache be empty; returns the cache."""
    few = [Record("a", "compress a file"), Record("b", "send an email")]
    monkeypatch.setattr(demo, "standard_library", lambda: iter(few))
    monkeypatch.setattr(demo, "cache_dir", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def test_the_index_is_kept(small: Path, encoder: SparseEncoder) -> None:
    assert load_demo_index(encoder) is None
    built = build_demo_index(encoder)
    loaded = load_demo_index(encoder)
    assert loaded is not None
    assert loaded.keys == built.keys == ("a", "b")
    assert [hit.key for hit in loaded.search("email")][:1] == ["b"]
    (path,) = small.rglob("*.minisplade")
    path.write_bytes(b"damaged")
    assert load_demo_index(encoder) is None


def test_the_demo_works_without_a_cache(
    small: Path, encoder: SparseEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    small.write_text("a file where the folder should be")
    assert len(build_demo_index(encoder)) == 2
    assert "cannot be kept for next time" in caplog.text

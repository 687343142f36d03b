"""The guided tour: its code runs, prints what it says, and draws the pictures that are shown."""

import code
import re
import runpy
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from minisplade.cli import main

ROOT = Path(__file__).parents[1]
TOUR = ROOT / "docs" / "tour.md"
MAKE = runpy.run_path(str(ROOT / "scripts" / "make_tour.py"))
NUMBER = re.compile(r"-?\d[\d,]*\.?\d*")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_same(found: str, expected: str) -> None:
    """Compare words exactly, and numbers but for their last digit, which rounding may change."""
    assert NUMBER.sub("0", found).split() == NUMBER.sub("0", expected).split()
    for one, other in zip(NUMBER.findall(found), NUMBER.findall(expected), strict=True):
        decimals = len(other.partition(".")[2])
        values = [float(number.replace(",", "")) for number in (one, other)]
        assert abs(values[0] - values[1]) < 1.5 * 10.0**-decimals, (one, other)


def test_code_prints_and_draws_what_the_tour_shows(here: Path) -> None:
    markdown = TOUR.read_text(encoding="utf-8")
    count = 0
    for _, said, printed in MAKE["run_blocks"](markdown):
        assert_same(printed, said or "")
        count += 1
    assert count == markdown.count("```python")
    drawn = sorted(path.name for path in here.iterdir())
    assert drawn == sorted(path.name for path in TOUR.with_suffix("").iterdir())
    assert re.findall(r"!\[.*?\]\(tour/(.*?)\)", markdown) == [
        "attention.svg",
        "lens.svg",
        "terms.svg",
    ]
    for name in drawn:
        kept = (TOUR.with_suffix("") / name).read_text(encoding="utf-8")
        # Squares of the heat map may be one strength off, and then stand elsewhere in the file.
        if name != "attention.svg":
            assert_same((here / name).read_text(encoding="utf-8"), kept)
        assert re.findall(r"<text.*?>", kept)


def test_blocks_can_be_pasted_into_an_interpreter() -> None:
    wrong: list[str] = []

    class Interpreter(code.InteractiveConsole):
        def write(self, data: str) -> None:
            wrong.append(data)

    interpreter = Interpreter()
    with redirect_stdout(StringIO()):
        for block in re.findall(r"```python\n(.*?)```", TOUR.read_text(encoding="utf-8"), re.S):
            for line in [*block.splitlines(), ""]:
                more = interpreter.push(line)
            assert not more
    assert wrong == []


def test_commands_of_the_tour(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    (block,) = re.findall(r"```sh\n(.*?)```", TOUR.read_text(encoding="utf-8"), re.S)
    for line in block.splitlines():
        assert line.startswith(".venv/bin/minisplade ")
        assert main(shlex.split(line)[1:]) == 0
    assert capsys.readouterr().out
    assert sorted(path.name for path in here.iterdir()) == ["explain.html", "trace.html"]


def test_files_that_the_tour_names_exist() -> None:
    named = re.findall(r"`(minisplade/[\w/.]+)`", TOUR.read_text(encoding="utf-8"))
    assert named
    for name in named:
        assert (ROOT / name).is_file(), name


def test_numbers_are_compared() -> None:
    assert_same("a 1.01 b", "a 1.00  b")
    with pytest.raises(AssertionError):
        assert_same("a 1.02 b", "a 1.00 b")
    with pytest.raises(AssertionError):
        assert_same("a 1.00 b", "a 1.00 c")

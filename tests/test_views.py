"""Explanations and traces on the command line: bars, colours, rows for programs, and pages."""

import json
import re
from pathlib import Path

import pytest

from minisplade import SparseEncoder
from minisplade.cli import main
from minisplade.explain.view import explanation_lines, match_lines
from minisplade.terminal import bar, shade
from minisplade.trace.walk import walk

QUERY, DOCUMENT = "travel by sea", "A sailor crosses the ocean in a small boat."
STEERING = "the cat \033]0;title\007 sat \033[31m"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minisplade.terminal.has_colours", lambda: True)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out.splitlines()


def test_explain_prints_a_row_for_each_term(
    capsys: pytest.CaptureFixture[str], encoder: SparseEncoder
) -> None:
    text = "How do I compress a file?"
    explanation = encoder.explain(text)
    printed = [json.loads(line) for line in run(capsys, "explain", text)]
    assert len(printed) == len(explanation.terms)
    for row, term in zip(printed, explanation.terms, strict=True):
        token = explanation.tokens[term.position]
        assert row == {
            "term": term.term,
            "weight": round(term.weight, 4),
            "expansion": term.is_expansion,
            "token": token.string,
            "span": list(token.span) if token.span else None,
        }
    assert printed == [json.loads(line) for line in run(capsys, "explain", "--document", text)]
    assert printed[:3] == [json.loads(line) for line in run(capsys, "explain", text, "--top", "3")]


def test_explain_prints_a_row_for_each_product(
    capsys: pytest.CaptureFixture[str], encoder: SparseEncoder
) -> None:
    found = encoder.explain_match(QUERY, DOCUMENT)
    lines = run(capsys, "explain", "--query", QUERY, "--document", DOCUMENT)
    printed = [json.loads(line) for line in lines]
    assert [row["term"] for row in printed] == [term.term for term in found.terms]
    assert sum(row["share"] for row in printed) == pytest.approx(found.score, abs=1e-3)
    weight = pytest.approx(found.terms[0].query.weight, abs=1e-4)
    assert printed[0]["query"] == {"weight": weight, "token": "sea", "span": [10, 13]}
    assert DOCUMENT[slice(*printed[0]["document"]["span"])] == "ocean"


def test_bars_are_as_long_as_weights(encoder: SparseEncoder, colours: None) -> None:
    explanation = encoder.explain(DOCUMENT)
    head, counts, _, *lines = explanation_lines(explanation, top=10)
    assert head == f"\033[1m{DOCUMENT}\033[0m"
    assert "22 of 30,522 terms" in counts
    assert lines[-1].split() == "and 12 lighter ones; --top 22 shows all".split()
    for line, term in zip(lines[:-1], explanation.terms, strict=False):
        colour, drawn = re.findall(r"\033\[(3\d)m(.*?)\033", line)[0]
        assert colour == ("33" if term.is_expansion else "34")
        share = term.weight / explanation.terms[0].weight
        assert len(drawn.rstrip()) == pytest.approx(30 * share, abs=1)
        assert ("+" in line) == term.is_expansion
        assert f"from {explanation.source(term)}" in line


def test_a_match_shows_its_sum(encoder: SparseEncoder) -> None:
    found = encoder.explain_match(QUERY, DOCUMENT)
    lines = list(match_lines(found, top=5))
    assert lines[2] == f"{found.score:.4f} = the sum of {len(found.terms)} terms"
    assert lines[4].split()[0] == f"{found.terms[0].share:.3f}"
    assert lines[4].endswith("sea 2.65 × ocean 0.88")
    assert lines[-1].startswith("\nnot in the document: travel 2.57, trip")


def test_a_walk_shows_every_stage(encoder: SparseEncoder) -> None:
    trace = encoder.trace("The bank raised interest rates.")
    lines = list(walk(trace))
    shown = "\n".join(lines)
    for number, stage in enumerate(trace.stages, start=1):
        assert f"{number}  {stage.name}  {' and '.join(stage.functions)}" in lines
        assert " ".join(stage.about.split()) in " ".join(shown.split())
    row = next(line for line in lines if line.split()[:2] == ["increase", "raised"])
    numbers = [float(number) for number in re.findall(r"-?\d+\.\d", row)]
    assert numbers == pytest.approx(trace.lens[:, 3, 5].tolist(), abs=0.051)
    assert re.findall(r"#(\d+)", row) == [str(rank) for rank in trace.ranks[:, 3, 5]]
    best = trace.attention[0, 0, 2].argmax()
    looked = next(line for line in lines if re.match(r" +bank .*%", line))
    assert looked.split()[2] == trace.tokens[best].string


def test_long_texts_and_deep_models_are_shown_in_part(encoder: SparseEncoder) -> None:
    lines = list(walk(encoder.trace("word " * 300)))
    assert "   and 278 more" in lines
    assert max(map(len, lines[1:])) < 130
    for text in ("", "日本 🍕"):
        assert list(walk(encoder.trace(text, terms=[])))
        assert list(explanation_lines(encoder.explain(text), top=5))


def test_a_text_cannot_steer_the_terminal(encoder: SparseEncoder) -> None:
    for lines in (
        explanation_lines(encoder.explain(STEERING), top=99),
        match_lines(encoder.explain_match(STEERING, STEERING), top=99),
        walk(encoder.trace(STEERING)),
    ):
        assert "\033" not in "".join(lines)


def test_cut_off_text_is_told(encoder: SparseEncoder) -> None:
    lines = list(explanation_lines(encoder.explain("word " * 99, max_seq_length=12), top=3))
    assert "The text is cut off after character 49." in lines


def test_trace_prints_prose_or_rows(
    capsys: pytest.CaptureFixture[str], encoder: SparseEncoder
) -> None:
    expected = list(walk(encoder.trace(DOCUMENT, terms=["ship", "tax"])))
    assert run(capsys, "trace", DOCUMENT, "--terms", "ship,tax") == expected
    printed = [json.loads(line) for line in run(capsys, "trace", DOCUMENT, "--json")]
    assert [row["stage"] for row in printed] == [s.name for s in encoder.trace(DOCUMENT).stages]
    assert printed[2] == {
        "stage": "layer 1",
        "functions": ["minisplade/models/bert.py: encoder_layer"],
        "arrays": {
            "attention": ["float32", 2, 12, 12],
            "hidden_states": ["float32", 12, 128],
            "norms": ["float32", 12],
        },
    }


@pytest.mark.parametrize(
    ("arguments", "title"),
    [
        (["explain", DOCUMENT], "Why this text has these terms"),
        (["explain", "--query", QUERY], "Why this text has these terms"),
        (["explain", "--query", QUERY, "--document", DOCUMENT], "Why this document has this score"),
        (["trace", DOCUMENT], "How a text becomes a sparse vector"),
    ],
)
def test_pages_are_written(
    capsys: pytest.CaptureFixture[str], arguments: list[str], title: str
) -> None:
    assert main([*arguments, "--html", "page.html"]) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "page.html: open it in a browser\n")
    assert f"<title>{title}</title>" in Path("page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["explain"], 2, "give either a text, such as"),
        (["explain", "a", "--query", "b"], 2, "give either a text, such as"),
        (["trace", " "], 2, 'give a text, such as trace "my text"'),
        (["trace", "a", "--terms", "zebr"], 1, "term 'zebr' is not in the vocabulary; near it:"),
        (["trace", "a", "--html", "none/x"], 1, "none/x cannot be written: there is no folder"),
        (["explain", "a", "--html", "."], 1, ". is a folder; expected the name of a file"),
        (["explain", "a", "-m", "none/such"], 1, "none/such"),
    ],
)
def test_wrong_calls(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, expected: str
) -> None:
    try:
        assert main(arguments) == code
    except SystemExit as stopped:
        assert stopped.code == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert expected in printed.err


def test_bars_and_shades() -> None:
    assert [bar(share, 4) for share in (0, 0.001, 0.25, 0.5, 17 / 32, 1)] == [
        "",
        "▏",
        "█",
        "██",
        "██▏",
        "████",
    ]
    assert [shade(share) for share in (0, 0.19, 0.2, 0.99, 1)] == [" ", " ", "░", "█", "█"]

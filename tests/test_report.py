"""The report: its numbers, its figures, and a page that needs nothing from anywhere else."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_evaluation import COLLECTION

from minisplade import SparseEncoder
from minisplade.evaluation import Evaluation, evaluate, read_run, write_report
from minisplade.evaluation.figures import curves, differences, grouped_bars, histogram
from minisplade.evaluation.report import markdown_table, results, summary_table
from minisplade.pages import POLICY

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
PROBE = """<script>addEventListener("load", () => {
  const shown = [...document.querySelectorAll("svg")].map(e => e.getBoundingClientRect());
  parent.postMessage(JSON.stringify({
    width: innerWidth, scroll: document.documentElement.scrollWidth,
    background: getComputedStyle(document.body).backgroundColor,
    text: getComputedStyle(document.querySelector("svg text")).fill,
    figures: shown.length, narrowest: Math.min(...shown.map(e => e.width)),
    right: Math.max(...shown.map(e => e.right)),
    fetched: performance.getEntriesByType("resource").map(e => e.name)}), "*");
})</script>"""
META = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
# A window cannot be as narrow as a phone, but a frame can.
FRAME = """<meta name="color-scheme" content="light dark">
<body><script>onmessage = event => document.body.textContent = event.data</script>
<iframe style="width: {width}px; height: 900px; border: 0" src="page.html"></iframe></body>"""


@pytest.fixture(scope="module")
def evaluation(encoder: SparseEncoder, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    cache = tmp_path_factory.mktemp("cache")
    return evaluate(encoder, [COLLECTION], cache=cache, with_tradeoffs=True)


@pytest.fixture(scope="module")
def page(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    command = "minisplade eval '<model>' small"
    return write_report(evaluation, tmp_path_factory.mktemp("report"), command)


def test_the_page_shows_the_numbers(evaluation: Evaluation, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    shown = unescape(re.sub(r"<[^>]*>", " ", text))
    for name, system in evaluation.comparisons[0].systems.items():
        assert name in shown
        for measure in ("nDCG@10", "RR@10", "AP@100", "R@100"):
            assert f"{system.mean(measure):.4f}" in shown
    assert "minisplade eval '<model>' small" in shown
    assert "travel by sea" in shown  # BM25 has no word of it, so the model wins most there
    # The summary, three differences less one, and three of trade-offs.
    assert text.count("<svg") == 1 + 2 + 3


def test_several_collections_have_a_mean(evaluation: Evaluation) -> None:
    (first,) = evaluation.comparisons
    worse = {
        name: replace(own, values={m: dict.fromkeys(v, 0.0) for m, v in own.values.items()})
        for name, own in first.systems.items()
    }
    second = replace(first, systems=worse, collection=replace(COLLECTION, name="other"))
    rows = summary_table(replace(evaluation, comparisons=[first, second]))
    halves = [f"{own.mean() / 2:.4f}" for own in first.systems.values()]
    assert rows[-1] == ["mean", *halves, "", ""]
    assert [row[0] for row in summary_table(evaluation)] == ["collection", "small"]


def test_markdown_has_the_same_tables_and_its_figures(evaluation: Evaluation, page: Path) -> None:
    text = (page.parent / "report.md").read_text(encoding="utf-8")
    assert "\n".join(markdown_table(summary_table(evaluation))) in text
    figures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert len(figures) == 6
    for figure in figures:
        ElementTree.parse(page.parent / figure)


def test_runs_and_values_are_there_to_look_into(evaluation: Evaluation, page: Path) -> None:
    for name, system in evaluation.comparisons[0].systems.items():
        run = read_run(page.parent / "runs" / f"small.{name}.trec")
        assert run == {query: own for query, own in system.run.items() if own}
    lines = (page.parent / "small.queries.tsv").read_text().splitlines()
    rows = [dict(zip(lines[0].split("\t"), line.split("\t"), strict=True)) for line in lines[1:]]
    assert [row["query_id"] for row in rows] == list(COLLECTION.queries)
    hybrid = evaluation.comparisons[0].systems["hybrid"]
    for row in rows:
        expected = hybrid.values["nDCG@10"][row["query_id"]]
        assert float(row["hybrid:nDCG@10"]) == pytest.approx(expected, abs=5e-5)
    written = json.loads((page.parent / "results.json").read_text())
    assert written == results(evaluation)
    assert written[1]["metrics"]["dot_ndcg@10"] > 0


class Links(HTMLParser):
    """Collects whatever could make a browser fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "img", "iframe", "object", "embed", "image", "use", "base"):
            self.found.append(tag)
        names = [name for name, value in attrs if value != "data:,"]  # no icon is no address
        self.found += [name for name in names if name in ("src", "href", "srcset", "style")]


def test_nothing_is_fetched(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = Links()
    links.feed(text)
    assert links.found == []
    assert META in text
    assert "url(" not in text and "@import" not in text
    assert set(re.findall(r"https?://[^\"' <]*", text)) == {"http://www.w3.org/2000/svg"}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to look at the page with")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 375])
def test_the_page_in_a_browser(page: Path, tmp_path: Path, width: int, scheme: str) -> None:
    assert CHROMIUM is not None
    text = page.read_text(encoding="utf-8")
    text = text.replace(META, "").replace("</head>", f"{PROBE}</head>")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME.format(width=width))
    run = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            "--virtual-time-budget=2000",  # time for the frame to answer
            f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
            *("--window-size=1400,900", f"--user-data-dir={tmp_path / 'profile'}"),
            (tmp_path / "frame.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    body = re.search(r"<body>(.*)</body>", run.stdout, re.S)
    assert body, run.stderr
    seen = json.loads(unescape(body[1]))
    assert seen["width"] == width
    assert seen["scroll"] <= seen["width"]  # wide tables scroll on their own
    assert seen["figures"] == 6
    assert seen["right"] <= seen["width"]
    assert seen["narrowest"] >= 300
    light, dark = (
        ("rgb(255, 255, 255)", "rgb(36, 41, 47)"),
        ("rgb(13, 17, 23)", "rgb(230, 237, 243)"),
    )
    assert (seen["background"], seen["text"]) == (dark if scheme == "dark" else light)
    assert seen["fetched"] == []


def bars_of(svg: str) -> dict[str, float]:
    """Return the height of each bar by what it is called."""
    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    return {
        str(rect.findtext(f"{space}title")): float(rect.attrib["height"])
        for rect in root.iter(f"{space}rect")
        if rect.find(f"{space}title") is not None
    }


def test_bars_are_as_high_as_their_values() -> None:
    heights = bars_of(grouped_bars("<title>", {"a": {"x": 0.2, "y": 0.4}, "b": {"x": 0.1}}))
    assert list(heights) == ["a, x: 0.2000", "a, y: 0.4000", "b, x: 0.1000"]
    low, high, least = heights.values()
    assert low / high == pytest.approx(0.5, abs=0.01)
    assert least / high == pytest.approx(0.25, abs=0.01)


def test_figures_count_and_stand_nothing() -> None:
    assert "5 queries: 2 better, 2 the same, 1 worse" in differences(
        "t", [0.1, 0, 0, -1, 0.3], "queries"
    )
    # Of four values, one in the lowest range of 0 to 20 and three in the highest.
    drawn = histogram("t", {"a": [0, 20, 20, 20]}, "terms")
    path = re.search(r'<path class="other" d="([^"]*)"', drawn)
    assert path
    bars = re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)", path[1])
    (_, floor, low), (_, _, high) = (map(float, bar) for bar in bars)
    assert (floor - high) / (floor - low) == pytest.approx(3, abs=0.02)
    assert "70%" in drawn and "80%" not in drawn
    for empty in (
        grouped_bars("t", {}),
        differences("t", [], "queries"),
        histogram("t", {"a": []}, "terms"),
        curves("t", {}, "settings"),
    ):
        ElementTree.fromstring(empty)


def test_curves_go_through_their_points() -> None:
    root = ElementTree.fromstring(curves("t", {"a": [("8", 0.0), ("16", 0.5), ("all", 1.0)]}, "n"))
    circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    xs = [float(circle.attrib["cx"]) for circle in circles]
    ys = [float(circle.attrib["cy"]) for circle in circles]
    assert xs[2] - xs[1] == pytest.approx(xs[1] - xs[0])
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2)  # as they are written
    assert ys[0] > ys[2]

"""Pages of HTML: what they say, that they fetch nothing, and how a browser shows them."""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from minisplade import Explanation, InputError, SparseEncoder, SparseVector
from minisplade.figures import Colour, bars, curves, heat_map
from minisplade.pages import element, page, write_page
from minisplade.tokenization import Token

TEXT = 'The bank <b>raised</b> "rates" & a naïve 🍕 compresses\nsailors </script><script>alert(1)//'
SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "link", "br"}
SHORT = 'The <bank> & "rates" naïve 🍕'
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")


class Reader(HTMLParser):
    """Checks that elements are nested properly, and collects them with their text."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.closed: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in VOID:
            self.closed.append((tag, dict(attrs), ""))
        else:
            self.open.append((tag, dict(attrs), []))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.closed.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        opened, attributes, text = self.open.pop()
        assert opened == tag
        self.closed.append((tag, attributes, "".join(text)))
        if self.open:
            self.open[-1][2].extend(text)

    def handle_data(self, data: str) -> None:
        if self.open:
            self.open[-1][2].append(data)

    def having(self, **wanted: str) -> list[tuple[str, dict[str, str | None], str]]:
        """Return elements with a class among theirs, or an attribute of some value."""
        return [
            one
            for one in self.closed
            if all(
                value in (one[1].get(name.replace("_", "-").rstrip("-")) or "").split()
                for name, value in wanted.items()
            )
        ]


@pytest.fixture(scope="module")
def pages(encoder: SparseEncoder) -> dict[str, str]:
    return {
        "explanation": encoder.explain(TEXT).to_html(),
        "match": encoder.explain_match("raise & rates", TEXT).to_html(),
        "trace": encoder.trace(SHORT).to_html(),
        "cut off": encoder.explain(TEXT * 20, max_seq_length=32).to_html(),
        "long trace": encoder.trace(TEXT * 9).to_html(),
        "nothing": encoder.explain("", max_active_dims=1).to_html(),
        "no match": encoder.explain_match("", "").to_html(),
        "nothing traced": encoder.trace("", terms=[]).to_html(),
    }


NAMES = [
    "explanation",
    "match",
    "trace",
    "cut off",
    "long trace",
    "nothing",
    "no match",
    "nothing traced",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_whole_and_fetches_nothing(pages: dict[str, str], name: str) -> None:
    content = pages[name]
    read = Reader(content)
    assert content.startswith("<!DOCTYPE html>")
    assert "default-src 'none'" in content
    assert [tag for tag, _, _ in read.closed if tag in ("img", "iframe", "object", "embed")] == []
    for tag, attributes, _ in read.closed:
        assert "src" not in attributes
        assert attributes.get("href") in (None, "data:,"), tag
        assert not any(name.startswith("on") for name in attributes)
    # The name of SVG is no address.
    assert set(re.findall(r"\w+://[\w.]+", content)) <= {"http://www.w3.org"}
    assert "url(" not in content
    assert "@import" not in content


def test_a_text_is_never_markup(pages: dict[str, str]) -> None:
    for content in pages.values():
        assert "<b>" not in content
        assert content.count("<script>") == content.count("</script>") == 1


def test_an_explanation_ties_words_to_terms(encoder: SparseEncoder, pages: dict[str, str]) -> None:
    explanation = encoder.explain(TEXT)
    read = Reader(pages["explanation"])
    (shown,) = [text for tag, a, text in read.closed if a.get("class") == "text"]
    assert shown == f"[CLS]{TEXT}[SEP]"
    rows = [one for one in read.closed if one[0] == "li"]
    assert len(rows) == len(explanation.terms)
    for (_, attributes, text), term in zip(rows, explanation.terms, strict=True):
        assert attributes["data-at"] == f"d{term.position}"
        assert attributes["class"] == ("new" if term.is_expansion else "own")
        assert text.startswith(f"{term.term}{term.weight:.3f}from {explanation.source(term)}")
    for term in explanation.terms:
        (_, attributes, text), *_ = read.having(class_="token", data_at=f"d{term.position}")
        assert text == explanation.source(term)
        assert f"{term.term} {term.weight:.2f}" in str(attributes["data-says"])
        assert attributes["tabindex"] == "0"


def test_a_match_shows_every_product(encoder: SparseEncoder, pages: dict[str, str]) -> None:
    found = encoder.explain_match("raise & rates", TEXT)
    read = Reader(pages["match"])
    rows = [one for one in read.closed if one[0] == "li"]
    places = [f"q{t.query.position} d{t.document.position}" for t in found.terms]
    assert [attributes["data-at"] for _, attributes, _ in rows] == places
    assert sum(float(re.findall(r"\d\.\d{3}", text)[0]) for _, _, text in rows) == pytest.approx(
        found.score, abs=0.001 * len(rows)
    )
    assert f"The score is {found.score:.4f}" in pages["match"]
    lacks = [text for tag, _, text in read.closed if tag == "p"][-1]
    assert lacks == ", ".join(f"{term.term} {term.weight:.2f}" for term in found.missing)


def test_what_was_cut_off_is_shown_apart(encoder: SparseEncoder, pages: dict[str, str]) -> None:
    text = TEXT * 20
    read = Reader(pages["cut off"])
    ((_, _, unread),) = read.having(class_="unread")
    rest = text[encoder.explain(text, max_seq_length=32).num_read :]
    assert unread == f"{rest[:500]} …"


def test_tokens_that_share_characters_share_a_mark(encoder: SparseEncoder) -> None:
    read = Reader(encoder.explain("한 ok").to_html())
    (shown,) = [text for tag, a, text in read.closed if a.get("class") == "text"]
    assert shown == "[CLS]한 ok[SEP]"


def test_any_spans_leave_the_text_as_it_is() -> None:
    rng = np.random.default_rng(5)
    text = "a<b>c & d\u0301e" * 3
    nothing = SparseVector(np.zeros(0, np.int32), np.zeros(0, np.float32), 9)
    for _ in range(200):
        starts = np.sort(rng.integers(0, len(text), rng.integers(0, 9))).tolist()
        ends = np.maximum.accumulate(
            [min(s + rng.integers(1, 5), len(text)) for s in starts] or [0]
        )
        spans: list[tuple[int, int] | None] = [None, *zip(starts, ends.tolist()), None]
        if rng.random() < 0.5:
            spans.insert(rng.integers(len(spans)), None)
        tokens = tuple(Token("~", 1, span, span) for span in spans)
        read = Reader(Explanation(text, tokens, (), nothing).to_html())
        (shown,) = [content for _, a, content in read.closed if a.get("class") == "text"]
        assert re.sub("~( ~)*", "", shown) == text


def test_no_common_term_ties_nothing(encoder: SparseEncoder) -> None:
    found = encoder.explain_match("inflation", "The bank raised interest rates.")
    assert (found.terms, found.score, found.missing) == ((), 0, found.query.terms)
    read = Reader(found.to_html())
    assert not any("data-at" in attributes for _, attributes, _ in read.closed)


def test_a_trace_has_every_stage_and_its_numbers(
    encoder: SparseEncoder, pages: dict[str, str]
) -> None:
    trace = encoder.trace(SHORT)
    read = Reader(pages["trace"])
    titles = [text for tag, _, text in read.closed if tag == "h2"]
    assert [title.split(". ")[1].lower() for title in titles] == [s.name for s in trace.stages]
    buttons = [text for tag, _, text in read.closed if tag == "button"]
    assert buttons == [token.string for token in trace.tokens]
    values = json.loads(re.findall(r"const values = (.*);", pages["trace"])[0])
    np.testing.assert_allclose(values["attention"], 100 * trace.attention, atol=0.51)
    cells = [text for tag, a, text in read.closed if tag == "td" and a.get("class") == "number"]
    expected = [
        f"{trace.lens[step, term.position, place]:.1f} #{trace.ranks[step, term.position, place]:,}"
        for place, term in enumerate(trace.terms)
        for step in range(3)
    ]
    assert cells == expected


def test_figures_are_well_formed() -> None:
    values = np.array([[0, 1, -1], [0.5, -0.25, 0.01]], dtype=np.float32)
    for drawn in (
        heat_map("<a> & b", values, ["<r>", "s"], ["a", "b", "c&"]),
        curves("title", ["x", "y"], [("<one>", [0.0, 5.0], "own"), ("two", [3.0, 5.0], "new")]),
        curves("nothing yet", ["x"], [("flat", [0.0], "other")]),
        bars("title", [("<a>", 1.0, "1", "own"), ("b", 0.0, "0", "other")]),
        bars("nothing", []),
    ):
        root = ElementTree.fromstring(drawn)
        assert root.tag == f"{SVG}svg"
        assert "prefers-color-scheme: dark" in drawn


def test_a_heat_map_draws_each_number() -> None:
    values = np.array([[0, 1], [0.5, -0.25]], dtype=np.float32)
    root = ElementTree.fromstring(heat_map("title", values, ["r", "s"], ["a", "b"]))
    paths = [
        (path.get("class"), float(path.get("fill-opacity", "")), str(path.get("d")).count("M"))
        for path in root.iter(f"{SVG}path")
    ]
    assert paths == [("new", 0.25, 1), ("own", 0.5, 1), ("own", 1, 1)]


def test_labels_of_curves_do_not_overlap() -> None:
    rows: list[tuple[str, list[float], Colour]] = [
        (f"r{i}", [1.0, 2.0 + i / 1000], "new") for i in range(12)
    ]
    root = ElementTree.fromstring(curves("title", ["x", "y"], rows))
    texts = [t for t in root.iter(f"{SVG}text") if (t.text or "")[0] == "r"]
    heights = sorted(float(text.get("y", "")) for text in texts)
    assert min(np.diff(heights)) >= 15.9
    assert heights[-1] < float(str(root.get("viewBox")).split()[3])


@pytest.mark.parametrize("count", [1, 2, 7, 13, 49])
def test_columns_of_curves_have_room(count: int) -> None:
    columns = ["embeddings", *(f"layer {n}" for n in range(1, count))]
    drawn = curves("title", columns, [("r", [1.0] * count, "own")])
    root = ElementTree.fromstring(drawn)
    texts = {t.text: float(t.get("x", "")) for t in root.iter(f"{SVG}text") if t.text in columns}
    assert columns[-1] in texts
    assert min(np.diff(sorted(texts.values())), default=99) >= 60


def test_values_cannot_end_the_script() -> None:
    content = page("t", "", "f(values);", {"a": "</script><!--"})
    assert content.count("</script>") == 1
    assert "<!--" not in content
    assert element("p", "x", title='"<&', data_at=None) == '<p title="&quot;&lt;&amp;">x</p>'


def test_a_page_is_written_whole(tmp_path: Path) -> None:
    write_page(tmp_path / "new" / "p.html", "é")
    assert (tmp_path / "new" / "p.html").read_text(encoding="utf-8") == "é"
    with pytest.raises(InputError, match="is a folder"):
        write_page(tmp_path, "x")


# In a browser

PROBE = """
<script>
addEventListener("load", () => {
  const told = {wide: document.documentElement.scrollWidth > innerWidth};
  told.paper = getComputedStyle(document.body).backgroundColor;
  const one = document.querySelector(".token[data-at]");
  if (one) {
    one.focus();
    // A window that has no focus yet is not told of the focus of what is in it.
    one.dispatchEvent(new FocusEvent("focusin", {bubbles: true}));
    told.focused = document.activeElement === one;
    told.caption = caption.textContent === one.dataset.says;
    told.on = [...document.querySelectorAll("li.on")].map((row) => row.dataset.at);
    told.at = one.dataset.at;
    one.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape", bubbles: true}));
    told.left = document.querySelectorAll(".on").length;
  }
  const button = document.querySelector("[data-token='2']");
  if (button) {
    button.click();
    told.pressed = [...document.querySelectorAll("[aria-pressed=true]")].map((b) => b.textContent);
    told.looks = [...document.querySelectorAll(".told")].map((p) => p.textContent);
  }
  told.fetched = performance.getEntriesByType("resource").map((entry) => entry.name);
  const pre = document.createElement("pre");
  pre.id = "told";
  pre.textContent = JSON.stringify(told);
  document.body.append(pre);
});
</script>"""


def in_browser(tmp_path: Path, content: str, width: int, dark: bool) -> dict[str, object]:
    """Show a page in Chromium, act on it, and return what PROBE found."""
    path = tmp_path / "page.html"
    path.write_text(content.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    run = subprocess.run(
        [
            str(BROWSER),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--window-size={width},900",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            "--virtual-time-budget=2000",
            "--enable-logging=stderr",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "CONSOLE" not in run.stderr, run.stderr  # what a page may not do is reported there
    told = re.search(r'<pre id="told">(.*?)</pre>', run.stdout, re.S)
    assert told, run.stderr
    found: dict[str, object] = json.loads(unescape(told[1]))
    return found


@needs_browser
@pytest.mark.parametrize(
    ("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)]
)
def test_an_explanation_in_a_browser(
    pages: dict[str, str], tmp_path: Path, width: int, dark: bool
) -> None:
    for name in ("explanation", "match"):
        told = in_browser(tmp_path, pages[name], width, dark)
        assert told["wide"] is False
        assert told["fetched"] == []
        assert told["paper"] == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")
        assert told["focused"] is True
        assert told["caption"] is True
        on = told["on"]
        assert isinstance(on, list)
        assert on
        assert all(str(told["at"]) in places.split() for places in on)
        assert told["left"] == 0


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_a_trace_in_a_browser(
    encoder: SparseEncoder, pages: dict[str, str], tmp_path: Path, width: int, dark: bool
) -> None:
    told = in_browser(tmp_path, pages["trace"], width, dark)
    assert told["wide"] is False
    assert told["fetched"] == []
    assert told["paper"] == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")
    assert told["pressed"] == ["<"]
    attention = encoder.trace(SHORT).attention[:, :, 2].reshape(4, -1)
    looks = told["looks"]
    assert isinstance(looks, list)
    for text, weights in zip(looks, attention, strict=True):
        assert text.startswith("“<” looks at ")
        percents = [int(number) for number in re.findall(r"(\d+)%", text)]
        assert percents == sorted(np.rint(100 * weights).astype(int), reverse=True)[:4]


@needs_browser
def test_a_browser_holds_pages_to_fetching_nothing(tmp_path: Path) -> None:
    for body in ('<img src="http://127.0.0.1:9/x.png">', '<link rel="stylesheet" href="x.css">'):
        with pytest.raises(AssertionError, match="Content Security Policy"):
            in_browser(tmp_path, page("t", body), 1280, False)

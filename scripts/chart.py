"""Bar charts as SVG that read well on light and dark pages, without a plotting library."""

from collections.abc import Sequence
from html import escape

WIDTH, LEFT, RIGHT, BAR, GAP = 720, 220, 110, 22, 10
STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 } .ours { fill: #0969da } .other { fill: #8c959f }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .ours { fill: #4493f8 } .other { fill: #656c76 }
}
</style>"""


def bars(title: str, rows: Sequence[tuple[str, float, str]], ours: str) -> str:
    """Draw one bar a row, as long as its number.

    rows: label, number and the number as it should be written; ours: what the labels of the bars
    in the strong colour begin with.
    """
    height = 40 + len(rows) * (BAR + GAP)
    largest = max(number for _, number, _ in rows)
    parts = [f'<text class="title" x="8" y="22">{escape(title)}</text>']
    for place, (label, number, written) in enumerate(rows):
        top = 36 + place * (BAR + GAP)
        length = max(1.0, (WIDTH - LEFT - RIGHT) * number / largest)
        kind = "ours" if label.startswith(ours) else "other"
        middle = top + BAR / 2 + 5
        parts += [
            f'<text x="{LEFT - 8}" y="{middle}" text-anchor="end">{escape(label)}</text>',
            f'<rect class="{kind}" x="{LEFT}" y="{top}" '
            f'width="{length:.1f}" height="{BAR}" rx="3"/>',
            f'<text x="{LEFT + length + 6:.1f}" y="{middle}">{escape(written)}</text>',
        ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", STYLE, *parts, "</svg>", ""])

"""Figures as SVG that read well on light and dark pages, without a plotting library.

Each is one picture that can stand in a file or in a page of HTML.
"""

from collections.abc import Sequence
from html import escape
from math import ceil, floor
from typing import Literal

from minisplade.arrays import FloatArray

Colour = Literal["own", "new", "other"]
"""Blue, orange and grey: what is one's own or in a text, what was added, and what is compared."""

WIDTH, LEFT, RIGHT, BAR, GAP = 720, 220, 110, 22, 10
CELL, LETTER = 20, 7.5
SQUARE = f"h{CELL - 2}v{CELL - 2}h-{CELL - 2}z"
LEVELS = 16
"""Strengths of colour in a heat map; cells of one strength are drawn as one path."""

PALETTE = {
    "other": ("#8c959f", "#656c76"),
    "own": ("#0969da", "#4493f8"),
    "new": ("#bc4c00", "#f0883e"),
    "green": ("#1a7f37", "#3fb950"),
    "violet": ("#8250df", "#ab7df8"),
    "pink": ("#bf3989", "#f778ba"),
}
"""What each class of marks and lines is drawn with: on light pages, and on dark ones."""


def _coloured(dark: bool) -> str:
    return "\n".join(
        f".{name} {{ fill: {pair[dark]} }} .line.{name} {{ stroke: {pair[dark]}; fill: none }}"
        for name, pair in PALETTE.items()
    )


STYLE = f"""<style>
text {{ font: 13px system-ui, sans-serif; fill: #24292f }}
.title {{ font-weight: 600 }} .faint {{ fill: #59636e; font-size: 12px }}
.grid {{ stroke: #d1d9e0 }} .zero {{ stroke: #59636e }} .line {{ stroke-width: 1.5 }}
{_coloured(dark=False)}
@media (prefers-color-scheme: dark) {{
text {{ fill: #e6edf3 }} .faint {{ fill: #9198a1 }}
.grid {{ stroke: #3d444d }} .zero {{ stroke: #9198a1 }}
{_coloured(dark=True)}
}}
</style>"""


def bars(title: str, rows: Sequence[tuple[str, float, str, Colour]]) -> str:
    """Draw one bar a row, as long as its number.

    rows: label, number, the number as it should be written, and the colour.
    """
    largest = max((number for _, number, _, _ in rows), default=0) or 1
    parts = []
    for place, (label, number, written, colour) in enumerate(rows):
        top = 36 + place * (BAR + GAP)
        length = max(1.0, (WIDTH - LEFT - RIGHT) * number / largest)
        middle = top + BAR / 2 + 5
        parts += [
            text_at(LEFT - 8, middle, label, anchor="end"),
            f'<rect class="{colour}" x="{LEFT}" y="{top}" '
            f'width="{length:.1f}" height="{BAR}" rx="3"/>',
            text_at(LEFT + length + 6, middle, written),
        ]
    return svg(title, WIDTH, 40 + len(rows) * (BAR + GAP), parts)


def heat_map(title: str, values: FloatArray, rows: Sequence[str], columns: Sequence[str]) -> str:
    """Draw numbers from -1 to 1 as squares, the further from 0 the stronger.

    values: float (R, C), negative ones in the second colour; rows and columns: R and C labels.
    """
    left = 12 + LETTER * max(map(len, rows))
    top = 42 + LETTER * 0.87 * max(map(len, columns))
    right = LETTER * 0.5 * len(columns[-1])
    width = max(left + CELL * len(columns) + right, 16 + LETTER * len(title))
    height = top + CELL * len(rows) + 8
    parts = [
        text_at(left - 6, top + CELL * (row + 0.5) + 4, label, anchor="end")
        for row, label in enumerate(rows)
    ]
    for column, label in enumerate(columns):
        x, y = left + CELL * (column + 0.5) + 4, top - 6
        turned = f'transform="rotate(-60 {x:.1f} {y:.1f})"'
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}" {turned}>{escape(label)}</text>')
    levels = [max(-LEVELS, min(round(float(value) * LEVELS), LEVELS)) for value in values.flat]
    for level in sorted(set(levels) - {0}):
        cells = [divmod(place, len(columns)) for place, one in enumerate(levels) if one == level]
        path = "".join(
            f"M{left + CELL * column + 1:.1f} {top + CELL * row + 1:.1f}{SQUARE}"
            for row, column in cells
        )
        kind, strength = "own" if level > 0 else "new", abs(level) / LEVELS
        parts.append(f'<path class="{kind}" fill-opacity="{strength:.3f}" d="{path}"/>')
    frame = f'x="{left:.1f}" y="{top:.1f}" width="{CELL * len(columns)}"'
    parts.append(f'<rect class="grid" fill="none" {frame} height="{CELL * len(rows)}"/>')
    return svg(title, width, height, parts)


def curves(
    title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[float], Colour]]
) -> str:
    """Draw one line a row over named columns, with its label at the end.

    rows: label, one number for each column, and the colour.
    """
    numbers = [number for _, series, _ in rows for number in series]
    low, high = min(0.0, *numbers), max(0.0, *numbers)
    left, right, top = 48, 150, 44
    height = max(220, 24 * len(rows))
    step = (WIDTH - left - right) / max(1, len(columns) - 1)

    def y_of(number: float) -> float:
        return top + height * (high - number) / ((high - low) or 1)

    parts = []
    for tick in ticks_between(low, high):
        y = y_of(tick)
        kind = "zero" if tick == 0 else "grid"
        parts.append(
            f'<line class="{kind}" x1="{left}" x2="{WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(text_at(left - 6, y + 4, f"{tick:g}", "faint", "end"))
    for place, label in enumerate(columns):
        # As many labels as there is room for, and always the last.
        if (len(columns) - 1 - place) % ceil(70 / step) == 0:
            anchor = "start" if place == 0 else "middle"
            parts.append(text_at(left + step * place, top + height + 24, label, "faint", anchor))
    for _, series, colour in rows:
        points = " ".join(
            f"{left + step * place:.1f},{y_of(number):.1f}" for place, number in enumerate(series)
        )
        parts.append(f'<polyline class="line {colour}" points="{points}"/>')
    ends = sorted(rows, key=lambda row: -row[1][-1])
    places = _spread([y_of(row[1][-1]) for row in ends], top + height)
    edge = WIDTH - right
    for (label, series, colour), y in zip(ends, places):
        # From the end of the line to its label, which may have been moved.
        here = f'y1="{y_of(series[-1]):.1f}" y2="{y:.1f}"'
        parts.append(f'<line class="line {colour}" x1="{edge}" x2="{edge + 14}" {here}/>')
        parts.append(text_at(edge + 18, y + 4, label, colour))
    return svg(title, WIDTH, top + height + 36, parts)


def svg(title: str, width: float, height: float, parts: Sequence[str]) -> str:
    """Put a title and the parts of a drawing into one picture, named for who cannot see it."""
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    heading = [f"<title>{escape(title)}</title>", STYLE, text_at(8, 22, title, "title")]
    return "\n".join([head, *heading, *parts, "</svg>", ""])


def text_at(x: float, y: float, text: str, kind: str = "", anchor: str = "") -> str:
    """Write a text into a drawing; kind: its class; anchor: start, middle or end."""
    attributes = f' class="{kind}"' * bool(kind) + f' text-anchor="{anchor}"' * bool(anchor)
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(text)}</text>'


def ticks_between(low: float, high: float) -> list[float]:
    """Choose round numbers from low to high, 0 among them, eight steps at most."""
    sizes = (digit * 10.0**power for power in range(-3, 9) for digit in (1, 2, 5))
    size = next((size for size in sizes if (high - low) / size <= 8), high - low)
    return [size * number for number in range(ceil(low / size), floor(high / size) + 1)]


def _spread(heights: Sequence[float], lowest: float, room: float = 16) -> list[float]:
    """Move labels, sorted from the top, as far apart as they need, none below the lowest."""
    spread: list[float] = []
    for height in heights:
        spread.append(max(height, spread[-1] + room) if spread else height)
    places = range(len(spread) - 1, -1, -1)
    return [min(height, lowest - room * place) for height, place in zip(spread, places)]

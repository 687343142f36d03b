"""Figures of an evaluation: bars, differences, shares and trade-offs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from minisplade.figures import PALETTE, svg, text_at, ticks_between

WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 66, 40
FLOOR = HEIGHT - BOTTOM

COLOURS = list(PALETTE)
"""One for each series; the first, which is the baseline, is grey."""

RANGES = 20
"""Bars of a histogram."""


def grouped_bars(title: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Draw a bar for each series of each group, and write its value above it."""
    series = list(dict.fromkeys(name for own in groups.values() for name in own))
    axis = _Axis(0, max((value for own in groups.values() for value in own.values()), default=0))
    parts = [*_legend(series), *axis.grid()]
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(groups))
    width = min(48.0, 0.8 * slot / max(1, len(series)))
    for place, (group, own) in enumerate(groups.items()):
        middle = LEFT + (place + 0.5) * slot
        parts.append(text_at(middle, FLOOR + 16, group, "faint", "middle"))
        start = middle - width * len(own) / 2
        for bar, (name, value) in enumerate(own.items()):
            x, y = start + bar * width, axis.y_of(value)
            parts.append(
                f'<rect class="{_colour(series.index(name))}" x="{x + 1:.1f}" y="{y:.1f}" '
                f'width="{width - 2:.1f}" height="{FLOOR - y:.1f}">'
                f"<title>{escape(f'{group}, {name}: {value:.4f}')}</title></rect>"
            )
            if width >= 32:
                parts.append(text_at(x + width / 2, y - 4, f"{value:.3f}"[1:], "faint", "middle"))
    return svg(title, WIDTH, HEIGHT, parts)


def differences(title: str, values: Sequence[float], label: str) -> str:
    """Draw differences from the largest to the smallest, those above 0 and below in two colours.

    label: what a query is called on the axis.
    """
    ordered = sorted(values, reverse=True)
    most = max((abs(value) for value in ordered), default=0)
    axis = _Axis(-most, most)
    step = (WIDTH - LEFT - RIGHT) / max(1, len(ordered))
    zero = axis.y_of(0)
    parts = axis.grid()
    for colour, sign in (("green", 1), ("pink", -1)):
        path = "".join(
            f"M{LEFT + i * step:.1f} {zero:.1f}V{axis.y_of(value):.1f}h{step:.2f}V{zero:.1f}z"
            for i, value in enumerate(ordered)
            if value * sign > 0
        )
        parts.append(f'<path class="{colour}" d="{path}"/>')
    counts = [sum(v > 0 for v in ordered), sum(v < 0 for v in ordered)]
    same = len(ordered) - sum(counts)
    note = f"{len(ordered)} {label}: {counts[0]} better, {same} the same, {counts[1]} worse"
    return svg(title, WIDTH, HEIGHT, [*parts, _under(note)])


def histogram(title: str, series: Mapping[str, Sequence[int]], label: str) -> str:
    """Draw how many percent of each series fall into each of twenty ranges of values."""
    top = max((max(own, default=0) for own in series.values()), default=0) or 1
    shares: dict[str, list[float]] = {}
    for name, own in series.items():
        counts = [0] * RANGES
        for value in own:
            counts[min(RANGES - 1, int(RANGES * value / top))] += 1
        shares[name] = [100 * count / max(1, len(own)) for count in counts]
    axis = _Axis(0, max((max(own) for own in shares.values()), default=0))
    parts = [*_legend(list(series)), *axis.grid("%")]
    slot = (WIDTH - LEFT - RIGHT) / RANGES
    width = slot / max(1, len(shares))
    for place, own_shares in enumerate(shares.values()):
        path = "".join(
            f"M{LEFT + i * slot + place * width:.1f} {FLOOR}V{axis.y_of(share):.1f}"
            f"h{width - 1:.1f}V{FLOOR}z"
            for i, share in enumerate(own_shares)
            if share
        )
        parts.append(f'<path class="{_colour(place)}" d="{path}"/>')
    for tick in ticks_between(0, top):
        x = LEFT + tick / top * (WIDTH - LEFT - RIGHT)
        parts.append(text_at(x, FLOOR + 16, f"{tick:g}", "faint", "middle"))
    return svg(title, WIDTH, HEIGHT, [*parts, _under(label)])


def curves(title: str, series: Mapping[str, Sequence[tuple[str, float]]], label: str) -> str:
    """Draw a line for each series over settings, which are evenly spaced.

    series: by name, (setting, value) pairs; label: what the settings are.
    """
    settings = list(dict.fromkeys(s for own in series.values() for s, _ in own))
    values = [value for own in series.values() for _, value in own]
    low, high = min(values, default=0), max(values, default=0)
    axis = _Axis(low - (high - low) / 20, high)  # no line lies on the floor
    parts = [*_legend(list(series)), *axis.grid()]
    step = (WIDTH - LEFT - RIGHT) / max(1, len(settings))
    places = {setting: LEFT + (i + 0.5) * step for i, setting in enumerate(settings)}
    for setting, x in places.items():
        parts.append(text_at(x, FLOOR + 16, setting, "faint", "middle"))
    for place, (name, own) in enumerate(series.items()):
        points = [(places[setting], axis.y_of(value)) for setting, value in own]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="line {_colour(place)}" points="{line}"/>')
        parts += [
            f'<circle class="{_colour(place)}" cx="{x:.1f}" cy="{y:.1f}" r="3.5">'
            f"<title>{escape(f'{name}, {setting}: {value:.4f}')}</title></circle>"
            for (x, y), (setting, value) in zip(points, own)
        ]
    return svg(title, WIDTH, HEIGHT, [*parts, _under(label)])


class _Axis:
    """The upright axis, from a lowest value to a highest."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high if high > low else low + 1

    def y_of(self, value: float) -> float:
        """Return where a value lies."""
        share = (value - self.low) / (self.high - self.low)
        return FLOOR - share * (FLOOR - TOP)

    def grid(self, unit: str = "") -> list[str]:
        """Draw a line at each tick, that at 0 stronger."""
        parts = []
        for tick in ticks_between(self.low, self.high):
            y, kind = self.y_of(tick), "grid" if tick else "zero"
            ends = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
            parts.append(f'<line class="{kind}" {ends}/>')
            parts.append(text_at(LEFT - 6, y + 4, f"{tick:g}{unit}", "faint", "end"))
        return parts


def _legend(names: Sequence[str]) -> list[str]:
    """Name the series in a row under the title."""
    parts, x = [], LEFT
    for place, name in enumerate(names):
        square = f'x="{x}" y="32" width="10" height="10" rx="2"'
        parts.append(f'<rect class="{_colour(place)}" {square}/>')
        parts.append(text_at(x + 15, 41, name, "faint"))
        x += 30 + round(7.2 * len(name))
    return parts


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _under(label: str) -> str:
    return text_at((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, label, "faint", "middle")

"""Figures as SVG that read well on light and dark pages, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 52, 40

COLOURS = (
    ("#6e7781", "#8b949e"),
    ("#0969da", "#4493f8"),
    ("#1a7f37", "#3fb950"),
    ("#9a6700", "#d29922"),
    ("#8250df", "#ab7df8"),
    ("#bf3989", "#f778ba"),
)
"""One for each series: on light pages, and on dark ones."""

STYLE = (
    "<style>.fig text{font:12px system-ui,sans-serif;fill:#24292f}.fig .title{font-weight:600}"
    ".fig .axis{stroke:#8c959f;fill:none}.fig .grid{stroke:#d0d7de;fill:none}"
    + "".join(
        f".fig .s{i}{{fill:{light}}}.fig .l{i}{{stroke:{light};fill:none;stroke-width:2}}"
        for i, (light, _) in enumerate(COLOURS)
    )
    + "@media(prefers-color-scheme:dark){.fig text{fill:#e6edf3}.fig .grid{stroke:#30363d}"
    + "".join(
        f".fig .s{i}{{fill:{dark}}}.fig .l{i}{{stroke:{dark}}}"
        for i, (_, dark) in enumerate(COLOURS)
    )
    + "}</style>"
)


def grouped_bars(title: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Draw a bar for each series of each group, and write its value above it."""
    series = list(dict.fromkeys(name for own in groups.values() for name in own))
    top = max((value for own in groups.values() for value in own.values()), default=0) or 1.0
    ticks = _ticks(0, top)
    parts = [*_legend(series), *_grid(ticks)]
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(groups))
    width = min(48.0, 0.8 * slot / max(1, len(series)))
    for place, (group, own) in enumerate(groups.items()):
        middle = LEFT + (place + 0.5) * slot
        parts.append(_text(middle, HEIGHT - BOTTOM + 16, group, "middle"))
        start = middle - width * len(own) / 2
        for bar, (name, value) in enumerate(own.items()):
            x, y = start + bar * width, _y(value, ticks)
            kind = series.index(name) % len(COLOURS)
            height = HEIGHT - BOTTOM - y
            parts.append(
                f'<rect class="s{kind}" x="{x + 1:.1f}" y="{y:.1f}" width="{width - 2:.1f}" '
                f'height="{height:.1f}"><title>{escape(f"{group}, {name}: {value:.4f}")}</title>'
                "</rect>"
            )
            if width >= 32:
                parts.append(_text(x + width / 2, y - 4, f"{value:.3f}"[1:], "middle"))
    return _figure(title, parts)


def differences(title: str, values: Sequence[float], label: str) -> str:
    """Draw differences from the largest to the smallest, those above 0 and below in two colours.

    label: what a query is called on the axis.
    """
    ordered = sorted(values, reverse=True)
    most = max((abs(value) for value in ordered), default=0) or 1.0
    ticks = _ticks(-most, most)
    step = (WIDTH - LEFT - RIGHT) / max(1, len(ordered))
    zero = _y(0, ticks)
    parts = _grid(ticks)
    for kind, sign in ((2, 1), (5, -1)):
        path = "".join(
            f"M{LEFT + i * step:.1f} {zero:.1f}V{_y(value, ticks):.1f}h{step:.2f}V{zero:.1f}z"
            for i, value in enumerate(ordered)
            if value * sign > 0
        )
        parts.append(f'<path class="s{kind}" d="{path}"/>')
    counts = [sum(v > 0 for v in ordered), sum(v < 0 for v in ordered)]
    same = len(ordered) - sum(counts)
    note = f"{len(ordered)} {label}: {counts[0]} better, {same} the same, {counts[1]} worse"
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, note, "middle"))
    return _figure(title, parts)


def histogram(title: str, series: Mapping[str, Sequence[int]], label: str) -> str:
    """Draw how many percent of each series fall into each of twenty ranges of values."""
    top = max((max(own, default=0) for own in series.values()), default=0)
    bounds = _ticks(0, max(1, top))
    size = bounds[-1] / 20
    shares: dict[str, list[float]] = {}
    for name, own in series.items():
        counts = [0] * 20
        for value in own:
            counts[min(19, int(value / size))] += 1
        shares[name] = [100 * count / max(1, len(own)) for count in counts]
    ticks = _ticks(0, max((max(own) for own in shares.values()), default=1.0))
    parts = [*_legend(list(series)), *_grid(ticks, "%")]
    slot = (WIDTH - LEFT - RIGHT) / 20
    width = slot / max(1, len(shares))
    for kind, own_shares in enumerate(shares.values()):
        path = "".join(
            f"M{LEFT + i * slot + kind * width:.1f} {HEIGHT - BOTTOM}V{_y(share, ticks):.1f}"
            f"h{width - 1:.1f}V{HEIGHT - BOTTOM}z"
            for i, share in enumerate(own_shares)
            if share
        )
        parts.append(f'<path class="s{kind}" d="{path}"/>')
    for bound in bounds:
        x = LEFT + bound / bounds[-1] * (WIDTH - LEFT - RIGHT)
        parts.append(_text(x, HEIGHT - BOTTOM + 16, f"{bound:g}", "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, label, "middle"))
    return _figure(title, parts)


def curves(title: str, series: Mapping[str, Sequence[tuple[str, float]]], label: str) -> str:
    """Draw a line for each series over settings, which are evenly spaced.

    series: by name, (setting, value) pairs; label: what the settings are.
    """
    settings = list(dict.fromkeys(s for own in series.values() for s, _ in own))
    values = [value for own in series.values() for _, value in own]
    ticks = _ticks(min(values, default=0.0), max(values, default=1.0))
    parts = [*_legend(list(series)), *_grid(ticks)]
    step = (WIDTH - LEFT - RIGHT) / max(1, len(settings))
    places = {setting: LEFT + (i + 0.5) * step for i, setting in enumerate(settings)}
    for setting, x in places.items():
        parts.append(_text(x, HEIGHT - BOTTOM + 16, setting, "middle"))
    for kind, (name, own) in enumerate(series.items()):
        points = [(places[setting], _y(value, ticks)) for setting, value in own]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        kind %= len(COLOURS)
        parts.append(f'<polyline class="l{kind}" points="{line}"/>')
        parts += [
            f'<circle class="s{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5">'
            f"<title>{escape(f'{name}, {setting}: {value:.4f}')}</title></circle>"
            for (x, y), (setting, value) in zip(points, own)
        ]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, label, "middle"))
    return _figure(title, parts)


def _figure(title: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="fig" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="{escape(title)}">'
    )
    heading = f'<text class="title" x="8" y="18">{escape(title)}</text>'
    return "\n".join([head, STYLE, heading, *parts, "</svg>"])


def _legend(names: Sequence[str]) -> list[str]:
    """Name the series in a row under the title."""
    parts, x = [], LEFT
    for kind, name in enumerate(names):
        parts.append(
            f'<rect class="s{kind % len(COLOURS)}" x="{x}" y="28" width="10" height="10" rx="2"/>'
        )
        parts.append(_text(x + 15, 37, name))
        x += 30 + round(7.2 * len(name))
    return parts


def _grid(ticks: Sequence[float], unit: str = "") -> list[str]:
    """Draw a line at each tick, the one at the bottom or at 0 stronger."""
    parts = []
    for tick in ticks:
        y = _y(tick, ticks)
        kind = "axis" if tick in (0, ticks[0]) else "grid"
        parts.append(f'<path class="{kind}" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{tick:g}{unit}", "end"))
    return parts


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _y(value: float, ticks: Sequence[float]) -> float:
    """Place a value between the first tick and the last."""
    share = (value - ticks[0]) / (ticks[-1] - ticks[0])
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers that reach from low or below to high or above."""
    span = max(high - low, 1e-9)
    size = 10.0 ** math.floor(math.log10(span / 4))
    step = next(size * factor for factor in (1, 2, 5, 10) if span / (size * factor) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]

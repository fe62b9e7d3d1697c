"""Curves and strips of dots as SVG: sharp on every screen and on paper, in the page's own font, without a script."""

from __future__ import annotations

import html
import math

import numpy as np

Points = list[tuple[float, float]]
WIDTH, HEIGHT, LEFT, BOTTOM, EDGE = 340, 190, 46, 26, 10  # of a panel, and of its margins
POINTS = 400  # of a curve; more cannot be told apart
STRIP = 190, 22  # width and height of a strip


def curves(
    lines: list[Points], last: float, words: str, *, smooth: bool = False, dots: bool = False, unit: bool = False
) -> str:
    """One panel of curves from step 0 to `last`; `smooth` draws their running mean over them, `unit` makes the axis 0 to 1."""
    lines = [line for line in lines if line]
    if not lines:
        return '<p class="note">Nothing was logged.</p>'
    values = [value for line in lines for _, value in line]
    low, high = (0.0, 1.0) if unit else (min(0.0, *values), max(0.0, *values) or 1.0)
    right = max(last, 1.0)

    def place(x: float, y: float) -> tuple[float, float]:
        return (LEFT + (WIDTH - LEFT - EDGE) * x / right, EDGE + (HEIGHT - BOTTOM - EDGE) * (high - y) / (high - low))

    parts = [_line(*place(0, y), *place(right, y), "grid") + _text(LEFT - 6, place(0, y)[1] + 4, f"{y:g}", "end") for y in ticks(low, high)]
    parts += [_text(place(x, 0)[0], HEIGHT - 8, f"{x:,.0f}", "middle") for x in ticks(0, right) if x == int(x)]
    for line in lines:
        parts.append(_path([place(*point) for point in _thinned(line)], "pale" if smooth else "curve"))
        if smooth:
            parts.append(_path([place(*point) for point in _thinned(running_mean(line))], "curve"))
        if dots:
            parts += [f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in (place(*point) for point in line)]
    return _svg(WIDTH, HEIGHT, words, parts)


def strip(values: list[float], interval: tuple[float, float] | None, colour: str, low: float, words: str) -> str:
    """Every value as a dot between `low` and 1, their mean as a bar, the mean's interval as a band."""
    width, height = STRIP
    middle, reach = height / 2, width - 12

    def place(value: float) -> float:
        return 6 + reach * (max(value, low) - low) / (1 - low)

    parts = [_line(place(x), 3, place(x), height - 3, "grid") for x in ticks(low, 1)]
    if interval is not None:
        left, right = place(interval[0]), place(interval[1])
        parts.append(f'<rect class="band" x="{left:.1f}" y="4" width="{max(right - left, 1):.1f}" height="{height - 8}"/>')
    for n, value in enumerate(values):  # spread up and down evenly, so that equal values stay apart
        y = middle + (height - 12) * ((n * 0.618) % 1 - 0.5)
        parts.append(f'<circle cx="{place(value):.1f}" cy="{y:.1f}" r="2.6" fill="{colour}" fill-opacity=".65"/>')
    mean = place(float(np.mean(values)))
    return _svg(width, height, words, [*parts, _line(mean, 2, mean, height - 2, "mean")])


def scale(low: float) -> str:
    """The numbers that belong above strips from `low` to 1."""
    width, _ = STRIP
    parts = [_text(6 + (width - 12) * (x - low) / (1 - low), 11, f"{x:g}", "middle") for x in ticks(low, 1)]
    return _svg(width, 14, "scale", parts)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from low to high."""
    raw = max(high - low, 1e-12) / most
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 10) for n in range(first, last + 1)]


def running_mean(line: Points) -> Points:
    """A curve smoothed over a twentieth of its points, fewer of which are left."""
    width = len(line) // 20 + 1
    x, y = (np.convolve([point[n] for point in line], np.ones(width) / width, "valid") for n in (0, 1))
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _thinned(line: Points) -> Points:
    if len(line) <= POINTS:
        return line
    return [line[n] for n in np.linspace(0, len(line) - 1, POINTS).astype(int)]


def _path(points: Points, kind: str) -> str:
    return f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'


def _svg(width: int, height: int, words: str, parts: list[str]) -> str:
    inside = "".join(parts)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(words)}">{inside}</svg>'

"""Charts as SVG: round numbers, everything inside the panel, nothing that a name could break."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet.charts import HEIGHT, STRIP, WIDTH, curves, scale, strip, ticks

numbers = st.floats(0, 1, allow_nan=False)


@given(st.floats(-1e6, 1e6), st.floats(1e-9, 1e6))
def test_ticks_are_few_even_and_inside(low: float, length: float) -> None:
    found = ticks(low, low + length)
    assert len(found) <= 6 and all(low - 1e-6 * length - 1e-9 <= tick <= low + length * (1 + 1e-6) + 1e-9 for tick in found)
    assert length < 1e-6 * abs(low) + 1e-8 or len(found) >= 2


def test_ticks_are_round() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1] and ticks(0, 1730) == [0, 500, 1000, 1500] and ticks(0.7, 1) == [0.7, 0.8, 0.9, 1]


def places(svg: str) -> list[tuple[float, float]]:
    """Every drawn point; the SVG has to be well-formed."""
    root = ElementTree.fromstring(svg)
    points = [tuple(map(float, pair.split(","))) for line in root.iter("polyline") for pair in line.attrib["points"].split()]
    points += [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.iter("circle")]
    return points  # type: ignore[return-value]


@given(st.lists(st.tuples(st.integers(1, 10_000), st.floats(-5, 1e4)), min_size=1, max_size=60))
def test_curves_stay_in_their_panel(pairs: list[tuple[float, float]]) -> None:
    line = sorted(pairs)
    found = places(curves([line], line[-1][0], "loss", smooth=True, dots=True))
    assert found and all(-1 <= x <= WIDTH + 1 and -1 <= y <= HEIGHT + 1 for x, y in found)


@given(st.lists(numbers, min_size=1, max_size=200), st.sampled_from([0.0, 0.3, 0.8]))
def test_strips_show_every_value_in_their_frame(values: list[float], low: float) -> None:
    found = places(strip(values, (0.5, 0.9), "#ff0000", low, "Dice"))
    assert len(found) == len(values) and all(0 <= x <= STRIP[0] and 0 <= y <= STRIP[1] for x, y in found)
    order = sorted(range(len(values)), key=lambda n: max(values[n], low))
    assert [found[n][0] for n in order] == sorted(x for x, _ in found)


def test_long_runs_are_thinned_and_nothing_logged_is_said() -> None:
    line = [(float(n), 1.0) for n in range(1, 100_000)]
    assert len(curves([line], line[-1][0], "loss", smooth=True)) < 20_000
    assert "Nothing was logged" in curves([], 1, "loss") and "Nothing was logged" in curves([[]], 1, "loss")


@pytest.mark.parametrize("words", ["<b>", "\"quoted\" & 'more'", "脳"])
def test_words_are_escaped(words: str) -> None:
    assert ElementTree.fromstring(strip([0.5], None, "#000000", 0, words)).attrib["aria-label"] == words
    assert re.search(r">0\.8<", scale(0.8)) and ElementTree.fromstring(scale(0.8)) is not None

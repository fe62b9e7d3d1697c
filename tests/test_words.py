"""One is singular, many are cut short, and hours are not told to the second."""

from __future__ import annotations

import numpy as np

from napari_unet.words import counted, duration, listed, shortened, size


def test_long_names_are_shortened() -> None:
    assert shortened("a" * 48) == "a" * 48 and len(shortened("a" * 240)) <= 48


def test_lists() -> None:
    assert [listed("abcde"[:n], 3) for n in range(5)] == ["", "a", "a and b", "a, b and c", "a, b, c and 1 more"]
    assert listed(("a", "b"), 1) == "a and 1 more"


def test_counts() -> None:
    numbers = (0, 1, 2, np.int64(1_234_567), 1.0, 0.5)
    assert [counted(n, "case") for n in numbers] == ["0 cases", "1 case", "2 cases", "1,234,567 cases", "1 case", "0.5 cases"]


def test_sizes() -> None:
    assert [size(n) for n in (0, 35e6, 99e6, 1e8, 31.44e9)] == ["0 MB", "35 MB", "99 MB", "0.1 GB", "31.4 GB"]


def test_hours_are_not_told_to_the_second() -> None:
    told = [duration(seconds) for seconds in (0, 0.4, 5, 65, 7199, 7200, 18725)]
    assert told == ["< 1 s", "< 1 s", "5 s", "1 min 05 s", "119 min 59 s", "2 h 00 min", "5 h 12 min"]

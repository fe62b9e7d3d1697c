"""Names, numbers, bytes and seconds as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence


def shortened(name: str, most: int = 48) -> str:
    """A name that keeps a table's or a line's shape."""
    return name if len(name) <= most else f"{name[: most - 16]}...{name[-13:]}"


def listed(names: Sequence[str], most: int) -> str:
    """Names as a sentence lists them: "a, b and c", or "a, b and 3 more" where there are more than `most`."""
    shown = names if len(names) <= most else [*names[:most], f"{len(names) - most} more"]
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else "".join(shown)


def counted(count: float, what: str) -> str:
    """As in "1 case", "2 cases", "1,200 voxels" or "0.5 minutes"."""
    return f"{f'{count:g}' if isinstance(count, float) else f'{count:,}'} {what}{'' if count == 1 else 's'}"


def size(count: float) -> str:
    """Bytes, as in "1.2 GB" or "35 MB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"


def duration(seconds: float) -> str:
    """As in "< 1 s", "12 s", "6 min 05 s" or, from two hours on, "2 h 10 min"."""
    if seconds < 1:
        return "< 1 s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 120:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"

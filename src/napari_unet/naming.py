"""What files are called: which of them are images, which are masks, of which case and channel; nothing is read but names."""

from __future__ import annotations

import re
from pathlib import Path

from napari_unet.errors import UNetError
from napari_unet.suffixes import stem, suffix
from napari_unet.words import shortened

_MASK_WORDS = "seg|segmentation|mask|masks|label|labels|gt"
_WORDS = f"{_MASK_WORDS}|image|images|img|imgs"
_MASK = re.compile(rf"(?P<image>.+)[-_]({_MASK_WORDS})", re.IGNORECASE)
_MASK_ALONE = re.compile(_MASK_WORDS, re.IGNORECASE)  # in a folder of its case
_SAYS_WHAT = re.compile(rf"^({_WORDS})[-_. ]?(?=\d)|^({_WORDS})[-_. ]|[-_. ]({_WORDS})$")  # a name, in small letters
CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder, by name."""
    return [path for path in entries(folder) if suffix(path) not in ("", ".img")]


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, by name, but for what is hidden."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UNetError(folder, f"cannot be read ({error.strerror})", "Check its permissions") from error


def some(paths: list[Path]) -> str:
    """The first names of several."""
    more = f" and {len(paths) - 3} more" * (len(paths) > 3)
    return f"{', '.join(shortened(path.name) for path in paths[:3])}{more}" if paths else "it is empty"


def image_of(mask: str) -> str | None:
    """The name of the image that a mask is named for; None where its name does not say that it is a mask."""
    match = _MASK.fullmatch(mask)
    return match["image"] if match else None


def key_of(name: str) -> str:
    """What of a name tells the case: in small letters, without a word for image or mask, as in `img0001`, `mask_7` and `a_img`."""
    return _SAYS_WHAT.sub("", name.casefold())


def split(path: Path) -> tuple[str, int]:
    """Case and channel of a file; only where a channel 0 exists is `_0001` one."""
    match = CHANNEL.fullmatch(stem(path))
    if match:
        if (path.parent / f"{match['case']}_0000{ending(path)}").exists():
            return match["case"], int(match["channel"])
    return stem(path), 0


def ending(path: Path) -> str:
    """What follows a file's stem, in its own letters."""
    return path.name[len(stem(path)) :]


def is_mask(path: Path) -> bool:
    """Whether a file in a case's own folder is called one."""
    return bool(_MASK.fullmatch(stem(path)) or _MASK_ALONE.fullmatch(stem(path)))

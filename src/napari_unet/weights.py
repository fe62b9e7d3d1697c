"""The weights file: one .safetensors with the tensors, the spec and the card; closed, checksummed, nothing executable.

Layout: https://github.com/huggingface/safetensors#format. The header's `__metadata__` holds our JSON strings.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from napari_unet.calibration import Calibration
from napari_unet.card import Card
from napari_unet.errors import UNetError
from napari_unet.files import reading, write_atomically
from napari_unet.layout import MODEL
from napari_unet.schema import decode, encode, strict_json
from napari_unet.spec import ModelSpec
from napari_unet.words import counted

if TYPE_CHECKING:  # a header is read without numpy, which costs `info` a third of its time
    import numpy as np
    from numpy.typing import NDArray

FORMAT, ENSEMBLE, LATER = "napari-unet 1", "napari-unet 2", "napari-unet 3"  # what reads only the first refuses the others, and says so
INT8 = "int8"  # a calibrated model's string of its own, which older versions pass over
MAX_FILE, MAX_HEADER, MAX_TENSORS = 2 << 30, 1 << 20, 4000
_NAME = re.compile(r"[A-Za-z0-9._]{1,128}")
_DTYPES = {"F32": "<f4", "F16": "<f2"}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
NNUNET = "a trained model of nnU-Net"
_REMEDY = "Fetch the file again, or train the model anew"
Tensors = Mapping[str, "NDArray[Any]"]
T = TypeVar("T")


def shipped() -> dict[str, Path]:
    """The models inside the package, name -> file; the smallest first, the phantoms', with which a newcomer begins."""
    paths = (Path(__file__).parent / "models").glob("*.safetensors")
    return {path.stem: path for path in sorted(paths, key=lambda path: (path.stat().st_size, path.name))}


def find(model: str | Path) -> Path:
    """A weights file by path, by the folder of its run, or by the name of a shipped model."""
    path = Path(model)
    if os.path.isdir(path):
        path = path / MODEL
    if os.path.exists(path):  # False for whatever cannot be a name
        return path
    known = shipped()
    if str(model) in known:
        return known[str(model)]
    if kind := _of_another_program(Path(model)):
        convert = f"Convert it: napari-unet convert {Path(model)}. " * (kind == NNUNET)
        raise UNetError(model, f"it is {kind}: models of that program are not read" + " as they are" * bool(convert),
                        f"{convert}Train here on the same data: napari-unet train DATA reads nnU-Net's layout, among others")  # fmt: skip
    raise UNetError(model, "there is no such weights file", "Give a .safetensors file, or the folder of a training run"
                    + "".join(f", or {name}" for name in known))  # fmt: skip


def _of_another_program(folder: Path) -> str:
    """What a folder is that holds another program's model; "" where it is none."""
    whole = folder.parent if folder.name.startswith("fold_") else folder
    if os.path.isdir(folder) and os.path.exists(whole / "plans.json"):
        return NNUNET
    return "a bundle of MONAI" if os.path.exists(folder / "configs" / "metadata.json") else ""


def read_spec(path: str | Path) -> ModelSpec:
    """The model's specification from the file's header alone, without torch."""
    return _spec(_metadata(path), path)


def read_card(path: str | Path) -> Card:
    """The model's card from the file's header alone, without torch."""
    return decode(Card, _metadata(path)["card"], str(path))


def checksum(path: str | Path) -> str:
    """The SHA-256 that the file's header tells, of all else in the file; `load` is what holds the file to it."""
    return _metadata(path)["sha256"]


def read_calibration(path: str | Path) -> Calibration | None:
    """What the model needs in order to run in 8-bit integers, from the file's header alone; None where it was not calibrated."""
    text = _metadata(path).get(INT8)
    return None if text is None else decode(Calibration, text, str(path))


def save(path: str | Path, spec: ModelSpec, card: Card, tensors: Tensors, calibration: Calibration | None = None) -> None:
    """Write a model atomically. An ensemble's tensors: see `merge`.

    Half precision wherever that keeps a tensor finite; of a model that does as another program (`ModelSpec.later`), float32, so that
    it answers as it does there.
    """
    stored = {name: value.astype("float32") if spec.later else _half(value) for name, value in tensors.items()}
    strings = {"format": _format(spec), "spec": encode(spec), "card": encode(card)}
    save_tensors(path, stored, strings if calibration is None else strings | {INT8: encode(calibration)})


def _format(spec: ModelSpec) -> str:
    """The first that knew all that a model says."""
    return LATER if spec.later else FORMAT if spec.members == 1 else ENSEMBLE


def _half(value: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    value = np.asarray(value, np.float32)
    with np.errstate(over="ignore"):
        half = value.astype(np.float16)
    return half if np.isfinite(half).all() else value


def load(path: str | Path) -> tuple[ModelSpec, dict[str, NDArray[np.float32]]]:
    """The model's specification and its tensors as float32, after every check: structure, shapes, checksum, finiteness.

    Raises UNetError naming what is wrong; never reads tensors that do not fill the network exactly.
    """
    header = _header(path)
    spec = _spec(header.metadata, path)
    expected = shapes_of(spec)
    found = {name: shape for name, (_, shape, *_) in header.entries.items()}
    if found != expected:
        name = next(n for n in (*expected, *found) if expected.get(n) != found.get(n))
        raise UNetError(path, f"the tensor {name} has shape {found.get(name)}, the network needs {expected.get(name)}",
                        _REMEDY)  # fmt: skip
    return spec, {name: tensor.astype("float32") for name, tensor in _read(path, header).items()}


def shapes_of(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a model's file: those of its network, for each member of an ensemble."""
    from napari_unet.network import parameter_shapes

    return merge([parameter_shapes(spec.network)] * spec.members)


def merge(members: Sequence[Mapping[str, T]]) -> dict[str, T]:
    """The tensors of several networks under one another's names: `n.<name>` is member n's; of a single one as they are."""
    if len(members) == 1:
        return dict(members[0])
    return {f"{n}.{name}": value for n, member in enumerate(members) for name, value in member.items()}


def divide(tensors: Mapping[str, T], members: int) -> list[dict[str, T]]:
    """The inverse of `merge`: each member's tensors by its network's names."""
    if members == 1:
        return [dict(tensors)]
    parts: list[dict[str, T]] = [{} for _ in range(members)]
    for name, value in tensors.items():
        number, _, own = name.partition(".")
        parts[int(number)][own] = value
    return parts


def check_room(spec: ModelSpec, where: str | Path) -> None:
    """UNetError where a file cannot hold such a model; better asked before its training."""
    shapes = shapes_of(spec)
    size = (4 if spec.later else 2) * sum(math.prod(shape) for shape in shapes.values()) + MAX_HEADER
    if len(shapes) > MAX_TENSORS or size > MAX_FILE:
        raise UNetError(where, f"{spec.members} members need {len(shapes):,} tensors and {size:,} bytes",
                        f"At most {MAX_TENSORS:,} and {MAX_FILE:,} fit into a file: use fewer members, levels or features")  # fmt: skip


def save_tensors(path: str | Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    """Write named float tensors and strings atomically, with a checksum; the same bytes for the same content.

    What could not be read back is a UNetError, and an older file stays: values that are not finite, strange names or
    types, or too much of anything.
    """
    import numpy as np

    arrays = {name: np.asarray(value) for name, value in tensors.items()}
    table, end = {}, 0
    for name in sorted(arrays, key=lambda n: (-arrays[n].itemsize, n)):  # wide types first, so that each is aligned
        begin, end = end, end + arrays[name].nbytes
        code = _CODES.get(arrays[name].dtype.str, str(arrays[name].dtype))
        table[name] = {"dtype": code, "shape": list(arrays[name].shape), "data_offsets": [begin, end]}
        _check_finite(arrays[name], name, path, "The training has diverged: use a smaller rate (--rate)")
    data = b"".join(arrays[name].tobytes() for name in table)
    entries = {name: _entry(name, value, path) for name, value in table.items()}
    strings = metadata | {"sha256": _digest(entries, metadata, data)}
    text = json.dumps({"__metadata__": strings, **table}, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    _parse(text, 8 + len(text) + len(data), path)
    write_atomically(path, lambda file: file.writelines((len(text).to_bytes(8, "little"), text, data)))


def load_tensors(path: str | Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Named tensors and strings from a file that a stranger may have made. Raises UNetError for anything irregular."""
    header = _header(path)
    return _read(path, header), header.metadata


def _read(path: str | Path, header: _Header) -> dict[str, NDArray[Any]]:
    try:
        with reading(path), open(path, "rb") as file:
            file.seek(header.end)
            data = file.read()
    except MemoryError:
        raise UNetError(path, "needs more memory than there is", "Close other programs") from None
    if _digest(header.entries, header.metadata, data) != header.metadata.get("sha256"):
        raise UNetError(path, "its checksum does not fit its content: the file is damaged", _REMEDY)
    import numpy as np

    tensors = {}
    for name, (dtype, shape, begin, _) in header.entries.items():
        tensors[name] = np.frombuffer(data, dtype, math.prod(shape), begin).reshape(shape)
        _check_finite(tensors[name], name, path, "Train the model anew")
    return tensors


def _digest(entries: dict[str, _Entry], metadata: dict[str, str], data: bytes) -> str:
    """SHA-256 of all that a file says: its tensors' names, types, shapes and places, its other strings, then the tensors."""
    strings = {key: value for key, value in metadata.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps([entries, strings], sort_keys=True).encode())
    digest.update(data)
    return digest.hexdigest()


def _check_finite(tensor: NDArray[Any], name: str, path: str | Path, remedy: str) -> None:
    import numpy as np

    if not np.isfinite(tensor).all():
        raise UNetError(path, f"the tensor {name} holds NaN or infinite values", remedy)


def _metadata(path: str | Path) -> dict[str, str]:
    return _required(_header(path).metadata, path)


def _spec(metadata: dict[str, str], path: str | Path) -> ModelSpec:
    spec = decode(ModelSpec, _required(metadata, path)["spec"], str(path))
    if metadata["format"] != _format(spec):
        raise UNetError(path, f"{counted(spec.members, 'member')} in a file of format {metadata['format']!r}", _REMEDY)
    return spec


def _required(metadata: dict[str, str], path: str | Path) -> dict[str, str]:
    found = metadata.get("format")
    if found not in (FORMAT, ENSEMBLE, LATER) or not {"spec", "card", "sha256"} <= metadata.keys():
        newer = isinstance(found, str) and found.startswith("napari-unet ")
        raise UNetError(path, f"its format is {str(found)[:80]!r}, this version reads {FORMAT!r} to {LATER!r}",
                        "Update napari-unet-monai" if newer else "Give a model that napari-unet trained")  # fmt: skip
    return metadata


_Entry = tuple[str, tuple[int, ...], int, int]


class _Header(NamedTuple):
    """A file's table of tensors (type, shape, first and last byte), its strings, and where the tensors begin."""

    entries: dict[str, _Entry]
    metadata: dict[str, str]
    end: int


def _header(path: str | Path) -> _Header:
    """The file's header, checked before anything is allocated."""
    with reading(path), open(path, "rb") as file:
        size = Path(path).stat().st_size
        length = int.from_bytes(file.read(8), "little")
        text = file.read(min(length, MAX_HEADER))
    if len(text) < length or not text.startswith(b"{"):
        raise UNetError(path, f"not a weights file: {size:,} bytes with a header of {length:,}",
                        "Give a .safetensors file that napari-unet wrote")  # fmt: skip
    return _parse(text, size, path)


def _parse(text: bytes, size: int, path: str | Path) -> _Header:
    """The header of a file of `size` bytes, read or to be written."""
    if size > MAX_FILE or len(text) > MAX_HEADER:
        raise UNetError(path, f"{size:,} bytes with a header of {len(text):,}", f"At most {MAX_FILE:,} and {MAX_HEADER:,} are read")
    table = strict_json(text, str(path))
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UNetError(path, "its __metadata__ is not a table of strings", _REMEDY)
    if len(table) > MAX_TENSORS:
        raise UNetError(path, f"{len(table):,} tensors, more than {MAX_TENSORS:,}", _REMEDY)
    entries = {name: _entry(name, value, path) for name, value in table.items()}
    _check_contiguous(entries, size - 8 - len(text), path)
    return _Header(entries, metadata, 8 + len(text))


def _entry(name: str, value: Any, path: str | Path) -> _Entry:
    good = (
        isinstance(value, dict) and value.keys() == {"dtype", "shape", "data_offsets"} and _NAME.fullmatch(name)
        and value["dtype"] in list(_DTYPES) and _whole(value["shape"]) and len(value["shape"]) <= 8
        and _whole(value["data_offsets"]) and len(value["data_offsets"]) == 2
    )  # fmt: skip
    if not good:
        raise UNetError(path, f"the tensor {name[:80]!r} is described as {json.dumps(value)[:120]}", _REMEDY)
    return _DTYPES[value["dtype"]], tuple(value["shape"]), *value["data_offsets"]


def _whole(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v <= MAX_FILE for v in values)


def _check_contiguous(entries: dict[str, _Entry], size: int, path: str | Path) -> None:
    position = 0
    for name, (dtype, shape, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != position or end - begin != math.prod(shape) * int(dtype[-1]):
            raise UNetError(path, f"the tensor {name} lies at {begin}-{end}, not at {position} with shape {shape}", _REMEDY)
        position = end
    if position != size:
        raise UNetError(path, f"{size:,} bytes of tensors, {position:,} are described: the file is cut or padded", _REMEDY)

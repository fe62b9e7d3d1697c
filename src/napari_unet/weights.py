"""The weights file: one .safetensors with the tensors, the spec and the card; closed, checksummed, nothing executable.

Layout: https://github.com/huggingface/safetensors#format. The header's `__metadata__` holds our JSON strings.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet.errors import UNetError
from napari_unet.files import write_bytes
from napari_unet.schema import decode, encode, strict_json
from napari_unet.spec import Card, ModelSpec

FORMAT = "napari-unet 1"
MAX_FILE, MAX_HEADER, MAX_TENSORS = 2 << 30, 1 << 20, 4000
_NAME = re.compile(r"[A-Za-z0-9._]{1,128}")
_DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
_REMEDY = "Fetch the file again, or train the model anew"
Tensors = Mapping[str, NDArray[Any]]


def shipped() -> dict[str, Path]:
    """The models inside the package, name -> file."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "models").glob("*.safetensors"))}


def find(model: str | Path) -> Path:
    """A weights file by path, by the folder of its run, or by the name of a shipped model."""
    path = Path(model)
    if path.is_dir():
        path = path / "model.safetensors"
    if path.exists():
        return path
    if str(model) in shipped():
        return shipped()[str(model)]
    raise UNetError(model, "there is no such weights file", "Give a .safetensors file, the folder of a training run, or "
                    f"one of: {', '.join(shipped())}")  # fmt: skip


def read_spec(path: str | Path) -> ModelSpec:
    """The model's specification from the file's header alone, without torch."""
    return decode(ModelSpec, _metadata(path)["spec"], str(path))


def read_card(path: str | Path) -> Card:
    """The model's card from the file's header alone, without torch."""
    return decode(Card, _metadata(path)["card"], str(path))


def save(path: str | Path, spec: ModelSpec, card: Card, tensors: Tensors) -> None:
    """Write a model atomically, as half precision wherever that keeps a tensor finite."""
    halves = {name: _half(np.asarray(value, np.float32)) for name, value in tensors.items()}
    save_tensors(path, halves, {"format": FORMAT, "spec": encode(spec), "card": encode(card)})


def _half(value: NDArray[np.float32]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        half = value.astype(np.float16)
    return half if np.isfinite(half).all() else value


def load(path: str | Path) -> tuple[ModelSpec, dict[str, NDArray[np.float32]]]:
    """The model's specification and its tensors as float32, after every check: structure, checksum, shapes, finiteness.

    Raises UNetError naming what is wrong; never builds a network that the file does not fill exactly.
    """
    from napari_unet.network import parameter_shapes

    tensors, metadata = load_tensors(path)
    spec = decode(ModelSpec, _required(metadata, path)["spec"], str(path))
    expected = parameter_shapes(spec.network)
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found != expected:
        name = next(n for n in (*expected, *found) if expected.get(n) != found.get(n))
        raise UNetError(path, f"the tensor {name} has shape {found.get(name)}, the network needs {expected.get(name)}",
                        _REMEDY)  # fmt: skip
    return spec, {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def save_tensors(path: str | Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    """Write named float tensors and strings atomically, with the SHA-256 of the tensors' bytes."""
    from safetensors.numpy import save as serialise

    plain = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    bare = serialise(plain)
    digest = hashlib.sha256(bare[8 + int.from_bytes(bare[:8], "little") :]).hexdigest()
    write_bytes(path, serialise(plain, metadata | {"sha256": digest}))


def load_tensors(path: str | Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Named tensors and strings from a file that a stranger may have made. Raises UNetError for anything irregular."""
    entries, metadata, start = _header(path)
    try:
        data = Path(path).read_bytes()[start:]
    except OSError as error:
        raise UNetError(path, f"cannot be read ({error.strerror})", "Check the path and its permissions") from error
    if hashlib.sha256(data).hexdigest() != metadata.get("sha256"):
        raise UNetError(path, "its checksum does not fit its content: the file is damaged", _REMEDY)
    tensors = {}
    for name, (dtype, shape, begin, end) in entries.items():
        tensor = np.frombuffer(data[begin:end], dtype).reshape(shape)
        if not np.isfinite(tensor).all():
            raise UNetError(path, f"the tensor {name} holds NaN or infinite values", "Train the model anew")
        tensors[name] = tensor
    return tensors, metadata


def _metadata(path: str | Path) -> dict[str, str]:
    return _required(_header(path)[1], path)


def _required(metadata: dict[str, str], path: str | Path) -> dict[str, str]:
    found = metadata.get("format")
    if found != FORMAT or not {"spec", "card", "sha256"} <= metadata.keys():
        newer = isinstance(found, str) and found.startswith("napari-unet ")
        raise UNetError(path, f"its format is {found!r}, this version reads {FORMAT!r}",
                        "Update napari-unet-monai" if newer else "Give a model that napari-unet trained")  # fmt: skip
    return metadata


_Entry = tuple[np.dtype[Any], tuple[int, ...], int, int]


def _header(path: str | Path) -> tuple[dict[str, _Entry], dict[str, str], int]:
    """The file's table of tensors and its strings, checked before anything is allocated; where the tensors begin."""
    try:
        size = Path(path).stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(min(length, MAX_HEADER))
    except OSError as error:
        raise UNetError(path, f"cannot be read ({error.strerror})", "Check the path and its permissions") from error
    if size > MAX_FILE or not 2 <= length <= MAX_HEADER or len(text) < length or not text.startswith(b"{"):
        raise UNetError(path, f"not a weights file: {size:,} bytes with a header of {length:,}",
                        "Give a .safetensors file that napari-unet wrote")  # fmt: skip
    table = strict_json(text, str(path))
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UNetError(path, "its __metadata__ is not a table of strings", _REMEDY)
    if len(table) > MAX_TENSORS:
        raise UNetError(path, f"{len(table):,} tensors, more than {MAX_TENSORS:,}", _REMEDY)
    entries = {name: _entry(name, value, path) for name, value in table.items()}
    _check_contiguous(entries, size - 8 - length, path)
    return entries, metadata, 8 + length


def _entry(name: str, value: Any, path: str | Path) -> _Entry:
    good = (
        isinstance(value, dict) and value.keys() == {"dtype", "shape", "data_offsets"} and _NAME.fullmatch(name)
        and value["dtype"] in _DTYPES and _whole(value["shape"]) and len(value["shape"]) <= 8
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
        if begin != position or end - begin != math.prod(shape) * dtype.itemsize:
            raise UNetError(path, f"the tensor {name} lies at {begin}-{end}, not at {position} with shape {shape}", _REMEDY)
        position = end
    if position != size:
        raise UNetError(path, f"{size:,} bytes of tensors, {position:,} are described: the file is cut or padded", _REMEDY)

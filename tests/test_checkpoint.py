"""Checkpoints of PyTorch are read as data: the values that torch reads, and nothing that asks for more."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_unet.checkpoint import Stored, opened
from napari_unet.errors import UNetError


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64, torch.bfloat16])
def test_tensors_have_the_values_that_torch_reads(tmp_path: Path, dtype: torch.dtype) -> None:
    base = torch.randn(4, 6, 5).to(dtype)
    tensors = {"whole": base, "turned": base.permute(2, 0, 1), "part": base[1:3, 2:], "one": base[0, 0, 0], "last": base.movedim(1, -1)[2]}
    content = {"weights": OrderedDict(tensors), "parameter": torch.nn.Parameter(base.float()), "count": torch.tensor(3)}
    content |= {"n": (1, [2.5, None]), "s": {1}}
    with opened(saved(tmp_path / "a.pth", content)) as checkpoint:
        found = checkpoint.content
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(checkpoint.tensor(found["weights"][name]), tensor.float().numpy(), strict=True)
        np.testing.assert_array_equal(checkpoint.tensor(found["parameter"]), content["parameter"].detach().numpy())
        assert found["n"] == (1, [2.5, None]) and not isinstance(found["count"], Stored)


class Wants:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def harm(path: Path) -> Wants:
    return Wants(os.mkdir, str(path))


def test_code_is_refused_by_name(tmp_path: Path) -> None:
    for wish, words in ((harm(tmp_path / "harm"), r"it asks for (posix|nt)\.mkdir"), (Wants(eval, "1"), r"(__builtin__|builtins)\.eval")):
        with pytest.raises(UNetError, match=f"{words}.+Do not trust this file"), opened(saved(tmp_path / "a.pth", {"a": wish})):
            pass
    assert not (tmp_path / "harm").exists()


def archive(path: Path, pickled: bytes, parts: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> Path:
    """As torch writes it."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, value in {"data.pkl": pickled, **(parts or {})}.items():
            file.writestr(f"a/{name}", value)
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"", b"no checkpoint", b"PK\x03\x04" + bytes(100), pickle.dumps({"a": 1}), b"\x80\x02}q\x00.", bytes(1000),
    ],
)  # fmt: skip
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UNetError, match="cannot be read as a checkpoint of torch"), opened(tmp_path / "a.pth"):
        pass


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: archive(path, b"."), "cannot be read as a checkpoint"),
        (lambda path: archive(path, b"\x80\x02}q"), "cannot be read as a checkpoint"),
        (lambda path: archive(path, b"\x80\x02h\x05."), "cannot be read as a checkpoint"),
        (lambda path: archive(path, b"\x80\x02NNR."), "calls what is no function"),
        (lambda path: archive(path, b"cos\nsystem\n."), "asks for os.system"),
        (lambda path: archive(path, b"(S'os'\nios\nsystem\n."), "which is more than data"),
        (lambda path: archive(path, pickle.dumps(1), compression=zipfile.ZIP_DEFLATED), "parts of it are compressed"),
        (lambda path: archive(path, pickle.dumps(1), {"byteorder": b"big"}), "the order of another kind of machine"),
        (lambda path: archive(path, pickle.dumps([] * 3)[:-1]), "cannot be read as a checkpoint"),
    ],
)  # fmt: skip
def test_programs_that_are_no_data(tmp_path: Path, make: Callable[[Path], Path], words: str) -> None:
    with pytest.raises(UNetError, match=words), opened(make(tmp_path / "a.pth")):
        pass


@pytest.mark.parametrize("stored", [
    Stored("0", "<f4", 0, (5,), (1,)), Stored("0", "<f4", 1, (4,), (1,)), Stored("0", "<f4", 0, (2, 2), (4, 1)),
    Stored("0", "<f4", 0, (1000, 1000), (0, 0)), Stored("1", "<f4", 0, (1,), (1,)), Stored("0", "<f4", 0, (0,), (1,)),
    Stored("0", "<f8", 0, (3,), (1,)), Stored("../data.pkl", "<f4", 0, (1,), (1,)),
])  # fmt: skip
def test_tensors_beyond_their_bytes(tmp_path: Path, stored: Stored) -> None:
    path = archive(tmp_path / "a.pth", pickle.dumps(1), {"data/0": bytes(16)})
    with opened(path) as checkpoint, pytest.raises(UNetError, match="lies beyond its bytes"):
        checkpoint.tensor(stored)

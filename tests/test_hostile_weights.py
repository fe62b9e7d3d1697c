"""Weights that a stranger made, or that were damaged on the way: none loads silently, none runs code or takes memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from engine import model_spec, network_spec, random_network, segmenter

from napari_unet import schema, weights
from napari_unet.card import Card
from napari_unet.errors import UNetError
from napari_unet.volume import Volume

SPEC = model_spec(network_spec(classes=3), name="good")
LIMIT_MB = 100
FIRST = "encoder.stages.0.0.convs.0.conv.weight"


STATE = {name: tensor.numpy().astype(np.float16) for name, tensor in random_network(SPEC.network).state_dict().items()}


class Forge:
    """A weights file in parts that can be bent one by one; `bytes()` seals it with a checksum that fits, where one can."""

    def __init__(self, tensors: dict[str, np.ndarray], spec: str | None = None) -> None:
        self.metadata: Any = {"format": weights.FORMAT, "spec": spec or schema.encode(SPEC), "card": schema.encode(Card())}
        self.table: dict[str, Any] = {}
        self.data = b""
        for name, value in tensors.items():
            begin, self.data = len(self.data), self.data + value.tobytes()
            code = {"float16": "F16", "float32": "F32"}[value.dtype.name]
            self.table[name] = {"dtype": code, "shape": list(value.shape), "data_offsets": [begin, len(self.data)]}

    def bytes(self) -> bytes:
        try:
            entries = {name: weights._entry(name, entry, "") for name, entry in self.table.items()}
            self.metadata.setdefault("sha256", weights._digest(entries, self.metadata, self.data))
        except (UNetError, AttributeError):
            pass
        return assemble(json.dumps({"__metadata__": self.metadata, **self.table}), self.data)


def assemble(text: str | bytes, data: bytes = b"") -> bytes:
    text = text.encode() if isinstance(text, str) else text
    return len(text).to_bytes(8, "little") + text + data


@dataclass(frozen=True)
class Fault:
    """A file that must not load, and words of the one sentence that says why."""

    name: str
    content: bytes
    says: str


GOOD = Forge(STATE).bytes()
HEADER = GOOD[8 : 8 + int.from_bytes(GOOD[:8], "little")]
DATA = GOOD[8 + len(HEADER) :]


def bent(name: str, says: str, change: Callable[[Forge], Any], tensors: dict[str, np.ndarray] | None = None) -> Fault:
    forge = Forge(tensors or STATE)
    change(forge)
    return Fault(name, forge.bytes(), says)


def spec_with(path: str = "", value: Any = None, text: str = "") -> Callable[[Forge], Any]:
    """The good spec with a field, such as "network.dims", set to a value; or any text instead."""
    data = json.loads(schema.encode(SPEC))
    *parents, last = path.split(".")
    place = data
    for parent in parents:
        place = place[parent]
    if path:
        place[last] = value
    return lambda forge: forge.metadata.update(spec=text or json.dumps(data))


def other_network(**changes: Any) -> Callable[[Forge], Any]:
    """The good tensors, under the spec of another network."""
    network = network_spec(**{"classes": 3} | changes)
    return lambda forge: forge.metadata.update(spec=schema.encode(model_spec(network, name="other")))


def entry(change: Callable[[dict[str, Any]], Any], name: str = FIRST) -> Callable[[Forge], Any]:
    return lambda forge: change(forge.table[name])


def with_value(value: float, dtype: Any = np.float16) -> dict[str, np.ndarray]:
    tensor = STATE[FIRST].astype(dtype)
    tensor.flat[-1] = value
    return STATE | {FIRST: tensor}


class Bomb:
    """A pickle that ends the process that opens it."""

    def __reduce__(self) -> Any:
        return os._exit, (66,)


def torch_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, buffer)
    return buffer.getvalue()


def container_faults() -> list[Fault]:
    damaged, no_file = "checksum does not fit", "not a weights file"
    exchanged, (one, other) = Forge(STATE), ("encoder.stages.0.0.convs.0.norm.weight", "encoder.stages.0.0.convs.0.norm.bias")
    exchanged.bytes()  # seals it
    exchanged.table[one], exchanged.table[other] = exchanged.table[other], exchanged.table[one]
    return [
        Fault("empty", b"", no_file), Fault("4 bytes", GOOD[:4], no_file), Fault("8 bytes", GOOD[:8], no_file),
        Fault("half a header", GOOD[:500], no_file),
        *(Fault(f"minus {n} bytes", GOOD[:-n], "the file is cut or padded") for n in (1, 2, 100, len(DATA))),
        *(Fault(f"{n} bytes more", GOOD + bytes(n), "the file is cut or padded") for n in (1, 8, 4096)),
        Fault("a byte before", b"\0" + GOOD, no_file),
        Fault("10 GB of header", (10 << 30).to_bytes(8, "little") + HEADER, "header of 10,737,418,240"),
        Fault("2^63 bytes of header", (1 << 63).to_bytes(8, "little") + HEADER, "header of 9,223,372,036,854,775,808"),
        Fault("40 MB of metadata", Forge({}, "x" * (40 << 20)).bytes(), no_file),
        Fault("no header", assemble(b"") + DATA, no_file), Fault("a list", assemble("[" + " " * 80 + "]"), no_file),
        Fault("zeros", bytes(100_000), no_file), Fault("noise", random.Random(0).randbytes(100_000), no_file),
        Fault("a pickle", pickle.dumps(Bomb()), no_file), Fault("torch.save", torch_bytes(), no_file),
        Fault("a web page", b"<!DOCTYPE html><title>404</title>" * 99, no_file),
        Fault("git lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", no_file),
        Fault("one bit of the last tensor", GOOD[:-1] + bytes([GOOD[-1] ^ 1]), damaged),
        Fault("tensors swapped", GOOD[: -len(DATA)] + DATA[2:] + DATA[:2], damaged),
        Fault("two tensors exchanged", exchanged.bytes(), damaged),
        Fault("another digit in the spec", GOOD.replace(b'overlap\\": 0.5', b'x').replace(b'overlap\\":0.5', b'overlap\\":0.4'), damaged),
        Fault("another licence", GOOD.replace(b'licence\\":\\"\\"', b'licence\\":\\"x\\"').replace(
            GOOD[:8], (len(HEADER) + 2).to_bytes(8, "little")), damaged),
    ]  # fmt: skip


def header_faults() -> list[Fault]:
    text = HEADER.decode()
    first = json.dumps(Forge(STATE).table[FIRST])
    deep = "[" * 100_000 + "]" * 100_000
    described = "is described as"

    def renamed(name: str) -> Callable[[Forge], Any]:
        return lambda forge: forge.table.update({name: forge.table.pop(FIRST)})

    def moved(by: tuple[int, int]) -> Callable[[Forge], Any]:
        return entry(lambda e: e.update(data_offsets=[a + b for a, b in zip(e["data_offsets"], by, strict=True)]),
                     "encoder.stages.0.0.convs.0.norm.weight")  # fmt: skip

    return [
        Fault("deep JSON", assemble('{"a":' + deep + "}"), "not valid JSON"),
        Fault("a tensor twice", assemble(text[:-1] + f', "{FIRST}": {first}}}', DATA), f"the key '{FIRST}' stands twice"),
        Fault("two metadata", assemble(text[:-1] + ', "__metadata__": {}}', DATA), "'__metadata__' stands twice"),
        Fault("NaN in the header", assemble(text[:-1] + ', "a": NaN}', DATA), "NaN is not a finite number"),
        Fault("not UTF-8", assemble(b'{"\xff\xfe": 1}'), "not valid JSON"), Fault("cut JSON", assemble(text[:-9], DATA), "not valid JSON"),
        bent("metadata as a list", "not a table of strings", lambda f: setattr(f, "metadata", ["a"])),
        bent("metadata as numbers", "not a table of strings", lambda f: f.metadata.update(spec=1)),
        *(bent(f"name {name[:20]!r}", "the tensor '", renamed(name))
          for name in ("../../etc/x", "/etc/passwd", "", "a" * 129, "a\nb", "a b", "\x1b[31m", "☃", "\ud800")),
        *(bent(f"dtype {dtype}", described, entry(lambda e, d=dtype: e.update(dtype=d)))
          for dtype in ("I64", "F64", "BF16", "BOOL", "f16", ["F16"], None, {"F16": 1})),
        *(bent(f"shape {str(shape)[:20]}", described, entry(lambda e, s=shape: e.update(shape=s)))
          for shape in (None, 3, "4", [4.0], [True], [-1, -4], [2**31 + 1], [1] * 9, [[4]], {}, [None])),
        bent("a shape of 2^248", "lies at", entry(lambda e: e.update(shape=[2**31] * 8))),
        *(bent(f"offsets {str(offsets)[:20]}", described, entry(lambda e, o=offsets: e.update(data_offsets=o)))
          for offsets in (None, [0], [0, 1, 2], [0.0, 8], [-8, 0], ["0", "8"], [0, 2**70], [False, True], {})),
        bent("an overlap", "lies at", moved((-2, -2))), bent("a gap", "lies at", moved((2, 2))),
        bent("too long", "lies at", moved((0, 2))), bent("too short", "lies at", moved((0, -2))),
        bent("backwards", "lies at", entry(lambda e: e.update(data_offsets=e["data_offsets"][::-1]))),
        bent("past the end", "the file is cut or padded", lambda f: f.table.update(a={"dtype": "F16", "shape": [4], "data_offsets": [
            len(f.data), len(f.data) + 8]})),
        bent("a table of 1 GB, absent", "the file is cut or padded", lambda f: f.table.update(a={
            "dtype": "F32", "shape": [2**28], "data_offsets": [len(f.data), len(f.data) + 2**30]})),
        bent("one key too many", described, entry(lambda e: e.update(note=""))),
        bent("no dtype", described, entry(lambda e: e.pop("dtype"))),
        bent("an entry that is none", described, lambda f: f.table.update({FIRST: 7})),
        bent("4,001 tensors", "4,001 tensors", lambda f: f.table.update({f"t{n}": 0 for n in range(4001 - len(f.table))})),
    ]  # fmt: skip


def content_faults() -> list[Fault]:
    def without_header(forge: Forge) -> None:
        forge.metadata.clear()

    def both(change: Callable[[Forge], Any]) -> Callable[[Forge], Any]:
        return lambda forge: (change(forge), forge.metadata.update(format="napari-unet 2"))

    monster = {"levels": 8, "features": (4096,) * 8, "kernels": ((15,) * 3,) * 8, "strides": ((1,) * 3,) * 8,
               "encoder_convs": (16,) * 8, "decoder_convs": (16,) * 7, "channels": 64}  # fmt: skip
    needs = "the network needs"
    return [
        bent("newer", "format is 'napari-unet 4'.+Update", lambda f: f.metadata.update(format="napari-unet 4")),
        *(bent(f"{n} members", f"members is {n}", both(spec_with("members", n))) for n in (0, 33, 10**9)),
        bent("members of an older format", "2 members in a file of format 'napari-unet 1'", spec_with("members", 2)),
        bent("members that are not there", "0.encoder.+ has shape None", both(spec_with("members", 2))),
        bent("an ensemble of one", "1 member in a file of format 'napari-unet 2'", lambda f: f.metadata.update(format="napari-unet 2")),
        bent("a checkpoint", "format is 'x+'.+Give a model", lambda f: f.metadata.update(format="x" * 100_000)),
        bent("somebody else's", "format is 'None'.+Give a model", without_header),
        bent("no card", "its format is", lambda f: f.metadata.pop("card")),
        bent("no checksum", "its checksum does not fit", lambda f: f.metadata.update(sha256="")),
        bent("a checksum in capitals", "its checksum does not fit", lambda f: f.metadata.update(sha256="A" * 64)),
        *(bent(f"the value {value} in {np.dtype(dtype).name}", f"{FIRST} holds NaN or infinite", lambda f: None, with_value(value, dtype))
          for value in (np.nan, np.inf, -np.inf) for dtype in (np.float16, np.float32)),
        bent("other depth", needs, other_network(levels=3)), bent("other classes", needs, other_network(classes=4)),
        bent("other channels", needs, other_network(channels=2)), bent("other norm", needs, other_network(norm="batch")),
        bent("other kernel", needs, other_network(kernels=((3,) * 3, (1,) * 3))), bent("other bias", needs, other_network(bias=False)),
        bent("other features", needs, other_network(features=(4, 16))), bent("a monster", needs, other_network(**monster)),
        bent("a tensor missing", f"{FIRST} has shape None", lambda f: None, {k: v for k, v in STATE.items() if k != FIRST}),
        bent("a tensor more", "a has shape", lambda f: None, {"a": np.zeros(2, np.float16), **STATE}),
        bent("a shape turned", needs, lambda f: f.table[FIRST]["shape"].reverse()),
        bent("unknown key", "unknown key 'tta'", spec_with("tta", True)),
        bent("unknown key below", "Did you mean features", spec_with("network.feature", 4)),
        bent("spec of nothing", "the field .+ is missing", spec_with(text="{}")),
        bent("spec as text", "It should be", spec_with(text='"a"')),
        bent("spec not JSON", "not valid JSON", spec_with(text="{")),
        bent("deep spec", "JSON", spec_with(text="[" * 50_000 + "]" * 50_000)),
        bent("spec with NaN", "NaN is not a finite number", spec_with("overlap", float("nan"))),
        bent("spec with a key twice", "stands twice", lambda f: f.metadata.update(spec=f.metadata["spec"][:-1] + ',"name":"b"}')),
        bent("4-D", "network.dims is 4", spec_with("network.dims", 4)), bent("one level", "2 to 8", spec_with("network.features", [4])),
        bent("10^9 features", "network.features.0 is 1000000000", spec_with("network.features", [10**9, 8])),
        bent("a patch that does not fit", "patch is", spec_with("patch", [7, 8, 8])),
        bent("a patch of nothing", "patch.0 is 0", spec_with("patch", [0, 8, 8])),
        bent("an orientation of nonsense", "orientation is RRR", spec_with("orientation", "RRR")),
        bent("a spacing below zero", "spacing.1 is -1", spec_with("spacing", [1, -1, 1])),
        bent("a spacing of 1e-300", "spacing is", spec_with("spacing", [1, 1e-300, 1])),
        bent("an axis mirrored 20 times", "mirror_axes is", spec_with("mirror_axes", [0] * 20)),
        bent("a million components", "keep_largest is", spec_with("keep_largest", [1] * 100_000)),
        bent("a range backwards", "clipped to 9..-9", spec_with("channels", [
            {"name": "CT", "scheme": "clip", "low": 9.0, "high": -9.0, "mean": 0.0, "std": 1.0}])),
    ]  # fmt: skip


FAULTS = [*container_faults(), *header_faults(), *content_faults()]


def outcome(path: str, load: Callable[[str], Any] = weights.load) -> dict[str, Any]:
    start, error, crash = time.perf_counter(), "", ""
    try:
        load(path)
    except UNetError as caught:
        error = str(caught)
    except BaseException as caught:  # noqa: BLE001 - whatever it is, it is a finding
        crash = repr(caught)[:1000]
    return {"error": error, "crash": crash, "seconds": time.perf_counter() - start}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What a child that can allocate no more than LIMIT_MB makes of a good file, of a large honest one, and of the corpus."""
    folder = tmp_path_factory.mktemp("weights")
    for number, content in enumerate([GOOD, large(), *(fault.content for fault in FAULTS)]):
        (folder / f"{number:03d}.safetensors").write_bytes(content)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, __file__, folder], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(["good", "large", *(fault.name for fault in FAULTS), "large after all"], json.loads(done.stdout), strict=True))


def large() -> bytes:
    """An honest file of more than the child can hold."""
    return Forge({"a": np.zeros((LIMIT_MB + 1) << 19, np.float16)}).bytes()


little_memory = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS is kept by Linux alone")


@little_memory
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_one_clear_error(fault: Fault, outcomes: dict[str, dict[str, Any]]) -> None:
    found = outcomes[fault.name]
    assert found["crash"] == ""
    # where it is: what is wrong. What to do about it.
    assert re.fullmatch(r".+\d{3}\.safetensors: \S.+[^.]\. [A-Z].+[^.][.?]", found["error"])
    assert re.search(fault.says, found["error"]) and len(found["error"]) < 700
    assert found["error"].isprintable() and found["seconds"] < 2


@little_memory
def test_the_good_file_loads_in_little_memory(outcomes: dict[str, dict[str, Any]]) -> None:
    assert outcomes["good"]["error"] == outcomes["good"]["crash"] == ""


@little_memory
def test_shapes_are_compared_before_tensors_are_read(outcomes: dict[str, dict[str, Any]]) -> None:
    """A file of more than the memory, whose one tensor belongs to no network, costs no more than its header."""
    assert outcomes["large"]["crash"] == "" and "the network needs" in outcomes["large"]["error"]
    assert "needs more memory than there is" in outcomes["large after all"]["error"], "the control: the limit binds"


@pytest.mark.parametrize("read", [weights.read_spec, weights.read_card, weights.load_tensors])
def test_reading_a_part_never_crashes(read: Callable[[Path], Any], tmp_path: Path) -> None:
    """A widget shows a model before its tensors are read."""
    for fault in FAULTS:
        (tmp_path / "model.safetensors").write_bytes(fault.content)
        with suppress(UNetError):
            read(tmp_path / "model.safetensors")


@pytest.mark.parametrize("read", [weights.read_spec, weights.load, weights.load_tensors])
def test_what_is_no_file(read: Callable[[Path], Any], tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", tmp_path / ("x" * 300)):
        with pytest.raises(UNetError, match=r"cannot be read \(.+\)\. Check the path"):
            read(path)


@pytest.mark.parametrize("seed", range(3))
def test_no_flipped_bit_goes_unnoticed(seed: int, tmp_path: Path) -> None:
    """torch and safetensors load 200 of 200 such files without a word."""
    path, rng = tmp_path / "model.safetensors", random.Random(seed)
    weights.save(path, SPEC, Card(description="d" * 400), STATE)
    good = path.read_bytes()
    header = 8 * (8 + int.from_bytes(good[:8], "little"))
    bits = [*rng.sample(range(header), 50), *rng.sample(range(header, 8 * len(good)), 50)]
    for bit in bits:
        path.write_bytes(good[: bit // 8] + bytes([good[bit // 8] ^ 1 << bit % 8]) + good[bit // 8 + 1 :])
        with pytest.raises(UNetError, match=re.escape(str(path))):
            weights.load(path)
    path.write_bytes(good)
    weights.load(path)


def test_windows_that_no_memory_holds_are_refused() -> None:
    """A small file may ask for a patch of 4096^3 and 1024 features: for this image, half a terabyte at once."""
    network = network_spec(features=(1024, 1), kernels=((1, 1, 1),) * 2)
    image = np.zeros((4000, 2000, 4), np.uint8)
    image[0, 0, 0] = 1
    with pytest.raises(UNetError, match=r"tiny: needs [\d,.]+ GB of memory"):
        next(segmenter(model_spec(network, patch=(4096,) * 3)).stream(Volume(image, np.eye(4))))


if __name__ == "__main__":
    import resource

    outcome(str(Path(sys.argv[1]) / "000.safetensors"))  # all imports are done and counted before the limit
    limit = psutil.Process().memory_info().vms + (LIMIT_MB << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    paths = [str(path) for path in sorted(Path(sys.argv[1]).iterdir())]
    print(json.dumps([*map(outcome, paths), outcome(paths[1], weights.load_tensors)]))

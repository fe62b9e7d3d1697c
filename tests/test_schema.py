"""What is written is read back; what a stranger wrote is believed only where it fits, and every fault is named."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet import schema
from napari_unet.card import Card
from napari_unet.errors import UNetError
from napari_unet.settings import PlanChoices, TrainConfig
from napari_unet.spec import Channel, Label, ModelSpec, NetworkSpec

NETWORK = NetworkSpec(
    dims=3, channels=1, classes=3, features=(32, 64, 128), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), encoder_convs=(2, 2, 2), decoder_convs=(2, 2),
)  # fmt: skip
SPEC = ModelSpec(
    name="hippocampus ☃", network=NETWORK, channels=(Channel("T1"),), orientation="SAR", spacing=(1.0, 0.5, 0.5), patch=(8, 64, 64),
    labels=(Label(1, "anterior", "#e6194b"), Label(7, "posterior", "#3cb44b")), mirror_axes=(0, 2), keep_largest=(7,),
)  # fmt: skip
CARD = Card(description='"quoted"\n', dice={"anterior": 0.87, "mean": 1.0}, versions={"torch": "2.13.0"}, independent=True)
VALUES = (NetworkSpec.classic(), NETWORK, SPEC, CARD, Card(), TrainConfig(), TrainConfig(minutes=2.5, seed=7), PlanChoices(),
          PlanChoices(dims=2, spacing=(0.0, 1.0, 1.0), features=(32, 64)))  # fmt: skip


def spec_with(changes: dict[str, Any]) -> str:
    """SPEC as JSON, with fields changed, such as "network.kernels.0"; ... takes a field away."""
    data = json.loads(schema.encode(SPEC))
    for path, value in changes.items():
        *parents, name = (int(part) if part.isdigit() else part for part in path.split("."))
        place = data
        for parent in parents:
            place = place[parent]
        place[name] = value
        if value is ...:
            del place[name]
    return json.dumps(data)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_is_written_is_read_back(value: Any) -> None:
    text = schema.encode(value)
    assert "\n" not in text
    assert schema.decode(type(value), text, "model") == value == schema.decode(type(value), text.encode(), "model")
    assert schema.replace(value, {}, "flags") == value


WRONG = {
    # an unknown key names the nearest one, at its own place
    "unknown": ({"nam": 1}, r"unknown key 'nam'\. Did you mean name\?$"),
    "unknown below": ({"network.feature": 1}, r"unknown key 'network\.feature'\. Did you mean features\?"),
    "unknown in a list": ({"labels.1.color": "red"}, r"unknown key 'labels\.1\.color'\. Did you mean colour\?"),
    "unknown altogether": ({"channels.0.xyzzy": 1}, r"unknown key 'channels\.0\.xyzzy'\. Known: high, low, mean, name, scheme, std"),
    "a long key": ({"k" * 10**5: 1}, r"unknown key 'k{200}'\. Known"),
    "missing": ({"patch": ...}, r"the field patch is missing\. Add it"),
    "missing below": ({"network.dims": ...}, r"the field network\.dims is missing"),
    "text for a number": ({"overlap": "0.5"}, r"overlap is '0\.5'\. It should be a valid number"),
    "a fraction for a whole number": ({"network.classes": 3.5}, r"network\.classes is 3\.5\. It should be a valid integer"),
    "truth for a number": ({"network.channels": True}, r"network\.channels is True\. It should be a valid integer"),
    "a number for truth": ({"mirror_tta": 1}, r"mirror_tta is 1\. It should be a valid boolean"),
    "a list for a table": ({"network": []}, r"network is \[\]\. It should be"),
    "null": ({"name": None}, r"name is None\. It should be a valid string"),
    "too large": ({"overlap": 0.95}, r"overlap is 0\.95\. It should be less than or equal to 0\.9"),
    "too small": ({"labels.0.value": 0}, r"labels\.0\.value is 0\. It should be greater than or equal to 1"),
    "huge": ({"network.features.1": 10**30}, r"network\.features\.1 is 1000000.*\. It should be less than or equal to 4096"),
    "too long": ({"name": "n" * 10**6}, r"name is 'nnnn.{0,60}'\. The string should have at most 200 characters"),
    "not in the list": ({"network.norm": "layer"}, r"network\.norm is 'layer'\. It should be 'instance', 'group'"),
    "no colour": ({"labels.0.colour": "#E6194B\n"}, r"labels\.0\.colour is '#E6194B\\n'\. The string should match pattern"),
    "half a character": ({"name": "\ud800"}, r"not valid JSON \("),
    # what fields may be together
    "levels": ({"network.strides": [[1, 1, 1]]}, r"network: strides has 1 entries for 3 levels\. Give 3"),
    "axes": ({"network.kernels.0": [3, 3]}, r"network: \(3, 3\) has 2 axes\. Give 3 for a 3-D network"),
    "even kernel": ({"network.kernels.0": [3, 2, 3]}, r"network: kernels is .+\. Use odd sizes"),
    "a stride at the top": ({"network.strides.0": [1, 2, 2]}, r"network: strides\[0\] is \(1, 2, 2\)\. Use ones"),
    "no level": ({"network.features": []}, r"network: features has 0 levels\. Give 2 to 8"),
    "patch": ({"patch": [7, 64, 64]}, r"hippocampus ☃: patch is \(7, 64, 64\)\. Use multiples of \(2, 4, 4\)"),
    "patch of two": ({"patch": [64, 64]}, r": patch is \(64, 64\)\. It does not fit"),
    "orientation": ({"orientation": "SAP"}, r": orientation is SAP\. It does not fit"),
    "channels": ({"channels": []}, r": channels is \(\)\. It does not fit"),
    "labels": ({"labels.1.value": 1}, r": labels is .+\. It does not fit"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_named(name: str) -> None:
    changes, words = WRONG[name]
    with pytest.raises(UNetError, match=rf"^model\.safetensors: .*{words}") as caught:
        schema.decode(ModelSpec, spec_with(changes), "model.safetensors")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(("text", "words"), [
    ('{"seed": 1, "seed": 2}', "the key 'seed' stands twice"),
    ('{"rate": NaN}', "NaN is not a finite number"),
    ('{"rate": -Infinity}', "-Infinity is not a finite number"),
    ('{"rate": 1e999}', "1e999 is not a finite number"),
    ('{"seed": ' + "9" * 10_000 + "}", "not valid JSON"),
    ("[" * 100_000, "not valid JSON"),
    ('{"a":' * 100_000, "not valid JSON"),
    ("[" * 900 + "]" * 900, "not valid JSON"),
    ("[" * 150 + "]" * 150, r"TrainConfig is \[\["),
    ("", "not valid JSON"), ("{}garbage", "not valid JSON"), ("\x00", "not valid JSON"), ("{'seed': 1}", "not valid JSON"),
    (b"\xff\xfe\x00\x01", "not valid JSON"), (b"{\x80", "not valid JSON"),
    ("null", "TrainConfig is None"), ("3", "TrainConfig is 3"), ("[]", r"TrainConfig is \[\]"),
], ids=lambda text: repr(text[:20]))  # fmt: skip
def test_text_that_is_no_table(text: str | bytes, words: str) -> None:
    with pytest.raises(UNetError, match=rf"^recipe\.json: .*({words}).*\. [A-Z]") as caught:
        schema.decode(TrainConfig, text, "recipe.json")
    assert len(str(caught.value)) < 600


def test_many_keys_take_no_longer_than_they_should() -> None:
    """Looking for duplicates must not be quadratic: a header may hold a megabyte of keys."""
    text = json.dumps({f"{n:06}": 0 for n in range(100_000)})
    with pytest.raises(UNetError, match="unknown key '0"):
        schema.decode(TrainConfig, text, "recipe")
    with pytest.raises(UNetError, match="the key '099999' stands twice"):
        schema.strict_json(text[:-1] + ',"099999": 0}', "recipe")


def test_what_could_not_be_read_back_is_not_written() -> None:
    """JSON has no NaN; the library would write null, and the weights could never be opened again."""
    for card in (replace(CARD, dice={"mean": float("nan")}), replace(CARD, steps="many")):
        with pytest.raises(UNetError, match=r"^Card: (dice\.mean|steps) is "):
            schema.encode(card)


@pytest.mark.parametrize(("changes", "words"), [
    ({"step": 5}, r"unknown key 'step'\. Did you mean steps\?"), ({"seed": -1}, "seed is -1"), ({"rate": float("nan")}, "rate is nan"),
    ({"rate": object()}, "not valid JSON"), ({"fold": "1"}, "fold is '1'"),
])  # fmt: skip
def test_flags_are_checked_like_files(changes: dict[str, Any], words: str) -> None:
    assert schema.replace(TrainConfig(), {"rate": 1, "steps": 5}, "flags") == TrainConfig(rate=1.0, steps=5)
    with pytest.raises(UNetError, match=rf"^flags: .*{words}"):
        schema.replace(TrainConfig(), changes, "flags")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200)
@given(st.sampled_from([field.name for field in fields(ModelSpec)] + ["new"]), json_values)
def test_any_value_anywhere_is_taken_or_refused(name: str, value: Any) -> None:
    text = json.dumps(json.loads(schema.encode(SPEC)) | {name: value})
    try:
        spec = schema.decode(ModelSpec, text, "model")
    except UNetError as error:
        found = re.fullmatch(r"model: .+\. .+[.?]", str(error), re.DOTALL)
    else:
        found = schema.decode(ModelSpec, schema.encode(spec), "model") == spec
    assert found


def test_the_classic_network() -> None:
    """The teaching example, pinned: 128x128x3 -> 16x16x256 -> 128x128."""
    assert NetworkSpec.classic().walk((128, 128)) == [
        ("input", (128, 128), 3),
        ("encoder 1", (128, 128), 32),
        ("encoder 2", (64, 64), 64),
        ("encoder 3", (32, 32), 128),
        ("bottleneck", (16, 16), 256),
        ("decoder 3, joined by the skip from encoder 3", (32, 32), 128),
        ("decoder 2, joined by the skip from encoder 2", (64, 64), 64),
        ("decoder 1, joined by the skip from encoder 1", (128, 128), 32),
        ("logits", (128, 128), 2),
    ]
    assert NetworkSpec.classic().total_stride == (8, 8)
    assert NETWORK.total_stride == (2, 4, 4) == SPEC.stride
    assert NETWORK.walk((8, 64, 64))[3] == ("bottleneck", (4, 16, 16), 128)


@pytest.mark.parametrize("shape", [(127, 128), (128,), (128, 128, 128), (12, 16)])
def test_shapes_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(UNetError, match=r"an input of \(.+\)\. Use multiples of \(8, 8\)"):
        NetworkSpec.classic().walk(shape)


@pytest.mark.parametrize("cls", [TrainConfig, PlanChoices])
def test_every_field_says_what_it_is_for(cls: type) -> None:
    described = schema.describe(cls)
    assert list(described) == list(asdict(cls()))
    for _, info in described.values():
        assert info.description and not info.description.endswith(".")

"""Planning: from facts about images to a network that fits them, in words that say why."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import decathlon, two_folders
from hypothesis import given
from hypothesis import strategies as st

from napari_unet import ModelSpec, PlanChoices, TrainConfig, UNetError, checks, find_cases, schema
from napari_unet.checks import MAX_CLASSES, CaseFacts
from napari_unet.dataset import Case, Dataset
from napari_unet.grid import SEEN, THICK
from napari_unet.plan import VOXELS, plan
from napari_unet.settings import LabelRule

HIPPOCAMPUS: dict[str, Any] = {  # axes up, front, right; the anterior part lies in front of the posterior one
    "shape": (36, 50, 35), "voxels": {1: 1500, 2: 1500}, "centroids": {1: (0.55, 0.65, 0.5), 2: (0.4, 0.35, 0.5)},
}  # fmt: skip


def facts(**changes: Any) -> list[CaseFacts]:
    """Three like cases of one class in the middle."""
    base: dict[str, Any] = {
        "name": "a", "shape": (64, 64, 64), "spacing": (1.0, 1.0, 1.0), "picture": False, "voxels": {1: 500},
        "centroids": {1: (0.5, 0.5, 0.5)}, "foreground": np.linspace(50, 150, 10_001, dtype=np.float32)[None], "low": (0.0,), "sha256": "",
    }  # fmt: skip
    return [CaseFacts(**base | changes) for _ in range(3)]


def planned(
    known: list[CaseFacts], choices: dict[str, Any] | None = None, config: TrainConfig | None = None, **dataset: Any
) -> tuple[ModelSpec, TrainConfig, str]:
    """A plan, its reasons as one text."""
    spec, config, reasons = plan(
        Dataset(Path("data"), **{"cases": (), "labels": {}, "channels": ()} | dataset), known, PlanChoices(**choices or {}), config
    )
    assert all(reason.endswith(".") and "\n" not in reason for reason in reasons)
    return spec, config, " ".join(reasons)


def test_a_small_isotropic_set_is_seen_whole_in_3d() -> None:
    spec, config, words = planned(facts(**HIPPOCAMPUS))
    assert (spec.network.dims, spec.patch, spec.orientation, spec.spacing) == (3, (40, 56, 40), "SAR", (1, 1, 1))
    assert spec.network.features == (16, 32, 64, 128) and spec.network.strides == ((1, 1, 1), *[(2, 2, 2)] * 3)
    assert spec.mirror_axes == (2,) and "Mirrored along left-right" in words
    assert (config.minutes, config.steps) == (10, None) and "3-D" in words


def test_a_coarse_slice_axis_comes_first_and_is_convolved_last() -> None:
    spec, _, words = planned(facts(shape=(256, 30, 256), spacing=(0.5, 5.0, 0.5)))
    assert spec.orientation == "ASR" and spec.spacing == (5.0, 0.5, 0.5) and "Slices are coronal" in words
    network = spec.network
    coarse = [kernel[0] for kernel in network.kernels]
    assert coarse[0] == 1 and coarse == sorted(coarse) and coarse[-1] == 3
    assert all(kernel[1:] == (3, 3) for kernel in network.kernels)
    halvings = [sum(stride[axis] == 2 for stride in network.strides) for axis in range(3)]
    assert halvings[0] < halvings[1] == halvings[2]
    for kernel, finer in zip(network.kernels, range(len(coarse)), strict=True):  # nnU-Net's rule
        voxel = np.array(spec.spacing) * np.prod([network.strides[n] for n in range(finer + 1)], axis=0)
        assert (kernel[0] == 3) == (voxel[0] <= 2 * voxel.min())


def test_a_slice_axis_coarser_in_some_cases_keeps_what_detail_there_is() -> None:
    cases = [replace(f, spacing=(z, 0.7, 0.7), shape=(int(300 / z), 256, 256)) for f, z in zip(facts(), (3, 6, 6), strict=True)]
    assert planned(cases)[0].spacing == pytest.approx((3.6, 0.7, 0.7))


def test_few_thick_slices_are_seen_one_by_one() -> None:
    spec, _, words = planned(facts(shape=(8, 200, 200), spacing=(10.0, 1.0, 1.0)))
    assert spec.network.dims == 2 and spec.patch[0] == 1 and spec.spacing == (0, 1, 1)
    assert "only 8 slices, 10.0 times coarser" in words


@pytest.mark.parametrize(
    ("slices", "millimetres", "choices", "kind"),
    [
        (8, 5.0, {}, "2.5-D"),
        (3, 7.9, {}, "2.5-D"),
        (2, 5.0, {}, "2-D"),  # neither has a neighbour on both sides
        (8, 8.1, {}, "2-D"),  # too far apart
        (8, 5.0, {"neighbours": 0}, "2-D"),
        (8, 5.0, {"dims": 2}, "2-D"),
        (8, 5.0, {"dims": 3}, "3-D"),
        (8, 2.9, {}, "3-D"),
        (12, 5.0, {}, "3-D"),
        (64, 1.0, {"neighbours": 2}, "2.5-D"),
        (64, 1.0, {"neighbours": 2, "dims": 2}, "2.5-D"),
        (64, 1.0, {"neighbours": 0}, "3-D"),
    ],
)
def test_slices_alone_with_their_neighbours_or_volumes(slices: int, millimetres: float, choices: Any, kind: str) -> None:
    cases = facts(shape=(slices, 200, 200), spacing=(millimetres, 1.0, 1.0), low=(0.0, 0.0), foreground=np.ones((2, 9), np.float32))
    spec, _, words = planned(cases, choices)
    assert spec.kind == kind and f"A {kind} network" in words
    assert spec.neighbours == (choices.get("neighbours", 1) if kind == "2.5-D" else 0)
    assert spec.network.channels == 2 * (2 * spec.neighbours + 1) and len(spec.channels) == 2
    assert (spec.patch[0], spec.spacing[0]) == (1, 0) or kind == "3-D"


@pytest.mark.parametrize(("side", "levels"), [(8, 2), (16, 3), (40, 4), (64, 5), (256, 5), (600, 5)])
def test_slices_are_halved_while_four_voxels_stay_but_five_levels_are_enough(side: int, levels: int) -> None:
    spec, _, _ = planned(facts(shape=(side, 20, side), spacing=(1.0, 1.0, 1.0)), {"dims": 2})
    halved = [n for axis in (1, 2) for n in [spec.patch[axis] // spec.stride[axis]]]
    assert min(halved) >= 4 and len(spec.network.features) <= 5
    square, _, _ = planned(facts(picture=True, shape=(1, side, side), centroids={1: (0, 0.5, 0.5)}))
    assert len(square.network.features) == levels


HEAD: dict[str, Any] = {"shape": (200, 250, 200), "spacing": (0.8, 0.8, 0.8), "thickness": {1: 2.0, 2: 40.0}}


def share(spec: ModelSpec, cases: list[CaseFacts]) -> float:
    """Of an image, what a patch holds."""
    extent = np.multiply(cases[0].shape, cases[0].spacing)
    return float(np.prod(np.multiply(spec.patch, spec.spacing)) / np.prod(extent))


def test_a_head_is_learnt_on_a_coarser_grid_as_far_as_its_thinnest_class_allows() -> None:
    cases = facts(**HEAD)
    spec, _, words = planned(cases, labels={1: "cortex", 2: "brain"})
    assert 0.95 * THICK * 2.0 < spec.spacing[0] <= THICK * 2.0 and len(set(spec.spacing)) == 1
    assert "Coarser than the images, so that a patch holds 9." in words and 0.08 < share(spec, cases) < 0.11
    assert "the thinnest class (cortex) is 2 mm thick" in words and "the median image has 10" in words


def test_a_head_of_thick_classes_is_learnt_on_a_grid_of_which_a_patch_holds_an_eighth() -> None:
    cases = facts(**HEAD | {"thickness": {1: 30.0, 2: 40.0}})
    spec, _, _ = planned(cases)
    assert 0.8 * SEEN < share(spec, cases) < 1.1 * SEEN


@pytest.mark.parametrize("thickness", [{}, {1: 1.2, 2: 40.0}, {1: math.inf}])
def test_the_images_own_spacing_stays_where_a_class_is_thin_or_nothing_is_known(thickness: dict[int, float]) -> None:
    spec, _, words = planned(facts(**HEAD | {"thickness": thickness}))
    assert spec.spacing == (0.8, 0.8, 0.8) and "Coarser" not in words


def test_the_finest_axes_grow_first() -> None:
    cases = facts(shape=(40, 500, 500), spacing=(3.0, 0.5, 0.5), thickness={1: 3.0})
    spec, _, _ = planned(cases)
    assert spec.spacing[0] == 3.0 and 0.5 < spec.spacing[1] == spec.spacing[2] <= THICK * 3.0


def test_coarser_grids_are_for_volumes_that_are_labelled_throughout_and_never_for_what_was_chosen() -> None:
    known: dict[str, Any] = HEAD | {"thickness": {1: 30.0}}
    assert planned(facts(**known), {"spacing": (0.8, 0.8, 0.8)})[0].spacing == (0.8, 0.8, 0.8)
    assert planned(facts(**known), {"dims": 2})[0].spacing == (0, 0.8, 0.8)
    case = Case("a", (), None, rule=LabelRule(ignore=9))
    assert planned(facts(**known), cases=(case,))[0].spacing == (0.8, 0.8, 0.8)
    assert share(planned(facts(**known), {"patch": (64, 64, 64)})[0], facts(**known)) == pytest.approx(SEEN, rel=0.1)
    assert planned(facts(**known | HIPPOCAMPUS))[0].spacing == (0.8, 0.8, 0.8)


def test_the_size_that_levels_follow_is_that_of_the_chosen_grid() -> None:
    spec, _, words = planned(facts(**HEAD), {"spacing": (4.0, 4.0, 4.0)})
    assert "the median image has 40 x 50 x 40" in words and spec.patch == (40, 56, 40)


def test_pictures_are_seen_as_they_are() -> None:
    cases = facts(picture=True, shape=(1, 100, 200), centroids={1: (0, 0.5, 0.5)})
    spec, _, words = planned(cases)
    assert spec.pictures and spec.network.dims == 2 and spec.spacing == (0, 0, 0) and spec.orientation == "SRA"
    assert spec.mirror_axes == (1, 2) and "rows and columns" in words and "Pixels are taken as they are" in words
    rows, columns = spec.patch[1:]
    assert rows > columns  # facts run up, front, right; a picture's rows are counted to the right


@pytest.mark.parametrize(("name", "low"), [("CT", 0.0), ("ct", 0.0), ("x", -1024.0)])
def test_ct_is_clipped_to_what_is_inside_labels(name: str, low: float) -> None:
    spec, _, words = planned(facts(low=(low,)), channels=(name,))
    (channel,) = spec.channels
    assert (channel.scheme, channel.low, channel.high) == ("clip", pytest.approx(50.5), pytest.approx(149.5))
    assert (channel.mean, channel.std) == (pytest.approx(100, abs=0.1), pytest.approx(28.9, abs=0.1))
    assert "as in CT" in words


def test_a_ct_of_one_value_can_still_be_divided() -> None:
    spec, _, _ = planned(facts(low=(-1024.0,), foreground=np.full((1, 5), 40, np.float32)))
    assert spec.channels[0].high > spec.channels[0].low and spec.channels[0].std > 0


def test_other_intensities_are_standardised_per_image() -> None:
    two = facts(low=(-5.0, -2000.0), foreground=np.ones((2, 9), np.float32))
    spec, _, _ = planned(two, channels=("T1",))
    assert [(c.name, c.scheme) for c in spec.channels] == [("T1", "zscore"), ("channel 1", "clip")]


def test_a_class_that_one_case_has_is_told() -> None:
    one, *others = facts()
    cases = [replace(one, name="rare", voxels={1: 500, 2: 9}, centroids={1: (0.5,) * 3, 2: (0.5,) * 3}), *others]
    words = planned(cases, labels={1: "organ", 2: "cyst"})[2]
    assert "Found in one case alone: cyst (rare). Where such a case is kept out nothing has learnt the class: it scores 0, and" in words
    many = replace(one, name="rare", voxels=dict.fromkeys(range(1, 9), 9), centroids=dict.fromkeys(range(1, 9), (0.5,) * 3))
    assert "class 6 (rare) and 2 more. Where" in planned([many, *others])[2]
    assert "Found in" not in planned(cases[:1])[2] + planned(others)[2]


def test_a_normalisation_that_is_asked_for_and_not_done_is_told() -> None:
    two = facts(low=(0.0, 0.0), foreground=np.ones((2, 9), np.float32))
    _, _, words = planned(two, channels=("T1", "noNorm"))
    assert "Channel 1 asks for noNorm; it is normalised by its mean and standard deviation all the same." in words
    assert "asks for" not in planned(two, channels=("T1", "zscore"))[2]


@pytest.mark.parametrize(
    ("first", "second", "axes", "words"),
    [
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (0, 1, 2), "down-up and back-front and left-right"),
        ((0.5, 0.5, 0.2), (0.5, 0.5, 0.8), (0, 1), "down-up and back-front"),
        ((0.2, 0.5, 0.5), (0.8, 0.5, 0.5), (1, 2), "back-front and left-right"),
        ((0.2, 0.2, 0.2), (0.8, 0.8, 0.8), (), "no axis"),
    ],
)
def test_mirrored_only_where_no_class_keeps_to_a_side(first: Any, second: Any, axes: tuple[int, ...], words: str) -> None:
    spec, _, reasons = planned(facts(voxels={1: 9, 2: 9}, centroids={1: first, 2: second}))
    assert spec.mirror_axes == axes and f"Mirrored along {words}:" in reasons


def test_classes_that_change_sides_from_case_to_case_may_be_mirrored() -> None:
    sides = [{1: (0.5, 0.5, x), 2: (0.5, 0.5, 1 - x)} for x in (0.2, 0.8, 0.5)]
    cases = [replace(f, voxels={1: 9, 2: 9}, centroids=c) for f, c in zip(facts(), sides, strict=True)]
    assert planned(cases)[0].mirror_axes == (0, 1, 2)


def test_classes_of_two_sides_that_no_case_has_both_of_are_not_mirrored() -> None:
    """One knee per scan, left or right."""
    left, right = ({value: (0.5, 0.5, side)} for value, side in ((1, 0.25), (2, 0.75)))
    known = [replace(f, centroids=centroids, voxels=dict.fromkeys(centroids, 500)) for centroids in (left, right) for f in facts()]
    spec, _, words = planned(known)
    assert spec.mirror_axes == (0, 1) and "left-right" not in words
    assert planned(facts(voxels={1: 500}, centroids=left))[0].mirror_axes == (0, 1, 2), "a single class has no other side"


def test_mirroring_follows_the_axes_when_they_change_places() -> None:
    cases = facts(shape=(256, 256, 30), spacing=(0.5, 0.5, 5.0), voxels={1: 9, 2: 9},
                  centroids={1: (0.5, 0.5, 0.2), 2: (0.5, 0.5, 0.8)})  # fmt: skip
    spec, _, words = planned(cases)
    assert spec.orientation == "RSA" and spec.mirror_axes == (1, 2) and "down-up and back-front:" in words


def test_labels_keep_their_values_and_names() -> None:
    spec, _, _ = planned(facts(voxels={2: 5, 7: 5}, centroids={2: (0.5,) * 3, 7: (0.5,) * 3}), labels={7: "seven", 300: "far"})
    assert [(label.value, label.name) for label in spec.labels] == [(2, "class 2"), (7, "seven"), (300, "far")]
    assert spec.network.classes == 4 and len({label.colour for label in spec.labels}) == 3


def test_more_cases_than_there_are_cannot_be_asked_for() -> None:
    assert planned(facts(), config=TrainConfig(cases=3))[1].cases == 3
    with pytest.raises(UNetError, match=r"^--cases: 4 of 3 cases\. Use 1 to 3\.$"):
        planned(facts(), config=TrainConfig(cases=4))


def test_as_many_classes_as_a_byte_holds() -> None:
    assert planned(facts(), labels=dict.fromkeys(range(1, MAX_CLASSES + 1), "x"))[0].network.classes == MAX_CLASSES + 1
    with pytest.raises(UNetError, match="255 classes. Use at most 254"):
        planned(facts(), labels=dict.fromkeys(range(1, MAX_CLASSES + 2), "x"))


def test_skip_connections_are_left_out_on_demand_and_the_plan_says_so() -> None:
    usual, without = planned(facts()), planned(facts(), {"skips": False})
    assert without[0] == replace(usual[0], network=replace(usual[0].network, skips=False))
    assert "No skip connections" in without[2] and "skip" not in usual[2]


@given(
    size=st.tuples(*[st.integers(1, 700)] * 3),
    spacing=st.tuples(*[st.floats(0.01, 12)] * 3),
    picture=st.booleans(),
    dims=st.sampled_from([None, 2, 3]),
    neighbours=st.sampled_from([None, 0, 5]),
)
def test_every_plan_is_a_network_that_can_be_built(
    size: Any, spacing: Any, picture: bool, dims: int | None, neighbours: int | None
) -> None:
    if picture:
        size, spacing, dims = (1, *size[1:]), (1.0, 1.0, 1.0), None
    neighbours = None if picture or dims == 3 else neighbours
    spec, _, _ = planned(facts(shape=size, spacing=spacing, picture=picture), {"dims": dims, "neighbours": neighbours})
    network = spec.network
    assert schema.decode(ModelSpec, schema.encode(spec), "spec") == spec
    assert len(network.features) >= 2 and spec.patch != spec.stride
    assert all(n % s == 0 for n, s in zip(spec.patch, spec.stride, strict=True))
    assert math.prod(spec.patch) <= VOXELS[network.dims]
    assert network.walk(spec.patch[3 - network.dims :])[-1][1] == spec.patch[3 - network.dims :]
    _, second, coarsest = sorted(spec.spacing)
    assert network.dims == 2 or spec.spacing[0] == coarsest or coarsest <= 1.5 * second


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({"dims": 2}, {"patch": (1, 64, 64), "spacing": (0, 1, 1), "dims": 2}),
        ({"spacing": (2, 2, 2)}, {"spacing": (2, 2, 2)}),
        ({"spacing": (0, 0, 0)}, {"spacing": (0, 0, 0)}),
        ({"patch": (16, 32, 48)}, {"patch": (16, 32, 48)}),
        ({"features": (4, 8)}, {"features": (4, 8)}),
        ({"mirror_axes": ()}, {"mirror_axes": ()}),
        ({"mirror_axes": (0,)}, {"mirror_axes": (0,)}),
        ({"dims": 2, "patch": (1, 32, 32), "features": (4, 8, 16)}, {"patch": (1, 32, 32), "features": (4, 8, 16)}),
    ],
)
def test_choices_win(choices: dict[str, Any], expected: dict[str, Any]) -> None:
    spec, _, _ = planned(facts(), choices)
    assert {name: getattr(spec, name, getattr(spec.network, name, None)) for name in expected} == expected


@pytest.mark.parametrize(
    ("choices", "changes", "words"),
    [
        ({"dims": 3}, {"picture": True, "shape": (1, 64, 64)}, "--dims: 3 for pictures"),
        ({"neighbours": 1}, {"picture": True, "shape": (1, 64, 64)}, "--neighbours: 1 for pictures. Leave it out"),
        ({"neighbours": 1, "dims": 3}, {}, "--neighbours: 1 for a 3-D network. Leave out one of"),
        ({"dims": 2, "patch": (8, 32, 32)}, {}, r"patch is \(8, 32, 32\)"),
        ({"dims": 2, "spacing": (3, 1, 1)}, {}, r"spacing is \(3, 1, 1\). Give 0 along z"),
        ({"patch": (40, 40)}, {}, r"patch is \(40, 40\). Give three numbers"),
        ({"spacing": (1.0,)}, {}, "Give three numbers"),
        ({"spacing": (-1, 1, 1)}, {}, "spacing"),
        ({"spacing": (math.nan, 1, 1)}, {}, "spacing is .nan"),
        ({"patch": (30, 30, 30)}, {}, r"Use multiples of \(8, 8, 8\)"),
        ({"patch": (4, 4, 4)}, {}, r"a patch of \(4, 4, 4\) allows 1 levels. Give a larger patch"),
        ({"features": (16,)}, {}, "allows 1 levels.*at least 2 levels"),
        ({"features": (4, 8, 16, 32, 64, 128, 256)}, {}, "allows 4 levels.*fewer levels"),
        ({"features": (4,) * 9, "patch": (1024, 1024, 1024)}, {}, "features has 9 levels"),
        ({"mirror_axes": (3,)}, {}, "mirror_axes"),
        ({"mirror_axes": (1, 1)}, {}, r"mirror_axes is \(1, 1\)"),
        ({}, {"low": (0.0,) * 65, "foreground": np.ones((65, 2), np.float32)}, "channels is 65"),
        ({}, {"spacing": (1.0, 1.0, 2000.0)}, "2000"),
    ],
)
def test_contradictions_are_told(choices: dict[str, Any], changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UNetError, match=words):
        planned(facts(**changes), choices)


@pytest.mark.parametrize(
    ("config", "expected", "words"),
    [
        (TrainConfig(), (10, None), "a patch holds most of an image"),
        (TrainConfig(minutes=3), (3, None), "3 minutes, as asked for"),
        (TrainConfig(steps=7), (None, 7), "7 steps, as asked for"),
    ],
)
def test_the_budget(config: TrainConfig, expected: tuple[Any, Any], words: str) -> None:
    _, config, reasons = planned(facts(**HIPPOCAMPUS), config=config)
    assert (config.minutes, config.steps) == expected and words in reasons


def test_large_images_get_more_time() -> None:
    assert planned(facts(shape=(300, 512, 512)))[1].minutes == 30


def test_the_folder_names_the_model_however_long_its_name(tmp_path: Path) -> None:
    folder = decathlon(tmp_path / ("n" * 240), 1)
    dataset = find_cases(folder)
    spec, _, _ = plan(dataset, checks.facts_in(checks.check(dataset)))
    assert spec.name == "n" * 200 and [label.name for label in spec.labels] == ["bright", "dark"]


@pytest.mark.parametrize("shape", [(20, 20, 1), (9, 300, 1), (3, 2, 1)])
def test_small_pictures_are_planned_for(tmp_path: Path, shape: tuple[int, ...]) -> None:
    dataset = find_cases(two_folders(tmp_path, 2, ".png", shape=shape))
    spec, _, _ = plan(dataset, checks.facts_in(checks.check(dataset)))
    assert len(spec.network.features) >= 2 and spec.pictures


def test_real_data(data: Path) -> None:
    dataset = find_cases(data / "hippocampus")
    dataset = replace(dataset, cases=dataset.cases[::10])
    spec, _, words = plan(dataset, checks.facts_in(checks.check(dataset)))
    assert (spec.patch, len(spec.network.features), spec.mirror_axes) == ((40, 56, 40), 4, (2,))
    assert [label.name for label in spec.labels] == ["Anterior", "Posterior"] and "MRI: each image" in " ".join(words)

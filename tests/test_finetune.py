"""Fine-tuning: it begins where the old model ended, says what is new, and needs the old model's file only once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import _one_thread, decathlon, describe, nnunet, planned, scan, two_folders  # noqa: F401 - a fixture
from engine import model_spec, network_spec, random_network
from runs import assert_equal_runs, run, struck

from napari_unet import (
    ModelSpec,
    PlanChoices,
    Segmenter,
    TrainConfig,
    UNetError,
    checks,
    find_cases,
    phantoms,
    torch_runtime,
    weights,
)
from napari_unet.card import Card, Parent
from napari_unet.cli import main
from napari_unet.dataset import Dataset
from napari_unet.finetune import Base, gentle, known
from napari_unet.fingerprint import of_tensors
from napari_unet.layout import MODEL, RESUME
from napari_unet.learning import Learner
from napari_unet.plan import plan
from napari_unet.preprocess import prepare
from napari_unet.record import read_record
from napari_unet.sampling import Example, Sampler
from napari_unet.schedule import Stage, in_steps
from napari_unet.spec import Label

CPU = torch.device("cpu")
CARD = Card(data="Old heads", licence="CC-BY 4.0", data_licence="CC-BY 4.0")
STEPS = 5


def labels(**values: int) -> tuple[Label, ...]:
    return tuple(Label(value, name.replace("_", " "), "#e6194b") for name, value in values.items())


def base(spec: ModelSpec, card: Card = CARD) -> Base:
    """A model of random weights, each of them rounded as in a file."""
    tensors = {name: tensor.half().float().numpy() for name, tensor in random_network(spec.network).state_dict().items()}
    return Base(spec, card, tensors)


def written(model: Base, path: Path) -> Path:
    weights.save(path, model.spec, model.card, model.tensors)
    return path


def told(folder: Path, spec: ModelSpec, config: TrainConfig | None = None, **choices: Any) -> tuple[ModelSpec, TrainConfig, str]:
    """The plan for a folder that learns on from a model, its reasons as one text."""
    dataset, facts = facts_of(folder)
    planned_spec, config, reasons = plan(dataset, facts, PlanChoices(**choices), config, spec)
    assert all(reason.endswith(".") for reason in reasons)
    return planned_spec, config, " ".join(reasons)


def facts_of(folder: Path) -> tuple[Dataset, list[checks.CaseFacts]]:
    dataset = find_cases(folder)
    return dataset, checks.facts_in(checks.check(dataset))


@pytest.fixture(scope="module")
def old(folder: Path) -> Base:
    """A model of the same classes that was made for other data."""
    spec = planned(folder)[1]
    return base(replace(spec, name="old", spacing=(1.1, 0.9, 1.0), orientation="IAR", mirror_axes=(2,), keep_largest=(1,)))


# --- the plan


def test_the_new_model_is_the_old_one_with_the_datas_classes(folder: Path, old: Base) -> None:
    spec, config, words = told(folder, old.spec)
    assert spec == replace(old.spec, name=folder.name, labels=spec.labels, mirror_axes=spec.mirror_axes)
    assert [(label.value, label.name) for label in spec.labels] == [(1, "bright"), (2, "dark")]
    assert "Fine-tuned from old: its 3-D network" in words and "The classes are the model's: bright, dark." in words
    assert config.rate == TrainConfig().rate / 4 == gentle().rate and "The rate is a quarter of the usual" in words


def test_a_rate_of_ones_own_wins(folder: Path, old: Base) -> None:
    _, config, words = told(folder, old.spec, TrainConfig(rate=0.01, steps=3))
    assert (config.rate, config.steps) == (0.01, 3) and "a quarter" not in words


def test_what_a_person_may_choose(folder: Path, old: Base) -> None:
    same = {"dims": 3, "features": (4, 8), "spacing": (1.1, 0.9, 1), "neighbours": 0}
    spec, _, _ = told(folder, old.spec, patch=(8, 12, 16), mirror_axes=(0, 1), mirror_tta=True, **same)
    assert (spec.patch, spec.mirror_axes, spec.mirror_tta) == ((8, 12, 16), (0, 1), True)


def test_neighbours_stay(folder: Path) -> None:
    flat = model_spec(network_spec(2, channels=5, classes=3), neighbours=2)
    assert told(folder, flat)[0].neighbours == 2 and told(folder, flat, neighbours=2)[0].kind == "2.5-D"
    with pytest.raises(UNetError, match="--neighbours: 1 for tiny, whose neighbours is 2. Leave it out, or train without --from"):
        told(folder, flat, neighbours=1)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"dims": 2}, "--dims: 2 for old, whose dims is 3. Leave it out, or train without --from"),
        ({"features": (4, 8, 16)}, r"--features: \(4, 8, 16\) for old, whose features is \(4, 8\)"),
        ({"spacing": (2, 2, 2)}, r"--spacing: \(2.+\) for old, whose spacing is \(1.1, 0.9, 1.0\)"),
        ({"neighbours": 1}, "--neighbours: 1 for old, whose neighbours is 0"),
        ({"patch": (8, 9, 8)}, r"--patch: \(8, 9, 8\) for old, whose stride is \(2, 2, 2\). Use multiples of it"),
        ({"patch": (8, 8)}, r"--patch: \(8, 8\) for old, whose stride is \(2, 2, 2\)"),
        ({"patch": (2, 2, 2)}, "one voxel at the bottleneck"),
        ({"mirror_axes": (3,)}, "mirror_axes"),
    ],
)
def test_flags_that_contradict_the_old_model(folder: Path, old: Base, choices: dict[str, Any], words: str) -> None:
    with pytest.raises(UNetError, match=words):
        told(folder, old.spec, **choices)


def test_data_that_the_old_model_does_not_read(tmp_path: Path, old: Base) -> None:
    two = nnunet(tmp_path / "two channels")
    with pytest.raises(UNetError, match=r"old: it reads 1 channel \(MRI\), the data has 2. Give its channels, or train without"):
        told(two, old.spec)
    pictures = two_folders(tmp_path / "pictures", 2, ".png")
    with pytest.raises(UNetError, match="old: it reads volumes, the data are pictures. Choose another model, or"):
        told(pictures, old.spec)
    with pytest.raises(UNetError, match="it reads pictures, the data are volumes"):
        told(two_folders(tmp_path / "volumes", 2), told_pictures := planned(pictures)[1])
    assert told(pictures, told_pictures)[0].pictures


def test_other_names_are_worth_a_second_look(tmp_path: Path, folder: Path, old: Base) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "data"))
    description: dict[str, Any] = {"modality": {"0": "CT-like"}, "labels": {"0": "background", "1": "BRIGHT", "2": "gloomy"}}
    describe(other, training=[{"image": f"./imagesTr/a{n}.nii.gz", "label": f"./labelsTr/a{n}.nii.gz"} for n in range(2)], **description)
    spec, _, words = told(other, old.spec)
    assert "(1 bright -> BRIGHT, 2 dark -> gloomy)" in words and "old reads MRI; the data has CT-like" in words
    assert [label.name for label in spec.labels] == ["BRIGHT", "gloomy"] and spec.keep_largest == (1,)
    assert all(np.array_equal(value, old.tensors[name]) for name, value in old.start(spec).items())  # nothing is lost


def test_the_models_names_on_exchanged_values(tmp_path: Path, folder: Path, old: Base) -> None:
    """What the model calls dark stays dark: its row of the last layer, whether its largest part is kept, and its mirroring."""
    other = Path(shutil.copytree(folder, tmp_path / "data"))
    describe(other, labels={"background": 0, "Dark": 1, "bright": 2})
    spec, _, words = told(other, replace(old.spec, mirror_axes=()))
    assert [(label.value, label.name) for label in spec.labels] == [(1, "Dark"), (2, "bright")] and spec.keep_largest == (2,)
    assert "by their names, their values are others (Dark 2 -> 1, bright 1 -> 2)" in words and "Look twice: the values" not in words
    assert spec.mirror_axes == () and "Mirrored as old was" in words, "they are the same classes"
    for name, value in old.start(spec).items():
        assert np.array_equal(value, old.tensors[name][[0, 2, 1]] if name.startswith("decoder.seg_layers.") else old.tensors[name])


def test_data_without_names_takes_the_models(tmp_path: Path, old: Base) -> None:
    spec, _, words = told(two_folders(tmp_path, 2), old.spec)
    assert [label.name for label in spec.labels] == ["bright", "dark"] and "does not name its classes" in words
    spec, _, words = told(two_folders(tmp_path / "one", 2, classes=1), old.spec)
    assert [label.name for label in spec.labels] == ["class 1"] and "The last layer is new" in words


def test_mirroring_is_what_the_new_data_and_the_same_classes_allow(folder: Path, old: Base) -> None:
    axes = planned(folder)[1].mirror_axes  # what the data alone would allow
    for before in ((), (0,), (0, 1, 2)):
        spec, _, words = told(folder, replace(old.spec, mirror_axes=before))
        assert set(spec.mirror_axes) == set(axes) & set(before)
        assert ("Mirrored as old was" in words) == (not set(axes) <= set(before))
    assert set(axes), "else nothing was tested"
    other = replace(old.spec, mirror_axes=(), keep_largest=(), labels=labels(gloomy=7, dark=2))
    assert told(folder, other)[0].mirror_axes == axes  # other classes: what was true of the old ones says nothing


# --- the weights


@pytest.mark.parametrize(
    ("before", "after", "rows"),
    [
        (labels(a=1, b=2), labels(a=1, b=2), [0, 1, 2]),
        (labels(a=1, b=2), labels(x=1, A=2), [0, 1, 2]),  # the same values are the same classes
        (labels(b=2, a=1), labels(a=1, b=2), [0, 2, 1]),  # in whatever order
        (labels(a=1, b=2), labels(B=1, a=2), [0, 2, 1]),  # but all the names on other values are
        (labels(a=1, b=2), labels(b=1, c=2, A=3), [0, 2, None, 1]),
        (labels(a=1, b=2), labels(a=1), [0, 1]),
        (labels(a=1, b=2), labels(a=3, b=4), [0, 1, 2]),
        (labels(a=1, b=2), labels(c=1), [None, None]),
        (labels(a=1, b=2), labels(c=1, d=2, e=3), [None] * 4),
    ],
)
def test_which_classes_are_known(before: tuple[Label, ...], after: tuple[Label, ...], rows: list[int | None]) -> None:
    assert known(before, after) == rows
    spec = model_spec(network_spec(classes=len(before) + 1), labels=before)
    old = base(spec)
    new = replace(spec, labels=after, network=replace(spec.network, classes=len(after) + 1))
    start = old.start(new)
    for name, value in start.items():
        if name.startswith("decoder.seg_layers."):
            assert len(value) == len(after) + 1
            for row, source in zip(value, rows, strict=True):
                assert np.array_equal(row, 0 * row if source is None else old.tensors[name][source])
        else:
            assert np.array_equal(value, old.tensors[name])
    image = torch.randn(1, 1, 8, 8, 8)
    logits, were = (torch_runtime.forward(torch_runtime.build(s.network, t, CPU), image)[0] for s, t in ((new, start), (spec, old.tensors)))
    for n, source in enumerate(rows):
        torch.testing.assert_close(logits[n], torch.zeros_like(logits[n]) if source is None else were[source])


def learner_of(spec: ModelSpec, config: TrainConfig, start: dict[str, Any] | None = None) -> Learner:
    learner = Learner(spec, config, CPU, Sampler([Example.make(*scan(n), spec) for n in range(2)], spec, config))
    if start is not None:
        learner.start_from(start)
    return learner


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("dims", [2, 3])
def test_before_the_first_step_it_is_the_old_model(dims: int, norm: str) -> None:
    old = base(model_spec(network_spec(dims, classes=3, norm=norm)))
    learner = learner_of(old.spec, TrainConfig(seed=3), old.start(old.spec))
    data = prepare(scan(5)[0], old.spec).data[None, :, : 8 if dims == 3 else 1, :16, :16]
    expected = torch_runtime.forward(torch_runtime.build(old.spec.network, old.tensors, CPU), data)
    for network in (learner.network.eval(), learner.averaged):
        assert torch.equal(torch_runtime.forward(network, data), expected)


def test_weights_that_do_not_fit_are_refused(old: Base) -> None:
    other = replace(old.spec, labels=labels(a=1, b=2, c=3), network=replace(old.spec.network, classes=4))
    for start in (dict(old.tensors), {name: value for name, value in old.start(other).items() if "bias" not in name}):
        with pytest.raises(UNetError, match="the weights to begin with do not fit"):
            learner_of(other, TrainConfig(), start)


def test_a_step_at_a_tiny_rate_stays_near(folder: Path, old: Base, tmp_path: Path) -> None:
    spec, config, _ = told(folder, old.spec, TrainConfig(steps=1, rate=1e-6, checks=0))
    run((find_cases(folder).cases, spec, config), tmp_path, start=old.start(spec))
    image = scan(9)[0]
    tensors = (weights.load(tmp_path / MODEL)[1], old.tensors)
    near, was = (Segmenter(spec, torch_runtime.build(spec.network, each, CPU)) for each in tensors)
    data = prepare(image, spec).data[None, :, :16, :16, :16]
    torch.testing.assert_close(torch_runtime.forward(near.network, data), torch_runtime.forward(was.network, data), atol=0.01, rtol=0.01)
    assert (near.segment(image).data == was.segment(image).data).mean() > 0.99


def test_it_learns_on_faster_than_from_nothing() -> None:
    """Ten steps on phantoms that the shipped model never saw."""
    model = Base.load("phantoms")
    examples = [Example.make(*phantoms.make(5000 + n), model.spec) for n in range(2)]
    losses = []
    for config, start in ((gentle(), model.start(model.spec)), (TrainConfig(), None)):
        learner = Learner(model.spec, config, CPU, Sampler(examples, model.spec, config))
        if start is not None:
            learner.start_from(start)
        schedule = in_steps([Stage((16, 32, 32), 2, 1.0)], 10)
        losses.append(np.mean([float(learner.step(n, schedule)) for n in range(10)][-3:]))
    assert losses[0] < 0.6 * losses[1]


# --- a run


@pytest.fixture(scope="module")
def new(folder: Path, old: Base) -> tuple[Any, dict[str, Any]]:
    """What `train` needs to go on from the old model, and its weights."""
    spec, config, _ = told(folder, old.spec, gentle(TrainConfig(steps=STEPS, checks=1, fold=0, device="cpu")))
    return (find_cases(folder).cases, spec, config), {"start": old.start(spec), "card": old.derive(Card(data="New", licence="CC0"))}


def test_resumed_without_the_old_model(new: Any, tmp_path: Path) -> None:
    steps, options = new
    run(steps, tmp_path / "unbroken", **options)
    for step in (1, STEPS):
        out = tmp_path / f"stopped at {step}"
        run(steps, out, lambda p, step=step: (p.phase, p.step) == ("training", step), **options)
        run(steps, out, resume=True)
        assert_equal_runs(tmp_path / "unbroken", out)
    run(steps, tmp_path / "from nothing", card=options["card"])
    one, two = (weights.load(tmp_path / place / MODEL)[1] for place in ("unbroken", "from nothing"))
    assert any(not np.array_equal(one[name], two[name]) for name in one)


def test_resumed_although_nothing_had_been_saved(new: Any, tmp_path: Path) -> None:
    """Struck within the first step: what the run began with is on disk before the run is."""
    steps, options = new
    run(steps, tmp_path / "unbroken", **options)
    struck(steps, tmp_path / "struck", 1, **options)
    assert weights.load_tensors(tmp_path / "struck" / RESUME)[1]["step"] == "0" and not (tmp_path / "struck" / MODEL).exists()
    run(steps, tmp_path / "struck", resume=True)
    assert_equal_runs(tmp_path / "unbroken", tmp_path / "struck")


def test_a_lost_beginning_is_not_replaced_by_another(new: Any, tmp_path: Path) -> None:
    steps, options = new
    run(steps, tmp_path, lambda p: p.phase == "training", **options)
    (tmp_path / RESUME).unlink()
    with pytest.raises(UNetError, match="the weights that it began with are lost. Begin anew"):
        run(steps, tmp_path, resume=True)


def test_from_the_command_line(folder: Path, old: Base, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file, then the run that came of it; the first one may be gone by the time that the run goes on."""
    path, out = written(old, tmp_path / "old.safetensors"), tmp_path / "run"
    command = ["train", str(folder), "--from", str(path), "--out", str(out), "--steps", "3", "--checks", "0"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "Fine-tuned from old" in said and "A score is independent only where old was not trained on" in said
    card, record = weights.read_card(out / MODEL), read_record(out)
    assert "which it began with, may have seen them" not in card.worth  # none was scored
    scored = replace(card, cases_scored=3, independent=True)
    assert scored.worth == "3 cases kept out of training; old, which it began with, may have seen them"
    assert card.parent == Parent("old", of_tensors(old.tensors)) and card.licence == "CC-BY 4.0 + CC0" == card.data_licence
    assert card.data == "Blocks; before that, for old: Old heads" and record.config.rate == gentle().rate
    path.unlink()
    assert main([*command, "--resume"]) == 0 and main(["info", str(out)]) == 0
    assert f"old (fine-tuned; its tensors' SHA-256: {of_tensors(old.tensors)[:12]}" in capsys.readouterr().out
    again = ["train", str(folder), "--from", str(out), "--out", str(tmp_path / "again"), "--steps", "1", "--checks", "0", "--rate", "0.002"]
    assert main(again) == 0
    card, record = weights.read_card(tmp_path / "again" / MODEL), read_record(tmp_path / "again")
    assert card.parent is not None and card.parent.name == folder.name and record.config.rate == 0.002
    assert card.licence == "CC-BY 4.0 + CC0" and card.data.endswith("for old: Old heads")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--from", "nowhere"), "there is no such weights file"),
        (("--from", "phantoms", "--dims", "2"), "--dims: 2 for phantoms, whose dims is 3"),
        (("--from", "phantoms", "--patch", "30,30,30"), "Use multiples of it"),
    ],
)
def test_refused_before_anything_is_there(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    assert main(["train", str(folder), "--out", str(tmp_path / "run"), "--steps", "1", *arguments]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "run").exists()


# --- where it comes from


@pytest.mark.parametrize(
    ("before", "after", "joined"),
    [
        ("CC0", "CC0", "CC0"),
        ("CC-BY-SA 4.0", "CC0", "CC-BY-SA 4.0 + CC0"),
        ("CC-BY-SA 4.0", "", "CC-BY-SA 4.0 + not stated"),
        ("", "CC0", "not stated + CC0"),
        ("", "", ""),
        ("A + B", "B", "A + B"),
    ],
)
def test_obligations_are_inherited(before: str, after: str, joined: str) -> None:
    model = base(model_spec(), Card(licence=before, data_licence=before))
    card = model.derive(Card(licence=after, data_licence=after, description="new"))
    assert card.licence == joined == card.data_licence and card.description == "new"
    assert card.data == "not stated; before that, for tiny: not stated"


def test_a_fingerprint_is_of_the_tensors_alone(old: Base, tmp_path: Path) -> None:
    for card in (CARD, Card(dice={"mean": 0.5})):
        assert of_tensors(Base.load(written(replace(old, card=card), tmp_path / "m.safetensors")).tensors) == of_tensors(old.tensors)
    assert of_tensors(dict(reversed(old.tensors.items()))) == of_tensors(old.tensors)
    for name in old.tensors:
        changed = old.tensors[name].copy()
        changed.flat[-1] += 1
        assert of_tensors({**old.tensors, name: changed}) != of_tensors(old.tensors)


def test_an_ensemble_s_first_member_learns_on(folder: Path, old: Base, tmp_path: Path) -> None:
    """As many models of one specification as there are folds: one model begins with the first, and says so."""
    other = replace(old, tensors={name: value + 1 for name, value in old.tensors.items()})
    together = replace(old.spec, members=2)
    weights.save(tmp_path / "two.safetensors", together, CARD, weights.merge([dict(old.tensors), dict(other.tensors)]))
    both = Base.load(tmp_path / "two.safetensors")
    assert both.spec == together and of_tensors(both.tensors) == of_tensors(old.tensors) != of_tensors(other.tensors)
    spec, _, words = told(folder, both.spec)
    assert spec.members == 1 and "It is an ensemble of 2: what is learnt on from is the first of them." in words
    start = both.start(spec)
    assert all(np.array_equal(value, old.tensors[name]) for name, value in start.items())
    ask = ["train", str(folder), "--out", str(tmp_path / "run"), "--from", str(tmp_path / "two.safetensors"), "--steps", "1"]
    assert main([*ask, "--device", "cpu"]) == 0
    assert weights.read_spec(tmp_path / "run" / MODEL).members == 1
    assert weights.read_card(tmp_path / "run" / MODEL).parent == Parent("old", of_tensors(old.tensors))

"""nnU-Net's plans.json and dataset.json -> ModelSpec: how it looks at an image, said in our words."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from napari_unet import schema
from napari_unet.errors import UNetError, within
from napari_unet.nnunet_network import OPEN, REMEDY, Architecture, OldNetwork, network_of
from napari_unet.spec import COLOURS, MAX_CHANNELS, MAX_LABEL, Channel, Label, ModelSpec, Name, Size

MAX_JSON = 32 << 20
_PICTURES = "NaturalImage2DIO"
_TURNING = "NibabelIOWithReorient"
_READERS = {"SimpleITKIO": "kji", "NibabelIO": "kji", _TURNING: "SAR", _PICTURES: "SRA"}  # the axes of what each reads
_RESAMPLING = "resample_data_or_seg_to_shape"
_KWARGS = {"is_seg": False, "order_z": 0, "force_separate_z": None}
_SCHEMES = {"ZScoreNormalization", "CTNormalization", "NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization"}


@dataclass(frozen=True)
class Plans:
    """plans.json, as far as a trained model needs it."""

    __pydantic_config__ = OPEN

    configurations: dict[Name, dict[str, Any]]
    dataset_name: Name = "nnU-Net"
    plans_name: Name = ""
    image_reader_writer: Name = "SimpleITKIO"
    transpose_forward: tuple[Annotated[int, Field(ge=0, le=2)], ...] = (0, 1, 2)
    label_manager: Name = "LabelManager"
    foreground_intensity_properties_per_channel: dict[str, dict[str, float]] = field(default_factory=dict)


    def turning(self) -> Plans:
        """The same with a reader that turns volumes to RAS."""
        return replace(self, image_reader_writer=_TURNING) if _READERS.get(self.image_reader_writer) == "kji" else self


@dataclass(frozen=True)
class Configuration:
    """One of its configurations, without what only training needs."""

    __pydantic_config__ = OPEN

    patch_size: tuple[Size, ...]
    spacing: tuple[Annotated[float, Field(gt=1e-6, le=1000)], ...]
    normalization_schemes: tuple[Name, ...]
    use_mask_for_norm: tuple[bool, ...]
    preprocessor_name: Name = "DefaultPreprocessor"
    previous_stage: Name | None = None
    resampling_fn_data: Name = _RESAMPLING
    resampling_fn_data_kwargs: dict[str, Any] = field(default_factory=lambda: _KWARGS | {"order": 3})
    resampling_fn_probabilities: Name = _RESAMPLING
    resampling_fn_probabilities_kwargs: dict[str, Any] = field(default_factory=lambda: _KWARGS | {"order": 1})
    architecture: Architecture | None = None


@dataclass(frozen=True)
class Dataset:
    """dataset.json, as far as a trained model needs it."""

    __pydantic_config__ = OPEN

    labels: dict[Name, int | tuple[int, ...]]
    channel_names: dict[str, Name] = field(default_factory=dict)
    modality: dict[str, Name] = field(default_factory=dict)  # what the former was called
    regions_class_order: tuple[int, ...] | None = None
    numTraining: int = 0

    @property
    def channels(self) -> list[str]:
        """Names, in the order of their numbers."""
        named = self.channel_names or self.modality
        return [named[number] for number in sorted(named, key=lambda number: (len(number), number))]


def read_json(path: Path, cls: type[schema.T]) -> schema.T:
    """A file of nnU-Net's, as far as `cls` has it. Raises UNetError where it is missing, too large, or not what it should be."""
    from napari_unet.files import reading

    with reading(path), open(path, "rb") as file:
        text = file.read(MAX_JSON + 1)
    if len(text) > MAX_JSON:
        raise UNetError(path, f"more than {MAX_JSON:,} bytes", "Fetch the model again")
    return schema.decode(cls, text, str(path))


def model_spec(plans: Plans, dataset: Dataset, name: str, mirror_axes: tuple[int, ...], where: Path) -> ModelSpec:
    """How a configuration of these plans looks at an image, and answers. Raises UNetError for what is not read, by its name.

    mirror_axes : of the patch, as the checkpoint allows them; where : the plans, for messages.
    """
    table = _inherited(plans, name, where)
    configuration = schema.parse(Configuration, table, str(where))
    architecture = configuration.architecture or schema.parse(OldNetwork, table, str(where)).architecture()
    _check_known(plans, configuration, where)
    (labels, regions), channels = _labels(dataset, where), _channels(plans, configuration, dataset, where)
    network = network_of(architecture, len(channels), len(labels) + (not regions), where)
    flat, pictures = network.dims == 2, plans.image_reader_writer == _PICTURES
    if not len(configuration.patch_size) == len(configuration.spacing) == network.dims:
        raise UNetError(where, f"patch_size is {configuration.patch_size}, spacing {configuration.spacing}, of a {network.dims}-D network",
                        "Fetch the model again")  # fmt: skip
    if max(mirror_axes, default=0) >= network.dims:
        raise UNetError(where, f"the checkpoint mirrors axes {mirror_axes} of a {network.dims}-D patch", "Fetch the model again")
    if pictures and (configuration.spacing != (1.0, 1.0) or plans.transpose_forward != (0, 1, 2)):
        raise UNetError(where, f"spacing is {configuration.spacing}, transpose_forward {plans.transpose_forward}, of pictures", REMEDY)
    axes, spacing = _READERS[plans.image_reader_writer], (0.0, 0.0, 0.0) if pictures else (0.0,) * flat + configuration.spacing
    with within(where):
        return ModelSpec(
            name=f"{plans.dataset_name} {name}"[:200], network=network, channels=channels, labels=labels,
            orientation="".join(axes[axis] for axis in plans.transpose_forward), spacing=spacing,
            patch=(1,) * flat + configuration.patch_size, mirror_axes=tuple(axis + flat for axis in mirror_axes),
            mirror_tta=bool(mirror_axes), pictures=pictures, crop=True, resampling="cubic", windows="patch", regions=regions,
        )  # fmt: skip


def _inherited(plans: Plans, name: str, where: Path) -> dict[str, Any]:
    """A configuration with all that it inherits from others."""
    found: dict[str, Any] = {"inherits_from": name}
    for _ in range(len(plans.configurations) + 1):
        parent = found.pop("inherits_from", None)
        if parent is None:
            return found
        if parent not in plans.configurations:
            raise UNetError(where, f"there is no configuration {str(parent)[:80]!r}",
                            f"Give --configuration {' or '.join(list(plans.configurations)[:8])}")  # fmt: skip
        found = plans.configurations[parent] | found
    raise UNetError(where, f"the configuration {name!r} inherits from itself", "Fetch the model again")


def _check_known(plans: Plans, configuration: Configuration, where: Path) -> None:
    """UNetError for a way to look at images, or to answer, that is not nnU-Net's own."""
    if configuration.previous_stage is not None:
        raise UNetError(where, f"it is the second stage of a cascade, after {configuration.previous_stage}", REMEDY)
    known: dict[str, tuple[Any, list[Any]]] = {
        "preprocessor_name": (configuration.preprocessor_name, ["DefaultPreprocessor"]),
        "label_manager": (plans.label_manager, ["LabelManager"]),
        "image_reader_writer": (plans.image_reader_writer, list(_READERS)),
        "transpose_forward": (sorted(plans.transpose_forward), [[0, 1, 2]]),
        "resampling_fn_data": (configuration.resampling_fn_data, [_RESAMPLING]),
        "resampling_fn_data_kwargs": (configuration.resampling_fn_data_kwargs, [_KWARGS | {"order": 3}]),
        "resampling_fn_probabilities": (configuration.resampling_fn_probabilities, [_RESAMPLING]),
        "resampling_fn_probabilities_kwargs": (configuration.resampling_fn_probabilities_kwargs, [_KWARGS | {"order": 1}]),
    }
    for name, (value, values) in known.items():
        if value not in values:
            raise UNetError(where, f"{name} is {str(value)[:120]}, known is {' or '.join(map(str, values))}", REMEDY)


def _labels(dataset: Dataset, where: Path) -> tuple[tuple[Label, ...], bool]:
    """Its classes, in the order of the network's logits, and whether these are regions, which overlap."""
    told = {name: (value,) if isinstance(value, int) else value for name, value in dataset.labels.items() if name != "ignore"}
    each = {name: values for name, values in told.items() if set(values) != {0}}
    regions = any(len(values) > 1 for values in each.values())
    if regions:
        names, values = list(each), list(dataset.regions_class_order or ())
    else:
        names = sorted(each, key=lambda name: each[name])
        values = [value for name in names for value in each[name]]
    ordered = len(set(values)) == len(values) and min(values, default=0) > 0 if regions else values == list(range(1, len(values) + 1))
    if not ordered or len(values) != len(names) or max(values, default=0) > MAX_LABEL:
        shown = f"labels is {str(dataset.labels)[:160]}, regions_class_order {str(dataset.regions_class_order)[:40]}"
        raise UNetError(where.with_name("dataset.json"), shown, "Fetch the model again: nnU-Net numbers labels from 0 on")
    labels = zip(values, names, strict=True)
    return tuple(Label(value, name or f"label {value}", COLOURS[n % len(COLOURS)]) for n, (value, name) in enumerate(labels)), regions


def _channels(plans: Plans, configuration: Configuration, dataset: Dataset, where: Path) -> tuple[Channel, ...]:
    """Its channels, and how each is normalised."""
    names, schemes, masks = dataset.channels, configuration.normalization_schemes, configuration.use_mask_for_norm
    if not 1 <= len(names) == len(schemes) == len(masks) <= MAX_CHANNELS:
        raise UNetError(where, f"{len(schemes)} normalization_schemes and {len(masks)} use_mask_for_norm for {len(names)} channels",
                        "Fetch the model again")  # fmt: skip
    facts = plans.foreground_intensity_properties_per_channel
    return tuple(
        _channel(name, scheme, masked, facts.get(str(n), {}), where)
        for n, (name, scheme, masked) in enumerate(zip(names, schemes, masks, strict=True))
    )


def _channel(name: str, scheme: str, masked: bool, facts: dict[str, float], where: Path) -> Channel:
    if scheme == "CTNormalization":
        keys = ("percentile_00_5", "percentile_99_5", "mean", "std")
        if missing := [key for key in keys if key not in facts]:
            raise UNetError(where, f"foreground_intensity_properties_per_channel has no {missing[0]} of {name}", "Fetch the model again")
        low, high, mean, std = (facts[key] for key in keys)
        with within(where):
            return Channel(name, "clip", low, high, mean, max(std, 1e-8))
    if scheme == "RGBTo01Normalization":
        return Channel(name, "clip", 0.0, 255.0, 0.0, 255.0)
    if scheme not in _SCHEMES:
        raise UNetError(where, f"the normalization of {name} is {scheme}, known are {', '.join(sorted(_SCHEMES))}", REMEDY)
    return Channel(name, {"NoNormalization": "none", "RescaleTo01Normalization": "minmax"}.get(scheme, "masked" if masked else "zscore"))  # type: ignore[arg-type]

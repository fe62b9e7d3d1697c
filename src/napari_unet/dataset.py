"""A subject's images and mask, and a set of them: the one place that reads what a case holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from napari_unet import images, zarrs
from napari_unet.errors import UNetError
from napari_unet.partial import mark
from napari_unet.settings import ALL_LABELLED, LabelRule
from napari_unet.spec import ModelSpec
from napari_unet.suffixes import is_picture
from napari_unet.volume import Volume, check_same_grid


@dataclass(frozen=True)
class Case:
    """One subject: its name, its image files (one, or one per channel) and, for training, its label file and how to read it.

    part : (axis, start, stop) of the volume's own voxels, where only these are the case.
    group : cases of one group, such as copies, train together or are kept out together; "" for a case on its own.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None
    rule: LabelRule = ALL_LABELLED
    part: tuple[int, int, int] | None = None
    group: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """Its images, and its label where it has one."""
        return (*self.images, *([self.label] if self.label else []))

    @property
    def picture(self) -> bool:
        """Whether it is one, or a zarr without z, whose pixels have no size and no direction in a body. UNetError for a damaged zarr."""
        first = self.images[0]
        return is_picture(first) or (zarrs.is_zarr(first) and zarrs.peek(first).flat)


@dataclass(frozen=True)
class Dataset:
    """What a folder holds: cases, the names of labels and channels where they are given, and what does not pair up.

    about, origin, licence : what dataset.json says of the data, for the model's card.
    """

    folder: Path
    cases: tuple[Case, ...]
    labels: dict[int, str]
    channels: tuple[str, ...]
    unlabelled: tuple[Path, ...] = ()
    without_image: tuple[Path, ...] = ()
    about: str = ""
    origin: str = ""
    licence: str = ""

    @property
    def rule(self) -> LabelRule:
        """How all masks are read."""
        return self.cases[0].rule if self.cases else ALL_LABELLED

    def with_rule(self, rule: LabelRule) -> Dataset:
        """The same data, its masks read by another rule."""
        return replace(self, cases=tuple(replace(case, rule=rule) for case in self.cases))

    def with_groups(self, groups: Mapping[str, str]) -> Dataset:
        """The same data, each case in the group of its name."""
        return replace(self, cases=tuple(replace(case, group=groups.get(case.name, "")) for case in self.cases))


def check_names(case: Case) -> None:
    """UNetError where a file's name is none that could be written down."""
    for path in case.files:
        try:
            os.path.realpath(path).encode()
        except UnicodeEncodeError:
            raise UNetError(ascii(str(path)), "its path is not valid Unicode", "Rename it") from None


def check_kind(case: Case, spec: ModelSpec) -> None:
    """UNetError where a case is a picture, whose pixels have no size, and the model reads volumes."""
    if not spec.pictures and case.picture:
        raise UNetError(case.images[0], f"it is a picture, the model {spec.name} reads volumes",
                        "Choose a model of pictures, or save the picture's volume as NIfTI")  # fmt: skip


def read_image(case: Case, chosen: int | None = None, *, lazy: bool = False) -> Volume:
    """A case's image; several files become its channels. Raises UNetError where they do not lie on one grid.

    chosen : which one of a 4-D image's volumes; lazy : a zarr's voxels are left where they are until they are asked for.
    """
    if len(case.images) == 1:
        image = _part(_read(case.images[0], chosen), case)
        return image if lazy else images.in_memory(image)
    volumes = [images.in_memory(_part(images.read(path), case)) for path in case.images]
    for volume in volumes:
        check_same_grid(volume, volumes[0], "channel", "first channel")
        if volume.channels > 1:
            raise UNetError(volume.source, f"{volume.channels} volumes in a file that is one channel of {case.name}",
                            "Give one volume per channel file")  # fmt: skip
    first = volumes[0]
    data = np.stack([volume.data.reshape(volume.shape) for volume in volumes], axis=-1)  # zarrs have an axis of one channel
    together = Volume(data, first.affine, first.header, first.source, first.notes, first.shape_on_disk)
    return together if chosen is None else together.channel(chosen)


def _read(path: Path, chosen: int | None) -> Volume:
    """A file's image, or one of its volumes."""
    if zarrs.is_zarr(path):
        return zarrs.read(path, chosen)
    return images.read(path) if chosen is None else images.read(path).channel(chosen)


def read_mask(case: Case) -> Volume:
    """A case's mask as its rule has it, `partial.UNLABELLED` where nobody labelled: the one place that knows.

    Raises UNetError for a mask that cannot be one of classes, or that the rule cannot be applied to.
    """
    if case.label is None:
        raise UNetError(case.name, "it has no label", "Give labelled cases")
    return mark(_part(images.read_labels(case.label, case.rule.ignore), case), case.rule)


def read_label(case: Case, image: Volume) -> Volume:
    """A case's mask (see `read_mask`), on its image's grid. Raises UNetError where it is not."""
    label = read_mask(case)
    check_same_grid(label, image)
    return label


def _part(volume: Volume, case: Case) -> Volume:
    return volume if case.part is None else volume.cropped(*case.part)

"""What OME-Zarr's metadata say of an image, and those of its mask.

After the Next-generation file format, versions 0.4 and 0.5 (https://ngff.openmicroscopy.org), and its RFC 4 on anatomical orientation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_unet.errors import UNetError
from napari_unet.spec import Label, rgb
from napari_unet.volume import Affine, check_affine

AXES = "tczyx"
VOLUME, PICTURE = ("x", "y", "z"), ("y", "x", "z")
NO_ORIENTATION = ("OME-Zarr does not say how a patient lies: x is taken to grow to the right, y to the front, z to the head, "
                  "as in a NIfTI file of orientation RAS")  # fmt: skip
_MM = {
    "angstrom": 1e-7, "nanometer": 1e-6, "nm": 1e-6, "micrometer": 1e-3, "micron": 1e-3, "um": 1e-3, "µm": 1e-3, "μm": 1e-3,
    "millimeter": 1.0, "mm": 1.0, "centimeter": 10.0, "cm": 10.0, "decimeter": 100.0, "meter": 1e3, "m": 1e3, "inch": 25.4,
}  # fmt: skip
_TOWARDS = {
    "left-to-right": (0, 1), "right-to-left": (0, -1), "posterior-to-anterior": (1, 1), "anterior-to-posterior": (1, -1),
    "inferior-to-superior": (2, 1), "superior-to-inferior": (2, -1),
}  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """The axes of a stored image, in its order, and where its pixels lie along each of them, in the axis's unit.

    path : of the array of full resolution, inside the image's group; "" where the image is an array without OME's metadata.
    """

    axes: tuple[Mapping[str, Any], ...]
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    path: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the axes, one letter each."""
        return tuple(axis["name"] for axis in self.axes)

    @property
    def own(self) -> tuple[str, ...]:
        """The axes of the volume that it becomes: rows and columns, as of any picture, where there is no z."""
        return VOLUME if "z" in self.names else PICTURE

    def affine(self, where: str) -> tuple[Affine, tuple[str, ...]]:
        """Voxel index -> RAS+ mm, and what is assumed in it, in words. Raises UNetError where it places no voxels in space."""
        affine, notes = np.eye(4), []
        world = [_towards(axis) for axis in self.axes if axis["name"] in VOLUME]
        known = sorted(w[0] for w in world if w) == [0, 1, 2]
        for index, name in enumerate(self.own):
            if name not in self.names:
                continue
            at = self.names.index(name)
            row, sign = (_towards(self.axes[at]) or (index, 1)) if known else (index, 1)
            unit = _mm(self.axes[at], where)
            if unit is None:
                notes.append(name)
            column = np.zeros(4)
            column[row] = sign * self.scale[at] * (unit or 1.0)
            affine[:, index], affine[row, 3] = column, sign * self.translation[at] * (unit or 1.0)
        check_affine(affine, where)
        told = [f"its axes {', '.join(notes)} have no unit: taken as millimetres"] if notes else []
        return affine, (*([] if known or "z" not in self.names else [NO_ORIENTATION]), *told)

    def of_mask(self) -> Grid:
        """The same without time and channels."""
        kept = [at for at, name in enumerate(self.names) if name in VOLUME]
        scale, translation = (tuple(values[at] for at in kept) for values in (self.scale, self.translation))
        return Grid(tuple(self.axes[at] for at in kept), scale, translation, "0" if self.path else "")


def plain(count: int, names: Sequence[Any] | None, where: str) -> Grid:
    """Of an array without OME's metadata: its axes by name, or else the last ones of t, c, z, y, x. Raises UNetError."""
    given = [str(name).lower() for name in names or ()]
    known = given if len(given) == count and _good(given) else list(AXES[-count:])
    if not 2 <= count <= len(AXES):
        raise UNetError(where, f"an array of {count} axes", "Give two to five: t, c, z, y, x")
    return Grid(tuple({"name": name} for name in known), (1.0,) * count, (0.0,) * count)


def read(attributes: Mapping[str, Any], where: str) -> Grid | None:
    """The grid of an image's full resolution; None where the attributes hold no image. Raises UNetError for damaged ones."""
    told = attributes.get("ome", attributes)
    try:
        if "multiscales" not in told:
            return None
        scales = told["multiscales"][0]
        dataset = scales["datasets"][0]
        axes = [{"name": axis} if isinstance(axis, str) else dict(axis) for axis in scales.get("axes", AXES)]
        for axis in axes:
            axis["name"] = axis["name"].lower()
        scale, translation = [1.0] * len(axes), [0.0] * len(axes)
        for step in (*dataset.get("coordinateTransformations", ()), *scales.get("coordinateTransformations", ())):
            kind = step["type"]
            if kind == "identity":
                continue
            values = step[kind]
            if kind not in ("scale", "translation") or len(values) != len(axes):
                raise ValueError(f"the transformation {str(step)[:80]}")
            values = [float(value) for value in values]
            if kind == "scale":
                scale, translation = ([a * b for a, b in zip(values, old, strict=True)] for old in (scale, translation))
            else:
                translation = [a + b for a, b in zip(values, translation, strict=True)]
        grid = Grid(tuple(axes), tuple(scale), tuple(translation), str(dataset["path"]))
        if not _good(list(grid.names)):
            raise ValueError(f"axes {' '.join(grid.names)}")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UNetError(where, f"its multiscales cannot be understood ({str(error)[:160]})",
                        "Write it as OME-Zarr 0.4 or 0.5, with some of the axes t, c, z, y, x") from None  # fmt: skip
    return grid


def write(grid: Grid, name: str, version: str, labels: Sequence[Label] | None, image: str) -> dict[str, Any]:
    """Attributes of a group with a single resolution on a grid, in OME-Zarr 0.4 or 0.5.

    labels : of a mask, which is a label image then; image : the way from it to the image that it belongs to.
    """
    steps = [{"type": "scale", "scale": list(grid.scale)}, {"type": "translation", "translation": list(grid.translation)}]
    scales = {"name": name, "axes": [_typed(axis) for axis in grid.axes],
              "datasets": [{"path": grid.path, "coordinateTransformations": steps}]}  # fmt: skip
    told: dict[str, Any] = {"multiscales": [scales]}
    if labels is not None:
        told["image-label"] = {
            "colors": [{"label-value": label.value, "rgba": [*rgb(label.colour), 255]} for label in labels],
            "properties": [{"label-value": label.value, "name": label.name} for label in labels],
            "source": {"image": image},
        }
    if version == "0.5":
        return {"ome": {"version": version, **told}}
    for part in (scales, told.get("image-label", {})):
        part["version"] = version
    return told


def _typed(axis: Mapping[str, Any]) -> dict[str, Any]:
    """An axis with its type, which older versions leave out."""
    return {"type": "space", **axis}


def _good(names: Sequence[str]) -> bool:
    return len(set(names)) == len(names) and {"y", "x"} <= set(names) <= set(AXES)


def _mm(axis: Mapping[str, Any], where: str) -> float | None:
    """Millimetres in an axis's unit; None where it has none."""
    unit = axis.get("unit")
    if unit in (None, "", "pixel", "voxel"):
        return None
    if unit not in _MM:
        raise UNetError(where, f"the unit {unit!r} of its axis {axis['name']}", f"Use one of {', '.join(_MM)}")
    return _MM[unit]


def _towards(axis: Mapping[str, Any]) -> tuple[int, int] | None:
    """The world axis that an axis runs along, and its sign, where RFC 4's orientation tells."""
    told = axis.get("orientation")
    return _TOWARDS.get(str(told.get("value")) if isinstance(told, Mapping) else "")

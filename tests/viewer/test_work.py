"""What is asked of a model, slice by slice: the image is looked over once, and anew when it is another."""

from __future__ import annotations

from dataclasses import replace

import dask.array
import numpy as np
import pytest
from conftest import tiny_spec
from napari.layers import Image

from napari_unet.viewer.engine import Engine
from napari_unet.viewer.estimate import cost
from napari_unet.viewer.model import Model
from napari_unet.viewer.options import Options
from napari_unet.viewer.work import Work

SIDE = 12


@pytest.fixture
def model(model_file):
    return Model.read(model_file("flat", tiny_spec(dims=2, spacing=(0.0, 1.0, 1.0))))


def counted(values, seen):
    """A lazy array, one chunk per slice along the first axis, that notes which ones are read."""

    def read(block_info=None):
        (first, last), *_ = block_info[None]["array-location"]
        seen.append(first)
        return values[first:last]

    return dask.array.map_blocks(read, chunks=((1,) * SIDE, SIDE, SIDE), dtype=values.dtype)


def slice_of(work, index):
    """The labels of a slice along the third axis, which are the first of such a layer."""
    (piece,) = work.slices((2, index), 1)
    assert piece.region[2] == slice(index, index + 1)
    return piece.labels


def work_on(model, layer):
    return Work(Engine(), model, Options(device="cpu", runtime="torch"), layer, (), None)


def test_the_next_slice_reads_nothing_again(model, rng):
    seen, values = [], rng.normal(size=(SIDE,) * 3).astype(np.float32)
    layer = Image(counted(values, seen), cache=False, contrast_limits=(-3, 3))
    work = work_on(model, layer)
    assert work.reaches((2, 3))
    seen.clear()
    slice_of(work, 3)
    assert set(seen) == set(range(SIDE)), "statistics are of all voxels"
    seen.clear()
    again = slice_of(work, 8)
    assert not seen
    np.testing.assert_array_equal(again, slice_of(work_on(model, Image(values)), 8))


def test_what_a_lazy_image_costs_is_told_without_reading_it(model, rng):
    """The viewer's thread asks for it, at each move of the slider, too."""
    seen, values = [], rng.normal(size=(SIDE,) * 3).astype(np.float32)
    layer = Image(counted(values, seen), cache=False, contrast_limits=(-3, 3))
    work = work_on(model, layer)
    seen.clear()
    assert work.reaches((2, 3)) and cost(model.spec, work.outline(), work.options).windows > 0
    assert not seen
    np.testing.assert_array_equal(slice_of(work, 3), slice_of(work_on(model, Image(values)), 3))


class Stored:
    """Voxels that lie elsewhere, as a zarr's or an HDF5 file's do: they come when they are asked for."""

    def __init__(self, values):
        self.values, self.reads = values, 0
        self.shape, self.dtype, self.ndim, self.chunks = values.shape, values.dtype, values.ndim, (1, *values.shape[1:])

    def __getitem__(self, where):
        found = self.values[where]
        self.reads += found.size
        return found

    def __array__(self, dtype=None, copy=None):
        self.reads += self.values.size
        return np.asarray(self.values, dtype)


def test_what_lies_elsewhere_is_not_read_to_tell_what_it_costs(model, rng):
    stored = Stored(rng.normal(size=(SIDE,) * 3).astype(np.float32))
    layer = Image(stored, contrast_limits=(-3, 3))
    work = work_on(model, layer)
    stored.reads = 0
    assert cost(model.spec, work.outline(), work.options).voxels > 0 and work.reaches((2, 3)) and stored.reads == 0
    np.testing.assert_array_equal(slice_of(work, 8), slice_of(work_on(model, Image(stored.values)), 8))


def test_another_image_or_another_grid_is_looked_over_anew(model, rng):
    first, second = (rng.normal(mean, 1, (SIDE,) * 3).astype(np.float32) for mean in (0, 5))
    layer = Image(first)
    work = work_on(model, layer)
    slice_of(work, 3)
    layer.data = second
    np.testing.assert_array_equal(slice_of(work, 3), slice_of(work_on(model, Image(second)), 3))
    before = slice_of(work, 3)
    layer.scale = (1, 2, 1)
    after = slice_of(work, 3)
    np.testing.assert_array_equal(after, slice_of(work_on(model, Image(second, scale=(1, 2, 1))), 3))
    assert (after != before).any(), "what is seen is resampled"


def test_another_volume_of_a_series_is_looked_over_anew(model, rng):
    series = rng.normal(size=(2, SIDE, SIDE, SIDE)).astype(np.float32)
    work = replace(work_on(model, Image(series)), step=0)
    for step in (0, 1, 0):
        np.testing.assert_array_equal(slice_of(replace(work, step=step), 3), slice_of(work_on(model, Image(series[step])), 3))

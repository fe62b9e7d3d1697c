"""Volume <-> layer: nothing is lost and everything stays where it was, over all orientations, straight and tilted."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import nibabel
import numpy as np
import pytest
from hostile import ORIENTATIONS, SHAPE, affine_for
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.layers._layer_actions import _duplicate_layer, _merge_stack, _project, _split_stack

from napari_unet import images
from napari_unet.errors import UNetError
from napari_unet.viewer import grids, layers, screen, writer
from napari_unet.viewer.planes import show_plane
from napari_unet.volume import Volume

RAS = np.array([[0, 0, -1], [0, -1, 0], [-1, 0, 0]])  # of napari's world


def read(path):
    return images.read(path)


@pytest.mark.parametrize("tilt", [0, 17])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
class TestEveryOrientation:
    def test_a_layer_gives_the_file_back(self, nifti_file, orientation, tilt):
        volume = read(nifti_file(affine=affine_for(orientation, tilt=tilt)))
        layer = Layer.create(*layers.to_layer(volume))
        back = layers.volume_of(layer)
        assert back.data.dtype == volume.data.dtype
        assert back.data.tobytes() == volume.data.tobytes()
        assert back.data.strides == volume.data.strides  # the very same memory
        assert (back.affine == volume.affine).all()
        assert back.header == volume.header
        assert back.source == volume.source and back.shape_on_disk == volume.shape_on_disk

    def test_voxels_stand_where_they_are(self, nifti_file, orientation, tilt):
        volume = read(nifti_file(affine=affine_for(orientation, tilt=tilt)))
        layer = Layer.create(*layers.to_layer(volume))
        grid = grids.grid_of(layer)
        assert (np.array(layer.scale) > 0).all()
        assert np.allclose(layer.affine.affine_matrix, np.eye(4)) and np.allclose(layer.rotate, np.eye(3))
        index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"))
        truth = np.einsum("ab,bijk->ijka", volume.affine[:3, :3], index) + volume.affine[:3, 3]
        shown = grid.shown(truth, colours=True)  # each layer voxel's true place
        off = [
            np.linalg.norm(RAS @ layer.data_to_world(voxel) - shown[voxel]) for voxel in np.ndindex(grid.layer_shape)
        ]
        assert max(off) < 1e-4 if tilt == 0 else abs(shown.mean((0, 1, 2)) - RAS @ _middle(layer)).max() < 1e-4

    def test_a_hand_painted_mask_is_saved_on_the_image_s_grid(self, nifti_file, orientation, tilt, tmp_path):
        path = nifti_file(affine=affine_for(orientation, tilt=tilt), sform_code=4, qform_code=1, units=("mm", "msec"))
        viewer = ViewerModel()
        image = viewer.add_layer(Layer.create(*layers.to_layer(read(path))))
        viewer.layers.selection.active = image
        viewer._new_labels()
        mask = viewer.layers[-1]
        assert grids.KEY not in mask.metadata  # napari drops it: the point of the test
        voxel = (4, 1, 5)  # in the file's own order
        lit = np.zeros(SHAPE, bool)
        lit[voxel] = True
        mask.data_setitem(np.nonzero(grids.grid_of(image).shown(lit)), 3)
        saved = tmp_path / "mask.nii.gz"
        images.write(saved, layers.volume_of(mask, viewer.layers))
        truth, found = nibabel.load(path), nibabel.load(saved)
        assert (found.affine == truth.affine).all() and found.shape == truth.shape
        assert np.argwhere(np.asarray(found.dataobj)).tolist() == [list(voxel)]
        assert found.header["sform_code"] == 4 and found.header["qform_code"] == 1
        assert found.header.get_xyzt_units() == ("mm", "msec")


def _middle(layer):
    return np.array(layer.data_to_world((np.array(layer.data.shape) - 1) / 2))


def test_every_array_is_a_view(nifti_file):
    volume = read(nifti_file(affine=affine_for("SPL", tilt=9)))
    layer = Layer.create(*layers.to_layer(volume))
    assert np.shares_memory(layer.data, volume.data)
    assert np.shares_memory(layers.volume_of(layer).data, volume.data)


def test_duplicates_and_conversions_keep_the_grid(nifti_file):
    viewer = ViewerModel()
    image = viewer.add_layer(Layer.create(*layers.to_layer(read(nifti_file(affine=affine_for("PSR", tilt=12))))))
    viewer.layers.selection.active = image
    _duplicate_layer(viewer.layers)
    copy = viewer.layers[-1]
    del viewer.layers[image.name]
    assert copy is not image and grids.grid_of(copy).source == grids.grid_of(image).source


def test_a_cropped_layer_is_not_taken_for_the_file(nifti_file):
    layer = Layer.create(*layers.to_layer(read(nifti_file())))
    layer.data = layer.data[1:]
    assert grids.grid_of(layer).kind == ""


def test_another_place_is_another_grid(nifti_file):
    image = Layer.create(*layers.to_layer(read(nifti_file(affine=affine_for("RAS")))))
    for change in ({"translate": image.translate + 1}, {"scale": image.scale * 2}, {"rotate": 30}):
        placed = {"scale": image.scale, "translate": image.translate, **change}
        mask = Labels(np.zeros(image.data.shape, np.uint8), **placed)
        assert grids.grid_of(mask, [image]).kind == "", change


class TestWithoutAFile:
    def test_a_stack_runs_down_back_and_left(self):
        data = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
        layer = Image(data, scale=(3, 2, 1), translate=(30, 20, 10))
        volume = layers.volume_of(layer)
        assert volume.shape == (3, 4, 2) and volume.spacing == (2, 1, 3) and volume.orientation == "PLI"
        assert np.shares_memory(volume.data, data)
        for z, y, x in np.ndindex(data.shape):
            assert volume.data[y, x, z] == data[z, y, x]
            assert np.allclose(volume.affine @ (y, x, z, 1), (-10 - x, -20 - 2 * y, -30 - 3 * z, 1))

    def test_microns_become_millimetres(self):
        layer = Image(np.zeros((2, 3, 4), np.uint8), scale=(500, 250, 250), units=("um",) * 3)
        assert np.allclose(layers.volume_of(layer).spacing, (0.25, 0.25, 0.5))

    def test_a_saved_stack_comes_back_in_the_same_place(self, tmp_path):
        layer = Labels(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), scale=(3, 2, 1), translate=(30, 20, 10))
        images.write(tmp_path / "stack.nii", layers.volume_of(layer))
        again = Layer.create(*layers.to_layer(read(tmp_path / "stack.nii"), "labels"))
        assert np.array_equal(again.data, layer.data)
        assert np.allclose(again.scale, layer.scale) and np.allclose(again.translate, layer.translate)

    def test_pictures_are_what_the_engine_reads(self, tmp_path, rng):
        from PIL import Image as Picture

        for shape in ((40, 50), (40, 50, 3), (40, 50, 4)):  # napari takes smaller ones for stacks
            pixels = rng.integers(0, 255, shape, dtype=np.uint8)
            Picture.fromarray(pixels).save(tmp_path / "picture.png")
            truth, found = images.read(tmp_path / "picture.png"), layers.volume_of(Image(pixels))
            assert np.array_equal(found.data, truth.data) and (found.affine == truth.affine).all()
            assert found.shape_on_disk[:2] == truth.shape_on_disk[:2]

    def test_a_stack_of_pictures_is_seen_as_pictures_by_a_model_of_pictures(self, rng):
        stack = rng.integers(0, 255, (4, 8, 9), dtype=np.uint8)
        volume = layers.volume_of(Image(stack), pictures=True)
        assert volume.orientation == layers.volume_of(Image(stack[0])).orientation == "RAS"
        assert np.array_equal(volume.data[..., 2], stack[2])

    def test_more_than_four_axes_are_refused_by_name(self):
        with pytest.raises(UNetError, match="layer 'odd'.*5 axes"):
            grids.grid_of(Image(np.zeros((2, 2, 2, 2, 2)), name="odd"))

    def test_pyramids_and_lazy_arrays_give_their_finest_level(self, rng):
        import dask.array

        data = rng.integers(0, 9, (4, 8, 8), dtype=np.uint8)
        for layer in (Image([data, data[:, ::2, ::2]], multiscale=True), Image(dask.array.from_array(data))):
            assert np.array_equal(layers.volume_of(layer).data, data.transpose(1, 2, 0))


class TestMoreAxes:
    def test_time_leads_with_its_unit(self, nifti_file, rng):
        data = rng.random((*SHAPE, 3)).astype(np.float32)
        path = nifti_file(data=data, affine=affine_for("ASL"), units=("mm", "msec"))
        raw = nibabel.load(path)
        raw.header["pixdim"][4] = 250
        nibabel.save(raw, path)
        volume = read(path)
        layer = Layer.create(*layers.to_layer(volume))
        assert layer.data.shape == (3, 6, 5, 7)
        assert layer.scale[0] == 250 and layer.axis_labels == ("t", "I", "P", "L")
        assert [str(unit) for unit in layer.units] == ["millisecond", "millimeter", "millimeter", "millimeter"]
        assert np.array_equal(layers.volume_of(layer).data, volume.data)
        assert layers.channels_of(layer) == 3

    def test_a_mask_of_a_series_is_one_volume(self, nifti_file, rng, tmp_path):
        volume = read(nifti_file(data=rng.random((*SHAPE, 3)).astype(np.float32), affine=affine_for("ASL", tilt=5)))
        image = Layer.create(*layers.to_layer(volume))
        grid = grids.grid_of(image)
        mask = layers.new_labels(image, grid, np.zeros(grid.layer_shape, np.uint8), "mask")
        images.write(tmp_path / "mask.nii.gz", layers.volume_of(mask))
        found = nibabel.load(tmp_path / "mask.nii.gz")
        assert found.shape == SHAPE and np.allclose(found.affine, volume.affine)
        mask.metadata.clear()
        assert grids.grid_of(mask, [image]).header is grid.header and grid.own and not grids.grid_of(mask, [image]).own

    def test_colours_stay_colours(self, tmp_path, rng):
        pixels = rng.integers(0, 255, (*SHAPE, 3), dtype=np.uint8)
        rgb = np.ascontiguousarray(pixels).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
        nibabel.save(nibabel.Nifti1Image(rgb, affine_for("LPS")), tmp_path / "colour.nii")
        layer = Layer.create(*layers.to_layer(read(tmp_path / "colour.nii")))
        assert layer.rgb and layer.ndim == 3
        assert np.array_equal(layers.volume_of(layer).data, pixels)

    def test_a_flat_file_stays_flat(self, nifti_file, rng, tmp_path):
        path = nifti_file(data=rng.integers(0, 9, (8, 9), dtype=np.uint8), affine=affine_for("LPS"))
        layer = Layer.create(*layers.to_layer(read(path), "labels"))
        images.write(tmp_path / "flat.nii.gz", layers.volume_of(layer))
        assert nibabel.load(tmp_path / "flat.nii.gz").shape == (8, 9)


class TestTheScreen:
    @pytest.mark.parametrize("orientation", ["RAS", "LPI", "SAR", "PIL"])
    @pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
    def test_the_slice_on_the_canvas_is_found_in_the_volume(self, nifti_file, orientation, order):
        viewer = ViewerModel()
        volume = read(nifti_file(affine=affine_for(orientation)))
        layer = viewer.add_layer(Layer.create(*layers.to_layer(volume)))
        viewer.dims.order = order
        viewer.dims.set_current_step(order[0], 3)
        axis, index = screen.slice_on_screen(viewer, layer, grids.grid_of(layer))
        shown = np.take(layer.data, 3, order[0])
        assert sorted(np.take(volume.data, index, axis).ravel()) == sorted(shown.ravel())

    @pytest.mark.parametrize(("plane", "hidden", "down", "right"), [
        ("Axial", "I", "P", "L"), ("Coronal", "P", "I", "L"), ("Sagittal", "L", "I", "P"),
    ])  # fmt: skip
    def test_planes_stand_upright(self, nifti_file, rng, plane, hidden, down, right):
        viewer = ViewerModel()
        series = read(nifti_file(data=rng.random((*SHAPE, 2)).astype(np.float32), affine=affine_for("RSP")))
        viewer.add_layer(Layer.create(*layers.to_layer(series)))
        viewer.dims.ndisplay = 3
        show_plane(viewer, plane)
        assert [viewer.dims.axis_labels[axis] for axis in viewer.dims.order] == ["t", hidden, down, right]
        assert viewer.dims.ndisplay == 2

    def test_there_is_none_in_3d_and_for_pictures(self, nifti_file):
        viewer = ViewerModel()
        layer = viewer.add_layer(Layer.create(*layers.to_layer(read(nifti_file()))))
        viewer.dims.ndisplay = 3
        assert screen.slice_on_screen(viewer, layer, grids.grid_of(layer)) is None
        picture = Image(np.zeros((4, 4)))
        assert screen.slice_on_screen(ViewerModel(), picture, grids.grid_of(picture)) is None

    def test_the_volume_on_the_canvas_is_found_in_a_series(self, nifti_file, rng):
        viewer = ViewerModel()
        series = read(nifti_file(data=rng.random((*SHAPE, 4)).astype(np.float32)))
        layer = viewer.add_layer(Layer.create(*layers.to_layer(series)))
        viewer.dims.set_current_step(0, 2)
        assert screen.step_on_screen(viewer, layer) == 2


def test_a_tilt_is_worth_a_note(nifti_file):
    assert layers.notes_on(read(nifti_file(affine=affine_for("RAS", tilt=20))))[-1].startswith("tilted by")
    assert layers.notes_on(read(nifti_file(affine=affine_for("RAS")))) == []


def test_volumes_without_a_header_find_their_way_too(rng):
    volume = Volume(rng.random((3, 4, 5)), affine_for("IRP"), source="made here")
    assert np.array_equal(layers.volume_of(Layer.create(*layers.to_layer(volume))).data, volume.data)


@pytest.mark.parametrize("other", ["um", "pixel", "mm", "m"])
def test_the_slice_on_the_screen_is_found_beside_layers_of_other_units(viewer_model, nifti_file, other):
    """napari's world is in the smallest unit of all layers."""
    layer = viewer_model.add_layer(Layer.create(*layers.to_layer(images.read(nifti_file()))))
    viewer_model.add_image(np.zeros((4, 5, 6)), units=(other,) * 3)
    grid = grids.grid_of(layer)
    for axis in range(3):
        viewer_model.dims.order = (axis, *(a for a in range(3) if a != axis))
        for index in range(layer.data.shape[axis]):
            screen.show_slice(viewer_model, layer, axis, index)
            seen = layer._slice.image.raw
            assert np.array_equal(seen, layer.data.take(index, axis)), "what napari shows"
            assert screen.slice_index(viewer_model, layer, axis) == index and screen.is_on_screen(viewer_model, layer)
            source, number = screen.slice_on_screen(viewer_model, layer, grid)
            assert source == grid.reorientation.axes[axis]
            assert number == grid.reorientation.region(axis, index, index + 1, grid.shape)[source].start


def test_indices_are_numpy_s(rng):
    some = np.zeros((9, 5, 7), bool)
    some[3:5, 2:4] = rng.random((2, 2, 7)) < 0.5
    for changed in (some, some[:, 3], some.transpose(2, 0, 1), np.zeros((3, 4), bool), some[4, 3], np.array(True)[None], ~some):
        assert [each.tolist() for each in layers.indices(changed)] == [each.tolist() for each in np.nonzero(changed)]


@pytest.mark.parametrize("spacing", [0.3, 0.7, 0.9, 1.2, 5.0])
@pytest.mark.parametrize("shift", [0.5, 7.5, -3.5])
def test_half_way_between_two_slices_it_is_the_one_that_napari_draws(viewer_model, spacing, shift):
    """As beside a second scan that lies half a slice away."""
    numbered = np.broadcast_to(np.arange(20, dtype=np.float32)[:, None, None], (20, 4, 4)).copy()
    pair = [viewer_model.add_image(numbered, scale=(spacing, 1, 1), translate=(by * spacing, 0, 0)) for by in (0, shift)]
    seen = 0
    for step in range(viewer_model.dims.nsteps[0]):
        viewer_model.dims.set_current_step(0, step)
        for layer in pair:
            if screen.is_on_screen(viewer_model, layer):
                assert screen.slice_index(viewer_model, layer, 0) == layer._slice.image.raw[0, 0], (step, layer.name)
                seen += 1
    assert seen >= 30


def test_a_layer_of_nanometres_that_lies_beside_another_is_not_on_its_grid(nifti_file):
    place = {"units": ("nm",) * 3, "scale": (4, 4, 4)}
    image = Image(np.zeros((5, 6, 7)), **place, metadata={grids.KEY: grids.grid_of(Image(np.zeros((5, 6, 7)), **place))})
    image.metadata[grids.KEY] = replace(image.metadata[grids.KEY], kind="image", source="a.nii.gz")
    for shift, kind in ((0, "image"), (1e-4, "image"), (4, ""), (40, "")):
        mask = Labels(np.zeros((5, 6, 7), np.uint8), **place, translate=(shift, 0, 0))
        assert grids.grid_of(mask, [image]).kind == kind, shift


@pytest.mark.parametrize("how", ["split", "projected", "merged"])
def test_a_part_of_a_series_and_several_files_together_are_not_the_file(viewer_model, nifti_file, rng, how):
    """napari hands the metadata on, and says nothing of where they come from."""
    series = [nifti_file(f"{n}.nii.gz", data=rng.integers(0, 9, (5, 6, 7, 3)[: 4 - (how == "merged")]).astype(np.int16)) for n in range(2)]
    opened = [viewer_model.add_layer(Layer.create(*layers.to_layer(images.read(path)))) for path in series]
    viewer_model.layers.selection = set(opened) if how == "merged" else {opened[0]}
    action = {"split": _split_stack, "projected": partial(_project, mode="max"), "merged": _merge_stack}[how]
    action(viewer_model.layers)
    made = [layer for layer in viewer_model.layers if layer not in opened]
    assert made and all(not grids.grid_of(layer).own for layer in made)
    for layer in made:
        with pytest.raises(UNetError, match="Choose another name"):
            writer.save(series[0], layer, list(viewer_model.layers))

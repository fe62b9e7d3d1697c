"""Where the pointer is, from which side the patient is seen, and through which window."""

from __future__ import annotations

import dask.array
import nibabel
import numpy as np
import pytest
from hostile import ORIENTATIONS, affine_for
from napari.layers import Image, Layer

from napari_unet import images
from napari_unet.viewer import layers, looking
from napari_unet.viewer.looking import ViewTab
from napari_unet.viewer.planes import PlaneButtons


def shown(viewer, path, kind="image"):
    return viewer.add_layer(Layer.create(*layers.to_layer(images.read(path), kind)))


@pytest.mark.parametrize("orientation", ORIENTATIONS[::5])
def test_the_pointer_s_place_is_the_file_s(viewer_model, nifti_file, rng, orientation):
    path = nifti_file(affine=affine_for(orientation, tilt=17))
    layer, image = shown(viewer_model, path), nibabel.load(path)
    for _ in range(5):
        index = tuple(int(rng.integers(n)) for n in layer.data.shape)
        viewer_model.cursor.position = tuple(layer.data_to_world(index))
        words = looking.where(viewer_model, layer)
        voxel = tuple(int(n) for n in words.split("voxel ")[1].split("   ")[0].split(", "))
        told = [float(words.split(f"{letter} ")[1].split()[0]) for letter in "RAS"]
        assert np.allclose(told, nibabel.affines.apply_affine(image.affine, voxel), atol=0.051)
        assert words.endswith(f"scan: {image.dataobj[voxel]}") and layer.data[index] == image.dataobj[voxel]


def test_a_mask_s_class_is_told_by_name(viewer_model, nifti_file):
    layer = shown(viewer_model, nifti_file("seg.nii", data=np.ones((4, 5, 6), np.uint8)), "labels")
    layer.features = {"index": [0, 1], "class": ["background", "liver"]}
    viewer_model.cursor.position = tuple(layer.data_to_world((1, 1, 1)))
    assert looking.where(viewer_model, layer).endswith("seg: liver")


def test_a_long_name_leaves_room_for_the_value(viewer_model, nifti_file):
    layer = shown(viewer_model, nifti_file("patient_0012_session_03_run_2_reconstruction_T1.nii", data=np.full((4, 5, 6), 7, np.uint8)))
    viewer_model.cursor.position = tuple(layer.data_to_world((1, 1, 1)))
    words = looking.where(viewer_model, layer)
    assert words.endswith("nstruction_T1: 7") and len(words) < 90


def test_nothing_is_said_beside_the_volume_and_of_layers_without_a_file(viewer_model, nifti_file):
    layer = shown(viewer_model, nifti_file())
    viewer_model.cursor.position = (1e4, 0, 0)
    assert looking.where(viewer_model, layer) == ""
    assert looking.where(viewer_model, viewer_model.add_image(np.zeros((4, 5, 6)))) == ""


@pytest.fixture
def tab(qtbot, viewer_model):
    tab = ViewTab(viewer_model)
    qtbot.addWidget(tab)
    return tab


def test_a_window_is_level_and_width(tab):
    image = Image(np.linspace(-1024, 3000, 1000).reshape(10, 10, 10))
    tab.show_layers(image, None)
    for preset in tab._windows[:-1]:
        preset.click()
        level, width = looking.WINDOWS[preset.text()]
        assert image.contrast_limits == [level - width / 2, level + width / 2]
    tab._windows[-1].click()
    assert np.allclose(image.contrast_limits, (-1024 + 20, 3000 - 20), atol=5)


def test_an_image_of_nothing_has_a_window_too(tab):
    for fill in (np.nan, 7.0):
        image = Image(np.full((4, 4, 4), fill))
        tab.show_layers(image, None)
        tab._windows[-1].click()
        assert image.contrast_limits[0] < image.contrast_limits[1]


@pytest.mark.parametrize("series", [(), (30,)])
def test_a_lazy_image_is_not_read_whole_for_its_window(tab, series):
    seen, slices = [], 40

    def read(block_info=None):
        where = [low for low, _ in block_info[None]["array-location"]]
        seen.append(tuple(where))
        return np.full((1,) * (len(series) + 1) + (8, 9), 100.0 * where[len(series)])

    chunks = (*((1,) * size for size in (*series, slices)), 8, 9)
    image = Image(dask.array.map_blocks(read, chunks=chunks, dtype=float), cache=False, contrast_limits=(0, 1))
    tab.show_layers(image, None)
    seen.clear()
    tab._windows[-1].click()
    assert len(seen) == len(set(seen)) == 5 ** (1 + len(series)), f"of {slices * 30 ** len(series)} chunks"
    low, high = image.contrast_limits
    assert 0 <= low < 1000 and 3000 < high < 4000, "it is told from slices all over the image"


def test_the_window_of_a_pyramid_is_that_of_its_coarsest_level(tab):
    fine = np.full((8, 8, 8), 1e6)
    tab.show_layers(Image([fine, np.arange(64.0).reshape(4, 4, 4)], multiscale=True, contrast_limits=(0, 1)), None)
    tab._windows[-1].click()
    assert np.allclose(tab._image.contrast_limits, (0, 63), atol=1)


def test_neurological_and_back(tab, viewer_model):
    before = viewer_model.scene.camera.orientation2d
    for column, right in ((2, "left"), (1, "right")):
        tab._sides.button(column).click()
        assert viewer_model.scene.camera.orientation2d == (before[0], right)


@pytest.mark.gui
def test_the_patient_s_right_changes_sides_on_the_screen(make_napari_viewer, qtbot, tmp_path):
    """A blob at the patient's right, in a real window."""
    data = np.zeros((40, 40, 40), np.uint8)
    data[30:38, 15:25, 15:25] = 200
    path = tmp_path / "blob.nii"
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), path)  # i grows to the right
    viewer = make_napari_viewer(show=True)
    shown(viewer, path)
    viewer.dims.set_current_step(0, 20)
    for neurological in (False, True):
        looking.set_side(viewer, neurological)
        qtbot.wait(200)
        picture = viewer.screenshot(canvas_only=True, flash=False)[..., 0].astype(float)
        middle = (picture.sum(0) * np.arange(picture.shape[1])).sum() / picture.sum()
        assert (middle > picture.shape[1] / 2) == neurological


def test_the_mask_in_3d(tab, viewer_model):
    image, other = (viewer_model.add_image(np.zeros((4, 5, 6))) for _ in range(2))
    other.visible = False
    mask = viewer_model.add_labels(np.ones((4, 5, 6), np.uint8))
    tab.show_layers(image, mask)
    tab._solid.click()
    assert viewer_model.dims.ndisplay == 3 and not image.visible and mask.visible
    viewer_model.dims.ndisplay = 2
    assert image.visible and not other.visible


@pytest.mark.gui
@pytest.mark.parametrize("how", ["napari's button", "the same plane", "another plane"])
def test_slices_are_shown_as_before_when_3d_is_left(window, qtbot, how):
    viewer, widget = window(show=True)
    viewer.add_labels(np.ones((2, 40, 50, 60), np.uint8))
    tab, planes = widget._view, widget.findChild(PlaneButtons)
    viewer.dims.set_current_step((0, 1), (0, 7))
    viewer.scene.camera.zoom, viewer.scene.camera.center = 3.0, (0.0, 20.0, 31.0)
    before = viewer.scene.camera.zoom, viewer.scene.camera.center, viewer.dims.current_step[1]
    for _ in range(2):  # a second time in 3-D
        tab._solid.click()
    viewer.dims.set_current_step(0, 1)
    viewer.scene.camera.zoom *= 1.5
    if how == "napari's button":
        viewer.dims.ndisplay = 2
    else:
        planes._buttons["Axial" if how == "the same plane" else "Coronal"].click()
    qtbot.wait(50)
    assert viewer.dims.current_step[0] == 1, "the slider of the series was there all the time"
    if how == "another plane":  # which napari fits to the canvas itself
        planes._buttons["Axial"].click()
        assert viewer.dims.current_step[1] == 7
    else:
        assert (viewer.scene.camera.zoom, viewer.scene.camera.center, viewer.dims.current_step[1]) == before
    viewer.dims.ndisplay = 3  # napari's own: nothing of ours is put back
    viewer.reset_view()
    zoom = viewer.scene.camera.zoom
    viewer.dims.ndisplay = 2
    assert viewer.scene.camera.zoom == zoom


@pytest.mark.gui
def test_a_picture_has_no_planes(window):
    viewer, widget = window()
    buttons = widget.findChild(PlaneButtons)._buttons.values()
    picture = viewer.add_image(np.zeros((40, 50)))
    assert not any(button.isEnabled() or button.isChecked() for button in buttons)
    volume = viewer.add_image(np.zeros((30, 40, 50)))
    assert all(button.isEnabled() for button in buttons) and [button.isChecked() for button in buttons] == [True, False, False]
    viewer.layers.remove(volume)
    assert picture in viewer.layers and not any(button.isEnabled() for button in buttons)

"""File > Open Sample > Hippocampus: asked for, downloaded from a real server, cancelled, offline; in a real window, with clicks."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import PATIENCE, PLUGIN
from hostile import affine_for
from napari.layers import Image, Labels
from qtpy.QtCore import QThreadPool, QTimer
from qtpy.QtWidgets import QApplication, QLabel

from napari_unet import images
from napari_unet.downloads import HIPPOCAMPUS
from napari_unet.viewer.download import DownloadDialog
from napari_unet.viewer.layers import volume_of
from napari_unet.viewer.saving import proposal

SCAN, MASK = (f"{HIPPOCAMPUS.folder}/{folder}/hippocampus_001.nii.gz" for folder in ("imagesTr", "labelsTr"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "napari-unet"


@pytest.fixture
def archive(nifti_file, rng):
    """A .tar as the Decathlon's, of one scan."""
    scan = nifti_file("scan.nii.gz", affine=affine_for("LPI"))
    mask = nifti_file("mask.nii.gz", data=rng.integers(0, 3, nibabel.load(scan).shape).astype(np.uint8), affine=affine_for("LPI"))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(scan, SCAN)
        tar.add(mask, MASK)
    return out.getvalue()


def asked():
    """The dialog, while it is there."""
    return next((each for each in QApplication.topLevelWidgets() if isinstance(each, DownloadDialog) and each.isVisible()), None)


class Person:
    """Does one thing after the other in the dialog, each as soon as it can be done: (condition of the dialog, action)."""

    def __init__(self, *steps):
        self.steps, self.told = list(steps), []
        self.timer = QTimer(QApplication.instance())  # who lives as long as it is needed
        self.timer.timeout.connect(lambda: self.look())  # noqa: PLW0108 - of a bound method Qt would forget whose it is
        self.timer.start(20)

    def look(self):
        dialog = asked()
        if not self.steps:
            return self.timer.stop()
        if dialog is None:
            return
        self.told.append(dialog.state.text())
        condition, action = self.steps[0]
        if condition(dialog):
            self.steps.pop(0)
            action(dialog)


def at_once(dialog):
    return True


def download(dialog):
    dialog.start.click()


def cancel(dialog):
    dialog.cancel.click()


def opened(viewer, url, content):
    return viewer.open_sample(PLUGIN, "hippocampus", url=url, md5=hashlib.md5(content).hexdigest())


@pytest.mark.gui
class TestInAWindow:
    def test_it_is_shown_whose_it_is_and_then_it_is_there(self, make_napari_viewer, cache, archive, serve):
        viewer, about = make_napari_viewer(show=True), []
        person = Person((at_once, lambda dialog: about.extend(label.text() for label in dialog.findChildren(QLabel))), (at_once, download))
        image, mask = opened(viewer, serve(archive), archive)
        assert not person.steps and asked() is None
        words = " ".join(about)
        for needed in ("CC-BY-SA 4.0", "Vanderbilt University Medical Center", "Simpson", "medicaldecathlon.com", str(cache)):
            assert needed in words
        assert isinstance(image, Image) and isinstance(mask, Labels) and mask.name == "hippocampus_001 mask"
        assert np.array_equal(volume_of(image).data, images.read(cache / SCAN).data)
        assert np.array_equal(volume_of(mask).data, nibabel.load(cache / MASK).dataobj)
        assert list(mask.features["class"]) == ["background", "Anterior", "Posterior"]
        assert not proposal(mask).is_relative_to(cache) and [path.name for path in cache.iterdir()] == [HIPPOCAMPUS.folder]
        viewer.layers.clear()
        assert len(opened(viewer, "http://127.0.0.1:9/nobody", archive)) == 2  # from the cache, without a question

    def test_cancel_before_and_during_leaves_nothing(self, make_napari_viewer, qtbot, cache, archive, serve):
        viewer, gate = make_napari_viewer(show=True), threading.Event()
        Person((at_once, cancel))
        assert opened(viewer, serve(archive), archive) == [] and not cache.exists()
        person = Person((at_once, download), (lambda dialog: dialog.bar.value() >= 1024, cancel))
        assert opened(viewer, serve(archive, held_after=1024, gate=gate), archive) == [] and not person.steps
        assert any("MB" in words for words in person.told) and not viewer.layers
        gate.set()
        QThreadPool.globalInstance().waitForDone(PATIENCE)
        qtbot.wait(50)
        assert not list(cache.iterdir())

    def test_offline_it_says_so_in_one_sentence_and_can_be_tried_again(self, make_napari_viewer, cache, archive, serve):
        viewer, sentence = make_napari_viewer(show=True), []

        def failed(dialog):
            return dialog.start.text() == "Try again"

        def read(dialog):
            sentence.append(dialog.state.text())
            dialog._data = type(dialog._data)(**{**vars(dialog._data), "url": serve(archive)})  # the network is back
            dialog.start.click()

        Person((at_once, download), (failed, read))
        found = opened(viewer, "http://127.0.0.1:9/nobody", archive)
        assert sentence[0].startswith("Hippocampus: cannot be downloaded from 127.0.0.1:9 (") and "need none." in sentence[0]
        assert len(found) == 2

    def test_a_lost_connection_leaves_nothing(self, make_napari_viewer, cache, archive, serve):
        viewer, sentence = make_napari_viewer(show=True), []
        failed = (lambda dialog: dialog.start.text() == "Try again", lambda dialog: sentence.append(dialog.state.text()))
        Person((at_once, download), failed, (at_once, cancel))
        assert opened(viewer, serve(archive, lost_after=2000), archive) == []
        assert "the connection was lost after 2,000 of" in sentence[0] and not list(cache.iterdir())

    def test_the_menu_offers_it(self, make_napari_viewer):
        viewer = make_napari_viewer()
        menu = viewer.window._qt_window.findChildren(type(viewer.window.file_menu))
        titles = [action.text() for each in menu for action in each.actions()]
        assert any(title.startswith("Hippocampus (MRI)") for title in titles), titles


def test_the_folder_is_the_system_s_for_caches(cache):
    from platformdirs import user_cache_path

    assert user_cache_path("napari-unet", appauthor=False) == Path(cache)

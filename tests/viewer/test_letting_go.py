"""What is done with goes from memory, though napari keeps every worker as long as its window. Real windows, real threads."""

from __future__ import annotations

import gc
import threading
import tracemalloc
import weakref

import numpy as np
import pytest
from napari.layers import Layer

from napari_unet.viewer import recovery, worker
from napari_unet.viewer.reader import read
from napari_unet.viewer.saving import Keeper

PATIENCE = 20_000  # ms


class Heavy:
    """Something that weak references know."""


def silent(*_):
    pass


@pytest.mark.gui
def test_a_function_s_arguments(make_napari_viewer, qtbot):
    make_napari_viewer()
    heavy, over = Heavy(), []
    seen = weakref.ref(heavy)
    worker.in_thread(silent, heavy, _connect={"errored": worker.show, "finished": lambda: over.append(True)})
    del heavy
    qtbot.waitUntil(lambda: bool(over), timeout=PATIENCE)
    qtbot.waitUntil(lambda: gc.collect() >= 0 and seen() is None, timeout=PATIENCE)


@pytest.mark.gui
@pytest.mark.parametrize("way", ["to its end", "stopped", "before it began", "failing"])
def test_a_generator_s_arguments(make_napari_viewer, qtbot, way):
    make_napari_viewer()
    heavy, over, go_on = Heavy(), [], threading.Event()
    seen = weakref.ref(heavy)

    def work(held):
        yield held is None
        go_on.wait(10)
        if way == "failing":
            raise ValueError("broken")
        yield 2

    def end(_=None):
        over.append(True)

    made = worker.start(work, heavy, what="Testing", yielded=silent, returned=end, errored=end, aborted=end)
    if way == "before it began":
        made.quit()
    elif way == "stopped":
        qtbot.wait(200)
        made.quit()
    go_on.set()
    del heavy, made
    qtbot.waitUntil(lambda: bool(over), timeout=PATIENCE)
    qtbot.waitUntil(lambda: gc.collect() >= 0 and seen() is None, timeout=PATIENCE)


@pytest.mark.gui
def test_a_widget_s_model_goes_with_it_and_with_the_choice_of_another(window, model_file, nifti_file, qtbot):
    viewer, widget = window(show=True)
    viewer.add_layer(Layer.create(*read(str(nifti_file()))[0]))
    loaded = []

    def loads(change):
        """The engine keeps another segmenter after it."""
        before = widget._engine._segmenter
        change()
        qtbot.waitUntil(lambda: widget._engine._segmenter not in (None, before), timeout=PATIENCE)
        qtbot.waitUntil(lambda: widget._panel.cost.text().startswith("Takes"), timeout=PATIENCE)
        loaded.append(weakref.ref(widget._engine._segmenter))

    loads(lambda: widget.add_model(model_file("one")))
    loads(lambda: widget.add_model(model_file("two")))
    loads(lambda: widget._advanced.windows.setCurrentIndex(1))
    *former, last = loaded
    qtbot.waitUntil(lambda: gc.collect() >= 0 and not any(each() for each in former), timeout=PATIENCE)
    assert last() is not None
    engine = weakref.ref(widget._engine)
    viewer.window.remove_dock_widget(widget)
    widget = None
    qtbot.waitUntil(lambda: gc.collect() >= 0 and engine() is None and last() is None, timeout=PATIENCE)


@pytest.mark.gui
def test_masks_that_were_kept(make_napari_viewer, qtbot):
    """A copy was written; it is needed no more."""
    viewer = make_napari_viewer()
    made = Keeper(viewer)
    qtbot.addWidget(made)
    masks = [viewer.add_labels(np.ones((20, 200, 200), np.uint8)) for _ in range(2)]

    def keep():
        made.keep()
        qtbot.waitUntil(lambda: not made._writing, timeout=PATIENCE)
        gc.collect()

    keep()
    tracemalloc.start()
    try:
        for n in range(4):
            masks[0].data[n] = 2
            keep()
        assert tracemalloc.get_traced_memory()[0] < masks[0].data.nbytes
    finally:
        tracemalloc.stop()
        made.close_session()


@pytest.mark.parametrize("lies", [lambda data: data, lambda data: data[::-1, :, ::-1].transpose(1, 0, 2)])
@pytest.mark.parametrize("shape", [(20, 64, 128), (5, 7, 9)])
def test_an_unchanged_mask_is_not_copied_to_be_looked_at(viewer_model, lies, shape):
    """Each edit in place is noticed, in whichever way the mask lies in memory."""
    data = lies(np.zeros(shape, np.uint8))
    data[2, 3:5, 4:6] = 2
    layer, session = viewer_model.add_labels(data), recovery.Session()
    assert layer.data is data or layer.data.strides == data.strides
    session.keep(layer, [])()
    tracemalloc.start()
    try:
        assert session.keep(layer, []) is None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < max(data.nbytes / 4, 16_384)
    for where in ((0, 0, 0), (2, 3, 4), (-1, -1, -1)):
        layer.data[where] += 1
        write = session.keep(layer, [])
        assert write is not None
        write()
        assert session.keep(layer, []) is None
    held = layer.data[2, 3].copy()
    layer.data[2, 3], layer.data[1, 1] = layer.data[1, 1], held  # the same values elsewhere
    assert session.keep(layer, []) is not None
    layer.data = layer.data[::-1]  # the same memory, seen in another way
    assert session.keep(layer, []) is not None
    session.close()


def test_an_emptied_mask_is_written_and_an_empty_one_is_nobody_s(viewer_model):
    layer, session = viewer_model.add_labels(np.zeros((9, 8, 7), np.uint8)), recovery.Session()
    assert session.keep(layer, []) is None
    layer.data[3] = 1
    session.keep(layer, [])()
    layer.data[:] = 0
    session.keep(layer, [])()
    session.close()
    (found,) = recovery.left_behind()
    assert not found.layer().data.any()

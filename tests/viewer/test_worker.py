"""Long work reports its end, whatever that is. Real threads; no window is needed."""

from __future__ import annotations

import threading

import pytest
import torch
from napari.utils.notifications import notification_manager

from napari_unet.errors import UNetError
from napari_unet.viewer import worker


class Heard:
    """Everything that a worker says, in order."""

    def __init__(self):
        self.said = []

    def start(self, qtbot, work, until):
        thread = worker.start(
            work, what="Testing", yielded=lambda step: self.said.append(("step", step)),
            returned=lambda result: self.said.append(("result", result)),
            errored=lambda error: self.said.append(("error", error)), aborted=lambda: self.said.append(("abort", None)),
        )  # fmt: skip
        qtbot.waitUntil(lambda: any(kind == until for kind, _ in self.said), timeout=10_000)
        qtbot.waitUntil(lambda: not thread.is_running, timeout=10_000)
        return self.said


def test_steps_and_a_result(qtbot):
    def work():
        yield 1
        yield 2
        return "all"

    assert Heard().start(qtbot, work, "result") == [("step", 1), ("step", 2), ("result", "all")]


def out_of_memory():
    raise MemoryError


def unlike_shapes():
    return torch.ones(2) @ torch.ones(3)


def damaged():
    raise UNetError("scan.nii", "the field dim[1] is 0", "Fetch it again")


def our_own_fault():
    return {}["nothing"]


@pytest.mark.parametrize(("fault", "expected", "words"), [
    (unlike_shapes, UNetError, "Testing: inconsistent tensor size"), (out_of_memory, UNetError, "memory does not suffice"),
    (damaged, UNetError, "scan.nii: the field dim"), (our_own_fault, KeyError, "nothing"),
])  # fmt: skip
def test_errors_surface(qtbot, fault, expected, words):
    def work():
        yield 1
        fault()

    (_, (kind, error)) = Heard().start(qtbot, work, "error")
    assert kind == "error" and type(error) is expected and words in str(error)
    worker.show(error)
    assert words in notification_manager.records[-1].message


def test_only_the_first_line_of_a_foreign_message_is_shown():
    def work():
        raise RuntimeError("Weights only load failed.\nSet weights_only=False if you trust the file.")
        yield

    with pytest.raises(UNetError) as caught:
        list(worker.guarded(work(), "Loading"))
    assert "weights_only" not in str(caught.value)


def test_it_can_be_told_to_quit(qtbot):
    said = []

    def work():
        yield from range(10_000)

    def on_step(step):
        said.append(step)
        thread.quit()

    thread = worker.start(work, what="Testing", yielded=on_step, returned=said.append, errored=said.append,
                          aborted=lambda: said.append("aborted"))  # fmt: skip
    qtbot.waitUntil(lambda: "aborted" in said, timeout=10_000)
    assert len(said) < 10_000 and said[-1] == "aborted" and all(isinstance(each, int) for each in said[:-1])


@pytest.mark.parametrize("asks", [False, True])
def test_work_that_ends_by_itself_after_it_was_told_to_quit_says_so_as_well(qtbot, asks):
    """napari says nothing then; whoever waits for the end would wait for ever."""
    said, at_the_last_step = [], threading.Event()

    def work(stopped=None):
        at_the_last_step.set()
        while not (stopped() if stopped else quitting.is_set()):
            threading.Event().wait(0.001)
        return "all"
        yield

    quitting = threading.Event()
    thread = worker.start(work, what="Testing", yielded=said.append, returned=said.append, errored=said.append,
                          aborted=lambda: said.append("aborted"), stoppable=asks)  # fmt: skip
    qtbot.waitUntil(at_the_last_step.is_set, timeout=10_000)
    thread.quit()
    quitting.set()
    qtbot.waitUntil(lambda: bool(said), timeout=10_000)
    qtbot.waitUntil(lambda: not thread.is_running, timeout=10_000)
    qtbot.wait(20)
    assert said == ["aborted"]


def test_what_it_held_is_let_go_when_it_quits(qtbot):
    """At once, in its own thread, while the worker is still referred to."""
    released, over = [], []

    def work():
        try:
            yield from range(10_000)
        finally:
            released.append(threading.current_thread() is threading.main_thread())

    thread = worker.start(work, what="Testing", yielded=lambda _: thread.quit(), returned=over.append, errored=over.append,
                          aborted=lambda: over.append(list(released)))  # fmt: skip
    qtbot.waitUntil(lambda: bool(over), timeout=10_000)
    assert released == [False]

"""Long work: a generator of the engine in napari's worker thread, its errors in sight."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from napari.qt.threading import GeneratorWorker, create_worker
from napari.utils.notifications import notification_manager, show_error
from qtpy.QtCore import Qt

from napari_unet.errors import UNetError, first_line

T = TypeVar("T")
R = TypeVar("R")

# napari waits as its event loop ends; a script that runs none ends under its threads, which abort it when they find Qt's objects gone
atexit.register(GeneratorWorker.await_workers)


def start(
    work: Callable[..., Generator[T, None, R]],
    *arguments: Any,
    what: str,
    yielded: Callable[[T], object],
    returned: Callable[[R], object],
    errored: Callable[[Exception], object],
    aborted: Callable[[], object],
    quiet: bool = False,
    stoppable: bool = False,
) -> GeneratorWorker:
    """Run `work(*arguments)` in a thread; the callbacks are called in the viewer's.

    `what` names the work in the viewer's list of activities and in errors. Exactly one of `returned`, `errored` and
    `aborted` comes last. The worker's `quit()`, which napari calls too when its window is closed, aborts the work after
    the step under way: keep steps short, or take `stopped` and ask it in their midst (`stoppable`). `quiet` work is too short for
    that list.
    """
    # the list's bar only tells that something is going on: with a number, each update would run the event loop within
    # the callback that reports it, and the next callbacks within that
    todo = guarded(work(*arguments, **{"stopped": lambda: made.abort_requested} if stoppable else {}), what)
    said_its_end = threading.Event()

    def steps() -> Generator[T, None, R]:
        return (yield from todo)

    def let_go() -> None:
        todo.close()

    def end_is_said(_: object = None) -> None:
        said_its_end.set()

    def say_its_end() -> None:
        if not said_its_end.is_set() and (worker := reference()) is not None:
            worker.aborted.emit()

    made = ready(
        steps,
        _progress=False if quiet else {"total": 0, "desc": what},
        _connect={"yielded": yielded, "returned": returned, "errored": errored, "aborted": aborted},
    )
    # what the work holds (a temporary file, windows in flight) is let go at once and in its own thread; napari leaves that to chance
    made.aborted.connect(let_go, Qt.ConnectionType.DirectConnection)
    # work that comes to its end after it was told to quit has neither returned nor aborted, says napari
    for signal in (made.returned, made.errored, made.aborted):
        signal.connect(end_is_said, Qt.ConnectionType.DirectConnection)
    reference = weakref.ref(made)  # what Qt calls holds on to nothing that holds on to it
    made.finished.connect(say_its_end, Qt.ConnectionType.DirectConnection)
    made.start()
    return made


def in_thread(work: Callable[..., Any], *arguments: Any, _connect: dict[str, Callable[..., object]]) -> Any:
    """A function in a thread of its own, started: a napari worker.

    napari keeps every worker, with its function and arguments, as long as its window: they are given for one call, which takes them.
    """
    todo = [(work, arguments)]

    def once() -> Any:
        function, given = todo.pop()
        return function(*given)

    made = ready(once, _connect=_connect)
    made.start()
    return made


def ready(work: Callable[..., Any], *arguments: Any, _connect: dict[str, Callable[..., object]], **options: Any) -> Any:
    """napari's `create_worker` for work whose errors are heard, not yet started.

    napari hears of errors, too, with a function that has no place for one; PySide6 puts a TypeError about it before the person.
    """
    made = create_worker(work, *arguments, _connect=_connect, _start_thread=False, **options)
    made.errored.disconnect()
    made.errored.connect(_connect["errored"])
    return made


def guarded(work: Generator[T, None, R], what: str) -> Generator[T, None, R]:
    """The same steps; errors that napari's worker would swallow (RuntimeError) or word badly become UNetErrors.

    Only the first line of a foreign message is shown: torch's go on with advice to switch its safety off.
    """
    try:
        return (yield from work)
    except MemoryError as error:
        raise UNetError(what, "the memory does not suffice", "Close other programs, or crop the image") from error
    except RuntimeError as error:
        raise UNetError(what, first_line(error), "Try a smaller image; if it stays, report it") from error


def show(error: Exception) -> None:
    """An error as napari's notification: a UNetError's sentence; anything else, which is a fault of ours, with its origin."""
    if isinstance(error, UNetError):
        show_error(str(error))
    else:
        notification_manager.receive_error(type(error), error, error.__traceback__)

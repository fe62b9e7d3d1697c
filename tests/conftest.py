"""What every test may ask for: the public data sets, a display, and a server."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import settings

HAS_DISPLAY = not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY"))
if not HAS_DISPLAY:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")  # without it Qt aborts the whole run at the first widget

pytest.register_assert_rewrite("runs")  # so that it tells what differs
settings.register_profile("shared", deadline=None)  # machines are shared: how long an example takes says nothing
settings.load_profile("shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what opens a napari window where no window can be opened."""
    if HAS_DISPLAY and os.environ.get("QT_QPA_PLATFORM") != "offscreen":
        return
    for item in items:
        if item.get_closest_marker("gui"):
            item.add_marker(pytest.mark.skip(reason="no display: run it with xvfb-run, as `make test` does"))


@pytest.fixture(autouse=True)
def _gradients_are_on() -> Iterator[None]:
    """Also after a test that interrupts torch on purpose, at a line at which it leaves them off."""
    yield
    if hasattr(torch := sys.modules.get("torch"), "set_grad_enabled"):
        torch.set_grad_enabled(True)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public data sets; where there is none, the test is skipped."""
    folder = os.environ.get("NAPARI_UNET_DATA")
    if not folder:
        pytest.skip("NAPARI_UNET_DATA is not set: it names the folder of public data sets that this test reads")
    return Path(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scans whose classes are 1 bright and 2 dark, in the MRI channel."""
    from datasets import decathlon

    return decathlon(tmp_path_factory.mktemp("data"), 4)


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serves bytes under an address on this machine, which it gives back.

    lost_after : of a connection that is lost, how many bytes come; held_after : how many come before `gate` is set;
    announced : whether their number is told first.
    """
    servers: list[ThreadingHTTPServer] = []

    def make(
        content: bytes, *, lost_after: int | None = None, status: int = 200, announced: bool = True,
        held_after: int = 0, gate: threading.Event | None = None,
    ) -> str:  # fmt: skip
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                if announced:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if gate is not None:
                    self.wfile.write(content[:held_after])
                    gate.wait()
                self.wfile.write(content[held_after:lost_after])

            def log_message(self, *_: object) -> None:
                """In silence."""

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}/data.tar"

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()

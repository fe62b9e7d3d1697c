"""Downloading a public data set: what it is and whose, how far it is, and a way back at any time."""

from __future__ import annotations

from html import escape
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QApplication,
    QDialog,
    QDialogButtonBox,
    QLabel,
    QMainWindow,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_unet.downloads import Download, fetch
from napari_unet.errors import UNetError
from napari_unet.viewer import worker
from napari_unet.viewer.parts import text

WIDTH = 540  # pixels
LINK = "color: #4a90d9"  # can be read in the dark theme and in the light one


def ask_for(data: Download, into: Path) -> Path | None:
    """The data set's folder, downloaded if the person agrees; None where not. Raises UNetError where nobody can be asked."""
    if (into / data.folder).is_dir():
        return into / data.folder
    if QApplication.instance() is None:
        raise UNetError(data.name, f"it is not in {into} yet", "Open it in napari's window, which asks before it downloads")
    windows = (each for each in QApplication.topLevelWidgets() if isinstance(each, QMainWindow) and each.isVisible())
    dialog = DownloadDialog(data, into, QApplication.activeWindow() or next(windows, None))
    dialog.exec()
    dialog.deleteLater()
    return dialog.folder


class DownloadDialog(QDialog):
    """Shows the licence, downloads when told to, and ends with `folder`, or without one."""

    def __init__(self, data: Download, into: Path, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.folder: Path | None = None
        self._data, self._into = data, into
        self._worker: worker.GeneratorWorker | None = None
        self.setWindowTitle(f"Download {data.name}")
        self._about = QLabel(_about(data, into))
        self._about.setWordWrap(True)
        self._about.setFixedWidth(WIDTH)
        self._about.setTextInteractionFlags(Qt.TextInteractionFlag.TextBrowserInteraction)
        self._about.setOpenExternalLinks(True)
        self.bar, self.state = QProgressBar(), text("")
        self.bar.setTextVisible(False)
        policy = self.bar.sizePolicy()
        policy.setRetainSizeWhenHidden(True)  # nothing moves when it begins
        self.bar.setSizePolicy(policy)
        self.bar.setVisible(False)
        self.state.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.start = QPushButton("Download")
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        buttons.addButton(self.start, QDialogButtonBox.ButtonRole.ActionRole)
        self.cancel = buttons.button(QDialogButtonBox.StandardButton.Cancel)
        self.start.clicked.connect(self._begin)
        buttons.rejected.connect(self.reject)
        column = QVBoxLayout(self)
        column.setSpacing(10)
        for part in (self._about, self.bar, self.state, buttons):
            column.addWidget(part)

    def showEvent(self, event: QShowEvent) -> None:
        """In napari's own font, which it has now, wrapped labels are as high as they look; a fault takes up to four lines."""
        super().showEvent(event)
        self._about.setFixedHeight(self._about.heightForWidth(WIDTH))
        self.state.setFixedHeight(4 * self.state.fontMetrics().lineSpacing())

    def done(self, result: int) -> None:
        """Whichever way it ends: a download under way stops, and leaves nothing."""
        if self._worker is not None:
            self._worker.quit()
        super().done(result)

    def _begin(self) -> None:
        self.start.setEnabled(False)
        self.bar.setRange(0, 0)
        self.bar.setVisible(True)
        self.state.setText("Connecting…")
        self._worker = worker.start(
            fetch, self._data, self._into, what=f"Downloading {self._data.name}", yielded=self._progress,
            returned=self._finish, errored=self._fail, aborted=self._stop, quiet=True,
        )  # fmt: skip

    def _progress(self, come: tuple[int, int]) -> None:
        done, total = come
        self.bar.setRange(0, total)  # without a total it only moves
        self.bar.setValue(done)
        of = f" of {total / 1e6:.0f}" if total else ""
        self.state.setText("Unpacking…" if total and done >= total else f"{done / 1e6:.0f}{of} MB")

    def _finish(self, folder: Path) -> None:
        self._worker, self.folder = None, folder
        self.accept()

    def _fail(self, error: Exception) -> None:
        """One sentence, and another try."""
        self._worker = None
        self.bar.setVisible(False)
        self.state.setText(str(error))
        self.start.setText("Try again")
        self.start.setEnabled(True)
        if not isinstance(error, UNetError):
            worker.show(error)

    def _stop(self) -> None:
        """napari may have stopped it: its window closes."""
        self._worker = None
        self.reject()


def _about(data: Download, into: Path) -> str:
    """What a person has to know before agreeing."""
    rows = {
        "Authors": escape(data.authors),
        "Licence": f"{_link(data.licence_url, data.licence)}: name the authors, and share what you make of it alike",
        "Source": _link(data.source, data.source),
        "Download": f"{data.megabytes} MB from {escape(data.url.split('/')[2])}",
        "Kept in": escape(str(into / data.folder)),
    }
    lines = "".join(f"<tr><td style='padding-right: 8px'>{name}</td><td>{value}</td></tr>" for name, value in rows.items())
    return f"<p>{escape(data.description)}.</p><table cellspacing='0' cellpadding='2'>{lines}</table>"


def _link(address: str, words: str) -> str:
    return f"<a style='{LINK}' href='{escape(address)}'>{escape(words)}</a>"

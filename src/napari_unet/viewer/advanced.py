"""How the model runs, for those who ask; the model decides what is left alone."""

from __future__ import annotations

import os

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QLabel, QSpinBox, QWidget

from napari_unet.running import DEVICES, PRECISIONS, RUNTIMES
from napari_unet.viewer.options import Options
from napari_unet.viewer.parts import combo_box

OVERLAPS = {"as the model says": None, "0.25 (fast)": 0.25, "0.5": 0.5, "0.75 (smooth)": 0.75}
WINDOWS = {"several at once": None, "one at a time": 1}
MIRRORING = {"as the model says": None, "off": False, "on": True}


class AdvancedForm(QWidget):
    """Device, runtime, precision, threads, windows, mirroring, largest component, uncertainty."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        preferred = Options.preferred()
        self.device = combo_box(("auto", *DEVICES), "Where the model runs; auto takes the fastest there is")
        self.device.setCurrentText(preferred.device)
        self.runtime = combo_box(("auto", *RUNTIMES), "What runs it there; auto takes the fastest there is")
        self.runtime.setCurrentText(preferred.runtime)
        self.precision = combo_box(PRECISIONS, "int8 is faster, for models that napari-unet calibrate wrote; by OpenVINO")
        self.place = QLabel()
        self.place.setToolTip("Where the chosen model is loaded")
        self.threads = QSpinBox()
        self.threads.setRange(0, os.cpu_count() or 1)
        self.threads.setValue(preferred.threads)
        self.threads.setSpecialValueText("all")
        self.threads.setToolTip("Threads of the processor")
        self.overlap = combo_box(OVERLAPS, "How much of a window the next one sees again: more is smoother and slower")
        self.windows = combo_box(WINDOWS, "How many windows are in memory at once: one at a time needs the least memory and takes longer")
        self.mirror = combo_box(MIRRORING, "Average over mirrored copies: slower, sometimes better")
        self.largest = QCheckBox("as the model says")
        self.largest.setChecked(True)
        self.largest.setToolTip("Of some classes keep the largest connected part only; off keeps everything")
        self.uncertainty = QCheckBox("beside the mask")
        self.uncertainty.setToolTip("A layer of how unsure the model is; Correct > Check next leads through it")
        form = QFormLayout(self)
        form.setContentsMargins(4, 8, 4, 4)
        rows = {
            "Device": self.device, "Runtime": self.runtime, "Precision": self.precision, "Runs on": self.place,
            "Threads": self.threads, "Overlap": self.overlap, "Windows": self.windows, "Mirroring": self.mirror,
            "Largest part": self.largest, "Uncertainty": self.uncertainty,
        }  # fmt: skip
        for name, field in rows.items():
            form.addRow(name, field)
        for combo in (self.device, self.runtime, self.precision, self.overlap, self.windows, self.mirror):
            combo.currentIndexChanged.connect(lambda _: self.changed.emit())
        for box in (self.largest, self.uncertainty):
            box.toggled.connect(lambda _: self.changed.emit())
        self.threads.valueChanged.connect(lambda _: self.changed.emit())

    def suit(self, calibrated: bool) -> None:
        """Offer what the chosen model can."""
        self.precision.setEnabled(calibrated)
        if not calibrated:
            self.precision.setCurrentIndex(0)

    def options(self) -> Options:
        """What is chosen."""
        return Options(
            self.device.currentText(), self.runtime.currentText(), self.threads.value(), MIRRORING[self.mirror.currentText()],
            OVERLAPS[self.overlap.currentText()], self.uncertainty.isChecked(), self.largest.isChecked(),
            self.precision.currentText(), WINDOWS[self.windows.currentText()],
        )  # fmt: skip

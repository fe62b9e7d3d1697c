"""What a person reads after training: curves, scores with their spread, overlays of the best and worst cases."""

from __future__ import annotations

import base64
import csv
import html
import io
import math
import warnings
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from napari_unet import nifti
from napari_unet.cases import Case, read_image, read_label
from napari_unet.errors import UNetError
from napari_unet.evaluate import Score, read_scores, summary
from napari_unet.files import write_bytes
from napari_unet.record import LOG, MASKS, RECORD, SCORES, Record
from napari_unet.schema import decode
from napari_unet.spec import ModelSpec
from napari_unet.volume import Reorientation, Volume

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#222}
h1{margin-bottom:0}h2{margin-top:2em}img{max-width:100%}table{border-collapse:collapse}
td,th{padding:.25em .9em;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}
code{background:#f3f3f3;padding:.15em .4em;border-radius:3px}.note{color:#666}"""


def write_report(run: str | Path) -> tuple[Path, Path]:
    """Write RUN/report.html, which needs no other file, and RUN/report.png; their paths.

    Everything comes from the run's own files and the images that its run.json names. Raises UNetError where one of
    them cannot be read.
    """
    run = Path(run)
    if not (run / RECORD).exists():
        raise UNetError(run, f"no {RECORD} in it", "Give the folder of a training run")
    record = decode(Record, (run / RECORD).read_bytes(), str(run / RECORD))
    scores = read_scores(run / SCORES) if (run / SCORES).exists() else []
    log = _read_log(run / LOG)
    picture = _png(_figure(record, scores, log, run))
    page = _page(record, scores, base64.b64encode(picture).decode())
    write_bytes(run / "report.png", picture)
    write_bytes(run / "report.html", page.encode())
    return run / "report.html", run / "report.png"


def _read_log(path: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) pairs of each column that has values."""
    rows = list(csv.DictReader(path.read_text("utf-8").splitlines())) if path.exists() else []
    return {name: [(int(row["step"]), float(row[name])) for row in rows if row[name]] for name in ("loss", "rate", "dice")}


def _ranked(scores: list[Score]) -> list[tuple[str, float]]:
    """Cases and their mean Dice, worst first; NaN where neither mask has anything."""
    values: dict[str, list[float]] = {}
    for s in scores:
        values.setdefault(s.case, []).extend([] if s.dice is None else [s.dice])
    return sorted([(case, fmean(known) if known else math.nan) for case, known in values.items()], key=_worst_first)


def _worst_first(pair: tuple[str, float]) -> tuple[bool, float]:
    """Cases in which there is nothing to find, and nothing was found, come last."""
    return math.isnan(pair[1]), pair[1]


def _figure(record: Record, scores: list[Score], log: dict[str, list[tuple[int, float]]], run: Path) -> Figure:
    ranked = [pair for pair in _ranked(scores) if not math.isnan(pair[1])]
    shown = [*ranked[:2], *ranked[-2:]] if len(ranked) > 3 else ranked
    figure = Figure(figsize=(12, 4 + 3.4 * bool(shown)), layout="constrained")
    top, *bottom = figure.subfigures(2 if shown else 1, 1, squeeze=False)[:, 0]
    curves, bars = top.subplots(1, 2)
    _draw_curves(curves, log)
    _draw_scores(bars, scores, record.spec)
    if shown:
        axes = bottom[0].subplots(1, len(shown), squeeze=False)[0]
        for axis, (case, dice) in zip(axes, shown, strict=True):
            known = Case(case, tuple(map(Path, record.images[case])), Path(record.labels[case]), record.parts.get(case))
            image = read_image(known)
            draw_overlay(axis, image, nifti.read_labels(run / MASKS / f"{case}.nii.gz"), read_label(known, image), record.spec)
            axis.set_title(f"{case[:40]}: {dice:.3f}", fontsize=9, parse_math=False)
        bottom[0].suptitle("Worst and best cases, with their Dice: filled = model, outlined = truth", fontsize=10)
    return figure


def _draw_curves(axis: Axes, log: dict[str, list[tuple[int, float]]]) -> None:
    axis.set_title("Training")
    axis.plot(*zip(*log["loss"], strict=True), color="0.75", linewidth=0.8) if log["loss"] else None
    if len(log["loss"]) > 20:
        steps, loss = np.array(log["loss"]).T
        width = len(loss) // 20 + 1
        axis.plot(np.convolve(steps, np.ones(width) / width, "valid"), np.convolve(loss, np.ones(width) / width, "valid"),
                  color="tab:blue", label="loss (smoothed)")  # fmt: skip
    axis.set_xlabel("step")
    axis.set_ylabel("loss")
    if log["dice"]:
        other = axis.twinx()
        other.plot(*zip(*log["dice"], strict=True), "o-", color="tab:green", label="Dice, some kept-out cases")
        other.set_ylim(0, 1)
        other.set_ylabel("Dice")
        other.legend(loc="center right", fontsize=8)


def _draw_scores(axis: Axes, scores: list[Score], spec: ModelSpec) -> None:
    axis.set_title("Dice per case")
    axis.set_ylim(0, 1.02)
    random = np.random.default_rng(0)
    for n, label in enumerate(spec.labels):
        values = [s.dice for s in scores if s.label == label.value and s.dice is not None]
        if values:
            axis.plot(n + random.uniform(-0.15, 0.15, len(values)), values, "o", color=label.colour, markersize=4, alpha=0.6)
            axis.hlines(np.mean(values), n - 0.3, n + 0.3, color="black")
            axis.text(n + 0.32, float(np.mean(values)), f"{np.mean(values):.3f}", va="center", fontsize=9)
    axis.set_xticks(range(len(spec.labels)), [label.name[:30] for label in spec.labels], parse_math=False)
    axis.set_xlim(-0.6, len(spec.labels) - 0.2)
    axis.grid(axis="y", color="0.9")


def draw_overlay(axis: Axes, image: Volume, mask: Volume, truth: Volume | None, spec: ModelSpec) -> None:
    """The slice with most of the structures, front up and the patient's right on the left; the truth as outlines."""
    turn = Reorientation.between(image.affine, "SRA" if spec.pictures else "IPL")
    stack = [turn.apply(v.data) for v in (image, mask) if v is not None]
    picture, filled = stack[0][..., 0] if stack[0].ndim == 4 else stack[0], stack[1]
    outline = turn.apply(truth.data) if truth is not None else filled
    k = int(np.argmax((outline > 0).sum(axis=(1, 2))))
    spacing = [image.spacing[a] for a in turn.axes]
    low, high = np.percentile(picture[k], (1, 99.5))
    axis.imshow(picture[k], cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=spacing[1] / spacing[2])
    values = [label.value for label in spec.labels]
    colours = ListedColormap([(0, 0, 0, 0), *[_rgba(label.colour, 0.45) for label in spec.labels]])
    axis.imshow(_index(filled[k], values), cmap=colours, vmin=0, vmax=len(values), interpolation="nearest",
                aspect=spacing[1] / spacing[2])  # fmt: skip
    for label in spec.labels:
        if (outline[k] == label.value).any() and min(outline[k].shape) > 1:
            axis.contour(outline[k] == label.value, [0.5], colors=[label.colour], linewidths=1.2)
    axis.set_axis_off()


def _index(mask: NDArray[Any], values: list[int]) -> NDArray[np.intp]:
    return np.sum([(mask == value) * (n + 1) for n, value in enumerate(values)], axis=0)  # type: ignore[no-any-return]


def _rgba(colour: str, alpha: float) -> tuple[float, float, float, float]:
    return int(colour[1:3], 16) / 255, int(colour[3:5], 16) / 255, int(colour[5:7], 16) / 255, alpha


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the font lacks some languages; the page has every name in full
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _page(record: Record, scores: list[Score], picture: str) -> str:
    """One self-contained HTML page."""
    spec, card, split = record.spec, record.card, record.split
    text = html.escape
    worth = f"scored on {card.worth}" if card.cases_scored else (
        "not scored: no case was kept out of training; train once more with --folds, into another folder, for an honest score"
    )  # fmt: skip
    facts = "".join(f"<li>{text(reason)}</li>" for reason in record.reasons)
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{text(spec.name)}</title><style>{STYLE}</style>
<h1>{text(spec.name)}</h1><p class="note">{card.created} &middot; {len(split.training)} training cases &middot;
{record.schedule.steps:,} steps &middot; {worth}</p>
<img alt="training curves, scores and overlays" src="data:image/png;base64,{picture}">
<h2>Scores</h2>{_summary_table(scores, spec)}<h2>Cases, worst first</h2>{_case_table(scores, spec)}
<h2>How it was planned</h2><ul>{facts}</ul>
<h2>Make it again</h2><p><code>{text(card.command or "see run.json")}</code></p>
<p class="note">Data: {text(card.data or "not stated")}. Versions: {text(", ".join(f"{k} {v}" for k, v in card.versions.items()))}.
Not a medical device.</p></html>"""


def _summary_table(scores: list[Score], spec: ModelSpec) -> str:
    names = {str(label.value): label.name for label in spec.labels}
    rows = "".join(
        f"<tr><td>{html.escape(names.get(key, key))}</td><td>{_number(row['dice'])}</td>"
        f"<td>{_number(row['spread'])}</td><td>{row['n']}</td></tr>"
        for key, row in summary(scores).items()
    )
    return f"<table><tr><th>class</th><th>mean Dice</th><th>spread</th><th>cases</th></tr>{rows}</table>" if scores else "None."


def _case_table(scores: list[Score], spec: ModelSpec) -> str:
    head = "".join(f"<th>{html.escape(label.name)}</th><th>ml (truth)</th>" for label in spec.labels)
    rows = []
    for case, _ in _ranked(scores):
        found = {s.label: s for s in scores if s.case == case}
        cells = "".join(
            f"<td>{_number(s.dice)}</td><td>{s.ml:.2f} ({s.reference_ml:.2f})</td>" if s else "<td></td><td></td>"
            for s in (found.get(label.value) for label in spec.labels)
        )
        rows.append(f"<tr><td>{html.escape(case)}</td>{cells}</tr>")
    return f"<table><tr><th>case</th>{head}</tr>{''.join(rows)}</table>"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"

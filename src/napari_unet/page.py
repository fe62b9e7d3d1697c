"""The report as one HTML page: no file beside it, no script; every name in it is escaped."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from napari_unet.charts import curves, scale, strip
from napari_unet.errors import UNetError
from napari_unet.evaluate import Score, confidence
from napari_unet.figures import Slice, overlay
from napari_unet.layout import RECORD, SCORES
from napari_unet.results import BEST, WORST, Results
from napari_unet.spec import Label, ModelSpec
from napari_unet.words import counted, listed

FEW_CLASSES = 4  # get columns of their own in the table of cases
FEW_CASES = 25  # are listed at once
GREY = "#444444"


def page(results: Results, slices: Mapping[str, Slice | UNetError]) -> str:
    """The page, with a figure of each case in `slices`."""
    name, created = _text(results.record.spec.name), _text(results.record.card.created)
    style = Path(__file__).with_name("report.css").read_text("utf-8")
    private = "The page shows slices of the scored images: treat it as you treat them." if slices else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{name}: training report</title><style>{style}</style></head><body>
<header><p class="kicker">Training report{created and f" &middot; {created}"}</p><h1>{name}</h1>
<p class="verdict">{_verdict(results)}</p><p>{_worth(results)}</p></header>
{_tiles(results)}
{_classes(results)}
{_cases(results, list(slices))}
{_pictures(results, slices)}
{_learning(results)}
{_making(results)}
<footer>Made with napari-unet. Not a medical device. {private}</footer></body></html>
"""


# what it is worth


def _verdict(results: Results) -> str:
    """What the model does and how well, in one sentence."""
    spec, means = results.record.spec, results.means
    kind = "pictures" if spec.pictures else "volumes"
    channels = f" of {len(spec.channels)} channels" if len(spec.channels) > 1 else ""
    finds = f"Segments {_text(listed([label.name for label in spec.labels], 5))} in {kind}{channels}"
    if not means:
        return f"{finds}; how well is not known."
    how = {"kept out": " kept out of training", "by folds": ", each scored by a model that had not seen it",
           "halves": f", {'each ' if len(means) > 1 else ''}scored by a model that saw only the other half",
           "on itself": " that it was trained on: not independent", "not": ""}[results.scored]  # fmt: skip
    within = f' (95 % interval <span class="whole">{_interval(means)}</span>)' if len(means) > 1 else ""
    cases = counted(len(means), "case")
    if results.scored == "halves":
        cases = "the halves of one volume" if len(means) > 1 else "a half of one volume"
    return f"{finds} with a mean Dice of <strong>{fmean(means):.3f}</strong>{within} over {cases}{how}."


def _worth(results: Results) -> str:
    """What the score is worth, in words."""
    if results.scored == "not" and results.record.split.kept_out:
        return "The run was stopped before it was scored: go on with <code>--resume</code>."
    if results.scored == "not":
        return ("It was trained on all cases and none was kept out, so none is left to score it on. Segment cases that it "
                "has not seen, and compare the masks with <code>napari-unet evaluate</code>, or train a model per part of the "
                "cases, each scored on the part that it never saw: <code>--folds</code>.")  # fmt: skip
    if results.scored == "on itself":
        return ("The score says how well the training case was learnt by heart, not how well others will be segmented. "
                "Label a second case to learn that.")  # fmt: skip
    parent = results.record.card.parent
    seen = "Training never saw these cases." if parent is None else (
        f"This training never saw these cases; whether {html.escape(parent.name)}, which it began with, had seen them is not known here.")
    if results.scored == "by folds":
        seen = ("Each of these models was trained without the cases that it scored. They share most of their cases with one "
                "another, so the interval is rather too narrow.")  # fmt: skip
    if results.scored == "halves":
        which = "Each half" if len(results.means) > 1 else "The half"
        return f"{which} was scored by a model that saw only the other one: other scans may be harder."
    if len(results.means) < 2:
        return f"{seen} From a single case nothing follows for the next one."
    few = " With so few cases it is a first impression." if len(results.means) < 5 else ""
    return (f"{seen} The interval is about the mean: where it would lie over many more cases of the same kind, with 95 % "
            "confidence. A single case may lie anywhere between the worst and the best below, and other scanners, protocols "
            f"or patients may do worse.{few}")  # fmt: skip


def _tiles(results: Results) -> str:
    record, means = results.record, results.means
    tiles = {
        "mean Dice": f"{fmean(means):.3f}" if means else "n/a", "cases scored": len(results.ranked),
        "cases trained on": len(record.split.training), "classes": len(record.spec.labels),
        "network": record.spec.kind, "steps": f"{record.schedule.steps:,}",
    }  # fmt: skip
    return f'<dl class="tiles">{"".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in tiles.items())}</dl>'


# scores


def _classes(results: Results) -> str:
    """Per class and over all: mean, interval, spread, extremes, and every case as a dot."""
    if not results.scores:
        return ""
    dice = [(s.label, s.dice) for s in results.scores if s.dice is not None]
    known = {label: [value for of, value in dice if of == label.value] for label in results.record.spec.labels}
    low = min([math.floor(value * 10) / 10 for values in known.values() for value in values] + [0.8])
    rows = [_class_row(_named(label), label.colour, values, low) for label, values in known.items()]
    rows += [_class_row(f"{_swatch(GREY)}mean of classes", GREY, results.means, low)] if len(rows) > 1 else []
    head = ("class", "mean Dice", "95 % interval", "spread", "min", "max", "cases", scale(low))
    return f"""<section><h2>Scores per class</h2>{_table(head, rows, "classes")}
<p class="note">A dot is a case, the bar their mean, the band its interval; spread is the standard deviation. Dice is 1 where two masks
are alike and 0 where they have nothing in common; n/a where neither has the class.</p></section>"""


def _class_row(name: str, colour: str, values: list[float], low: float) -> list[str]:
    if not values:
        return [name, *["n/a"] * 5, "0", ""]
    numbers = [_number(fmean(values)), _interval(values) or "n/a", _number(stdev(values) if len(values) > 1 else None)]
    drawn = strip(values, confidence(values), colour, low, f"Dice of {counted(len(values), 'case')}")
    return [name, *numbers, _number(min(values)), _number(max(values)), str(len(values)), drawn]


def _interval(values: list[float]) -> str:
    found = confidence(values)
    return f"{max(0.0, found[0]):.3f}&ndash;{min(1.0, found[1]):.3f}" if found else ""


def _cases(results: Results, shown: list[str]) -> str:
    """Every case, the worst first; those with a picture lead to it."""
    if not results.scores:
        return ""
    spec = results.record.spec
    few = len(spec.labels) <= FEW_CLASSES
    head = ["case", "Dice", *([_named(label) for label in spec.labels] if few else ["lowest classes"])]
    rows = []
    for case, dice in results.ranked:
        name = f'<a href="#case-{shown.index(case)}">{_text(case)}</a>' if case in shown else _text(case)
        found = {s.label: s for s in results.scores if s.case == case}
        cells = [_cell(found.get(label.value)) for label in spec.labels] if few else [_lowest(found, spec)]
        rows.append([name, _number(None if math.isnan(dice) else dice), *cells])
    rest = rows[FEW_CASES:]
    more = f"<details><summary>{len(rest)} more</summary>{_table(head, rest, 'cases')}</details>" if rest else ""
    volumes = " In grey the mask's volume in ml, and the truth's in brackets." if few and not spec.pictures else ""
    return f"""<section><h2>Cases, worst first</h2><p class="note">{len(rows)} in all.{volumes} All numbers are in {SCORES}.</p>
{_table(head, rows[:FEW_CASES], "cases")}{more}</section>"""


def _cell(score: Score | None) -> str:
    if score is None:
        return ""
    if score.ml is None or score.reference_ml is None:
        return _number(score.dice)
    return f'{_number(score.dice)}<span class="note">{score.ml:.3g} ({score.reference_ml:.3g})</span>'


def _lowest(found: dict[int, Score], spec: ModelSpec) -> str:
    names = {label.value: label.name for label in spec.labels}
    values = sorted((s.dice, names.get(s.label, f"class {s.label}")) for s in found.values() if s.dice is not None)
    return _text(", ".join(f"{name} {dice:.2f}" for dice, name in values[:3]))


def _pictures(results: Results, slices: Mapping[str, Slice | UNetError]) -> str:
    if not slices:
        return ""
    labels, dice = results.record.spec.labels, dict(results.ranked)
    named = [_named(label) for label in labels[:12]] + [f"and {len(labels) - 12} more"] * (len(labels) > 12)
    legend = "".join(f"<li>{name}</li>" for name in named)
    figures = [_figure(n, case, dice[case], shown, results.record.spec) for n, (case, shown) in enumerate(slices.items())]
    title = "Every case in pictures" if len(slices) == len(results.means) else f"The {WORST} worst and the {BEST} best in pictures"
    return f"""<section><h2>{title}</h2><p class="note">Left: the slice in which model and truth disagree most. Right: the same slice,
or the part of it in the frame; filled is the model, outlined the truth.</p><ul class="legend">{legend}</ul>
<div class="figures">{"".join(figures)}</div></section>"""


def _figure(n: int, case: str, dice: float, shown: Slice | UNetError, spec: ModelSpec) -> str:
    """A case as a figure, or why it cannot be shown."""
    words = f"<b>{_text(case)}</b>Dice {dice:.3f}"
    if isinstance(shown, UNetError):
        words += f'<br><span class="note">Not shown: {_text(str(shown))}</span>'
        return f'<figure id="case-{n}"><figcaption>{words}</figcaption></figure>'
    picture = base64.b64encode(overlay(shown, spec)).decode()
    return f"""<figure id="case-{n}"><img alt="{_text(case)}: a slice, and the masks over it" src="data:image/jpeg;base64,{picture}">
<figcaption>{words} <span class="note">{shown.name}</span></figcaption></figure>"""


# how it came about


def _learning(results: Results) -> str:
    """Loss, rate and Dice over the steps; one line per fold."""
    loss, rate, dice = ([log[name] for log in results.logs] for name in ("loss", "rate", "dice"))
    last = max((points[-1][0] for points in loss), default=1.0)
    panels = {
        "Loss": curves(loss, last, "loss over steps", smooth=True),
        "Learning rate": curves(rate, last, "learning rate over steps"),
        "Dice of some kept-out cases": curves(dice, last, "Dice over steps", dots=True, unit=True),
    }
    shown = "".join(f"<figure><figcaption>{title}</figcaption>{drawn}</figure>" for title, drawn in panels.items())
    folds = f'<p class="note">{len(loss)} lines: one per fold.</p>' if len(loss) > 1 else ""
    return f'<section><h2>How it learnt</h2><div class="curves">{shown}</div>{folds}</section>'


def _making(results: Results) -> str:
    """The plan, the split, where the data is from, the network, and how to do it again."""
    record, card, spec, config = results.record, results.record.card, results.record.spec, results.record.config
    kept = "In turn kept out" if results.scored in ("by folds", "halves") else "Kept out"
    facts = {
        "About": _text(card.description), "Data": _text(card.data) or "not stated",
        "Its licence": _text(card.data_licence) or "not stated", "Trained on": counted(len(record.split.training), "case"),
        kept: _text(listed(record.split.kept_out, 40)) or "none",
        "Settings": f"{counted(record.schedule.steps, 'step')}, batch {config.batch}, "
                    f"highest rate {config.rate * record.schedule.haste:.2g}, augmentation {record.schedule.strength(config.augment):.2g}, "
                    f"dropout {record.schedule.dropout(config.dropout):.2g}, seed {config.seed}",
        "Versions": _text(", ".join(f"{name} {number}" for name, number in card.versions.items())),
    }  # fmt: skip
    terms = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items() if value)
    walk = spec.network.walk(spec.patch[3 - spec.network.dims :])
    levels = [[_text(name), " &times; ".join(map(str, size)), str(features)] for name, size, features in walk]
    command = " ".join(f"<span>{_text(part)}</span>" for part in (card.command or f"see {RECORD}").split(" "))
    return f"""<section><h2>How it was planned</h2>
<ul>{"".join(f"<li>{_text(reason)}</li>" for reason in record.reasons) or "<li>Not recorded.</li>"}</ul></section>
<section><h2>What went into it</h2><dl class="facts">{terms}</dl></section>
<section><h2>The way of a patch through the U-Net</h2>{_table(("level", "shape", "features"), levels, "walk")}</section>
<section><h2>Make it again</h2><pre><code>{command}</code></pre>
<p class="note">A click selects all of it.</p></section>"""


# words and cells


def _table(head: Sequence[str], rows: list[list[str]], kind: str) -> str:
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr><th>{row[0]}</th>{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>" for row in rows)
    return f'<div class="scroll"><table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _named(label: Label) -> str:
    return _swatch(label.colour) + _text(label.name)


def _swatch(colour: str) -> str:
    return f'<i class="swatch" style="background:{colour}"></i>'


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _text(words: str) -> str:
    return html.escape(words)

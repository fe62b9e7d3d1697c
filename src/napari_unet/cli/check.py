"""`napari-unet check`: every file of a data set is read, and every fault and every case listed."""

from __future__ import annotations

import argparse
import os
from collections.abc import Container
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_unet.cli.arguments import DATA, add_json, begin, new_table
from napari_unet.cli.terminal import Line, finish, say, say_table
from napari_unet.options import add_settings, rule_of
from napari_unet.settings import LabelRule
from napari_unet.words import counted, listed, shortened

ROWS = 12  # of cases that are shown without --all


def add_check(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    begin(parser, check, DATA)
    add_settings(parser, LabelRule)
    parser.add_argument("--all", action="store_true", help=f"show every case and finding, not the worst {ROWS} cases")
    parser.add_argument("--csv", metavar="FILE", help="write the table of cases as CSV")
    parser.add_argument("--overwrite", action="store_true", help="replace the CSV file if it exists")
    add_json(parser)


def check(arguments: argparse.Namespace) -> int:
    """The table of cases and the count of faults; 2 where there are errors."""
    from dataclasses import asdict

    from napari_unet.cases import find_cases
    from napari_unet.checks import refuse
    from napari_unet.survey import cells, table, write_table

    out = new_table(arguments.csv, arguments.overwrite, "--csv")
    dataset = find_cases(arguments.data, rule_of(arguments))
    reports = read_all(dataset, arguments.all)
    rows = table(dataset, reports)
    unit = "%" if any(report.facts and report.facts.picture for report in reports) else "ml"
    shown = rows if arguments.all else rows[:ROWS]
    say()
    say_table(cells(shown, dataset, unit))
    if len(shown) < len(rows):
        odd = sum(bool(row.level) for row in rows[ROWS:])
        say(f"... and {len(rows) - ROWS} more{f', of which {odd} have findings' if odd else ' without findings'} (--all shows them)")
    findings = [f for report in reports for f in report.findings]
    errors = sum(f.level == "error" for f in findings)
    say(f"\n{counted(len(dataset.cases), 'case')}, {counted(errors, 'error')}, {counted(len(findings) - errors, 'warning')}")
    if out:
        write_table(out, rows, dataset)
    told = [{"level": f.level, "where": f.where, "what": f.what, "remedy": f.remedy} for f in findings]
    finish(arguments, {"cases": len(dataset.cases), "errors": errors, "warnings": len(findings) - errors, "findings": told,
                       "table": [asdict(row) for row in rows], "labels": dataset.labels})  # fmt: skip
    if not errors:
        refuse(reports, arguments.data)  # what training would refuse of all cases together
    return 2 if errors else 0


def read_all(dataset: Any, everything: bool = False, needed: Container[str] | None = None) -> list[Any]:
    """Check every case, and say what was found as a table: errors first, what many files have in common in one row.

    needed : the cases of a run that goes on; they come first, for the others to be compared with, and no other has errors.
    """
    from napari_unet.checks import check, lenient
    from napari_unet.survey import survey

    line, reports = Line(), []
    if needed is not None:
        dataset = replace(dataset, cases=tuple(sorted(dataset.cases, key=lambda case: case.name not in needed)))
    for n, report in enumerate(check(dataset), 1):
        line.show(f"checking {n} of {len(dataset.cases)}: {shortened(report.case.name)}")
        reports.append(report)
    line.end()
    reports = survey(dataset, reports)
    if needed is not None:
        reports = lenient(reports, needed)
    groups: dict[tuple[str, ...], list[str]] = {}
    for f in sorted((f for report in reports for f in report.findings), key=lambda f: f.level):
        where = shortened(os.path.relpath(f.where, dataset.folder) if Path(f.where).exists() else Path(f.where).name)
        groups.setdefault((f.level, f"{f.what}. {f.remedy}.", where if everything else ""), []).append(where)
    say_table([(level, listed(files, 1), text)
               for (level, text, _), files in groups.items()])  # fmt: skip
    return reports

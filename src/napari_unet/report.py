"""What a person reads after training: a page that stands alone and can be sent to a colleague, and a picture."""

from __future__ import annotations

from pathlib import Path

from napari_unet.figures import Slice, overview, rendered
from napari_unet.files import write_bytes
from napari_unet.layout import REPORT
from napari_unet.page import page
from napari_unet.results import Results


def write_report(run: str | Path) -> tuple[Path, Path]:
    """Write RUN/report.html, which needs no other file, and RUN/report.png; their paths.

    Everything comes from the run's own files and the images that its run.json names; of a case whose files are gone the
    page says so. Raises UNetError where the record or the scores cannot be read.
    """
    results = Results.read(Path(run))
    slices = {case: results.slice_of(case) for case, _ in results.shown}
    few = results.shown if len(slices) < 4 else [*results.shown[:2], *results.shown[-2:]]
    titled = [(f"{case[:40]}: {dice:.3f}", found) for case, dice in few if isinstance(found := slices[case], Slice)]
    picture = rendered(overview(results.record.spec, results.scores, results.logs[:1], titled), "png")
    text = page(results, slices)
    html, png = (results.folder / name for name in REPORT)
    write_bytes(png, picture)
    write_bytes(html, text.encode())
    return html, png

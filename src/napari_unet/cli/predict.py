"""`napari-unet predict`: masks of images, each on its image's own grid."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from napari_unet.cli.arguments import MODEL, add_command, add_json
from napari_unet.cli.terminal import Line, finish, say, tell
from napari_unet.errors import UNetError

WRITABLE = (".nii", ".nii.gz", ".png", ".tif", ".tiff")


def add_predict(commands: Any) -> None:
    """Its arguments."""
    images = ("inputs", "+", "files or folders; case_0000, case_0001 are channels")
    parser = add_command(commands, "predict", predict, "Segment images.", MODEL, images)
    parser.add_argument("--out", required=True, help="a file for one image, a folder for several")
    parser.add_argument("--overwrite", action="store_true", help="replace masks that exist")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--volume", type=int, help="which volume of 4-D images to segment, from 0")
    parser.add_argument("--uncertainty", action="store_true",
                        help="write NAME_uncertainty.nii.gz, too: 0 sure to 1 not, by the members' disagreement or the entropy of one")
    parser.add_argument("--mirror", action=argparse.BooleanOptionalAction, help="average over mirrored copies (default: the model's)")
    parser.add_argument("--threads", type=int, help="threads of torch; 1 is fastest for small networks on a busy machine")
    add_json(parser)


def predict(arguments: argparse.Namespace) -> int:
    """A mask for each image; 1 where some could not be segmented, 2 where none could."""
    from napari_unet.cases import find_images
    from napari_unet.ensemble import files_of

    files_of(arguments.model)  # refused before the long imports
    cases = find_images(arguments.inputs)
    targets = _targets(cases, Path(arguments.out), arguments.overwrite, arguments.uncertainty)

    from napari_unet.segment import Segmenter
    from napari_unet.speed import threads

    failed, done, line = [], [], Line()
    with threads(arguments.threads):
        segmenter = Segmenter.load(arguments.model, device=arguments.device, mirror=arguments.mirror, uncertainty=arguments.uncertainty)
        for n, (case, target) in enumerate(zip(cases, targets, strict=True), 1):
            try:
                _segment(segmenter, case, target, arguments.volume, f"{n} of {len(cases)}: {case.name}", line)
                done.append(str(target))
            except UNetError as error:
                if len(cases) == 1:
                    raise
                failed.append({"case": case.name, "error": str(error)})
    line.end()
    for failure in failed:
        tell(f"napari-unet: {failure['error']}")
    say(f"{len(done)} masks in {arguments.out}" + (f", {len(failed)} cases failed" if failed else ""))
    finish(arguments, {"masks": done, "failed": failed})
    return 0 if not failed else 1 if done else 2


def _uncertainty_beside(mask: Path) -> Path:
    from napari_unet import nifti

    return mask.with_name(f"{nifti.stem(mask)}_uncertainty.nii.gz")


def _targets(cases: list[Any], out: Path, overwrite: bool, uncertainty: bool) -> list[Path]:
    """Where each mask goes; refused before any work where it would replace something, and always over an input."""
    from napari_unet import files, nifti, pictures

    single = nifti.suffix(out) != "" and not out.is_dir()
    if single and len(cases) > 1:
        raise UNetError(out, f"one file for {len(cases)} images", "Give a folder")
    if single and nifti.suffix(out) not in WRITABLE:
        raise UNetError(out, f"no mask can be written as {nifti.suffix(out)}", f"Use one of {' '.join(WRITABLE)}")
    endings = [".png" if nifti.suffix(case.images[0]) in pictures.SUFFIXES else ".nii.gz" for case in cases]
    targets = [out] if single else [out / f"{case.name}{ending}" for case, ending in zip(cases, endings, strict=True)]
    inputs = {path.resolve() for case in cases for path in case.images}
    beside = [_uncertainty_beside(target) for target in targets] if uncertainty else []
    if twins := set(targets) & set(beside):
        raise UNetError(min(twins), "it would be a mask and an uncertainty", "Rename the image, or segment it on its own")
    for target in (*targets, *beside):
        if target.resolve() in inputs:
            raise UNetError(target, "the mask would replace its own image", "Choose another --out")
        if target.exists() and not overwrite:
            raise UNetError(target, "it exists already", "Use --overwrite, or another --out")
    files.make_folder(out.parent if single else out)
    return targets


def _segment(segmenter: Any, case: Any, target: Path, chosen: int | None, text: str, line: Line) -> None:
    import numpy as np

    from napari_unet import nifti
    from napari_unet.cases import read_image
    from napari_unet.preprocess import label_dtype

    volume = read_image(case)
    volume = volume if chosen is None else volume.channel(chosen)
    labels = np.zeros(volume.shape, label_dtype(segmenter.spec))
    doubt = np.zeros(volume.shape, np.float32) if segmenter.uncertainty else None
    for piece in segmenter.stream(volume):
        labels[piece.region] = piece.labels
        if doubt is not None:
            doubt[piece.region] = piece.uncertainty
        line.show(f"{text}, slice {piece.done} of {piece.total}")
    for note in volume.notes:
        tell(f"note: {volume.source}: {note}")
    if doubt is not None:
        nifti.write(_uncertainty_beside(target), volume.with_data(doubt), labels=False)
    nifti.write(target, volume.with_data(segmenter.clean(labels)))

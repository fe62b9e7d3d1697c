"""Our sliding window beside MONAI's and nnU-Net's: the same network, windows and weights, in turns, several times.

    OMP_NUM_THREADS=2 python training/benchmark_windows.py --model hippocampus --shape 80,112,80

MONAI, a window at a time and as many as ours takes, and, where nnunetv2 is installed, nnU-Net's predictor get the prepared
tensor; ours is the whole `stream` of a volume, a phantom repeated. The shape is to be patches plus halves of patches, so that
windows lie alike. A table of medians (seconds on the clock, and of the processor), the share of MONAI's labels; then JSON.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import torch
from monai.inferers import sliding_window_inference

from napari_unet import Segmenter, UNetError, phantoms
from napari_unet.preprocess import prepare
from napari_unet.torch_runtime import mirrorings
from napari_unet.weights import find, read_calibration


def mirrored(network: torch.nn.Module, windows: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    """Logits, averaged over mirrored copies one after the other, as nnU-Net computes them."""
    return sum(network(windows.flip(flips)).flip(flips) for flips in mirrorings(axes)) / 2 ** len(axes)


def monai(run: Callable, data: torch.Tensor, patch: tuple[int, ...], overlap: float, at_once: int = 1) -> torch.Tensor:
    profiles = [torch.exp(-0.5 * ((torch.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in patch]
    weights = torch.einsum("z,y,x->zyx", *profiles).to(data.device)  # its own are cut off below, which moves a few borders
    return sliding_window_inference(data[None], patch, at_once, run, overlap, mode="gaussian", roi_weight_map=weights)[0]


def nnunet(run: Callable, data: torch.Tensor, patch: tuple[int, ...], overlap: float) -> torch.Tensor:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(1 - overlap, use_mirroring=False, device=data.device, allow_tqdm=False)
    predictor.network = torch.nn.Identity()
    predictor.network.forward = run
    predictor.configuration_manager = SimpleNamespace(patch_size=patch)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=run.args[0].spec.classes)
    return predictor.predict_sliding_window_return_logits(data)


def contenders(options: argparse.Namespace) -> dict[str, Callable[[], np.ndarray]]:
    """Everyone who is installed, as a function that gives labels."""
    names = ["torch", "openvino"] if find_spec("openvino") and options.device == "cpu" else ["torch"]
    segmenters = {name: Segmenter.load(options.model, options.device, name, mirror=options.mirror) for name in names}
    if "openvino" in names and read_calibration(find(options.model)):
        segmenters["int8"] = Segmenter.load(options.model, "cpu", precision="int8", mirror=options.mirror)
    mine, spec = segmenters["torch"], segmenters["torch"].spec
    if spec.network.dims != 3 or spec.members != 1 or spec.keep_largest:
        raise UNetError(options.model, f"{spec.kind}, {spec.members} members", "Give a 3-D model of one network, its mask as it is")
    volume = phantoms.tiled(options.shape, spec.orientation, tuple(mm or 1.0 for mm in spec.spacing))
    data = prepare(volume, spec).data.to(options.device)
    given = (partial(mirrored, mine.network, axes=mine.mirror_axes), data, spec.patch, mine.overlap)
    values = np.array([0, *spec.values])

    def labels_of(rival: Callable) -> np.ndarray:
        with torch.inference_mode():
            return values[rival(*given).argmax(0).cpu().numpy()]

    rivals: dict[str, Callable] = {"MONAI": monai, f"MONAI, {mine.in_flight} at once": partial(monai, at_once=mine.in_flight)}
    rivals |= {"nnU-Net": nnunet} if find_spec("nnunetv2") else {}
    return {name: partial(labels_of, rival) for name, rival in rivals.items()} | {
        f"ours, {name}": lambda mine=segmenter: mine.segment(volume).data for name, segmenter in segmenters.items()}  # fmt: skip


def timed(run: Callable[[], np.ndarray]) -> tuple[float, float, np.ndarray]:
    wall, cpu, labels = time.perf_counter(), time.process_time(), run()
    return time.perf_counter() - wall, time.process_time() - cpu, labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("--model", "hippocampus"), ("--device", "cpu"), ("--repeats", 5)):
        parser.add_argument(name, type=type(default), default=default)
    parser.add_argument("--shape", type=lambda text: tuple(map(int, text.split(","))), default=(80, 112, 80))
    parser.add_argument("--mirror", action=argparse.BooleanOptionalAction, help="default: the model's")
    everyone = contenders(options := parser.parse_args())
    rounds = [{name: timed(run) for name, run in everyone.items()} for _ in range(options.repeats + 1)][1:]  # the first warms up
    truth, rows = rounds[0]["MONAI"][2], {}
    print(f"{'':18}  {'seconds':>8}  {'CPU s':>8}  MONAI's labels")
    for name in everyone:
        wall, cpu = (float(np.median([each[name][n] for each in rounds])) for n in (0, 1))
        rows[name] = {"seconds": wall, "cpu_seconds": cpu, "equal": float((rounds[0][name][2] == truth).mean())}
        print(f"{name:18}  {wall:8.2f}  {cpu:8.2f}  {rows[name]['equal']:.4%}")
    print(json.dumps(vars(options) | {"threads": torch.get_num_threads(), "foreground": float((truth > 0).mean()), "runs": rows}))


if __name__ == "__main__":
    try:
        main()
    except UNetError as error:
        raise SystemExit(f"benchmark_windows.py: {error}") from None

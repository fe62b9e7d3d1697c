"""nnU-Net's side for tests: a tiny folder of a trained model, and what nnU-Net answers with it, step by step in its own order."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine import network_spec, random_network
from scipy.ndimage import binary_fill_holes, gaussian_filter, map_coordinates
from skimage.transform import resize
from torch.nn import functional

from napari_unet.network import UNet
from napari_unet.spec import NetworkSpec

UNET = "dynamic_network_architectures.architectures.unet"
FACTS = {"mean": 90.0, "std": 55.0, "percentile_00_5": -40.0, "percentile_99_5": 260.0, "median": 80.0, "min": -1e3, "max": 1e3}


def network(dims: int = 3, channels: int = 1, classes: int = 3) -> NetworkSpec:
    """Three levels, whose convolutions are not of one number: which of them nnU-Net tells first matters."""
    return network_spec(
        dims, 3, channels=channels, classes=classes, kernels=((1, 3, 3)[-dims:], (3,) * dims, (3,) * dims),
        strides=((1,) * dims, (1, 2, 2)[-dims:], (2,) * dims), encoder_convs=(1, 2, 1), decoder_convs=(1, 2),
    )  # fmt: skip


def residual(dims: int = 3, channels: int = 1, classes: int = 3) -> NetworkSpec:
    """Four levels, on whose ways around the blocks there is nothing, a projection, a pool and a projection, or a pool."""
    kernels, strides = ((1, 3, 3), (3,) * 3, (3,) * 3, (3,) * 3), ((1,) * 3, (1,) * 3, (1, 2, 2), (2,) * 3)
    return network_spec(
        dims, 4, channels=channels, classes=classes, features=(4, 6, 8, 8), kernels=tuple(k[-dims:] for k in kernels),
        strides=tuple(s[-dims:] for s in strides), encoder="residual", encoder_convs=(1, 3, 2, 2), decoder_convs=(1, 2, 1),
    )  # fmt: skip


def architecture(spec: NetworkSpec) -> dict[str, Any]:
    name, counts = ("ResidualEncoderUNet", "n_blocks_per_stage") if spec.encoder == "residual" else ("PlainConvUNet", "n_conv_per_stage")
    given = {
        "n_stages": len(spec.features), "features_per_stage": spec.features, "conv_op": f"torch.nn.modules.conv.Conv{spec.dims}d",
        "kernel_sizes": spec.kernels, "strides": spec.strides, counts: spec.encoder_convs,
        "n_conv_per_stage_decoder": spec.decoder_convs[::-1], "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{spec.dims}d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
    }  # fmt: skip
    imported = ["conv_op", "norm_op", "dropout_op", "nonlin"]
    return {"network_class_name": f"{UNET}.{name}", "arch_kwargs": given, "_kw_requires_import": imported}


def old_architecture(spec: NetworkSpec) -> dict[str, Any]:
    """As plans told it before nnU-Net 2.3."""
    name = architecture(spec)["network_class_name"].rpartition(".")[2]
    return {
        "UNet_class_name": name, "UNet_base_num_features": spec.features[0], "unet_max_num_features": 320,
        "conv_kernel_sizes": spec.kernels, "pool_op_kernel_sizes": spec.strides, "n_conv_per_stage_encoder": spec.encoder_convs,
        "n_conv_per_stage_decoder": spec.decoder_convs[::-1], "num_pool_per_axis": [2] * spec.dims,
    }  # fmt: skip


def plans(
    spec: NetworkSpec, patch: Sequence[int] = (8, 16, 16), spacing: Sequence[float] = (1.0, 1.0, 1.0), schemes: Sequence[str] = (),
    masks: Sequence[bool] = (), transpose: Sequence[int] = (0, 1, 2), **changes: Any,
) -> dict[str, Any]:  # fmt: skip
    """plans.json of one configuration, `changes` of which are others."""
    orders = {f"resampling_fn_{what}_kwargs": {"is_seg": what == "seg", "order": order, "order_z": 0, "force_separate_z": None}
              for what, order in (("data", 3), ("seg", 1), ("probabilities", 1))}  # fmt: skip
    schemes = schemes or ["ZScoreNormalization"] * spec.channels
    configuration = {
        "data_identifier": "x", "preprocessor_name": "DefaultPreprocessor", "patch_size": patch, "spacing": spacing,
        "normalization_schemes": schemes, "use_mask_for_norm": masks or [False] * len(schemes), "batch_size": 2, "batch_dice": False,
        **{f"resampling_fn_{what}": "resample_data_or_seg_to_shape" for what in ("data", "seg", "probabilities")}, **orders,
        "architecture": architecture(spec),
    } | changes  # fmt: skip
    return {
        "dataset_name": "Dataset001_Tiny", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
        "transpose_forward": transpose, "transpose_backward": np.argsort(transpose).tolist(), "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(n): FACTS for n in range(spec.channels)},
        "configurations": {("2d", "3d_fullres")[spec.dims - 2]: {k: v for k, v in configuration.items() if v is not None}},
    }  # fmt: skip


def state(net: UNet, prefix: str = "") -> dict[str, torch.Tensor]:
    """Weights under all the names that nnU-Net writes."""
    found = dict(net.state_dict())
    for name, tensor in list(found.items()):
        for part, number in ((".conv.", ".all_modules.0."), (".norm.", ".all_modules.1.")):
            if part in name:
                found[name.replace(part, number)] = tensor
    found |= {f"decoder.{name}": tensor for name, tensor in found.items() if name.startswith("encoder.")}
    return {prefix + name: tensor for name, tensor in found.items()}


def checkpoint(net: UNet, mirror: tuple[int, ...] | None, prefix: str = "") -> dict[str, Any]:
    """What nnU-Net saves."""
    started = {"configuration": ("2d", "3d_fullres")[net.spec.dims - 2], "fold": 0, "device": torch.device("cpu")}
    return {
        "network_weights": state(net, prefix), "trainer_name": "nnUNetTrainer", "init_args": started, "current_epoch": 1000,
        "inference_allowed_mirroring_axes": mirror, "_best_ema": np.float64(0.8), "logging": {"losses": [np.float32(1.0)], "lrs": [0.01]},
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(3)}}}, "grad_scaler_state": None,
    }  # fmt: skip


def write(
    folder: Path, told: dict[str, Any], nets: Sequence[UNet], mirror: tuple[int, ...] | None = None, prefix: str = "", **dataset: Any
) -> Path:
    """A folder of a trained model, a fold for each network; its path."""
    spec = nets[0].spec
    folder.mkdir(parents=True, exist_ok=True)
    labels = {"background": 0} | {f"class {n}": n for n in range(1, spec.classes)}
    names = {str(n): f"MR {n}" for n in range(spec.channels)}
    (folder / "plans.json").write_text(json.dumps(told))
    (folder / "dataset.json").write_text(json.dumps({"channel_names": names, "labels": labels, "numTraining": 4} | dataset))
    for n, net in enumerate(nets):
        (folder / f"fold_{n}").mkdir(exist_ok=True)
        torch.save(checkpoint(net, mirror, prefix), folder / f"fold_{n}" / "checkpoint_final.pth")
    return folder


def nets(spec: NetworkSpec, count: int = 1) -> list[UNet]:
    return [random_network(spec, seed) for seed in range(count)]


class ByHand:
    """What nnU-Net's ResidualEncoderUNet answers, from its tensors and torch's functions alone."""

    def __init__(self, spec: NetworkSpec, tensors: dict[str, torch.Tensor]) -> None:
        self.spec, self.tensors = spec, tensors

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, [z,] y, x) -> logits of the finest level."""
        spec, dims = self.spec, self.spec.dims
        pool = (functional.avg_pool2d, functional.avg_pool3d)[dims - 2]
        transposed = (functional.conv_transpose2d, functional.conv_transpose3d)[dims - 2]
        x, levels = self._unit("encoder.stem.convs.0", x), []
        for s, stride in enumerate(spec.strides):
            for b in range(spec.encoder_convs[s]):
                name, step = f"encoder.stages.{s}.blocks.{b}", stride if b == 0 else (1,) * dims
                strides = any(n != 1 for n in step)
                around, projection = pool(x, step) if strides else x, f"{name}.skip.{1 if strides else 0}"
                if f"{projection}.conv.weight" in self.tensors:
                    around = self._unit(projection, around, active=False)
                through = self._unit(f"{name}.conv2", self._unit(f"{name}.conv1", x, step), active=False)
                x = functional.leaky_relu(through + around, 0.01)
            levels.append(x)
        for j, level in enumerate(reversed(range(len(levels) - 1))):
            name = f"decoder.transpconvs.{j}"
            x = transposed(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"], spec.strides[level + 1])
            x = torch.cat([x, levels[level]], 1)
            for i in range(spec.decoder_convs[level]):
                x = self._unit(f"decoder.stages.{j}.convs.{i}", x)
        return self._convolved(f"decoder.seg_layers.{len(levels) - 2}", x)

    def _unit(self, name: str, x: torch.Tensor, stride: int | Sequence[int] = 1, active: bool = True) -> torch.Tensor:
        weight, bias = (self.tensors[f"{name}.norm.{part}"] for part in ("weight", "bias"))
        y = functional.instance_norm(self._convolved(f"{name}.conv", x, stride), weight=weight, bias=bias, eps=1e-5)
        return functional.leaky_relu(y, 0.01) if active else y

    def _convolved(self, name: str, x: torch.Tensor, stride: int | Sequence[int] = 1) -> torch.Tensor:
        weight = self.tensors[f"{name}.weight"]
        convolve = (functional.conv2d, functional.conv3d)[self.spec.dims - 2]
        return convolve(x, weight, self.tensors.get(f"{name}.bias"), stride, [k // 2 for k in weight.shape[2:]])


# ---- what nnU-Net does ------------------------------------------------------------------------------------------------


def separate(now: Sequence[float], then: Sequence[float]) -> int | None:
    """`determine_do_sep_z_and_axis`."""
    for spacing in (now, then):
        if np.max(spacing) / np.min(spacing) > 3:
            axes = np.where(max(spacing) / np.array(spacing) == 1)[0]
            return int(axes[0]) if len(axes) == 1 else None
    return None


def resample(data: np.ndarray, shape: Sequence[int], now: Sequence[float], then: Sequence[float], order: int) -> np.ndarray:
    """`resample_data_or_seg` for images and logits (c, z, y, x)."""
    if data.shape[1:] == tuple(shape):
        return data
    axis, made = separate(now, then), np.zeros((len(data), *shape), data.dtype)
    for c, channel in enumerate(data.astype(float)):
        if axis is None:
            made[c] = resize(channel, shape, order, mode="edge", anti_aliasing=False)
            continue
        plane = [n for a, n in enumerate(shape) if a != axis]
        slices = np.stack([resize(each, plane, order, mode="edge", anti_aliasing=False) for each in np.moveaxis(channel, axis, 0)], axis)
        where = np.mgrid[tuple(slice(n) for n in shape)].astype(float)
        for a in range(3):
            where[a] = slices.shape[a] / shape[a] * (where[a] + 0.5) - 0.5
        made[c] = map_coordinates(slices, where, order=0, mode="nearest")
    return made


def normalise(data: np.ndarray, mask: np.ndarray, scheme: str, masked: bool) -> np.ndarray:
    """One channel, in float32."""
    if scheme == "ZScoreNormalization":
        inside = mask if masked else np.ones_like(mask)
        return np.where(inside, (data - data[inside].mean()) / max(data[inside].std(), 1e-8), data).astype(np.float32)
    if scheme == "CTNormalization":
        return (np.clip(data, FACTS["percentile_00_5"], FACTS["percentile_99_5"]) - FACTS["mean"]) / FACTS["std"]
    if scheme == "RescaleTo01Normalization":
        return (data - data.min()) / (data.max() - data.min())
    return data / 255 if scheme == "RGBTo01Normalization" else data


def logits_of(net: UNet | ByHand, data: np.ndarray, patch: Sequence[int], mirror: Sequence[int]) -> np.ndarray:
    """`predict_sliding_window_return_logits`, with sums in float32, of an image that is padded in the middle of the patch."""
    flat, size = net.spec.dims == 2, data.shape[1:]
    patch = (1, *patch) if flat else tuple(patch)
    mirror = [axis + flat for axis in mirror]
    room = [max(0, p - n) for p, n in zip(patch, size, strict=True)]
    padded = np.pad(data, [(0, 0), *((r // 2, r - r // 2) for r in room)])
    point = np.zeros(patch)
    point[tuple(n // 2 for n in patch)] = 1
    weight = gaussian_filter(point, [n / 8 for n in patch], 0, mode="constant", cval=0)
    total, weights = np.zeros((net.spec.classes, *padded.shape[1:])), np.zeros(padded.shape[1:])
    starts = []
    for n, p in zip(padded.shape[1:], patch, strict=True):
        count = int(np.ceil((n - p) / (p * 0.5))) + 1
        starts.append([int(np.round((n - p) / max(count - 1, 1) * i)) for i in range(count)])
    flips = [axes for count in range(len(mirror) + 1) for axes in itertools.combinations(mirror, count)]
    for start in itertools.product(*starts):
        part = tuple(slice(s, s + p) for s, p in zip(start, patch, strict=True))
        window = torch.from_numpy(padded[(slice(None), *part)].astype(np.float32))[None]
        said = torch.zeros(())
        for axes in flips:
            turned = window.flip([a + 2 for a in axes])
            answer = net(turned[:, :, 0])[:, :, None] if flat else net(turned)
            said = said + answer.flip([a + 2 for a in axes]) / len(flips)
        total[(slice(None), *part)] += said[0].numpy() * weight
        weights[part] += weight
    return (total / weights)[(slice(None), *(slice(r // 2, r // 2 + n) for r, n in zip(room, size, strict=True)))]


def answer(
    told: dict[str, Any], nets: Sequence[UNet | ByHand], image: np.ndarray, spacing: Sequence[float], mirror: Sequence[int] = (),
    regions: Sequence[int] = (),
) -> np.ndarray:  # fmt: skip
    """nnU-Net's mask (z, y, x) of an image (c, z, y, x) as SimpleITK reads it."""
    (configuration,) = told["configurations"].values()
    forward, backward = told["transpose_forward"], told["transpose_backward"]
    data = image.astype(np.float32).transpose(0, *(a + 1 for a in forward))
    own = [spacing[a] for a in forward]
    mask = binary_fill_holes((data != 0).any(0))
    box = tuple(slice(where.min(), where.max() + 1) for where in np.where(mask))
    found = np.zeros(data.shape[1:], np.uint8)
    data, mask = data[(slice(None), *box)], mask[box]
    wanted = [*own[: 3 - len(configuration["spacing"])], *configuration["spacing"]]
    size = [round(o / w * n) for o, w, n in zip(own, wanted, data.shape[1:], strict=True)]
    rules = zip(data, configuration["normalization_schemes"], configuration["use_mask_for_norm"], strict=True)
    seen = np.stack([normalise(channel, mask, scheme, masked) for channel, scheme, masked in rules])
    seen = resample(seen, size, own, wanted, 3)
    with torch.inference_mode():
        logits = np.mean([logits_of(net, seen, configuration["patch_size"], mirror) for net in nets], 0)
    said = resample(logits.astype(np.float32), data.shape[1:], wanted, own, 1)
    if regions:
        for logit, value in zip(said, regions, strict=True):
            found[box][logit > 0] = value
    else:
        found[box] = said.argmax(0)
    return found.transpose(backward)

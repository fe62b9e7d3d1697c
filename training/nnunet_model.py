"""One of our models as nnU-Net keeps its own: the same network, weights and windows, for its command to be compared with ours.

    python training/nnunet_model.py hippocampus FOLDER
    nnUNetv2_predict_from_modelfolder -i SCANS -o MASKS -m FOLDER -f 0 -device cpu

A 3-D MRI model of one network, mirrored as it says; written as by nnU-Net 2.8: dataset.json, plans.json and a checkpoint.
"""

import argparse
import json
from pathlib import Path

import torch

from napari_unet import UNetError, weights
from napari_unet.files import make_folder
from napari_unet.spec import ModelSpec, NetworkSpec

LETTERS = "SAR"  # of the axes as SimpleITK reads the scans of `phantoms.tiled(shape, "RAS")`


def architecture(network: NetworkSpec) -> dict[str, object]:
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": len(network.features), "features_per_stage": network.features, "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": network.kernels, "strides": network.strides, "n_conv_per_stage": network.encoder_convs,
            "n_conv_per_stage_decoder": network.decoder_convs[::-1], "conv_bias": network.bias,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }  # fmt: skip


def plans(spec: ModelSpec) -> dict[str, object]:
    resampling = {f"resampling_fn_{what}": "resample_data_or_seg_to_shape" for what in ("data", "seg", "probabilities")}
    orders = {f"resampling_fn_{what}_kwargs": {"is_seg": what == "seg", "order": order, "order_z": 0, "force_separate_z": None}
              for what, order in (("data", 3), ("seg", 1), ("probabilities", 1))}  # fmt: skip
    configuration = {
        "data_identifier": "ours", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2, "patch_size": spec.patch,
        "median_image_size_in_voxels": spec.patch, "spacing": spec.spacing, "batch_dice": False,
        "normalization_schemes": ["ZScoreNormalization"] * len(spec.channels), "use_mask_for_norm": [False] * len(spec.channels),
        **resampling, **orders, "architecture": architecture(spec.network),
    }  # fmt: skip
    return {
        "dataset_name": "Dataset900_ours", "plans_name": "ours", "original_median_spacing_after_transp": spec.spacing,
        "original_median_shape_after_transp": spec.patch, "image_reader_writer": "SimpleITKIO", "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2], "configurations": {"3d_fullres": configuration}, "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(n): {} for n in range(len(spec.channels))},
    }  # fmt: skip


def state(network: NetworkSpec, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our names are nnU-Net's; biases that a norm takes away again are 0, and it keeps parts under two names."""
    found = {}
    for name, tensor in tensors.items():
        found[name] = tensor
        if name.endswith("conv.weight") and not network.bias:
            found[name.replace("weight", "bias")] = torch.zeros(len(tensor))
    for name, tensor in list(found.items()):
        for part, number in ((".conv.", ".all_modules.0."), (".norm.", ".all_modules.1.")):
            if part in name:
                found[name.replace(part, number)] = tensor
    return found | {f"decoder.{name}": tensor for name, tensor in found.items() if name.startswith("encoder.")}


def write(model: str, folder: Path) -> None:
    """Raises UNetError for a model that nnU-Net has no words for."""
    spec, tensors = weights.load(weights.find(model))
    if spec.network.dims != 3 or spec.members != 1 or spec.orientation != LETTERS or {c.scheme for c in spec.channels} != {"zscore"}:
        raise UNetError(model, f"{spec.kind}, {spec.members} members, along {spec.orientation}",
                        f"Give a 3-D MRI model of one network along {LETTERS}")  # fmt: skip
    make_folder(folder / "fold_0")
    (folder / "plans.json").write_text(json.dumps(plans(spec)))
    channels = {str(n): "MRI" for n in range(len(spec.channels))}
    labels = {"background": 0} | {label.name: n for n, label in enumerate(spec.labels, 1)}
    dataset = {"channel_names": channels, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    checkpoint = {"network_weights": state(spec.network, {name: torch.tensor(value) for name, value in tensors.items()}),
                  "trainer_name": "nnUNetTrainer", "init_args": {"configuration": "3d_fullres"},
                  "inference_allowed_mirroring_axes": spec.mirror_axes if spec.mirror_tta else None}  # fmt: skip
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder")
    options = parser.parse_args()
    write(options.model, Path(options.folder))
    print(json.dumps({"folder": options.folder}))


if __name__ == "__main__":
    try:
        main()
    except UNetError as error:
        raise SystemExit(f"nnunet_model.py: {error}") from None

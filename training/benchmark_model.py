"""A 2-D model with random weights, for benchmarks: how fast it is does not depend on what it has learnt.

    python training/benchmark_model.py model.safetensors --features 16,32,64,128,256

The network is the one that the plan makes for slices of 512x512.
"""

import argparse
import json

import torch

from napari_unet import UNetError, weights
from napari_unet.card import Card
from napari_unet.network import UNet
from napari_unet.spec import Channel, Label, ModelSpec, NetworkSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--features", type=lambda text: tuple(map(int, text.split(","))), default=(16, 32, 64, 128, 256))
    parser.add_argument("--patch", type=int, default=256)
    options = parser.parse_args()
    levels = len(options.features)
    network = NetworkSpec(
        dims=2, channels=1, classes=3, features=options.features, kernels=((3, 3),) * levels, strides=((1, 1),) + ((2, 2),) * (levels - 1),
        encoder_convs=(1,) + (2,) * (levels - 1), decoder_convs=(1,) * (levels - 1),
    )  # fmt: skip
    spec = ModelSpec(
        name="benchmark", network=network, channels=(Channel("image"),), labels=(Label(1, "one", "#e6194b"), Label(2, "two", "#3cb44b")),
        orientation="SAR", spacing=(0.0, 0.0, 0.0), patch=(1, options.patch, options.patch),
    )  # fmt: skip
    torch.manual_seed(0)
    weights.save(options.out, spec, Card(description="random weights"), {k: v.numpy() for k, v in UNet(network).state_dict().items()})
    print(json.dumps({"model": options.out, "features": options.features}))


if __name__ == "__main__":
    try:
        main()
    except UNetError as error:
        raise SystemExit(f"benchmark_model.py: {error}") from None

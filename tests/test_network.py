"""The U-Net does what its specification says, level by level, under nnU-Net's names."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import nnunet_folder as nnunet
import pytest
import torch
from engine import network_spec, random_network
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.blocks import InstanceNorm
from napari_unet.errors import UNetError
from napari_unet.network import UNet, parameter_shapes
from napari_unet.spec import NetworkSpec


@st.composite
def specs(draw: st.DrawFn, **fixed: Any) -> NetworkSpec:
    """Any small network: 2-D or 3-D, anisotropic strides and kernels, every kind of step down, up and norm."""
    dims, levels = draw(st.sampled_from([2, 3])), draw(st.integers(2, 3))
    per_axis = st.tuples(*[st.sampled_from([1, 2, 2, 3])] * dims)
    kernel = st.tuples(*[st.sampled_from([1, 3, 5])] * dims)
    count = st.integers(1, 2)
    chosen = {
        "dims": dims, "channels": draw(st.integers(1, 3)), "classes": draw(st.integers(2, 4)),
        "features": tuple(draw(st.integers(1, 5)) for _ in range(levels)),
        "kernels": tuple(draw(kernel) for _ in range(levels)),
        "strides": ((1,) * dims, *(draw(per_axis) for _ in range(levels - 1))),
        "encoder_convs": tuple(draw(count) for _ in range(levels)), "decoder_convs": tuple(draw(count) for _ in range(levels - 1)),
        "down": draw(st.sampled_from(["conv", "maxpool"])), "up": draw(st.sampled_from(["transposed", "interpolate"])),
        "norm": draw(st.sampled_from(["instance", "group", "batch", "none"])),
        "activation": draw(st.sampled_from(["leaky_relu", "relu"])), "bias": draw(st.booleans()),
        "deep_supervision": draw(st.booleans()), "skips": draw(st.booleans()),
        "encoder": draw(st.sampled_from(["plain", "residual"])),
    }  # fmt: skip
    return NetworkSpec(**chosen | fixed)


def seen_shapes(network: UNet, x: torch.Tensor) -> list[tuple[tuple[int, ...], int]]:
    """(spatial shape, features) of the input, of each level as it is computed, and of the logits."""
    seen = [(tuple(x.shape[2:]), x.shape[1])]
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, y: seen.append((tuple(y.shape[2:]), y.shape[1])))
        for module in (*network.encoder.stages, *network.decoder.stages, network.decoder.seg_layers[-1])
    ]
    network(x)
    for hook in hooks:
        hook.remove()
    return seen


@given(specs(), st.integers(2, 3))
@settings(max_examples=30)
def test_the_walk_is_what_really_happens(spec: NetworkSpec, times: int) -> None:
    shape = tuple(times * stride for stride in spec.total_stride)
    walk = spec.walk(shape)
    assert [(shape, features) for _, shape, features in walk] == seen_shapes(UNet(spec).eval(), torch.zeros(1, spec.channels, *shape))
    names = [name.split(",")[0] for name, _, _ in walk]
    levels = len(spec.features)
    assert names == ["input", *(f"encoder {n}" for n in range(1, levels)), "bottleneck",
                     *(f"decoder {n}" for n in range(levels - 1, 0, -1)), "logits"]  # fmt: skip
    assert sum("skip" in name for name, _, _ in walk) == (levels - 1 if spec.skips else 0)


def test_the_teaching_example() -> None:
    walk = {name.split(",")[0]: (*shape, features) for name, shape, features in NetworkSpec.classic().walk((128, 128))}
    assert walk == {
        "input": (128, 128, 3), "encoder 1": (128, 128, 32), "encoder 2": (64, 64, 64), "encoder 3": (32, 32, 128),
        "bottleneck": (16, 16, 256), "decoder 3": (32, 32, 128), "decoder 2": (64, 64, 64), "decoder 1": (128, 128, 32),
        "logits": (128, 128, 2),
    }  # fmt: skip
    spec = NetworkSpec.classic()
    network = UNet(spec)
    assert [type(pool).__name__ for pool in network.encoder.pools] == ["Identity", *["MaxPool2d"] * 3]
    assert network(torch.zeros(1, 3, 128, 128)).shape == (1, 2, 128, 128)


@pytest.mark.parametrize("shape", [(10, 16), (16,), (16, 16, 16), (16, 12)])
def test_a_shape_that_does_not_fit_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(UNetError, match=r"network: an input of \(.+\)\. Use multiples of \(8, 8\)"):
        NetworkSpec.classic().walk(shape)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_residual_encoder_computes_what_nnunets_does(dims: int) -> None:
    spec = nnunet.residual(dims, channels=2)
    network = random_network(spec).double()
    x = torch.randn(2, 2, *(8, 16, 16)[-dims:], dtype=torch.float64)
    with torch.inference_mode():
        expected = nnunet.ByHand(spec, network.state_dict())(x)
        torch.testing.assert_close(network(x), expected, atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(network.in_fast_layout()(x), expected, atol=1e-10, rtol=1e-10)


# some logits of dynamic_network_architectures 0.4.4 in double precision, whose weights and input are sines
RECORDED: dict[int, list[float]] = {
    2: [-1.516331, -1.976588, -1.195139, -1.170044, -1.623421, -0.453591, -0.255715,
        0.141433, 0.812193, -2.016669, -3.01851, -3.166942, -2.856464, -2.211123],
    3: [-1.239907, -1.561208, -1.680305, -2.069246, -2.093745, 0.383719, 1.404102,
        0.751815, 0.803424, -1.479965, -2.158199, -3.864781, -2.750401, -1.471402],
}  # fmt: skip


@pytest.mark.parametrize("dims", [2, 3])
def test_a_residual_encoder_answers_as_nnunets_did(dims: int) -> None:
    spec = nnunet.residual(dims)
    network = UNet(spec).double()
    network.load_state_dict({name: sines(shape, n) for n, (name, shape) in enumerate(sorted(parameter_shapes(spec).items()))})
    with torch.inference_mode():
        found = network(sines((1, 1, *(8, 16, 32)[-dims:]), 1000))
    torch.testing.assert_close(found.flatten()[:: found.numel() // 13].tolist(), RECORDED[dims], atol=2e-6, rtol=0)


def sines(shape: tuple[int, ...], number: int) -> torch.Tensor:
    """As good as random, and the same everywhere."""
    return torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * (0.7 + 0.01 * number) + number).reshape(shape)


def nnunet_shapes(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """What nnU-Net's PlainConvUNet, or ResidualEncoderUNet, would hold, by its own rules of naming (j = 0 is the deepest
    decoder stage)."""
    found: dict[str, tuple[int, ...]] = {}

    def unit(name: str, inputs: int, outputs: int, kernel: tuple[int, ...], bias: bool = True) -> None:
        found[f"{name}.conv.weight"] = (outputs, inputs, *kernel)
        if bias:
            found[f"{name}.conv.bias"] = (outputs,)
        found[f"{name}.norm.weight"] = found[f"{name}.norm.bias"] = (outputs,)

    def block(name: str, inputs: int, outputs: int, kernel: tuple[int, ...], count: int) -> None:
        for i in range(count):
            unit(f"{name}.convs.{i}", inputs if i == 0 else outputs, outputs, kernel)

    def around(name: str, inputs: int, outputs: int, stride: tuple[int, ...]) -> None:
        if inputs != outputs:  # after a pool, where it strides
            unit(f"{name}.skip.{int(max(stride) > 1)}", inputs, outputs, (1,) * spec.dims, bias=False)

    residual = spec.encoder == "residual"
    if residual:
        block("encoder.stem", spec.channels, spec.features[0], spec.kernels[0], 1)
    for s, outputs in enumerate(spec.features):
        inputs = (spec.features[0] if residual else spec.channels, *spec.features)[s]
        if not residual:
            block(f"encoder.stages.{s}.0", inputs, outputs, spec.kernels[s], spec.encoder_convs[s])
            continue
        for b in range(spec.encoder_convs[s]):
            name = f"encoder.stages.{s}.blocks.{b}"
            unit(f"{name}.conv1", inputs if b == 0 else outputs, outputs, spec.kernels[s])
            unit(f"{name}.conv2", outputs, outputs, spec.kernels[s])
            if b == 0:
                around(name, inputs, outputs, spec.strides[s])
    for j in range(len(spec.features) - 1):
        level = len(spec.features) - 2 - j
        below, here = spec.features[level + 1], spec.features[level]
        found[f"decoder.transpconvs.{j}.weight"] = (below, here, *spec.strides[level + 1])
        found[f"decoder.transpconvs.{j}.bias"] = (here,)
        block(f"decoder.stages.{j}", 2 * here if spec.skips else here, here, spec.kernels[level], spec.decoder_convs[level])
        found[f"decoder.seg_layers.{j}.weight"] = (spec.classes, here, *(1,) * spec.dims)
        found[f"decoder.seg_layers.{j}.bias"] = (spec.classes,)
    return found


@given(specs(down="conv", up="transposed", norm="instance", bias=True))
@settings(max_examples=15)
def test_tensors_have_nnunets_names_and_shapes(spec: NetworkSpec) -> None:
    assert parameter_shapes(spec) == nnunet_shapes(spec)


@given(specs())
@settings(max_examples=15)
def test_shapes_are_known_without_the_network(spec: NetworkSpec) -> None:
    assert parameter_shapes(spec) == {name: tuple(t.shape) for name, t in UNet(spec).state_dict().items()}


def test_shapes_of_a_monster_cost_nothing() -> None:
    monster = network_spec(
        levels=8, channels=64, classes=255, features=(4096,) * 8, kernels=((15,) * 3,) * 8, strides=((1,) * 3,) * 8,
        encoder_convs=(16,) * 8, decoder_convs=(16,) * 7,
    )  # fmt: skip
    assert sum(4 * math.prod(shape) for shape in parameter_shapes(monster).values()) > 50e12, "50 terabytes"


@given(specs(deep_supervision=True))
@settings(max_examples=8)
def test_deep_supervision_reaches_every_parameter(spec: NetworkSpec) -> None:
    network, shape = UNet(spec), tuple(2 * stride for stride in spec.total_stride)
    logits = network.multiscale(torch.randn(1, spec.channels, *shape))
    levels = [shape for name, shape, _ in reversed(spec.walk(shape)) if name.startswith("decoder")]
    assert [tuple(scale.shape) for scale in logits] == [(1, spec.classes, *shape) for shape in levels]
    sum(scale.square().mean() for scale in logits).backward()
    assert {name for name, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()} == set()


def test_without_deep_supervision_only_coarse_heads_are_idle() -> None:
    network = UNet(network_spec(levels=3, deep_supervision=False))
    x = torch.randn(2, 1, 8, 8, 8)
    (logits,) = network.multiscale(x)
    torch.testing.assert_close(logits, network(x))
    logits.mean().backward()
    idle = {name for name, p in network.named_parameters() if p.grad is None}
    assert idle == {"decoder.seg_layers.0.weight", "decoder.seg_layers.0.bias"}


@given(specs())
@settings(max_examples=15)
def test_what_a_skip_carries_goes_around_the_bottleneck(spec: NetworkSpec) -> None:
    """With the bottleneck cut, the finer levels of the encoder reach the logits by way of the skips or not at all."""
    network, shape = UNet(spec), tuple(2 * stride for stride in spec.total_stride)
    levels = network.encoder(torch.randn(2, spec.channels, *shape))
    levels[-1] = levels[-1].detach()
    network.decoder(levels, all_scales=False)[0].square().mean().backward()
    stages = network.encoder.stages.named_parameters()
    reached = {name.split(".")[0] for name, p in stages if p.grad is not None}
    assert reached == ({str(level) for level in range(len(spec.features) - 1)} if spec.skips else set())
    assert all(p.grad is not None for p in network.decoder.stages.parameters())


@given(specs(skips=True))
@settings(max_examples=8)
def test_without_skips_tensors_keep_their_names(spec: NetworkSpec) -> None:
    joined, alone = parameter_shapes(spec), parameter_shapes(replace(spec, skips=False))
    changed = {name for name in joined if joined[name] != alone[name]}
    assert list(joined) == list(alone)
    assert changed == {f"decoder.stages.{j}.convs.0.conv.weight" for j in range(len(spec.features) - 1)}


@given(specs(dims=2, features=(3, 4), kernels=((3, 5), (1, 3)), strides=((1, 1), (2, 3)), encoder_convs=(2, 1),
             decoder_convs=(2,), norm="none"))  # fmt: skip
@settings(max_examples=8)
def test_a_flat_3d_network_is_the_2d_one_slice_by_slice(flat: NetworkSpec) -> None:
    """One definition serves both: kernels and strides of 1 along z leave the slices to themselves."""
    solid = NetworkSpec(**{**vars(flat), "dims": 3, "kernels": ((1, 3, 5), (1, 1, 3)), "strides": ((1, 1, 1), (1, 2, 3))})
    slices, volumes = UNet(flat).eval(), UNet(solid).eval()
    state = slices.state_dict()
    volumes.load_state_dict({name: state[name].reshape(t.shape) for name, t in volumes.state_dict().items()})
    x = torch.randn(1, flat.channels, 3, 8, 12)
    stacked = torch.stack([slices(x[:, :, z]) for z in range(3)], 2)
    torch.testing.assert_close(volumes(x), stacked, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 3, 4, 6), (3, 4, 2, 6, 4), (2, 5, 1, 1, 1), (0, 3, 4, 6)])
def test_instance_norm_learns_as_groups_of_one_channel_do(shape: tuple[int, ...]) -> None:
    layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    norm = InstanceNorm(shape[1]).double()
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    towards = torch.randn(shape, dtype=torch.float64)
    inputs = (x, norm.weight, norm.bias)
    ours, theirs = norm(x), torch.nn.functional.group_norm(x, shape[1], norm.weight, norm.bias, norm.epsilon)
    assert torch.allclose(ours, theirs) and (ours.is_contiguous(memory_format=layout) or not len(x))
    with torch.no_grad():
        assert torch.allclose(norm(x), theirs)
    found, known = (torch.autograd.grad((y * towards).sum(), inputs) for y in (ours, theirs))
    assert all(torch.allclose(a, b) for a, b in zip(found, known, strict=True))


@given(specs(norm="instance"))
@settings(max_examples=20)
def test_a_feature_that_is_left_out_has_no_influence(spec: NetworkSpec) -> None:
    """What the decoder sees of it is nothing, whatever it is; what is kept, it sees multiplied; all of it, unchanged."""
    network = UNet(spec)
    x = torch.randn(2, spec.channels, *(2 * stride for stride in spec.total_stride))
    every = torch.ones(2, network.droppable)
    for plain, kept in zip(network.multiscale(x), network.multiscale(x, every), strict=True):
        assert torch.equal(plain, kept)
    blank = torch.zeros(2, network.droppable)
    levels = network.encoder(x)
    expected = network.decoder([levels[0], *(0 * level for level in levels[1:])], all_scales=spec.deep_supervision)
    for one, other in zip(expected, network.multiscale(x, blank), strict=True):
        assert torch.equal(one, other)

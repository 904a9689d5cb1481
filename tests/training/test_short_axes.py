"""Convolutions of inputs that are shorter than the kernel have right gradients in bfloat16 on a CPU."""

import copy

import pytest
import torch
from torch import nn

from monai_unetpp import NestedUNet
from monai_unetpp.inferers import PrecisionInferer
from monai_unetpp.training import accelerate
from monai_unetpp.training.acceleration import DepthPaddedConv3d, ShortAxisConv3d


def _poison():
    """Leave NaN in the memory that is handed out next."""
    for size in (100, 1000, 10_000, 100_000, 1_000_000):
        torch.full((size,), torch.nan)


def _gradients(network, images, precision):
    network.zero_grad()
    _poison()
    output = PrecisionInferer(precision=precision)(images, network)
    outputs = output if isinstance(output, list) else [output]
    sum(output.square().mean() for output in outputs).backward()
    return [*(output.detach() for output in outputs), *(parameter.grad.clone() for parameter in network.parameters())]


@pytest.mark.parametrize(
    ("shape", "kernel_size"),
    [((2, 8, 8), 3), ((1, 8, 8), 3), ((8, 1, 8), (3, 5, 3)), ((3, 4, 4), (5, 3, 3)), ((4, 4, 4), 3)],
)
@pytest.mark.parametrize("channels", [1, 16])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_near_those_in_float32_and_repeatable(shape, kernel_size, channels, bias):
    torch.manual_seed(0)
    convolution = nn.Conv3d(channels, 16, kernel_size, padding="same", bias=bias)
    accelerated = accelerate(copy.deepcopy(convolution), channels_last=True)
    images = torch.randn(2, channels, *shape).contiguous(memory_format=torch.channels_last_3d)
    expected = _gradients(convolution, images, "fp32")
    found = [_gradients(accelerated, images, "bf16") for _ in range(3)]
    for numbers in found:
        for one, other in zip(numbers, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0.02 * float(other.abs().max()))
        assert all(torch.equal(one, first) for one, first in zip(numbers, found[0], strict=True))


def test_steps_on_patches_of_two_voxels_at_the_lowest_resolution_are_repeatable():
    torch.manual_seed(0)
    network = accelerate(NestedUNet(3, 1, 3, features=(4, 8, 16), norm="batch").train())
    images = torch.randn(2, 1, 8, 8, 16)
    first, *others = (_gradients(network, images, "bf16") for _ in range(4))
    assert all(numbers.isfinite().all() for numbers in first)
    for found in others:
        assert all(torch.equal(one, other) for one, other in zip(found, first, strict=True))


def test_only_convolutions_of_volumes_are_changed_and_keep_their_weights():
    network = NestedUNet(3, 1, 2, features=(8, 16))
    keys, weights = list(network.state_dict()), [parameter.clone() for parameter in network.parameters()]
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv3d)]
    accelerate(network)
    assert all(type(module) in (ShortAxisConv3d, DepthPaddedConv3d) for module in convolutions)
    assert list(network.state_dict()) == keys
    assert "ShortAxis" not in str(network)
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), weights, strict=True))
    flat = accelerate(NestedUNet(2, 1, 2, features=(8, 16)))
    assert not any(isinstance(module, ShortAxisConv3d) for module in flat.modules())


@pytest.mark.slow
def test_an_accelerated_network_can_be_scripted():
    network = accelerate(NestedUNet(3, 1, 2, features=(8, 16))).eval()
    for edge in (2, 8):
        image = torch.rand(1, 1, edge, 8, 8)
        torch.testing.assert_close(torch.jit.script(network)(image), network(image))


@pytest.mark.slow
def test_an_accelerated_network_can_be_compiled():
    network = accelerate(NestedUNet(3, 1, 2, features=(8, 16), norm="batch").train())
    images = torch.randn(2, 1, 2, 8, 8)
    expected = _gradients(network, images, "bf16")
    torch._dynamo.reset()
    found = _gradients(torch.compile(network, backend="aot_eager", fullgraph=True), images, "bf16")
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.02 * float(other.abs().max()))

"""Volumes, slice by slice."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer

from monai_unetpp import NestedUNet
from monai_unetpp.inferers import NestedSlidingWindowInferer, SlicewiseInferer
from monai_unetpp.measuring.stage_timer import StageTimer


@pytest.fixture
def network() -> NestedUNet:
    torch.manual_seed(0)
    return NestedUNet(2, 1, 2, features=(4, 8)).eval()


def sliding(output: str = "labels") -> NestedSlidingWindowInferer:
    return NestedSlidingWindowInferer((8, 8), output=output, runtime="torch", precision="fp32")


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("output", ["labels", "logits"])
def test_every_slice_is_segmented_as_an_image(network: NestedUNet, axis: int, output: str) -> None:
    volume = torch.rand(1, 1, 9, 10, 11)
    found = SlicewiseInferer(sliding(output), axis)(volume, network)
    dim = axis % 3 + 2
    expected = [sliding(output)(image, network) for image in volume.unbind(dim)]
    assert torch.equal(found, torch.stack(expected, dim))


def test_images_go_through(network: NestedUNet) -> None:
    image = torch.rand(1, 1, 9, 10)
    assert torch.equal(SlicewiseInferer(sliding())(image, network), sliding()(image, network))


def test_metadata_stays(network: NestedUNet) -> None:
    volume = MetaTensor(torch.rand(1, 1, 9, 10, 2), affine=torch.eye(4)[None], meta={"filename_or_obj": ["a"]})
    found = SlicewiseInferer(sliding())(volume, network)
    assert isinstance(found, MetaTensor)
    assert found.meta["filename_or_obj"] == ["a"]
    assert found.shape == volume.shape


def test_timer_is_that_of_the_inferer() -> None:
    timer = StageTimer(torch.device("cpu"))
    inner = sliding()
    SlicewiseInferer(inner).timer = timer
    assert inner.timer is timer
    assert SlicewiseInferer(inner).timer is timer
    assert not hasattr(SlicewiseInferer(SimpleInferer()), "timer")


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"inputs must have no empty axis, got spatial size \[4, 4, 0\]"):
        SlicewiseInferer(SimpleInferer())(torch.zeros(1, 1, 4, 4, 0), lambda image: image)
    with pytest.raises(ValueError, match=r"inputs must have shape \(B, C, H, W\[, D\]\), got \[1, 4, 4\]"):
        SlicewiseInferer(SimpleInferer())(torch.zeros(1, 4, 4), lambda image: image)
    with pytest.raises(ValueError, match="slice_axis must be an axis of a volume, 0, 1 or 2, got 3"):
        SlicewiseInferer(SimpleInferer(), 3)
    with pytest.raises(TypeError, match=r"must give a tensor for a slice, got dict\. Ask for one level"):
        SlicewiseInferer(SimpleInferer())(torch.zeros(1, 1, 4, 4, 4), lambda image: {"L1": image})


def test_tells_what_ran(network: NestedUNet) -> None:
    inferer = SlicewiseInferer(sliding())
    assert inferer.ran is None
    inferer(torch.rand(1, 1, 9, 10, 2), network)
    assert inferer.ran == ("torch", "fp32")
    assert SlicewiseInferer(SimpleInferer()).ran is None


@pytest.mark.parametrize(
    "network",
    [
        lambda image: image.mean((2, 3), keepdim=True),
        lambda image: image[:1],
        lambda image: image[:, 0],
        lambda image: image.repeat(1, 1 + int(image.max() < 1), 1, 1),
        lambda image: image if image.max() > 1 else image.half(),
    ],
    ids=["pooled", "one image", "no channels", "other channels", "other type"],
)
def test_results_of_slices_that_do_not_fit_are_refused(network) -> None:
    volume = torch.rand(2, 1, 4, 5, 3)
    volume[..., 0] += 2  # the first slice is another
    with pytest.raises(ValueError, match=r"the inferer must give \[2, 1, 4, 5\] of torch.float32 for each slice, got"):
        SlicewiseInferer(SimpleInferer())(volume, network)

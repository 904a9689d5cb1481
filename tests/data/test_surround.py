"""The constant surround of an image, whatever its value."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from scipy import ndimage

from monai_unetpp.data import find_surround

SHAPE = (20, 24, 18)


def ball(shape: tuple[int, ...] = SHAPE, radius: float = 0.7) -> np.ndarray:
    axes = np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij")
    return sum(axis**2 for axis in axes) < radius**2


def brain(outside: float, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> torch.Tensor:
    """A ball of noise with mean 0 and deviation 1 in a constant."""
    values = np.random.default_rng(seed).normal(size=shape)
    return torch.from_numpy(np.where(ball(shape), values, outside).astype(np.float32))[None]


@given(
    outside=st.sampled_from([0.0, -0.0, -1.0, -1024.0, 3.25, 1e6, 0.1]),
    shape=st.tuples(*[st.integers(12, 24)] * 3) | st.tuples(*[st.integers(12, 40)] * 2),
    channels=st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_any_constant_is_found_in_two_and_three_dimensions(outside, shape, channels):
    image = torch.cat([brain(outside + index, shape, index) for index in range(channels)])
    found = find_surround(image)
    assert found is not None
    assert found.values == pytest.approx([np.float32(outside + index) for index in range(channels)])
    np.testing.assert_array_equal(found.mask.numpy(), ~ball(shape))
    assert found.share == pytest.approx((~ball(shape)).mean())
    assert found.constants == 1


def test_holes_of_the_same_value_are_inside():
    image = brain(0.0)
    image[0, 9:12, 11:13, 8:10] = 0
    np.testing.assert_array_equal(find_surround(image).mask.numpy(), ~ball())
    image[0, 10, 12, :9] = 0  # a canal of one voxel
    assert find_surround(image).mask[10, 12, 8]


def test_a_brain_that_reaches_the_border():
    part = brain(0.0)[:, 6:15, 7:17, 5:]
    found = find_surround(part)
    np.testing.assert_array_equal(found.mask.numpy(), ~ball()[6:15, 7:17, 5:])
    slab = brain(0.0)[..., 8:10]
    np.testing.assert_array_equal(find_surround(slab).mask.numpy(), ~ball()[..., 8:10])


@pytest.mark.parametrize("scale", [1, 3, 50])
@pytest.mark.parametrize("whole_numbers", [True, False])
def test_noise_is_no_surround(scale, whole_numbers):
    noise = np.abs(np.random.default_rng(0).normal(0, scale, SHAPE)) + 500 * ball()
    if whole_numbers:
        noise = noise.astype(np.int16)
    assert find_surround(torch.from_numpy(noise)[None].float()) is None


def test_padding_around_a_background():
    padded = torch.nn.functional.pad(brain(0.0), [3] * 6, value=-1.0)
    found = find_surround(padded)
    assert (found.values, found.constants) == ((-1.0,), 2)
    np.testing.assert_array_equal(found.mask[3:-3, 3:-3, 3:-3].numpy(), ~ball())
    assert str(found) == f"-1 and 1 more constants, {100 * found.share:.0f} % of the image"


def test_two_constants_side_by_side():
    image = brain(0.0)
    image[:, :3] = -5
    np.testing.assert_array_equal(find_surround(image).mask.numpy(), ~ball() | (np.arange(20) < 3)[:, None, None])


def test_shapes_of_one_value_remain():
    image = torch.zeros(1, 12, 12)
    image[0, 3:7, 4:9] = 1
    found = find_surround(image)
    assert found.constants == 1
    assert torch.equal(found.mask, image[0] == 0)


def test_a_constant_image_is_all_surround():
    assert find_surround(torch.full((1, 5, 6), 3.0)).share == 1


def test_an_image_of_nan_has_none():
    assert find_surround(torch.full((1, 5, 6), float("nan"))) is None


def test_ringing_of_splines_belongs_to_the_surround():
    values = np.where(ball((30, 30, 30), 0.6), 3 + np.random.default_rng(0).normal(size=(30, 30, 30)), 0)
    image = torch.from_numpy(ndimage.zoom(values, 1.5, order=3))[None]
    share = find_surround(image).share
    assert share > 0.8 * (values == 0).mean()


def test_metadata_and_types_do_not_matter():
    image = MetaTensor((brain(0.0) * 100).to(torch.int16) * torch.from_numpy(ball()))
    assert find_surround(image).values == (0.0,)

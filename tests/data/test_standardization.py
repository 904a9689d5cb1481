"""Mean 0 and standard deviation 1, as MONAI has it, in less memory."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import NormalizeIntensityd

from monai_unetpp.data import StandardizeIntensityd


@pytest.mark.parametrize("shape", [(1, 9, 8, 7), (3, 20, 30)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16])
def test_the_same_as_monai(shape, dtype):
    voxels = (300 * torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 700).to(dtype)
    image = MetaTensor(voxels.clone(), affine=np.diag([1.0, 2.0, 3.0, 1.0]), meta={"filename_or_obj": "a.nii"})
    ours, theirs = (each("image")({"image": image})["image"] for each in (StandardizeIntensityd, NormalizeIntensityd))
    assert torch.equal(ours.as_tensor(), theirs.as_tensor())
    assert ours.dtype == torch.float32
    assert abs(ours.mean()) < 1e-5
    assert float(ours.std(unbiased=False)) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(ours.affine, image.affine)
    assert ours.meta["filename_or_obj"] == "a.nii"
    assert torch.equal(image.as_tensor(), voxels)


def test_a_constant_image_becomes_zero():
    assert not StandardizeIntensityd("image")({"image": torch.full((1, 4, 4), 7.0)})["image"].any()


def test_missing_keys():
    assert StandardizeIntensityd("image", allow_missing_keys=True)({}) == {}
    with pytest.raises(KeyError, match="image"):
        StandardizeIntensityd("image")({})


def test_channels_are_standardized_for_themselves():
    image = torch.stack([torch.rand(4, 5, 6), 100 + 50 * torch.rand(4, 5, 6), torch.full((4, 5, 6), 7.0)])
    found = StandardizeIntensityd("image", channel_wise=True)({"image": image})["image"]
    expected = NormalizeIntensityd("image", channel_wise=True)({"image": image})["image"]
    torch.testing.assert_close(found, torch.as_tensor(expected), rtol=1e-4, atol=1e-4)


def test_the_surround_does_not_count_and_stays_constant():
    inside = torch.rand(1, 6, 6, 6) + 1
    image = torch.zeros(1, 12, 12, 12)
    image[:, 3:9, 3:9, 3:9] = inside
    found = StandardizeIntensityd("image", inside_surround=True)({"image": image})["image"]
    alone = StandardizeIntensityd("image")({"image": inside})["image"]
    torch.testing.assert_close(found[:, 3:9, 3:9, 3:9], alone)
    assert found[0, 0, 0, 0] == found.min() == found[0, 11, 5, 5]
    # without a surround, and of nothing but surround, all counts
    for other in (torch.rand(1, 6, 6, 6), torch.full((1, 6, 6, 6), 3.0)):
        plain = StandardizeIntensityd("image")({"image": other})["image"]
        assert torch.equal(StandardizeIntensityd("image", inside_surround=True)({"image": other})["image"], plain)

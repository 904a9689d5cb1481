"""Lazy pipelines resample images once, and label maps keep their values."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Flipd, Spacingd, SpatialPadd

from monai_unetpp.data import BlockwiseSpacingd

AFFINE = np.diag([1.5, 0.8, 2, 1])
PIXDIM = (1.0, 1.1, 1.3)


def image_and_label():
    image = torch.rand(1, 14, 11, 9, generator=torch.Generator().manual_seed(0)) * 100
    voxels = {"image": image, "label": 3 * (image > 50)}
    return {key: MetaTensor(each, affine=torch.as_tensor(AFFINE)) for key, each in voxels.items()}


def test_images_are_resampled_as_by_monai():
    steps = (each("image", PIXDIM) for each in (Spacingd, BlockwiseSpacingd))
    theirs, ours = (Compose([step], lazy=True)(image_and_label())["image"] for step in steps)
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-12)
    torch.testing.assert_close(ours.as_tensor(), theirs.as_tensor(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "how", [{"mode": "nearest"}, {"mode": 0}, {"mode": 3}, {"padding_mode": "zeros"}], ids=lambda how: str(how)
)
@pytest.mark.parametrize("in_compose", [True, False])
def test_modes_that_monai_loses_are_kept(how, in_compose):
    keys = ("image", "label")
    flip, pad = Flipd(keys, 0), SpatialPadd(keys, (20, 20, 20))
    modes = {name: ("bilinear" if name == "mode" else "border", value) for name, value in how.items()}
    eager = Compose([flip, BlockwiseSpacingd(keys, PIXDIM, **modes), pad])(image_and_label())
    spacing = BlockwiseSpacingd(keys, PIXDIM, **modes, lazy=not in_compose)
    lazy = Compose([flip, spacing, pad], lazy=in_compose or None)(image_and_label())
    ours, expected = lazy["label"], eager["label"]
    np.testing.assert_allclose(ours.affine, expected.affine, atol=1e-12)
    torch.testing.assert_close(ours.as_tensor().float(), expected.as_tensor().float(), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(lazy["image"].affine, expected.affine, atol=1e-12)
    assert lazy["image"].shape == expected.shape

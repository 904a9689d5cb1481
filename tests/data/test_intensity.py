"""Dark and bright backgrounds, and how often each kind of image is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from monai_unetpp.data import ImageKind, InvertBrightBackground, InvertBrightBackgroundd, kind_weights
from monai_unetpp.data.transforms.image_kinds import sort_kinds


@pytest.fixture
def dark() -> torch.Tensor:
    image = torch.full((1, 16, 16), 0.1)
    image[0, 4:8, 4:8] = 0.9
    return image


def test_both_backgrounds_become_dark(dark: torch.Tensor) -> None:
    assert InvertBrightBackground()(dark) is dark
    torch.testing.assert_close(InvertBrightBackground()(1 - dark), dark)
    torch.testing.assert_close(InvertBrightBackground(0, 255)(255 - 255 * dark), 255 * dark)


def test_the_median_is_that_of_all_columns() -> None:
    # twice as many pixels as are looked at, of which every second column is bright
    image = torch.full((1, 2048, 1024), 0.2)
    image[..., ::2] = 0.9
    image[0, :1200] = 0.1
    assert InvertBrightBackground()(image) is image


def test_only_the_images_of_the_keys(dark: torch.Tensor) -> None:
    done = InvertBrightBackgroundd("image")({"image": 1 - dark, "label": 1 - dark})
    torch.testing.assert_close(done["image"], dark)
    torch.testing.assert_close(done["label"], 1 - dark)
    with pytest.raises(KeyError):
        InvertBrightBackgroundd("image")({})
    assert InvertBrightBackgroundd("image", allow_missing_keys=True)({}) == {}


def test_constant_image_stays() -> None:
    assert InvertBrightBackground()(torch.zeros(1, 1, 1)).item() == 0


def test_range() -> None:
    with pytest.raises(ValueError, match=r"low must be below high, got 1 and 1\. Give the range"):
        InvertBrightBackground(1, 1)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e6, 0.0), (100.0, -500.0)])
def test_kinds_do_not_depend_on_the_scale(dark: torch.Tensor, scale: float, offset: float) -> None:
    assert ImageKind.of(dark[0] * scale + offset) == ImageKind((16, 16), "dark")
    assert ImageKind.of(((1 - dark[0]) * scale + offset).numpy()) == ImageKind((16, 16), "bright")


def test_few_outliers_do_not_change_the_kind() -> None:
    image = np.full((64, 64), 10, np.uint16)
    image[:8] = 2
    assert ImageKind.of(image).background == "bright"
    image[0, 0] = 60000
    assert ImageKind.of(image).background == "bright"


@pytest.mark.parametrize(("share", "background"), [(0.003, "bright"), (0.01, "dark")])
def test_an_image_is_of_one_kind_in_reports_and_in_training(tmp_path: Path, share: float, background: str) -> None:
    # most grey values lie in the upper half but for a few bright pixels
    image = np.random.default_rng(0).uniform(50, 100, (100, 100)).astype(np.float32)
    image[:40] = 90
    image.reshape(-1)[: int(share * image.size)] = 300
    nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "a.nii.gz")
    nib.save(nib.Nifti1Image(image.max() - image, np.eye(4)), tmp_path / "b.nii.gz")
    assert ImageKind.of(image).background == background
    cases = [{"image": str(tmp_path / f"{name}.nii.gz")} for name in "ab"]
    # two kinds, one of them with three cases of four
    assert (ImageKind.of(image.max() - image) == ImageKind.of(image)) == (kind_weights(cases * 10) == [20**-0.5] * 20)


def test_a_constant_image_is_dark() -> None:
    assert ImageKind.of(np.ones((3, 4, 5))) == ImageKind((3, 4, 5), "dark")


@pytest.fixture
def cases(tmp_path: Path, dark: torch.Tensor) -> list[dict[str, Any]]:
    """16 dark images, 4 bright ones of their shape, and 4 dark ones of another shape."""
    pixels = (dark[0].numpy() * 255).astype(np.uint8)
    found = []
    for name, image in {"dark": pixels, "bright": 255 - pixels, "long": np.vstack([pixels, pixels])}.items():
        nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / f"{name}.nii.gz")
        found.append({"image": str(tmp_path / f"{name}.nii.gz")})
    found[2]["image"] = [found[2]["image"]]  # both forms are those of data lists
    return [found[0]] * 16 + [found[1]] * 4 + [found[2]] * 4


@pytest.mark.parametrize(("power", "common", "rare"), [(0.0, 1.0, 1.0), (0.5, 0.25, 0.5), (1.0, 1 / 16, 0.25)])
def test_rare_kinds_weigh_more(cases: list[dict[str, Any]], power: float, common: float, rare: float) -> None:
    assert kind_weights(cases, power) == pytest.approx([common] * 16 + [rare] * 8)
    # weights follow the cases
    assert kind_weights(cases[::-1], power) == pytest.approx([rare] * 8 + [common] * 16)


def test_rare_kinds_weigh_at_most_a_multiple_of_the_most_frequent_one(cases: list[dict[str, Any]]) -> None:
    assert kind_weights(cases, most=1.5) == pytest.approx([0.25] * 16 + [0.375] * 8)
    assert kind_weights(cases, most=1.0) == pytest.approx([0.25] * 24)


def test_the_first_of_several_channels_in_a_file_tells_the_background(tmp_path: Path, dark: torch.Tensor) -> None:
    cases = []
    for name, first in {"dark": dark[0], "bright": 1 - dark[0]}.items():
        image = np.stack([first.numpy(), dark[0].numpy()], axis=-1)[:, :, None]
        nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / f"{name}.nii.gz")
        cases.append({"image": str(tmp_path / f"{name}.nii.gz")})
    data = [cases[0]] * 16 + [cases[1]] * 4
    assert kind_weights(data, channels=2) == pytest.approx([0.25] * 16 + [0.5] * 4)


def test_limits_of_the_weights(cases: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match=r"power must be from 0 to 1, got 1\.5"):
        kind_weights(cases[:1], 1.5)
    with pytest.raises(ValueError, match=r"most must be 1 or more, got 0\.5"):
        kind_weights(cases[:1], most=0.5)


def test_shapes_that_few_cases_share_and_one_cluster_of_brightness_tell_no_kinds() -> None:
    dark, bright, middle = [0.1] * 15, [0.9] * 5, [0.4, 0.6] * 10
    square, scattered = [(8, 8)] * 20, [(8, 8 + number // 2) for number in range(20)]
    backgrounds = ["dark"] * 15 + ["bright"] * 5
    assert sort_kinds(square, dark + bright) == [((8, 8), background) for background in backgrounds]
    assert sort_kinds(scattered, dark + bright) == [(None, background) for background in backgrounds]
    assert sort_kinds(scattered, middle) == [(None, None)] * 20

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, Flipd, Invertd

from monai_unetpp.data import (
    ClearBackgroundd,
    CropBackgroundd,
    ImageFileError,
    InvertProbabilitiesd,
    LevelSurroundd,
    StandardizeIntensityd,
)

IMAGE = torch.tensor([[[-0.7, -0.7, 0.1, 2.0]] * 4])


def cleared(pred, image=IMAGE, **options):
    return ClearBackgroundd("pred", **options)({"image": image, "pred": pred})["pred"]


def test_labels_become_background():
    assert cleared(torch.tensor([[[3, 0, 2, 1]] * 4], dtype=torch.uint8)).tolist() == [[[0, 0, 2, 1]] * 4]


def test_logits_rule_out_all_but_the_background():
    logits = torch.tensor([-5.0, 9.0, 8.0])[:, None, None].expand(3, 4, 4).clone()
    found = cleared(logits)
    assert found.argmax(0).tolist() == [[0, 0, 1, 1]] * 4
    assert torch.equal(found[..., 2:], logits[..., 2:])
    assert found.softmax(0).isfinite().all()
    assert logits.argmax(0).tolist() == [[1, 1, 1, 1]] * 4, "the given logits must stay as they are"


def test_all_channels_must_be_constant():
    image = torch.zeros(2, 8, 8)
    image[0, 4:] = torch.rand(4, 8) + 1
    image[1, :, :3] = torch.rand(8, 3) + 1
    expected = torch.ones(8, 8)
    expected[:4, 3:] = 0
    assert torch.equal(cleared(torch.ones(1, 8, 8, dtype=torch.int16), image)[0], expected.short())


def test_without_a_surround_nothing_is_cleared():
    pred = torch.ones(1, 8, 8, dtype=torch.uint8)
    assert cleared(pred, torch.randn(1, 8, 8)).all()


def test_metadata_is_kept():
    pred = MetaTensor(torch.ones(1, 4, 4, dtype=torch.uint8), meta={"filename_or_obj": "a.nii.gz"})
    assert cleared(pred).meta["filename_or_obj"] == "a.nii.gz"


def test_another_key_of_the_image():
    found = ClearBackgroundd("pred", image_key="t1")({"t1": IMAGE, "pred": torch.ones(1, 4, 4, dtype=torch.uint8)})
    assert found["pred"].tolist() == [[[0, 0, 1, 1]] * 4]


@pytest.mark.parametrize(
    ("pred", "message"),
    [
        (torch.zeros(1, 4, 5, dtype=torch.uint8), r"pred must have the size of image, \[4, 4\], got \[4, 5\]"),
        (torch.zeros(1, 4, 4), "pred must be logits with a channel for each class"),
    ],
)
def test_what_does_not_fit(pred, message):
    with pytest.raises(ValueError, match=message):
        cleared(pred)


def test_probabilities_follow():
    """Minus infinity is no damaged logit to what comes after."""
    preprocessing = Compose([Flipd("image", spatial_axis=1)])
    image = preprocessing({"image": MetaTensor(IMAGE)})["image"]
    logits = torch.tensor([0.0, 4.0])[:, None, None].expand(2, 4, 4).clone()
    pred = cleared(logits, image)
    item = InvertProbabilitiesd("pred", preprocessing)({"image": image, "pred": pred})
    assert item["pred"].tolist() == [[[0, 0, 1, 1]] * 4]


def test_crops_and_inverts_as_monai():
    image = torch.zeros(1, 9, 8)
    image[0, 3:5, 2:7] = 1
    options = {"keys": "image", "source_key": "image", "margin": 1, "allow_smaller": False}
    crop = Compose(CropBackgroundd(**options))
    found = crop({"image": MetaTensor(image)})
    expected = CropForegroundd(**options)({"image": MetaTensor(image)})
    assert found["image"].shape == (1, 4, 7)
    assert torch.equal(found["image"], expected["image"])
    found["pred"] = found["image"] + 1
    back = Invertd(keys="pred", orig_keys="image", transform=crop)(found)
    assert back["pred"].shape == image.shape


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_an_image_without_foreground_is_named(value):
    image = MetaTensor(torch.full((1, 4, 4), value), meta={"filename_or_obj": "a/b.nii.gz"})
    with pytest.raises(ImageFileError, match=r"a/b\.nii\.gz: has no foreground"):
        CropBackgroundd("image", "image")({"image": image})


def test_crops_what_surrounds_whatever_its_value():
    image = torch.full((1, 9, 8), -1024.0)
    image[0, 3:5, 2:7] = torch.arange(10).reshape(2, 5) - 1030.0
    assert CropBackgroundd("image", "image")({"image": image})["image"].tolist() == image[:, 3:5, 2:7].tolist()
    above = CropBackgroundd("image", "image", select_fn=lambda image: image > -1022)({"image": image})
    assert above["image"].shape == (1, 1, 1)


def head(noise: float = 0.0) -> torch.Tensor:
    """A ball that looks like a brain in T1: values from 130 to 1000, mostly about 650, in 0 or noise."""
    generator = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1, 1, 24)] * 3, indexing="ij")
    inside = sum(axis**2 for axis in axes) < 0.5
    values = np.where(inside, generator.beta(3, 2.1, (24,) * 3) * 870 + 130, noise * generator.random((24,) * 3))
    return torch.from_numpy(values.astype(np.float32))[None]


def level(image):
    return LevelSurroundd("image")({"image": image})["image"]


def test_an_image_that_has_zero_around_it_stays_bit_for_bit():
    image = MetaTensor(head())
    leveled = level(image)
    assert leveled.data_ptr() == image.data_ptr()
    assert "surround_share" not in image.meta
    assert leveled.meta["surround_value"] == 0
    assert leveled.meta["surround_share"] == pytest.approx(float((image == 0).double().mean()))


def test_the_content_of_a_hole_counts_as_any_other():
    image = head()
    image[0, 11:13, 11:13, 11:13] = 0
    assert level(image) is image
    assert ClearBackgroundd("pred")({"image": image, "pred": torch.ones_like(image).int()})["pred"][0, 12, 12, 12] == 1


@pytest.mark.parametrize("outside", [0.0, -5.5, -1000.0, 1000.0, 2.0])
@pytest.mark.parametrize(("centre", "width"), [(650, 170), (900, 300), (600, 10)])
def test_networks_see_normalized_brains_as_others(outside, centre, width):
    plain = head()
    normalized = torch.where(plain > 0, (plain - centre) / width, outside)
    expected, found = (StandardizeIntensityd("image")({"image": level(each)})["image"] for each in (plain, normalized))
    assert found[plain == 0].max() == found.min()
    assert (found - expected).abs().mean() < 0.1
    assert np.corrcoef(found[plain > 0], expected[plain > 0])[0, 1] > 0.999


@pytest.mark.parametrize(("factor", "offset"), [(1, -1000), (1, 500), (0.001, 0), (250, 7)])
def test_shifted_and_scaled_images_look_the_same(factor, offset):
    plain = head()
    expected, found = (
        StandardizeIntensityd("image")({"image": level(each)})["image"] for each in (plain, plain * factor + offset)
    )
    assert torch.allclose(expected, found, atol=1e-4)


def test_undershoots_of_interpolation_become_black():
    image = head()
    image[0, 2:4, 12, 12] = -30
    leveled = level(image)
    assert leveled.min() == 0
    assert torch.equal(leveled[image >= 0], image[image >= 0])


def test_padding_around_a_background_becomes_black_too():
    leveled = level(torch.nn.functional.pad(head(), [2] * 6, value=-1.0))
    assert torch.allclose(leveled[:, 2:-2, 2:-2, 2:-2], head() + (head() > 0))
    assert not leveled[:, :2].any()


def test_what_was_found_is_told(caplog):
    noise = MetaTensor(head(noise=20), meta={"filename_or_obj": "a/head.nii.gz"})
    with caplog.at_level("INFO"):
        unchanged = level(noise)
        level(MetaTensor(head() - 3, meta={"filename_or_obj": "a/brain.nii.gz"}))
    assert [record.message for record in caplog.records] == [
        "a/head.nii.gz: no constant surround found, as around a skull-stripped brain.",
        "a/brain.nii.gz: the surround is -3, 84 % of the image.",
    ]
    assert torch.equal(unchanged, noise)
    assert np.isnan(unchanged.meta["surround_value"])
    assert unchanged.meta["surround_share"] == 0


def test_an_axis_that_is_too_long_to_crop_is_told():
    image = torch.zeros(1, 2**15, 3)
    image[0, 5:, 1] = 1
    with pytest.raises(
        ImageFileError, match=r"image: has an axis of 32768 voxels, but the background can be cropped only"
    ):
        CropBackgroundd("image", "image")({"image": image})

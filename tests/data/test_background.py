import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, Flipd, Invertd

from monai_unetpp.data import ClearBackgroundd, CropBackgroundd, ImageFileError, InvertProbabilitiesd

IMAGE = torch.tensor([[[-0.7, -0.7, 0.1, 2.0]]])


def cleared(pred, image=IMAGE, **options):
    return ClearBackgroundd("pred", **options)({"image": image, "pred": pred})["pred"]


def test_labels_become_background():
    assert cleared(torch.tensor([[[3, 0, 2, 1]]], dtype=torch.uint8)).tolist() == [[[0, 0, 2, 1]]]


def test_logits_rule_out_all_but_the_background():
    logits = torch.tensor([-5.0, 9.0, 8.0])[:, None, None].expand(3, 1, 4).clone()
    found = cleared(logits)
    assert found.argmax(0).tolist() == [[0, 0, 1, 1]]
    assert torch.equal(found[..., 2:], logits[..., 2:])
    assert found.softmax(0).isfinite().all()
    assert logits.argmax(0).tolist() == [[1, 1, 1, 1]], "the given logits must stay as they are"


def test_all_channels_must_be_lowest():
    image = torch.cat([IMAGE, torch.tensor([[[0.0, 1.0, 0.0, 0.0]]])])
    assert cleared(torch.ones(1, 1, 4, dtype=torch.int16), image).tolist() == [[[0, 1, 1, 1]]]


def test_metadata_is_kept():
    pred = MetaTensor(torch.ones(1, 1, 4, dtype=torch.uint8), meta={"filename_or_obj": "a.nii.gz"})
    assert cleared(pred).meta["filename_or_obj"] == "a.nii.gz"


def test_another_key_of_the_image():
    found = ClearBackgroundd("pred", image_key="t1")({"t1": IMAGE, "pred": torch.ones(1, 1, 4, dtype=torch.uint8)})
    assert found["pred"].tolist() == [[[0, 0, 1, 1]]]


@pytest.mark.parametrize(
    ("pred", "message"),
    [
        (torch.zeros(1, 1, 5, dtype=torch.uint8), r"pred must have the size of image, \[1, 4\], got \[1, 5\]"),
        (torch.zeros(1, 1, 4), "pred must be logits with a channel for each class"),
    ],
)
def test_what_does_not_fit(pred, message):
    with pytest.raises(ValueError, match=message):
        cleared(pred)


def test_probabilities_follow():
    """Minus infinity is no damaged logit to what comes after."""
    preprocessing = Compose([Flipd("image", spatial_axis=1)])
    image = preprocessing({"image": MetaTensor(IMAGE)})["image"]
    logits = torch.tensor([0.0, 4.0])[:, None, None].expand(2, 1, 4).clone()
    pred = cleared(logits, image)
    item = InvertProbabilitiesd("pred", preprocessing)({"image": image, "pred": pred})
    assert item["pred"].tolist() == [[[0, 0, 1, 1]]]


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
    with pytest.raises(ImageFileError, match=r"a/b\.nii\.gz: no voxel is foreground"):
        CropBackgroundd("image", "image")({"image": image})

"""The template of a bundle's training, and values of a caller in place of what it says."""

import json
import sys

import pytest
import torch

import monai_unetpp.handlers
import monai_unetpp.training
from monai_unetpp.bundles import BundleConfig
from monai_unetpp.training import TEMPLATE, write_template


def configure(**values):
    config = BundleConfig(TEMPLATE, "train.json")
    for key, value in values.items():
        config[key] = value
    return config


HOSTILE = ["$1 / 0", "@seed", "%missing.json", "a#b::c", "__local_refs", "~/x, y.json"]


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_of_a_caller_are_never_read_as_configuration(text):
    config = configure(output_dir=text, dataset_dir=text, batch_size=3, check_data=False)
    assert config.parse("output_dir") == text
    curve = config.parse("train#curve")
    assert str(curve.path) == f"{text}/curve.csv"
    # what is not given is as the template says
    assert config.parse("seed") == 0
    assert config.parse("train#patches") == 1500 * 3


def names(transforms):
    return [type(each).__name__ for each in transforms]


def test_axes_and_labels_decide_which_transforms_there_are():
    def transforms(key, **values):
        return configure(**values).parse(key).transforms

    flat = transforms("train#preprocessing")
    assert not {"Orientationd", "BlockwiseSpacingd", "MapLabelValued"} & set(names(flat))
    values = {"spatial_dims": 3, "spacing_mm": [1.0, 1.0, 2.0], "label_values": [10, 300], "out_channels": 3}
    solid = transforms("train#preprocessing", **values)
    assert names(solid)[3:5] == ["Orientationd", "BlockwiseSpacingd"]
    assert names(solid)[-3:] == ["MapLabelValued", "SpatialPadd", "EnsureTyped"]
    flips = [each for each in transforms("train#augmentation", flip_axes=[1]) if type(each).__name__ == "RandFlipd"]
    assert [flip.flipper.spatial_axis for flip in flips] == [1]


def test_many_classes_are_not_wrapped():
    # values 10, 20, ... 3000 become classes 1 to 300, of which uint8 could not hold the last ones
    values = {"label_values": [10 * n for n in range(1, 301)], "out_channels": 301, "patch_size": [16, 16]}
    config = configure(**values)
    label = torch.tensor([10, 2560, 3000, 0] * 64).reshape(1, 16, 16)
    item = {"image": torch.zeros(1, 16, 16), "label": label}
    for transform in config.parse("train#preparation"):
        item = transform(item)
    assert item["label"].dtype == torch.int16
    assert item["label"].flatten()[:4].tolist() == [1, 256, 300, 0]
    assert configure().parse("train#dtypes")[1] == torch.uint8


def test_voxels_to_ignore_get_the_number_after_the_classes_and_no_loss():
    values = {"label_values": [3, 7], "ignore_label": 9, "out_channels": 3, "patch_size": [8, 8]}
    config = configure(**values)
    item = {"image": torch.zeros(1, 8, 8), "label": torch.tensor([0, 3, 7, 9] * 16).reshape(1, 8, 8)}
    for transform in config.parse("train#preparation"):
        item = transform(item)
    label = item["label"][None]
    assert label.flatten()[:4].tolist() == [0, 1, 2, 3]
    assert config.parse("train#augmentation").transforms[0].ignore_label == 3
    logits = torch.rand(1, 3, 8, 8)
    changed = torch.where(label == 3, 5.0, logits)
    loss = config.parse("loss")
    assert loss(logits, label) == loss(changed, label)


def test_a_bundle_is_written_once(tmp_path):
    write_template(tmp_path, {"steps": 7, "budget": 7})
    path = tmp_path / "configs" / "train.json"
    content, template = json.loads(path.read_text()), json.loads((TEMPLATE / "configs" / "train.json").read_text())
    assert content == {**template, "steps": 7}
    assert (tmp_path / "configs" / "evaluate.json").is_file()
    write_template(tmp_path, {"steps": 7})
    with pytest.raises(ValueError, match=r"train\.json: differs from what this version writes for these settings"):
        write_template(tmp_path, {"steps": 8})


def test_bundles_of_earlier_versions_find_their_handlers():
    for name in monai_unetpp.handlers.__all__:
        assert getattr(monai_unetpp.handlers, name) is getattr(monai_unetpp.training, name)


def test_values_that_no_class_stands_for_are_refused_before_the_first_step(discs_dir):
    config = configure(dataset_dir=str(discs_dir), label_values=[3])
    with pytest.raises(ValueError, match="the label must hold 0 and 3 only, got 1"):
        config.parse("data_check")


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_a_device_may_be_given_as_text(device):
    """As on the command line of MONAI."""
    config = BundleConfig(TEMPLATE, "train.json", "multi_gpu_train.json")
    config["device"] = device
    assert config.parse("network#device_ids") is None
    assert config.parse("train#dataloader#pin_memory") is False
    assert config.parse("initialize#1#device") == device


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no fork that is safe")
@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "fork")])
def test_processes_that_draw_patches_share_the_prepared_cases(workers, context):
    """Since Python 3.14 others would get a copy of them."""
    assert configure(num_workers=workers).parse("train#dataloader#multiprocessing_context") == context

"""What the configurations of every bundle do with labels that are not as they should be."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from monai_unetpp.bundles import label_names
from monai_unetpp.data import describe_failure

SHAPES = {2: (48, 40), 3: (40, 48, 40)}


@pytest.fixture
def parsed(bundle, tmp_path):
    """A function that gives ``train.json``, with further files over it, as parsed configuration for data here."""
    if bundle.name == "head_mri_unetpp":
        pytest.skip("its label maps hold FreeSurfer's numbers: test_head_bundle.py")

    def parse(*names, **changes):
        parser = ConfigParser()
        parser.read_config([str(bundle / "configs" / f"{name}.json") for name in ("train", *names)])
        given = {"bundle_root": str(bundle), "dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "out")}
        parser.update({**given, "device": torch.device("cpu"), **changes})
        return parser

    return parse


def number(parser, key):
    """An argument of the network; planned bundles state it at the top."""
    value = parser["network_def"][key]
    return parser[value.removeprefix("@")] if isinstance(value, str) else value


def write(folder, parser, name, label=None, affine=None, label_affine=None, header=None):
    """A case with a bright box of each class, and the label map as it is or should be."""
    dims, classes = (number(parser, key) for key in ("spatial_dims", "out_channels"))
    true = np.zeros(SHAPES[dims])
    for value in range(1, classes):
        true[(slice(9 * value - 6, 9 * value), slice(10, 25), slice(10, 25))[:dims]] = value
    affine = np.eye(4) if affine is None else affine
    image = (true * 80 + np.random.default_rng(len(name)).normal(200, 9, true.shape)).astype(np.int16)
    nib.save(nib.Nifti1Image(image, affine), folder / f"{name}_image.nii.gz")
    stored = true.astype(np.uint8) if label is None else label(true)
    place = affine if label_affine is None else label_affine
    nib.save(nib.Nifti1Image(stored, place, header), folder / f"{name}_label.nii.gz")
    return {key: str(folder / f"{name}_{key}.nii.gz") for key in ("image", "label")}, true


def names_of(parser, **more):
    return {**{f"class {n}": n for n in range(1, number(parser, "out_channels"))}, **more}


def list_cases(folder, labels, training, validation):
    content = {"labels": labels, "training": training, "validation": validation}
    (folder / "dataset.json").write_text(json.dumps(content))


def refusal(parser, entry):
    with pytest.raises(Exception, match=r"applying transform|label") as caught:
        parser.get_parsed_content("preprocessing")(entry)
    return describe_failure(caught.value)


def test_scaled_labels_keep_their_classes(parsed, tmp_path):
    parser = parsed()
    if parser.get("spacing_mm"):
        parser["spacing_mm"] = [1.0] * 3  # that of the image, so that no voxel is resampled
    header = nib.Nifti1Header()
    header.set_data_dtype("uint8")
    entry, true = write(tmp_path, parser, "a", label=lambda true: true.astype(np.float64), header=header)
    label = parser.get_parsed_content("preprocessing")(entry)["label"]
    # the brain's is cropped to what is not background
    assert torch.bincount(label.flatten().long())[1:].tolist() == np.bincount(true.astype(int).ravel())[1:].tolist()
    assert bool((label == label.round()).all())


def test_what_cannot_be_a_label_is_refused(parsed, tmp_path):
    parser = parsed()
    for name, change, found in (
        ("half", lambda true: (true / 2).astype(np.float32), "must hold integers, got fractions such as 0.5"),
        ("unknown", lambda true: (true + 50).astype(np.uint8), "only, got 50"),
        ("negative", lambda true: -true.astype(np.int16), "only, got -"),
    ):
        message = refusal(parser, write(tmp_path, parser, name, label=change)[0])
        assert f"{name}_label.nii.gz: the label" in message
        assert found in message


def test_a_label_on_another_grid_is_refused(parsed, tmp_path):
    parser = parsed()
    lps = np.diag([-1.0, -1, 1, 1])
    for name, place in (("mirrored", np.eye(4)), ("moved", lps + 3 * np.eye(4, k=3))):
        message = refusal(parser, write(tmp_path, parser, name, affine=lps, label_affine=place)[0])
        assert f"{name}_label.nii.gz: not on the grid of {tmp_path / name}_image.nii.gz: its corners lie" in message


@pytest.mark.slow
@pytest.mark.parametrize("names", [(), ("finetune",), ("evaluate",)])
def test_data_are_checked_before_any_work(parsed, tmp_path, names):
    parser = parsed(*names)
    good, _ = write(tmp_path, parser, "good")
    bad, _ = write(tmp_path, parser, "bad", label=lambda true: (true + 50).astype(np.uint8))
    list_cases(tmp_path, names_of(parser), [good], [bad])
    # MONAI wraps the errors of what it calls
    with pytest.raises(RuntimeError, match="check_labelled_data") as caught:
        parser.get_parsed_content("run#0")
    message = str(caught.value.__cause__)
    assert "dataset.json: cases must be sound, got 1 of" in message
    assert "bad_label.nii.gz: the label must hold 0 and" in message
    parsed(*names, check_data=False).get_parsed_content("run#0")


@pytest.mark.parametrize("names", [(), ("finetune",), ("evaluate",)])
def test_names_of_labels_must_have_the_values_of_the_bundle(parsed, bundle, tmp_path, names):
    parser = parsed(*names)
    case, _ = write(tmp_path, parser, "good")
    values = {name: value for value, name in label_names(bundle).items()}
    swapped = dict(zip(values, [*list(values.values())[1:], 1], strict=True)) if len(values) > 1 else {}
    for labels in (values, {name.upper(): value for name, value in values.items()}):
        list_cases(tmp_path, labels, [case], [case])
        parser.get_parsed_content("data_check")
    if not swapped:
        return
    list_cases(tmp_path, swapped, [case], [case])
    with pytest.raises(RuntimeError, match="check_labelled_data") as caught:
        parsed(*names).get_parsed_content("data_check")
    assert "dataset.json: labels must have the values that the network gives them" in str(caught.value.__cause__)


def test_what_is_ignored_takes_no_part_in_loss_and_scores(parsed, tmp_path):
    """Labels in a part of the image, or ``ignore`` in all of it but for that: the loss sees the same, scores too."""
    parser = parsed()
    if parser["ignore_label"] is None:
        pytest.skip("a plan states the ignored label, and the data of this bundle have none")
    dims, classes = (number(parser, key) for key in ("spatial_dims", "out_channels"))

    def partly(true):
        label = true.astype(np.uint8)
        label[:, 20:] = 200
        return label

    entry, true = write(tmp_path, parser, "a", label=partly)
    list_cases(tmp_path, names_of(parser, ignore=200), [entry], [entry])
    parser.get_parsed_content("run#0")
    label = parser.get_parsed_content("preprocessing")(entry)["label"].as_tensor()
    assert set(label.unique().tolist()) == {*range(classes), 200}
    logits = torch.randn(1, classes, *label.shape[1:], generator=torch.Generator().manual_seed(0))
    other = torch.where(label[None] == 200, -logits, logits)
    loss = parser.get_parsed_content("loss")
    assert torch.equal(loss(logits, label[None]), loss(other, label[None]))
    final = parser.get_parsed_content("validate#postprocessing").transforms[-1]
    found = [
        final({"pred": each[0].argmax(dim=0, keepdim=True).float(), "label": label})["pred"] for each in (logits, other)
    ]
    assert torch.equal(*found)
    assert int(found[0].sum()) == int((label != 200).sum())
    assert dims == true.ndim


def test_predictions_have_the_values_of_the_label_maps_that_they_are_compared_with(parsed, tmp_path):
    parser = parsed()
    classes = number(parser, "out_channels")
    parser = parsed("evaluate", label_values=[10 * value for value in range(1, classes)])
    case, _ = write(tmp_path, parser, "a")
    image = parser.get_parsed_content("preprocessing")({"image": case["image"]})["image"]
    logits = image.new_zeros((classes, *image.shape[1:]))
    logits[1] = 1
    found = parser.get_parsed_content("postprocessing")({"image": image, "pred": logits})["pred"]
    values = set(found.unique().tolist())
    assert 10 in values
    assert values <= {0, 10}

"""Copies of data sets, and the table of what was trained on them."""

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from benchmarks import data_to_bundle
from benchmarks.data_to_bundle import Outcome, format_outcomes, main, make_copy, merge_labels, thicken, to_pictures
from monai_unetpp.data import load_datalist

IMAGE = np.arange(84, dtype=np.float32).reshape(3, 4, 7)
LABEL = np.zeros((3, 4, 7), np.uint8)
LABEL[0], LABEL[1] = 1, 2


def read(folder, name):
    return np.asarray(nib.load(folder / name).dataobj)


def test_labels_are_merged_into_one_of_another_value(tmp_path):
    case = merge_labels(IMAGE, LABEL, np.eye(4), tmp_path / "a")
    assert np.array_equal(read(tmp_path, case["image"]), IMAGE)
    assert np.array_equal(read(tmp_path, case["label"]), np.where(LABEL > 0, 17, 0))


def test_three_slices_become_one_at_their_middle_in_two_channels(tmp_path):
    case = thicken(IMAGE, LABEL, np.diag([1.0, 1, 2, 1]), tmp_path / "a")
    first, second = (nib.load(tmp_path / name) for name in case["image"])
    assert np.allclose(first.dataobj, IMAGE[..., [1, 4]])
    assert np.allclose(np.asarray(second.dataobj), IMAGE[..., 4].max() - IMAGE[..., [1, 4]])
    assert first.affine[2].tolist() == [0, 0, 6, 2]
    assert np.unique(read(tmp_path, case["label"])).tolist() == [0, 7, 40]


def test_pictures_have_eight_bits_and_rows_from_top_to_bottom(tmp_path):
    case = to_pictures(IMAGE[0], LABEL[:, :, 0], np.eye(4), tmp_path / "a")
    with Image.open(tmp_path / case["image"]) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (7, 4)
    assert (pixels.min(), pixels.max(), pixels[1, 0]) == (0, 255, round(255 / 27))


@pytest.fixture
def hippocampus_dir(tmp_path):
    folder = tmp_path / "data" / "hippocampus"
    folder.mkdir(parents=True)
    for key, array in (("image", IMAGE), ("label", LABEL)):
        nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{key}.nii.gz")
    case = {"image": "image.nii.gz", "label": "label.nii.gz"}
    content = {"name": "Two", "modality": {"0": "MRI"}, "training": [case], "validation": [case]}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("name", ["merged", "thick"])
def test_a_copy_keeps_the_lists(hippocampus_dir, tmp_path, name):
    folder = make_copy(hippocampus_dir, tmp_path / "copy", name)
    for key in ("training", "validation"):
        assert len(load_datalist(folder, key)) == 1
    content = json.loads((folder / "dataset.json").read_text())
    assert content["name"] == f"Two, {name}"
    assert len(content["modality"]) == (2 if name == "thick" else 1)


def test_the_table_tells_what_each_training_gave(hippocampus_dir, tmp_path, monkeypatch, capsys):
    outcome = Outcome(19.5, 1200, (12, 3), {"L1": 0.7, "L2": 0.81}, "Keep L2.", (), True)
    asked = []
    monkeypatch.setattr(data_to_bundle, "make_bundle", lambda *given: asked.append(given) or outcome)
    table = tmp_path / "table.md"
    data_dir = str(hippocampus_dir.parent)
    assert main([data_dir, "--work", str(tmp_path / "w"), "--only", "merged", "-o", str(table)]) == 0
    assert asked == [(tmp_path / "w" / "merged" / "data", tmp_path / "w" / "merged", 20.0)]
    assert "| merged | 12 + 3 | 19.5 | 1200 | 0.700 | 0.810 | Keep L2. | none |" in table.read_text()
    assert "Every bundle segments." in capsys.readouterr().out


def test_levels_that_a_network_lacks_stay_empty():
    outcomes = {
        "flat": Outcome(1.0, 10, (2, 1), {"L1": 0.5}, "Keep L1.", ("no label",), True),
        "deep": Outcome(1.0, 10, (2, 1), {"L1": 0.5, "L2": 0.6}, "Keep L2.", (), False),
    }
    text = format_outcomes(outcomes, 1)
    assert "| flat | 2 + 1 | 1.0 | 10 | 0.500 |  | Keep L1. | no label |" in text
    assert "Every bundle segments." not in text


def test_a_data_set_that_is_missing_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--work", str(tmp_path / "w"), "--only", "merged"])
    assert "hippocampus" in capsys.readouterr().err

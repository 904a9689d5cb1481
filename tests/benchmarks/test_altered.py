"""Copies of a data set with inverted contrast and thick slices."""

import json

import nibabel as nib
import numpy as np
import pytest

from benchmarks.altered import (
    ALTERATIONS,
    add_noise,
    blur,
    brighten,
    cut_to_labels,
    cut_to_middle,
    invert,
    main,
    rotate,
    thicken,
)


def test_inverting_swaps_dark_and_bright_and_leaves_the_surround():
    image, _, _ = invert(np.array([0, 10, 20, 40], np.float32), np.zeros(4), np.eye(4))
    assert image.tolist() == [0, 40, 30, 10]


def test_thick_slices_are_means_with_the_labels_and_the_place_of_their_middle():
    image = np.arange(11, dtype=np.float32).reshape(1, 11, 1)
    affine = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 3], [0, 0, 0, 1]])
    thick, label, placed = thicken(image, image.astype(np.int16), affine)
    assert thick[0, :, 0].tolist() == [2, 7]
    assert label[0, :, 0].tolist() == [2, 7]
    assert nib.affines.voxel_sizes(placed).tolist() == [1, 5, 1]
    assert (placed @ [0, 0, 0, 1]).tolist() == [0, 0, 5, 1]


@pytest.mark.parametrize("change", [add_noise, blur, brighten])
def test_changed_intensities_leave_the_surround_and_the_labels(change):
    image = np.zeros((9, 9, 9), np.float32)
    image[2:7, 2:7, 2:7] = np.arange(100, 225).reshape(5, 5, 5)
    label = (image > 150).astype(np.uint8)
    changed, same, affine = change(image, label, np.eye(4))
    inside = image != 0
    assert not changed[~inside].any()
    assert (changed[inside] != image[inside]).mean() > 0.9
    assert np.array_equal(same, label)
    assert np.array_equal(affine, np.eye(4))
    assert np.array_equal(changed, change(image, label, affine)[0])


def test_brightening_lifts_the_middle_and_keeps_both_ends():
    image, _, _ = brighten(np.array([0, 100, 125, 200], np.float32), np.zeros(4), np.eye(4))
    assert image.tolist() == [0, 100, 150, 200]


def test_image_and_label_are_rotated_alike():
    image = np.zeros((21, 21, 3), np.float32)
    image[10:, 9:12] = 100
    turned, label, _ = rotate(image, (image > 50).astype(np.uint8), np.eye(4))
    assert turned[20, 10, 1] == 0
    assert set(np.unique(label)) == {0, 1}
    assert ((turned > 50) == label).mean() > 0.98


@pytest.mark.parametrize(("cut", "shape"), [(cut_to_middle, (5, 4)), (cut_to_labels, (4, 5))])
def test_what_is_cut_off_leaves_the_rest_in_place(cut, shape):
    label = np.zeros((9, 8), np.uint8)
    label[2:4, 4:7] = 1
    image = np.arange(72, dtype=np.float32).reshape(9, 8)
    part, kept, affine = cut(image, label, np.diag([2.0, 3, 1, 1]))
    assert part.shape == kept.shape == shape
    first = (np.linalg.inv(np.diag([2.0, 3, 1, 1])) @ affine @ [0, 0, 0, 1]).astype(int)
    assert part[0, 0] == image[first[0], first[1]]
    assert cut_to_labels(image, np.zeros_like(label), affine)[0].shape == image.shape


def test_every_list_becomes_a_list_of_each_copy(tmp_path, capsys):
    for key in ("image", "label"):
        nib.save(nib.Nifti1Image(np.ones((4, 4, 10), np.int16), np.eye(4)), tmp_path / f"{key}.nii.gz")
    lists = {"test": [{"image": "image.nii.gz", "label": "label.nii.gz"}]}
    (tmp_path / "dataset.json").write_text(json.dumps(lists))
    only = ["inverted", "thick", "rotated"]
    assert main([str(tmp_path), str(tmp_path / "out"), "--lists", "test", "--only", *only]) == 0
    assert capsys.readouterr().out == "1 cases, inverted and thick and rotated.\n"
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(only) < set(ALTERATIONS)
    for name, depth in (("inverted", 10), ("thick", 2), ("rotated", 10)):
        made = json.loads((tmp_path / "out" / name / "dataset.json").read_text())["test"][0]
        assert nib.load(tmp_path / "out" / name / made["image"]).shape == (4, 4, depth)
        assert nib.load(tmp_path / "out" / name / made["label"]).shape == (4, 4, depth)


def test_files_named_alike_are_all_kept(tmp_path):
    for number in (1, 2):
        (tmp_path / f"case{number}").mkdir()
        for key in ("image", "label"):
            voxels = np.full((4, 4, 4), number, np.int16)
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / f"case{number}" / f"{key}.nii.gz")
    cases = [{key: f"case{number}/{key}.nii.gz" for key in ("image", "label")} for number in (1, 2)]
    (tmp_path / "dataset.json").write_text(json.dumps({"test": cases}))
    assert main([str(tmp_path), str(tmp_path / "out"), "--lists", "test", "--only", "central"]) == 0
    made = json.loads((tmp_path / "out" / "central" / "dataset.json").read_text())["test"]
    assert [nib.load(tmp_path / "out" / "central" / each["label"]).get_fdata().max() for each in made] == [1, 2]


def test_a_list_that_is_missing_is_named(tmp_path, capsys):
    (tmp_path / "dataset.json").write_text(json.dumps({"test": []}))
    with pytest.raises(SystemExit):
        main([str(tmp_path), str(tmp_path / "out")])
    assert "validation" in capsys.readouterr().err

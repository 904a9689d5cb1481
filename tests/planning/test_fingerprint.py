"""What a labelled data set is like, against numbers made by hand."""

from __future__ import annotations

import dataclasses
import json

import nibabel
import numpy as np
import pytest
from fingerprints import fingerprint
from PIL import Image

from monai_unetpp.cli import main
from monai_unetpp.data.datasets import case_check
from monai_unetpp.data.transforms.sampling import sample_evenly
from monai_unetpp.guard import find_guard
from monai_unetpp.planning import Fingerprint, data_rules, measuring, take_fingerprint
from monai_unetpp.planning.sides import left_right_pairs, mirrored_pairs

# axes P, R, S with voxels of 2, 1 and 3 mm
AFFINE = np.array([[0, 1.0, 0, 5], [-2.0, 0, 0, 6], [0, 0, 3.0, 7], [0, 0, 0, 1]])


def voxels(length):
    """A ramp from 100 in a surround of 0, and its labels."""
    image = np.zeros((12, length, 8), np.float32)
    image[2:-2, 3:-3, 1:-1] = np.linspace(100, 200, length - 6, dtype=np.float32)[:, None]
    label = np.zeros(image.shape, np.uint8)
    label[3, 4, 2:4] = 1
    label[6, 6, 4] = 1
    label[8, 4:6, 2] = 2
    label[2, 3, 1] = 3
    return image, label


@pytest.fixture
def folder(tmp_path):
    """Two volumes of one subject and one of another, two channels on a fourth axis."""
    entries = []
    for name, length in (("sub-1_a", 14), ("sub-1_b", 14), ("sub-2_a", 16)):
        image, label = voxels(length)
        nibabel.save(nibabel.Nifti1Image(np.stack([image, -image], -1), AFFINE), tmp_path / f"{name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, AFFINE), tmp_path / f"{name}_label.nii.gz")
        entries.append({"image": f"{name}.nii.gz", "label": f"{name}_label.nii.gz"})
    content = {
        "modality": {"0": "T1", "1": "FLAIR"},
        "labels": {"0": "background", "1": "left x", "2": "right x", "3": "ignore"},
        "training": entries,
        "validation": [],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return tmp_path


def test_numbers_are_those_made_by_hand_and_axes_are_in_the_order_of_ras(folder):
    found = take_fingerprint(folder)
    assert (found.spatial_dims, found.channels, found.modality) == (3, ("T1", "FLAIR"), "MR")
    assert (found.labels, found.ignore_label) == ({"left x": 1, "right x": 2}, 3)
    assert found.left_right == (("left x", "right x"),)
    assert found.median_spacing_mm == (1.0, 2.0, 3.0)
    assert found.median_shape == (14, 12, 8)
    first, _, last = found.cases
    assert (first.name, first.subject, last.subject) == ("sub-1_a", "sub-1", "sub-2")
    assert (first.shape, last.shape) == ((14, 12, 8), (16, 12, 8))
    assert first.size_mm == (8.0, 16.0, 18.0)
    assert first.constant_surround
    assert (first.voxels, first.parts) == ({"left x": 3, "right x": 2}, {"left x": 2, "right x": 1})
    assert first.volumes_ml == pytest.approx({"left x": 0.018, "right x": 0.012})
    image, label = voxels(14)
    inside = image[(label == 1) | (label == 2)]
    assert first.intensity[0].foreground.mean == pytest.approx(inside.mean())
    assert first.intensity[1].foreground.sd == pytest.approx(inside.std(), rel=1e-5)
    assert first.intensity[0].whole.p50 == np.median(image)
    pooled = found.intensity[0].foreground
    assert pooled.mean == pytest.approx(np.mean([case.intensity[0].foreground.mean for case in found.cases]))
    assert (pooled.p0_5, pooled.p50) == pytest.approx((111.111, 114.286), abs=1e-3)


def test_it_tells_where_labels_lie_among_the_intensities_and_in_the_surround(folder):
    path = folder / "sub-2_a_label.nii.gz"
    image, label = voxels(16)
    # half of the right one lies in the surround
    label[0, 0, :2] = 2
    nibabel.save(nibabel.Nifti1Image(label, AFFINE), path)
    found = take_fingerprint(folder)
    first, _, last = found.cases
    assert (first.in_surround, last.in_surround) == ({}, {"right x": 0.5})
    assert found.in_surround == pytest.approx({"left x": 0.0, "right x": 0.5 / 3})
    inside = image[label == 1]
    assert last.medians["left x"] == pytest.approx((np.median(inside), -np.median(inside)))
    content = image[2:-2, 3:-3, 1:-1]
    assert last.bounds[0] == pytest.approx(np.percentile(content, (0.5, 99.5)))
    lowest, *inner, highest = found.quantiles[0]
    assert (lowest, highest) == (0.0, voxels(14)[0][6, 6, 4])
    assert (inner[0], inner[-1]) == (found.intensity[0].foreground.p0_5, found.intensity[0].foreground.p99_5)


def test_labels_measured_together_are_as_each_by_itself():
    generator = np.random.default_rng(0)
    label = generator.integers(0, 6, (9, 8, 7)).astype(np.int32)
    label[label == 5] = 10**9
    label[label == 4] = 0
    image, hidden = generator.normal(size=(2, *label.shape)).astype(np.float32), generator.random(label.shape) < 0.1
    for values in ({"a": 1, "b": 2, "none": 4, "d": 3}, {"far": 10**9, "a": 1, "none": 4}):
        # in memory in the other order, as files have it
        found = measuring._measure_labels(np.asfortranarray(label), values, image, hidden)
        assert list(found) == list(values)
        for name, value in values.items():
            mask = label == value
            assert found[name] == measuring._measure_labels(mask.astype(np.uint8), {name: 1}, image, hidden)[name]
            assert found[name].voxels == np.count_nonzero(mask)
            if mask.any():
                assert found[name].medians == tuple(float(np.median(channel[mask].astype(float))) for channel in image)
                assert found[name].in_surround == np.count_nonzero(mask & hidden) / np.count_nonzero(mask)
            else:
                assert found[name] == measuring._MeasuredLabel()


@pytest.fixture
def sparse(tmp_path):
    """Two cases with a box and a smaller one, of which two coronal slices are annotated, and a complete case."""
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        label = np.zeros((20, 20, 20), np.uint8)
        label[4:14, 5:15, 5:15] = 1
        if number < 2:
            label[16:18, 5:15, 5:15] = 2
            unlabelled = np.ones(20, bool)
            unlabelled[2::5] = False
            label[:, unlabelled] = 3
        image = np.random.default_rng(number).normal(100, 20, label.shape).astype(np.float32)
        image[label == 3] = 1000
        nibabel.save(
            nibabel.Nifti1Image(image, np.diag([2.0, 1.0, 1.0, 1.0])), tmp_path / f"imagesTr/{number}_0000.nii"
        )
        nibabel.save(nibabel.Nifti1Image(label, np.diag([2.0, 1.0, 1.0, 1.0])), tmp_path / f"labelsTr/{number}.nii")
    labels = {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}
    content = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 3, "file_ending": ".nii"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return tmp_path


def test_ignored_voxels_are_neither_a_label_nor_around_one(sparse):
    found = take_fingerprint(sparse, ("training", "validation"))
    cases = sorted(found.cases, key=lambda case: case.name)
    first, _, complete = cases
    assert (first.ignored, complete.ignored) == (16 * 400, 0)
    assert first.voxels == {"organ": 200, "lesion": 40}
    # across R, A and S, where A is the axis of the slices
    assert first.faces == {"organ": (40, 0, 40), "lesion": (40, 0, 8)}
    assert complete.faces["organ"] == (200, 200, 200)
    # 400 faces of 2 mm², of which the other ones are 40 of 1 mm² and 40 of 2 mm²
    assert first.cut == pytest.approx({"organ": 800 / 920, "lesion": 160 / 216})
    assert complete.cut == {}
    assert first.intensity[0].foreground.p99_5 < 200
    # as they are where 3 is a label as well
    content = json.loads((sparse / "dataset.json").read_text())
    content["labels"]["other"] = content["labels"].pop("ignore")
    (sparse / "dataset.json").write_text(json.dumps(content))
    known = take_fingerprint(sparse, ("training", "validation"))
    first, _, _ = sorted(known.cases, key=lambda case: case.name)
    assert first.faces["organ"] == (40, 400, 40)
    assert (first.ignored, first.cut) == (0, {})


def test_volumes_are_those_of_complete_labels_alone(sparse, tmp_path):
    found = take_fingerprint(sparse, ("training", "validation"))
    cases = sorted(found.cases, key=lambda case: case.name)
    ranges = dataclasses.replace(found, cases=tuple(cases)).ranges
    # no complete case has the lesion, of which others have some
    assert ranges.volumes_ml == {"organ": pytest.approx((2.0, 2.0))}
    assert (ranges.cases, ranges.complete) == (3, 1)
    all_sparse = dataclasses.replace(found, cases=tuple(cases[:2]))
    assert all_sparse.ranges.volumes_ml == {}
    flat = [dataclasses.replace(case, shape=(20, 20), spacing_mm=(1, 1), size_mm=(20, 20)) for case in cases]
    pictures = dataclasses.replace(found, spatial_dims=2, cases=tuple(flat))
    assert (pictures.ranges.volumes_ml, pictures.ranges.area_shares) == ({}, {"organ": (2.5, 2.5)})
    # those of an older version did not know how many there are
    found.write(tmp_path / "new.json")
    content = json.loads((tmp_path / "new.json").read_text())
    for case in content["cases"]:
        del case["ignored"], case["ignored_in_surround"], case["cut"]
    assert Fingerprint.from_dict(content).cases[0].ignored == 0


def test_ignored_voxels_in_the_surround_are_counted(folder):
    path = folder / "sub-2_a_label.nii.gz"
    _, label = voxels(16)
    # with the one inside
    label[0, 0, :3] = 3
    nibabel.save(nibabel.Nifti1Image(label, AFFINE), path)
    first, _, last = take_fingerprint(folder).cases
    assert (first.ignored, first.ignored_in_surround) == (1, 0.0)
    assert (last.ignored, last.ignored_in_surround) == (4, 0.75)


def test_it_is_the_same_from_json_and_without_cases_it_names_none(folder, tmp_path):
    found = take_fingerprint(folder)
    found.write(tmp_path / "all.json")
    assert Fingerprint.read(tmp_path / "all.json") == found
    found.write(tmp_path / "some.json", with_cases=False)
    assert "sub-1" not in (tmp_path / "some.json").read_text()
    assert Fingerprint.read(tmp_path / "some.json").cases == ()
    (tmp_path / "some.json").write_text('{"form": 0}')
    with pytest.raises(ValueError, match=r"some\.json: a fingerprint must have form 1, got 0"):
        Fingerprint.read(tmp_path / "some.json")


def test_numbers_stand_in_the_place_of_names(folder, tmp_path):
    found = take_fingerprint(folder)
    found.without_names().write(tmp_path / "shared.json")
    assert "sub-" not in (tmp_path / "shared.json").read_text()
    shared = Fingerprint.read(tmp_path / "shared.json")
    numbers = [("case_1", "subject_1"), ("case_2", "subject_1"), ("case_3", "subject_2")]
    assert [(case.name, case.subject) for case in shared.cases] == numbers
    assert [case.shape for case in shared.cases] == [case.shape for case in found.cases]
    assert shared.ranges == found.ranges


def test_a_second_run_reads_changed_cases_only(folder, tmp_path, monkeypatch):
    cache, read = tmp_path / "cache.json", []

    def noted(case, *arguments, **options):
        read.append(case.name)
        return case_check.read_image(case, *arguments, **options)

    monkeypatch.setattr(measuring, "read_image", noted)
    lines = []
    first = take_fingerprint(folder, cache=cache, progress=lines.append)
    assert lines == [f"measuring: {number} of 3" for number in (1, 2, 3)]
    assert take_fingerprint(folder, cache=cache) == first
    assert len(read) == 3
    image, _ = voxels(16)
    nibabel.save(nibabel.Nifti1Image(np.stack([2 * image, image], -1), AFFINE), folder / "sub-2_a.nii.gz")
    assert take_fingerprint(folder, cache=cache) != first
    assert read[3:] == ["sub-2_a"]
    cache.write_text("no json")
    assert len(take_fingerprint(folder, cache=cache).cases) == 3


def test_cases_that_cannot_be_read_are_counted_and_named(folder):
    (folder / "sub-1_b.nii.gz").write_text("no image")
    with pytest.raises(ValueError, match=r"cases must be sound, got 1 of 3 with a problem:\n- .*sub-1_b\.nii\.gz: "):
        take_fingerprint(folder)


def test_images_that_patches_cannot_be_drawn_from_are_refused(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        for number in range(2):
            picture = np.zeros((70_000, 4), np.uint8)
            picture[5:9, 2:] = 1
            Image.fromarray(picture).save(tmp_path / kind / f"strip_{number}.png")
    with pytest.raises(
        ValueError, match=r"strip_\d\.png: the image must be at most 65534 voxels long, got 4 x 70000\."
    ):
        take_fingerprint(tmp_path)


def test_hounsfield_units_are_known_where_nobody_named_the_modality(tmp_path):
    for number in range(2):
        image, label = voxels(14)
        for kind, array in (("images", np.where(image == 0, -1000, image)), ("labels", np.where(label > 1, 0, label))):
            (tmp_path / kind).mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array.astype(np.int16), AFFINE), tmp_path / kind / f"{number}.nii.gz")
    found = take_fingerprint(tmp_path)
    assert (found.modality, found.channels, found.labels) == ("CT", ("channel_0",), {"label_1": 1})


def test_check_writes_what_a_guard_reads(folder, tmp_path, capsys):
    bundle = tmp_path / "bundle"
    content = json.loads((folder / "dataset.json").read_text())
    content["labels"] = {"a": 1, "b": 2, "ignore": 3}
    del content["validation"]
    (folder / "dataset.json").write_text(json.dumps(content))
    # sub-1_a and sub-1_b are equal, which check tells
    assert main(["check", str(folder), "--fingerprint", str(bundle / "configs" / "fingerprint.json")]) == 1
    image, label = voxels(15)
    nibabel.save(nibabel.Nifti1Image(np.stack([image, -image], -1), AFFINE), folder / "sub-1_b.nii.gz")
    nibabel.save(nibabel.Nifti1Image(label, AFFINE), folder / "sub-1_b_label.nii.gz")
    assert main(["check", str(folder), "--fingerprint", str(bundle / "configs" / "fingerprint.json")]) == 0
    assert "the ranges of the training cases" in capsys.readouterr().out
    assert find_guard(bundle).ranges.constant_surround == 1.0
    assert main(["check", "hippocampus_mri_unetpp", "--fingerprint", "x.json"]) == 2
    assert "must be a data set for --fingerprint" in capsys.readouterr().err
    assert main(["check", str(folder), "--schema", "x.json"]) == 2
    assert "must be a bundle for --schema" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["LeftKidney", "RightKidney"], [("LeftKidney", "RightKidney")]),
        (["kidney_left", "kidney_right", "spleen"], [("kidney_left", "kidney_right")]),
        (["L putamen", "R putamen"], [("L putamen", "R putamen")]),
        (["ctx-lh-precuneus", "ctx-rh-precuneus"], [("ctx-lh-precuneus", "ctx-rh-precuneus")]),
        (["femur_l_head", "femur_r_head"], [("femur_l_head", "femur_r_head")]),
        (["Lt Kidney", "Rt Kidney", "lung_lt", "lung_rt"], [("Lt Kidney", "Rt Kidney"), ("lung_lt", "lung_rt")]),
        (["leftlung", "rightlung"], [("leftlung", "rightlung")]),
        (["LKid", "RKid", "rad", "lad"], [("LKid", "RKid"), ("lad", "rad")]),
        (["liver", "lung", "rib", "L1", "R1", "LV", "RV"], []),
        (["left atrium", "right ventricle"], []),
        (["R lung", "L lung"], [("L lung", "R lung")]),
        (["rechte Lunge", "linke Lunge"], [("linke Lunge", "rechte Lunge")]),
        (["rein_droit", "rein_gauche"], [("rein_gauche", "rein_droit")]),
        (["rib_L1", "rib_R1", "kidney_R_2", "kidney_L_2"], [("rib_L1", "rib_R1"), ("kidney_L_2", "kidney_R_2")]),
        (["left_1", "right_1", "vertebrae_L1", "L-spine"], [("left_1", "right_1")]),
    ],
)
def test_left_and_right_are_known_by_name(names, pairs):
    assert list(left_right_pairs(names)) == pairs


def test_labels_that_mirror_each_other_are_known_by_where_they_lie():
    kidneys = {"A": [(10, 40), (50, 90), (20, 120)], "B": [(110, 145), (45, 90), (10, 115)]}
    parts = {"front": [(10, 40), (50, 70), (20, 40)], "back": [(12, 38), (75, 95), (20, 40)]}
    inner = {"white": [(20, 100), (20, 100), (20, 100)], "grey": [(10, 110), (10, 110), (10, 110)]}
    assert mirrored_pairs([{**kidneys, **parts, **inner}] * 3) == (("A", "B"),)
    # in most cases, of those that have both
    assert mirrored_pairs([kidneys, {"A": kidneys["A"]}, {"A": kidneys["A"], "B": kidneys["A"]}]) == ()
    assert mirrored_pairs([]) == ()


def test_where_labels_lie_is_known_from_complete_ones_if_there_are_any():
    lungs = {"A": ((10, 40), (50, 90), (20, 120)), "B": ((70, 110), (45, 90), (10, 115))}
    cut = {**lungs, "B": ((70, 110), (45, 50), (10, 115))}
    other = {"C": ((10, 40), (250, 290), (20, 120)), "D": ((70, 110), (245, 290), (10, 115))}
    case = fingerprint().cases[0]

    def measured(boxes, ignored):
        return measuring._Measured(dataclasses.replace(case, ignored=ignored), (), (), (), boxes)

    partly = [measured({**cut, **other}, 9)] * 3
    assert measuring._mirrored([measured(lungs, 0), *partly]) == (("A", "B"), ("C", "D"))
    assert measuring._mirrored([measured(cut, 0), *[measured(lungs, 9)] * 9]) == ()
    assert measuring._mirrored(partly) == (("C", "D"),)


def test_volumes_whose_labels_mirror_each_other_are_not_mirrored(tmp_path):
    def save(folder, array):
        (tmp_path / folder).mkdir(exist_ok=True)
        for number in range(2):
            # the first axis of the array is that between front and back
            turned = np.swapaxes(array + number * (folder == "images"), 0, 1)
            nibabel.save(nibabel.Nifti1Image(turned, np.eye(4)[[1, 0, 2, 3]]), tmp_path / folder / f"{number}.nii.gz")

    label = np.zeros((20, 12, 12), np.uint8)
    label[2:8, 3:9, 3:9], label[12:19, 3:9, 2:9] = 3, 7
    save("labels", label)
    save("images", label * 10 + np.arange(12, dtype=np.uint8))
    found = take_fingerprint(tmp_path, ("training", "validation"))
    assert found.left_right == (("label_3", "label_7"),)
    assert data_rules.choose_flip_axes(found, rotate90=False).value == []


@pytest.mark.parametrize("shape", [(1024, 1024, 4), (512, 512, 16), (4, 1024, 1024)])
def test_samples_are_taken_from_all_planes(shape):
    """Steps that divide the length of an axis would fall on the same few planes."""
    planes = np.broadcast_to(np.indices(shape, sparse=True)[shape.index(min(shape))], shape)
    found = np.bincount(sample_evenly(planes).astype(int))
    assert len(found) == min(shape)
    assert found.min() > 0.9 * found.max()

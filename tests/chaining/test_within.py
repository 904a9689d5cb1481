"""A bundle within another: where it looks, what it is shown, and where its labels come to lie."""

import csv
import json
import shutil

import highdicom
import nibabel as nib
import numpy as np
import pytest
from chained_bundles import SHOWN, ByPlace, make_bundle
from json_edits import edit_json

import monai_unetpp
from monai_unetpp.cli.program import main
from monai_unetpp.segmentation import segment_files
from tests.data.dicom_builder import Grid, series_datasets, write_all

SIDES = {
    "margin_mm": 2,
    "crops": {"left": {"labels": ["left nut"]}, "right": {"labels": ["right nut"], "mirrored": True}},
}
SHELL = {"margin_mm": 0, "masked": True, "crops": {"all": {}}}
TOTAL = "sum of all"


def leave_as_stored(inference):
    preprocessing = inference["preprocessing"]
    steps = [step for step in preprocessing["transforms"] if step["_target_"] != "Orientationd"]
    preprocessing["transforms"] = steps


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    root = tmp_path_factory.mktemp("bundles")
    nuts = ["left nut", "right nut"]
    make_bundle(root / "outer", "ByIntensity", nuts, brain_mask=nuts, totals={TOTAL: nuts})
    make_bundle(root / "inner", "ByPlace", ["lateral", "medial"], within={"outer": SIDES})
    make_bundle(root / "stripped", "ByPlace", ["lateral", "medial"], within={"outer": SHELL})
    misnamed = {**SIDES, "crops": {"left": {"labels": ["left nutt"]}}}
    make_bundle(root / "misnamed", "ByPlace", ["lateral", "medial"], within={"outer": misnamed})
    make_bundle(root / "as_stored", "ByPlace", ["lateral", "medial"], within={"outer": SIDES})
    edit_json(root / "as_stored" / "configs" / "inference.json", leave_as_stored)
    return root


def turned(degrees):
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about_z = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return about_z @ about_x


GRIDS = {
    "RAS": np.eye(3),
    "LPS": np.diag([-1.0, -1, 1]),
    "PIR and 1 x 1 x 3 mm": np.array([[0, 0, 3.0], [-1, 0, 0], [0, -1, 0]]),
    "oblique": turned(25) @ np.diag([1.0, 1.5, 0.8]),
    "oblique and left-handed": turned(-35) @ np.diag([-0.9, 1.2, 2.0]),
}


def make_scan(path, axes, sides=(-1, 1)):
    """Two balls of 9 mm, 100 to the left and 200 to the right of the middle of space, and a faint corner."""
    shape = np.ceil(np.array([66, 44, 44]) @ np.abs(np.linalg.inv(axes)).T).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = -axes @ ((shape - 1) / 2)
    places = np.moveaxis(np.indices(shape), 0, -1) @ axes.T + affine[:3, 3]
    image = np.zeros(shape, np.float32)
    image[0, 0, 0] = 20
    for side in sides:
        image[np.linalg.norm(places - [15 * side, 0, 0], axis=-1) < 9] = 100 if side < 0 else 200
    nib.save(nib.Nifti1Image(image, affine), path)
    return image, affine


def expected(image, affine):
    """1 and 3 in the lateral half of a ball, 2 and 4 in the medial one, halved along the axis that is most like R."""
    orientation = nib.io_orientation(affine)
    axis = int(np.flatnonzero(orientation[:, 0] == 0)[0])
    rightward = orientation[axis, 1]
    result = np.zeros(image.shape, int)
    for number, intensity in enumerate((100, 200)):
        inside = image == intensity
        index = np.indices(image.shape)[axis]
        to_the_right = (index - index[inside].mean()) * rightward
        lateral = to_the_right < 0 if number == 0 else to_the_right > 0
        result[inside] = np.where(lateral, 1, 2)[inside] + 2 * number
    return result


@pytest.mark.parametrize("grid", GRIDS)
def test_each_side_is_segmented_as_a_left_one_and_lies_where_it_was(bundles, tmp_path, grid):
    image, affine = make_scan(tmp_path / "scan.nii.gz", GRIDS[grid])
    summary = segment_files(tmp_path / "scan.nii.gz", tmp_path / "out", bundles / "inner", within=bundles / "outer")
    assert summary.failures == ()
    assert (summary.bundle, summary.within) == ("inner", "outer")
    assert summary.labels == {1: "left lateral", 2: "left medial", 3: "right lateral", 4: "right medial"}
    found = nib.load(summary.cases[0].output)
    assert np.allclose(found.affine, affine, atol=1e-5)
    wanted = expected(image, affine)
    # a plane of voxels in the very middle may belong to either half
    assert np.array_equal(np.asarray(found.dataobj) > 0, wanted > 0)
    assert (np.asarray(found.dataobj) == wanted).mean() > 0.995
    assert min((np.asarray(found.dataobj) == value).sum() for value in range(1, 5)) > 200


def test_a_crop_has_the_margin_in_mm_and_ends_with_the_scan(bundles, tmp_path):
    make_scan(tmp_path / "scan.nii.gz", np.diag([1.0, 1.0, 1.5]))
    SHOWN.clear()
    segment_files(tmp_path / "scan.nii.gz", tmp_path / "out", bundles / "inner", within=bundles / "outer")
    assert len(SHOWN) == 2
    for crop in SHOWN:
        ball = np.argwhere(np.asarray(crop[0, 0]) > 0)
        before, after = ball.min(0), np.array(crop.shape[2:]) - 1 - ball.max(0)
        assert before.tolist() == after.tolist() == [2, 2, 2]  # 2 mm are two voxels of 1 mm, and two of 1.5 mm


@pytest.mark.parametrize("extent", [(1, 16), (0, 15), (28, 43), (29, 44), (0, 44)])
def test_what_is_nearer_to_the_edge_of_the_scan_than_the_margin_is_segmented_whole(bundles, tmp_path, extent):
    image = np.zeros((66, 44, 44), np.float32)
    image[0, 0, 0] = 20
    image[5:20, slice(*extent), 10:25] = 100
    image[45:60, 10:25, slice(*extent)] = 200
    affine = np.eye(4)
    affine[0, 3] = -33
    nib.save(nib.Nifti1Image(image, affine), tmp_path / "scan.nii.gz")
    summary = segment_files(tmp_path / "scan.nii.gz", tmp_path / "out", bundles / "inner", within=bundles / "outer")
    assert summary.failures == ()
    found = np.asarray(nib.load(summary.cases[0].output).dataobj)
    assert np.array_equal(found > 0, image > 50)


def test_tables_tell_of_both_sides_and_of_the_sums_of_the_first_bundle(bundles, tmp_path):
    image, _ = make_scan(tmp_path / "scan.nii.gz", np.diag([1.0, 1.0, 2.0]))
    arguments = [str(tmp_path / "scan.nii.gz"), "--bundle", str(bundles / "inner"), "--within", str(bundles / "outer")]
    assert main(["segment", *arguments, "--mask", "-o", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "volumes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["left lateral", "left medial", "right lateral", "right medial", TOTAL]
    assert [row["label"] for row in rows] == ["1", "2", "3", "4", ""]
    voxels = int((image > 50).sum())
    assert sum(int(row["voxels"]) for row in rows[:4]) == int(rows[4]["voxels"]) == voxels
    assert float(rows[4]["ml"]) == pytest.approx(voxels * 0.002)
    mask = nib.load(tmp_path / "out" / "scan_mask.nii.gz")
    assert np.array_equal(np.asarray(mask.dataobj), image > 50)
    (run,) = json.loads((tmp_path / "out" / "run.json").read_text())["runs"]
    assert (run["bundle"]["name"], run["within"]["name"]) == ("inner", "outer")
    assert len(run["within"]["sha256"]) == 64


@pytest.mark.slow
def test_a_dicom_seg_has_the_side_of_each_crop(bundles, tmp_path):
    root = shutil.copytree(bundles, tmp_path / "bundles")
    path = root / "inner" / "configs" / "metadata.json"
    part = {"value": "49370004", "scheme": "SCT", "meaning": "Lateral"}
    codes = {
        "category": {"value": "91723000", "scheme": "SCT", "meaning": "Anatomical Structure"},
        "type": {"value": "5366008", "scheme": "SCT", "meaning": "Hippocampus"},
    }
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "label_codes": {"1": {**codes, "modifier": part}, "2": codes}})
    )
    image, _ = make_scan(tmp_path / "scan.nii.gz", np.eye(3))
    study = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    grid = Grid(spacing_mm=(1.0, 1.0), step_mm=1.0)
    datasets = series_datasets(image[::-1, ::-1].astype(np.int16), grid, [study] * image.shape[2])
    scan = write_all(tmp_path / "scan", datasets)
    summary = segment_files(scan, tmp_path / "out", root / "inner", within=root / "outer", dicom_seg=True)
    assert summary.failures == ()
    written = highdicom.seg.segread(tmp_path / "out" / "scan_seg.dcm")
    found = []
    for number in written.segment_numbers:
        description = written.get_segment_description(number)
        (region,) = description.anatomic_regions
        (kind,) = description.SegmentedPropertyTypeCodeSequence
        modifiers = [code.CodeMeaning for code in kind.get("SegmentedPropertyTypeModifierCodeSequence", [])]
        assert region.value == kind.CodeValue == "5366008"
        found.append((description.segment_label, region.AnatomicRegionModifierSequence[0].CodeValue, modifiers))
    assert found == [
        ("left lateral", "7771000", ["Lateral"]),
        ("left medial", "7771000", []),
        ("right lateral", "24028007", ["Lateral"]),
        ("right medial", "24028007", []),
    ]


def test_what_is_masked_is_shown_without_its_surround(bundles, tmp_path):
    image, affine = make_scan(tmp_path / "scan.nii.gz", np.eye(3))
    image[image < 50] = 40  # a surround, which rounds to no label
    nib.save(nib.Nifti1Image(image, affine), tmp_path / "scan.nii.gz")
    SHOWN.clear()
    found = monai_unetpp.segment(tmp_path / "scan.nii.gz", bundles / "stripped", within=bundles / "outer")
    assert set(np.unique(SHOWN[-1])) == {0, 100, 200}
    assert found.labels == {1: "lateral", 2: "medial"}
    assert np.array_equal(found.array > 0, image > 40)


def test_one_side_alone_is_segmented_and_told_and_none_is_a_failure(bundles, tmp_path):
    for name, sides in (("a_right", [1]), ("b_none", [])):
        make_scan(tmp_path / f"{name}.nii.gz", np.eye(3), sides)
    inputs = [tmp_path / "a_right.nii.gz", tmp_path / "b_none.nii.gz"]
    summary = segment_files(inputs, tmp_path / "out", bundles / "inner", within=bundles / "outer")
    (done,) = summary.cases
    (failure,) = summary.failures
    assert done.warnings == (
        f"{inputs[0]}: the region to segment was not found for left, which is left empty. Check the image.",
    )
    assert done.volumes_ml["left lateral"] == 0 < done.volumes_ml["right lateral"]
    assert failure.startswith(f"{inputs[1]}: the region to segment was not found. Check")


def test_depths_are_those_of_the_second_bundle_over_all_crops(bundles, tmp_path, monkeypatch):
    monkeypatch.setattr(ByPlace, "depths", {"adaptive": {"L2": 2, "L3": 1}}, raising=False)
    make_scan(tmp_path / "scan.nii.gz", np.eye(3))
    summary = segment_files(tmp_path / "scan.nii.gz", tmp_path / "out", bundles / "inner", within=bundles / "outer")
    assert summary.depths == summary.cases[0].depths == {"L2": 4, "L3": 2}


@pytest.mark.slow
def test_results_are_passed_over_only_if_made_within_the_same_bundle_and_complete(bundles, tmp_path):
    make_scan(tmp_path / "scan.nii.gz", np.eye(3))

    def again(**options):
        given = {"within": bundles / "outer", "skip_existing": True, **options}
        return segment_files(tmp_path / "scan.nii.gz", tmp_path / "out", bundles / "inner", **given).skipped

    assert [again(), again(), again(mask=True), again(mask=True)] == [0, 1, 0, 1]
    # a mask of an earlier label map is none of this one
    assert [again(skip_existing=False), again(mask=True), again(mask=True), again(within=None)] == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("bundle", "options", "message"),
    [
        ("outer", {"within": "inner"}, r"outer.configs.metadata\.json: has no entry 'within', so outer works within"),
        (
            "inner",
            {"within": "inner"},
            r"^inner works within outer, not within inner, which has no label 'left nut'\. Name outer or a copy",
        ),
        ("stripped", {"within": "inner"}, r"^stripped works within outer, not within inner, which has no brain mask\."),
        (
            "misnamed",
            {"within": "outer"},
            r"misnamed.configs.metadata\.json: crop 'left' within outer must name labels, got 'left nutt', which is",
        ),
        ("as_stored", {"within": "outer"}, r"as_stored.configs.metadata\.json: within has mirrored crops, but"),
        ("inner", {"mask": True}, r"inner.configs.metadata\.json: has no entry 'brain_mask'"),
        ("inner", {"within": "outer", "instances": True}, "within must not be combined with instances"),
        ("inner", {"dicom_seg": True, "instances": True}, "dicom_seg must not be combined with instances"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(bundles, tmp_path, bundle, options, message):
    make_scan(tmp_path / "scan.nii.gz", np.eye(3))
    given = {key: bundles / value if key == "within" else value for key, value in options.items()}
    with pytest.raises(ValueError, match=message) as caught:
        segment_files(tmp_path / "scan.nii.gz", tmp_path / "out", bundles / bundle, **given)
    assert "\n" not in str(caught.value)

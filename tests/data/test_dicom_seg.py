"""DICOM series in, DICOM SEG out: read back by highdicom, it is the label map, voxel by voxel."""

import json
import math
import os
import shutil
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_builder import SERIES, Grid, enhanced_dataset, frame_groups, series_datasets, slice_dataset, write, write_all

from monai_unetpp import segment as segment_one
from monai_unetpp.cli import main
from monai_unetpp.data.datasets.cases import find_cases
from monai_unetpp.data.formats.dicom import read_dicom
from monai_unetpp.data.formats.dicom_seg import (
    SIDES,
    Code,
    DicomSegSaved,
    LabelCodes,
    check_references,
    read_label_codes,
)
from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.data.formats.naming import RESULT_NAME
from monai_unetpp.data.formats.reader import read_label_map
from monai_unetpp.data.formats.series_choice import choose_series
from monai_unetpp.results import hash_image
from monai_unetpp.segmentation import segment_files

NAMES = {1: "anterior", 4: "posterior"}
STUDY = {"StudyInstanceUID": f"{SERIES}.9", "FrameOfReferenceUID": f"{SERIES}.8"}
OBLIQUE = Grid(orientation=(0.8, 0.6, 0.0, 0.0, 0.0, -1.0), step_mm=2.5)


@pytest.fixture
def voxels():
    return np.random.default_rng(0).integers(0, 1000, (7, 6, 5)).astype(np.int16)


@pytest.fixture
def labels(voxels):
    return np.random.default_rng(1).choice([0, 1, 4], voxels.shape).astype(np.uint8)


def write_dicom_seg(path, labels, source, names, codes=None, model=""):
    DicomSegSaved("pred", names, codes, model).write(path.with_suffix(".nii"), labels, source)


def labels_at(path, positions):
    """What a DICOM SEG says at positions in mm (RAS), by segment; slices at its ends that hold none are left out."""
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    indices = nib.affines.apply_affine(np.linalg.inv(volume.affine), positions * (-1, -1, 1))
    rounded = np.rint(indices).astype(int)
    np.testing.assert_allclose(indices, rounded, atol=1e-3)
    inside = ((rounded >= 0) & (rounded < volume.array.shape)).all(axis=1)
    found = np.zeros(len(positions), int)
    found[inside] = volume.array[tuple(rounded[inside].T)]
    return found


@pytest.mark.parametrize("grid", [Grid(), OBLIQUE], ids=["axial", "oblique"])
def test_equal_voxel_for_voxel_with_references_to_the_images(tmp_path, voxels, labels, grid):
    datasets = series_datasets(voxels, grid, [STUDY] * 5)
    folder = write_all(tmp_path / "scan", datasets, order=[3, 1, 4, 0, 2])
    write_dicom_seg(tmp_path / "a.dcm", labels, [folder], NAMES, model="tiny")
    affine = read_dicom([folder])[1]
    index = np.argwhere(labels >= 0)
    found = labels_at(tmp_path / "a.dcm", nib.affines.apply_affine(affine, index))
    # segments are numbered in their order
    np.testing.assert_array_equal(np.array([0, 1, 4])[found], labels[tuple(index.T)])
    written = highdicom.seg.segread(tmp_path / "a.dcm")
    references = {uid for _, _, uid in written.get_source_image_uids()}
    assert references == {dataset.SOPInstanceUID for dataset in datasets}
    assert [written.get_segment_description(n).segment_label for n in (1, 2)] == list(NAMES.values())
    assert written.StudyInstanceUID == STUDY["StudyInstanceUID"]


def test_labels_keep_their_names_in_any_script(tmp_path, voxels, labels):
    folder = write_all(tmp_path / "scan", series_datasets(voxels, Grid(), [STUDY] * 5))
    names = {1: "海马体", 4: "größere Läsion"}
    write_dicom_seg(tmp_path / "a.dcm", labels, [folder], names)
    written = highdicom.seg.segread(tmp_path / "a.dcm")
    assert [written.get_segment_description(n).segment_label for n in (1, 2)] == list(names.values())


def check_written_for(dataset, labels, folder):
    """The DICOM SEG for one file of many frames has the labels at their places."""
    for name, uid in STUDY.items():
        setattr(dataset, name, uid)
    path = write(folder / "many.dcm", dataset)
    write_dicom_seg(folder / "seg.dcm", labels, [path], NAMES)
    index = np.argwhere(labels >= 0)
    found = labels_at(folder / "seg.dcm", nib.affines.apply_affine(read_dicom([path])[1], index))
    np.testing.assert_array_equal(np.array([0, 1, 4])[found], labels[tuple(index.T)])


def test_one_file_of_many_frames(tmp_path, voxels, labels):
    frames = np.transpose(voxels, (2, 1, 0))
    order = [2, 0, 4, 1, 3]
    dataset = enhanced_dataset(frames[order], Grid(), [frame_groups(Grid(), k, shared=True) for k in order])
    check_written_for(dataset, labels, tmp_path)


@pytest.mark.parametrize("is_empty", [False, True])
def test_groups_that_each_frame_repeats_are_those_of_all(tmp_path, voxels, labels, is_empty):
    groups = [frame_groups(Grid(), k, shared=True) for k in range(5)]
    dataset = enhanced_dataset(np.transpose(voxels, (2, 1, 0)), Grid(), groups)
    [shared] = dataset.SharedFunctionalGroupsSequence
    for group in dataset.PerFrameFunctionalGroupsSequence:
        for name in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
            setattr(group, name, shared[name].value)
    dataset.SharedFunctionalGroupsSequence = [pydicom.Dataset()]
    if is_empty:
        del dataset.SharedFunctionalGroupsSequence
    check_written_for(dataset, labels, tmp_path)


@pytest.mark.parametrize(
    ("date", "time", "expected"),
    [
        ("2020.01.31", "10:11:12", ("20200131", "101112")),
        ("20200131", "101112.5", ("20200131", "101112.5")),
        ("31 January", "noon", ("", "")),
    ],
)
def test_dates_are_in_the_present_form_or_left_empty(tmp_path, voxels, labels, date, time, expected):
    tags = {**STUDY, "StudyDate": date, "StudyTime": time, "PatientBirthDate": date}
    with pydicom.config.disable_value_validation():
        folder = write_all(tmp_path / "scan", series_datasets(voxels, Grid(), [tags] * 5))
    write_dicom_seg(tmp_path / "a.dcm", labels, [folder], NAMES)
    written = pydicom.dcmread(tmp_path / "a.dcm")
    assert (written.StudyDate, written.StudyTime, written.PatientBirthDate) == (*expected, expected[0])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SOPInstanceUID", "", "has no SOPInstanceUID, which a DICOM SEG needs"),
        ("SOPClassUID", "", "has no SOPClassUID, which a DICOM SEG needs"),
        ("SOPClassUID", "1.3.12.2.1107.5.9.1", "is of no class of DICOM that a DICOM SEG can name. Leave"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.4.1", "has several files of the class Enhanced MR Image Storage"),
    ],
)
def test_files_that_a_dicom_seg_cannot_refer_to_are_told(tmp_path, voxels, name, value, message):
    folder = write_all(tmp_path / "scan", series_datasets(voxels, Grid(), [STUDY] * 5))
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        delattr(dataset, name)
        if value:
            setattr(dataset, name, value)
        dataset.save_as(path)
    with pytest.raises(ImageFileError, match=f"scan: {message}"):
        check_references([folder])


def test_labels_that_are_nowhere(tmp_path, voxels, labels):
    folder = write_all(tmp_path / "scan", series_datasets(voxels, Grid(), [STUDY] * 5))
    write_dicom_seg(tmp_path / "a.dcm", np.zeros_like(labels), [folder], NAMES)
    assert not highdicom.seg.segread(tmp_path / "a.dcm").get_volume(combine_segments=True).array.any()


@pytest.mark.slow
def test_codes_of_every_bundle(tmp_path, voxels, bundle, labels):
    path = bundle / "configs" / "metadata.json"
    content = json.loads(path.read_text())
    codes = read_label_codes(path, content["label_codes"])
    channels = content["network_data_format"]["outputs"]["pred"]["channel_def"]
    names = {int(value): name for value, name in channels.items() if value != "0"}
    assert set(codes) == set(names)
    folder = write_all(tmp_path / "scan", series_datasets(voxels, Grid(), [STUDY] * 5))
    write_dicom_seg(tmp_path / "a.dcm", np.minimum(labels, 1), [folder], names, codes)
    written = pydicom.dcmread(tmp_path / "a.dcm")
    for segment, value in zip(written.SegmentSequence, sorted(names), strict=True):
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        assert (kind.CodeValue, kind.CodingSchemeDesignator) == (codes[value].type.value, "SCT")
        modifiers = kind.get("SegmentedPropertyTypeModifierCodeSequence", [])
        assert [one.CodeValue for one in modifiers] == [one.value for one in [codes[value].modifier] if one is not None]


def test_sides_are_of_the_region_of_a_structure_and_modify_a_lesion(tmp_path, voxels, labels):
    folder = write_all(tmp_path / "scan", series_datasets(voxels, Grid(), [STUDY] * 5))
    structure = Code("91723000", "SCT", "Anatomical Structure"), Code("64033007", "SCT", "Kidney")
    lesion = Code("49755003", "SCT", "Morphologically Altered Structure"), Code("108369006", "SCT", "Neoplasm")
    codes = {1: LabelCodes(*structure, side=SIDES["left"]), 4: LabelCodes(*lesion, side=SIDES["right"])}
    write_dicom_seg(tmp_path / "a.dcm", labels, [folder], NAMES, codes)
    first, second = pydicom.dcmread(tmp_path / "a.dcm").SegmentSequence
    (region,) = first.AnatomicRegionSequence
    assert (region.CodeValue, region.AnatomicRegionModifierSequence[0].CodeMeaning) == ("64033007", "Left")
    assert "SegmentedPropertyTypeModifierCodeSequence" not in first.SegmentedPropertyTypeCodeSequence[0]
    assert "AnatomicRegionSequence" not in second
    (modifier,) = second.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence
    assert modifier.CodeMeaning == "Right"


def test_what_cannot_be_written_is_named(tmp_path, voxels, labels):
    with pytest.raises(ValueError, match=r"metadata\.json: label_codes must give category, type"):
        read_label_codes("metadata.json", {"1": {"type": {"value": "1"}}})
    folder = write_all(tmp_path / "scan", series_datasets(voxels, Grid()))
    with pytest.raises(ImageFileError, match=r"scan: has no StudyInstanceUID, which a DICOM SEG needs"):
        write_dicom_seg(tmp_path / "a.dcm", labels, [folder], NAMES)
    own_studies = [{**STUDY, "StudyInstanceUID": f"1.2.{k}"} for k in range(5)]
    mixed = write_all(tmp_path / "mixed", series_datasets(voxels, Grid(), own_studies))
    with pytest.raises(
        ImageFileError, match=r"mixed: its slices differ in StudyInstanceUID, but a DICOM SEG refers to"
    ):
        write_dicom_seg(tmp_path / "a.dcm", labels, [mixed], NAMES)
    (tmp_path / "a.nii").touch()
    with pytest.raises(ImageFileError, match=r"a\.nii: not DICOM, so no DICOM SEG"):
        write_dicom_seg(tmp_path / "a.dcm", labels, [tmp_path / "a.nii"], NAMES)
    shutil.copy(folder / "000.dcm", tmp_path / "a.dcm")
    with pytest.raises(FileExistsError, match=r"a\.dcm: exists and was not written by monai-unetpp"):
        write_dicom_seg(tmp_path / "a.dcm", labels, [folder], NAMES)


@pytest.fixture
def study(tmp_path, decathlon_dir):
    """A folder with two series that are volumes and a localizer in two directions."""
    folder = tmp_path / "study"
    for number in (3, 4):
        image = nib.load(decathlon_dir / "imagesTr" / f"case_{number}.nii.gz")
        voxels = np.asarray(image.dataobj).astype(np.int16)
        tags = {**STUDY, "SeriesNumber": str(number), "SeriesInstanceUID": f"{SERIES}.{number}"}
        tags["SeriesDescription"] = f"T{number}"
        for k in range(voxels.shape[2]):
            dataset = slice_dataset(voxels[:, :, k].T, k, Grid(), **tags)
            dataset.SOPInstanceUID = f"{SERIES}.{number}.{k}"
            write(folder / f"{number}_{k:02d}.dcm", dataset)
    for k, grid in enumerate((Grid(), OBLIQUE)):
        localizer = slice_dataset(np.eye(5, dtype=np.int16), k, grid, **STUDY, SeriesNumber="1")
        localizer.SeriesInstanceUID, localizer.SOPInstanceUID = f"{SERIES}.1", f"{SERIES}.1.{k}"
        write(folder / f"1_{k}.dcm", localizer)
    return folder


def test_each_series_beside_a_picture_of_the_same_name_has_a_result_of_its_own(study):
    items = [{**item, RESULT_NAME: item["case"]} for item in find_cases(study)]
    choose_series(items, "all")
    assert len(items) > 1
    assert not any(RESULT_NAME in item for item in items)


@pytest.mark.parametrize("wanted", ["4", "T4", f"{SERIES}.4"])
def test_one_series_by_number_description_or_uid(study, wanted):
    items = find_cases(study)
    choose_series(items, wanted)
    (item,) = items
    assert item["case"] == "study_4"
    assert {path.split("/")[-1][0] for path in item["image"]} == {"4"}
    assert len(item["image"]) == 16


@pytest.mark.parametrize(("number", "found"), [("", True), ("1", True), ("4", False)])
def test_a_single_series_is_the_first_only_if_it_has_no_other_number(study, number, found):
    for path in study.iterdir():
        if not path.name.startswith("4_"):
            path.unlink()
            continue
        dataset = pydicom.dcmread(path)
        dataset.SeriesNumber = number or None
        dataset.save_as(path)
    items = find_cases(study)
    choose_series(items, "1")
    (item,) = items
    assert item["case"] == "study"
    assert ("failure" not in item) is found
    assert found or "has no DICOM series '1' that is a volume; it has 4: 'T4'" in item["failure"]


def test_names_of_series_do_not_depend_on_which_are_wanted(study):
    for path in study.glob("[134]_*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.SeriesNumber = "5"
        dataset.save_as(path)
    names = {}
    for wanted in ("T3", "T4", "all"):
        items = find_cases(study)
        choose_series(items, wanted)
        names[wanted] = [item["case"] for item in items]
    assert names == {"T3": ["study_2"], "T4": ["study_3"], "all": ["study_2", "study_3"]}


def test_a_file_without_slices_concerns_its_own_series_alone(study, caplog):
    dataset = pydicom.dcmread(next(study.glob("1_*.dcm")))
    dataset.RescaleSlope, dataset.RescaleIntercept = "0", "0"
    dataset.SeriesInstanceUID, dataset.SOPInstanceUID, dataset.SeriesNumber = f"{SERIES}.77", f"{SERIES}.77.1", "77"
    dataset.save_as(study / "77_0.dcm")
    items = find_cases(study)
    choose_series(items, "4")
    (item,) = items
    assert {Path(file).name[:2] for file in item["image"]} == {"4_"}
    items = find_cases(study)
    choose_series(items, "all")
    assert [item["case"] for item in items] == ["study_3", "study_4"]
    assert "its RescaleSlope is 0, which makes all values equal" in caplog.text


def test_localizers_are_left_out_of_all_series_though_they_are_parallel(study, caplog):
    for path in sorted(study.glob("1_*.dcm")):
        path.unlink()
    for k in range(3):
        localizer = slice_dataset(np.eye(5, dtype=np.int16), 5 * k, Grid(), **STUDY, SeriesNumber="1")
        localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        localizer.SeriesInstanceUID, localizer.SOPInstanceUID = f"{SERIES}.1", f"{SERIES}.1.{k}"
        write(study / f"1_{k}.dcm", localizer)
    items = find_cases(study)
    choose_series(items, "all")
    assert [item["case"] for item in items] == ["study_3", "study_4"]
    assert "left out: localizers (scouts)." in caplog.text
    items = find_cases(study)
    choose_series(items, "1")
    assert [item["case"] for item in items] == ["study_1"]
    read_dicom([Path(file) for file in items[0]["image"]])
    assert "1_0.dcm: a localizer (scout), for planning other scans." in caplog.text


def test_series_are_not_called_as_another_case(study):
    shutil.copytree(study, study.parent / "all" / "study")
    other = shutil.copytree(study, study.parent / "all" / "study_4")
    for path in other.glob("[13]_*.dcm"):
        path.unlink()
    items = find_cases(study.parent / "all")
    choose_series(items, "all")
    assert sorted(item["case"] for item in items) == ["study_4", "study_series_3", "study_series_4"]


def test_a_series_that_there_is_not(study):
    items = find_cases(study)
    choose_series(items, "9")
    assert "has no DICOM series '9' that is a volume; it has 1: (MR, 2 slices" in items[0]["failure"]
    assert "4: 'T4' (MR, 16 slices" in items[0]["failure"]


def test_an_image_without_series_is_told_unless_all_are_wanted(caplog):
    items = [{"image": "scan.nii.gz", "case": "scan"}]
    choose_series(items, "all")
    assert caplog.text == ""
    choose_series(items, "4")
    assert "scan.nii.gz: holds no DICOM series; series 4 is not looked for." in caplog.text


@pytest.mark.parametrize(("wanted", "fits"), [("4", True), ("all", True), ("3", False)])
def test_the_series_of_a_file_that_is_named_must_be_the_one_that_is_wanted(study, wanted, fits, caplog):
    items = find_cases(study / "4_03.dcm")
    choose_series(items, wanted)
    assert ("failure" in items[0]) == (not fits)
    assert caplog.text == ""
    if not fits:
        assert "4_03.dcm: has no DICOM series '3' that is a volume; it has 4: 'T4'" in items[0]["failure"]


@pytest.mark.parametrize(
    ("wanted", "fits"), [("4", True), ("T4", True), ("1", False), ("all", True), ("3", False), ("T1 mprage", False)]
)
def test_the_only_series_of_a_folder_must_be_the_one_that_is_wanted(study, wanted, fits):
    for path in study.glob("[13]_*.dcm"):
        path.unlink()
    items = find_cases(study)
    choose_series(items, wanted)
    (item,) = items
    assert (item["image"], item["case"]) == (str(study), "study")
    assert ("failure" in item) == (not fits)
    if not fits:
        assert f"has no DICOM series '{wanted}' that is a volume; it has 4: 'T4'" in item["failure"]


@pytest.mark.slow
def test_a_study_becomes_label_maps_and_dicom_seg(study, hippocampus_bundle, decathlon_dir, tmp_path, caplog):
    options = {"level": "L1", "device": "cpu", "runtime": "torch", "flips": [], "series": "all", "dicom_seg": True}
    plain = decathlon_dir / "imagesTr" / "case_0.nii.gz"
    summary = segment_files([study, plain], tmp_path / "out", hippocampus_bundle, **options)
    assert [done.case for done in summary.cases] == ["study_3", "study_4"]
    assert summary.failures == (f"{plain}: not DICOM, so no DICOM SEG can be written. Leave --dicom_seg out.",)
    assert "series 1: (MR, 2 slices" in caplog.text
    for done in summary.cases:
        result = nib.load(done.output)
        labels = np.asarray(result.dataobj)
        assert labels.any()
        index = np.argwhere(labels >= 0)
        positions = nib.affines.apply_affine(result.affine, index)
        found = labels_at(tmp_path / "out" / f"{done.case}_seg.dcm", positions)
        np.testing.assert_array_equal(found, labels[tuple(index.T)])
    run = json.loads((tmp_path / "out" / "run.json").read_text())["runs"][0]
    assert run["cases"][0]["sha256"] == hash_image(*sorted(study.glob("3_*.dcm")))
    again = segment_files(study, tmp_path / "out", hippocampus_bundle, **options, skip_existing=True)
    assert again.skipped == 2
    # one that is missing, and one of the labels before a correction, are written without the network
    (tmp_path / "out" / "study_3_seg.dcm").unlink()
    corrected = np.zeros(result.shape, np.uint8)
    corrected[1:3, 2:5, 3:4] = 2
    corrected[0, 0, 0] = 7
    nib.save(nib.as_closest_canonical(nib.Nifti1Image(corrected, result.affine, result.header)), done.output)
    # copies may have lost the times of files
    os.utime(tmp_path / "out" / "study_4_seg.dcm", (2e9, 2e9))
    again = segment_files(study, tmp_path / "out", hippocampus_bundle, **options, skip_existing=True)
    assert (again.skipped, again.cases, again.failures) == (2, (), ())
    assert (tmp_path / "out" / "study_3_seg.dcm").is_file()
    corrected[0, 0, 0] = 0
    np.testing.assert_array_equal(labels_at(tmp_path / "out" / "study_4_seg.dcm", positions), corrected[tuple(index.T)])
    assert "study_4_seg.nii.gz: values without a name, 7, are neither measured nor in a DICOM SEG." in caplog.text
    assert "Of the labels before" not in caplog.text


def test_a_label_map_of_a_series_between_two_axes_is_on_its_grid(tmp_path, voxels, labels):
    part = math.sqrt(0.5)
    grid = Grid(orientation=(part, part, 0.0, 0.0, 0.0, -1.0), step_mm=2.5)
    folder = write_all(tmp_path / "scan", series_datasets(voxels, grid, [STUDY] * 5))
    affine = read_dicom([folder])[1]
    saved = DicomSegSaved("pred", NAMES)
    for sign in (-1, 1):
        saved.write(tmp_path / "a.nii", labels, [folder], affine + sign * 1e-6 * np.eye(4, k=1))
    positions = nib.affines.apply_affine(affine, np.argwhere(labels >= 0))
    found = labels_at(tmp_path / "a.dcm", positions)
    np.testing.assert_array_equal(np.array([0, 1, 4])[found], labels[labels >= 0])


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR", "IRP"])
def test_a_label_map_that_was_saved_with_other_axes_is_written_where_it_lies(tmp_path, voxels, labels, codes):
    folder = write_all(tmp_path / "scan", series_datasets(voxels, OBLIQUE, [STUDY] * 5))
    affine = read_dicom([folder])[1]
    positions = nib.affines.apply_affine(affine, np.argwhere(labels >= 0))
    image = nib.Nifti1Image(labels, affine)
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes))
    )
    nib.save(turned, tmp_path / "a.nii")
    kept = read_label_map(tmp_path / "a.nii")
    saved = DicomSegSaved("pred", NAMES)
    saved.write(tmp_path / "a.nii", kept.data, [folder], kept.affine)
    found = labels_at(tmp_path / "a.dcm", positions)
    np.testing.assert_array_equal(np.array([0, 1, 4])[found], labels[labels >= 0])
    with pytest.raises(ImageFileError, match=r"a\.nii: not on the grid of .*scan: its shape is .* made again\."):
        saved.write(tmp_path / "a.nii", kept.data[1:], [folder], kept.affine)


def test_a_file_of_another_program_is_told_before_the_network_runs(study, hippocampus_bundle, tmp_path):
    path = tmp_path / "out" / "study_3_seg.dcm"
    path.parent.mkdir()
    shutil.copy(next(study.glob("3_*.dcm")), path)
    options = {"level": "L1", "device": "cpu", "runtime": "torch", "flips": [], "series": "3", "dicom_seg": True}
    summary = segment_files(study, tmp_path / "out", hippocampus_bundle, **options)
    (failure,) = summary.failures
    assert f"{path}: exists and was not written by monai-unetpp. Move it away" in failure
    assert not list((tmp_path / "out").glob("*_seg.nii.gz"))


@pytest.mark.parametrize("options", [{}, {"series": "3", "skip_existing": True}])
def test_what_a_dicom_seg_would_lack_is_told_before_the_network_runs(study, hippocampus_bundle, tmp_path, options):
    for path in study.iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.FrameOfReferenceUID
        dataset.save_as(path)
        if "series" not in options and not path.name.startswith("3_"):
            path.unlink()
    options = {"level": "L1", "device": "cpu", "runtime": "torch", "flips": [], "dicom_seg": True, **options}
    summary = segment_files(study, tmp_path / "out", hippocampus_bundle, **options)
    (failure,) = summary.failures
    assert failure.startswith(str(study))
    assert failure.endswith(": has no FrameOfReferenceUID, which a DICOM SEG needs. Export the series again.")
    assert not list((tmp_path / "out").glob("*_seg.*"))


@pytest.mark.slow
def test_a_label_map_stays_and_is_recorded_where_its_dicom_seg_fails(
    study, hippocampus_bundle, tmp_path, monkeypatch, capsys
):
    def fail(*_):
        raise KeyError("1.2.3")

    arguments = [study, "--bundle", hippocampus_bundle, "-o", tmp_path / "out", "--device", "cpu", "--runtime", "torch"]
    options = [*arguments, "--no_flips", "--level", "L1", "--series", "3", "--dicom_seg"]
    with monkeypatch.context() as failing:
        failing.setattr(DicomSegSaved, "_segmentation", fail)
        assert main(["segment", *map(str, options)]) == 1
    assert "highdicom makes no DICOM SEG for it (KeyError: '1.2.3'). Leave --dicom_seg out." in capsys.readouterr().err
    [run] = json.loads((tmp_path / "out" / "run.json").read_text())["runs"]
    assert [case["case"] for case in run["cases"]] == ["study_3"]
    assert "study_3," in (tmp_path / "out" / "volumes.csv").read_text()
    assert main(["segment", *map(str, options), "--skip_existing"]) == 0
    assert "1 skipped" in capsys.readouterr().out
    assert (tmp_path / "out" / "study_3_seg.dcm").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["study", "study/results"])
def test_results_among_the_images_are_no_images(study, hippocampus_bundle, folder):
    options = {"level": "L1", "device": "cpu", "runtime": "torch", "flips": [], "series": "3", "dicom_seg": True}
    out = study.parent / folder
    for skipped in (0, 1, 1):
        summary = segment_files(study, out, hippocampus_bundle, **options, skip_existing=True)
        assert (summary.failures, summary.skipped) == ((), skipped)


@pytest.mark.slow
def test_one_series_of_a_study_is_one_image(study, hippocampus_bundle):
    options = {"level": "L1", "device": "cpu", "runtime": "torch", "flips": []}
    found = segment_one(study, hippocampus_bundle, series="4", **options)
    assert found.image.shape == found.array.shape == (*found.array.shape[:2], 16)
    assert found.image.std() > 0
    with pytest.raises(ValueError, match=r"study: contains 2 images\. Name one"):
        segment_one(study, hippocampus_bundle, series="all", **options)

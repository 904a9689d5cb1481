"""Finding cases: what an input stands for, under which names."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from monai_unetpp.data import ImageFileError, VolumeReader, case_name, find_cases, load_datalist
from monai_unetpp.data.datasets.labelled import subject_of_image


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(cases: list[dict]) -> list[str]:
    return [case["case"] for case in cases]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.nii.gz", "a"),
        ("sub-01.v2.nii", "sub-01.v2"),
        ("A.NII.GZ", "A"),
        ("b.mhd", "b"),
        ("c.nhdr", "c"),
        ("d.hdr", "d"),
        ("e.dcm", "e"),
        ("IM0001", "IM0001"),
        (".nii", ".nii"),
    ],
)
def test_case_name_of_files(name: str, expected: str) -> None:
    assert case_name(f"folder/{name}") == expected


def test_case_name_of_folders(tmp_path: Path) -> None:
    (tmp_path / "series.1").mkdir()
    assert case_name(tmp_path / "series.1") == "series.1"
    assert case_name(tmp_path / "series.1" / ".." / "series.1" / "") == "series.1"


def test_one_file(tmp_path: Path) -> None:
    touch(tmp_path / "a.nii.gz")
    assert find_cases(tmp_path / "a.nii.gz") == [{"image": str(tmp_path / "a.nii.gz"), "case": "a"}]
    assert find_cases(str(tmp_path / "a.nii.gz")) == find_cases([tmp_path / "a.nii.gz"])


def test_a_folder_is_sorted_and_not_searched_further(tmp_path: Path) -> None:
    touch(
        *(tmp_path / n for n in ("b.nii.gz", "a.nii", "c.nrrd", "notes.txt", "a.json", "._b.nii.gz", "deep/d.nii.gz"))
    )
    assert names(find_cases(tmp_path)) == ["a", "b", "c"]


def test_pairs_are_one_case(tmp_path: Path) -> None:
    touch(tmp_path / "a.hdr", tmp_path / "a.img", tmp_path / "b.img")
    assert [Path(case["image"]).name for case in find_cases(tmp_path)] == ["a.hdr", "b.img"]


def test_a_list_of_inputs(tmp_path: Path) -> None:
    touch(tmp_path / "one/a.nii", tmp_path / "two/b.nii", tmp_path / "two/c.nii")
    assert names(find_cases([tmp_path / "two", tmp_path / "one/a.nii", tmp_path / "two/b.nii"])) == ["b", "c", "a"]


@pytest.mark.parametrize("other", ["a.nii", "A.nii.gz"])
def test_results_that_would_overwrite_each_other(tmp_path: Path, other: str) -> None:
    touch(tmp_path / "a.nii.gz", tmp_path / other)
    with pytest.raises(ImageFileError, match=r"its result would overwrite that of .*\. Rename one of them"):
        find_cases(tmp_path)
    failures = [case for case in find_cases(tmp_path, strict=False) if "failure" in case]
    assert len(failures) == 1
    assert "would overwrite" in failures[0]["failure"]


def test_one_name_with_results_of_different_kinds(tmp_path: Path) -> None:
    touch(*(tmp_path / n for n in ("a.png", "a.tif", "a.nii.gz", "b.png")))
    cases = find_cases(tmp_path, pictures=True)
    assert names(cases) == ["a.nii.gz", "a.png", "a.tif", "b"]
    assert [case.get("result_name") for case in cases] == ["a", "a", "a", None]
    touch(tmp_path / "a.tiff", tmp_path / "A.PNG")
    with pytest.raises(ImageFileError, match=r"its result would overwrite that of .*[aA]\.\w+\. Rename one of them"):
        find_cases(tmp_path, pictures=True)
    cases = find_cases(tmp_path, strict=False, pictures=True)
    assert sorted(names(cases)) == ["A.PNG", "a.nii.gz", "a.png", "a.tif", "a.tiff", "b"]
    assert [case["case"] for case in cases if "failure" in case] == ["a.png", "a.tiff"]


def test_one_name_in_folders_with_results_of_different_kinds(tmp_path: Path) -> None:
    touch(tmp_path / "one/a.png", tmp_path / "two/a.tif", tmp_path / "two/a.nii")
    found = find_cases([tmp_path / "one", tmp_path / "two"], pictures=True)
    assert names(found) == ["one_a", "two_a.nii", "two_a.tif"]
    assert [case.get("result_name") for case in found] == [None, "two_a", "two_a"]


def decathlon(folder: Path, **lists: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(lists))
    return folder


def test_decathlon_lists(tmp_path: Path) -> None:
    training = [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}]
    validation = [{"image": "./imagesTr/v.nii.gz", "label": "./labelsTr/v.nii.gz"}]
    folder = decathlon(tmp_path / "d", test=["./imagesTs/t.nii.gz"], validation=validation, training=training)
    assert find_cases(folder) == [{"image": str(folder / "imagesTs/t.nii.gz"), "case": "t"}]
    decathlon(folder, test=[], validation=validation, training=training)
    assert names(find_cases(folder)) == ["v"]
    decathlon(folder, test=[{"image": "x.nii.gz"}], training=training)
    assert names(find_cases(folder)) == ["x"]
    decathlon(folder, testing=[{"image": "y.nii.gz"}], training=training)
    assert names(find_cases(folder)) == ["y"]
    decathlon(folder, training=training)
    assert names(find_cases(folder)) == ["a"]
    touch(folder / "imagesTs/s.nii.gz")
    assert names(find_cases(folder)) == ["s"]


def test_a_list_that_is_named(tmp_path: Path) -> None:
    training = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in "abcde"]
    folder = decathlon(tmp_path / "d", test=["./imagesTs/t.nii.gz"], validation=training[:1], training=training[1:])
    assert names(find_cases(folder, list_key="validation")) == ["a"]
    assert names(find_cases(folder, list_key="training")) == ["b", "c", "d", "e"]
    assert names(find_cases(folder, list_key="test")) == ["t"]
    with pytest.raises(
        ImageFileError, match=r"must have the list 'extra', got test, validation, training\. Add it, or give one"
    ):
        find_cases(folder, list_key="extra")
    # a list that must be drawn holds the cases that others draw for it
    folder = decathlon(tmp_path / "d", test=["./imagesTs/t.nii.gz"], training=training)
    drawn = [case["image"] for case in load_datalist(folder, "validation")]
    assert [case["image"] for case in find_cases(folder, list_key="validation")] == drawn
    subjects = dict(zip("abcde", "xxyyy", strict=True))
    assert names(find_cases(folder, list_key="validation", subjects=subjects)) == ["a", "b"]
    with pytest.raises(ImageFileError, match=r"subject_pattern must match the name of every case, got '\(z\)'"):
        find_cases(folder, list_key="validation", subject_pattern="(z)")
    touch(tmp_path / "a.nii.gz")
    for other in (tmp_path, tmp_path / "a.nii.gz"):
        with pytest.raises(
            ImageFileError,
            match=r"not a folder with dataset\.json, or with .*, to take 'test' from\. Leave list_key",
        ):
            find_cases(other, list_key="test")


def test_decathlon_channels(tmp_path: Path) -> None:
    folder = decathlon(tmp_path / "d", test=[{"image": ["a_t1.nii.gz", "a_t2.nii.gz"]}])
    (case,) = find_cases(folder)
    assert case == {"image": [str(folder / "a_t1.nii.gz"), str(folder / "a_t2.nii.gz")], "case": "a_t1"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "must hold a JSON object, got list"),
        ('{"test": [{"label": "a.nii"}]}', "entry 0 of 'test' must have an 'image'"),
        ('{"test": [{"image": 5}]}', "entry 0 of 'test' must have an 'image'"),
        ('{"training": 3}', "the list 'training' must be a list of cases, got 3"),
        ("{}", "must have the list 'training'"),
    ],
)
def test_decathlon_lists_that_are_none(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(ImageFileError, match=rf"dataset\.json: {message}"):
        find_cases(tmp_path)


def test_decathlon_list_without_images(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match=r"dataset\.json: lists no images\. Add a 'test' list\."):
        find_cases(decathlon(tmp_path, training=[]))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.nii.gz", r"missing\.nii\.gz: no such file or folder\. Check the path\."),
        (
            "empty",
            r"empty: holds no image\. Name a file, or a folder with NIfTI \(\.nii, .*\), \.nrrd, .* or DICOM files",
        ),
        ("photos", r"photos: holds no image"),
        (
            "a.png",
            r"a\.png: not a supported image\. Give NIfTI \(\.nii, \.nii\.gz, .* such as nuclei_microscopy_unetpp",
        ),
    ],
)
def test_nothing_to_segment(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "photos/b.jpg", tmp_path / "a.png", tmp_path / "good.nii")
    with pytest.raises(ImageFileError, match=message):
        find_cases(tmp_path / name)
    good, bad = find_cases([tmp_path / "good.nii", tmp_path / name], strict=False)
    assert good == {"image": str(tmp_path / "good.nii"), "case": "good"}
    assert bad["image"] == str(tmp_path / name)
    assert bad["failure"].startswith(str(tmp_path / name))


def test_arguments() -> None:
    for wrong in (None, 3, [3], {"image": "a"}):
        with pytest.raises(TypeError, match="input must be a path or a list of paths, got"):
            find_cases(wrong)
    with pytest.raises(ImageFileError, match="input must name a file or a folder, got an empty list"):
        find_cases([])
    for empty in ("", ["a.nii", ""]):
        with pytest.raises(ImageFileError, match="input must name a file or a folder, got an empty name"):
            find_cases(empty, strict=False)


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    touch(tmp_path / "a.nii")
    assert find_cases("~/a.nii")[0]["image"] == str(tmp_path / "a.nii")


def test_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(
        ImageFileError, match=r"cannot be read \(Permission denied\)\. Check the path and its permissions"
    ):
        find_cases(tmp_path)
    (case,) = find_cases(tmp_path, strict=False)
    assert "Permission denied" in case["failure"]


def test_links_to_one_file_are_cases_of_their_own_and_a_path_given_twice_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "store/key.nii", tmp_path / "d/c.nii")
    for name in "ab":
        (tmp_path / f"d/{name}.nii").symlink_to(tmp_path / "store/key.nii")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "d")
    for more in ([], ["d/a.nii", "./d/../d/b.nii", tmp_path / "d" / "c.nii"], ["d/", str(tmp_path / "d")]):
        assert names(find_cases(["d", *more])) == ["a", "b", "c"]
    assert names(find_cases(["d/a.nii", "link/a.nii", "link"])) == ["a", "b", "c"]


def test_channels_count_all(tmp_path: Path) -> None:
    folder = decathlon(tmp_path / "d", test=[{"image": ["a.nii", "b.nii"]}, {"image": ["a.nii", "c.nii"]}])
    assert len(find_cases(folder, strict=False)) == 2


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, r"x\.nii: a pipe \(FIFO\), not an image file"),
        (socket_at, r"x\.nii: a socket, not an image file"),
        (lambda path: path.symlink_to("/dev/null"), r"x\.nii: a device, not an image file"),
        (lambda path: path.symlink_to("nowhere"), r"x\.nii: a link to a missing file\. Fetch it"),
        (lambda path: path.symlink_to(path), r"x\.nii: a circular link"),
    ],
)
def test_what_is_no_file_costs_one_case(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    touch(tmp_path / "y.nii")
    make(tmp_path / "x.nii")
    assert names(find_cases(tmp_path)) == ["x", "y"]
    with pytest.raises(ImageFileError, match=reason):
        VolumeReader().get_data((tmp_path / "x.nii",))
    for suffix in ("mha", "png"):
        make(tmp_path / f"x.{suffix}")
        with pytest.raises(ImageFileError, match=reason.replace("nii", suffix)):
            VolumeReader((2, 3)).get_data((tmp_path / f"x.{suffix}",))
        (tmp_path / f"x.{suffix}").unlink()
    (tmp_path / "x.nii").unlink()
    # under a name that is none of an image it is nobody's loss
    make(tmp_path / "x")
    assert names(find_cases(tmp_path)) == ["y"]
    good, bad = find_cases([tmp_path / "y.nii", tmp_path / "x"], strict=False)
    assert good["case"] == "y"
    assert "failure" in bad


def test_a_pair_of_which_both_files_are_given_is_one_case(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(np.ones((2, 3, 4), np.uint8), np.eye(4)), tmp_path / "a.hdr")
    assert names(find_cases([tmp_path / "a.hdr", tmp_path / "a.img"])) == ["a"]
    assert names(find_cases([tmp_path / "a.img"])) == ["a"]


def test_raw_voxels_that_look_like_dicom_are_no_case(tmp_path: Path) -> None:
    voxels = np.zeros((4, 5, 6), np.uint16)
    # as the tag and the length of an element
    voxels[0, 0, :4] = 2, 5, 3, 0
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(tmp_path / "a.mhd"))
    assert names(find_cases(tmp_path)) == ["a"]


@pytest.mark.parametrize(("header", "voxels"), [("x.hdr", "x.img"), ("x.img", "x.hdr"), ("x.mhd", "x.raw")])
def test_pipes_for_the_other_file_of_an_image_are_not_waited_for(tmp_path: Path, header: str, voxels: str) -> None:
    nib.save(nib.Nifti1Pair(np.ones((2, 3, 4), np.uint8), np.eye(4)), tmp_path / "x.hdr")
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ones((2, 3, 4), np.uint8)), str(tmp_path / "x.mhd"))
    (tmp_path / voxels).unlink(missing_ok=True)
    os.mkfifo(tmp_path / voxels)
    with pytest.raises(ImageFileError, match=rf"{voxels}: a pipe"):
        VolumeReader().get_data((tmp_path / header,))


def test_files_and_folders_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path / "a.nii", tmp_path / "closed/b.nii", tmp_path / "secret")
    listed, opened = Path.iterdir, Path.open

    def iterdir(self: Path) -> Iterator[Path]:
        if self.name == "closed":
            raise PermissionError(13, "Permission denied", str(self))
        return listed(self)

    def open_file(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.name == "secret":
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    monkeypatch.setattr(Path, "open", open_file)
    assert names(find_cases(tmp_path)) == ["a"]
    assert "closed: cannot be read (Permission denied) and is skipped" in caplog.text
    cases = find_cases([tmp_path, tmp_path / "secret", tmp_path / "closed"], strict=False)
    assert [case["case"] for case in cases if "Permission denied" in case.get("failure", "")] == ["secret", "closed"]


@pytest.mark.parametrize("home", [None, "/nowhere"])
def test_a_tilde_that_is_nobodys_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    monkeypatch.delenv("HOME") if home is None else monkeypatch.setenv("HOME", home)
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "~x.nii", tmp_path / "~nobody/a.nii", tmp_path / "b~/c~d.nii", tmp_path / "~root")
    cases = find_cases(["~x.nii", "~nobody", "b~"])
    assert [case["image"] for case in cases] == [
        str(tmp_path / "~x.nii"),
        str(tmp_path / "~nobody/a.nii"),
        "b~/c~d.nii",
    ]
    assert [case["image"] for case in find_cases(".")] == [str(tmp_path / "~x.nii")]
    with pytest.raises(ImageFileError, match=r"~nobody2/a\.nii: no such file or folder"):
        find_cases("~nobody2/a.nii")
    with pytest.raises(ImageFileError, match=r"~root: not a supported image"):
        find_cases("~root")


def test_names_with_what_cannot_be_shown_give_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a\n\x1b[2J\udcff.png"
    touch(path)
    (case,) = find_cases(path, strict=False)
    assert case["failure"].startswith(f"{tmp_path}/a\\n\\x1b[2J\\udcff.png: not a supported image")


@pytest.mark.parametrize(
    ("path", "subject"),
    [
        ("TCGA_CS_4941_19960909_1.tif", "TCGA_CS_4941"),
        ("TCGA-CS-4941/x.tif", "TCGA-CS-4941"),
        ("patient001/ED.nii.gz", "patient001"),
        ("LIDC-IDRI-0001/ct.nii.gz", "LIDC-IDRI-0001"),
        ("sub-02/anat/T1w.nii.gz", "sub-02"),
        ("hippocampus_003.nii.gz", None),
        ("patients/3.nii.gz", None),
    ],
)
def test_subjects_are_known_by_the_names_of_files_and_folders(path: str, subject: str | None) -> None:
    assert subject_of_image(path) == subject


@pytest.mark.parametrize(("form", "images"), [("decathlon", "images"), ("plain", "images"), ("plain", "imagesTr")])
def test_the_folder_of_the_data_set_names_no_subject(tmp_path: Path, form: str, images: str) -> None:
    root = tmp_path / "patient2020" / "sub-cortical"
    for name in (images, images.replace("images", "labels")):
        (root / name / "sub-07").mkdir(parents=True)
    if form == "decathlon":
        (root / "dataset.json").write_text("{}")
    assert subject_of_image(root / images / "c1.nii.gz") is None
    assert subject_of_image(root / images / "sub-07" / "c1.nii.gz") == "sub-07"


def test_folders_of_subjects_may_hold_folders_of_images_and_labels(tmp_path: Path) -> None:
    for subject in ("sub-01", "sub-02"):
        for name in ("images", "labels"):
            (tmp_path / "data" / subject / name).mkdir(parents=True)
    (tmp_path / "data" / "dataset.json").write_text("{}")
    assert subject_of_image(tmp_path / "data" / "sub-01" / "images" / "c1.nii.gz") == "sub-01"


def save_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.arange(8.0).reshape(2, 2, 2), np.eye(4)), path)


def test_images_that_are_left_out_are_told(tmp_path, caplog):
    for name in ("a.nii.gz", "deeper/b.nii.gz", "deeper/still/c.nii.gz", "other.mgz", "notes.txt"):
        save_image(tmp_path / name) if name.endswith(".gz") else (tmp_path / name).write_text("x")
    assert [case["case"] for case in find_cases(tmp_path)] == ["a"]
    still = os.path.join("deeper", "still")
    assert f"images in folders below are left out: deeper, {still}. Name these folders" in caplog.text
    assert "1 file in other formats left out: other.mgz. Convert them." in caplog.text
    assert "notes" not in caplog.text


def test_an_image_beside_the_files_of_a_dicom_series_is_told(tmp_path, caplog):
    touch(*(tmp_path / name / f"{number:03d}.dcm" for name in ("alone", "both") for number in range(30)))
    save_image(tmp_path / "both" / "scan.nii.gz")
    assert names(find_cases(tmp_path)) == ["alone", "both"]
    assert "images in folders below are left out: both. Name these folders" in caplog.text


def test_a_folder_whose_images_lie_deeper_is_refused_with_their_places(tmp_path):
    save_image(tmp_path / "one" / "two" / "a.nii.gz")
    with pytest.raises(ImageFileError, match=r"holds no image, but folders below do\. Name them: .*two\.$"):
        find_cases(tmp_path)

"""Finding cases: what an input stands for, under which names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_unetpp.data import ImageFileError, case_name, find_cases, load_datalist


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


def test_earlier_results_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(*(tmp_path / n for n in ("a.nii.gz", "a_seg.nii.gz", "lonely_seg.nii.gz")))
    with caplog.at_level("INFO"):
        assert names(find_cases(tmp_path)) == ["a", "lonely_seg"]
    assert "1 earlier results (*_seg) are left out" in caplog.text


def test_a_list_of_inputs(tmp_path: Path) -> None:
    touch(tmp_path / "one/a.nii", tmp_path / "two/b.nii", tmp_path / "two/c.nii")
    assert names(find_cases([tmp_path / "two", tmp_path / "one/a.nii", tmp_path / "two/b.nii"])) == ["b", "c", "a"]


def test_same_names_in_different_folders(tmp_path: Path) -> None:
    touch(tmp_path / "sub-1/t1.nii.gz", tmp_path / "sub-2/t1.nii", tmp_path / "sub-2/t2.nii")
    assert names(find_cases([tmp_path / "sub-1", tmp_path / "sub-2"])) == ["sub-1_t1", "sub-2_t1", "t2"]


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
    with pytest.raises(ImageFileError, match=r"must have the list 'extra', got test, validation, training\. Give one"):
        find_cases(folder, list_key="extra")
    # a list that must be drawn holds the cases that others draw for it
    folder = decathlon(tmp_path / "d", test=["./imagesTs/t.nii.gz"], training=training)
    drawn = [case["image"] for case in load_datalist(folder, "validation")]
    assert [case["image"] for case in find_cases(folder, list_key="validation")] == drawn
    touch(tmp_path / "a.nii.gz")
    for other in (tmp_path, tmp_path / "a.nii.gz"):
        with pytest.raises(
            ImageFileError, match=r"no folder with dataset\.json to take 'test' from\. Leave list_key out"
        ):
            find_cases(other, list_key="test")


def test_decathlon_channels(tmp_path: Path) -> None:
    folder = decathlon(tmp_path / "d", test=[{"image": ["a_t1.nii.gz", "a_t2.nii.gz"]}])
    (case,) = find_cases(folder)
    assert case == {"image": [str(folder / "a_t1.nii.gz"), str(folder / "a_t2.nii.gz")], "case": "a_t1"}


@pytest.mark.parametrize("content", ["{", "[]", '{"test": [{"label": "a.nii"}]}', '{"training": 3}', "{}"])
def test_decathlon_lists_that_are_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(ImageFileError, match=r"dataset\.json: not a data list in Decathlon form"):
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

"""Properties of cases over trees of files: none is lost, none is there twice, and results make no difference."""

from __future__ import annotations

import os
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from monai_unetpp.data import find_cases, write_volume
from monai_unetpp.data.formats.naming import RESULT_NAME
from monai_unetpp.data.formats.pictures import write_picture
from monai_unetpp.data.formats.suffixes import result_suffix

FOLDERS = (
    "",
    "sub-01/ses-1/anat",
    "sub-01/ses-2/anat",
    "sub-02/ses-1/anat",
    "A",
    "a",
    "a_b/c",
    "a/b_c",
    "e\u0301",
    "\u00e9",
)
STEMS = (
    "T1",
    "t1",
    "sub-01_ses-1_T1w",
    "x",
    "x_seg",
    "a_T1",
    "a.nii",
    "~x",
    "\u00e9",
    "e\u0301",
    "n\nl",
    "dot.",
    "\udcff",
)
SUFFIXES = (".nii.gz", ".nii", ".NII", ".mha", ".png", ".tif", ".tiff")
KINDS = ("file", "fifo", "link", "nowhere", "loop")

files = st.lists(
    st.tuples(st.sampled_from(FOLDERS), st.sampled_from(STEMS), st.sampled_from(SUFFIXES), st.sampled_from(KINDS)),
    min_size=1,
    max_size=8,
    unique_by=lambda each: each[:3],
)
trees = settings(max_examples=60, deadline=None)


@contextmanager
def tree(entries: list[tuple[str, str, str, str]]) -> Iterator[tuple[Path, list[Path]]]:
    """A folder with these files, and their paths."""
    with tempfile.TemporaryDirectory() as name:
        root, paths = Path(name) / "data", []
        root.mkdir()
        (Path(name) / "key").write_bytes(b"content of a store of files")
        for folder, stem, suffix, kind in entries:
            path = root / folder / f"{stem}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            paths.append(path)
            if kind == "file":
                path.write_bytes(b"x" * 400)
            elif kind == "fifo":
                os.mkfifo(path)
            else:
                os.symlink({"link": Path(name) / "key", "nowhere": "nowhere", "loop": path}[kind], path)
        yield root, paths


def folders_of(paths: list[Path]) -> list[Path]:
    return sorted({path.parent for path in paths})


def key(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def found(paths: list[Path]) -> list[dict]:
    return find_cases(folders_of(paths), strict=False, pictures=True)


@pytest.mark.slow
@trees
@given(files)
@example([("", "x", ".nii", "file"), ("", "x", ".nii.gz", "file"), ("", "x.nii", ".nii", "file")])
@example([("a_b/c", "T1", ".nii", "file"), ("a/b_c", "T1", ".nii", "file"), ("A", "T1", ".nii", "file")])
def test_no_image_is_lost_and_none_is_there_twice(entries: list[tuple[str, str, str, str]]) -> None:
    with tree(entries) as (_, paths):
        assert sorted(case["image"] for case in found(paths)) == sorted(map(str, paths))
        twice = [*paths, *folders_of(paths), *(path.parent / ".." / path.parent.name / path.name for path in paths)]
        again = find_cases(twice, strict=False, pictures=True)
        reported = {case["image"] for case in again}
        assert {os.path.abspath(image) for image in reported} == set(map(str, paths))
        assert len(again) == len(paths)


@trees
@given(files)
@example([("", "x", ".nii", "file"), ("", "x", ".nii.gz", "file"), ("", "x.nii", ".nii", "file")])
def test_names_are_unique_also_where_file_systems_are_less_exact(entries: list[tuple[str, str, str, str]]) -> None:
    with tree(entries) as (_, paths):
        cases = found(paths)
        assert len({case["case"] for case in cases}) == len(cases)
        good = [case for case in cases if "failure" not in case]
        assert len({key(case["case"]) for case in good}) == len(good)
        results = {key(f"{case.get(RESULT_NAME, case['case'])}{result_suffix(case['image'])}") for case in good}
        assert len(results) == len(good)
        assert not any(os.sep in case["case"] for case in cases)


@pytest.mark.slow
@trees
@given(files, st.integers(0, 9), st.booleans())
def test_results_anywhere_make_no_difference(entries: list[tuple[str, str, str, str]], where: int, named: bool) -> None:
    with tree(entries) as (_, paths):
        cases, folders = found(paths), folders_of(paths)
        out = folders[where % len(folders)]
        written = []
        for case in cases:
            path = out / f"{case.get(RESULT_NAME, case['case'])}_seg{result_suffix(case['image'])}"
            if os.path.lexists(path):  # an image of the user's, which would be refused
                continue
            written.append(path)
            if path.suffix == ".gz":
                write_volume(path, np.zeros((2, 2, 2), np.uint8), "none.mha", np.eye(4))
            else:
                write_picture(path, np.zeros((2, 2), np.uint8))
        inputs = [*folders, *written] if named else folders
        assert find_cases(inputs, strict=False, pictures=True) == cases


def names(*paths: str) -> list[str]:
    with tempfile.TemporaryDirectory() as name:
        for path in paths:
            (Path(name) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(name) / path).write_bytes(b"x")
        return [case["case"] for case in find_cases([Path(name) / path for path in paths])]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["sub-01/ses-1/anat/T1.nii", "sub-02/ses-1/anat/T1.nii"], ["sub-01_ses-1_T1", "sub-02_ses-1_T1"]),
        (["sub-01/ses-1/anat/T1.nii", "sub-01/ses-2/anat/T1.nii"], ["sub-01_ses-1_T1", "sub-01_ses-2_T1"]),
        (["sub-01/anat/sub-01_T1w.nii", "sub-02/anat/sub-02_T1w.nii"], ["sub-01_T1w", "sub-02_T1w"]),
        (["raw/sub-01/sub-01_T1w.nii", "new/sub-01/sub-01_T1w.nii"], ["raw_sub-01_T1w", "new_sub-01_T1w"]),
        (["s1/p1/T1.nii", "s1/p2/T1.nii", "s2/p1/T1.nii"], ["s1_p1_T1", "s1_p2_T1", "s2_p1_T1"]),
        (["s1/p1/T1.nii", "s2/p2/T1.nii"], ["p1_T1", "p2_T1"]),
        (["p1/T1.nii", "p1/more/T1.nii"], ["p1_T1", "more_T1"]),
        (["s1/anat/T1.nii", "s2/anat/T1.nii", "s2/anat/T2.nii"], ["s1_T1", "s2_T1", "T2"]),
    ],
)
def test_cases_of_one_name_are_told_apart_by_their_folders(paths: list[str], expected: list[str]) -> None:
    assert names(*paths) == expected


def test_folders_too_long_for_a_name() -> None:
    found = names(f"{'p' * 220}1/T1.nii", f"{'p' * 220}2/T1.nii")
    assert len(set(found)) == 2
    assert all(len(name) < 20 for name in found)

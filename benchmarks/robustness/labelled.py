"""What training and scoring take in: label maps, and the lists that name them."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from monai.bundle import ConfigParser

from benchmarks.robustness.inputs import (
    LABELS,
    STRAIGHT,
    VOXELS,
    bright_bundle,
    change_json,
    run_command,
    save,
    stored_voxels,
)
from benchmarks.robustness.situations import REFUSED, TOLD, Kind, expect, expect_equal
from monai_unetpp.data import check_dataset, check_labelled_data, find_cases, find_ignore_label, load_datalist

KIND = Kind("Labelled data")

_NAMES = {"0": "background", "1": "middle", "2": "bright"}


def _entry(name: str) -> dict[str, str]:
    return {"image": f"./images/{name}.nii.gz", "label": f"./labels/{name}.nii.gz"}


def _data_set(folder: Path, labels: Any = _NAMES, **lists: Any) -> Path:
    """Cases a and b for training, c for validation, with images that differ."""
    for number, name in enumerate("abc"):
        save(folder / "images" / f"{name}.nii.gz", VOXELS + number)
        save(folder / "labels" / f"{name}.nii.gz", LABELS)
    content = {"labels": labels, "training": [_entry("a"), _entry("b")], "validation": [_entry("c")]}
    return change_json(folder / "dataset.json", **{**content, **lists})


def _all_checks(folder: Path) -> None:
    """The check before training, and that of the program, which must agree."""
    problems = check_dataset(folder)
    try:
        check_labelled_data(folder, classes=3)
    except ValueError as e:
        cause = str(e).splitlines()[1 if "cases must be sound" in str(e) else 0].removeprefix("- ")
        expect(bool(problems), f"check finds nothing, but training is refused: {cause}")
        raise ValueError(cause) from e


def _preprocessed_label(folder: Path) -> npt.NDArray[Any]:
    """The label of case a as the loss sees it."""
    parser = ConfigParser()
    parser.read_config(str(bright_bundle() / "configs" / "train.json"))
    parser.update({"bundle_root": str(bright_bundle()), "dataset_dir": str(folder), "output_dir": str(folder)})
    entry = {key: str(folder / path) for key, path in _entry("a").items()}
    label = parser.get_parsed_content("preprocessing")(entry)["label"]
    return np.bincount(label.numpy().astype(int).ravel(), minlength=3)


def _scaled(path: Path, voxels: npt.NDArray[Any]) -> None:
    """As ``get_fdata`` of an edited label map that is saved under its old header of small integers."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype("uint8")
    nibabel.save(nibabel.Nifti1Image(voxels.astype(np.float64), STRAIGHT, header), path)


@KIND.situation("sound cases")
def _sound(folder: Path) -> None:
    _data_set(folder)
    expect(check_dataset(folder) == [], f"{check_dataset(folder)}")
    _all_checks(folder)
    run_command("check", folder)


@KIND.situation("labels that nibabel has scaled (0.996 for 1): the loss sees the integers")
def _scaled_label(folder: Path) -> None:
    _data_set(folder)
    right = _preprocessed_label(folder)
    _scaled(folder / "labels" / "a.nii.gz", LABELS)
    stored = stored_voxels(folder / "labels" / "a.nii.gz")
    expect(not np.isin(stored, (0, 1, 2)).all(), "the file holds integers after all")
    expect_equal(_preprocessed_label(folder), right, "counts of voxels")
    _all_checks(folder)


def _spoilt(folder: Path, voxels: npt.NDArray[Any], affine: npt.NDArray[Any] = STRAIGHT) -> None:
    _data_set(folder)
    save(folder / "labels" / "b.nii.gz", voxels, affine)
    _all_checks(folder)


_half = LABELS.astype(np.float32)
_half[4, 5, 4] = 0.5
_MOVED = STRAIGHT + 3 * np.eye(4, k=3)
_SPOILT: list[tuple[str, str, dict[str, Any]]] = [
    ("a label that was interpolated (0.5)", "must hold integers, got fractions such as 0.5", {"voxels": _half}),
    (
        "a value without a name",
        "must hold 0 and 1, 2 only, got 7",
        {"voxels": np.where(LABELS == 2, 7, LABELS).astype(np.uint8)},
    ),
    ("a negative value", "only, got -1", {"voxels": np.where(LABELS == 1, np.int16(-1), LABELS)}),
    ("NaN in a label", "NaN", {"voxels": np.where(LABELS == 1, np.nan, LABELS).astype(np.float32)}),
    (
        "a label saved with another affine (mirrored)",
        "not on the grid",
        {"voxels": LABELS, "affine": np.diag([-1.0, -1, 1, 1]) @ STRAIGHT},
    ),
    ("a label that lies 3 mm beside its image", "not on the grid", {"voxels": LABELS, "affine": _MOVED}),
    ("a label of another shape", "its shape is", {"voxels": LABELS[:-1]}),
]
for _title, _says, _options in _SPOILT:
    KIND.add(_title, functools.partial(_spoilt, **_options), REFUSED, _says)


@KIND.situation("an affine that differs by the rounding of a header")
def _rounded(folder: Path) -> None:
    _data_set(folder)
    save(folder / "labels" / "b.nii.gz", LABELS, STRAIGHT + 1e-4)
    _all_checks(folder)


@KIND.situation("nnU-Net's label `ignore`: known, and no class")
def _ignore(folder: Path) -> None:
    _data_set(folder, {**_NAMES, "3": "ignore"})
    save(folder / "labels" / "a.nii.gz", np.where(LABELS == 1, 3, LABELS).astype(np.uint8))
    expect(find_ignore_label(folder) == 3, "the label is not known")
    _all_checks(folder)


@KIND.situation("regions of several labels, as nnU-Net has them", REFUSED, "Regions of several labels")
def _regions(folder: Path) -> None:
    _data_set(folder, {"background": 0, "whole": [1, 2], "bright": 2})
    _all_checks(folder)


@KIND.situation("a named label that no case has", TOLD, "no case has the label 'edema'")
def _absent(folder: Path) -> None:
    _data_set(folder, {**_NAMES, "3": "edema"})
    expect(any("edema" in problem for problem in check_dataset(folder)), "check is silent")
    check_labelled_data(folder, classes=4)


@KIND.situation("one image under two names, in training and validation", TOLD, "a leak between the lists")
def _leak(folder: Path) -> None:
    _data_set(folder)
    save(folder / "images" / "c.nii.gz", VOXELS.astype(np.float32))  # other bytes, the same voxels
    expect(any("leak" in problem for problem in check_dataset(folder)), "check is silent")
    check_labelled_data(folder)


@KIND.situation("a case that is listed twice", TOLD, "is listed twice")
def _twice(folder: Path) -> None:
    _data_set(folder, training=[_entry("a"), _entry("b"), {**_entry("a"), "image": "images/../images/a.nii.gz"}])
    expect(any("listed twice" in problem for problem in check_dataset(folder)), "check is silent")
    check_labelled_data(folder)


@KIND.situation("a label with nothing but background", TOLD, "the label has no foreground")
def _empty_label(folder: Path) -> None:
    _data_set(folder)
    save(folder / "labels" / "b.nii.gz", np.zeros_like(LABELS))
    check_labelled_data(folder)


@KIND.situation("no validation list: drawn, and told how many", TOLD, "were drawn for it")
def _no_validation(folder: Path) -> None:
    _data_set(folder, validation=..., training=[_entry(name) for name in "abc"])
    lists = [load_datalist(folder, key) for key in ("training", "validation")]
    expect([len(cases) for cases in lists] == [2, 1], f"{[len(cases) for cases in lists]} cases")


@KIND.situation("a label that does not exist", REFUSED, "no such file, but the data list names it")
def _missing(folder: Path) -> None:
    _data_set(folder)
    (folder / "labels" / "b.nii.gz").unlink()
    _all_checks(folder)


def _list_as(folder: Path, **parts: Any) -> None:
    _data_set(folder, **parts)
    _all_checks(folder)


_NONSENSE: list[tuple[str, str, dict[str, Any]]] = [
    ("labels that are a list", "labels must map values to names", {"labels": ["background", "liver"]}),
    ("labels with one value under two names", "every value once", {"labels": {"a": 1, "b": 1}}),
    ("an entry without a label", "must have an 'image' and a 'label'", {"training": [{"image": "images/a.nii.gz"}]}),
    ("an entry whose image is a number", "must have an 'image'", {"training": [{"image": 5, "label": "x"}]}),
    ("a training list of text", "training", {"training": "images"}),
    (
        "nnU-Net's form without names of channels",
        "channel_names must name every channel",
        {"training": ..., "validation": ..., "numTraining": 3, "file_ending": ".nii.gz"},
    ),
]
for _title, _says, _parts in _NONSENSE:
    KIND.add(f"`dataset.json`: {_title}", functools.partial(_list_as, **_parts), REFUSED, _says)


def _text(folder: Path, content: bytes) -> None:
    (folder / "dataset.json").write_bytes(content)
    message = check_dataset(folder)
    expect(len(message) == 1 and len(message[0].splitlines()) == 1, f"{len(message)} problems")
    check_labelled_data(folder)


_BROKEN = {
    "cut off": json.dumps({"training": [_entry("a")]}).encode()[:-4],
    "a list": b"[1]",
    "empty": b"",
    "bytes that are not text": b'{"a": "\xff"}',
    "nested 100 000 deep": b"[" * 100_000,
    "a number of 5000 digits": b'{"a": ' + b"9" * 5000 + b"}",
}
for _title, _content in _BROKEN.items():
    KIND.add(
        f"`dataset.json`: {_title}", functools.partial(_text, content=_content), REFUSED, "cannot be read|must hold"
    )


@KIND.situation("`dataset.json` with a byte order mark: read by training and segmentation alike")
def _byte_order_mark(folder: Path) -> None:
    path = _data_set(folder)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    expect(len(load_datalist(folder, "training")) == 2, "training reads another number of cases")
    expect(len(find_cases(folder)) == 1, "segmentation reads another number of cases")

"""Names of files, folders and labels that mean something to a configuration, a shell, a terminal or a spreadsheet."""

from __future__ import annotations

import csv
import functools
import io
import os
import shutil
from pathlib import Path
from unittest import mock

from benchmarks.robustness.inputs import (
    LABELS,
    bright_bundle,
    change_json,
    labels_of,
    names_of_images,
    run_command,
    save,
    segmented,
)
from benchmarks.robustness.situations import REFUSED, Kind, expect, expect_equal
from monai_unetpp.bundles import BundleConfig, bundle_code
from monai_unetpp.data import find_cases
from monai_unetpp.spreadsheet import format_csv

KIND = Kind("Code and paths")

_COMMAND = '$__import__("os").system("touch PWNED")'
_NAMES = {
    "a scan called `$` and Python code": f"{_COMMAND}or'y'.nii.gz",
    "a scan called `@level`": "@level.nii.gz",
    "a scan called `%x#y::z`": "%x#y::z.nii.gz",
    "a scan with a line break and a colour code in its name": "a\nb\x1b[31m.nii.gz",
    "a scan whose name is not UTF-8": os.fsdecode(b"a\xff.nii.gz"),
    "a scan called `-rf`": "-rf.nii.gz",
    "a name of 240 letters": f"{'x' * 233}.nii.gz",
    "a name with spaces, quotes and `;`": "a 'b' \"c\"; d.nii.gz",
}
_FOLDERS = {
    "an output folder called `$` and Python code": f"{_COMMAND}or'y'",
    "an output folder called `@level`": "@level",
    "an output folder called `%x`": "%x",
    "an output folder called `a#b::c`": "a#b::c",
}


def _no_trace(folder: Path) -> None:
    expect(not any(folder.rglob("PWNED")), "the code in the name was run")


def _segment_name(folder: Path, name: str) -> None:
    image = save(folder / "in" / name)
    summary = segmented(image, folder / "out")
    expect_equal(labels_of(summary), LABELS)
    stem = name.removesuffix(".nii.gz")
    found = names_of_images(folder / "out")
    expect(found == [f"{stem}_seg.nii.gz"], f"the result is called {found}")
    _no_trace(folder)


def _segment_into(folder: Path, name: str) -> None:
    image = save(folder / "in" / "x.nii.gz")
    expect_equal(labels_of(segmented(image, folder / name)), LABELS)
    expect((folder / name / "x_seg.nii.gz").is_file(), "the result is elsewhere")
    expect(set(os.listdir(folder)) == {"in", name}, f"there are {os.listdir(folder)}")


for _title, _name in _NAMES.items():
    KIND.add(_title, functools.partial(_segment_name, name=_name))
for _title, _name in _FOLDERS.items():
    KIND.add(_title, functools.partial(_segment_into, name=_name))


@KIND.situation("an input folder called `@level`, by the program")
def _input_folder(folder: Path) -> None:
    save(folder / "@level" / "x.nii.gz")
    bundle = ("--bundle", bright_bundle())
    options = ("--device", "cpu", "--runtime", "torch", "--no-flips", "-o", folder / "@out")
    run_command("segment", folder / "@level", *bundle, *options)
    expect((folder / "@out" / "x_seg.nii.gz").is_file(), "there is no result")


@KIND.situation("a bundle in a folder called `$` and Python code")
def _bundle_folder(folder: Path) -> None:
    bundle = folder / f"{_COMMAND}or'y'"
    shutil.copytree(bright_bundle(), bundle)
    expect_equal(labels_of(segmented(save(folder / "x.nii.gz"), folder / "out", bundle=bundle)), LABELS)
    _no_trace(folder)


@KIND.situation("a case of `dataset.json` that is called `$` and Python code")
def _listed_name(folder: Path) -> None:
    image = save(folder / f"{_COMMAND}.nii.gz")
    change_json(folder / "dataset.json", test=[image.name])
    expect_equal(labels_of(segmented(folder, folder / "out")), LABELS)
    _no_trace(folder)


@KIND.situation("a setting (`--runtime`) of `$` and Python code", REFUSED, "runtime")
def _setting(folder: Path) -> None:
    image = save(folder / "x.nii.gz")
    try:
        segmented(image, folder / "out", runtime=_COMMAND)
    finally:
        _no_trace(folder)


@KIND.situation("expressions in a bundle's own configurations: listed by `check`, without running them")
def _own_expressions(folder: Path) -> None:
    shutil.copytree(bright_bundle(), folder / "bundle")
    change_json(folder / "bundle" / "configs" / "inference.json", overlap=_COMMAND)
    found = bundle_code(folder / "bundle")
    expect(found.get(_COMMAND) == ["inference.json overlap"], "the expression is not listed")
    _no_trace(folder)


@KIND.situation("values of every kind set into a configuration arrive as the objects that they are")
def _values(folder: Path) -> None:
    config = BundleConfig(bright_bundle(), "inference.json")
    for value in (_COMMAND, "@level", "%x", "#", "::", ["$1/0", {"$a": "@b"}], Path("$x"), ("@a",)):
        config["input"] = value
        expect(config.parse("input") == value, f"{value!r} became {config.parse('input')!r}")
    _no_trace(folder)


@KIND.situation("`~` for the user's home, for an unknown user, and as the name of a file")
def _tildes(folder: Path) -> None:
    save(folder / "x.nii.gz")
    save(folder / "~nobody-has-this-name.nii.gz")
    with mock.patch.dict(os.environ, {"HOME": str(folder)}):
        cases = find_cases(["~/x.nii.gz", "~nobody-has-this-name.nii.gz"])
    expect_equal([case["case"] for case in cases], ["x", "~nobody-has-this-name"], "names")
    summary = segmented([Path(case["image"]) for case in cases], folder / "out")
    expect_equal(labels_of(summary, 1), LABELS)


@KIND.situation("cases and labels called `=cmd()`, `+1+1`, `@SUM(1)` in tables: text for a spreadsheet, not formulas")
def _formulas(folder: Path) -> None:
    names = ["=cmd|' /C calc'!A0", "+1+1", "-2-3", "@SUM(1)", "\t=1", "-1.5", "liver"]
    rows = list(csv.reader(io.StringIO(format_csv(["case"], [[name] for name in names]))))
    expect_equal([row[0] for row in rows[1:]], [*(f"'{name}" for name in names[:5]), *names[5:]], "cells")

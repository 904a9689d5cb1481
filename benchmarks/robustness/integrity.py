"""Broken bundles and weights, and machines that run out of memory or disk."""

from __future__ import annotations

import errno
import functools
import json
import os
import pickle
import pkgutil
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.robustness.inputs import (
    LABELS,
    bright_bundle,
    change_json,
    labels_of,
    refuse_if_failed,
    run_command,
    save,
    segmented,
)
from benchmarks.robustness.situations import REFUSED, Kind, expect, expect_equal
from monai_unetpp.bundles import check_bundle

KIND = Kind("Integrity and messages")

_INFERENCE, _METADATA, _WEIGHTS = Path("configs/inference.json"), Path("configs/metadata.json"), Path("models/model.pt")


def _copy(folder: Path) -> Path:
    bundle = folder / "bundle"
    shutil.copytree(bright_bundle(), bundle)
    return bundle


def _segment(folder: Path, bundle: Path) -> None:
    """By the program, as a user would, so that no traceback can come out."""
    image = save(folder / "x.nii.gz")
    options = ("--bundle", bundle, "--device", "cpu", "--runtime", "torch", "--no-flips")
    run_command("segment", image, "-o", folder / "out", *options)


def _with_entry(folder: Path, **entries: Any) -> None:
    bundle = _copy(folder)
    change_json(bundle / _INFERENCE, **entries)
    _segment(folder, bundle)


_ENTRIES: dict[str, tuple[str, dict[str, Any]]] = {
    "without `network_def`": ("network_def", {"network_def": ...}),
    "without `evaluator`": ("evaluator", {"evaluator": ...}),
    "`overlap` is `$1/0`": ("ZeroDivisionError", {"overlap": "$1/0"}),
    "`overlap` is `$1+`": ("SyntaxError", {"overlap": "$1+"}),
    "`overlap` names something that torch lacks": ("AttributeError", {"overlap": "$torch.nothere"}),
    "`overlap` is 7": ("overlap must", {"overlap": 7}),
    "an expression ends the program": ("SystemExit", {"overlap": "$exit(0)"}),
    "a reference to itself": ("overlap", {"overlap": "@overlap"}),
    "a class that does not exist": ("nothere", {"inferer": {"_target_": "monai_unetpp.nothere"}}),
}
for _title, (_says, _entries) in _ENTRIES.items():
    _attempt = functools.partial(_with_entry, **_entries)
    KIND.add(f"`inference.json`: {_title}", _attempt, REFUSED, f"inference.json.*{_says}")


def _with_text(folder: Path, file: Path, change: Callable[[bytes], bytes]) -> None:
    bundle = _copy(folder)
    content = change((bundle / file).read_bytes())
    (bundle / file).unlink()
    (bundle / file).write_bytes(content)
    _segment(folder, bundle)


_TEXTS: dict[str, tuple[Path, str, Callable[[bytes], bytes]]] = {
    "`inference.json`: cut off": (_INFERENCE, "inference.json: cannot be read as JSON", lambda content: content[:500]),
    "`inference.json`: a list": (_INFERENCE, "inference.json: must hold a JSON object", lambda content: b"[1]"),
    "`metadata.json`: cut off": (_METADATA, "metadata.json: cannot be read as JSON", lambda content: content[:500]),
    "`metadata.json`: empty": (_METADATA, "metadata.json: cannot be read as JSON", lambda content: b""),
    "weights: cut off": (_WEIGHTS, "model.pt: .*damaged", lambda content: content[:-400]),
    "weights: empty": (_WEIGHTS, "model.pt: .*damaged|model.pt: .*empty", lambda content: b""),
    "weights: text": (_WEIGHTS, "model.pt: not a file of weights", lambda content: b"<html>not found</html>"),
}
for _title, (_file, _says, _change) in _TEXTS.items():
    KIND.add(_title, functools.partial(_with_text, file=_file, change=_change), REFUSED, _says)


@KIND.situation(
    "weights: one flipped bit in a number, which torch would read", REFUSED, "model.pt: damaged, the checksum"
)
def _flipped_bit(folder: Path) -> None:
    bundle = _copy(folder)
    content = bytearray((bundle / _WEIGHTS).read_bytes())
    bias = torch.load(bundle / _WEIGHTS, weights_only=True)["heads.L1.bias"].numpy().tobytes()
    content[content.find(bias) + 7] ^= 1
    (bundle / _WEIGHTS).write_bytes(content)
    expect(bool(torch.load(bundle / _WEIGHTS, weights_only=True)), "torch does not read it")
    _segment(folder, bundle)


class _Command:
    """What runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.path,)


@KIND.situation(
    "weights: a pickle that runs code: not run", REFUSED, "model.pt: not a file of weights that can be read safely"
)
def _pickle(folder: Path) -> None:
    bundle = _copy(folder)
    torch.save({"state_dict": _Command(folder / "PWNED")}, bundle / _WEIGHTS)
    (folder / "plain.pt").write_bytes(pickle.dumps(_Command(folder / "PWNED")))
    try:
        _segment(folder, bundle)
    finally:
        expect(not (folder / "PWNED").exists(), "the code in the pickle was run")


@KIND.situation("weights: of another network", REFUSED, "model.pt")
def _other_network(folder: Path) -> None:
    bundle = _copy(folder)
    torch.save(torch.nn.Conv3d(1, 1, 1).state_dict(), bundle / _WEIGHTS)
    _segment(folder, bundle)


def _checked(folder: Path, problem: str, change: Callable[[Path], object]) -> None:
    """Let ``check`` find what was changed; the line is the message."""
    bundle = _copy(folder)
    # files that the zoo asks for and that this bundle's network does not fit are no matter here
    before = set(check_bundle(bundle))
    change(bundle)
    found = [line for line in check_bundle(bundle) if line not in before]
    expect(any(problem in line for line in found), f"check finds {found}")
    raise ValueError(next(line for line in found if problem in line))


def _nan_weights(bundle: Path) -> None:
    weights = torch.load(bundle / _WEIGHTS, weights_only=True)
    weights["heads.L1.bias"][1] = np.nan
    torch.save(weights, bundle / _WEIGHTS)


def _other_weights(bundle: Path) -> None:
    weights = torch.load(bundle / _WEIGHTS, weights_only=True)
    weights["heads.L1.bias"] += 1
    torch.save(weights, bundle / _WEIGHTS)


def _broken_names(bundle: Path) -> None:
    metadata = json.loads((bundle / _METADATA).read_text())
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = {"one": "a", "2": ""}
    change_json(bundle / _METADATA, **metadata)


_CHECKS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "NaN in the weights": ("the weights must be finite", _nan_weights),
    "other weights than the metadata's SHA-256": ("not the file that configs/metadata.json describes", _other_weights),
    "broken names of labels (`channel_def`)": ("channel_def must", _broken_names),
    "a file is missing": ("docs/README.md: missing", lambda bundle: (bundle / "docs" / "README.md").unlink()),
}
for _title, (_problem, _spoil) in _CHECKS.items():
    KIND.add(f"`check`: {_title}", functools.partial(_checked, problem=_problem, change=_spoil), REFUSED, _problem)


@KIND.situation("`check` of a folder that is neither a bundle nor a data set", REFUSED, "neither a bundle")
def _neither(folder: Path) -> None:
    run_command("check", folder)


def _failing(folder: Path, target: str, error: BaseException) -> None:
    """One of two cases meets ``error``; the other one must be done."""
    images = [save(folder / f"{name}.nii.gz") for name in "ab"]
    with mock.patch(target, side_effect=_fail_once(target, error), autospec=True):
        summary = segmented(images, folder / "out")
    expect([done.case for done in summary.cases] == ["b"], f"segmented were {[done.case for done in summary.cases]}")
    expect_equal(labels_of(summary), LABELS)
    expect(sorted(path.name for path in (folder / "out").glob("*_seg*")) == ["b_seg.nii.gz"], "something is left over")
    refuse_if_failed(summary)


def _fail_once(target: str, error: BaseException) -> Callable[..., Any]:
    original = pkgutil.resolve_name(target)
    calls: list[int] = []

    def call(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise error
        return original(*arguments, **options)

    return call


_FULL = OSError(errno.ENOSPC, "No space left on device")
_NETWORK = "monai_unetpp.inferers.NestedSlidingWindowInferer.__call__"
_MACHINE: dict[str, tuple[str, str, BaseException]] = {
    "the disk is full when a result is written": ("a_seg.nii.gz: cannot be written", "nibabel.save", _FULL),
    "memory runs out in the network (torch)": (
        "20 x 24 x 18 voxels of 1 x 1 x 2 mm",
        _NETWORK,
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes."),
    ),
    "memory runs out in the network (OpenVINO)": (
        "20 x 24 x 18 voxels",
        _NETWORK,
        RuntimeError("Exception from src/inference: std::bad_alloc"),
    ),
    "memory runs out on the GPU": (
        "20 x 24 x 18 voxels",
        _NETWORK,
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    ),
    "memory runs out when an image is read": (
        "loading ran out of memory",
        "monai_unetpp.data.formats.reader.read_voxels",
        MemoryError("Unable to allocate 37.3 GiB"),
    ),
}
for _title, (_says, _target, _error) in _MACHINE.items():
    KIND.add(
        f"{_title} (simulated); the next case is done",
        functools.partial(_failing, target=_target, error=_error),
        REFUSED,
        _says,
    )

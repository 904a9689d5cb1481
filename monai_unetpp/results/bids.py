"""BIDS: find the images of a data set, and name their segmentations in a derived data set."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai_unetpp.data.formats.result_marks import RUN_FILE
from monai_unetpp.files import MARK, write_json, write_text
from monai_unetpp.results.colour_tables import TABLE_FILES
from monai_unetpp.results.volumes import VOLUMES_FILE
from monai_unetpp.version import __version__

__all__ = ["default_bids_output", "find_bids_images", "is_bids", "write_bids_description"]

_DESCRIPTION = "dataset_description.json"
_IGNORED = ".bidsignore"
_VERSION = "1.10.0"
_FOLDERS = {"sub": re.compile(r"sub-[0-9A-Za-z+]+"), "ses": re.compile(r"ses-[0-9A-Za-z+]+")}


def is_bids(folder: Path) -> bool:
    """Whether a folder is a BIDS data set: it has a description and a subject folder."""
    return os.path.isfile(folder / _DESCRIPTION) and any(_folders(folder, "sub"))


def default_bids_output(folder: Path) -> Path:
    """The default folder of the derived data set."""
    return folder / "derivatives" / MARK


def find_bids_images(folder: Path, suffix: str) -> dict[str, str]:
    """Find the anatomical images of one kind, in the order of subjects and sessions.

    Args:
        folder: a BIDS data set, raw or derived.
        suffix: BIDS suffix of the images, such as ``"T1w"``.

    Returns:
        By file, the path of its segmentation in the derived data set, without ``_dseg`` and suffix, such as
        ``"sub-01/anat/sub-01_run-1"``.

    Raises:
        ValueError: there are none.
    """
    found: dict[str, str] = {}
    others: set[str] = set()
    for subject in _folders(folder, "sub"):
        for place in (subject, *_folders(subject, "ses")):
            for path in sorted((place / "anat").glob("*.nii*")):
                stem, _, end = path.name.removesuffix(".gz").removesuffix(".nii").rpartition("_")
                if end == suffix and path.name.endswith((".nii", ".nii.gz")) and stem.startswith("sub-"):
                    found[str(path)] = f"{path.parent.relative_to(folder).as_posix()}/{stem}"
                others.add(end)
    if not found:
        there = f"there are {', '.join(sorted(others))}" if others else "its anat folders hold no NIfTI files"
        raise ValueError(
            f"{folder}: has no image with suffix {suffix!r} in sub-*/[ses-*/]anat; {there}. Name another with --suffix."
        )
    return found


def write_bids_description(folder: Path, source: Path, bundle: str) -> None:
    """Make a folder a derived data set: write its description and the list of ignored files.

    What others have added to these stays.

    Args:
        folder: the derived data set.
        source: the original data set.
        bundle: name of the bundle.

    Raises:
        ValueError: the folder is a data set of another program or bundle.
        OSError: a file cannot be written.
    """
    path, by = folder / _DESCRIPTION, f"bundle {bundle}"
    earlier = _read_description(path, by)
    own, *others = earlier.get("GeneratedBy", [{}])
    url = f"bids::{os.path.relpath(source.resolve(), folder.resolve())}"
    sources = [each for each in earlier.get("SourceDatasets") or () if isinstance(each, dict)]
    content = {
        "Name": f"Segmentations of {source.resolve().name} by {MARK}",
        "BIDSVersion": _VERSION,
        "DatasetType": "derivative",
        **earlier,
        "GeneratedBy": [{**own, "Name": MARK, "Version": __version__, "Description": by}, *others],
        "SourceDatasets": [*sources, *([] if url in {each.get("URL") for each in sources} else [{"URL": url}])],
    }
    write_json(path, content, indent=2, ensure_ascii=False)
    ignored = folder / _IGNORED
    lines = ignored.read_text(encoding="utf-8", errors="surrogateescape").splitlines() if ignored.exists() else []
    missing = [name for name in (VOLUMES_FILE, RUN_FILE, *TABLE_FILES.values()) if name not in lines]
    write_text(ignored, "".join(f"{line}\n" for line in [*lines, *missing]))


def _read_description(path: Path, wanted: str) -> dict[str, Any]:
    """The description that earlier runs of a bundle wrote; empty if there is none."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        made_by, by = (content["GeneratedBy"][0][key] for key in ("Name", "Description"))
    except (OSError, ValueError, TypeError, LookupError):
        content, made_by, by = {}, None, None
    if (made_by, by) != (MARK, wanted):
        of_whom = f"segmentations by {by}" if made_by == MARK else f"a data set that {MARK} did not write"
        raise ValueError(f"{path}: describes {of_whom}. Name another output folder with -o.")
    return dict(content)


def _folders(folder: Path, kind: str) -> Iterator[Path]:
    """The folders of subjects or sessions sorted by name, including links."""
    return (path for path in sorted(folder.glob(f"{kind}-*")) if _FOLDERS[kind].fullmatch(path.name) and path.is_dir())

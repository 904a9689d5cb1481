"""Finding what is to be segmented."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from monai.data import load_decathlon_datalist

from monai_unetpp.data.datalist import read_datalist
from monai_unetpp.data.dicom import dicom_files, is_dicom_file
from monai_unetpp.data.errors import ImageFileError
from monai_unetpp.data.itk_images import ITK_SUFFIXES
from monai_unetpp.data.nifti import NIFTI_SUFFIXES
from monai_unetpp.data.pictures import PICTURE_SUFFIXES, is_picture_name

__all__ = ["RESULT_NAME", "case_name", "find_cases", "result_suffix"]

logger = logging.getLogger(__name__)

# longest first, so that .nii.gz comes before what it may end in
_SUFFIXES = tuple(sorted((*NIFTI_SUFFIXES, *ITK_SUFFIXES, *PICTURE_SUFFIXES), key=len, reverse=True))
_VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *ITK_SUFFIXES)
_SEGMENTATION = "_seg"

#: Key of the name that files of results get, where it is not that of the case.
RESULT_NAME = "result_name"


def find_cases(
    input: str | PathLike[str] | Sequence[str | PathLike[str]],
    strict: bool = True,
    pictures: bool = False,
    list_key: str | None = None,
) -> list[dict[str, Any]]:
    """The cases that ``input`` stands for.

    Args:
        input: any of these, or a list of them:

            - an image file: NIfTI, ``.nrrd``, ``.nhdr``, ``.mha``, ``.mhd``, or a DICOM file of many frames;
            - a folder: each image file in it, by name, and each subfolder that is a DICOM series. Subfolders are not
              searched further. ``x_seg`` beside ``x`` is taken as an earlier result and left out;
            - a DICOM series: a folder with DICOM files;
            - a folder with ``dataset.json`` in Decathlon form: its ``test`` cases; where it has none, those of
              ``validation``, else the files of ``imagesTs``, else the ``training`` cases.
        strict: whether an ``input`` that is missing, empty or not an image is an error. Otherwise it becomes a case
            with the reason as ``failure``, which :class:`monai_unetpp.data.CaseDataset` hands on.
        pictures: whether PNG and TIFF files are images too, for networks in 2D. For others a PNG in a folder is
            nothing to segment.
        list_key: list to take from ``dataset.json``, such as ``"validation"``; the same cases as
            :func:`monai_unetpp.data.load_datalist` gives, also where the list must be drawn. ``input`` must be such
            folders then.

    Returns:
        Dicts with ``image``, a path (or several, for several channels), and ``case``, a name for files. It is the
        name of the file or folder; images of one name in different folders get the folder's name in front. Images of
        one name whose results differ in their suffix, such as ``a.png`` and ``a.nii.gz``, are cases of their whole
        names, and keep the short one for their results as ``result_name``.

    Raises:
        ImageFileError: if ``strict``: nothing to segment, or two images in one folder whose results would have one
            name.
        TypeError: ``input`` is not a path or a list of paths.
    """
    items = [input] if isinstance(input, (str, PathLike)) else input
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, (str, PathLike)) for item in items):
        raise TypeError(f"input must be a path or a list of paths, got {input!r}. Name a file or a folder.")
    if not items:
        raise ImageFileError("input must name a file or a folder, got an empty list.")
    suffixes = (*_VOLUME_SUFFIXES, *PICTURE_SUFFIXES) if pictures else _VOLUME_SUFFIXES
    cases: list[dict[str, Any]] = []
    for item in items:
        try:
            cases.extend(_readable_cases_of(Path(item).expanduser(), suffixes, list_key))
        except ImageFileError as e:
            if strict:
                raise
            cases.append({**_case(item), "failure": str(e)})
    return _with_unique_names(cases, strict)


def case_name(path: str | PathLike[str]) -> str:
    """The name of a case: that of its file without the suffix, or of its folder."""
    path = Path(path)
    if path.is_dir():
        return path.resolve().name
    suffix = next((suffix for suffix in (*_SUFFIXES, ".dcm") if path.name.lower().endswith(suffix)), "")
    return path.name[: -len(suffix)] if suffix and len(suffix) < len(path.name) else path.name


def result_suffix(image: str | PathLike[str]) -> str:
    """The suffix of the segmentation of ``image``: NIfTI, but PNG or TIFF for such pictures."""
    if not is_picture_name(image):
        return ".nii.gz"
    return ".png" if fspath(image).lower().endswith(".png") else ".tif"


def _readable_cases_of(path: Path, suffixes: tuple[str, ...], list_key: str | None) -> list[dict[str, Any]]:
    try:
        return _cases_of(path, suffixes, list_key)
    except OSError as e:
        raise ImageFileError(f"{path}: cannot be read ({e.strerror}). Check the path and its permissions.") from e


def _cases_of(path: Path, suffixes: tuple[str, ...], list_key: str | None) -> list[dict[str, Any]]:
    if not path.exists():
        raise ImageFileError(f"{path}: no such file or folder. Check the path.")
    if path.is_dir() and (path / "dataset.json").is_file():
        return _decathlon_cases(path, suffixes, list_key)
    if list_key is not None:
        raise ImageFileError(f"{path}: no folder with dataset.json to take {list_key!r} from. Leave list_key out.")
    if path.is_dir():
        return _folder_cases(path, suffixes)
    if not path.name.lower().endswith(suffixes) and not is_dicom_file(path):
        remedy = ""
        if is_picture_name(path):
            remedy = " Pictures are for bundles of images, such as nuclei_microscopy_unetpp."
        raise ImageFileError(f"{path}: not a supported image. Give {_formats(suffixes)}.{remedy}")
    return [_case(path)]


def _folder_cases(folder: Path, suffixes: tuple[str, ...]) -> list[dict[str, Any]]:
    content = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    # a link to nowhere is kept: it is for the reader to say so
    files = [path for path in content if not path.is_dir() and path.name.lower().endswith(suffixes)]
    files = [path for path in files if not _is_second_of_pair(path)]
    names = {case_name(path) for path in files}
    results = [path for path in files if _is_result(case_name(path), names)]
    if results:
        logger.info("%s: %d earlier results (*%s) are left out.", folder, len(results), _SEGMENTATION)
    images = [path for path in files if path not in results]
    if not images and any(dicom_files(folder)):
        return [_case(folder)]
    series = [path for path in content if path.is_dir() and any(dicom_files(path))]
    if not images and not series:
        raise ImageFileError(f"{folder}: holds no image. Name a file, or a folder with {_formats(suffixes)} files.")
    return [_case(path) for path in (*images, *series)]


def _formats(suffixes: tuple[str, ...]) -> str:
    others = [suffix for suffix in suffixes if suffix not in NIFTI_SUFFIXES]
    return f"NIfTI ({', '.join(NIFTI_SUFFIXES)}), {', '.join(others)} or DICOM"


def _is_second_of_pair(path: Path) -> bool:
    return path.suffix.lower() == ".img" and any(path.with_suffix(suffix).is_file() for suffix in (".hdr", ".HDR"))


def _is_result(name: str, names: set[str]) -> bool:
    return name.endswith(_SEGMENTATION) and name.removesuffix(_SEGMENTATION) in names


def _decathlon_cases(folder: Path, suffixes: tuple[str, ...], list_key: str | None) -> list[dict[str, Any]]:
    path = folder / "dataset.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        key = list_key or next((key for key in ("test", "validation") if content.get(key)), None)
        if key is None and (folder / "imagesTs").is_dir():
            return _folder_cases(folder / "imagesTs", suffixes)
        key = key or "training"
        entries = read_datalist(path, list_key) if list_key else load_decathlon_datalist(path, data_list_key=key)
        images = [entry["image"] for entry in entries]
    except ImageFileError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise ImageFileError(f"{path}: not a data list in Decathlon form ({e}). Repair it.") from e
    if not images:
        raise ImageFileError(f"{path}: lists no images. Add a 'test' list.")
    return [_case(image) for image in images]


def _case(image: str | PathLike[str] | Sequence[str]) -> dict[str, Any]:
    if isinstance(image, (list, tuple)):
        return {"image": [str(path) for path in image], "case": case_name(image[0])}
    return {"image": fspath(image), "case": case_name(image)}  # type: ignore[arg-type]


def _with_unique_names(cases: Sequence[dict[str, Any]], strict: bool) -> list[dict[str, Any]]:
    by_path: dict[Path, dict[str, Any]] = {}
    for case in cases:
        by_path.setdefault(_first_path(case).resolve(), case)
    once = list(by_path.values())
    for _, same in _by_name(once):
        folders = {_first_path(case).resolve().parent for case in same}
        if len(folders) > 1:
            for case in same:
                case["case"] = f"{_first_path(case).resolve().parent.name}_{case['case']}"
    _check_results(once, strict)
    for _, same in _by_name(once):
        if len(same) > 1:
            for case in same:
                path = _first_path(case)
                case[RESULT_NAME] = case["case"]
                case["case"] += path.name.removeprefix(case_name(path))
    return once


def _check_results(cases: Sequence[dict[str, Any]], strict: bool) -> None:
    """Mark every case whose result would have the file of an earlier one's."""
    first_of: dict[tuple[str, str], dict[str, Any]] = {}
    for name, same in _by_name(cases):
        for case in same:
            first = first_of.setdefault((name, result_suffix(_first_path(case))), case)
            if first is case:
                continue
            reason = (
                f"{_first_path(case)}: its result would overwrite that of {_first_path(first)}. "
                "Rename one of them, or segment them into different folders."
            )
            if strict:
                raise ImageFileError(reason)
            case.setdefault("failure", reason)


def _by_name(cases: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for case in cases:
        groups[case["case"].casefold()].append(case)  # some file systems do not tell A from a
    return list(groups.items())


def _first_path(case: dict[str, Any]) -> Path:
    image = case["image"]
    return Path(image[0] if isinstance(image, list) else image)

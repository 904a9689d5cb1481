"""Find the cases to segment."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from monai_unetpp.data.datasets.datalist import read_as_written, read_content, read_datalist, read_entries, read_form
from monai_unetpp.data.datasets.forms import VOXEL_SUFFIXES, Form, is_data_set, labelled_folders
from monai_unetpp.data.formats.dicom import (
    dicom_files,
    has_dicom_prefix,
    is_dicom_file,
    is_dicom_image,
    lost_files,
    read_series_uid,
)
from monai_unetpp.data.formats.grid import channel_axes, warn_once
from monai_unetpp.data.formats.image_errors import ImageFileError, check_regular_file
from monai_unetpp.data.formats.naming import case_name, channel_of, entry_name, image_name, with_unique_names
from monai_unetpp.data.formats.nifti import header_beside, open_nifti
from monai_unetpp.data.formats.pictures import has_colours
from monai_unetpp.data.formats.result_marks import is_result
from monai_unetpp.data.formats.suffixes import (
    IMAGE_SUFFIXES,
    NIFTI_SUFFIXES,
    VOLUME_SUFFIXES,
    is_nifti_name,
    is_picture_name,
)
from monai_unetpp.data.formats.tiff import COLOURS
from monai_unetpp.errors import counted, list_values, printable

logger = logging.getLogger(__name__)

#: Of files that are no DICOM: raw voxels can look like the beginning of one.
_KNOWN_SUFFIXES = (*IMAGE_SUFFIXES, *VOXEL_SUFFIXES)
#: Of images in formats that are not read.
_UNREAD = (".mgz", ".mgh", ".mnc", ".bmp", ".gif", ".webp", ".jp2", ".svs", ".czi", ".nd2", ".lif", ".vtk")
#: How many folders below are searched, and files of each looked at.
_MOST_FOLDERS, _MOST_FILES = 1000, 20
_Case = dict[str, Any]
#: Reads the list to take from a ``dataset.json``.
_Wanted = partial[list[dict[str, Any]]]


def find_cases(
    input: str | PathLike[str] | Sequence[str | PathLike[str]],
    strict: bool = True,
    pictures: bool = False,
    list_key: str | None = None,
    channels: int = 1,
    subjects: Mapping[str, str] | str | PathLike[str] | None = None,
    subject_pattern: str | None = None,
) -> list[dict[str, Any]]:
    """The cases in ``input``.

    Args:
        input: any of these, or a list of them:

            - an image file: NIfTI, ``.nrrd``, ``.nhdr``, ``.mha``, ``.mhd``, or a DICOM file of many frames;
            - a folder: its image files sorted by name, its DICOM files as one series, and each subfolder that is a
              DICOM series. What is left out below, or of formats that are not read, is told;
            - a folder with ``dataset.json`` in Decathlon form: its ``test`` cases (or ``testing``, as in MONAI's
              Auto3DSeg), else its ``validation`` cases, else the files of ``imagesTs``, else the ``training`` cases;
            - a folder in nnU-Net form, or with ``images`` and ``labels``: the files of ``imagesTs``, else those of
              ``imagesTr`` or ``images``, with or without a label. If all are named like ``case_0000.nii.gz``, and
              their labels without this number, so are the cases.

            Files written by this package are recognized by their mark, whatever their name, and left out. A path
            given twice is one case; two links to one file are two.
        strict: whether an ``input`` that is missing, empty or not an image is an error. Otherwise it becomes a case
            with the reason as ``failure``, which :class:`monai_unetpp.data.CaseDataset` passes on.
        pictures: whether PNG, JPEG and TIFF files count as images, for 2D networks. Other networks skip them.
        list_key: list to take from ``dataset.json``, such as ``"validation"``; the same cases as from
            :func:`monai_unetpp.data.load_datalist`, even if the list must be drawn. Every ``input`` must then be such a
            folder.
        channels: channels of the network. With several, ``case_0000.nii.gz``, ``case_0001.nii.gz`` and so on in one
            folder, as nnU-Net names them, are the channels of one case. A file without such a number holds all of them.
        subjects: for ``list_key``, as for ``load_datalist``: with these, its entries must have labels.
        subject_pattern: the same.

    Returns:
        Dicts with ``image``, a path (or one per channel), and ``case``, a name for files. This is the name in
        ``dataset.json``, as for ``load_datalist``, or else that of the file or folder.
        Images of the same name in different folders are told apart by the folders' names in front, or by BIDS's
        ``sub-`` and ``ses-``. Images of the same name whose results differ in suffix, such as ``a.png`` and
        ``a.nii.gz``, use their full names as ``case``, and keep the short one for their results as ``result_name``.

    Raises:
        ImageFileError: if ``strict``: nothing to segment, or two images in one folder whose results would have the
            same name.
        TypeError: ``input`` is not a path or a list of paths.
    """
    items = [input] if isinstance(input, (str, PathLike)) else input
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, (str, PathLike)) for item in items):
        raise TypeError(f"input must be a path or a list of paths, got {input!r}. Name a file or a folder.")
    if not items:
        raise ImageFileError("input must name a file or a folder, got an empty list.")
    if not all(map(fspath, items)):  # it would be the working directory
        raise ImageFileError("input must name a file or a folder, got an empty name.")
    suffixes = IMAGE_SUFFIXES if pictures else VOLUME_SUFFIXES
    wanted: _Wanted | None = None
    if list_key is not None:
        wanted = partial(read_datalist, key=list_key, subjects=subjects, subject_pattern=subject_pattern)
    cases, only_results = _collect(items, suffixes, wanted, strict)
    if only_results and cases:
        example = only_results[0]["image"]
        found = counted(len(only_results), "result")
        logger.warning("%s of monai-unetpp among the inputs, such as %s. Left out.", found, example)
    elif only_results and strict:
        raise ImageFileError(only_results[0]["failure"])
    joined = _join_channels(cases or only_results, channels, strict, (2, 3) if pictures else (3,))
    return with_unique_names(joined, strict)


def expand_home(path: str | PathLike[str]) -> Path:
    """Expand ``~`` at the beginning of ``path``, unless a file has this name or the user does not exist."""
    text = fspath(path)
    if not text.startswith("~"):
        return Path(text)
    is_own_home = text == "~" or text.startswith(("~/", f"~{os.sep}"))
    home = os.path.expanduser(text)
    return Path(text if os.path.lexists(text) and not is_own_home else home)


def _collect(
    items: Sequence[str | PathLike[str]], suffixes: tuple[str, ...], wanted: _Wanted | None, strict: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The cases of all inputs, and failures for inputs that hold only results."""
    cases: list[dict[str, Any]] = []
    only_results: list[dict[str, Any]] = []
    paths = [expand_home(item) for item in items]
    for item, path in zip(items, paths, strict=True):
        if header_beside(path) in paths:
            # as a pattern of the shell names both files of an image
            continue
        try:
            cases.extend(_cases_of(path, suffixes, wanted))
        except _OnlyResultsError as e:
            only_results.append({**_case(item), "failure": printable(str(e))})
        except (ImageFileError, OSError) as e:
            reason = str(e)
            if isinstance(e, OSError):
                reason = f"{path}: cannot be read ({e.strerror}). Check the path and its permissions."
            if strict:
                raise ImageFileError(reason) from e
            cases.append({**_case(item), "failure": printable(reason)})
    _warn_of_divided_series(cases)
    return cases, only_results


class _OnlyResultsError(ImageFileError):
    """The input holds nothing but results of this package."""


def _cases_of(path: Path, suffixes: tuple[str, ...], wanted: _Wanted | None) -> list[dict[str, Any]]:
    check_regular_file(path, folders=True)
    is_folder = path.is_dir()
    if is_folder and is_data_set(path):
        return _data_set_cases(path, suffixes, wanted)
    if wanted is not None:
        raise ImageFileError(
            f"{path}: not a folder with dataset.json, or with images and labels, to take {wanted.keywords['key']!r} "
            "from. Leave list_key out."
        )
    if is_folder:
        return _folder_cases(path, suffixes)
    if is_result(path):
        raise _OnlyResultsError(f"{path}: a result of monai-unetpp, not an image. Name the image.")
    if not path.name.lower().endswith(suffixes) and not is_dicom_file(path):
        with path.open("rb"):  # is it readable at all
            pass
        remedy = ""
        if is_picture_name(path):
            remedy = " Pictures are for bundles of images, such as nuclei_microscopy_unetpp."
            if path.suffix.lower() in (".tif", ".tiff"):
                remedy += " A volume as TIFF must be listed in a dataset.json."
        raise ImageFileError(f"{path}: not a supported image. Give {_formats(suffixes)}.{remedy}")
    return [_case(path)]


def _folder_cases(folder: Path, suffixes: tuple[str, ...]) -> list[dict[str, Any]]:
    content = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    # keep pipes and broken links: the reader reports them
    files = [path for path in content if path.name.lower().endswith(suffixes) and not os.path.isdir(path)]
    files = [path for path in files if header_beside(path) is None and not _is_slice(path)]
    images = [path for path in files if not is_result(path)]
    results = len(files) - len(images)
    if results:
        logger.info("%s: %d earlier results are left out.", folder, results)
    others = (path for path in content if not path.name.lower().endswith(_KNOWN_SUFFIXES) or _is_slice(path))
    series = [folder] if any(map(is_dicom_image, others)) else []
    series += [path for path in content if _is_series(path, folder)]
    if images or series:
        for told in _told_of(folder, content, series, suffixes):
            warn_once(f"{folder}: {told}")
        return [_case(path) for path in (*images, *series)]
    if results:
        raise _OnlyResultsError(f"{folder}: holds nothing but results of monai-unetpp. Name the folder of the images.")
    below = _folders_below(folder, (), suffixes)
    if below:
        raise ImageFileError(f"{folder}: holds no image, but folders below do. Name them: {list_values(below)}.")
    raise ImageFileError(f"{folder}: holds no image. Name a file, or a folder with {_formats(suffixes)} files.")


def _is_slice(path: Path) -> bool:
    """Whether ``path`` is a slice of DICOM with the suffix of another format."""
    return path.suffix.lower() in (".img", ".raw") and has_dicom_prefix(path)


def _is_series(path: Path, folder: Path) -> bool:
    """Whether ``path`` is a subfolder with DICOM files, and not a link that leads back."""
    if not os.path.isdir(path):
        return False
    if os.path.islink(path) and Path(os.path.realpath(path)) in (real := Path(os.path.realpath(folder)), *real.parents):
        return False
    try:
        return any(dicom_files(path)) or _is_lost(path)
    except OSError as e:
        logger.warning("%s: cannot be read (%s) and is skipped.", path, e.strerror)
        return False


def _is_lost(folder: Path) -> bool:
    """Whether a folder holds nothing but links to missing files, of which some may be slices."""
    content = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return not any(map(os.path.exists, content)) and bool(lost_files(folder, ()))


def _told_of(folder: Path, content: Sequence[Path], series: Sequence[Path], suffixes: tuple[str, ...]) -> list[str]:
    """What a user must know of a folder of images that are segmented: one sentence for each thing that is left out."""
    told = []
    unread = [path.name for path in content if path.suffix.lower() in _UNREAD and path.is_file()]
    if unread:
        told.append(f"{counted(len(unread), 'file')} in other formats left out: {list_values(unread)}. Convert them.")
    below = _folders_below(folder, series, suffixes)
    if below:
        names = list_values([os.path.relpath(path, folder) for path in below])
        told.append(f"images in folders below are left out: {names}. Name these folders to segment them.")
    return told


def _folders_below(folder: Path, segmented: Collection[Path], suffixes: tuple[str, ...]) -> list[Path]:
    """Folders below ``folder`` with images that are not ``segmented`` as a DICOM series; links are not followed."""
    found: list[Path] = []
    for number, (place, folders, files) in enumerate(os.walk(folder)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(place)
        # of a DICOM series, dcm2niix puts the NIfTI file beside it
        ends = suffixes if here in segmented else ""
        seen = sorted(name for name in files if not name.startswith(".") and name.lower().endswith(ends))[:_MOST_FILES]
        seen = [name for name in seen if not (here in segmented and _is_slice(here / name))]
        if number and any(_is_image(here / name, suffixes) for name in seen):
            found.append(here)
        if number >= _MOST_FOLDERS:
            break
    return found


def _is_image(path: Path, suffixes: tuple[str, ...]) -> bool:
    name = path.name.lower()
    try:
        if name.endswith(suffixes):
            return os.path.isfile(path) and not is_result(path)
        return not name.endswith(_KNOWN_SUFFIXES) and is_dicom_image(path)
    except OSError:
        return False


def _warn_of_divided_series(cases: Sequence[Mapping[str, Any]]) -> None:
    """Tell of folders that hold files of the same DICOM series."""
    images = [case["image"] for case in cases if "failure" not in case and isinstance(case["image"], str)]
    folders = list(dict.fromkeys(Path(os.path.realpath(image)) for image in images if os.path.isdir(image)))
    by_uid: dict[str, list[Path]] = {}
    for folder in folders if len(folders) > 1 else ():
        uid = ""
        with suppress(OSError, StopIteration):  # what is wrong is told when it is read
            uid = read_series_uid(next(dicom_files(folder)))
        if uid:
            by_uid.setdefault(uid, []).append(folder)
    for places in by_uid.values():
        if len(places) > 1:
            where = places[0].parent
            names = list_values([path.name if path.parent == where else str(path) for path in places])
            told = f"files of one DICOM series in several folders: {names}. If each has a part, join them in one."
            warn_once(f"{where}: {told}")


def _formats(suffixes: tuple[str, ...]) -> str:
    others = [suffix for suffix in suffixes if suffix not in NIFTI_SUFFIXES]
    return f"NIfTI ({', '.join(NIFTI_SUFFIXES)}), {', '.join(others)} or DICOM"


def _data_set_cases(folder: Path, suffixes: tuple[str, ...], wanted: _Wanted | None) -> list[dict[str, Any]]:
    path = folder / "dataset.json"
    try:
        if wanted is not None:
            entries = wanted(path)
        elif (form := read_form(path)) != "Decathlon" and not _are_listed(path, form):
            # unlabelled images as well
            images, labels = labelled_folders(folder) or (folder, folder)
            unlisted = (folder / "imagesTs", folder / "imagesTr", images)
            cases = _folder_cases(next(each for each in unlisted if each.is_dir()), suffixes)
            labelled = {case_name(label) for label in labels.iterdir()} if form == "folder" else set()
            return _without_channels(cases, labelled)
        else:
            content = read_content(path)
            key = next((key for key in ("test", "testing", "validation") if content.get(key)), None)
            if key is None and (folder / "imagesTs").is_dir():
                return _folder_cases(folder / "imagesTs", suffixes)
            entries = read_entries(path, content, key or "training")
    except ImageFileError:
        raise
    except ValueError as e:
        raise ImageFileError(str(e)) from e
    if not entries:
        raise ImageFileError(f"{path}: lists no images. Add a 'test' list.")
    return [{**_case(entry["image"]), "case": entry_name(entry)} for entry in entries]


def _are_listed(path: Path, form: Form) -> bool:
    """Whether nnU-Net's ``dataset.json`` names the files of all cases, and there are no test images beside it."""
    return form == "nnU-Net" and "dataset" in read_as_written(path) and not (path.parent / "imagesTs").is_dir()


def _without_channels(cases: list[_Case], labelled: Collection[str]) -> list[_Case]:
    """Cases of single files with names without the number of their only channel, if that is what all names end in.

    In a plain folder the number is a part of the name if the names of labels have it too.
    """
    parts = [channel_of(case["image"]) for case in cases]
    if any(part is None or part[1] for part in parts) or any(case["case"] in labelled for case in cases):
        return cases
    return [{**case, "case": part[0]} for case, part in zip(cases, parts, strict=True) if part is not None]


def _case(image: str | PathLike[str] | Sequence[str]) -> dict[str, Any]:
    if isinstance(image, (list, tuple)):
        return {"image": [_for_loader(path) for path in image], "case": image_name(image)}
    return {"image": _for_loader(image), "case": image_name(image)}  # type: ignore[arg-type]


def _for_loader(path: str | PathLike[str]) -> str:
    """``path`` in a form in which MONAI's loader does not expand a ``~`` at its beginning."""
    text = fspath(path)
    return os.path.abspath(text) if text.startswith("~") else text


def _join_channels(cases: Sequence[_Case], channels: int, strict: bool, dims: Sequence[int]) -> list[_Case]:
    """Combine the files ``case_0000``, ``case_0001`` and so on of a folder into one case, in the place of its first.

    Files that hold all channels stay cases of their own, and so do pictures of which one has colours, if the network
    takes these: the number at the end of their names is that of the case. Missing, surplus or repeated channels are an
    error if ``strict``, else a ``failure``.
    """
    if channels == 1:
        return list(cases)
    groups: dict[Any, list[_Case]] = defaultdict(list)
    for number, case in enumerate(cases):
        groups[_whole_of(case) or number].append(case)
    joined: list[_Case] = []
    for key, group in groups.items():
        joined += group if isinstance(key, int) else _joined(key[1], group, channels, strict, dims)
    return joined


def _whole_of(case: _Case) -> tuple[str, str] | None:
    """Folder and name of the case that a file may be one channel of, by its name."""
    image = case["image"]
    if "failure" in case or not isinstance(image, str) or os.path.isdir(image):
        return None
    channel = channel_of(image)
    return None if channel is None else (os.path.dirname(image), channel[0])


def _joined(name: str, parts: Sequence[_Case], channels: int, strict: bool, dims: Sequence[int]) -> Sequence[_Case]:
    """The case with the channels in ``parts``; these themselves if all readable ones hold all, or one has colours."""
    numbers = {part["image"]: channel[1] for part in parts if (channel := channel_of(part["image"])) is not None}
    images = sorted(numbers, key=lambda image: (numbers[image], image))
    # a grey picture among coloured ones is no channel of theirs
    coloured = channels == COLOURS and any(is_picture_name(image) and has_colours(image) for image in images)
    holding = [_holds_all(image, channels, dims) for image in images]
    # a broken file is a case of its own among others that hold all channels
    if coloured or (True in holding and False not in holding):
        return parts
    case = {"image": images, "case": name}
    if sorted(numbers.values()) == list(range(channels)):
        return [case]
    reason = (
        f"{images[0]}: the case {name!r} must have a file for each of the network's {channels} channels, 0000 "
        f"to {channels - 1:04d}, got {', '.join(Path(image).name for image in images)}. Add, rename or remove files."
    )
    if strict:
        raise ImageFileError(reason)
    return [{**case, "failure": printable(reason)}]


def _holds_all(image: str, channels: int, dims: Sequence[int]) -> bool | None:
    """Whether the header of a file gives it a further axis with all channels; None if it cannot be read."""
    try:
        shape = open_nifti(image).shape if is_nifti_name(image) else ()
        return any(channel_axes(shape, each)[1] == channels for each in dims if len(shape) > each)
    except ImageFileError:  # reported when the case is loaded
        return None

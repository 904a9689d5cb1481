"""Convert data sets in other forms into lists as in the Medical Segmentation Decathlon."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from monai_unetpp.data.formats.dicom import dicom_files
from monai_unetpp.data.formats.grid import warn_once
from monai_unetpp.data.formats.naming import case_name, channel_of, composed
from monai_unetpp.data.formats.nifti import header_beside
from monai_unetpp.data.formats.pictures import has_colours
from monai_unetpp.data.formats.suffixes import IMAGE_SUFFIXES, JPEG_SUFFIXES, PICTURE_SUFFIXES, is_picture_name
from monai_unetpp.data.formats.tiff import COLOURS
from monai_unetpp.errors import counted, list_values

Form = Literal["Decathlon", "nnU-Net", "folder"]

_PAIRS = (("images", "labels"), ("imagesTr", "labelsTr"))
"""Folders of images and of their labels."""
VOXEL_SUFFIXES = (".raw", ".zraw", ".raw.gz", ".img", ".img.gz")
"""Suffixes of voxel files beside a header."""
_Lists = dict[str, list[dict[str, Any]]]


def is_data_set(folder: str | PathLike[str]) -> bool:
    """Whether a folder is a data set in one of the forms."""
    return os.path.isfile(Path(folder) / "dataset.json") or labelled_folders(Path(folder)) is not None


def labelled_folders(folder: Path) -> tuple[Path, Path] | None:
    """The folders of images and of labels of a data set without ``dataset.json``; None if there are none."""
    for images, labels in _PAIRS:
        if os.path.isdir(folder / images) and os.path.isdir(folder / labels):
            return folder / images, folder / labels
    return None


def form_of(content: Mapping[str, Any]) -> Form:
    """The form of a ``dataset.json``, judged by its content; nnU-Net's may list test images."""
    listed = {key for key in ("training", "validation", "test") if isinstance(content.get(key), list) and content[key]}
    if listed - {"test"}:
        return "Decathlon"
    # a list of test images with names of channels alone is one to segment
    needed = 2 if listed else 1
    return "nnU-Net" if len({"channel_names", "file_ending"} & set(content)) >= needed else "Decathlon"


def nnunet_lists(path: Path, content: Mapping[str, Any]) -> _Lists:
    """Make the ``training`` list of a data set in nnU-Net v2 form, whose ``dataset.json`` lists no cases.

    Beside it lie ``imagesTr`` with ``<case>_0000<ending>`` and so on, one file per channel, and ``labelsTr`` with
    ``<case><ending>``. Three channels may also be the colours of one picture, ``<case>_0000<ending>``. An entry
    ``dataset``, which names files by case, takes precedence. Cases have the names that nnU-Net gives them, without the
    number of a channel. A ``ValueError`` says what is missing or wrong.
    """
    channels, ending = content.get("channel_names"), content.get("file_ending")
    if not isinstance(channels, Mapping) or not channels:
        raise ValueError(
            f'{path}: channel_names must name every channel, like {{"0": "T1"}}, got {channels!r:.200}. Add them.'
        )
    if isinstance(content.get("dataset"), Mapping):
        listed = _listed_by_nnunet(path, content["dataset"], len(channels))
        _tell_missing(path, content.get("numTraining"), len(listed))
        return {"training": listed}
    if not isinstance(ending, str) or ending.lower() not in IMAGE_SUFFIXES:
        raise ValueError(
            f"{path}: file_ending must be one of {', '.join(IMAGE_SUFFIXES)}, got {ending!r:.80}. Correct it."
        )
    images, labels = path.parent / "imagesTr", path.parent / "labelsTr"
    found = {folder: _files(folder, "Put the training cases there, as nnU-Net does.") for folder in (images, labels)}
    for folder, files in found.items():
        _refuse(folder, "files that do not end in " + ending, [f.name for f in files if not f.name.endswith(ending)])
    single = [file.name for file in found[images] if channel_of(file) is None]
    _refuse(images, "files without a channel at the end of their names, like case_0000", single)
    by_case: dict[str, dict[int, Path]] = defaultdict(dict)
    for file in found[images]:
        name, channel = channel_of(file) or ("", 0)
        by_case[name][channel] = file
    by_label = _as_spelled({case_name(file): file for file in found[labels]}, by_case)
    _match(images, labels, by_case, by_label)
    if not (len(channels) == COLOURS and _are_colours(by_case.values())):
        _check_channels(images, by_case, range(len(channels)), ending)
    _tell_missing(path, content.get("numTraining"), len(by_case))
    return _training(path.parent, {name: list(files.values()) for name, files in by_case.items()}, by_label)


def _tell_missing(path: Path, promised: Any, found: int) -> None:
    """Log that there are not as many cases as ``numTraining`` says: an image may be missing with its label."""
    if isinstance(promised, int) and promised != found:
        warn_once(
            f"{path}: numTraining is {promised}, but there {'is' if found == 1 else 'are'} "
            f"{counted(found, 'training case')}. Add the files that are missing, or correct the number."
        )


def folder_lists(folder: Path) -> _Lists:
    """Make the ``training`` list of a folder with ``images`` and ``labels``, or ``imagesTr`` and ``labelsTr``.

    An image has the name of its label, apart from the suffix, or is one file per channel: ``<name>_0000``,
    ``<name>_0001`` and so on. It may be a subfolder with a DICOM series. Cases have the names of their images, in their
    composed characters, without the channel. A ``ValueError`` says what is missing, or repeated.
    """
    pair = labelled_folders(folder)
    if pair is None:
        raise ValueError(f"{folder}: must hold the folders images and labels. Make them, or write a dataset.json.")
    images, labels = pair
    by_label = _by_name(labels, _files(labels, "Put the labels there."))
    found = _by_name(images, _files(images, "Put the images there.", series=True))
    channel_parts = {name: channel_of(file) for name, file in found.items()}
    by_label = _as_spelled(by_label, {*found, *(parts[0] for parts in channel_parts.values() if parts is not None)})
    by_image: dict[str, Path] = {}
    by_channel = defaultdict[str, dict[int, Path]](dict)
    for name, file in found.items():
        parts = channel_parts[name]
        if parts is None or name in by_label or parts[0] not in by_label:
            by_image[name] = file
        else:
            by_channel[parts[0]][parts[1]] = file
    _refuse(images, "cases with one file and with one per channel", sorted(by_channel.keys() & by_image.keys()))
    channels = range(max((1 + max(files) for files in by_channel.values()), default=0))
    _check_channels(images, by_channel, channels)
    files = {name: [file] for name, file in by_image.items()} | {n: list(f.values()) for n, f in by_channel.items()}
    _match(images, labels, files, by_label)
    return _training(folder, files, by_label)


def _files(folder: Path, remedy: str, series: bool = False) -> list[Path]:
    """The images of a folder by name; other files are logged."""
    try:
        content = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as e:
        raise ValueError(f"{folder}: cannot be read as a folder ({e.strerror}). {remedy}") from e
    found: list[Path] = []
    others: list[Path] = []
    for path in content:
        if path.is_dir():
            (found if series and any(dicom_files(path)) else others).append(path)
        elif path.name.lower().endswith(IMAGE_SUFFIXES) and header_beside(path) is None:
            found.append(path)
        elif not path.name.lower().endswith(VOXEL_SUFFIXES):
            others.append(path)
    previews = _previews(found, mixed=series)
    others += sorted(previews)
    found = [path for path in found if path not in previews]
    names = list_values([path.name for path in others])
    if not found:
        only = f" in a format that can be read ({', '.join(IMAGE_SUFFIXES)}), only {names}" if others else ""
        raise ValueError(f"{folder}: holds no images{only}. {remedy}")
    if others:
        warn_once(f"{folder}: {len(others)} left out, no images: {names}.")
    tiffs = {path.stem for path in found if path.suffix.lower() in (".tif", ".tiff")}
    # of nnU-Net, for case_0000.tif
    sizes = [path for path in others if path.suffix == ".json" and {path.stem, f"{path.stem}_0000"} & tiffs]
    if sizes:
        warn_once(
            f"{folder}: the voxel sizes in {sizes[0].name} and others like it are not read, so that voxels count as 1 "
            "mm long. Convert the images to NIfTI if they matter."
        )
    return found


def _previews(files: Sequence[Path], mixed: bool) -> set[Path]:
    """JPEG files in a folder of other images or of labels: not cases, but pictures of them.

    If ``mixed``, those of other names may be cases beside pictures in other formats.
    """
    jpegs = {file for file in files if file.name.lower().endswith(JPEG_SUFFIXES) and not file.is_dir()}
    others = [file for file in files if file not in jpegs]
    if not mixed or not all(map(is_picture_name, others)):
        return jpegs if others else set()
    names = {case_name(file) for file in others} if jpegs else set()
    return {file for file in jpegs if case_name(file) in names}


def _by_name(folder: Path, files: Iterable[Path]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    twice = []
    for file in files:
        if named.setdefault(case_name(file), file) is not file:
            twice.append(f"{named[case_name(file)].name} and {file.name}")
    _refuse(folder, "files of the same name", twice)
    return named


def _as_spelled(files: Mapping[str, Path], known: Collection[str]) -> dict[str, Path]:
    """``files`` by the names in ``known``, also where a name is the same in other composed characters, as of a Mac."""
    others = {composed(name): name for name in known if name not in files}
    return {name if name in known else others.pop(composed(name), name): file for name, file in files.items()}


def _match(images: Path, labels: Path, by_image: Collection[str], by_label: Collection[str]) -> None:
    """Refuse images without a label, and labels without an image."""
    for folder, ours, other, theirs in (
        (images, by_image, f"a label in {labels.name}", by_label),
        (labels, by_label, f"an image in {images.name}", by_image),
    ):
        without = sorted(set(ours) - set(theirs))
        if without:
            raise ValueError(
                f"{folder}: all must have {other}, got {len(without)} of {len(ours)} without: {list_values(without)}. "
                "Add what is missing, give both the same name, or move these elsewhere."
            )


def _are_colours(cases: Collection[Mapping[int, Path]]) -> bool:
    """Whether each case is a single picture, and some have colours."""
    single = all(list(files) == [0] and is_picture_name(files[0]) for files in cases)
    return single and any(has_colours(files[0]) for files in cases)


def _check_channels(
    folder: Path, by_case: Mapping[str, Mapping[int, Path]], needed: Sequence[int], ending: str = ""
) -> None:
    wrong = {name: sorted(files) for name, files in by_case.items() if sorted(files) != list(needed)}
    if not wrong:
        return
    shown = [f"{name} ({', '.join(f'{each:04d}' for each in found)})" for name, found in sorted(wrong.items())]
    colours = ""
    if ending.lower() in PICTURE_SUFFIXES:
        colours = " The colours of a picture are three channels only where every case is one picture in colours."
    raise ValueError(
        f"{folder}: all cases must have {counted(len(needed), 'channel')}, "
        f"{', '.join(f'{each:04d}' for each in needed)}, got "
        f"{len(wrong)} of {len(by_case)} with others: {list_values(shown)}. Add the missing files, or correct their "
        f"names.{colours}"
    )


def _may_be_colours(images: Sequence[Any], channels: int) -> bool:
    return channels == COLOURS and len(images) == 1 and is_picture_name(str(images[0]))


def _listed_by_nnunet(path: Path, cases: Mapping[str, Any], channels: int) -> list[dict[str, Any]]:
    entries = []
    for name, files in cases.items():
        images = files.get("images") if isinstance(files, Mapping) else None
        if not isinstance(images, list) or (len(images) != channels and not _may_be_colours(images, channels)):
            raise ValueError(
                f"{path}: dataset must name {counted(channels, 'image')} for every case, one per channel, got "
                f"{images!r:.200} for {name!r}. Correct it."
            )
        image = images[0] if len(images) == 1 else images
        entries.append({"image": image, "label": files.get("label"), "case": name})
    return entries


def _training(folder: Path, by_case: Mapping[str, Iterable[Path]], by_label: Mapping[str, Path]) -> _Lists:
    entries = []
    for case in sorted(by_case):
        images = [os.path.relpath(file, folder) for file in sorted(by_case[case])]
        label = os.path.relpath(by_label[case], folder)
        entries.append({"image": images[0] if len(images) == 1 else images, "label": label, "case": case})
    return {"training": entries}


def _refuse(folder: Path, what: str, found: Sequence[str]) -> None:
    if found:
        raise ValueError(f"{folder}: must hold no {what}, got {len(found)}: {list_values(found)}. Rename or move them.")

"""Lists of cases in the form of the Medical Segmentation Decathlon, whatever form the data set has."""

from __future__ import annotations

import contextlib
import functools
import os
import random
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.choices import FORMS_HELP
from monai_unetpp.data.datasets.forms import Form, folder_lists, form_of, is_data_set, nnunet_lists
from monai_unetpp.data.datasets.labelled import list_cases, subject_of_entry
from monai_unetpp.data.formats.grid import warn_once
from monai_unetpp.data.formats.naming import case_name, composed, image_name, unique_names
from monai_unetpp.distributed import rank
from monai_unetpp.errors import counted
from monai_unetpp.files import read_json_object, write_json

LISTS = ("training", "validation")
"""The lists of labelled cases."""

_VALIDATION_SHARE = 0.2
#: A drawn validation list has at most this many times as many cases as wanted, unless every subject has more.
_MOST_DRAWN = 1.5
_SPLIT_SEED = 0


def read_content(path: str | PathLike[str]) -> dict[str, Any]:
    """Read a ``dataset.json``; data sets in other forms get lists of cases as well.

    In nnU-Net v2 form the list ``training`` is made from the files beside it. Without a ``dataset.json`` it is made
    from files of equal names in the folders ``images`` and ``labels`` (or ``imagesTr`` and ``labelsTr``). See
    :mod:`monai_unetpp.data.datasets.forms`.

    Raises:
        FileNotFoundError: there is neither the file nor such folders.
        ValueError: it cannot be read, is not an object, or images and labels do not match.
    """
    path = Path(path)
    form = read_form(path)
    if form == "folder":
        return dict(folder_lists(path.parent))
    content = read_as_written(path)
    return {**content, **nnunet_lists(path, content)} if form == "nnU-Net" else content


def read_form(path: str | PathLike[str]) -> Form:
    """The form of a data set, found without reading its cases; errors as for :func:`read_content`."""
    path = Path(path)
    if not os.path.lexists(path) and is_data_set(path.parent):
        return "folder"
    return form_of(read_as_written(path))


def read_as_written(path: Path) -> dict[str, Any]:
    """The content of a ``dataset.json`` alone."""
    return read_json_object(path, "Write it in Decathlon form.", f"Name a folder with {FORMS_HELP}.")


def load_datalist(
    dataset_dir: str | PathLike[str],
    key: str,
    split_dir: str | PathLike[str] | None = None,
    label_key: str = "label",
    subjects: Mapping[str, str] | str | PathLike[str] | None = None,
    subject_pattern: str | None = None,
) -> list[dict[str, Any]]:
    """Load one list of cases of a data set, with absolute paths.

    If there is no ``validation`` list, about a fifth of the training cases is drawn for it with a warning, always the
    same ones, and written to ``split.json``. Cases of one subject stay together if entries have a ``subject`` or names
    begin with one (:func:`.subject_of_entry`), or as ``subjects`` or ``subject_pattern`` tell;
    then each entry gets its ``subject``. Subjects with so many cases that the list would exceed 1.5 fifths are passed
    over; if all have that many, the one with the fewest is drawn.

    Args:
        dataset_dir: folder with ``dataset.json`` in Decathlon or nnU-Net v2 form, or with ``images`` and ``labels``;
            see :func:`read_content`.
        key: such as ``"training"`` or ``"validation"``.
        split_dir: folder for ``split.json``; not written if None.
        label_key: key of the labels in the result, for transforms that must leave them alone.
        subjects: subject by case, see :func:`monai_unetpp.data.datasets.labelled.list_cases`.
        subject_pattern: finds the subject in the case's name, see there.

    Returns:
        Dicts with ``image`` and ``label_key``. Where files in different folders have the same name, all have a ``case``
        too, which differs; see :func:`list_names`.

    Raises:
        FileNotFoundError: there is no ``dataset.json``.
        ValueError: it cannot be read, the list is missing or empty, entries lack image or label, images and labels do
            not match, or the subject of a case is not given or found.
    """
    path = Path(dataset_dir) / "dataset.json"
    cases = read_datalist(path, key, split_dir, subjects=subjects, subject_pattern=subject_pattern)
    if not cases:
        raise ValueError(f"{path}: the list {key!r} must hold cases, got none. Add some, or leave it out.")
    for number, case in enumerate(cases):
        if case.get("label") is None:
            raise ValueError(_incomplete(path, key, number, case))
    return [{(label_key if name == "label" else name): value for name, value in case.items()} for case in cases]


def read_datalist(
    path: str | PathLike[str], key: str, split_dir: str | PathLike[str] | None = None, **subjects: Any
) -> list[dict[str, Any]]:
    """Read one list of a ``dataset.json`` as ``load_datalist`` does, with the same errors, but with or without labels.

    With ``subjects`` or ``subject_pattern`` as there, the entries must have labels.
    """
    path = Path(path)
    content = read_content(path)
    if key in LISTS and "training" in content and "validation" not in content:
        entries = _with_subjects(read_entries(path, content, "training"), subjects)
        return _drawn_split(path, entries, split_dir)[key]
    return _with_subjects(read_entries(path, content, key), subjects)


def _with_subjects(entries: list[dict[str, Any]], subjects: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries with the subjects that are given or found; unchanged where nothing tells of subjects."""
    if not entries or all(each is None for each in subjects.values()):
        return entries
    cases = list_cases(entries, **subjects)
    return [{**entry, "subject": case.subject} for entry, case in zip(entries, cases, strict=True)]


def read_entries(path: Path, content: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The entries of a list in a ``dataset.json``, with joined paths; a ``ValueError`` if it or an image is missing."""
    if key not in content:
        raise ValueError(missing_list(path, content, f"the list {key!r}"))
    listed = content[key]
    if not isinstance(listed, list):
        raise ValueError(f"{path}: the list {key!r} must be a list of cases, got {listed!r:.200}. Correct it.")
    names = list_names(path, content)
    return [read_entry(path, key, number, item, names) for number, item in enumerate(listed)]


def list_names(path: Path, content: Mapping[str, Any]) -> dict[tuple[str, ...], str]:
    """Names of the labelled cases of all lists by their images; empty if the names of their files are enough.

    Folder names tell files of the same name apart, such as ``case_00000_imaging``. An image that is found by its
    channels has the name that is listed. A case has the same name in every list, and keeps it when the data set is
    moved. Entries with a ``case`` of their own are left out. As entries of a batch need the same keys, all others have
    a name here if one needs it.
    """
    entries = [item for listed in content.values() if isinstance(listed, list) for item in listed]
    unnamed = [entry for entry in entries if _is_complete(entry, labelled=True) and entry.get("case") in (None, "")]
    listed = {_files(_read_value(path, "image", each["image"])): _listed_name(path, each["image"]) for each in unnamed}
    names = dict(zip(listed, unique_names(listed, path.parent), strict=True))
    return names if any(name != image_name(image) for image, name in names.items()) else {}


def _listed_name(path: Path, image: str | list[str]) -> str:
    """The name of a case by its image as the list has it."""
    return image_name([path.parent / file for file in _files(image)])


def _files(image: str | list[str]) -> tuple[str, ...]:
    return (image,) if isinstance(image, str) else tuple(image)


def read_entry(
    path: Path, key: str, number: int, item: Any, names: Mapping[tuple[str, ...], str], labelled: bool = False
) -> dict[str, Any]:
    """Read entry ``number`` of the list ``key`` in ``path``, with the paths of image and label joined to the folder.

    Where the image is missing, but ``<name>_0000`` and so on are there, these are its channels, as nnU-Net 1 lists
    them. If :func:`list_names` gave any ``names``, an entry without ``case`` gets one. No image, no label if
    ``labelled``, and a ``case`` that is no name for files are a ``ValueError``.
    """
    # the Decathlon lists test images as plain names
    entry = {"image": item} if isinstance(item, str) else item
    if not _is_complete(entry, labelled):
        raise ValueError(_incomplete(path, key, number, item, "an 'image' and a 'label'" if labelled else "an 'image'"))
    if not _is_case_name(entry.get("case")):
        raise ValueError(
            f"{path}: the 'case' of entry {number} of {key!r} must be a name for files, got {entry['case']!r:.200}. "
            "Correct it, or leave it out."
        )
    found = {name: _read_value(path, name, value) for name, value in entry.items()}
    listed = _listed_name(path, entry["image"])
    if not found.get("case") and (names or listed != image_name(found["image"])):
        found["case"] = names.get(_files(found["image"]), listed)
    return found


def missing_list(path: Path, content: Mapping[str, Any], needed: str) -> str:
    """The message for a ``dataset.json`` without a list."""
    names = [name for name, value in content.items() if isinstance(value, list)]
    lists = ", ".join(name if name.isprintable() else repr(name) for name in names) or "none"
    return f"{path}: must have {needed}, got {lists:.200}. Add it, or give one of these as list_key."


def _is_complete(entry: Any, labelled: bool) -> bool:
    """Whether an entry of a list names its image (one or several files) and, if ``labelled``, its label (one file)."""
    if not isinstance(entry, Mapping):
        return False
    image, label = entry.get("image"), entry.get("label")
    images = image if isinstance(image, list) else [image]
    if label is None:
        return not labelled and bool(images) and all(_is_path(file) for file in images)
    return bool(images) and all(_is_path(file) for file in (*images, label))


def _is_path(text: Any) -> bool:
    """Whether ``text`` is a possible file name."""
    if not isinstance(text, str) or not text or "\0" in text:
        return False
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _is_case_name(case: Any) -> bool:
    """Whether ``case`` is missing, or can be part of a file name."""
    if case in (None, ""):
        return True
    return isinstance(case, (str, int)) and _is_path(str(case)) and not {"/", "\\"} & set(str(case))


def _read_value(path: Path, name: str, value: Any) -> Any:
    """A value of an entry: paths are joined to the folder, and names become text, as a case may be called 0."""
    if name in ("case", "subject") and value is not None:
        return str(value)
    if name not in ("image", "label") or value is None:
        return value
    if isinstance(value, list) and len(value) == 1:  # one file may hold all channels
        value = value[0]
    if isinstance(value, list):
        return [_as_stored(os.path.normpath(path.parent / each)) for each in value]
    joined = _as_stored(os.path.normpath(path.parent / value))
    return _channels_of(joined) if name == "image" and not os.path.lexists(joined) else joined


def _as_stored(path: str) -> str:
    """``path``, or an existing one of the same names in other composed characters, as a Mac may write them."""
    if path.isascii() or os.path.lexists(path):
        return path
    folder, name = os.path.split(path)
    folder = _as_stored(folder)
    if not name.isascii():
        with contextlib.suppress(OSError):
            stored = _stored_names(folder, os.stat(folder or ".").st_mtime_ns)
            name = stored.get(composed(name), name)
    found = os.path.join(folder, name)
    return found if os.path.lexists(found) else path


@functools.lru_cache(maxsize=16)
def _stored_names(folder: str, changed_ns: int) -> dict[str, str]:
    """The names in a folder that changed last at ``changed_ns``, by their composed form, kept as lists name many."""
    return {composed(name): name for name in sorted(os.listdir(folder or "."), reverse=True)}


def _channels_of(image: str) -> str | list[str]:
    """The files ``<name>_0000`` and so on of an image that does not exist; ``image`` itself if there are none."""
    folder, file = os.path.split(image)
    name = case_name(image)
    found: list[str] = []
    ending = file.removeprefix(name)
    while os.path.isfile(each := _as_stored(os.path.join(folder, f"{name}_{len(found):04d}{ending}"))):
        found.append(each)
    return image if not found else found[0] if len(found) == 1 else found


def _incomplete(path: Path, key: str, number: int, entry: Any, needed: str = "an 'image' and a 'label'") -> str:
    return f"{path}: entry {number} of {key!r} must have {needed}, got {entry!r:.200}. Complete it."


def _drawn_split(
    path: Path, cases: list[dict[str, Any]], split_dir: str | PathLike[str] | None
) -> dict[str, list[dict[str, Any]]]:
    groups = _by_subject(cases, path.parent)
    place = path if path.is_file() else path.parent
    if len(groups) < 2:
        of_one = f" of the subject {next(iter(groups))!r}" if len(cases) > 1 else ""
        lists = "a 'validation' list" if path.is_file() else "a dataset.json with a 'training' and a 'validation' list"
        raise ValueError(
            f"{place}: {counted(len(cases), 'training case')}{of_one} cannot be split. Add cases or {lists}."
        )
    order = sorted(groups.values(), key=lambda indices: _place(cases[indices[0]], path.parent))
    random.Random(_SPLIT_SEED).shuffle(order)
    count = max(1, round(len(cases) * _VALIDATION_SHARE))
    drawn = _draw(order, count)
    split = {
        "validation": [case for index, case in enumerate(cases) if index in drawn],
        "training": [case for index, case in enumerate(cases) if index not in drawn],
    }
    if rank() == 0:
        warn_once(
            f"{place} has no 'validation' list: {len(drawn)} of its {len(cases)} "
            f"cases were drawn for it, and {len(cases) - len(drawn)} are left for training. To choose them yourself, "
            f"write both lists into {'its' if path.is_file() else 'a'} dataset.json."
        )
    if split_dir is not None:
        write_json(Path(split_dir) / "split.json", split, indent=2)
    return split


def _draw(order: Sequence[list[int]], count: int) -> set[int]:
    """Draw about ``count`` cases: whole subjects in their order, but not all of them."""
    drawn: set[int] = set()
    for indices in order[:-1]:
        if len(drawn) < count and len(drawn) + len(indices) <= _MOST_DRAWN * count:
            drawn.update(indices)
    smallest: list[int] = min(order, key=len)
    return drawn or set(smallest)


def _place(case: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """Where the files of an image lie relative to a folder, however the paths of both are written."""
    absolute = os.path.abspath(folder)
    return tuple(os.path.relpath(os.path.abspath(file), absolute) for file in _files(case["image"]))


def _by_subject(cases: list[dict[str, Any]], folder: Path) -> dict[str, list[int]]:
    """Indices of the cases by subject, taken from entries or names, in the order of the images' paths."""
    groups: dict[str, list[int]] = {}
    for index in sorted(range(len(cases)), key=lambda index: _place(cases[index], folder)):
        case = cases[index]
        groups.setdefault(str(subject_of_entry(case) or case["image"]), []).append(index)
    return groups

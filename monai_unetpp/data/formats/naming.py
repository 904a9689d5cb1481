"""Names of cases: those of their files, with folder names where needed to tell them apart."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.data.formats.suffixes import result_suffix, without_suffix

#: Key of the name of result files, if it differs from that of the case.
RESULT_NAME = "result_name"

#: BIDS folders of subjects and sessions.
_BIDS_FOLDER = re.compile(r"(sub|ses)-[0-9A-Za-z]+")
#: Channel number at the end of a file name, as in nnU-Net.
_CHANNEL = re.compile(r"(.+)_([0-9]{4})")
#: Longest name with folder names, in bytes: file systems allow 255, including suffixes.
_LONGEST = 200

_Case = dict[str, Any]


def first_file(item: Mapping[str, Any]) -> str:
    """The first file of the image of a case that is to be segmented, which names it."""
    image = item["image"]
    return os.fspath(image[0] if isinstance(image, (list, tuple)) else image)


def case_name(path: str | PathLike[str]) -> str:
    """The name of a case: that of its file without suffix, or of its folder."""
    path = Path(path)
    if os.path.isdir(path):
        return os.path.basename(os.path.abspath(path))
    return without_suffix(path.name)


def channel_of(path: str | PathLike[str]) -> tuple[str, int] | None:
    """Case name and channel number of a file like ``case_0001.nii.gz``, as in nnU-Net; None for other names."""
    match = _CHANNEL.fullmatch(case_name(path))
    return None if match is None else (match[1], int(match[2]))


def image_name(image: str | PathLike[str] | Sequence[str | PathLike[str]]) -> str:
    """The name of a case from its file, or from its files of one channel each, without the channel number."""
    if isinstance(image, (str, PathLike)):
        return case_name(image)
    channel = channel_of(image[0]) if len(image) > 1 else None
    return case_name(image[0]) if channel is None or channel[1] else channel[0]


def entry_name(entry: Mapping[str, Any]) -> str:
    """The name of a case in a data list: its ``case``, or else that of its ``image``."""
    return str(entry.get("case") or image_name(entry["image"]))


def unique_names(named: Mapping[tuple[str, ...], str], root: str | PathLike[str]) -> list[str]:
    """Names of cases, with folder names in front where files in different folders share a name.

    ``named`` has the name by the files of each case, one per channel. Only folders below ``root``, that of the data
    set, count, so that it may be moved.
    """
    folders = [_folder_below(image[0], os.path.abspath(fspath(root))) for image in named]
    return _tell_apart(list(named.values()), folders)


def with_unique_names(cases: Sequence[_Case], strict: bool) -> list[_Case]:
    """Remove duplicate cases and make the ``case`` of the others unique, in place.

    Two results of the same name are an ``ImageFileError`` if ``strict``; otherwise the second gets a ``failure``.
    """
    once = _once(cases)
    names = _tell_apart([case["case"] for case in once], [_folder(first_file(case)) for case in once])
    for case, name in zip(once, names, strict=True):
        case["case"] = name
    _check_results(once, strict)
    _name_by_whole_file(once)
    return once


def _once(cases: Sequence[_Case]) -> list[_Case]:
    """Remove duplicates, also those under paths that the file system does not tell apart."""
    real = functools.cache(os.path.realpath)

    def place(path: str) -> str:
        """The path without links to folders; a link to a file is a file of its own."""
        return real(path) if os.path.isdir(path) else os.path.join(real(os.path.dirname(path)), os.path.basename(path))

    once: list[_Case] = []
    similar: dict[str, list[list[str]]] = defaultdict(list)
    for case in cases:
        places = list(map(place, ensure_tuple(case["image"])))
        before = similar[_key(places[0])]
        if not any(_are_one_image(places, others) for others in before):
            before.append(places)
            once.append(case)
    return once


def _are_one_image(paths: Sequence[str], others: Sequence[str]) -> bool:
    if len(paths) > 1 or len(others) > 1 or paths == others:
        return paths == others
    try:
        status, before = os.lstat(paths[0]), os.lstat(others[0])
    except OSError:
        return False
    return os.path.samestat(status, before) and status.st_nlink == 1


def _tell_apart(names: Sequence[str], folders: Sequence[str]) -> list[str]:
    """The names, with folders' names in front or else hashes of the folders where several folders share a name."""
    found = list(names)
    for same in _alike(found):
        if len({folders[index] for index in same}) > 1:
            longer = _with_folders_in_front([names[index] for index in same], [folders[index] for index in same])
            for index, name in zip(same, longer, strict=True):
                found[index] = name
    for same in _alike(found):
        first = min(folders[index] for index in same)
        for index in same:
            if folders[index] != first:
                found[index] = _with_hash(folders[index], found[index])
    return found


def _with_folders_in_front(names: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Prefix parent folders, nearest first, until names differ; subject and session of BIDS always."""
    parents = [Path(folder).parts[::-1] for folder in folders]
    different = [
        level for level in range(max(map(len, parents))) if len({parts[level : level + 1] for parts in parents}) > 1
    ]
    wanted = len(set(parents))
    for count in range(1, len(different) + 1):
        longer = [_in_front(parts, different[:count], name) for parts, name in zip(parents, names, strict=True)]
        if len(set(map(_key, longer))) == wanted:
            break
    return [
        _with_hash(folder, name) if len(os.fsencode(long)) > _LONGEST else long
        for folder, name, long in zip(folders, names, longer, strict=True)
    ]


def _in_front(parts: Sequence[str], levels: Sequence[int], name: str) -> str:
    known = set(name.split("_"))
    chosen = [
        part
        for level, part in enumerate(parts)
        if part not in known and (level in levels or _BIDS_FOLDER.fullmatch(part)) and part != os.sep
    ]
    return "_".join((*reversed(chosen), name))


def _with_hash(folder: str, name: str) -> str:
    return f"{name}-{hashlib.blake2b(os.fsencode(folder), digest_size=4).hexdigest()}"


def _check_results(cases: Sequence[_Case], strict: bool) -> None:
    """Refuse or mark every case whose result would overwrite that of an earlier one."""
    for same in _by_name(cases):
        first_of: dict[str, _Case] = {}
        for case in same:
            first = first_of.setdefault(result_suffix(first_file(case)), case)
            if first is case:
                continue
            reason = (
                f"{first_file(case)}: its result would overwrite that of {first_file(first)}. "
                "Rename one of them, or segment them into different folders."
            )
            if strict:
                raise ImageFileError(reason)
            case.setdefault("failure", reason)


def _name_by_whole_file(cases: Sequence[_Case]) -> None:
    """Add suffixes to equal names in one folder; their results keep the short name."""
    groups = _by_name(cases)
    taken = {_key(same[0]["case"]) for same in groups if len(same) == 1}
    for case in (case for same in groups if len(same) > 1 for case in same):
        path = Path(first_file(case))
        case[RESULT_NAME] = case["case"]
        case["case"] += path.name.removeprefix(case_name(path))
        if _key(case["case"]) in taken:
            case["case"] += f" ({path.name})"


def _by_name(cases: Sequence[_Case]) -> list[list[_Case]]:
    return [[cases[index] for index in same] for same in _alike([case["case"] for case in cases])]


def _alike(names: Sequence[str]) -> list[list[int]]:
    """Indices of the names, those of the same name together."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        groups[_key(name)].append(index)
    return list(groups.values())


def _key(name: str) -> str:
    """A name as seen by file systems that ignore case and Unicode composition."""
    return composed(composed(name).casefold())


def composed(name: str) -> str:
    """A name in composed characters (Unicode's NFC); files from a Mac may have decomposed ones."""
    return unicodedata.normalize("NFC", name)


def _folder(path: str) -> str:
    return os.path.dirname(os.path.abspath(path))


def _folder_below(path: str, root: str) -> str:
    """The folder of a file relative to ``root``, if it lies below."""
    folder = Path(_folder(path))
    return str(folder.relative_to(root) if folder.is_relative_to(root) else folder)

"""Check a data set before a network is trained or scored on it."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.data.datasets.case_check import CheckedCase, check_case
from monai_unetpp.data.datasets.datalist import (
    LISTS,
    list_names,
    load_datalist,
    missing_list,
    read_content,
    read_entry,
    read_form,
)
from monai_unetpp.data.datasets.label_names import LabelNames, name_values, read_label_names
from monai_unetpp.data.datasets.labelled import LabelledCase, list_cases
from monai_unetpp.data.datasets.voxel_hash import keep_hash
from monai_unetpp.data.formats.grid import warn_once
from monai_unetpp.distributed import gather, rank, share
from monai_unetpp.errors import counted
from monai_unetpp.progress import Progress, counting

logger = logging.getLogger(__name__)

_MOST_LINES = 20


def check_dataset(dataset_dir: str | PathLike[str], progress: Progress = None) -> list[str]:
    """List the problems of a data set; every image and label is read.

    The data set may have any form that :func:`monai_unetpp.data.load_datalist` takes. In Decathlon form
    ``dataset.json`` must list cases with image and label under ``training``, ``validation`` or both. Each case must
    pass :func:`monai_unetpp.data.datasets.case_check.check_case`, as in training, evaluation, pruning and studies; here
    a label must also have foreground. No case may be listed twice, and no two may have the same voxels: between the
    lists that would be a leak. Every named label must occur.

    Args:
        dataset_dir: folder with ``dataset.json``.
        progress: True shows progress on standard error; a function is called with lines of text.

    Returns:
        One line per problem, with the file and the remedy; empty if all is well.

    Example:
        >>> check_dataset("no/such/folder")  # doctest: +ELLIPSIS
        ['no/such/folder/dataset.json: no such file. Name a folder with ...']
    """
    path = Path(dataset_dir) / "dataset.json"
    try:
        content = read_content(path)
    except (FileNotFoundError, ValueError) as e:
        return [str(e)]
    problems: list[str] = []
    names = None
    try:
        names = read_label_names(path, content["labels"]) if "labels" in content else None
    except ValueError as e:
        problems.append(str(e))
    listed, found = _listed(path, content)
    problems += found
    values = None if names is None else names.values
    unique = {each.case.files: each.case for each in listed}
    checked = _check_cases(list(unique.values()), progress, values=values)
    checked |= _check_as_most(unique, checked, values)
    for each in checked.values():
        problems += [] if each.problem is None else [each.problem]
    problems += _compare_cases(path, listed, checked, names)
    if read_form(path) == "folder":
        problems += _unnamed_values(path, checked)
    # file names may hold line breaks
    return [" ".join(problem.splitlines()) for problem in problems]


def _check_as_most(
    cases: Mapping[tuple[Path, ...], LabelledCase],
    checked: Mapping[tuple[Path, ...], CheckedCase],
    values: Sequence[int] | None,
) -> dict[tuple[Path, ...], CheckedCase]:
    """Check cases with other axes or channels than most again, as a training checks them, for a network of these."""
    found = {files: (each.axes, each.channels) for files, each in checked.items() if each.problem is None}
    if not found:
        return {}
    usual, _ = Counter(found.values()).most_common(1)[0]
    odd = [cases[files] for files, own in found.items() if own != usual]
    return _check_cases(odd, None, values=values, spatial_dims=usual[0], in_channels=usual[1])


def _unnamed_values(path: Path, checked: Mapping[tuple[Path, ...], CheckedCase]) -> list[str]:
    """What keeps the values of all label maps together from being labels, where nobody has named them."""
    found = frozenset[int]().union(*(each.values for each in checked.values()))
    try:
        # empty label maps are told one by one
        if found - {0}:
            name_values(path.parent, found)
    except ValueError as e:
        return [str(e)]
    return []


def _check_cases(
    cases: Sequence[LabelledCase], progress: Progress, **rules: Any
) -> dict[tuple[Path, ...], CheckedCase]:
    """The results of ``check_case`` by the files of the cases, which are all different."""
    checked = {}
    with counting(progress, "checking") as count:
        for case in cases:
            checked[case.files] = check_case(case, **rules)
            count(len(checked), len(cases))
    return checked


def check_labelled_data(
    dataset_dir: str | PathLike[str],
    lists: Sequence[str] = LISTS,
    *,
    classes: int | None = None,
    spatial_dims: int | None = None,
    in_channels: int | None = None,
    values: Sequence[int] | None = None,
    names: LabelNames | None = None,
    refuse_repeats: bool = False,
    progress: Progress = None,
    **subjects: Any,
) -> dict[str, str | None]:
    """Refuse a data set that a network cannot be trained or scored on, and warn about what looks doubtful.

    For ``initialize`` of a configuration: every image and label is read once, before any work. In a process group
    (``torchrun``) each process reads its share; if there is a problem all of them end, and process 0 reports it.

    Args:
        dataset_dir: folder with ``dataset.json``.
        lists: lists of cases to check; a missing validation list is drawn.
        classes: classes of the network with the background; labels must lie below. None allows all named labels.
        spatial_dims: 2 or 3, of the network.
        in_channels: input channels of the network.
        values: label values allowed besides 0, if they are not the classes themselves.
        names: of the labels; None takes those of ``dataset.json``.
        refuse_repeats: whether cases with the same image or the same name are problems, as they are to a verdict, or
            are warned about.
        progress: how progress is shown, in a process group by process 0 for its own share.
        **subjects: how ``load_datalist`` finds them: ``subjects`` and ``subject_pattern``.

    Returns:
        A hash of the shape and values of each case's label map, by the name of the case.

    Raises:
        FileNotFoundError: there is no ``dataset.json``.
        ValueError: it cannot be read, or cases have problems.
    """
    path = Path(dataset_dir) / "dataset.json"
    labels = read_content(path).get("labels")
    if names is None and labels is not None:
        names = read_label_names(path, labels)
    listed = [
        _ListedCase(key, case) for key in lists for case in list_cases(load_datalist(dataset_dir, key, **subjects))
    ]
    unique = {case.case.files: case.case for case in listed}
    logger.info("Checking %d labelled cases of %s ...", len(unique), path)
    allowed = _allowed(names, classes) if values is None else values
    rules = {"values": allowed, "spatial_dims": spatial_dims, "in_channels": in_channels}
    own = share(list(unique.values()))
    checked = gather(_check_cases(own, progress if rank() == 0 else None, **rules))
    for files, case in unique.items():
        voxels = checked[files].voxels
        if voxels is not None:
            keep_hash(case.image, voxels)
    problems = [checked[files].problem or "" for files in unique if checked[files].problem is not None]
    repeats = [" ".join(line.splitlines()) for line in _repeated_cases(path, listed, checked)]
    if rank() == 0:
        _tell([*([] if refuse_repeats else repeats), *_weak_labels(path, listed, checked, names)])
    problems += repeats if refuse_repeats else []
    if problems:
        told = f"{path}: cases must be sound, got {len(problems)} of {len(unique)} with a problem"
        lines = "" if rank() else ":\n" + "\n".join(f"- {line}" for line in _shortened(problems))
        raise ValueError(f"{told}{lines}\nCorrect them, or leave these cases out.")
    return {case.name: checked[files].label for files, case in unique.items()}


def tell_doubtful(
    where: str | PathLike[str], key: str, checked: Mapping[LabelledCase, CheckedCase], names: LabelNames | None
) -> None:
    """Log once what looks doubtful about sound cases of one list: equal images, labels that no case has."""
    listed = [_ListedCase(key, case) for case in checked]
    found = {case.files: each for case, each in checked.items()}
    _tell(_compare_cases(where, listed, found, names), warn_once)


@dataclasses.dataclass(frozen=True)
class _ListedCase:
    """A case and the list that it belongs to."""

    key: str
    case: LabelledCase


def _compare_cases(
    path: str | PathLike[str],
    listed: Sequence[_ListedCase],
    checked: Mapping[tuple[Path, ...], CheckedCase],
    names: LabelNames | None,
) -> Iterator[str]:
    """Yield one line for everything doubtful about sound cases, whose checks are known by their files."""
    yield from _repeated_cases(path, listed, checked)
    yield from _weak_labels(path, listed, checked, names)


def _repeated_cases(
    path: str | PathLike[str], listed: Sequence[_ListedCase], checked: Mapping[tuple[Path, ...], CheckedCase]
) -> Iterator[str]:
    """Cases that are listed twice, or have the same name or voxels as another one."""
    yield from _listed_twice(path, listed)
    first_with: dict[str, _ListedCase] = {}
    for each in _once(listed):
        voxels = checked[each.case.files].voxels
        if voxels is not None:
            other = first_with.setdefault(voxels, each)
            if other is not each and other.case.image != each.case.image:
                yield _same_voxels(each, other)


def _weak_labels(
    path: str | PathLike[str],
    listed: Sequence[_ListedCase],
    checked: Mapping[tuple[Path, ...], CheckedCase],
    names: LabelNames | None,
) -> Iterator[str]:
    """Label maps without foreground, and labels that no case has."""
    for each in _once(listed):
        found = checked[each.case.files]
        if found.problem is None and found.values <= {0, *([] if names is None else [names.ignore])}:
            yield f"{each.case.label}: the label has no foreground. Outline it, or leave the case out."
    if names is not None and listed and all(found.problem is None for found in checked.values()):
        yield from _unused_labels(path, listed, checked, names)


def _once(listed: Sequence[_ListedCase]) -> Iterable[_ListedCase]:
    """Each case once, by its files."""
    first: dict[tuple[Path, ...], _ListedCase] = {}
    for each in listed:
        first.setdefault(each.case.files, each)
    return first.values()


def _unused_labels(
    path: str | PathLike[str],
    listed: Sequence[_ListedCase],
    checked: Mapping[tuple[Path, ...], CheckedCase],
    names: LabelNames,
) -> Iterator[str]:
    """Labels that no case has, or no training case."""
    found: dict[str, set[int]] = {}
    for each in listed:
        found.setdefault(each.key, set()).update(checked[each.case.files].values)
    everywhere = set().union(*found.values())
    # lists that were not read may have it
    of_list = f" of {next(iter(found))!r}" if len(found) == 1 else ""
    for name, value in names.foreground.items():
        if value not in everywhere and str(path) in found:
            # they may be a part of the data set
            yield (
                f"{path}: none of the {counted(len(listed), 'case')} to score has the label {name!r} ({value}), about "
                "which they say nothing."
            )
        elif value not in everywhere:
            yield (
                f"{path}: no case{of_list} has the label {name!r} ({value}). Remove it from labels, or add such cases."
            )
        elif value not in found.get("training", everywhere):
            yield (
                f"{path}: of the lists, only 'validation' has cases with the label {name!r} ({value}), so that "
                "no training can learn it. Write a dataset.json in which such cases are in 'training', or "
                "leave the label out."
            )


def _allowed(names: LabelNames | None, classes: int | None) -> Collection[int] | None:
    """Values other than 0 that the network's labels may have."""
    if classes is None:
        return None if names is None else names.values
    # a network with one output separates one class from the background
    inside = range(1, max(classes, 2))
    if names is None:
        return inside
    return [value for value in names.values if value in inside or value == names.ignore]


def _tell(notes: Iterable[str], tell: Callable[[str], None] = logger.warning) -> None:
    for line in _shortened(list(notes)):
        # file names may hold line breaks and percent signs
        tell(" ".join(line.splitlines()))


def _shortened(lines: Sequence[str]) -> list[str]:
    shown = list(lines[:_MOST_LINES])
    left = len(lines) - len(shown)
    return [*shown, *([f"and {left} more; monai-unetpp check lists all of them."] if left else [])]


def _listed(path: Path, content: Mapping[str, Any]) -> tuple[list[_ListedCase], list[str]]:
    """The valid entries of all lists, and what is wrong with the others."""
    cases, problems = [], []
    names = list_names(path, content)
    present = [key for key in LISTS if key in content]
    if not present:
        problems.append(missing_list(path, content, f"a list {' or '.join(map(repr, LISTS))}"))
    for key in present:
        entries = content[key]
        if not isinstance(entries, list) or not entries:
            problems.append(f"{path}: the list {key!r} must hold cases, got {entries!r:.200}. Add some.")
            continue
        for number, item in enumerate(entries):
            try:
                entry = read_entry(path, key, number, item, names, labelled=True)
                cases.append(_ListedCase(key, list_cases([entry])[0]))
            except ValueError as e:
                problems.append(str(e))
    return cases, problems


def _listed_twice(path: str | PathLike[str], listed: Sequence[_ListedCase]) -> Iterator[str]:
    """Cases with the same image file or name: their results would be confused."""
    seen: dict[tuple[str, ...] | str, _ListedCase] = {}
    for each in listed:
        files = tuple(os.path.abspath(file) for file in each.case.image)
        image, name = each.case.image[0], each.case.name
        if files in seen:
            where = each.key if each.key == seen[files].key else f"{seen[files].key} and {each.key}"
            yield f"{path}: {image} is listed twice ({where}). Leave one of them out."
        elif name in seen:
            yield f"{path}: {image} and {seen[name].case.image[0]} have the same name, {name!r}. Rename one of them."
        seen.setdefault(files, each)
        seen.setdefault(name, each)


def _same_voxels(each: _ListedCase, other: _ListedCase) -> str:
    image, first = each.case.image[0], other.case.image[0]
    if each.key == other.key:
        return f"{image}: the same image as {first}, both in {each.key!r}. Leave one of them out."
    return (
        f"{image} ({each.key}): the same image as {first} ({other.key}), a leak between the lists. "
        f"Leave it out of {each.key!r}."
    )

"""Check a data set before a network is trained or scored on it."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.data.datasets import datalist
from monai_unetpp.data.datasets.case_check import CheckedCase, check_case
from monai_unetpp.data.datasets.datalist import LISTS, load_datalist, read_content
from monai_unetpp.data.datasets.label_names import IGNORE, LabelNames, name_values, read_label_names
from monai_unetpp.data.datasets.labelled import LabelledCase, list_cases
from monai_unetpp.data.datasets.network_names import (
    NetworkNames,
    check_channel_order,
    check_ignored,
    check_label_values,
    read_channel_names,
    wrong_channel_names,
)
from monai_unetpp.data.datasets.voxel_hash import describe_repeat, keep_hash, split_hash
from monai_unetpp.data.formats.grid import warn_once
from monai_unetpp.data.formats.suffixes import is_picture_name
from monai_unetpp.distributed import gather, rank, share
from monai_unetpp.errors import counted
from monai_unetpp.progress import Progress, counting

logger = logging.getLogger(__name__)

_MOST_LINES = 20

_Lists = Mapping[str, Sequence[LabelledCase]]
_Checked = dict[LabelledCase, CheckedCase]


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
    lists = _read_lists(path, content, problems)
    values = None if names is None else names.values
    checked = _check_cases(list(_once(lists)), progress, values=values)
    # cases with other axes or channels than most, as a training checks them, for a network of these
    found = {case: (each.axes, each.channels) for case, each in checked.items() if each.problem is None}
    for usual, _ in Counter(found.values()).most_common(1):
        odd = [case for case, own in found.items() if own != usual]
        checked |= _check_cases(odd, None, values=values, spatial_dims=usual[0], in_channels=usual[1])
        named = len(read_channel_names(content))
        # colours of pictures may be channels, or be averaged
        pictures = any(is_picture_name(file) for case in found for file in case.image)
        if named and usual[1] not in (None, named) and not pictures:
            problems.append(wrong_channel_names(path, named, usual[1]))
    problems += [each.problem for each in checked.values() if each.problem is not None]
    problems += [*_repeated_cases(path, lists, checked), *_weak_labels(path, lists, checked, names, 0)]
    occurring = frozenset[int]().union(*(each.values for each in checked.values()))
    # empty label maps are told one by one
    if datalist.read_form(path) == "folder" and occurring - {0}:
        try:
            name_values(path.parent, occurring)
        except ValueError as e:
            problems.append(str(e))
    return _in_lines(problems)


def _check_cases(cases: Sequence[LabelledCase], progress: Progress, **rules: Any) -> _Checked:
    """The results of ``check_case``."""
    checked = {}
    with counting(progress, "checking") as count:
        for case in cases:
            checked[case] = check_case(case, **rules)
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
    network_names: NetworkNames | None = None,
    refuse_repeats: bool = False,
    folds: int = 0,
    progress: Progress = None,
    **subjects: Any,
) -> dict[str, str | None]:
    """Refuse a data set that a network cannot be trained or scored on, and warn about what looks doubtful.

    For the beginning of ``run`` of a configuration: every image and label is read once, before any work. In a process
    group (``torchrun``) each process reads its share; if there is a problem all of them end, and process 0 reports it.

    Args:
        dataset_dir: folder with ``dataset.json``.
        lists: lists of cases to check; a missing validation list is drawn.
        classes: classes of the network with the background; labels must lie below. None allows all named labels.
        spatial_dims: 2 or 3, of the network.
        in_channels: input channels of the network.
        values: label values allowed besides 0, if they are not the classes themselves.
        names: of the labels; None takes those of ``dataset.json``.
        network_names: how the network names labels and channels. The data set must not give the same names to other
            values, or in another order; None compares none.
        refuse_repeats: whether cases with the same image or the same name are problems, as they are to a verdict, or
            are warned about.
        folds: networks for cross-fitting, with which all lists are trained on, in parts by subject.
        progress: how progress is shown, in a process group by process 0 for its own share.
        **subjects: how ``load_datalist`` finds them: ``subjects`` and ``subject_pattern``.

    Returns:
        A hash of the shape and values of each case's label map, by the name of the case.

    Raises:
        FileNotFoundError: there is no ``dataset.json``.
        ValueError: it cannot be read, names contradict those of the network, or cases have problems.
    """
    path = Path(dataset_dir) / "dataset.json"
    content = read_content(path)
    if names is None and content.get("labels") is not None:
        names = read_label_names(path, content["labels"])
    if network_names is not None:
        check_label_values(path, names, network_names.labels)
        check_ignored(path, names, network_names.labels)
        check_channel_order(path, read_channel_names(content), network_names)
    found = {key: list_cases(load_datalist(dataset_dir, key, **subjects)) for key in lists}
    cases = list(_once(found))
    logger.info("Checking %d labelled cases of %s ...", len(cases), path)
    allowed = _allowed(names, classes) if values is None else values
    unknown = None if values is None or names is None or names.ignore in values else names.ignore
    known = allowed if unknown is None else [*(allowed or ()), unknown]
    rules = {"values": known, "spatial_dims": spatial_dims, "in_channels": in_channels}
    checked = gather(_check_cases(share(cases), progress if rank() == 0 else None, **rules))
    if unknown is not None:
        _refuse_ignored(path, unknown, checked)
    for case in cases:
        if (voxels := checked[case].voxels) is not None:
            keep_hash(case.image, voxels)
    problems = [problem for case in cases if (problem := checked[case].problem) is not None]
    repeats = list(_repeated_cases(path, found, checked))
    if rank() == 0:
        _tell([*([] if refuse_repeats else repeats), *_weak_labels(path, found, checked, names, folds)])
    problems += repeats if refuse_repeats else []
    if problems:
        told = f"{path}: cases must be sound, got {len(problems)} of {len(cases)} with a problem"
        lines = "" if rank() else ":\n" + "\n".join(f"- {line}" for line in _shortened(problems))
        raise ValueError(f"{told}{lines}\nCorrect them, or leave these cases out.")
    return {case.name: checked[case].label for case in cases}


def _refuse_ignored(path: Path, value: int, checked: _Checked) -> None:
    """Refuse label maps with voxels to ignore, for a run that does not."""
    if found := [case for case, each in checked.items() if value in each.values]:
        raise ValueError(
            f"{path}: {IGNORE!r} is {value}, but this run ignores no voxels, and {counted(len(found), 'case')} of "
            f"{len(checked)} have some, such as {found[0].label}. Give --ignore_label {value}, or, where the bundle's "
            "train.json has no ignore_label, leave these cases out."
        )


def tell_doubtful(where: str | PathLike[str], key: str, checked: _Checked, names: LabelNames | None) -> None:
    """Log once what looks doubtful about sound cases of one list: equal images, labels that no case has."""
    lists = {key: list(checked)}
    _tell([*_repeated_cases(where, lists, checked), *_weak_labels(where, lists, checked, names, 0)], warn_once)


def _once(lists: _Lists) -> dict[LabelledCase, str]:
    """Each case once, with the first list that has it."""
    first: dict[LabelledCase, str] = {}
    for key, cases in lists.items():
        for case in cases:
            first.setdefault(case, key)
    return first


def _repeated_cases(path: str | PathLike[str], lists: _Lists, checked: _Checked) -> Iterator[str]:
    """Cases that are listed twice, or have the same name or voxels as another one."""
    yield from _listed_twice(path, lists)
    first_with: dict[str, tuple[Path, str, str]] = {}
    for case, key in _once(lists).items():
        image, voxels = case.image[0], checked[case].voxels
        if voxels is None:
            continue
        first, of, its_voxels = first_with.setdefault(split_hash(voxels)[-1], (image, key, voxels))
        alike = f"{describe_repeat(voxels, its_voxels)} {first}"
        if first == image:
            continue
        if key == of:
            yield f"{image}: {alike}, both in {key!r}. Leave one of them out."
        else:
            yield f"{image} ({key}): {alike} ({of}), a leak between the lists. Leave it out of {key!r}."


def _listed_twice(path: str | PathLike[str], lists: _Lists) -> Iterator[str]:
    """Cases with the same image file or name: their results would be confused."""
    seen: dict[tuple[str, ...] | str, tuple[Path, str]] = {}
    for key, case in ((key, case) for key, cases in lists.items() for case in cases):
        files = tuple(os.path.abspath(file) for file in case.image)
        image = case.image[0]
        if files in seen:
            other = seen[files][1]
            where = key if key == other else f"{other} and {key}"
            yield f"{path}: {image} is listed twice ({where}). Leave one of them out."
        elif case.name in seen:
            yield f"{path}: {image} and {seen[case.name][0]} have the same name, {case.name!r}. Rename one of them."
        seen.setdefault(files, (image, key))
        seen.setdefault(case.name, (image, key))


def _weak_labels(
    path: str | PathLike[str], lists: _Lists, checked: _Checked, names: LabelNames | None, folds: int
) -> Iterator[str]:
    """Label maps without foreground, and labels that no case has, or no training case, or with folds one subject."""
    for case in _once(lists):
        if checked[case].problem is None and checked[case].values <= {0, *([] if names is None else [names.ignore])}:
            yield f"{case.label}: the label has no foreground. Outline it, or leave the case out."
    if names is None or any(each.problem is not None for each in checked.values()):
        return
    found = {key: set().union(*(checked[case].values for case in cases)) for key, cases in lists.items() if cases}
    everywhere = set().union(*found.values())
    # lists that were not read may have it
    of_list = f" of {next(iter(found))!r}" if len(found) == 1 else ""
    for name, value in names.foreground.items() if found else ():
        if value not in everywhere and str(path) in found:
            # they may be a part of the data set
            yield (
                f"{path}: none of the {counted(len(checked), 'case')} to score has the label {name!r} ({value}), about "
                "which they say nothing."
            )
        elif value not in everywhere:
            yield (
                f"{path}: no case{of_list} has the label {name!r} ({value}). Remove it from labels, or add such cases."
            )
        elif folds:
            having = {case.subject for cases in lists.values() for case in cases if value in checked[case].values}
            if len(having) == 1:
                yield (
                    f"{path}: one subject alone, {having.pop()}, has the label {name!r} ({value}), so no network "
                    "that is judged on it has learned it. Add cases of others, or leave the label out."
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
        tell(line)


def _shortened(lines: Sequence[str]) -> list[str]:
    shown = _in_lines(lines[:_MOST_LINES])
    left = len(lines) - len(shown)
    return [*shown, *([f"and {left} more; monai-unetpp check lists all of them."] if left else [])]


def _in_lines(problems: Iterable[str]) -> list[str]:
    """Each problem in one line: file names may hold line breaks."""
    return [" ".join(problem.splitlines()) for problem in problems]


def _read_lists(path: Path, content: Mapping[str, Any], problems: list[str]) -> dict[str, list[LabelledCase]]:
    """The valid entries of all lists; what is wrong with the others is added to ``problems``."""
    lists: dict[str, list[LabelledCase]] = {key: [] for key in LISTS if key in content}
    names = datalist.list_names(path, content)
    if not lists:
        problems.append(datalist.missing_list(path, content, f"a list {' or '.join(map(repr, LISTS))}"))
    for key, cases in lists.items():
        entries = content[key]
        if not isinstance(entries, list) or not entries:
            problems.append(f"{path}: the list {key!r} must hold cases, got {entries!r:.200}. Add some.")
            continue
        for number, item in enumerate(entries):
            try:
                cases += list_cases([datalist.read_entry(path, key, number, item, names, labelled=True)])
            except ValueError as e:
                problems.append(str(e))
    return lists

"""Labelled cases of a data set: files, names and subjects."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.data.datasets.forms import is_data_set
from monai_unetpp.data.formats.naming import composed, entry_name, image_name
from monai_unetpp.data.formats.source_files import existing_files
from monai_unetpp.errors import list_values
from monai_unetpp.files import hash_file
from monai_unetpp.spreadsheet import read_table

__all__ = ["LabelledCase", "hash_files", "list_cases", "repeated_names", "subject_of_entry", "subject_of_image"]

#: Parent folders that may name the subject, as in BIDS sub-01/ses-2/anat.
_FOLDERS = 3
#: Subjects of BIDS, names such as patient012_frame03, and barcodes of TCGA and LIDC.
_SUBJECT = re.compile(
    r"^(sub-[0-9A-Za-z]+|(?:patient|subject|subj)[-_]?[0-9]+|TCGA[-_][0-9A-Z]{2}[-_][0-9A-Z]{4}|LIDC-IDRI-[0-9]{4})"
    r"(?![0-9A-Za-z])",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class LabelledCase:
    """One labelled case.

    Attributes:
        name: that of its entry, else the image's file name without suffix, and without channel number if there are
            several channels.
        subject: the subject's name; that of the case if subjects are unknown.
        image: the image's file, or one file per channel.
        label: the label's file.
    """

    name: str
    subject: str
    image: tuple[Path, ...]
    label: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """Image and label."""
        return (*self.image, self.label)

    def as_entry(self) -> dict[str, Any]:
        """The case as an entry of a data list, with name and subject where these are not those of the file."""
        entry: dict[str, Any] = {"image": [str(file) for file in self.image], "label": str(self.label)}
        if self.name != image_name(self.image):
            entry["case"] = self.name
        return entry if self.subject == self.name else {**entry, "subject": self.subject}


def list_cases(
    cases: Sequence[Mapping[str, Any]],
    subjects: Mapping[str, str] | str | PathLike[str] | None = None,
    subject_pattern: str | None = None,
) -> list[LabelledCase]:
    """Find name and subject of each entry of a data list, without opening images.

    Args:
        cases: dicts with ``image`` (a path, or a list of paths, one per channel), ``label`` (a path) and optionally
            ``case``, a name to be used instead of the file's, and ``subject``.
        subjects: subject by case name, or a CSV file with the columns ``case`` and ``subject``.
        subject_pattern: regular expression with one group that finds the subject in the case's name. An entry's own
            ``subject`` takes precedence, then ``subjects``, then the pattern, then what names begin with, see
            :func:`subject_of_entry`, then the name itself.

    Raises:
        TypeError: an entry is not a dict.
        ValueError: there are no entries, or one has no image, label or subject.
        FileNotFoundError: the CSV file does not exist.
    """
    if isinstance(cases, (str, Mapping)) or not all(isinstance(entry, Mapping) for entry in cases):
        raise TypeError(
            f"cases must be a list of dicts with 'image' and 'label', got {cases!r:.200}. Use load_datalist."
        )
    if not cases:
        raise ValueError("cases must have at least one entry, got none. Check the data list.")
    named = _read_subjects(subjects) if isinstance(subjects, (str, PathLike)) else subjects
    if named is not None:
        # as a Mac names files in other composed characters than a spreadsheet does
        named = {**{composed(name): subject for name, subject in named.items()}, **named}
    pattern = _compile(subject_pattern)
    found = []
    for entry in cases:
        if not entry.get("image") or not entry.get("label"):
            raise ValueError(f"cases must have an 'image' and a 'label' each, got {dict(entry)!r}. Complete the entry.")
        image = entry["image"]
        files = tuple(Path(file) for file in ([image] if isinstance(image, (str, PathLike)) else image))
        name = entry_name(entry)
        subject = _subject(name, entry, named, pattern) or subject_of_entry(entry) or name
        found.append(LabelledCase(name, subject, files, Path(entry["label"])))
    return found


def repeated_names(cases: Sequence[LabelledCase]) -> dict[str, str]:
    """Names shared by several cases, each with what to tell of it."""
    counts = Counter(case.name for case in cases)
    told = {}
    for name, count in counts.items():
        if count > 1:
            files = list_values([str(case.image[0]) for case in cases if case.name == name])
            told[name] = (
                f"{files}: names of cases must differ, got {name!r} {count} times. Rename the files, or give the "
                "entries a 'case' each."
            )
    return told


def _read_subjects(path: str | PathLike[str]) -> dict[str, str]:
    rows = read_table(Path(path), ("case", "subject"), "subjects", "Write these two, and one line per case.")
    if not rows:
        raise ValueError(f"{path}: subjects must have a line per case, got none. Write them.")
    subjects: dict[str, str] = {}
    for row in rows:
        case, subject = (row[name].strip() for name in ("case", "subject"))
        if subjects.setdefault(case, subject) != subject:
            raise ValueError(
                f"{path}: a case must have one subject, got {subjects[case]!r} and {subject!r} for {case!r}. Correct "
                "the table."
            )
    return subjects


def _compile(subject_pattern: str | None) -> re.Pattern[str] | None:
    if subject_pattern is None:
        return None
    try:
        pattern = re.compile(subject_pattern)
    except re.error as e:
        raise ValueError(f"subject_pattern must be a regular expression, got {subject_pattern!r} ({e}).") from e
    if pattern.groups != 1:
        raise ValueError(
            f"subject_pattern must have one group, got {subject_pattern!r} with {pattern.groups}. Put round brackets "
            "around the part of the case's name that names the subject, as in '(sub-[0-9]+)_'."
        )
    return pattern


def _subject(
    name: str, entry: Mapping[str, Any], named: Mapping[str, str] | None, pattern: re.Pattern[str] | None
) -> str | None:
    """The subject as given or found by the pattern; None if there is neither."""
    if entry.get("subject") not in (None, ""):
        return str(entry["subject"])
    if named is not None:
        # nnU-Net names a case without the number of its only channel
        without = name.removesuffix("_0000")
        subject = next((named[each] for each in (name, without, composed(without)) if each in named), None)
        if subject in (None, ""):
            raise ValueError(f"subjects must name the subject of every case, got none for {name!r}. Add it.")
        return str(subject)
    if pattern is None:
        return None
    match = pattern.search(name)
    if match is None or not match[1]:
        raise ValueError(
            f"subject_pattern must match the name of every case, got {pattern.pattern!r}, which does not match "
            f"{name!r}. Change the pattern, or give subjects."
        )
    return match[1]


def subject_of_entry(entry: Mapping[str, Any]) -> str | None:
    """The subject of a case in a data list: given, or found at the beginning of its name, or by its image.

    Example:
        >>> subject_of_entry({"image": "images/0007.nii.gz", "case": "sub-01_scan2"})
        'sub-01'
    """
    if entry.get("subject") not in (None, ""):
        return str(entry["subject"])
    match, image = _SUBJECT.match(entry_name(entry)), entry["image"]
    return match[1] if match else subject_of_image(image if isinstance(image, (str, PathLike)) else image[0])


def subject_of_image(path: str | PathLike[str]) -> str | None:
    """Find the subject at the beginning of an image's name, or of the name of a folder above it in its data set.

    A name may begin with a BIDS subject (``sub-01_ses-2_T1w``), with ``patient``, ``subject`` or ``subj`` and a number
    (``patient012_frame03``), or with a barcode of TCGA or LIDC. Other numbers may mean anything.

    Args:
        path: path of the image.

    Returns:
        The subject, or None if the names do not tell.

    Example:
        >>> subject_of_image("sub-01_ses-2_T1w.nii.gz"), subject_of_image("sub-02/anat/T1w.nii.gz")
        ('sub-01', 'sub-02')
        >>> subject_of_image("hippocampus_003.nii.gz")
    """
    path = Path(path)
    match = _SUBJECT.match(path.name)
    if match is not None:
        return match[1]
    # the folder of the whole data set names no subject, whatever it is called; that of a subject may be like one
    above = list(path.parents)[:_FOLDERS]
    listed = any(os.path.isfile(folder / "dataset.json") for folder in above)
    is_whole = (lambda folder: os.path.isfile(folder / "dataset.json")) if listed else is_data_set
    folders = itertools.takewhile(lambda folder: not is_whole(folder), above)
    found = (_SUBJECT.match(folder.name) for folder in folders)
    return next((match[1] for match in found if match is not None), None)


def hash_files(paths: Sequence[Path]) -> str:
    """SHA-256 over the content of files, of voxel files that headers name, and of DICOM series in folders.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for file in (file for path in paths for file in existing_files(path)):
        digest.update(bytes.fromhex(hash_file(file)))
    return digest.hexdigest()

"""Find the subject of a case from file and folder names."""

from __future__ import annotations

import itertools
import re
from os import PathLike
from pathlib import Path

__all__ = ["subject_of_image"]

#: Parent folders that may name the subject, as in BIDS sub-01/ses-2/anat.
_FOLDERS = 3
#: Subjects of BIDS, names such as patient012_frame03, and barcodes of TCGA and LIDC.
_SUBJECT = re.compile(
    r"^(sub-[0-9A-Za-z]+|(?:patient|subject|subj)[-_]?[0-9]+|TCGA[-_][0-9A-Z]{2}[-_][0-9A-Z]{4}|LIDC-IDRI-[0-9]{4})"
    r"(?![0-9A-Za-z])",
    re.IGNORECASE,
)


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
    # the folder of the whole data set names no subject, whatever it is called
    folders = itertools.takewhile(lambda folder: not _holds_data_set(folder), list(path.parents)[:_FOLDERS])
    found = (_SUBJECT.match(folder.name) for folder in folders)
    return next((match[1] for match in found if match is not None), None)


def _holds_data_set(folder: Path) -> bool:
    return (folder / "dataset.json").is_file() or all((folder / name).is_dir() for name in ("images", "labels"))

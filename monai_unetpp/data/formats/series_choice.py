"""Choose which series of a DICOM folder to segment."""

from __future__ import annotations

import logging
import os
from collections.abc import Container, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.data.formats.dicom import DicomSeries, find_series, is_dicom_file, stack_series
from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.data.formats.naming import RESULT_NAME, first_file
from monai_unetpp.errors import printable

logger = logging.getLogger(__name__)

#: Selects every series that is a volume.
ALL_SERIES = "all"


def choose_series(items: list[dict[str, Any]], wanted: str) -> None:
    """Replace each folder with several series by the wanted ones; a single series, or file, must be of the wanted.

    The number of the series is appended to the name of the case, except in a folder with a single one, where 1 is its
    number if it has none; where another case is called so already, ``series_`` stands before the number. A folder
    without the series gets a ``failure``.

    Args:
        items: cases from :func:`monai_unetpp.data.find_cases`; changed in place.
        wanted: number, UID or description of a series, or ``"all"``.
    """
    arranged: list[dict[str, Any]] = []
    taken = {item["case"] for item in items}
    for item in items:
        series = _series_of(item)
        # where they cannot be read, why is told when the case is loaded
        if series is not None and not series and wanted != ALL_SERIES and "failure" not in item:
            logger.warning("%s: holds no DICOM series; series %s is not looked for.", first_file(item), wanted)
        # a single series without a number is the first
        if not series or (len(series) == 1 and (wanted == ALL_SERIES or (wanted == "1" and not series[0].number))):
            arranged.append(item)
            continue
        folder = Path(item["image"])
        chosen = _chosen(series, wanted, folder)
        if not chosen:
            there = "; ".join(map(str, series))
            failure = f"{folder}: has no DICOM series {wanted!r} that is a volume; it has {there}. Name another."
            arranged.append({**item, "failure": printable(failure)})
            continue
        if len(series) == 1:
            arranged.append(item)
            continue
        # of all series, so that names do not depend on which of them are wanted
        names = dict(zip((one.uid for one in series), _names(item["case"], _numbers(series), taken), strict=True))
        for one in chosen:
            name = names[one.uid]
            # the name of a result is that of the folder
            kept = {key: value for key, value in item.items() if key != RESULT_NAME}
            arranged.append({**kept, "image": [str(file.path) for file in one.files], "case": name})
            taken.add(name)
    items[:] = arranged


def _series_of(item: dict[str, Any]) -> Sequence[DicomSeries] | None:
    """The series of a case, of a folder or a DICOM file; empty for other images, None if they cannot be read."""
    image = item["image"]
    if "failure" in item or not isinstance(image, (str, PathLike)):
        return []
    if not (os.path.isdir(image) or is_dicom_file(first_file(item))):
        return []
    try:
        return find_series([Path(image)])
    except ImageFileError:
        return None


def _chosen(series: Sequence[DicomSeries], wanted: str, folder: Path) -> list[DicomSeries]:
    if wanted != ALL_SERIES:
        return [one for one in series if wanted in (one.number, one.uid, one.description)]
    suitable = []
    for one in series:
        try:
            planes, _ = stack_series([file.path for file in one.files])
            reason = "a single slice." if len(planes) == 1 else "localizers (scouts)." if planes[0].is_localizer else ""
        except ImageFileError as e:
            reason = str(e)
        if reason:
            logger.warning("%s: series %s left out: %s", folder, one, reason)
        else:
            suitable.append(one)
    return suitable


def _names(case: str, numbers: Sequence[str], taken: Container[str]) -> list[str]:
    prefix = ""
    while any(f"{case}_{prefix}{number}" in taken for number in numbers):
        prefix += "series_"
    return [f"{case}_{prefix}{number}" for number in numbers]


def _numbers(series: Sequence[DicomSeries]) -> list[str]:
    """The numbers of the series, or their positions if numbers are missing or repeated."""
    numbers = [one.number for one in series]
    usable = len(set(numbers)) == len(numbers) and all(number.isdecimal() for number in numbers)
    return numbers if usable else [str(place) for place in range(1, len(series) + 1)]

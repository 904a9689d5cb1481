"""Stack DICOM slices, from files or frames of a file, after checking that they form a volume."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_unetpp.data.formats.dicom_planes import COMMON, CONVERT, DISTINGUISHING, DicomPlane
from monai_unetpp.data.formats.grid import warn_once
from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.errors import list_values

_Array = np.ndarray[Any, Any]

# Headers give cosines with a few decimals; within a scan they are the same.
_LARGEST_COSINE_ERROR = 2e-3
_LARGEST_COSINE_DIFFERENCE = 2e-4
_LARGEST_SPACING_DIFFERENCE = 1e-4
#: Slices closer than this fraction of the usual step lie at the same position.
_SAME_PLACE = 0.1
# Times differ in every scan; they tell slices apart only if nothing else does.
_TIMES = ("AcquisitionTime", "AcquisitionDateTime", "ContentTime")
# Numbers that distinguish kinds of slices also where no two slices lie at the same position.
_KINDS = ("EchoTime", "EffectiveEchoTime", "InversionTime", "DiffusionBValue")
_ROUNDING = 0.05
#: Entries of ImageType for magnitude, phase, real and imaginary part.
_COMPONENTS = ("M", "P", "R", "I")
_EXPORT = f"Export the series again with the position of every slice. {CONVERT.replace('Convert', 'Or convert')}"


def stack_planes(planes: Sequence[DicomPlane], given: Path) -> tuple[list[DicomPlane], _Array]:
    """Sort the slices of one series along their normal; ``given`` is the path for messages.

    With their affine ``(4, 4)`` in RAS from (column, row, slice) to mm. An ``ImageFileError`` says why they form no
    volume: a slice is missing or duplicated, or they are not parallel, of one size and spacing, evenly spaced and
    aligned along their normal.
    """
    from highdicom.spatial import get_plane_sort_index

    _check_common(planes, given)
    if len(planes) == 1:
        return list(planes), _affine_of_one(planes[0], given)
    _check_complete(planes, given)
    orientation = _common_orientation(planes, given)
    spacing = np.array([plane.spacing_mm for plane in planes]).mean(axis=0)
    positions = np.array([plane.position_mm for plane in planes])
    order = get_plane_sort_index(positions.tolist(), orientation.tolist(), index_convention="RD")
    ordered, positions = [planes[index] for index in order], positions[order]
    normal = np.cross(orientation[:3], orientation[3:])
    _check_places(ordered, positions @ normal, given)
    origin, step = _fit(ordered, positions, normal, given)
    if mixed := _mixtures(planes):
        warn_once(f"{given}: its slices are evenly spaced, but differ in kind{mixed}.")
    return ordered, _affine(origin, orientation, spacing, step)


def _split(planes: Sequence[DicomPlane]) -> str:
    """What to do with slices of several kinds."""
    of_one_file = len({plane.path for plane in planes}) == 1
    return "Export each kind as a file of its own." if of_one_file else "Put each kind into a folder of its own."


def _check_common(planes: Sequence[DicomPlane], given: Path) -> None:
    localizers = [plane for plane in planes if plane.is_localizer]
    if 0 < len(localizers) < len(planes):
        raise ImageFileError(
            f"{given}: {len(localizers)} of its {len(planes)} slices are localizers (scouts), such as "
            f"{localizers[0].label}. Remove them."
        )
    sizes = Counter(f"{plane.size[0]} x {plane.size[1]}" for plane in planes)
    if len(sizes) > 1:
        raise ImageFileError(f"{given}: its slices have several sizes in pixels: {_counted(sizes)}. {_split(planes)}")
    for name in COMMON:
        values = Counter(plane.attributes[name] for plane in planes if plane.attributes[name])
        # ITK writes every slice as a study of its own, unless it is given one; de-identification may do alike
        if len(values) > 1 and not (name in ("StudyInstanceUID", "PatientID") and len(values) == len(planes)):
            told = "" if name == "PatientID" else f": {_counted(values)}"  # messages must not identify patients
            raise ImageFileError(f"{given}: its slices differ in {name}{told}. {_split(planes)}")
    sources = Counter(plane.scale_source for plane in planes)
    if len(sources) > 1:
        raise ImageFileError(
            f"{given}: its {len(planes)} slices scale their values in different ways: {_counted(sources)}. "
            "Export the whole series again."
        )


def _check_complete(planes: Sequence[DicomPlane], given: Path) -> None:
    needed = {
        "ImagePositionPatient": [plane for plane in planes if plane.position_mm is None],
        "ImageOrientationPatient": [plane for plane in planes if plane.orientation is None],
        "PixelSpacing": [plane for plane in planes if plane.spacing_source != "PixelSpacing"],
    }
    for name, lacking in needed.items():
        if lacking:
            raise ImageFileError(
                f"{given}: {len(lacking)} of its {len(planes)} slices have no {name}, such as {lacking[0].label}. "
                f"{_EXPORT}"
            )
    spacings = np.array([plane.spacing_mm for plane in planes])
    if spacings.min() <= 0:
        raise ImageFileError(f"{given}: its PixelSpacing is {spacings.min():g} mm. {_EXPORT}")
    if np.ptp(spacings, axis=0).max() > _LARGEST_SPACING_DIFFERENCE * spacings.min():
        texts = Counter(f"{row:g} x {column:g} mm" for row, column in spacings)
        raise ImageFileError(f"{given}: its slices have several pixel spacings: {_counted(texts)}. {_split(planes)}")


def _common_orientation(planes: Sequence[DicomPlane], given: Path) -> _Array:
    orientations = np.array([plane.orientation for plane in planes])
    groups: list[list[int]] = []
    for index, orientation in enumerate(orientations):
        for group in groups:
            if np.abs(orientations[group[0]] - orientation).max() <= _LARGEST_COSINE_DIFFERENCE:
                group.append(index)
                break
        else:
            groups.append([index])
    if len(groups) > 1:
        sizes = sorted((len(group) for group in groups), reverse=True)
        odd = planes[min(groups, key=len)[0]].label
        raise ImageFileError(
            f"{given}: its slices have {len(groups)} orientations, of {list_values(sizes)} slices; {odd} is not "
            f"parallel to the others. Localizers and other mixed views do not form a volume. {_split(planes)}"
        )
    return _orthonormal(orientations.mean(axis=0), given)


def _orthonormal(orientation: _Array, given: Path) -> _Array:
    row, column = orientation[:3], orientation[3:]
    errors = np.array([np.linalg.norm(row) - 1, np.linalg.norm(column) - 1, row @ column])
    if np.abs(errors).max() > _LARGEST_COSINE_ERROR:
        raise ImageFileError(
            f"{given}: its ImageOrientationPatient {orientation.round(4).tolist()} must give two perpendicular "
            f"directions. {_EXPORT}"
        )
    row = row / np.linalg.norm(row)
    column = column - (column @ row) * row
    return np.concatenate([row, column / np.linalg.norm(column)])


def _check_places(planes: Sequence[DicomPlane], distances: _Array, given: Path) -> None:
    """Refuse slices at the same position, and gaps."""
    steps = np.diff(distances)
    apart = steps[steps > 1e-3]
    usual = float(np.median(apart)) if apart.size else 0.0
    same = np.append(steps <= max(_SAME_PLACE * usual, 1e-3), False)
    if same.any():
        places = np.concatenate([[0], np.cumsum(~same)[:-1]])
        raise ImageFileError(
            f"{given}: {int(same.sum())} of its {len(planes)} slices lie at the position of another, such as "
            f"{planes[int(np.argmax(same))].label} and {planes[int(np.argmax(same)) + 1].label}; "
            f"{_difference(planes, places)}"
        )
    widest = int(np.argmax(steps))
    if steps[widest] > 1.5 * usual:
        missing = max(1, round(steps[widest] / usual) - 1)
        raise ImageFileError(
            f"{given}: its slices are not evenly spaced: {steps[widest]:.3g} mm between {planes[widest].label} and "
            f"{planes[widest + 1].label}, elsewhere {usual:.3g} mm; about {missing} "
            f"{'is' if missing == 1 else 'are'} missing{_mixtures(planes)}. Export the whole series again."
        )


def _difference(planes: Sequence[DicomPlane], places: _Array) -> str:
    """The attribute that distinguishes slices at the same position."""
    found: dict[str, list[str]] = {}
    for name in DISTINGUISHING:
        at_place: dict[int, set[str]] = defaultdict(set)
        for place, plane in zip(places, planes, strict=True):
            at_place[int(place)].add(plane.attributes[name])
        if any(len(values) > 1 for values in at_place.values()):
            found[name] = sorted({plane.attributes[name] or "none" for plane in planes}, key=_numeric)
    if set(found) - set(_TIMES):
        found = {name: values for name, values in found.items() if name not in _TIMES}
    if not found:
        return "no attribute tells them apart. Remove the copies, or export one scan alone."
    differences = "; ".join(f"{name} ({list_values(values)})" for name, values in found.items())
    return f"they differ in {differences}. {_split(planes)}"


def _fit(planes: Sequence[DicomPlane], positions: _Array, normal: _Array, given: Path) -> tuple[_Array, float]:
    """Origin and step of the even grid that slices lie on."""
    distances = positions @ normal
    indices = np.arange(len(planes))
    step, start = np.polyfit(indices, distances, 1)
    beside = positions - np.outer(distances, normal)
    drift = np.polyfit(indices, beside, 1)[0]
    origin = beside.mean(axis=0) + start * normal
    tolerance = 0.02 * step + min(0.05, 0.1 * step)  # for positions rounded to, say, one decimal
    uneven = np.abs(distances - start - step * indices).max()
    if uneven > tolerance:
        steps = np.diff(distances)
        raise ImageFileError(
            f"{given}: its slices are not evenly spaced: the steps are {steps.min():.4g} to {steps.max():.4g} mm"
            f"{_mixtures(planes)}. Resample it to even steps. {CONVERT}"
        )
    shifts = np.linalg.norm(beside - beside.mean(axis=0), axis=1)
    worst = int(np.argmax(shifts))
    if shifts[worst] > tolerance:
        straight = np.linalg.norm(beside - beside.mean(axis=0) - np.outer(indices - indices.mean(), drift), axis=1)
        if straight.max() <= tolerance:
            angle = np.degrees(np.arctan2(np.linalg.norm(drift), step))
            reason = f"its slices are tilted by {angle:.3g} degrees (gantry tilt)"
            raise ImageFileError(f"{given}: {reason}. Resample it to right angles. {CONVERT}")
        raise ImageFileError(
            f"{given}: its slices are shifted sideways against each other, {planes[worst].label} by "
            f"{shifts[worst]:.3g} mm. {_split(planes)}"
        )
    return origin, float(step)


def _affine_of_one(plane: DicomPlane, given: Path) -> _Array:
    """The affine of a single slice; what is missing is assumed with a warning."""
    if plane.frames > 1:
        raise ImageFileError(
            f"{given}: its {plane.frames} frames have no positions, as in films and older scans. {_EXPORT}"
        )
    orientation, position = plane.orientation, plane.position_mm
    if orientation is None or position is None:
        warn_once(f"{given}: has no position; it is treated as an axial slice at the origin.")
        orientation, position = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0)
    if plane.spacing_source is None:
        warn_once(f"{given}: has no PixelSpacing; 1 mm is assumed.")
    elif plane.spacing_source != "PixelSpacing":
        warn_once(f"{given}: has no PixelSpacing; its {plane.spacing_source} is used instead.")
    spacing = np.asarray(plane.spacing_mm or (1.0, 1.0))
    if spacing.min() <= 0:
        raise ImageFileError(f"{given}: its {plane.spacing_source} is {spacing.min():g} mm. {_EXPORT}")
    step = plane.thickness_mm or 0.0
    return _affine(np.asarray(position), _orthonormal(np.asarray(orientation), given), spacing, step if step > 0 else 1)


def _affine(origin: _Array, orientation: _Array, spacing: _Array, step: float) -> _Array:
    from highdicom.spatial import create_affine_matrix_from_attributes

    affine = create_affine_matrix_from_attributes(
        origin.tolist(), orientation.tolist(), spacing.tolist(), step, index_convention="RD", handedness="RIGHT_HANDED"
    )
    ras: _Array = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return ras


def _mixtures(planes: Sequence[DicomPlane]) -> str:
    """What differs among slices of several kinds, as the end of a sentence; empty if they are of one kind."""
    texts = {
        "SliceThickness": [f"{plane.thickness_mm:g} mm" for plane in planes if plane.thickness_mm is not None],
        "ConvolutionKernel": [plane.attributes["ConvolutionKernel"].upper() for plane in planes],
        "ImageType": [_component(plane) for plane in planes],
    }
    found = {name: Counter(filter(None, values)) for name, values in texts.items()}
    found.update({name: _kinds([plane.attributes[name] for plane in planes]) for name in _KINDS})
    mixed = {name: counts for name, counts in found.items() if len(counts) > 1}
    return "".join(f"; their {name} is mixed: {_counted(counts)}" for name, counts in mixed.items())


def _component(plane: DicomPlane) -> str:
    return next((part for part in plane.attributes["ImageType"].split("\\")[2:] if part in _COMPONENTS), "")


def _kinds(texts: Sequence[str]) -> Counter[str]:
    """Numbers that differ by more than rounding; none if they change from slice to slice."""
    values = sorted(value for value, _ in map(_numeric, texts) if math.isfinite(value))
    kinds: Counter[str] = Counter()
    name, before = "", math.nan
    for value in values:
        if not math.isclose(before, value, rel_tol=_ROUNDING):
            name = f"{value:g}"
        kinds[name] += 1
        before = value
    return kinds if len(kinds) <= len(values) / 2 else Counter()


def _counted(counts: Counter[str]) -> str:
    """The most frequent values with their counts."""
    return list_values([f"{value} ({count})" for value, count in counts.most_common()])


def _numeric(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return np.inf, text

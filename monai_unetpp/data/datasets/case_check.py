"""Check image and label of one case: the rules that all checks share."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from monai_unetpp.data.datasets.labelled import LabelledCase
from monai_unetpp.data.datasets.voxel_hash import describe_repeat, hash_voxels, split_hash
from monai_unetpp.data.formats.exhaustion import describe_case_failure
from monai_unetpp.data.formats.grid import ImageGeometry, channel_axes, check_same_grid, voxel_ml
from monai_unetpp.data.formats.image_errors import ImageFileError, describe_failure
from monai_unetpp.data.formats.label_values import check_label_values
from monai_unetpp.data.formats.nifti import open_nifti
from monai_unetpp.data.formats.pictures import shown_orientation
from monai_unetpp.data.formats.reader import Volume, VolumeReader, read_label_map
from monai_unetpp.data.formats.suffixes import is_nifti_name, is_picture_name
from monai_unetpp.data.formats.tiff import COLOURS, mean_of_colours
from monai_unetpp.errors import counted

__all__ = [
    "CheckedCase",
    "check_case",
    "label_values",
    "label_volumes",
    "read_image",
    "read_truth",
    "repeated_images",
    "same_image",
]

logger = logging.getLogger(__name__)

_K = TypeVar("_K")


@dataclasses.dataclass(frozen=True)
class CheckedCase:
    """The result of checking a case.

    Attributes:
        problem: what is wrong, in one line with the file and the remedy; None if the case is sound.
        voxels: ``hash_voxels`` of the image; None if it could not be read, or is constant.
        volumes_ml: volume of each value in the label map; a 2D image counts as 1 mm thick.
        label: ``hash_voxels`` of the label map of a sound case.
        axes: number of spatial axes of a sound case.
        channels: number of channels of its image.
    """

    problem: str | None
    voxels: str | None = None
    volumes_ml: Mapping[int, float] = dataclasses.field(default_factory=dict)
    label: str | None = None
    axes: int | None = None
    channels: int | None = None

    @property
    def values(self) -> frozenset[int]:
        """The values in the label map."""
        return frozenset(self.volumes_ml)


def check_case(
    case: LabelledCase,
    values: Collection[int] | None = None,
    spatial_dims: int | None = None,
    in_channels: int | None = None,
) -> CheckedCase:
    """Read image and label of a case and say what is wrong with them.

    All files must exist and be readable. The image must be finite and not constant, except for 2D images whose label
    is background only, as empty fields of view are common in microscopy. The label must lie on its grid and hold only
    integers that have a name. A label with background only is sound.

    Args:
        case: the case.
        values: label values allowed besides 0; None allows all from 0 up.
        spatial_dims: 2 or 3; None takes that of the label.
        in_channels: channels that the image must have; None skips this check, and averages colours of pictures.
    """
    missing = next((file for file in case.files if not os.path.exists(file)), None)
    if missing is not None:
        return CheckedCase(f"{missing}: no such file, but the data list names it. Add it, or leave the case out.")
    voxels = None
    try:
        label = read_truth(case, values, spatial_dims)
        empty = label.data.ndim == 2 and not label.data.any()
        image = read_image(case, label.data.ndim, allow_constant=empty, in_channels=in_channels)
        # all empty fields of view are alike
        if image.data.min() < image.data.max():
            voxels = hash_voxels(_as_hashed(image, case))
        check_same_grid(case.image[0], ImageGeometry(image.data.shape[1:], image.affine), case.label, label.grid)
        _check_shown_alike(case)
        channels = len(image.data)
        if in_channels is not None and in_channels != channels:
            raise ImageFileError(
                f"{case.image[0]}: the image must have {counted(in_channels, 'channel')} for this network, got "
                f"{channels}. Give one file per channel, or one file with the channels on its last axis."
            )
        return CheckedCase(None, voxels, label_volumes(label), hash_voxels(label.data), label.data.ndim, channels)
    except (ImageFileError, OSError) as e:
        return CheckedCase(describe_failure(e), voxels)
    except Exception as e:  # libraries fail in many ways on broken files, which must not end the check of the others
        file = str(case.image[0])
        logger.debug("%s: cannot be checked", file, exc_info=True)
        return CheckedCase(f"{file}: {describe_case_failure(e, file, 'loading')}", voxels)


def _check_shown_alike(case: LabelledCase) -> None:
    """Check that viewers turn image and label alike, if they are pictures."""
    turned = [shown_orientation(file) if is_picture_name(file) else 1 for file in (case.image[0], case.label)]
    if turned[0] != turned[1]:
        raise ImageFileError(
            f"{case.image[0]}: viewers turn the image and its label in different ways (EXIF orientation {turned[0]} "
            f"and {turned[1]}), so they may not fit as stored. Save both without this tag, as they are shown."
        )


def read_truth(case: LabelledCase, values: Collection[int] | None = None, spatial_dims: int | None = None) -> Volume:
    """The label map of a case as it is in the file, ``(H, W[, D])`` of integers.

    Args:
        case: the case.
        values: values allowed besides 0; None allows all from 0 up.
        spatial_dims: 2 or 3; None takes that of the file, without trailing axes of length 1.

    Raises:
        ImageFileError: the file cannot be read, or has other dimensions, non-integers, or values without a name.
    """
    label = read_label_map(case.label, spatial_dims)
    if values is not None:
        check_label_values(label_values(label.data), values, case.label)
    elif label.data.min() < 0:
        raise ImageFileError(
            f"{case.label}: the label must hold no negative values, got {label.data.min()}. Correct it."
        )
    return label


def _as_hashed(image: Volume, case: LabelledCase) -> npt.NDArray[Any]:
    """The voxels of an image with its channels on the last axis; the mean of colours of a picture, as by its file."""
    voxels = np.moveaxis(image.data, 0, -1)
    return mean_of_colours(voxels) if len(image.data) > 1 and _is_picture(case) else voxels


def _is_picture(case: LabelledCase) -> bool:
    return len(case.image) == 1 and is_picture_name(case.image[0])


def read_image(
    case: LabelledCase,
    dims: int,
    allow_constant: bool = False,
    fill_nonfinite: float | None = None,
    in_channels: int | None = None,
) -> Volume:
    """The image of a case as training reads it, ``(C, H, W[, D])``.

    Args:
        case: the case.
        dims: 2 or 3.
        allow_constant: see :class:`monai_unetpp.data.VolumeReader`.
        fill_nonfinite: likewise.
        in_channels: channels of the network; with three, a single picture keeps its colours.

    Raises:
        ImageFileError: a file is unusable.
    """
    channels = COLOURS if in_channels == COLOURS and _is_picture(case) else 1
    if len(case.image) == 1 and is_nifti_name(case.image[0]):
        channels = channel_axes(open_nifti(case.image[0]).shape, dims)[1]
    reader = VolumeReader(dims, allow_constant, fill_nonfinite, channels)
    image, metadata = reader.get_data(reader.read(case.image))
    return Volume(image if image.ndim > dims else image[None], metadata["original_affine"])


def label_values(data: npt.NDArray[Any]) -> frozenset[int]:
    """The values that occur in an integer label map."""
    return frozenset(_counts(data))


def label_volumes(label: Volume) -> dict[int, float]:
    """The values that occur in a label map, with their volumes in ml as scores have them."""
    size_ml = voxel_ml(label.affine, label.data.ndim)
    return {value: count * size_ml for value, count in _counts(label.data).items()}


def _counts(data: npt.NDArray[Any]) -> dict[int, int]:
    """The number of voxels of each value."""
    # for few values counting is faster than sorting
    if data.dtype == np.uint8:
        counts = np.bincount(data.ravel())
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, counts = np.unique(data, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def repeated_images(checked: Mapping[_K, CheckedCase]) -> dict[_K, _K]:
    """Sound cases with the same image as an earlier case, mapped to that case, in whatever directions of axes."""
    first: dict[str, _K] = {}
    sound = {
        case: split_hash(each.voxels)[-1]
        for case, each in checked.items()
        if each.problem is None and each.voxels is not None
    }
    return {case: first[voxels] for case, voxels in sound.items() if first.setdefault(voxels, case) != case}


def same_image(image: str, checked: CheckedCase, first: str, earlier: CheckedCase) -> str:
    """The message about a duplicate image; both are what was found about it and the first."""
    alike = describe_repeat(checked.voxels or "", earlier.voxels or "")
    return f"{image}: {alike} {first}; they would count as two subjects. Leave one of them out."

"""What to say where an image needs more memory than there is."""

from __future__ import annotations

import contextlib
from pathlib import Path

from monai_unetpp.data.geometry import read_geometry
from monai_unetpp.data.image_errors import describe_failure
from monai_unetpp.data.pictures import is_picture_name
from monai_unetpp.errors import printable
from monai_unetpp.measuring.memory import is_out_of_memory

__all__ = ["describe_case_failure"]

#: What helps, by what was being done.
_REMEDIES = {
    "loading": "Resample the image to larger voxels or crop it first, or close other programs.",
    "inference": (
        "Take a shallower --level, smaller windows (window_shape or patch_size of the bundle), --runtime torch or "
        "another --device, or resample the image to larger voxels or crop it first."
    ),
    "post-processing": (
        "Leave --smooth and --instances out, resample the image to larger voxels or crop it first, or close other "
        "programs."
    ),
}


def describe_case_failure(error: BaseException, file: str, stage: str) -> str:
    """What went wrong with a case, in one line; where memory ran out, for how large an image and what helps.

    Args:
        error: any exception.
        file: the image.
        stage: ``"loading"`` (with resampling), ``"inference"`` or ``"post-processing"``.

    Returns:
        The line, without the file.
    """
    exhausted = _find_exhaustion(error)
    if exhausted is None:
        reason = describe_failure(error)
        speaks_for_itself = stage == "loading" or reason.startswith(f"{printable(file)}: ")
        return reason if speaks_for_itself else f"{stage} failed with {reason}"
    return f"{stage} needs more memory than there is{_size(file)} ({describe_failure(exhausted)}). {_REMEDIES[stage]}"


def _find_exhaustion(error: BaseException | None) -> BaseException | None:
    """The error that says that memory ran out, from which MONAI and the readers may have raised their own."""
    while error is not None and not is_out_of_memory(error):
        error = error.__cause__ or error.__context__
    return error


def _size(file: str) -> str:
    """The size of the image from its header, where that can be read."""
    path = Path(file)
    # memory is short, and whatever is wrong with the file is not what is told here
    with contextlib.suppress(Exception):
        grid = read_geometry(path)
        shape, spacing = (" x ".join(f"{value:g}" for value in values) for values in (grid.shape, grid.spacing_mm))
        unit = "pixels" if is_picture_name(path) else f"voxels of {spacing} mm"
        return f" for {shape} {unit}"
    return ""

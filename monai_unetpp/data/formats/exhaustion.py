"""Messages for images that need more memory than is available."""

from __future__ import annotations

import contextlib
from pathlib import Path

from monai_unetpp.data.formats.image_errors import describe_failure
from monai_unetpp.data.formats.reader import read_geometry
from monai_unetpp.data.formats.suffixes import is_picture_name
from monai_unetpp.errors import printable
from monai_unetpp.measuring.memory import is_out_of_memory

#: Remedy by stage.
_REMEDIES = {
    "loading": "Resample the image to larger voxels or crop it first, or close other programs.",
    "inference": (
        "Use a shallower --level, smaller windows (window_shape of the bundle), --runtime torch or "
        "another --device, or resample the image to larger voxels or crop it first."
    ),
    "post-processing": (
        "Leave --smooth and --instances out, resample the image to larger voxels or crop it first, or close other "
        "programs."
    ),
}


def describe_case_failure(error: BaseException, file: str, stage: str) -> str:
    """Describe the failure of a case in one line; if memory ran out, with the size of the image and a remedy.

    Args:
        error: any exception.
        file: the image.
        stage: ``"loading"`` (with resampling), ``"inference"`` or ``"post-processing"``.

    Returns:
        The line, without the file.
    """
    # MONAI and the readers may have wrapped it
    exhausted: BaseException | None = error
    while exhausted is not None and not is_out_of_memory(exhausted):
        exhausted = exhausted.__cause__ or exhausted.__context__
    if exhausted is None:
        reason = describe_failure(error)
        names_file = stage == "loading" or reason.startswith(f"{printable(file)}: ")
        return reason if names_file else f"{stage} failed with {reason}"
    return f"{stage} ran out of memory{_size(file)} ({describe_failure(exhausted)}). {_REMEDIES[stage]}"


def _size(file: str) -> str:
    """The size of the image from its header, if readable."""
    path = Path(file)
    # memory is short, and other faults of the file do not matter here
    with contextlib.suppress(Exception):
        grid = read_geometry(path)
        shape, spacing = (" x ".join(f"{value:g}" for value in values) for values in (grid.shape, grid.spacing_mm))
        unit = "pixels" if is_picture_name(path) else f"voxels of {spacing} mm"
        return f" for {shape} {unit}"
    return ""

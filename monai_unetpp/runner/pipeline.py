"""The description of an exported folder, ``pipeline.json``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.files import hash_file

PIPELINE_FILE = "pipeline.json"
#: Increases when a runner must change to give the same labels.
PIPELINE_VERSION = 2

Step = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """All steps from an image file to labels, as plain values.

    Attributes:
        name: name of the bundle.
        level: level of the network.
        spatial_dims: 2 or 3, of the network.
        labels: names by label value, ``"0"`` the background.
        reading: allowed ``spatial_dims`` of an image, ``channels``, ``allow_constant``, ``fill_nonfinite``, and
            ``pictures``: whether PNG, JPEG and TIFF are read.
        preprocessing: steps, each with its name under ``step`` and its parameters.
        network: ``files`` (the first is the one to open), ``format`` (``"openvino"`` or ``"onnx"``), ``precision`` of
            the computation, and ``sha256`` of all files; for int8 also ``calibration``: the folder's name as ``data``,
            the number of ``windows``, and the part of their voxels with the ``same_labels`` as before.
        windows: ``shape``, ``overlap``, ``blending``, ``sigma_scale``, ``padding_mode``, ``cval``, ``flips`` and
            ``skip_constant``. For the shape ``"auto"`` also ``multiples``, of which sizes are multiples, and
            ``channels`` of the first convolution, to estimate the memory of a window.
        slice_axis: axis of volumes perpendicular to the slices, for a 2D network; None for a 3D network.
        postprocessing: steps on the label map, before the inversion to the grid of the file, but for ``map_labels``.
        fingerprint: hash of the network's weights and configuration.
        versions: versions of the software that wrote the folder.
        version: version of this format.
    """

    name: str
    level: str
    spatial_dims: int
    labels: Mapping[str, str]
    reading: Mapping[str, Any]
    preprocessing: Sequence[Step]
    network: Mapping[str, Any]
    windows: Mapping[str, Any]
    slice_axis: int | None
    postprocessing: Sequence[Step]
    fingerprint: str
    versions: Mapping[str, str]
    version: int = PIPELINE_VERSION

    def as_text(self) -> str:
        """The content of ``pipeline.json``."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def read_pipeline(folder: str | PathLike[str]) -> Pipeline:
    """Read ``pipeline.json`` of an exported folder, and check that it belongs to the network beside it.

    Args:
        folder: the folder from ``monai-unetpp export --format runner``.

    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: the file has another form or version, or the network was changed.
    """
    path = Path(folder) / PIPELINE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: has no {PIPELINE_FILE}. Write it with monai-unetpp export --format runner.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["version"]
        if version != PIPELINE_VERSION:
            raise ValueError(
                f"{path}: version must be {PIPELINE_VERSION}, got {version!r}. Export the bundle again, or use the "
                "runner of the version that wrote it."
            )
        pipeline = Pipeline(**content)
        files = [path.with_name(Path(name).name) for name in pipeline.network["files"]]
        expected = pipeline.network["sha256"]
        overlap = pipeline.windows["overlap"]
        if not all(0 <= each < 1 for each in (overlap if isinstance(overlap, list) else [overlap])):
            raise TypeError(f"overlap {overlap}")
        if pipeline.windows["blending"] not in ("gaussian", "constant"):
            raise TypeError(f"blending {pipeline.windows['blending']!r}")
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as e:
        raise ValueError(f"{path}: not the description of an exported folder ({e}). Export the bundle again.") from e
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(f"{folder}: {', '.join(missing)} is missing. Export the bundle again.")
    if hash_file(*files) != expected:
        raise ValueError(f"{files[0]}: damaged, or does not belong to {PIPELINE_FILE}. Export the bundle again.")
    return pipeline

"""What an exported folder says of itself in ``pipeline.json``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["PIPELINE_FILE", "PIPELINE_VERSION", "Pipeline", "hash_files", "read_pipeline"]

PIPELINE_FILE = "pipeline.json"
#: Goes up when a runner must do something else to give the same labels.
PIPELINE_VERSION = 2

Step = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """The way from an image file to labels, as plain values.

    Attributes:
        name: of the bundle.
        level: of the network.
        spatial_dims: of the network, 2 or 3.
        labels: names of the labels, ``"0"`` the background.
        reading: ``spatial_dims`` that an image may have, ``channels``, ``allow_constant`` and ``fill_nonfinite``.
        preprocessing: steps, each with its name under ``step`` and its parameters.
        network: ``files`` (the first is the one to open), ``format`` (``"openvino"`` or ``"onnx"``), ``precision`` to
            compute in, and ``sha256`` of the files together.
        windows: ``shape``, ``overlap``, ``blending``, ``sigma_scale``, ``padding_mode``, ``cval``, ``flips`` and
            ``skip_constant``. Where the shape is ``"auto"``, also ``multiples``, which sizes are of, and ``channels``
            of the first convolution, which tell how much memory a window takes.
        slice_axis: axis of volumes across which slices lie, for a network of images; None for one of volumes.
        postprocessing: steps on the label map, before it goes back to the grid of the file.
        fingerprint: of the network's weights and configuration.
        versions: of what made the folder.
        version: of this format.
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
    """Read ``pipeline.json`` of an exported folder and check that the network beside it is the one it means.

    Args:
        folder: what ``monai-unetpp export --format runner`` wrote.

    Raises:
        FileNotFoundError: no such folder, or one without its files.
        ValueError: a file of another kind or version, or a changed network.
    """
    path = Path(folder) / PIPELINE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no {PIPELINE_FILE} there. Make it by monai-unetpp export --format runner.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["version"]
        if version != PIPELINE_VERSION:
            raise ValueError(
                f"{path}: version must be {PIPELINE_VERSION}, got {version!r}. Export the bundle again, or take the "
                "runner of the version that made it."
            )
        pipeline = Pipeline(**content)
        files = [path.with_name(Path(name).name) for name in pipeline.network["files"]]
        expected = pipeline.network["sha256"]
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as e:
        raise ValueError(f"{path}: not the description of an exported folder ({e}). Export the bundle again.") from e
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(f"{folder}: {', '.join(missing)} is missing. Export the bundle again.")
    if hash_files(files) != expected:
        raise ValueError(f"{files[0]}: damaged, or not what {PIPELINE_FILE} means. Export the bundle again.")
    return pipeline


def hash_files(files: Sequence[Path]) -> str:
    """SHA-256 of the bytes of files, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()

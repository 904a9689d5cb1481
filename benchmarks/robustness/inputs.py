"""Small images with known labels, and a bundle whose network finds them."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import torch

from monai_unetpp import NestedUNet
from monai_unetpp.bundles import find_bundle, weights_entry
from monai_unetpp.cli import main
from monai_unetpp.data import VolumeReader
from monai_unetpp.results import RUN_FILE, TABLE_FILES, VOLUMES_FILE
from monai_unetpp.segmentation import SegmentationSummary, segment_files

_Array = npt.NDArray[Any]

_SHAPE = (20, 24, 18)
#: Above these standardized values the network finds label 1, and label 2.
_THRESHOLDS = (1.0, 4.0)
#: Of the voxels of ``STRAIGHT``: the network's own size doubled along one axis, so that images are resampled.
SPACING_MM = (1.0, 1.0, 2.0)
STRAIGHT: _Array = np.diag([*SPACING_MM, 1.0])
STRAIGHT[:3, 3] = -9, 12, 30


def _phantom() -> tuple[_Array, _Array]:
    labels = np.zeros(_SHAPE, np.uint8)
    labels[3:10, 4:13, 3:9] = 1
    labels[12:17, 13:20, 9:15] = 2
    noise = np.random.default_rng(0).normal(0, 4, _SHAPE)
    return (np.array([100.0, 300.0, 600.0])[labels] + noise).astype(np.int16), labels


#: An image ``(20, 24, 18)`` of a middle and a bright box, which lie apart from all of its symmetries, and its labels.
VOXELS, LABELS = _phantom()


def save(
    path: Path,
    voxels: _Array = VOXELS,
    affine: _Array | None = STRAIGHT,
    codes: tuple[int, int] = (1, 0),
    **header: Any,
) -> Path:
    """Write NIfTI.

    Args:
        path: the file.
        voxels: of the type that is to be stored.
        affine: from voxels to mm.
        codes: of sform and qform; that with code 0 is not set.
        **header: fields that are written as they are, whatever nibabel thinks of them; only without compression.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(voxels, None if codes == (0, 0) else affine)
    image.set_sform(affine if codes[0] else None, codes[0])
    image.set_qform(affine if codes[1] else None, codes[1])
    if not header:
        nibabel.save(image, path)
        return path
    content = bytearray(image.to_bytes())
    fields = np.frombuffer(content, nibabel.Nifti1Header.template_dtype, count=1)
    for name, value in header.items():
        fields[name] = value
    path.write_bytes(content)
    return path


def read(path: Path | Sequence[Path], **options: Any) -> tuple[_Array, _Array]:
    """Voxels and affine as every part of the package reads them."""
    reader = VolumeReader(**options)
    voxels, metadata = reader.get_data(reader.read(path))
    return voxels, np.asarray(metadata["affine"])


@functools.lru_cache
def bright_bundle() -> Path:
    """The hippocampus bundle with another network, which finds what is bright: its labels are known beforehand."""
    # kept for the whole run, and removed when the interpreter ends
    holder = tempfile.TemporaryDirectory()
    bright_bundle.holder = holder  # type: ignore[attr-defined]
    root = Path(holder.name) / "bright_bundle"
    shutil.copytree(find_bundle("hippocampus_mri_unetpp"), root)
    network = NestedUNet(3, 1, 3, features=(1, 1), norm=None)
    _let_find_bright(network)
    torch.save(network.state_dict(), root / "models" / "model.pt")
    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "features": [1, 1], "norm": None}
    for name in ("inference.json", "train.json"):
        change_json(
            root / "configs" / name, level=None, network_def={"_target_": "monai_unetpp.NestedUNet", **arguments}
        )
    change_json(root / "configs" / "metadata.json", **weights_entry(root))
    # the images here are like none that a hippocampus was seen in, and that is not what is tried
    (root / "configs" / "fingerprint.json").unlink(missing_ok=True)
    return root


def names_of_images(folder: Path) -> list[str]:
    """What lies in a folder, without the tables that lie beside label maps."""
    return sorted({*os.listdir(folder)} - {*TABLE_FILES.values(), RUN_FILE, VOLUMES_FILE})


def _let_find_bright(network: NestedUNet) -> None:
    """Weights that hand the image through, and let each label be the highest above its threshold."""
    low, high = _THRESHOLDS
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.zero_()
            if name.startswith("nodes.x_0_") and name.endswith("conv.weight"):
                weight[0, 0, 1, 1, 1] = 1
            if name == "heads.L1.weight":
                weight[:, 0, 0, 0, 0] = torch.tensor([0.0, 1.0, 2.0])
            elif name == "heads.L1.bias":
                weight[:] = torch.tensor([0.0, -low, -low - high])


def change_json(path: Path, **entries: Any) -> Path:
    """Replace entries of a JSON object in a file, which may be missing; with ``...`` they are removed."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    changed = {key: value for key, value in {**content, **entries}.items() if value is not ...}
    path.unlink(missing_ok=True)
    path.write_text(json.dumps(changed), encoding="utf-8")
    return path


def segmented(inputs: Path | Sequence[Path], output_dir: Path, **options: Any) -> SegmentationSummary:
    """Segment with the bundle whose network finds what is bright."""
    settings = {"bundle": bright_bundle(), "device": "cpu", "runtime": "torch", "flips": [], **options}
    # a list, as segment takes no other sequence
    return segment_files(list(inputs) if not isinstance(inputs, Path) else inputs, output_dir, **settings)


def refuse_if_failed(summary: SegmentationSummary) -> SegmentationSummary:
    """The summary of a run without failures.

    Raises:
        ValueError: with the reason of the first failure.
    """
    if summary.failures:
        raise ValueError(summary.failures[0])
    return summary


def labels_of(summary: SegmentationSummary, case: int = 0) -> _Array:
    """The label map that was written for a case.

    Raises:
        ValueError: there is none, with the reason.
    """
    if case >= len(summary.cases):
        refuse_if_failed(summary)
    return stored_voxels(summary.cases[case].output)


def stored_voxels(path: str | Path) -> _Array:
    """The voxels of a NIfTI file as nibabel reads them, without the package."""
    image: Any = nibabel.load(path)
    return np.asarray(image.dataobj)


def run_command(*arguments: str | Path) -> str:
    """What the program says on a command that it ends well.

    Raises:
        ValueError: with what it says where it does not.
    """
    said, out = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(out):
        code = main([str(argument) for argument in arguments])
    if code:
        raise ValueError(said.getvalue().strip().splitlines()[0].removeprefix("monai-unetpp: "))
    return out.getvalue()

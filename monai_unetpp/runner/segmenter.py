"""Segment files with an exported folder."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from monai_unetpp.data.formats.image_errors import ImageFileError, check_regular_file
from monai_unetpp.data.formats.nifti import NIFTI_SUFFIXES, on_nifti_grid, smallest_dtype
from monai_unetpp.data.formats.nifti_marks import (
    ImageIdentity,
    hash_file,
    hash_path,
    hash_voxels,
    matches_mark,
    nifti_mark,
    nifti_pair,
    read_nifti_mark,
)
from monai_unetpp.data.transforms.surround_search import search_surround
from monai_unetpp.files import MARK, atomic_path
from monai_unetpp.free_memory import available_bytes
from monai_unetpp.runner import geometry_steps, intensity_steps
from monai_unetpp.runner.labelling import infer_logits, label_image, likeliest_labels
from monai_unetpp.runner.network import load_network
from monai_unetpp.runner.pipeline import read_pipeline
from monai_unetpp.runner.volume import Array, Volume, read_volume
from monai_unetpp.window_layout import AUTO, most_window_voxels

#: The preprocessing steps by name in ``pipeline.json``.
STEPS: dict[str, Callable[..., None]] = {
    name: getattr(module, name)
    for module in (geometry_steps, intensity_steps)
    for name in module.__all__
    if name.islower()
}
#: The postprocessing steps: one sets the surround of the preprocessed image to background, the other inverts
#: probabilities instead of labels.
CLEAR_BACKGROUND, INVERT_PROBABILITIES = "clear_background", "invert_probabilities"
_AFTER = (CLEAR_BACKGROUND, INVERT_PROBABILITIES)
#: What ``segment`` writes beside its results; named here too, as its room needs packages that the runner does without.
_RUN_RECORD = "run.json"


class Segmenter:
    """Segments NIfTI files with the network of an exported folder, loaded once.

    Args:
        folder: the folder from ``monai-unetpp export --format runner``.
        threads: number of threads; None takes ``OMP_NUM_THREADS``, or else leaves it to the runtime.

    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        ImportError: the runtime of the network is not installed.
        ValueError: the folder has another version, or the network was changed.
    """

    def __init__(self, folder: str | PathLike[str], threads: int | None = None) -> None:
        self.pipeline = read_pipeline(folder)
        unknown = [step["step"] for step in self.pipeline.preprocessing if step["step"] not in STEPS]
        unknown += [step["step"] for step in self.pipeline.postprocessing if step["step"] not in _AFTER]
        if unknown:
            raise ValueError(f"{folder}: unknown step {unknown[0]!r}. Use the runner of the version that wrote it.")
        windows = self.pipeline.windows
        #: Largest window with shape auto; estimated once, so that equal images get equal windows.
        self._most_voxels = (
            most_window_voxels(available_bytes(), windows["channels"], len(self.pipeline.labels))
            if windows["shape"] == AUTO
            else None
        )
        self._predict = load_network(Path(folder), self.pipeline.network, threads, self._most_voxels)

    def label(self, image: str | PathLike[str]) -> Array:
        """Label a NIfTI file on its own grid, ``(H, W[, D])`` of integers.

        Raises:
            ImageFileError: the image is unusable, or a result of this package.
        """
        if read_nifti_mark(Path(image)) is not None:
            raise ImageFileError(f"{image}: a result of monai-unetpp, not an image. Name the image.")
        volume = read_volume(Path(image), self.pipeline.reading)
        for step in self.pipeline.preprocessing:
            STEPS[step["step"]](volume, **{name: value for name, value in step.items() if name != "step"})
        after = [step["step"] for step in self.pipeline.postprocessing]
        found = search_surround(volume.voxels) if CLEAR_BACKGROUND in after else None
        if INVERT_PROBABILITIES in after:
            logits = self._infer(volume, infer_logits)
            if found is not None:
                logits[0][found.mask] = 0
                logits[1:][:, found.mask] = -np.inf
            return likeliest_labels(logits, volume)
        labels = self._infer(volume, label_image)
        if found is not None:
            labels[found.mask] = 0
        return volume.bring_back((labels, volume.affine))[0]

    def segment(self, image: str | PathLike[str], output_dir: str | PathLike[str], overwrite: bool = False) -> Path:
        """Write the labels of a NIfTI file as ``<output_dir>/<case>_seg.nii.gz``, with the header of the file.

        Args:
            image: the file.
            output_dir: folder to write to; created if missing.
            overwrite: whether the result of another image, or one that was corrected by hand, may be replaced.

        Returns:
            The path of the result.

        Raises:
            ImageFileError: the image is unusable.
            FileExistsError: the file exists and was not written by this package, or is the result of another image, or
                was changed since; or the folder holds results of ``monai-unetpp segment``, with tables that would no
                longer be right.
        """
        source = Path(image)
        path = Path(output_dir) / result_name(source)
        check_regular_file(source)
        _check_folder(path.parent, source)
        identity = _identify(source)
        _check_replaceable(path, source, identity, overwrite)
        labels = self.label(source)
        result: Any = on_nifti_grid(labels.astype(smallest_dtype(int(labels.max()))), source)
        result.header["descrip"] = nifti_mark(identity, hash_voxels(labels), by_runner=True)
        with atomic_path(path) as temporary:
            nibabel.save(result, temporary)
        return path

    def _infer(self, volume: Volume, infer: Callable[..., Array]) -> Array:
        windows, axis = self.pipeline.windows, self.pipeline.slice_axis
        image = np.ascontiguousarray(volume.voxels, dtype=np.float32)
        if axis is not None and len(volume.shape) == 3 and self.pipeline.spatial_dims == 2:
            slices = np.moveaxis(image, axis + 1, 0)
            return np.stack([infer(part, windows, self._predict, self._most_voxels) for part in slices], axis=axis - 3)
        return infer(image, windows, self._predict, self._most_voxels)


def result_name(image: Path) -> str:
    """The file name of an image's result."""
    suffix = next((each for each in NIFTI_SUFFIXES if image.name.lower().endswith(each)), "")
    return f"{image.name[: len(image.name) - len(suffix)]}_seg.nii.gz"


def _identify(image: Path) -> ImageIdentity:
    files = nifti_pair(image) if image.suffix.lower() in (".hdr", ".img") else [image]
    try:
        hashes = sorted(hash_file(file) for file in files)
    except OSError as e:
        raise ImageFileError(f"{image}: cannot be read ({e.strerror}). Check the path and its permissions.") from e
    return ImageIdentity(hash_path(image), hashes[0] if len(hashes) == 1 else None)


def _check_folder(folder: Path, source: Path) -> None:
    record = folder / _RUN_RECORD
    if record.is_file() and MARK in record.read_text(encoding="utf-8", errors="replace"):
        raise FileExistsError(
            f"{source}: {folder} holds results of monai-unetpp segment, whose tables would no longer be right. Name "
            "another output folder."
        )


def _check_replaceable(path: Path, source: Path, identity: ImageIdentity, overwrite: bool) -> None:
    if not path.exists():
        return
    mark = read_nifti_mark(path)
    if mark is None:
        raise FileExistsError(
            f"{source}: its result {path} exists and was not written by monai-unetpp. Move it away, or name another "
            "output folder."
        )
    if overwrite:
        return
    before = ImageIdentity.from_mark(mark)
    if before is None or not before.is_same(identity):
        raise FileExistsError(
            f"{source}: its result would replace {path}, which is of another image. Name another output folder, or "
            "replace it with --overwrite."
        )
    if matches_mark(mark, lambda: nibabel.load(path).dataobj) is False:  # type: ignore[attr-defined]
        raise FileExistsError(
            f"{source}: its result {path} was changed after it was written, as by hand. Name another output folder, or "
            "replace it with --overwrite."
        )

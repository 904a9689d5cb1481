"""Segment files with an exported folder."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path

import numpy as np

from monai_unetpp.data.formats.image_errors import ImageFileError, check_regular_file
from monai_unetpp.data.formats.nifti import smallest_dtype
from monai_unetpp.data.transforms.surround_search import search_surround
from monai_unetpp.free_memory import available_bytes
from monai_unetpp.runner import geometry_steps, intensity_steps
from monai_unetpp.runner.labelling import infer_logits, label_image, likeliest_labels
from monai_unetpp.runner.network import load_network
from monai_unetpp.runner.pipeline import read_pipeline
from monai_unetpp.runner.result_files import check_writable, identify, is_result, result_name, write_result
from monai_unetpp.runner.volume import Array, Volume, read_volume
from monai_unetpp.window_layout import AUTO, most_window_voxels

#: The preprocessing steps by name in ``pipeline.json``.
STEPS: dict[str, Callable[..., None]] = {
    name: getattr(module, name)
    for module in (geometry_steps, intensity_steps)
    for name in module.__all__
    if name.islower()
}
#: The postprocessing steps: one sets the surround of the preprocessed image to background, one inverts probabilities
#: instead of labels, and one gives the classes, on the grid of the file, the label values of the data.
CLEAR_BACKGROUND, INVERT_PROBABILITIES, MAP_LABELS = "clear_background", "invert_probabilities", "map_labels"
_AFTER = (CLEAR_BACKGROUND, INVERT_PROBABILITIES, MAP_LABELS)


class Segmenter:
    """Segments images with the network of an exported folder, loaded once.

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
        """Label an image file on its own grid, ``(H, W[, D])`` of integers.

        Raises:
            ImageFileError: the image is unusable, or a result of this package.
        """
        return self._label(self._read(Path(image)))

    def segment(self, image: str | PathLike[str], output_dir: str | PathLike[str], overwrite: bool = False) -> Path:
        """Write the labels of an image file as ``<output_dir>/<case>_seg.nii.gz``, with the header of a NIfTI file.

        For PNG and JPEG it is ``<case>_seg.png``, for TIFF ``<case>_seg.tif``.

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
        identity = identify(source)
        check_writable(path, source, identity, overwrite)
        volume = self._read(source)
        write_result(path, self._label(volume), source, volume.stored_affine, identity)
        return path

    def _read(self, image: Path) -> Volume:
        if is_result(image):
            raise ImageFileError(f"{image}: a result of monai-unetpp, not an image. Name the image.")
        return read_volume(image, self.pipeline.reading)

    def _label(self, volume: Volume) -> Array:
        for step in self.pipeline.preprocessing:
            STEPS[step["step"]](volume, **{name: value for name, value in step.items() if name != "step"})
        labels = self._label_classes(volume)
        for step in self.pipeline.postprocessing:
            if step["step"] == MAP_LABELS:
                labels = np.array(step["values"], dtype=smallest_dtype(max(step["values"])))[labels]
        return labels

    def _label_classes(self, volume: Volume) -> Array:
        """The classes of the preprocessed image on the grid of the file, ``(H, W[, D])``."""
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

    def _infer(self, volume: Volume, infer: Callable[..., Array]) -> Array:
        windows, axis = self.pipeline.windows, self.pipeline.slice_axis
        image = np.ascontiguousarray(volume.voxels, dtype=np.float32)
        if axis is not None and len(volume.shape) == 3 and self.pipeline.spatial_dims == 2:
            slices = np.moveaxis(image, axis + 1, 0)
            return np.stack([infer(part, windows, self._predict, self._most_voxels) for part in slices], axis=axis - 3)
        return infer(image, windows, self._predict, self._most_voxels)

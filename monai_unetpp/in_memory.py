"""Segmenting one image, from a file or in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import math
import os
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.data.utils import orientation_ras_lps, to_affine_nd
from monai.utils import MetaKeys, SpaceKeys
from nibabel.spatialimages import SpatialImage

from monai_unetpp.data import VolumeReader
from monai_unetpp.data.datasets.cases import expand_home
from monai_unetpp.data.formats.dicom import is_dicom_file
from monai_unetpp.data.formats.grid import check_invertible
from monai_unetpp.data.formats.nifti import nifti_class, open_nifti
from monai_unetpp.data.formats.pictures import read_picture
from monai_unetpp.data.formats.suffixes import is_nifti_name, is_picture_name
from monai_unetpp.files import atomic_path, scratch_folder
from monai_unetpp.reporting.html import embed_figure, html_paragraph, html_table
from monai_unetpp.reporting.numbers import decimal
from monai_unetpp.results import LabelVolume
from monai_unetpp.results.overlay import draw_overlay
from monai_unetpp.segmentation import SegmentedCase, segment_single
from monai_unetpp.segmentation_options import SegmentationOptions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Segmentation", "segment"]

#: Name in messages of an image without a file.
_NAME = "image"
#: Options about files, which are not kept.
_OF_FILES = ("output_dir", "mask", "dicom_seg", "skip_existing", "shard", "overwrite", "profile")
#: Options that choose among files.
_AMONG_FILES = ("suffix", "series", "list_key", "subjects", "subject_pattern")
#: Data types of NIfTI files that every program reads.
_STORED = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")


@dataclasses.dataclass(frozen=True, eq=False)
class Segmentation:
    """The segmentation of one image. Notebooks show it as a picture and a table.

    Attributes:
        array: label map ``(H, W[, D])`` on the grid of the image; axes are in the order of the file, as in nibabel and
            in SimpleITK's index. On that of a NIfTI file or an image of nibabel it keeps further axes of length 1.
        affine: ``(4, 4)``, from voxels to mm in RAS; the identity for pictures.
        labels: name of each value; empty if objects were numbered.
        volumes: value, name, voxels and millilitres of every label; empty if objects were numbered.
        image: the intensities ``(H, W[, D])``; of several channels the first.
        bundle: name of the bundle that was used.
        level: the level that was run.
        instances: number of objects, None unless they were numbered.
        warnings: what to know before using the result, one line each.
    """

    array: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]
    labels: dict[int, str]
    volumes: tuple[LabelVolume, ...]
    image: npt.NDArray[Any]
    bundle: str
    level: str
    instances: int | None = None
    warnings: tuple[str, ...] = ()
    _suffix: str = dataclasses.field(default=".nii.gz", repr=False)
    _content: bytes = dataclasses.field(default=b"", repr=False)

    def __repr__(self) -> str:
        found = ", ".join(f"{label.name}: {_size(label)}" for label in self.volumes)
        return f"Segmentation(shape={self.array.shape}, {self.bundle}, {self.level}, {found or self._objects()})"

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the label map on the grid of the image; NIfTI files also hold the names and colours of the labels.

        Args:
            path: the file to write: ``.nii`` or ``.nii.gz``; for a picture, a name with the suffix of its format.

        Returns:
            Its path.

        Raises:
            ValueError: wrong suffix.
            OSError: it cannot be written.
        """
        target = expand_home(path)
        is_nifti = self._suffix == ".nii.gz"
        name = target.name.lower()
        fits = name.endswith((".nii", ".nii.gz")) if is_nifti else target.suffix.lower().startswith(self._suffix)
        if not fits:
            kinds = ".nii or .nii.gz" if is_nifti else self._suffix
            raise ValueError(f"{target}: the name must end in {kinds}. Correct it.")
        packed = not is_nifti or target.suffix.lower() == ".gz"
        with atomic_path(target) as temporary:
            temporary.write_bytes(self._content if packed else gzip.decompress(self._content))
        return target

    def show(self) -> Figure:
        """Draw the labels over the image: for a volume, three planes through the middle of the labels.

        Raises:
            ImportError: matplotlib is not installed.
        """
        return draw_overlay(self.image, self.array.reshape(self.image.shape), self.affine, self.labels)

    def _repr_html_(self) -> str:
        rows = [(label.value, label.name, label.voxels, _size(label)) for label in self.volumes]
        parts = [html_paragraph(f"{self.bundle}, level {self.level}"), *map(html_paragraph, self.warnings)]
        with contextlib.suppress(ImportError):  # without matplotlib, only the table
            parts.append(embed_figure(self.show(), "the labels over the image"))
        parts.append(html_table(("label", "name", "voxels", "size"), rows) if rows else html_paragraph(self._objects()))
        return "".join(parts)

    def _objects(self) -> str:
        return f"{self.instances} objects"


def segment(
    image: str | PathLike[str] | SpatialImage | MetaTensor | Any,
    bundle: str | PathLike[str],
    level: str | int | None = None,
    device: str | None = None,
    **options: Any,
) -> Segmentation:
    """Segment one image with a bundle.

    For many files use :func:`monai_unetpp.segmentation.segment_files`, which loads the network once. In a program of
    ``torchrun``, every process segments its own image.

    Args:
        image: a path (an image file, or a folder with one image, such as a DICOM series or one file per channel), an
            image of nibabel or SimpleITK, or a ``MetaTensor`` ``(C, H, W[, D])`` with the channels of the network.
        bundle: name or folder of a bundle.
        level: such as ``"L2"`` or 2: build and run only the nodes that this level needs; by default the
            level that the bundle chooses.
        device: such as ``"cpu"`` or ``"cuda:0"``; by default a GPU if there is one.
        **options: further options of :class:`~monai_unetpp.segmentation_options.SegmentationOptions`, such as
            ``flips=[]``. Those about files, such as ``mask``, are refused, and for images in memory those that choose
            among files, such as ``series``.

    Raises:
        TypeError: unsupported kind of image, or an unknown option.
        ValueError: the image cannot be segmented, or there are several; or the bundle, level, device or an option is
            invalid.
        FileNotFoundError: no such bundle or file.

    Example:
        .. code-block:: python

            found = monai_unetpp.segment("T1.nii.gz", bundle="brain_tissue_mri_unetpp")
            found.volumes[0].ml, found.save("tissues.nii.gz")
    """
    refused = [name for name in _OF_FILES if options.pop(name, None)]
    if refused:
        raise ValueError(
            f"options must not include {', '.join(refused)}, as segment keeps no files. Leave them out, or use "
            "monai_unetpp.segmentation.segment_files or the command monai-unetpp segment."
        )
    choosing = [name for name in _AMONG_FILES if options.get(name) is not None]
    if choosing and not isinstance(image, (str, PathLike)):
        raise ValueError(f"options must not include {', '.join(choosing)} for an image in memory. Leave them out.")
    with scratch_folder() as folder:
        source = _file_of(image, folder / _NAME)
        chosen = SegmentationOptions(source, folder / "result", bundle, level=level, device=device, **options)
        summary, files, channels = segment_single(chosen)
        for failure in summary.failures:
            if isinstance(image, MetaTensor) and len(image) != channels:
                raise ValueError(
                    f"image must have the shape ({channels}, H, W[, D]) for this bundle, got {tuple(image.shape)}. "
                    "Put its channels first."
                )
            raise ValueError(failure.replace(str(source), _NAME) if source.is_relative_to(folder) else failure)
        described = {"labels": summary.labels, "bundle": summary.bundle, "level": summary.level}
        [case] = summary.cases
        if source.is_relative_to(folder):
            case = dataclasses.replace(case, warnings=tuple(each.replace(str(source), _NAME) for each in case.warnings))
        return _loaded(case, [Path(file) for file in files], **described)


def _loaded(case: SegmentedCase, files: Sequence[Path], **described: Any) -> Segmentation:
    """Read the written result of a case, and its image, into memory."""
    output = Path(case.output)
    if is_picture_name(output):
        array, affine = read_picture(output, labels=True), np.eye(4)
    else:
        result = nibabel.load(output)
        array, affine = np.asarray(result.dataobj), np.asarray(result.affine)  # type: ignore[attr-defined]
    return Segmentation(
        array,
        affine,
        volumes=case.volumes,
        image=_intensities(files, array.shape),
        instances=case.instances,
        warnings=case.warnings,
        _suffix=".nii.gz" if output.name.endswith(".nii.gz") else output.suffix,
        _content=output.read_bytes(),
        **described,
    )


def _intensities(files: Sequence[Path], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Read an image, of several channels the first; ``shape`` is that of its label map."""
    is_series = all(not is_nifti_name(file) and is_dicom_file(file) for file in files)
    channels = math.prod(open_nifti(files[0]).shape) // math.prod(shape) if is_nifti_name(files[0]) else 1
    allowed = (2, 3) if channels == 1 else len(shape)
    reader = VolumeReader(allowed, allow_constant=True, fill_nonfinite=0, channels=channels)
    array, _ = reader.get_data(reader.read(files if is_series else files[:1]))
    return array if channels == 1 else array[0]


def _file_of(image: Any, path: Path) -> Path:
    """The file of an image; one in memory is written to ``path`` with a suffix."""
    if isinstance(image, (str, PathLike)):
        return Path(os.path.abspath(expand_home(fspath(image))))
    if isinstance(image, MetaTensor):
        return _saved_nifti(*_of_tensor(image), path)
    if isinstance(image, SpatialImage):
        return _saved_nifti(*_of_nibabel(image), path, image)
    if type(image).__module__.startswith("SimpleITK"):
        import SimpleITK

        target = path.with_suffix(".mha")
        plain = SimpleITK.Image(image)
        plain.MakeUnique()  # erasing alone would erase the caller's keys
        for key in plain.GetMetaDataKeys():  # ITK warns about metadata of other formats
            plain.EraseMetaData(key)
        SimpleITK.WriteImage(plain, str(target))
        return target
    raise TypeError(
        f"image must be a path, an image of nibabel or SimpleITK, or a MetaTensor, got {type(image).__name__}. "
        "Give an array with its affine as nibabel.Nifti1Image(array, affine)."
    )


def _of_nibabel(image: SpatialImage) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    array = np.asanyarray(image.dataobj)
    if isinstance(image, nibabel.AnalyzeImage) and not isinstance(image, nibabel.Nifti1Pair):
        raise ValueError("image must have a known orientation, got an Analyze image. Convert it to NIfTI.")
    affine = image.affine
    if affine is None:
        affine = image.header.get_best_affine()
    return array, np.asarray(affine)


def _of_tensor(image: MetaTensor) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    if image.ndim not in (3, 4):
        raise ValueError(
            f"image must have the shape (C, H, W) or (C, H, W, D), got {tuple(image.shape)}. Put its channels first."
        )
    affine = to_affine_nd(3, np.asarray(image.affine.cpu(), dtype=np.float64))
    if image.meta.get(MetaKeys.SPACE) == SpaceKeys.LPS:
        affine = orientation_ras_lps(affine)
    tensor = image.detach().cpu()
    array = np.asarray(tensor.float() if tensor.dtype == torch.bfloat16 else tensor)  # unknown to numpy
    if len(array) == 1:
        return array[0], np.asarray(affine)
    # NIfTI has channels on its fourth axis
    return np.moveaxis(array.reshape((*array.shape, 1)[:4]), 0, -1), np.asarray(affine)


def _saved_nifti(
    array: npt.NDArray[Any], affine: npt.NDArray[Any], path: Path, image: SpatialImage | None = None
) -> Path:
    """Write ``array`` unscaled and uncompressed, with the header of ``image`` if that is NIfTI."""
    check_invertible(affine, _NAME)  # nibabel would raise an error of its own
    if array.dtype.kind not in "biuf":
        raise ValueError(f"image must have numbers as voxels, got {array.dtype}. Give one channel of real numbers.")
    if array.dtype.name not in _STORED:
        array = array.astype(np.float64)
    image_class = nibabel.Nifti2Image if isinstance(image, nibabel.Nifti2Image) else nifti_class(array.shape)
    header = image.header.copy() if isinstance(image, nibabel.Nifti1Image) else None
    if header is not None:
        header.set_data_dtype(array.dtype)
        header.set_slope_inter(1, 0)
    target = path.with_suffix(".nii")
    nibabel.save(image_class(array, affine, header), target)
    return target


def _size(label: LabelVolume) -> str:
    return f"{label.voxels:,} pixels" if label.ml is None else f"{decimal(label.ml, 3)} ml"

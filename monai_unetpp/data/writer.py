"""Write label maps and other volumes on the grid of their image."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import SaveImaged
from monai.utils import ImageMetaKey, MetaKeys

from monai_unetpp.data.formats.grid import ImageGeometry, compare_geometry, transform_affine
from monai_unetpp.data.formats.label_table import label_table_extension
from monai_unetpp.data.formats.naming import RESULT_NAME, case_name
from monai_unetpp.data.formats.nifti import on_affine, on_nifti_grid, smallest_dtype
from monai_unetpp.data.formats.nifti_marks import hash_voxels, nifti_mark
from monai_unetpp.data.formats.pictures import picture_mark, read_picture_shape, write_picture
from monai_unetpp.data.formats.result_marks import identify_image, is_result, read_identity
from monai_unetpp.data.formats.source_files import check_unchanged, source_files
from monai_unetpp.data.formats.suffixes import is_nifti_name, is_picture_name, result_suffix
from monai_unetpp.data.transforms.instances import INSTANCE_COUNT
from monai_unetpp.files import atomic_path

_DESCRIPTION = re.compile(r"_desc-[^_/]+")


class SegmentationSaveImaged(SaveImaged):
    """Write each label map as ``<output_dir>/<case>_<postfix>.nii.gz`` on the grid of its input.

    For PNG and JPEG it is ``<case>_<postfix>.png`` and for TIFF ``<case>_<postfix>.tif``, with the labels as grey
    values and the orientation, resolution, pixel size and units of the input, so that viewers show both alike.

    The header of a NIfTI input is copied: shape, sform and qform with their codes, voxel sizes and units. For other
    inputs the affine is written as sform and qform with code 1, in mm; a sheared one as sform alone, because a qform
    cannot hold shear. The file is written whole or not at all and carries a mark with hashes of its input's path and
    content. It replaces an earlier result of the same image, but not of another image, unless ``overwrite`` is set, and
    never a file of another program. The class is a ``SaveImaged``, so hosts that save results themselves remove it from
    a configuration.

    Args:
        keys: label maps ``(1, H, W[, D])`` on the input's own grid, so after ``AsDiscreted`` and ``Invertd``. They
            must be ``MetaTensor`` with the path of their input.
        output_dir: folder to write to; created if missing.
        output_postfix: end of the file name.
        case_key: key of the case's name, as from :func:`monai_unetpp.data.find_cases`. The file is named by the item's
            ``result_name``, else by the case, else by its input file.
        allow_missing_keys: whether items without a key are skipped.
        overwrite: whether the result of another image may be replaced.
        labels: name of each value, stored in NIfTI files with colours, or a function that returns them when a file is
            written; numbered objects have none.

    The path of the written file is kept in the metadata as ``saved_to``. Labels are stored as the smallest of uint8,
    uint16 and int32 that holds them.

    Example:
        .. code-block:: json

            {"_target_": "monai_unetpp.data.SegmentationSaveImaged", "keys": "pred", "output_dir": "@output_dir"}
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | PathLike[str] = "./",
        output_postfix: str = "seg",
        case_key: str = "case",
        allow_missing_keys: bool = False,
        overwrite: bool = False,
        labels: Mapping[int, str] | Callable[[], Mapping[int, str]] | None = None,
    ) -> None:
        super().__init__(
            keys,
            output_dir=Path(output_dir),
            output_postfix=output_postfix,
            separate_folder=False,
            allow_missing_keys=allow_missing_keys,
        )
        self.output_dir = Path(output_dir)
        self.output_postfix = output_postfix
        self.case_key = case_key
        self.overwrite = overwrite
        self.labels = labels or {}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the label maps of one item.

        Raises:
            TypeError: a label map has no metadata.
            ValueError: it has not one channel of labels, or is not on the input's grid.
            FileExistsError: see :meth:`check_result`.
            ImageFileError: the image was changed since it was read.
            OSError: the file cannot be written.
        """
        d = dict(data)
        for key in self.key_iterator(d):
            if not isinstance(d[key], MetaTensor) or ImageMetaKey.FILENAME_OR_OBJ not in d[key].meta:
                raise TypeError(
                    f"{key} must be a MetaTensor that names its input, got {type(d[key]).__name__}. "
                    "Load the image with LoadImaged and use Invertd first."
                )
            metadata = d[key].meta
            files = source_files(metadata)
            source = files[0]
            labels = _labels(d[key], key)
            original_affine = np.asarray(metadata[MetaKeys.ORIGINAL_AFFINE], dtype=np.float64)
            grid = ImageGeometry(labels.shape, transform_affine(original_affine, labels.ndim))
            difference = compare_geometry(grid, ImageGeometry(labels.shape, np.asarray(d[key].affine)))
            if difference is not None:
                raise ValueError(f"{key} must be on the grid of {source}: {difference}. Use Invertd first.")
            check_unchanged(metadata)
            path = self.check_result(files, d)
            if is_picture_name(path):
                if labels.shape != (shape := read_picture_shape(Path(source))):
                    raise ValueError(
                        f"{key} must have the shape of {source}, {shape}, got {labels.shape}. Use Invertd first."
                    )
                write_picture(path, labels, source, picture_mark(identify_image(*files), hash_voxels(labels)))
            else:
                names = {} if INSTANCE_COUNT in metadata else self._names()
                write_volume(path, labels, source, original_affine, names, files)
            metadata[MetaKeys.SAVED_TO] = str(path)
        return d

    def _names(self) -> dict[int, str]:
        names = self.labels() if callable(self.labels) else self.labels
        return {int(value): name for value, name in names.items()}

    def result_path(self, source: str, item: Mapping[Any, Any]) -> Path:
        """The path of an image's result; ``item`` has the case's own keys, such as ``case``.

        A postfix ``desc-...``, as in BIDS, replaces this entity in the name, which may have only one.
        """
        name = item.get(RESULT_NAME) or item.get(self.case_key) or case_name(source)
        if self.output_postfix.startswith("desc-"):
            name = _DESCRIPTION.sub("", name)
        return self.output_dir / f"{name}_{self.output_postfix}{result_suffix(source)}"

    def check_result(self, source: str | Sequence[str], item: Mapping[Any, Any]) -> Path:
        """Check that the result of an image may be written, before the network runs.

        Args:
            source: the image, or all its files.
            item: the case's own keys, such as ``case``.

        Returns:
            The path of the file to write.

        Raises:
            FileExistsError: the file exists and was not written by this package, or is the result of another image.
            OSError: the name is too long.
        """
        files = [source] if isinstance(source, str) else source
        path = self.result_path(files[0], item)
        try:
            path.lstat()
        except OSError as e:
            if e.errno != errno.ENAMETOOLONG:
                return path
            raise OSError(
                f"{files[0]}: the name of its result would be too long for the file system. Rename it."
            ) from e
        if not is_result(path):
            raise FileExistsError(
                f"{files[0]}: its result {path} exists and was not written by monai-unetpp. Move it away, or name "
                "another output folder."
            )
        before = read_identity(path)
        if not self.overwrite and (before is None or not before.is_same(identify_image(*files))):
            of_which = "does not name its image" if before is None else "is of another image"
            raise FileExistsError(
                f"{files[0]}: its result would replace {path}, which {of_which}. Name another output folder, or "
                "replace it with --overwrite (overwrite=True)."
            )
        return path


def write_volume(
    path: str | PathLike[str],
    array: np.ndarray[Any, Any],
    source: str | PathLike[str],
    affine: np.ndarray[Any, Any],
    labels: Mapping[int, str] | None = None,
    files: Sequence[str | PathLike[str]] = (),
) -> None:
    """Write ``array`` as NIfTI on the grid of ``source``, whole or not at all.

    Args:
        path: the file to write, ``.nii`` or ``.nii.gz``.
        array: ``(H, W[, D])``, of the type to store.
        source: the image that ``array`` belongs to. If it is NIfTI, its header is copied without extensions and fields
            that describe values; channels on its last axis are ignored.
        affine: ``(4, 4)``, in RAS and mm: the grid of a ``source`` that is not NIfTI.
        labels: name of each value of a label map, stored in the file with colours.
        files: all files of the image, if ``source`` is the first of several.

    Raises:
        ImageFileError: ``source`` can no longer be read.
        ValueError: ``array`` has another shape than ``source``.
        OSError: the file cannot be written.
    """
    image = on_nifti_grid(array, Path(source)) if is_nifti_name(source) else on_affine(array, affine)
    voxels = hash_voxels(array) if array.dtype.kind in "iu" else None
    image.header["descrip"] = nifti_mark(identify_image(*(files or [source])), voxels)
    if labels:
        image.header.extensions.append(label_table_extension(labels))
    with atomic_path(path) as temporary:
        nibabel.save(image, temporary)


def _labels(label_map: MetaTensor, key: Hashable) -> np.ndarray[Any, Any]:
    if label_map.shape[0] != 1:
        raise ValueError(
            f"{key} must have one channel of labels, got shape {tuple(label_map.shape)}. "
            "Use AsDiscreted with argmax first."
        )
    values = label_map.detach().cpu().numpy()[0]
    least, greatest = values.min(), values.max()
    if least < 0 or (values.dtype.kind == "f" and not np.array_equal(values, np.rint(values))):
        raise ValueError(
            f"{key} must hold labels 0, 1, 2, ..., got values from {least} to {greatest}. "
            "Use AsDiscreted first, and invert with nearest_interp."
        )
    return np.asarray(values, dtype=smallest_dtype(int(greatest)))

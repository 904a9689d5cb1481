"""Opening DICOM series and other ITK formats with errors that name the file and the remedy."""

from __future__ import annotations

import locale
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import itk
import numpy as np
import SimpleITK
from monai.data import ITKReader
from monai.data.utils import orientation_ras_lps

from monai_unetpp.data.errors import ImageFileError
from monai_unetpp.data.grid import check_grid
from monai_unetpp.data.text_headers import check_text_header

__all__ = [
    "ITK_SUFFIXES",
    "dicom_files",
    "is_dicom_file",
    "is_itk_name",
    "open_itk_file",
    "read_dicom",
    "read_itk_file",
    "read_itk_header",
]

logger = logging.getLogger(__name__)

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")

_PREAMBLE_LENGTH = 128
_LARGEST_NONUNIFORMITY = 0.1


def is_itk_name(path: str | Path) -> bool:
    """Whether the name of ``path`` ends as one of the other formats does that are read through ITK."""
    return Path(path).name.lower().endswith(ITK_SUFFIXES)


def is_dicom_file(path: str | Path) -> bool:
    """Whether ``path`` is a DICOM file, by its content or its suffix; an index (``DICOMDIR``) is none."""
    path = Path(path)
    if not path.is_file() or path.name.upper() == "DICOMDIR":
        return False
    if path.suffix.lower() == ".dcm":
        return True
    with path.open("rb") as file:
        return file.read(_PREAMBLE_LENGTH + 4)[_PREAMBLE_LENGTH:] == b"DICM"


def dicom_files(folder: str | Path) -> Iterator[Path]:
    """The DICOM files of ``folder``, sorted by name, without those of its subfolders."""
    return (path for path in sorted(Path(folder).iterdir()) if not path.name.startswith(".") and is_dicom_file(path))


def read_dicom(paths: Sequence[Path]) -> tuple[Any, dict[str, Any]]:
    """Read one DICOM series.

    Args:
        paths: one folder with one series, or files of one series in one folder.

    Returns:
        Array and metadata as MONAI's ``ITKReader`` gives them, with a RAS affine.

    Raises:
        ImageFileError: no series or several, files that cannot be read, or slices that are missing.
    """
    given = paths[0]
    folder = given if given.is_dir() else given.parent
    files = list(dicom_files(folder)) if given.is_dir() else list(paths)
    if not files:
        raise ImageFileError(f"{folder}: holds no DICOM files. Name a folder with one DICOM series in it.")
    if any(file.parent != folder for file in files):
        raise ImageFileError(f"{given}: files of several folders were given. Put the series into one folder.")
    image = _read(_sorted_series(given, folder, files), given)
    _check_slices(image, given)
    _check_components(image.GetNumberOfComponentsPerPixel(), given)
    array, metadata = ITKReader().get_data(image)
    return array, metadata


def read_itk_header(path: Path) -> tuple[tuple[int, ...], np.ndarray[Any, Any]]:
    """Shape and affine ``(4, 4)`` in RAS of one image file, without its voxels.

    Raises:
        ImageFileError: the file is missing, empty, damaged, of no known format, has several numbers per voxel, or
            a grid that cannot be.
    """
    reader = open_itk_file(path)
    _check_components(reader.GetNumberOfComponents(), path)
    dims = min(reader.GetDimension(), 3)
    direction = np.asarray(reader.GetDirection()).reshape(reader.GetDimension(), -1)[:dims, :dims]
    affine = np.eye(4)
    affine[:dims, :dims] = direction * np.asarray(reader.GetSpacing())[:dims]
    affine[:dims, 3] = reader.GetOrigin()[:dims]
    affine = orientation_ras_lps(affine)
    check_grid(reader.GetSize(), affine, path)
    return tuple(reader.GetSize()), affine


def read_itk_file(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Voxels and affine ``(4, 4)`` in RAS of one image file.

    SimpleITK reads pixel types that the wrapping of ITK leaves out.

    Raises:
        ImageFileError: see :func:`read_itk_header`.
    """
    _, affine = read_itk_header(path)
    try:
        image = open_itk_file(path).Execute()
    except RuntimeError as e:
        raise ImageFileError(_damaged(path)) from e
    return SimpleITK.GetArrayFromImage(image).T, affine


def open_itk_file(path: Path) -> SimpleITK.ImageFileReader:
    """A reader of one image file that has read its header.

    Raises:
        ImageFileError: the file is missing, empty, damaged or of no known format.
    """
    if not path.is_file():
        raise ImageFileError(f"{path}: no such file. Check the path.")
    if path.stat().st_size == 0:
        raise ImageFileError(f"{path}: empty, it has 0 bytes. Export or copy it again.")
    check_text_header(path)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as e:
        raise ImageFileError(_damaged(path)) from e
    return reader


def _sorted_series(given: Path, folder: Path, files: Sequence[Path]) -> list[str]:
    # The same generator and the same settings as in MONAI's ITKReader, which takes the first of several series.
    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(True)
    names.AddSeriesRestriction("0008|0021")
    with _contained_itk():
        names.SetDirectory(str(folder))
        series = [list(names.GetFileNames(uid)) for uid in names.GetSeriesUIDs()]
    wanted = {file.resolve() for file in files}
    series = [found for names in series if (found := [name for name in names if Path(name).resolve() in wanted])]
    unreadable = wanted.difference(Path(name).resolve() for names in series for name in names)
    if unreadable:
        example = min(unreadable).name
        raise ImageFileError(
            f"{given}: {len(unreadable)} of {len(wanted)} DICOM files cannot be read, such as {example}. "
            "Export the series again."
        )
    if len(series) > 1:
        raise ImageFileError(
            f"{given}: holds {len(series)} DICOM series, of {', '.join(str(len(names)) for names in series)} files. "
            "Put each series into a folder of its own."
        )
    return series[0]


def _read(names: Sequence[str], given: Path) -> Any:
    try:
        with _contained_itk():
            return itk.imread(names[0] if len(names) == 1 else list(names))
    except (RuntimeError, TypeError, KeyError, OSError) as e:  # TypeError, KeyError: pixel types that ITK does not wrap
        logger.debug("%s", given, exc_info=True)
        raise ImageFileError(_damaged(given)) from e


def _check_slices(image: Any, given: Path) -> None:
    metadata = image.GetMetaDataDictionary()
    key = "ITK_non_uniform_sampling_deviation"
    if not metadata.HasKey(key):
        return
    deviation, spacing = float(metadata[key]), float(image.GetSpacing()[2])
    if deviation > _LARGEST_NONUNIFORMITY * spacing:
        raise ImageFileError(
            f"{given}: its slices are not evenly spaced, off by up to {deviation:.3g} mm; some may be missing. "
            "Export the whole series again."
        )


def _check_components(components: int, given: Path) -> None:
    if components > 1:
        raise ImageFileError(
            f"{given}: holds {components} numbers per voxel, but one is needed. Convert it to grey values."
        )


def _damaged(given: Path) -> str:
    return f"{given}: damaged, or not an image of the kind that its name says. Export or copy it again."


@contextmanager
def _contained_itk() -> Iterator[None]:
    # What ITK would print to the terminal is turned into errors here. And its DICOM code leaves the locale "C" behind,
    # after which Python takes text files of the whole process for ASCII.
    warnings_shown, language = itk.Object.GetGlobalWarningDisplay(), locale.setlocale(locale.LC_ALL)
    itk.Object.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        itk.Object.SetGlobalWarningDisplay(warnings_shown)
        locale.setlocale(locale.LC_ALL, language)

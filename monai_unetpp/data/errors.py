"""Trouble with image files, told in one line."""

from __future__ import annotations

from os import PathLike

__all__ = ["ImageFileError", "damaged_file", "describe_failure"]


class ImageFileError(ValueError):
    """An image file cannot be used.

    The message is one line: the path, what is wrong, and what to do.
    """


def damaged_file(path: str | PathLike[str]) -> ImageFileError:
    """The error for a picture whose bytes cannot be decoded."""
    return ImageFileError(f"{path}: damaged or cut off. Export or copy it again.")


def describe_failure(error: BaseException) -> str:
    """What went wrong, in one line.

    MONAI wraps errors of transforms in others that only name the transform: these are passed over. Any other error
    that was raised from another speaks for itself.

    Args:
        error: any exception.

    Returns:
        The message of an :class:`ImageFileError` as it is, of any other exception its type and first line.
    """
    while error.__cause__ is not None and _only_names_transform(error):
        error = error.__cause__
    lines = str(error).strip().splitlines()
    if isinstance(error, ImageFileError):
        return lines[0]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _only_names_transform(error: BaseException) -> bool:
    return type(error) is RuntimeError and str(error).startswith("applying transform")

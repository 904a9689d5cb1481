"""Find the inputs and the output folder of a run from the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from os import PathLike, fspath
from os.path import normcase
from pathlib import Path
from typing import Any

from monai_unetpp.data.datasets.cases import expand_home
from monai_unetpp.data.datasets.forms import is_data_set
from monai_unetpp.data.formats.naming import RESULT_NAME, first_file
from monai_unetpp.data.writer import SegmentationSaveImaged
from monai_unetpp.results.bids import default_bids_output, find_bids_images, is_bids
from monai_unetpp.results.earlier import EarlierResults

_SUFFIX = "T1w"
#: BIDS names of label maps, and of masks.
_LABEL_MAP, _POSTFIXES = "dseg", {"mask": "desc-brain_mask"}


@dataclasses.dataclass(frozen=True)
class RunInputs:
    """The images of a run.

    Attributes:
        paths: files and folders, for :func:`monai_unetpp.data.find_cases`.
        output_dir: folder for the results.
        bids: the BIDS data set of the images, if any.
        images: its images, see :func:`.find_bids_images`.
    """

    paths: list[str]
    output_dir: Path
    bids: Path | None = None
    images: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def find(
        cls,
        paths: Sequence[str],
        output_dir: str | PathLike[str] | None,
        suffix: str | None = None,
        list_key: str | None = None,
    ) -> RunInputs:
        """Look into ``paths`` for a BIDS data set.

        Args:
            paths: files and folders.
            output_dir: folder for the results; None for BIDS data sets only.
            suffix: BIDS suffix of the images; None stands for ``"T1w"``.
            list_key: list of a data set; one that is a BIDS data set too is then read by its lists.

        Raises:
            ValueError: a BIDS data set is not the only input, or has no such images; other inputs have a ``suffix`` or
                no ``output_dir``.
        """
        folders = (path for path in map(expand_home, paths) if is_bids(path))
        folder = next((path for path in folders if list_key is None or not is_data_set(path)), None)
        if folder is not None:
            if len(paths) > 1:
                raise ValueError(f"{folder}: a BIDS data set must be the only input, got {len(paths)}. Name it alone.")
            found = find_bids_images(folder, suffix or _SUFFIX)
            output = default_bids_output(folder) if output_dir is None else expand_home(output_dir)
            return cls(list(found), output, folder, found)
        if suffix is not None:
            raise ValueError(f"suffix must be left out, got {suffix!r}: {paths[0]} is not a BIDS data set.")
        if output_dir is None:
            raise ValueError(
                "output_dir must name the folder for the results, got none. Name it with -o; only BIDS data sets have "
                "a default."
            )
        return cls(list(paths), expand_home(output_dir))

    def name_results(self, items: Sequence[dict[str, Any]], savers: Sequence[SegmentationSaveImaged]) -> None:
        """Give the results of a BIDS data set names and folders according to BIDS.

        Args:
            items: the cases, changed in place.
            savers: the savers of their results, likewise.
        """
        if self.bids is None:
            return
        for item in items:
            result = self.images.get(fspath(item["image"])) if isinstance(item["image"], (str, PathLike)) else None
            if result is not None:
                item["case"], item[RESULT_NAME] = result.rpartition("/")[2], result
        _refuse_shared(
            items,
            lambda image, item: item["case"],
            "its row in volumes.csv would be that of",
            "Name both with their subject and session, such as sub-01_ses-1_T1w.nii.gz.",
        )
        for number, saver in enumerate(savers):
            saver.output_postfix = _POSTFIXES.get(saver.output_postfix, saver.output_postfix) if number else _LABEL_MAP
            if number:  # the postfix of a mask replaces what tells the images apart
                reason = "its mask would overwrite that of"
                _refuse_shared(items, saver.result_path, reason, "Leave out the mask, or move one of the two away.")


def _refuse_shared(
    items: Sequence[dict[str, Any]], name: Callable[[str, dict[str, Any]], str | Path], reason: str, remedy: str
) -> None:
    """Mark the cases whose results have the name of those of an earlier one."""
    first_of: dict[str, str] = {}
    for item in items:
        image = first_file(item)
        first = first_of.setdefault(normcase(name(image, item)), image)
        if first != image:
            item.setdefault("failure", f"{image}: {reason} {first}. {remedy}")


def leave_out_finished(
    items: list[dict[str, Any]],
    saver: SegmentationSaveImaged,
    earlier: EarlierResults,
    beside: Sequence[Callable[[str, dict[str, Any]], Path]] = (),
) -> list[tuple[dict[str, Any], Path]]:
    """Remove the cases from ``items`` whose results exist.

    Args:
        items: the cases, changed in place.
        saver: the saver of their results.
        earlier: results of earlier runs.
        beside: other files that must exist and be no older than the results, by image and case.

    Returns:
        Each removed case and its result.
    """
    left_out, staying = [], []
    for item in items:
        image = first_file(item)
        output = saver.result_path(image, item)
        # a label map that was corrected is newer than what lies beside it, and is kept
        complete = all(_is_of(output, path(image, item)) for path in beside) or earlier.is_changed(output)
        if "failure" not in item and complete and earlier.has(item["image"], output):
            left_out.append((item, output))
        else:
            staying.append(item)
    items[:] = staying
    return left_out


def outdated_beside(output: Path, beside: Iterable[Path]) -> list[Path]:
    """The files beside a result that are of the labels that it had before it was changed."""
    return [path for path in beside if path.is_file() and not _is_of(output, path)]


def _is_of(output: Path, beside: Path) -> bool:
    """Whether a file beside a result exists and was written after it: an older one is of an earlier result."""
    try:
        return beside.stat().st_mtime_ns >= output.stat().st_mtime_ns
    except OSError:
        return False

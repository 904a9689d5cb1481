"""What a run segments and where the results belong, by what is named on the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from monai_unetpp.data.cases import expand_home
from monai_unetpp.data.naming import RESULT_NAME
from monai_unetpp.data.writer import SegmentationSaveImaged
from monai_unetpp.results.bids import BidsImage, default_bids_output, find_bids_images, is_bids
from monai_unetpp.results.earlier import EarlierResults

__all__ = ["RunInputs", "leave_out_finished"]

_SUFFIX = "T1w"
#: What BIDS calls label maps and masks.
_POSTFIXES = {"seg": "dseg", "mask": "desc-brain_mask"}


@dataclasses.dataclass(frozen=True)
class RunInputs:
    """The images of a run.

    Attributes:
        paths: files and folders, for :func:`monai_unetpp.data.find_cases`.
        output_dir: where the results belong.
        bids: the BIDS data set that the images are from; None for others.
        images: its images by their path.
    """

    paths: list[str]
    output_dir: Path
    bids: Path | None = None
    images: dict[str, BidsImage] = dataclasses.field(default_factory=dict)

    @classmethod
    def find(cls, paths: Sequence[str], output_dir: str | PathLike[str] | None, suffix: str | None = None) -> RunInputs:
        """Look into ``paths`` for a BIDS data set.

        Args:
            paths: what was named.
            output_dir: where the results belong; None is for BIDS data sets only.
            suffix: of the images of such a data set; None stands for ``"T1w"``.

        Raises:
            ValueError: a BIDS data set among others, or without such images; ``suffix`` or no ``output_dir`` for
                others.
        """
        folder = next((path for path in map(expand_home, paths) if is_bids(path)), None)
        if folder is not None:
            if len(paths) > 1:
                raise ValueError(f"{folder}: a BIDS data set must be the only input, got {len(paths)}. Name it alone.")
            found = {str(image.path): image for image in find_bids_images(folder, suffix or _SUFFIX)}
            output = default_bids_output(folder) if output_dir is None else expand_home(output_dir)
            return cls(list(found), output, folder, found)
        if suffix is not None:
            raise ValueError(f"suffix must be left out, got {suffix!r}: {paths[0]} is no BIDS data set.")
        if output_dir is None:
            raise ValueError(
                "output_dir must name the folder for the results, got none. Name it with -o; a BIDS data set alone has "
                "one of its own."
            )
        return cls(list(paths), expand_home(output_dir))

    def name_results(self, items: Sequence[dict[str, Any]], savers: Sequence[SegmentationSaveImaged]) -> None:
        """Let the results of a BIDS data set have the names and folders that BIDS wants.

        Args:
            items: the cases, which are changed.
            savers: what writes their results, likewise.
        """
        if self.bids is None:
            return
        for item in items:
            image = self.images.get(fspath(item["image"])) if isinstance(item["image"], (str, PathLike)) else None
            if image is not None:
                item["case"], item[RESULT_NAME] = image.case, image.result
        for saver in savers:
            saver.output_postfix = _POSTFIXES[saver.output_postfix]


def leave_out_finished(
    items: list[dict[str, Any]],
    saver: SegmentationSaveImaged,
    earlier: EarlierResults,
    beside: Sequence[Callable[[str, dict[str, Any]], Path]] = (),
) -> list[tuple[str, str, Path]]:
    """Take those cases out of ``items`` whose results are there already.

    Args:
        items: the cases, which are changed.
        saver: what writes their results.
        earlier: what earlier runs made.
        beside: further files that must be there, by image and case.

    Returns:
        Name, image and result of each.
    """
    left_out = []
    for item in list(items):
        image = item["image"][0] if isinstance(item["image"], (list, tuple)) else item["image"]
        output = saver.result_path(image, item)
        complete = all(path(image, item).exists() for path in beside)
        if "failure" not in item and complete and earlier.has(image, output):
            left_out.append((item["case"], str(image), output))
            items.remove(item)
    return left_out

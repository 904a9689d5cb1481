"""How one bundle works within another, from its metadata."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.bundles import read_metadata
from monai_unetpp.bundles.json_files import METADATA_FILE
from monai_unetpp.bundles.loading import label_values, read_brain_mask


@dataclasses.dataclass(frozen=True)
class CropRule:
    """One region to segment.

    Attributes:
        name: such as ``"left"``.
        values: labels of the first bundle around which the image is cropped.
        mirrored: whether the second bundle gets the left-right mirror image, because it was trained on one side only.
    """

    name: str
    values: tuple[int, ...]
    mirrored: bool


@dataclasses.dataclass(frozen=True)
class Pair:
    """A bundle within another.

    Attributes:
        crops: the regions to segment.
        margin_mm: margin of a crop around the labels, on each side.
        mask: labels of the first bundle outside which the image is set to background; empty for no masking.
        labels: the labels that the second bundle finds, name by value.
    """

    crops: tuple[CropRule, ...]
    margin_mm: float
    mask: tuple[int, ...]
    labels: dict[int, str]

    @property
    def names(self) -> dict[int, str]:
        """The labels in the label maps; with several crops, each has its own values and its name as prefix."""
        if len(self.crops) == 1:
            return dict(self.labels)
        return {
            self.value(number, value): f"{crop.name} {name}"
            for number, crop in enumerate(self.crops)
            for value, name in self.labels.items()
        }

    def value(self, number: int, value: int) -> int:
        """The value in the label map of a label in crop ``number``."""
        return value + number * max(self.labels)


def read_pair(
    bundle: str | PathLike[str],
    labels: Mapping[int, str],
    within: str | PathLike[str],
    within_labels: Mapping[int, str],
) -> Pair:
    """Read how ``bundle`` works within ``within``, from the entry ``within`` of its metadata.

    The entry maps names of bundles to the content of a :class:`Pair`; a single one is used for bundles of any name,
    such as pruned copies:

    .. code-block:: json

        {"within": {"head_mri_unetpp": {
            "margin_mm": 6,
            "masked": false,
            "crops": {
                "left": {"labels": ["left hippocampus"]},
                "right": {"labels": ["right hippocampus"], "mirrored": true}
            }
        }}}

    A crop without ``labels`` is around the brain mask of ``within``; ``masked`` sets everything outside to background.

    Args:
        bundle: the folder of the second bundle.
        labels: its labels, name by value.
        within: the folder of the first bundle.
        within_labels: its labels, name by value.

    Raises:
        ValueError: the entry is missing or invalid, or the first bundle lacks the labels.
    """
    path, name = Path(bundle) / METADATA_FILE, Path(within).name
    pairs = read_metadata(bundle).get("within", {})
    content = _read_entry(path, pairs, name)
    try:
        margin_mm, masked = float(content.get("margin_mm", 0)), bool(content.get("masked", False))
        crops = {str(key): dict(crop) for key, crop in content["crops"].items()}
        if not crops or not 0 <= margin_mm < float("inf"):
            raise ValueError("no crops, or a margin below 0")
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise ValueError(f"{path}: within {name!r} is invalid ({type(e).__name__}: {e}). Correct it.") from e

    if name not in pairs and (lacking := _lacking(crops.values(), masked, within, within_labels)):
        [known] = pairs
        fits = f"works within {known}, not within {name}, which has no {lacking}. Name {known} or a copy of it."
        raise ValueError(f"{Path(bundle).name} {fits}")

    def values(crop: str, listed: Any) -> tuple[int, ...]:
        if listed is None:
            return read_brain_mask(within, within_labels)
        return label_values(path, f"crop {crop!r} within {name}", listed, within_labels)

    rules = [
        CropRule(key, values(key, crop.get("labels")), bool(crop.get("mirrored", False))) for key, crop in crops.items()
    ]
    return Pair(tuple(rules), margin_mm, read_brain_mask(within, within_labels) if masked else (), dict(labels))


def _read_entry(path: Path, pairs: Any, name: str) -> Any:
    """The entry of ``within`` for the bundle ``name``, or the only one."""
    if not isinstance(pairs, dict) or not pairs:
        bundle = path.parent.parent.name
        raise ValueError(
            f"{path}: has no entry 'within', so {bundle} works within no other bundle. Leave --within out, or add the "
            "entry."
        )
    if name not in pairs and len(pairs) > 1:
        raise ValueError(f"{path}: within must name {name}, got {', '.join(map(str, pairs))}. Use one of these.")
    return pairs.get(name, next(iter(pairs.values())))


def _lacking(
    crops: Iterable[Mapping[str, Any]], masked: bool, within: str | PathLike[str], labels: Mapping[int, str]
) -> str | None:
    """What crops need and the bundle ``within`` with its ``labels`` does not have; None if that is nothing."""
    listed = [crop.get("labels") for crop in crops]
    if (masked or None in listed) and "brain_mask" not in read_metadata(within):
        return "brain mask"
    needed = (label for each in listed if isinstance(each, list) for label in each)
    return next((f"label {label!r}" for label in needed if label not in labels.values()), None)

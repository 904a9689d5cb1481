"""What all runs of a study share: the settings, and the guard against mixing different ones in one folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from monai_unetpp.devices import resolve_precision
from monai_unetpp.files import write_text

__all__ = [
    "SETTINGS_FILE",
    "StudySettings",
    "claim_folder",
    "compare_folder",
    "read_config",
    "read_stored",
    "settings_hash",
]

SETTINGS_FILE = "settings.json"
"""Name of the file in the output folder that holds what its runs share."""

_PRECISIONS = ("auto", "fp32", "bf16")

#: What depends on the number of axes: by 2 and 3.
_PATCH_SIZE = {2: 128, 3: 64}
_BATCH_SIZE = {2: 8, 3: 2}
_FLIP_AXES: dict[int, tuple[int, ...]] = {2: (0, 1), 3: (0,)}


class _Cases(Protocol):
    def as_dict(self) -> dict[str, Any]:
        """The cases as JSON holds them."""


@dataclasses.dataclass(frozen=True)
class StudySettings:
    """The terms of a study, equal for all of its runs.

    Attributes:
        features: channels of each resolution of U-Net, U-Net^e, UNet+ and UNet++, finest first, at least three.
        budget: training steps of each run. Steps and not minutes, since in the same time a smaller network would see
            more patches, and the result would depend on the machine.
        batch_size: patches per step.
        patch_size: voxels of a patch along each axis; also of a window when cases are scored.
        learning_rate: of AdamW at its highest; it rises over the first twentieth of the steps and falls to 0 as a
            cosine.
        precision: ``"fp32"`` or ``"bf16"``, in training and scoring. Weights, loss and scores stay in
            fp32.
        spacing_mm: voxel size to resample volumes to; None leaves the images on their own grids.
        flip_axes: axes that training patches are flipped along, at random. Leave out those that tell classes apart.
        overlap: share of a window that overlaps with the next when cases are scored.
        checkpoint_steps: steps between two checkpoints, which is the most that an interruption can cost.

    Raises:
        TypeError: a value of the wrong kind.
        ValueError: a value that cannot work.
    """

    features: tuple[int, ...]
    budget: int
    batch_size: int
    patch_size: tuple[int, ...]
    learning_rate: float
    precision: str
    spacing_mm: tuple[float, ...] | None
    flip_axes: tuple[int, ...]
    overlap: float
    checkpoint_steps: int

    @classmethod
    def complete(cls, given: Mapping[str, Any], spatial_dims: int, device: str) -> StudySettings:
        """The settings with defaults that suit the data.

        Args:
            given: values by name; None, and what is left out, take the default. One number will do for all axes.
            spatial_dims: 2 or 3.
            device: where the networks run; it decides what the precision ``"auto"`` means.

        Raises:
            TypeError: a value of the wrong kind.
            ValueError: a name that is no setting, or a value that cannot work.
        """
        defaults: dict[str, Any] = {
            "features": (16, 32, 64, 128, 256),
            "budget": 1500,
            "batch_size": _BATCH_SIZE[spatial_dims],
            "patch_size": _PATCH_SIZE[spatial_dims],
            "learning_rate": 1e-3,
            "precision": "auto",
            "spacing_mm": None,
            "flip_axes": _FLIP_AXES[spatial_dims],
            "overlap": 0.25,
            "checkpoint_steps": 50,
        }
        unknown = next((name for name in given if name not in defaults), None)
        if unknown is not None:
            raise ValueError(f"settings must be among {', '.join(defaults)}, got {unknown!r}. Correct the name.")
        values = defaults | {name: value for name, value in given.items() if value is not None}
        values["features"] = _whole_numbers("features", values["features"])
        values["patch_size"] = _per_axis("patch_size", _whole_numbers("patch_size", values["patch_size"]), spatial_dims)
        if values["spacing_mm"] is not None:
            spacing = _numbers("spacing_mm", values["spacing_mm"])
            values["spacing_mm"] = _per_axis("spacing_mm", spacing, spatial_dims)
        values["flip_axes"] = _whole_numbers("flip_axes", values["flip_axes"], least=0)
        for name in ("budget", "batch_size", "checkpoint_steps"):
            (values[name],) = _whole_numbers(name, [values[name]])
        for name in ("learning_rate", "overlap"):
            (values[name],) = _numbers(name, [values[name]], least=0.0)
        if values["precision"] not in _PRECISIONS:
            reason = "Its gradients underflow; use bf16." if values["precision"] == "fp16" else "Correct the name."
            raise ValueError(
                f"precision must be one of {', '.join(_PRECISIONS)}, got {values['precision']!r}. {reason}"
            )
        values["precision"] = resolve_precision(values["precision"], device)
        settings = cls(**values)
        settings._check(spatial_dims)
        return settings

    def _check(self, spatial_dims: int) -> None:
        if len(self.features) < 3:
            raise ValueError(
                f"features must have at least three entries, got {list(self.features)}. With two, there is only L1, "
                "and all variants are the same network."
            )
        depth = len(self.features) - 1
        # instance norm needs more than one element in the coarsest map
        if max(self.patch_size) <= 2**depth:
            raise ValueError(
                f"patch_size must be more than {2**depth} along one axis at least for {len(self.features)} features, "
                f"got {list(self.patch_size)}. Give a larger patch_size, or fewer features."
            )
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}. 0.001 is a good start.")
        if not self.overlap < 1:
            raise ValueError(f"overlap must lie between 0 and 1, got {self.overlap}. 0.25 is common.")
        beyond = [axis for axis in self.flip_axes if axis >= spatial_dims]
        if beyond:
            raise ValueError(
                f"flip_axes must be axes of the image, 0 to {spatial_dims - 1}, got {beyond[0]}. Leave it out."
            )

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON holds them."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values


def read_config(path: str | PathLike[str]) -> dict[str, Any]:
    """The settings in a JSON file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a JSON object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise FileNotFoundError(f"{path}: no such file. config must name a JSON file of settings.") from e
    except ValueError as e:
        raise ValueError(f"{path}: cannot be read as JSON ({e}). Repair it.") from e
    if not isinstance(content, dict):
        raise ValueError(f'{path}: must hold an object of settings, got {content!r:.100}. Write {{"budget": 1000}}.')
    return content


def read_stored(folder: Path, cases: _Cases) -> dict[str, Any]:
    """The settings that ``folder`` was begun with; none for a new one.

    Raises:
        ValueError: the folder holds runs of other cases, or its settings cannot be read.
    """
    if not (folder / SETTINGS_FILE).is_file():
        return {}
    stored = read_config(folder / SETTINGS_FILE)
    if stored.pop("cases", None) != cases.as_dict():
        raise ValueError(_refusal(folder, _difference("cases", None, None)))
    return stored


def claim_folder(folder: Path, settings: StudySettings, cases: _Cases) -> str:
    """Note in ``folder`` what its runs share, or compare with what it holds already.

    Returns:
        The fingerprint of settings and cases, which every result carries.

    Raises:
        ValueError: the folder holds runs of other settings or cases.
    """
    fingerprint = compare_folder(folder, settings, cases)
    path = folder / SETTINGS_FILE
    if not path.is_file():
        write_text(path, json.dumps(_terms(settings, cases), indent=2) + "\n")
    return fingerprint


def compare_folder(folder: Path, settings: StudySettings, cases: _Cases) -> str:
    """Compare with what ``folder`` holds already, and write nothing.

    Returns:
        The fingerprint of settings and cases, which every result carries.

    Raises:
        ValueError: the folder holds runs of other settings or cases.
    """
    terms = _terms(settings, cases)
    path = folder / SETTINGS_FILE
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            changed = [name for name in {**before, **terms} if before.get(name) != terms.get(name)]
        except (ValueError, AttributeError, TypeError) as e:
            raise ValueError(f"{path}: cannot be read ({e}). Take another output_dir, or repair the file.") from e
        if changed:
            differences = "; ".join(_difference(name, before.get(name), terms.get(name)) for name in changed)
            raise ValueError(_refusal(folder, differences))
    return settings_hash(terms)


def settings_hash(terms: Mapping[str, Any]) -> str:
    """SHA-256 of what :data:`SETTINGS_FILE` holds."""
    return hashlib.sha256(json.dumps(terms, sort_keys=True).encode()).hexdigest()


def _terms(settings: StudySettings, cases: _Cases) -> dict[str, Any]:
    return {**settings.as_dict(), "cases": cases.as_dict()}


def _refusal(folder: Path, differences: str) -> str:
    return (
        f"output_dir must hold runs of the same settings only, got {folder} with others: {differences}. "
        "Give the settings that it was begun with, or another output_dir."
    )


def _difference(name: str, before: Any, now: Any) -> str:
    if name == "cases":
        return "its cases or labels are not those of dataset_dir"
    return f"{name} was {before!r} and is {now!r}"


def _entries(name: str, value: Any) -> list[Any]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return [value]


def _whole_numbers(name: str, value: Any, least: int = 1) -> tuple[int, ...]:
    entries = _entries(name, value)
    if not all(isinstance(entry, int) and not isinstance(entry, bool) for entry in entries):
        raise TypeError(f"{name} must be a whole number, or several, got {value!r}. Write 8, or 8 16 32.")
    if any(entry < least for entry in entries):
        raise ValueError(f"{name} must be {least} or more, got {value!r}. Give a larger number.")
    return tuple(entries)


def _numbers(name: str, value: Any, least: float | None = None) -> tuple[float, ...]:
    entries = _entries(name, value)
    if not all(isinstance(entry, (int, float)) and not isinstance(entry, bool) for entry in entries):
        raise TypeError(f"{name} must be a number, or several, got {value!r}. Write 1.0, or 1.0 1.0 2.5.")
    if not all(math.isfinite(entry) and (entry > 0 if least is None else entry >= least) for entry in entries):
        rule = "positive" if least is None else f"{least:g} or more"
        raise ValueError(f"{name} must be {rule}, got {value!r}. Give a finite number.")
    return tuple(float(entry) for entry in entries)


def _per_axis(name: str, entries: tuple[Any, ...], spatial_dims: int) -> tuple[Any, ...]:
    if len(entries) not in (1, spatial_dims):
        raise ValueError(
            f"{name} must have 1 or {spatial_dims} entries for images with {spatial_dims} axes, got {list(entries)}. "
            "Give one number for all axes, or one per axis."
        )
    return entries * spatial_dims if len(entries) == 1 else entries

"""The values of a plan: names, allowed values, and parsing from text. Does not import torch."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monai_unetpp.choices import NORMS
from monai_unetpp.errors import counted

__all__ = [
    "AUGMENTATIONS",
    "LEAST_LEVELS",
    "MOST_LEVELS",
    "NORMALIZATIONS",
    "SCALED",
    "SETTABLE",
    "check_levels",
    "check_one",
    "check_values",
    "parse_settings",
]

LEAST_LEVELS = 2
"""With one level there would be nothing to prune to."""

MOST_LEVELS = 4
"""More levels have shown no gain in the papers, and each multiplies the number of weights."""

NORMALIZATIONS = ("range", "volume", "unit", "inside")
"""``range`` clips to fixed intensities and standardises by fixed numbers, for images in physical units such as CT;
``volume`` standardises each image by its own mean and deviation, ``inside`` likewise without the constant surround;
``unit`` scales each image so that its percentiles become 0 and 1."""

SCALED = ("volume", "unit")
"""Normalizations for which images may first be scaled to 0 to 1, for inversion and gamma."""

AUGMENTATIONS = ("none", "light", "strong")

_Check = Callable[[str, Any, int], Any]

#: Before the name of a value whose entry is checked.
_EVERY_ENTRY = "every entry of "


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _like(name: str, value: object) -> str:
    """How to write a value, or every entry of one."""
    return f"Write each like {value}." if name.startswith(_EVERY_ENTRY) else f"Write it like {name}={value}."


def _whole(least: int, most: float = math.inf) -> _Check:
    def check(name: str, value: Any, dims: int) -> int:
        # such as 1e3
        value = int(value) if isinstance(value, float) and value.is_integer() else value
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be a whole number, got {value!r}. {_like(name, max(least, 1))}")
        if value < least:
            raise ValueError(f"{name} must be {least} or more, got {value}. Give a larger number.")
        if value > most:
            raise ValueError(f"{name} must be at most {most}, got {value}. Give a smaller number.")
        return value

    return check


def _number(low: float, high: float = math.inf, *, open_low: bool = True, open_high: bool = True) -> _Check:
    def check(name: str, value: Any, dims: int) -> float:
        if not _is_number(value):
            raise TypeError(f"{name} must be a number, got {value!r}. {_like(name, max(0.5, 2 * low))}")
        above = value > low if open_low else value >= low
        below = value < high if open_high else value <= high
        if not (above and below):
            rule = f"{'above' if open_low else 'at least'} {low:g}"
            rule += "" if high == math.inf else f" and {'below' if open_high else 'at most'} {high:g}"
            raise ValueError(f"{name} must be {rule}, got {value}. Give another number.")
        return float(value)

    return check


def _is_none(value: Any) -> bool:
    """Whether there is no value, also in the word by which a plan says so."""
    return value is None or (isinstance(value, str) and value.lower() == "none")


def _optional(check: _Check) -> _Check:
    def check_unless_none(name: str, value: Any, dims: int) -> Any:
        try:
            return None if _is_none(value) else check(name, value, dims)
        except TypeError as e:
            raise TypeError(f"{str(e).rstrip('.')}, or {name}=none.") from e

    return check_unless_none


def _flag(name: str, value: Any, dims: int) -> bool:
    # as plans are printed
    value = {"yes": True, "no": False}.get(value, value) if isinstance(value, str) else value
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be true or false, got {value!r}. Write {name}=true or {name}=false.")
    return value


def _one_of(allowed: Sequence[Any]) -> _Check:
    def check(name: str, value: Any, dims: int) -> Any:
        given = list(value) if isinstance(value, tuple) else value
        if given not in allowed:
            told = ", ".join(each if isinstance(each, str) else json.dumps(each) for each in allowed)
            raise ValueError(f"{name} must be one of {told}, got {value!r}. Correct it.")
        return given

    return check


def _entries(name: str, value: Any, each: _Check, dims: int, like: str) -> list[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a list, got {value!r}. {_like(name, like)}")
    return [each(f"{_EVERY_ENTRY}{name.removeprefix(_EVERY_ENTRY)}", entry, dims) for entry in value]


def _per_axis(each: _Check, like: str) -> _Check:
    """One number for all axes, or one per axis, ``like`` which it may be."""

    def check(name: str, value: Any, dims: int) -> Any:
        all_like = ",".join([like] * dims)
        entries = [each(name, value, dims)] * dims if _is_number(value) else _entries(name, value, each, dims, all_like)
        if len(entries) != dims:
            raise ValueError(f"{name} must have one number per axis, {dims}, got {value!r}. Give {dims} numbers.")
        return entries

    return check


def _per_level(more: int) -> _Check:
    """Sizes by axis of as many entries as levels, and ``more``."""
    fewest, most = LEAST_LEVELS + more, MOST_LEVELS + more

    def check(name: str, value: Any, dims: int) -> list[list[int]]:
        like = "[2,2]" if more == 0 else "[3,3,3]"
        entries = _entries(name, value, _per_axis(_whole(1), like[1]), dims, like)
        if not fewest <= len(entries) <= most:
            raise ValueError(
                f"{name} must have {fewest} to {most} entries, for {LEAST_LEVELS} to {MOST_LEVELS} levels, got "
                f"{len(entries)}. Give as many."
            )
        return entries

    return check


def _axes(name: str, value: Any, dims: int) -> list[int]:
    """One axis, a list of them, or none."""
    given = [] if _is_none(value) else [value] if _is_number(value) else value
    axes = sorted(set(_entries(name, given, _whole(0), dims, like="0,1")))
    if axes and axes[-1] >= dims:
        raise ValueError(f"{name} must be axes of the image, 0 to {dims - 1}, got {axes[-1]}. Leave it out.")
    return axes


def _features(name: str, value: Any, dims: int) -> list[int]:
    entries = _entries(name, value, _whole(1), dims, like="8,16,32,64")
    if not LEAST_LEVELS < len(entries) <= MOST_LEVELS + 1:
        raise ValueError(
            f"{name} must have {LEAST_LEVELS + 1} to {MOST_LEVELS + 1} entries, one more than levels, got {value!r}. "
            "With one level there would be nothing to prune to."
        )
    return entries


def _range(name: str, value: Any, dims: int) -> list[float] | None:
    if _is_none(value):
        return None
    entries = _entries(name, value, _number(-math.inf), dims, like="[-100,300,60,40]")
    if len(entries) != 4 or entries[0] >= entries[1] or entries[3] <= 0:
        raise ValueError(
            f"{name} must be the lowest and the highest intensity, mean and standard deviation, got {value!r}. Write "
            f"it like {name}=[-100,300,60,40]."
        )
    return entries


def _percentiles(name: str, value: Any, dims: int) -> list[float]:
    entries = _entries(name, value, _number(0, 100, open_low=False, open_high=False), dims, like="0.5,99.5")
    if len(entries) != 2 or entries[0] >= entries[1]:
        raise ValueError(
            f"{name} must be a lower and a higher percentile, 0 to 100, got {value!r}. Write it like {name}=0.5,99.5; "
            f"{name}=0,100 clips nothing."
        )
    return entries


def _ratios(name: str, value: Any, dims: int) -> list[float]:
    entries = _entries(name, value, _number(0, 1e6, open_low=False, open_high=False), dims, like="1,2")
    if not sum(entries):
        raise ValueError(f"{name} must have a number above 0, got {value!r}. Give another list.")
    return entries


def _weights(name: str, value: Any, dims: int) -> list[float]:
    entries = _ratios(name, value, dims)
    if not all(entries):
        raise ValueError(
            f"{name} must be above 0, got {value!r}: patches with such a class alone would have no loss. Give a small "
            "number."
        )
    return entries


SETTABLE: dict[str, _Check] = {
    "orientation": _optional(_one_of(("RAS",))),
    "spacing_mm": _optional(_per_axis(_number(0), "1.5")),
    "crop_background": _flag,
    "normalization": _one_of(NORMALIZATIONS),
    "clip_percentiles": _percentiles,
    "intensity_range": _range,
    "invert_bright_background": _flag,
    "gamma": _number(0, 10, open_high=False),
    "patch_size": _per_axis(_whole(1), "32"),
    "strides": _per_level(0),
    "kernel_size": _per_level(1),
    "features": _features,
    "norm": _one_of(NORMS),
    "dropout": _number(0, 1, open_low=False),
    "batch_size": _whole(1),
    "steps": _whole(1),
    "learning_rate": _number(0, 1, open_high=False),
    "weight_decay": _number(0, 1, open_low=False, open_high=False),
    "ema": _optional(_number(0, 1)),
    "distillation": _number(0, 100, open_low=False, open_high=False),
    "rare_kind_factor": _number(1, open_low=False),
    "class_ratios": _ratios,
    "class_weights": _optional(_weights),
    "level_weights": _optional(_ratios),
    "augmentation": _one_of(AUGMENTATIONS),
    "late_share": _number(0, 1, open_low=False),
    "bias_field": _flag,
    "rotate90": _flag,
    "flip_axes": _axes,
    "window_shape": _per_axis(_whole(1), "32"),
    "overlap": _number(0, 0.9, open_low=False, open_high=False),
    "flips": _axes,
    "tolerance_mm": _number(0),
    "cache_rate": _number(0, 1, open_low=False, open_high=False),
    "num_workers": _whole(0, 256),
    "channels_last": _flag,
    "compile": _flag,
}
"""The values of a plan by name, each with a function that checks and normalises it.

:meta hide-value:
"""


def check_one(name: str, value: Any, spatial_dims: int) -> Any:
    """Check and normalise one value.

    Args:
        name: one of :data:`SETTABLE`.
        value: the value to check.
        spatial_dims: 2 or 3.

    Raises:
        TypeError: a value of the wrong kind.
        ValueError: a value that cannot work.
    """
    return SETTABLE[name](name, value, spatial_dims)


def parse_settings(given: Sequence[str] | Mapping[str, Any] | None) -> dict[str, Any]:
    """Parse settings such as ``"patch_size=64,64,32"``: values in JSON, values with commas, or plain text.

    Args:
        given: the strings, or the values themselves by name.

    Raises:
        ValueError: no ``=``, an unknown name, or a name given twice.

    Example:
        >>> parse_settings(["batch_size=4", "norm=instance"])
        {'batch_size': 4, 'norm': 'instance'}
    """
    pairs = list(given.items()) if isinstance(given, Mapping) else [_pair(text) for text in given or ()]
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name not in SETTABLE:
            close = difflib.get_close_matches(name, SETTABLE, 1)
            advice = f"Did you mean {close[0]!r}?" if close else f"Known values: {', '.join(SETTABLE)}."
            raise ValueError(f"a plan has no value {name!r}. {advice}")
        if name in values:
            raise ValueError(f"{name} must be set once, got {values[name]!r} and {value!r}. Leave one out.")
        values[name] = value
    return values


def _pair(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise ValueError(f"a setting must be a name, '=' and a value, got {text!r}. Write it like batch_size=4.")
    try:
        return name.strip(), _read(value)
    except ValueError:
        pass
    try:
        # square brackets mean something to some shells
        return name.strip(), [_read(part) for part in value.split(",")] if "," in value else value.strip()
    except ValueError:
        return name.strip(), value.strip()


def _read(text: str) -> Any:
    """The value that ``text`` means as JSON.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(text)
    except RecursionError as e:
        raise ValueError("brackets within brackets within ...") from e


def check_values(
    values: Mapping[str, Any], spatial_dims: int, channels: int, labels: Mapping[str, int]
) -> dict[str, Any]:
    """Check all values, alone and together, and normalise them as in JSON.

    Args:
        values: by the names in :data:`SETTABLE`.
        spatial_dims: 2 or 3.
        channels: number of channels of an image.
        labels: value by name, without the background.

    Raises:
        TypeError: a value of the wrong kind.
        ValueError: a value that cannot work.
    """
    found = {name: check(name, values[name], spatial_dims) for name, check in SETTABLE.items()}
    check_levels(found)
    levels = len(found["features"]) - 1
    for name in ("class_ratios", "class_weights"):
        if found[name] is not None and len(found[name]) != len(labels) + 1:
            raise ValueError(
                f"{name} must have {len(labels) + 1} numbers, one per class with the background first, got "
                f"{len(found[name])}. Give one for each."
            )
    if found["level_weights"] is not None and len(found["level_weights"]) != levels:
        raise ValueError(
            f"level_weights must have {levels} numbers, one per level with the shallowest first, got "
            f"{len(found['level_weights'])}. Give one for each."
        )
    _check_intensities(found, channels)
    if found["rotate90"] and spatial_dims != 2:
        raise ValueError("rotate90 must be false for volumes, got true. Give rotate90=false, or leave it out.")
    if found["rotate90"] and len(set(found["patch_size"])) > 1:
        raise ValueError(
            f"rotate90 must be false for patches that are not square, got patch_size {found['patch_size']}. Give "
            "rotate90=false, or a square patch_size."
        )
    return found


def check_levels(values: Mapping[str, Any]) -> None:
    """Check that ``strides`` and ``kernel_size`` have as many entries as ``features`` need, and that kernels are odd.

    Raises:
        ValueError: they do not fit together.
    """
    levels = len(values["features"]) - 1
    for name, count, per in (("strides", levels, "downsampling"), ("kernel_size", levels + 1, "resolution")):
        if len(values[name]) != count:
            raise ValueError(
                f"{name} must have one entry per {per}, {count} for {counted(levels, 'level')}, got "
                f"{len(values[name])}. Give one fewer than features for strides, as many for kernel_size."
            )
    if any(size % 2 == 0 for kernel in values["kernel_size"] for size in kernel):
        raise ValueError(f"kernel_size must be odd, got {values['kernel_size']}. Use 3, or 1 along an axis.")


def _check_intensities(found: Mapping[str, Any], channels: int) -> None:
    if (found["normalization"] == "range") != (found["intensity_range"] is not None):
        raise ValueError(
            f"intensity_range must be given for the normalization 'range' and for no other, got "
            f"{found['intensity_range']!r} for {found['normalization']!r}. Set both."
        )
    if found["normalization"] == "range" and found["crop_background"]:
        raise ValueError(
            "crop_background must be false for the normalization 'range', as it changes intensities. Set one of them."
        )
    if found["gamma"] != 1 and found["normalization"] not in SCALED:
        raise ValueError(
            f"gamma must be 1 for the normalization {found['normalization']!r}, got {found['gamma']:g}. Leave it "
            f"out, or set the normalization to {' or '.join(SCALED)}."
        )
    if found["invert_bright_background"] and (channels > 1 or found["normalization"] not in SCALED):
        raise ValueError(
            "invert_bright_background must be false for several channels and for the normalization "
            f"{found['normalization']!r}. Set it so, or set the normalization to {' or '.join(SCALED)}."
        )

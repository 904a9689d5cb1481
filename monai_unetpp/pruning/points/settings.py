"""Grids of inference settings that trade accuracy against cost, besides the level."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import torch

from monai_unetpp.choices import PRECISIONS, RUNTIMES
from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.inferers.depth_gate import ADAPTIVE, check_tolerance, gate_name
from monai_unetpp.inferers.predictors import make_predictor
from monai_unetpp.networks import NestedUNet
from monai_unetpp.networks.config import NestedUNetConfig
from monai_unetpp.pruning.results import InferenceSetting
from monai_unetpp.pruning.rules import as_list
from monai_unetpp.window_layout import AUTO

SETTINGS = ("overlap", "flips", "precision", "runtime", "windows")
"""The settings that a grid can vary; ``adaptive`` is evaluated besides it, at the inferer's own setting."""

_OWN = "own"

#: Values to try by name of the setting; other settings stay as in the inferer.
SettingsGrid = dict[str, tuple[Any, ...]]


def parse_settings(given: Mapping[str, Any] | Sequence[str] | str | None) -> SettingsGrid:
    """The grid from a configuration or the command line: distinct values in the order of :data:`SETTINGS`.

    It is given as a dict such as ``{"overlap": [0.0, 0.25], "flips": [[], [0]], "precision": ["fp32", "bf16"]}``, where
    an overlap may be one number per axis, or as strings such as ``"overlap=0,0.25"`` and ``"flips=none,0+1"``.

    Example:
        >>> parse_settings(["overlap=0,0.25", "flips=none,0+1"])
        {'overlap': ((0.0,), (0.25,)), 'flips': ((), (0, 1))}
    """
    pairs = _named_values(given)
    names = [name for name, _ in pairs]
    for name, values in pairs:
        if name not in (*SETTINGS, ADAPTIVE):
            raise ValueError(
                f"settings must be among {', '.join((*SETTINGS, ADAPTIVE))}, got {name!r}. Correct the name."
            )
        if names.count(name) > 1:
            raise ValueError(f"settings must name {name} once, got it twice. Write all values after one {name}=.")
        if isinstance(values, (str, Real)) or not isinstance(values, Sequence) or not values:
            raise ValueError(f"settings must list one value or more for {name}, got {values!r}. See the README.")
    pairs = [(name, values) for name, values in pairs if name != ADAPTIVE]
    parsed = {name: tuple(dict.fromkeys(_parse(name, value) for value in values)) for name, values in pairs}
    return {name: parsed[name] for name in SETTINGS if name in parsed}


def adaptive_tolerances(given: Mapping[str, Any] | Sequence[str] | str | None) -> tuple[float, ...]:
    """The distinct tolerances for choosing the depth of each window, the smallest first; see :func:`parse_settings`.

    Example:
        >>> adaptive_tolerances(["overlap=0,0.25", "adaptive=0.033,0.02"])
        (0.02, 0.033)
    """
    parse_settings(given)
    asked = [value for name, values in _named_values(given) if name == ADAPTIVE for value in values]
    # those of one name are one point
    return tuple(sorted({gate_name(tolerance): tolerance for tolerance in map(_parse_tolerance, asked)}.values()))


def _named_values(given: Mapping[str, Any] | Sequence[str] | str | None) -> list[tuple[str, Any]]:
    if given is None:
        return []
    return list(given.items()) if isinstance(given, Mapping) else [_split(text) for text in as_list(given)]


def check_grid_inferer(inferer: Any) -> NestedSlidingWindowInferer:
    """``inferer`` if it can be run at other settings."""
    if not isinstance(inferer, NestedSlidingWindowInferer):
        raise TypeError(
            f"inferer must be a NestedSlidingWindowInferer where settings are given, got {type(inferer).__name__}. "
            "Put monai_unetpp.inferers.NestedSlidingWindowInferer into the configuration, or leave settings out."
        )
    return inferer


def list_settings(
    inferer: NestedSlidingWindowInferer, grid: SettingsGrid, network: NestedUNet, device: torch.device | str
) -> tuple[InferenceSetting, ...]:
    """The inferer's own setting, then all other combinations of a grid, of those of one name the first.

    ``"auto"`` is resolved by running the shallowest level on a window of the smallest size, so that settings which
    this machine cannot run are refused before any case is scored.
    """
    shallow = network.prune(network.levels[0]).eval().to(device)
    what_runs = functools.cache(functools.partial(_what_runs, shallow, device, inferer.cache_dir))

    def resolved(
        overlap: tuple[float, ...], flips: tuple[int, ...], precision: str, runtime: str, windows: str
    ) -> InferenceSetting:
        if windows == _OWN and inferer.roi_size == AUTO:
            raise ValueError(
                "settings must not ask for windows=own where the inferer chooses its windows. Give the inferer a shape."
            )
        setting = InferenceSetting(overlap, flips, *what_runs(precision, runtime), auto_windows=windows == AUTO)
        with_setting(inferer, setting)
        wrong = [axis for axis in flips if axis >= network.spatial_dims]
        if wrong or len(overlap) not in (1, network.spatial_dims):
            raise ValueError(
                f"settings must be for {network.spatial_dims} spatial axes, got {setting.name!r}. Correct the axes."
            )
        return setting

    own = {
        "overlap": _parse_overlap(inferer.overlap),
        "flips": tuple(inferer.flips),
        "precision": inferer.precision,
        "runtime": inferer.runtime,
        "windows": AUTO if inferer.roi_size == AUTO else _OWN,
    }
    others = itertools.product(*(grid.get(name, (own[name],)) for name in own)) if grid else ()
    settings: dict[str, InferenceSetting] = {}
    for setting in (resolved(*values) for values in (tuple(own.values()), *others)):
        settings.setdefault(setting.name, setting)
    return tuple(settings.values())


def with_setting(inferer: NestedSlidingWindowInferer, setting: InferenceSetting) -> NestedSlidingWindowInferer:
    """A copy of ``inferer`` that runs at ``setting``."""
    return inferer.with_options(
        roi_size=AUTO if setting.auto_windows else inferer.roi_size,
        overlap=setting.overlap[0] if len(setting.overlap) == 1 else setting.overlap,
        flips=setting.flips,
        precision=setting.precision,
        runtime=setting.runtime,
    )


def _what_runs(
    network: NestedUNet, device: torch.device | str, cache_dir: Any, precision: str, runtime: str
) -> tuple[str, str]:
    """The precision and runtime that are really used."""
    shape = tuple(max(16, size) for size in NestedUNetConfig.check(**network.config).smallest_size())
    try:
        window: dict[str, Any] = {"levels": None, "window_shape": shape, "batch_size": 1, "device": device}
        predictor = make_predictor(network, **window, runtime=runtime, precision=precision, cache_dir=cache_dir)
        predictor(torch.zeros((1, network.in_channels, *shape), device=device))
    except RuntimeError as e:
        raise ValueError(
            f"settings must be what this machine can run, got runtime {runtime!r} at precision {precision!r} on "
            f"{device} ({str(e).splitlines()[0]}). Leave it out."
        ) from e
    return predictor.precision, predictor.runtime


def _split(text: Any) -> tuple[str, list[str]]:
    name, equals, values = text.partition("=") if isinstance(text, str) else ("", "", "")
    if not equals:
        raise ValueError(
            f"settings must be a name, '=' and values with commas, got {text!r}. Write it like overlap=0,0.25 or "
            "precision=fp32,bf16."
        )
    return name.strip(), [value.strip() for value in values.split(",")] if values.strip() else []


def _parse(name: str, value: Any) -> Any:
    if name == "overlap":
        return _parse_overlap(value)
    if name == "flips":
        return _parse_flips(value)
    known: Sequence[str] = {"precision": PRECISIONS, "runtime": RUNTIMES, "windows": (_OWN, AUTO)}[name]
    if value not in known:
        raise ValueError(f"settings must have a {name} among {', '.join(known)}, got {value!r}. Correct the name.")
    return value


def _parse_tolerance(value: Any) -> float:
    with contextlib.suppress(TypeError, ValueError):
        if tolerance := check_tolerance(float(value)):
            return tolerance
    raise ValueError(
        f"settings must have an adaptive tolerance above 0 and at most 1, got {value!r}. 0.033 is a good start."
    )


def _parse_overlap(value: Any) -> tuple[float, ...]:
    """The overlap per axis, or one number if all are equal."""
    try:
        shares = tuple(float(each) for each in (value if isinstance(value, (list, tuple)) else (value,)))
    except (TypeError, ValueError) as e:
        raise ValueError(f"settings must have an overlap that is a number, got {value!r}. 0.25 is common.") from e
    if not shares or not all(0 <= share < 1 for share in shares):
        raise ValueError(f"settings must have an overlap from 0 to below 1, got {value!r}. 0.25 is common.")
    return shares[:1] if len(set(shares)) == 1 else shares


def _parse_flips(value: Any) -> tuple[int, ...]:
    axes: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value]
    if isinstance(value, str):
        axes = [] if value == "none" else [int(axis) if axis.isdecimal() else axis for axis in value.split("+")]
    whole = [axis for axis in axes if isinstance(axis, int) and not isinstance(axis, bool) and axis >= 0]
    if len(whole) < len(axes) or len(set(whole)) < len(whole):
        raise ValueError(
            f"settings must have flips that are different axes from 0 on, got {value!r}. Write none, 0, or 0+1 for two "
            "axes at once; in a configuration [], [0] or [0, 1]."
        )
    return tuple(sorted(whole))

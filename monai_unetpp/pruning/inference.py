"""How an inferer runs a network over a volume, in the words of a bundle's configuration."""

from __future__ import annotations

import logging
from os import PathLike
from typing import Any

import torch
from monai.inferers import SlidingWindowInferer

from monai_unetpp.bundles import BundleConfig
from monai_unetpp.devices import resolve_precision
from monai_unetpp.inferers import FlipInferer, NestedSlidingWindowInferer, PrecisionInferer, SlicewiseInferer
from monai_unetpp.pruning.pipeline_text import describe_settings

logger = logging.getLogger(__name__)

#: Keys at the top of a bundle's ``inference.json`` that an evaluation may override.
BUNDLE_KEYS = ("precision", "flips", "window_shape")


def inference_of(inferer: Any, device: torch.device | str) -> dict[str, Any]:
    """The settings on which an inferer's results depend; inferers of this package are unwrapped.

    These are ``precision`` (the device determines ``"auto"``) and ``flips``; for sliding windows also ``window_shape``
    and the blending of windows, for other inferers a description.
    """
    precision, flips = None, set[int]()
    # slices only concern volumes, on which a 2D network is not evaluated
    while isinstance(inferer, (PrecisionInferer, FlipInferer, SlicewiseInferer)):
        if isinstance(inferer, PrecisionInferer):
            # the outermost counts
            precision = precision or inferer.precision
        elif isinstance(inferer, FlipInferer):
            flips |= set(inferer.axes)
        inferer = inferer.inferer
    if isinstance(inferer, NestedSlidingWindowInferer):
        # the runtime is left out: at the same precision, results differ by rounding only
        precision = precision or inferer.precision
        flips |= set(inferer.flips)
    values = {"precision": resolve_precision(precision or "fp32", device), "flips": sorted(flips)}
    if not isinstance(inferer, NestedSlidingWindowInferer) and type(inferer) is not SlidingWindowInferer:
        return {**values, "inferer": describe_settings(inferer)}
    size, overlap = inferer.roi_size, inferer.overlap
    return {
        **values,
        "window_shape": size if isinstance(size, (int, str)) or size is None else list(size),
        "overlap": overlap if isinstance(overlap, (int, float)) else list(overlap),
        "blending": str(getattr(inferer.mode, "value", inferer.mode)),
        "sigma_scale": describe_settings(inferer.sigma_scale),
        "padding_mode": str(getattr(inferer.padding_mode, "value", inferer.padding_mode)),
        "cval": float(inferer.cval),
        "skip_constant": bool(getattr(inferer, "skip_constant", False)),
    }


def check_inference(bundle: str | PathLike[str], inferer: Any, device: torch.device | str) -> dict[str, Any]:
    """The evaluated values of :data:`BUNDLE_KEYS`, with which a bundle can be made to segment as it was evaluated.

    ``smooth`` is False where the bundle resamples probabilities: the evaluation resamples labels.
    """
    config = BundleConfig(bundle, "inference.json")
    evaluated = inference_of(inferer, device)
    values = {key: evaluated[key] for key in BUNDLE_KEYS if key in evaluated}
    for key in BUNDLE_KEYS:
        if key in config and key in values:
            config[key] = values[key]
    if "inferer" not in config:
        raise ValueError(f"{config}: must have an 'inferer', so that the pruned bundle segments as it was evaluated.")
    own = inference_of(config.parse("inferer"), device)
    differing = [key for key in {**evaluated, **own} if evaluated.get(key) != own.get(key)]
    if differing:
        raise ValueError(
            "write must be left out where the bundle segments differently from the evaluation, got "
            + "; ".join(f"{key} {own.get(key)!r} instead of {evaluated.get(key)!r}" for key in differing)
            + f". Change the inferer of {config}, or leave write out."
        )
    if "smooth" in config and config.parse("smooth"):
        values["smooth"] = False
        logger.warning(
            "%s: the pruned bundle will resample labels, as the evaluation does, not probabilities; with --smooth it "
            "segments differently from what was evaluated.",
            config,
        )
    return values

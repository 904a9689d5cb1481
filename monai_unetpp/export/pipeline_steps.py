"""Translate the transforms of a bundle into named steps for the runner, or refuse them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    AdjustContrastd,
    AsDiscreted,
    ClipIntensityPercentilesd,
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    EnsureTyped,
    Invertd,
    LoadImaged,
    MapLabelValued,
    NormalizeIntensityd,
    Orientationd,
    ScaleIntensityd,
    ScaleIntensityRanged,
    ScaleIntensityRangePercentilesd,
)
from monai.utils import get_equivalent_dtype

from monai_unetpp.data import (
    AboveMean,
    BlockwiseSpacingd,
    ClearBackgroundd,
    CropBackgroundd,
    InvertBrightBackgroundd,
    InvertProbabilitiesd,
    LevelSurroundd,
    SegmentationSaveImaged,
    StandardizeIntensityd,
    VolumeReader,
)
from monai_unetpp.runner import geometry_steps
from monai_unetpp.runner.geometry_steps import PADDINGS
from monai_unetpp.runner.segmenter import CLEAR_BACKGROUND, INVERT_PROBABILITIES, MAP_LABELS

Step = dict[str, Any]


class NoTranslationError(ValueError):
    """The runner does not support a part of a bundle; the message says which."""


def translate_preprocessing(preprocessing: Any) -> tuple[dict[str, Any], list[Step]]:
    """Translate the parsed preprocessing of a bundle, a ``Compose``, into requirements on image files, and steps.

    Raises:
        NoTranslationError: the runner lacks a transform, or a setting of one.
    """
    first, *others = _transforms(preprocessing)
    if not isinstance(first, LoadImaged):
        raise _refused(first, "the first transform must be LoadImaged")
    reading = _translate_reader(first)
    steps = [step for transform in others if (step := _translate(transform)) is not None]
    if 2 in reading["spatial_dims"] and any(step["step"] == "orient" for step in steps):
        raise NoTranslationError("Orientationd is supported by the runner only for volumes, not for 2D images.")
    return reading, steps


def translate_postprocessing(postprocessing: Any, gives_labels: bool, before: Iterable[Step] = ()) -> list[Step]:
    """Translate the parsed postprocessing into steps on the label map, or on the logits if probabilities are inverted.

    Unless the inferer gives labels, there must be an argmax. The steps of the preprocessing, ``before``, that change
    the grid must be inverted.

    Raises:
        NoTranslationError: the runner lacks a transform, or the grid of the file is not restored.
    """
    steps: list[Step] = []
    changing = [step["step"] for step in before if step["step"] in geometry_steps.__all__]
    inverted = mapped = False
    for transform in _transforms(postprocessing):
        if isinstance(transform, ClearBackgroundd) and not inverted:
            steps.append({"step": CLEAR_BACKGROUND})
        elif isinstance(transform, AsDiscreted) and not inverted and transform.argmax == (True,):
            _plain(transform, transform, to_onehot=[None], threshold=[None], rounding=(None,))
            gives_labels = True
        elif isinstance(transform, Invertd) and gives_labels and all(transform.nearest_interp):
            _plain(transform, transform, post_func=(None,))
            inverted = True
        elif isinstance(transform, InvertProbabilitiesd) and not gives_labels and not inverted:
            steps.append({"step": INVERT_PROBABILITIES})
            gives_labels = inverted = True
        elif isinstance(transform, MapLabelValued) and gives_labels and (inverted or not changing) and not mapped:
            mapped = True
            steps.append(_map_labels(transform))
        elif not isinstance(transform, SegmentationSaveImaged):
            raise _refused(transform, "it has no such step after the network")
    if not gives_labels:
        raise NoTranslationError("the postprocessing must make labels with AsDiscreted or InvertProbabilitiesd.")
    if changing and not inverted:
        raise NoTranslationError(
            f"the postprocessing must invert {', '.join(changing)} with Invertd, nearest_interp, or with "
            "InvertProbabilitiesd."
        )
    return steps


def _map_labels(transform: MapLabelValued) -> Step:
    """The values of all classes, the background first."""
    classes, values = list(transform.mapper.orig_labels), list(transform.mapper.target_labels)
    positive = all(isinstance(each, int) and each > 0 for each in values)
    if classes != list(range(1, len(classes) + 1)) or not positive or len(set(values)) < len(values):
        raise _refused(
            transform, "it must give each class but the background, in their order, a positive value of its own"
        )
    return {"step": MAP_LABELS, "values": [0, *values]}


def _transforms(compose: Any) -> list[Any]:
    if not isinstance(compose, Compose):
        raise NoTranslationError(f"transforms must be a Compose, got {type(compose).__name__}.")
    return list(compose.flatten().transforms)


def _translate_reader(load: LoadImaged) -> dict[str, Any]:
    readers = [reader for reader in load._loader.readers if isinstance(reader, VolumeReader)]
    if not readers:
        raise _refused(load, "its reader must be VolumeReader")
    _float32(load, load._loader.dtype)
    reader = readers[-1]
    _plain(load, reader, labels=False)
    return {
        "spatial_dims": list(reader.spatial_dims),
        "channels": reader.channels,
        "allow_constant": reader.allow_constant,
        "fill_nonfinite": reader.fill_nonfinite,
    }


def _translate(transform: Any) -> Step | None:
    if type(transform) is EnsureTyped:
        _float32(transform, _only(transform.dtype))
        return None
    if type(transform) is EnsureChannelFirstd:
        _plain(transform, transform.adjuster, input_channel_dim=None)
        return None
    translate = _TRANSLATIONS.get(type(transform))
    if translate is None:
        raise _refused(transform, "it has no such step")
    return translate(transform)


def _refused(transform: Any, why: str) -> NoTranslationError:
    return NoTranslationError(f"{type(transform).__name__} is not supported by the runner: {why}.")


def _plain(owner: Any, transform: Any, **expected: Any) -> None:
    """Refuse settings of a transform that the runner lacks."""
    for name, value in expected.items():
        if getattr(transform, name) != value:
            raise _refused(owner, f"its {name} must be {value!r}, got {getattr(transform, name)!r}")


def _float32(owner: Any, dtype: Any) -> None:
    """Refuse a type that images would be stored in, where it is not the runner's; None leaves it as it is."""
    if dtype is not None and get_equivalent_dtype(dtype, torch.Tensor) is not torch.float32:
        raise _refused(owner, f"its dtype must be float32, got {dtype}")


def _only(values: Iterable[Any]) -> Any:
    """The value for the image, the only key: MONAI keeps one per key."""
    return next(iter(values))


def _orientation(transform: Orientationd) -> Step:
    inner = transform.ornt_transform
    _plain(transform, inner, as_closest_canonical=False, labels=None)
    return {"step": "orient", "axcodes": "".join(inner.axcodes or "")}


def _spacing(transform: BlockwiseSpacingd) -> Step:
    inner = transform.spacing_transform
    _plain(transform, inner, recompute_affine=False)
    mode, padding = str(_only(transform.mode)), str(_only(transform.padding_mode))
    limits = [np.asarray(limit, dtype=float) for limit in (inner.min_pixdim, inner.max_pixdim)]
    whole = _only(transform.scale_extent) or _only(transform.align_corners)
    if mode != "bilinear" or padding not in PADDINGS or whole:
        known = " or ".join(PADDINGS)
        raise _refused(transform, f"it resamples bilinearly with padding {known}, got {mode} and {padding}")
    if not all(np.isnan(limit).all() for limit in limits):
        raise _refused(transform, "min_pixdim and max_pixdim must be left out")
    return {
        "step": "spacing",
        "pixdim": [float(size) for size in inner.pixdim],
        "padding": padding,
        "diagonal": bool(inner.diagonal),
    }


def _crop(transform: CropForegroundd) -> Step:
    cropper = transform.cropper
    _plain(transform, transform, source_key=transform.keys[0])
    _plain(transform, cropper, channel_indices=None, k_divisible=1)
    _plain(transform, cropper.padder, mode="constant", kwargs={})
    ours = isinstance(transform, CropBackgroundd)
    select = transform.select_fn if isinstance(transform, CropBackgroundd) else cropper.select_fn
    known = CropBackgroundd("image", "image").select_fn if ours else CropForegroundd("image", "image").cropper.select_fn
    margin = cropper.margin if isinstance(cropper.margin, int) else list(cropper.margin)
    step = {"margin": margin, "allow_smaller": bool(cropper.allow_smaller)}
    if isinstance(select, AboveMean):
        return {"step": "crop_above_mean", "part": select.part, **step}
    if select is not known:
        raise _refused(transform, "select_fn must be monai_unetpp.data.AboveMean, or be left out")
    return {"step": "crop_background" if ours else "crop_foreground", **step}


def _settings(step: str, part: str, *names: str, **expected: Any) -> Callable[[Any], Step]:
    """A translation to a step with settings of the transform, or of a part of it, such as its ``scaler``."""

    def translate(transform: Any) -> Step:
        inner = getattr(transform, part) if part else transform
        _float32(transform, getattr(inner, "dtype", None))
        _plain(transform, inner, **expected)
        return {"step": step, **{name: getattr(inner, name) for name in names}}

    return translate


_RANGE = ("b_min", "b_max", "clip")
_TRANSLATIONS: dict[type, Callable[[Any], Step]] = {
    Orientationd: _orientation,
    BlockwiseSpacingd: _spacing,
    CropBackgroundd: _crop,
    CropForegroundd: _crop,
    LevelSurroundd: _settings("level_surround", ""),
    ClipIntensityPercentilesd: _settings(
        "clip_percentiles",
        "scaler",
        "lower",
        "upper",
        "channel_wise",
        sharpness_factor=None,
        return_clipping_values=False,
    ),
    ScaleIntensityRangePercentilesd: _settings(
        "scale_range_percentiles", "scaler", "lower", "upper", *_RANGE, "channel_wise", relative=False
    ),
    ScaleIntensityRanged: _settings("scale_range", "scaler", "a_min", "a_max", *_RANGE),
    ScaleIntensityd: _settings("scale", "scaler", "channel_wise", minv=0.0, maxv=1.0),
    InvertBrightBackgroundd: _settings("invert_bright_background", "transform", "low", "high"),
    AdjustContrastd: _settings("adjust_contrast", "adjuster", "gamma", invert_image=False, retain_stats=False),
    StandardizeIntensityd: _settings("standardize", "", "channel_wise", "inside_surround"),
    NormalizeIntensityd: _settings("normalize", "normalizer", "nonzero", "channel_wise", subtrahend=None, divisor=None),
}

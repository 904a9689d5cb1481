"""The transforms of a plan in the form of MONAI's configurations."""

from __future__ import annotations

import math
from typing import Any

from monai_unetpp.planning.data_rules import CROP_MARGIN, is_anisotropic
from monai_unetpp.planning.training_plan import TrainingPlan

_BOTH = ["@image", "@label"]
#: Percentiles of an image beyond which there is nothing to clip.
_EVERYTHING = [0.0, 100.0]
#: Patches are cut from crops with this share of their length besides on each side, so that rotated ones have no gaps.
_ROOM = 0.2
#: Number of evenly spread voxels of each class of a case from which the centres of patches are drawn.
_PLACES_PER_CLASS = 20_000
#: Largest rotation in radians, in general and out of the plane of thick slices, and largest scaling; by strength.
_ROTATION = {"light": 0.26, "strong": 0.4}
_TILT = 0.05
_SCALE = {"light": 0.15, "strong": 0.25}
_ANY_ROTATION = math.pi / 4
#: Share of patches that are inverted where images with a bright background are, as some backgrounds are mistaken.
_INVERTED = 0.05

_Config = dict[str, Any]


def _transform(name: str, keys: Any, **arguments: Any) -> _Config:
    return {"_target_": name, "keys": keys, **arguments}


def preprocessing(plan: TrainingPlan, labelled: bool) -> list[_Config]:
    """Load an image, and its label if there is one, and bring them to a common grid and intensity scale."""
    allow = {"allow_missing_keys": True} if labelled else {}
    keys: Any = _BOTH if labelled else "@image"
    mode: Any = ["bilinear", "nearest"] if labelled else "bilinear"
    dims = [2, 3] if not labelled and takes_slices(plan) else plan.spatial_dims
    reader = {"_target_": "monai_unetpp.data.VolumeReader", "spatial_dims": dims, "channels": len(plan.channels)}
    if plan.spatial_dims == 2:
        # empty fields of view are common in microscopy
        reader["allow_constant"] = True
    # separate from loading, because hosts that load images themselves remove LoadImaged
    chain = [_transform("LoadImaged", "@image", reader=reader), _transform("EnsureChannelFirstd", "@image")]
    if labelled:
        truth = {**reader, "channels": 1, "allow_constant": True, "labels": True}
        chain += [
            _transform("LoadImaged", "@label", reader=truth, ensure_channel_first=True, **allow),
            _transform(
                "monai_unetpp.data.CheckLabelsd",
                "@label",
                image_key="@image",
                classes="@label_values",
                ignore_label="@ignore_label",
                **allow,
            ),
        ]
    if plan.spatial_dims == 3 and plan["orientation"] is not None:
        chain.append(_transform("Orientationd", keys, axcodes=plan["orientation"], labels=None, **allow))
    if plan["crop_background"] or plan["normalization"] == "inside":
        chain.append(_transform("monai_unetpp.data.LevelSurroundd", "@image"))
    if not labelled:
        # hosts pass integers on as they are in the file
        chain.append(_transform("EnsureTyped", "@image", device="@device", dtype="$torch.float32"))
    if plan["spacing_mm"] is not None:
        chain.append(_transform("monai_unetpp.data.BlockwiseSpacingd", keys, pixdim="@spacing_mm", mode=mode, **allow))
    if plan["crop_background"]:
        crop = {"source_key": "@image", "margin": CROP_MARGIN, "allow_smaller": False}
        chain.append(_transform("monai_unetpp.data.CropBackgroundd", keys, **crop, **allow))
    return [*chain, *_intensities(plan)]


def takes_slices(plan: TrainingPlan) -> bool:
    """Whether volumes can be segmented slice by slice."""
    return plan.spatial_dims == 2 and plan["spacing_mm"] is None and len(plan.channels) == 1


def tells_objects(plan: TrainingPlan) -> bool:
    """Whether the result can be split into numbered objects: one label in 2D images such as those of microscopes."""
    return plan.spatial_dims == 2 and len(plan.labels) == 1 and plan.modality == "other"


def _intensities(plan: TrainingPlan) -> list[_Config]:
    kind = plan["normalization"]
    if kind == "range":
        low, high, mean, sd = plan["intensity_range"]
        return [
            _transform(
                "ScaleIntensityRanged",
                "@image",
                a_min=low,
                a_max=high,
                b_min=round((low - mean) / sd, 6),
                b_max=round((high - mean) / sd, 6),
                clip=True,
            )
        ]
    lower, upper = plan["clip_percentiles"]
    several = {"channel_wise": True} if len(plan.channels) > 1 else {}
    inside = {"inside_surround": True} if kind == "inside" else {}
    standardize = _transform("monai_unetpp.data.StandardizeIntensityd", "@image", **several, **inside)
    inverts, bends = plan["invert_bright_background"], plan["gamma"] != 1
    if inverts or bends or kind == "unit":
        bounds = {"lower": lower, "upper": upper, "b_min": 0.0, "b_max": 1.0, "clip": True}
        chain = [_transform("ScaleIntensityRangePercentilesd", "@image", **bounds, **several)]
        # changes only images of which nearly all voxels are alike, with equal percentiles, which MONAI leaves unscaled
        chain.append(_transform("ScaleIntensityd", "@image", **several))
        if inverts:
            chain.append(_transform("monai_unetpp.data.InvertBrightBackgroundd", "@image"))
        if bends:
            chain.append(_transform("AdjustContrastd", "@image", gamma=plan["gamma"]))
        return chain if kind == "unit" else [*chain, standardize]
    if plan["clip_percentiles"] == _EVERYTHING:
        return [standardize]
    return [_transform("ClipIntensityPercentilesd", "@image", lower=lower, upper=upper, **several), standardize]


def preparation() -> list[_Config]:
    """The steps before patches are drawn, once per case: classes instead of label values, and indices of each class."""
    return [
        {
            "_target_": "MapLabelValued",
            "_disabled_": "$@file_values == @file_classes",
            "keys": "@label",
            "orig_labels": "@file_values",
            "target_labels": "@file_classes",
        },
        _transform("EnsureTyped", _BOTH, dtype="@train#dtypes", track_meta=False),
        _transform("ClassesToIndicesd", "@label", num_classes="@out_channels", max_samples_per_class=_PLACES_PER_CLASS),
    ]


def augmentation(plan: TrainingPlan, late: bool = False) -> list[_Config]:
    """Draw a patch and augment it; ``late``, at the end of the training, with light augmentation at most."""
    strength = "light" if late and plan["augmentation"] == "strong" else plan["augmentation"]
    larger = strength != "none"
    # as much on both sides, so that a patch in the middle needs no interpolation
    room = [math.ceil(_ROOM * edge) if larger else 0 for edge in plan["patch_size"]]
    crop_size = [edge + 2 * beside for edge, beside in zip(plan["patch_size"], room, strict=True)]
    size: Any = "@patch_size"
    around: dict[str, Any] = {}
    if larger and plan["crop_background"]:
        # moved into the image, as patches of little but surround would mislead batch norms
        size = crop_size
    elif larger:
        around = {"crop_size": crop_size, "padding_mode": _padding_mode(plan)}
    chain = [
        _transform(
            "monai_unetpp.training.RandCropByPresentClassesd",
            _BOTH,
            label_key="@label",
            spatial_size=size,
            ratios="@class_ratios",
            num_classes="@out_channels",
            indices_key="$@label + '_cls_indices'",
            allow_smaller=True,
            warn=False,
            **around,
        )
    ]
    if strength == "strong":
        # of the whole crop, as the filter takes 0 beyond it
        sigma = {f"sigma_{axis}": [0.5, 1.2] for axis in "xyz"}
        chain.append(_transform("RandGaussianSmoothd", "@image", prob=0.2, **sigma))
    if larger and plan["crop_background"]:
        # images shorter than a crop
        chain.append(_transform("SpatialPadd", _BOTH, spatial_size=crop_size, mode="edge"))
    if larger:
        chain.append(_affine(plan, strength, room))
    else:
        chain.append(_transform("ResizeWithPadOrCropd", _BOTH, spatial_size="@patch_size", mode="edge"))
    chain += [_transform("RandFlipd", _BOTH, prob=0.5, spatial_axis=axis) for axis in plan["flip_axes"]]
    if plan["rotate90"]:
        chain.append(_transform("RandRotate90d", _BOTH, prob=0.5))
    chain += _intensity_changes(plan, strength)
    return [
        *chain,
        _transform("EnsureTyped", _BOTH, dtype="@train#dtypes", track_meta=False),
        _transform("SelectItemsd", _BOTH),
    ]


def _padding_mode(plan: TrainingPlan) -> str:
    """What lies outside of images in patches: the surround, if it is cropped, else the mirrored image."""
    return "border" if plan["crop_background"] else "reflection"


def window_padding(plan: TrainingPlan) -> str:
    """What lies outside of images in windows, as ``torch.nn.functional.pad`` names it; patches never hold 0 there.

    The mirror image continues the texture of pictures. In volumes, which are often cut close to an organ, it would show
    a second one.
    """
    return "reflect" if plan.spatial_dims == 2 and not plan["crop_background"] else "replicate"


def _affine(plan: TrainingPlan, strength: str, room: list[int]) -> _Config:
    dims = plan.spatial_dims
    angle = _ANY_ROTATION if plan["rotate90"] else _ROTATION[strength]
    thick = is_anisotropic(plan["spacing_mm"])
    angles = [angle if thick in (None, axis) else _TILT for axis in range(dims)] if dims == 3 else [angle]
    return _transform(
        "RandAffined",
        _BOTH,
        prob=0.7,
        spatial_size="@patch_size",
        rotate_range=angles,
        scale_range=[_SCALE[strength]] * dims,
        translate_range=room,
        mode=["bilinear", "nearest"],
        padding_mode=_padding_mode(plan),
    )


def _intensity_changes(plan: TrainingPlan, strength: str) -> list[_Config]:
    if strength == "none":
        return []
    changes = []
    if plan["invert_bright_background"]:
        # as if the background of an image had been mistaken, as that of one crowded with objects is
        func = "$functools.partial(operator.sub, 1.0)" if plan["normalization"] == "unit" else "$operator.neg"
        changes.append(_transform("RandLambdad", "@image", prob=_INVERTED, func=func))
    if plan["bias_field"]:
        changes.append(_transform("RandBiasFieldd", "@image", prob=0.2, coeff_range=[0.0, 0.3]))
    if strength == "strong":
        # the mean of voxels, as the nearest one lies to one side, which moves the image against its label
        modes = {"downsample_mode": "area", "upsample_mode": "trilinear" if plan.spatial_dims == 3 else "bilinear"}
        changes.append(_transform("RandSimulateLowResolutiond", "@image", prob=0.2, **modes, zoom_range=[0.5, 1.0]))
    return [
        *changes,
        _transform("RandGaussianNoised", "@image", prob=0.2, std=0.15),
        _transform("RandAdjustContrastd", "@image", prob=0.3, gamma=[0.7, 1.5], retain_stats=True),
        _transform("RandScaleIntensityd", "@image", prob=0.4, factors=0.25),
        _transform("RandShiftIntensityd", "@image", prob=0.4, offsets=0.2),
    ]


def postprocessing(plan: TrainingPlan, *, discrete: bool, smooth: bool = False, objects: bool = False) -> list[_Config]:
    """Turn the network's output into a label map with the values of the data set, on the input's grid.

    With ``discrete``, the output is logits, else classes. With ``smooth``, the key of this name can choose to resample
    probabilities, and with ``objects``, the key ``instances`` to number the objects.
    """
    chain = []
    if plan["crop_background"]:
        chain.append(_transform("monai_unetpp.data.ClearBackgroundd", "pred", image_key="@image"))
    if discrete:
        chain.append(_transform("AsDiscreted", "pred", argmax=True))
    back = {"orig_keys": "@image", "transform": "@preprocessing"}
    if smooth:
        inversion = _transform("Invertd", "pred", **back, nearest_interp=True, to_tensor=True)
        chain.append({"_disabled_": "@smooth", **inversion})
        exact = _transform("monai_unetpp.data.InvertProbabilitiesd", "pred", **back)
        chain.append({"_disabled_": "$not @smooth", **exact})
    elif plan.spatial_dims == 3 or plan["spacing_mm"] is not None or plan["crop_background"]:
        chain.append(_transform("Invertd", "pred", **back, nearest_interp=True, to_tensor=True))
    values = _transform(
        "MapLabelValued",
        "pred",
        orig_labels="$list(range(1, @out_channels))",
        target_labels="@label_values",
        dtype="$torch.int32",
    )
    chain.append({"_disabled_": "$@label_values == list(range(1, @out_channels))", **values})
    if objects:
        split = _transform("monai_unetpp.data.SplitInstancesd", "pred", min_size="@min_instance_size")
        chain.append({"_disabled_": "$not @instances", **split})
    return chain

"""The data of a study: its cases, how they are prepared, and the patches that every run is trained on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ignite.engine import Engine
from monai.transforms import (
    ClipIntensityPercentilesd,
    Compose,
    EnsureTyped,
    LoadImaged,
    MapLabelValued,
    NormalizeIntensityd,
    Orientationd,
    RandAdjustContrastd,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    SpatialPadd,
)
from torch.utils.data import Dataset, Sampler

from monai_unetpp.data import BlockwiseSpacingd, CheckLabelsd, VolumeReader, case_name, load_datalist
from monai_unetpp.data.datalist import read_content
from monai_unetpp.data.label_names import IGNORE, read_label_names
from monai_unetpp.data.labels import read_label_map
from monai_unetpp.data.nifti import is_nifti_name, open_nifti

if TYPE_CHECKING:
    from monai_unetpp.study.settings import StudySettings

__all__ = [
    "NumberedPatches",
    "RemainingPatches",
    "StudyCases",
    "find_study_cases",
    "make_augmentation",
    "make_preprocessing",
    "make_training_preprocessing",
]

_ROTATION = 0.26  # radians, 15 degrees
_SCALING = 0.2
_KEYS = ("image", "label")


@dataclasses.dataclass(frozen=True)
class StudyCases:
    """The cases of a data set in Decathlon form, and what a network for them must look like.

    Attributes:
        name: of the data set.
        spatial_dims: 2 or 3, as the first label has.
        in_channels: channels per image, in files of their own or on the last axis of one.
        labels: value of each foreground class by name. In a network the classes are 1 to n, in the order of values.
        training: dicts with ``image`` and ``label``.
        validation: the cases that are scored.
        folder: that the data set lies in.
        ignore_label: value of voxels that take no part in training and scores, if there are such. For training they
            have the value ``ignored_class``.
    """

    name: str
    spatial_dims: int
    in_channels: int
    labels: dict[str, int]
    training: tuple[dict[str, Any], ...]
    validation: tuple[dict[str, Any], ...]
    folder: Path = Path()
    ignore_label: int | None = None

    @property
    def out_channels(self) -> int:
        """Classes with the background."""
        return len(self._values) + 1

    @property
    def label_dtype(self) -> torch.dtype:
        """The smallest type that holds the classes, for label maps in memory."""
        return torch.uint8 if self.out_channels + (self.ignore_label is not None) <= 256 else torch.int16

    @property
    def ignored_class(self) -> int | None:
        """What stands for ``ignore_label`` where classes are 0 to n: the number after the last."""
        return None if self.ignore_label is None else self.out_channels

    @property
    def _values(self) -> list[int]:
        return sorted(set(self.labels.values()))

    def map_values(self, key: str, *, back: bool = False) -> tuple[MapLabelValued, ...]:
        """The transform from label values to the classes of a network, if they differ.

        Args:
            key: of the label map.
            back: from classes to label values.
        """
        values, classes = self._values, list(range(1, self.out_channels))
        if self.ignore_label is not None and not back:
            values, classes = [*values, self.ignore_label], [*classes, self.out_channels]
        if values == classes:
            return ()
        pair = (classes, values) if back else (values, classes)
        return (MapLabelValued(key, *pair),)

    def as_dict(self) -> dict[str, Any]:
        """What must be the same wherever runs of one study are done; folders may differ."""
        return {
            "name": self.name,
            "spatial_dims": self.spatial_dims,
            "in_channels": self.in_channels,
            "labels": {**self.labels, **({} if self.ignore_label is None else {IGNORE: self.ignore_label})},
            "training": [_name(case) for case in self.training],
            "validation": [_name(case) for case in self.validation],
        }


def find_study_cases(dataset_dir: str | PathLike[str]) -> StudyCases:
    """Read ``dataset.json``, and from the first case how many axes and channels the images have.

    Args:
        dataset_dir: folder in Decathlon form. Where it has no ``validation`` list, a fifth of the training cases is
            drawn for it, always the same ones.

    Raises:
        FileNotFoundError: no ``dataset.json``.
        ValueError: it cannot be used, or has no names of labels.
    """
    training = load_datalist(dataset_dir, "training")
    validation = load_datalist(dataset_dir, "validation")
    path = Path(dataset_dir) / "dataset.json"
    content = read_content(path)
    names = read_label_names(path, content.get("labels"))
    spatial_dims = read_label_map(Path(training[0]["label"])).data.ndim
    return StudyCases(
        name=str(content.get("name", Path(dataset_dir).resolve().name)),
        spatial_dims=spatial_dims,
        in_channels=_count_channels(training[0]["image"], spatial_dims, path, content),
        labels=names.foreground,
        training=tuple(training),
        validation=tuple(validation),
        folder=Path(dataset_dir),
        ignore_label=names.ignore,
    )


def _count_channels(image: Any, spatial_dims: int, path: Path, content: Mapping[str, Any]) -> int:
    if isinstance(image, list):
        return len(image)
    count = math.prod(open_nifti(image).shape[spatial_dims:]) if is_nifti_name(image) else 1
    named = len(content.get("modality") or content.get("channel_names") or ())
    # a further axis may also be time
    if count not in (1, named):
        raise ValueError(
            f"{path}: modality must name the channels of the images, got {named} name(s) for {count} on the last axis "
            f"of {image}. Name them, or give images without this axis."
        )
    return count


def _name(case: Mapping[str, Any]) -> str:
    image = case["image"]
    return case_name(image[0] if isinstance(image, list) else image)


def make_preprocessing(cases: StudyCases, settings: StudySettings, keys: Sequence[str] = _KEYS) -> Compose:
    """The transforms that are the same in training and scoring: load, orient, resample, clip and normalise.

    Args:
        cases: for the number of axes.
        settings: for the voxel size.
        keys: ``("image", "label")`` for training, ``("image",)`` for scoring.
    """
    steps: list[Callable[..., Any]] = []
    for key in keys:
        is_label = key == "label"
        reader: Any = VolumeReader(
            cases.spatial_dims,
            allow_constant=is_label,
            channels=1 if is_label else cases.in_channels,
            labels=is_label,
        )
        steps.append(LoadImaged(key, reader=reader, ensure_channel_first=True))
    if "label" in keys:
        values = list(cases.labels.values())
        steps.append(CheckLabelsd("label", image_key="image", classes=values, ignore_label=cases.ignore_label))
    if cases.spatial_dims == 3:
        steps.append(Orientationd(keys, axcodes="RAS", labels=None))
    if settings.spacing_mm is not None:
        modes = ["bilinear" if key == "image" else "nearest" for key in keys]
        steps.append(BlockwiseSpacingd(keys, pixdim=settings.spacing_mm, mode=modes))
    steps += [
        ClipIntensityPercentilesd("image", lower=0.5, upper=99.5),
        NormalizeIntensityd("image", channel_wise=True),
    ]
    return Compose(steps)


def make_training_preprocessing(cases: StudyCases, settings: StudySettings) -> Compose:
    """:func:`make_preprocessing`, with the classes of the network, padded to the patch, as plain small tensors."""
    return Compose(
        [
            *make_preprocessing(cases, settings).transforms,
            *cases.map_values("label"),
            SpatialPadd(_KEYS, spatial_size=settings.patch_size),
            EnsureTyped(_KEYS, dtype=[torch.float32, cases.label_dtype], track_meta=False),
        ]
    )


def make_augmentation(cases: StudyCases, settings: StudySettings) -> Compose:
    """Random patches, half of them around foreground, rotated, scaled, flipped and with changed intensities."""
    dims = cases.spatial_dims
    rotation = (_ROTATION,) * (1 if dims == 2 else 3)
    return Compose(
        [
            RandCropByPosNegLabeld(_KEYS, label_key="label", spatial_size=settings.patch_size, num_samples=1),
            RandAffined(
                _KEYS,
                prob=0.5,
                rotate_range=rotation,
                scale_range=(_SCALING,) * dims,
                mode=["bilinear", "nearest"],
                padding_mode="reflection",
            ),
            *(RandFlipd(_KEYS, prob=0.5, spatial_axis=axis) for axis in settings.flip_axes),
            RandGaussianNoised("image", prob=0.15, std=0.15),
            RandGaussianSmoothd("image", prob=0.15, sigma_x=(0.5, 1.0), sigma_y=(0.5, 1.0), sigma_z=(0.5, 1.0)),
            RandScaleIntensityd("image", factors=0.2, prob=0.5),
            RandShiftIntensityd("image", offsets=0.2, prob=0.5),
            RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5)),
            EnsureTyped(_KEYS, dtype=[torch.float32, cases.label_dtype], track_meta=False),
        ]
    )


class NumberedPatches(Dataset[dict[str, torch.Tensor]]):
    """Training patches by number: patch ``i`` of a seed is the same for every network, process and day.

    So all variants are trained on the same patches in the same order, and an interrupted run goes on with the patch
    that it would have seen next. Each pass over the cases has its own order.

    Args:
        cases: prepared cases by number.
        augmentation: the random transforms.
        seed: of order, patches and augmentation.
        length: number of patches.
    """

    def __init__(self, cases: Sequence[Mapping[str, Any]], augmentation: Compose, seed: int, length: int) -> None:
        self.cases = cases
        self.augmentation = augmentation
        self.seed = seed
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        turn, place = divmod(index, len(self.cases))
        order = np.random.default_rng((self.seed, 0, turn)).permutation(len(self.cases))
        state = np.random.default_rng((self.seed, 1, index)).integers(2**31)
        self.augmentation.set_random_state(seed=int(state))
        patch: Any = self.augmentation(self.cases[int(order[place])])
        # the random crop gives a list of patches, here of one
        result: dict[str, torch.Tensor] = patch[0] if isinstance(patch, list) else patch
        return result


class RemainingPatches(Sampler[int]):
    """The numbers of the patches that are left, from the step on at which ``engine`` stands.

    Args:
        length: number of all patches.
        batch_size: patches per step.

    Attributes:
        engine: the trainer; to be set before patches are drawn.
    """

    def __init__(self, length: int, batch_size: int) -> None:
        self.length = length
        self.batch_size = batch_size
        self.engine: Engine | None = None

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        done = 0 if self.engine is None else self.engine.state.iteration * self.batch_size
        return iter(range(done, self.length))

"""The settings of a study, and which of its runs to do. Does not import torch, so that ``--help`` is fast."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from monai_unetpp.choices import PRECISIONS
from monai_unetpp.files import read_json_object
from monai_unetpp.options import option, option_names, own_shard
from monai_unetpp.planning.values import SETTABLE, check_one

__all__ = ["RunOptions", "StudySettings", "flip_axes_with_sides", "read_config"]

_RUNS, _SPEED = "runs", "speed"
_PRECISIONS = tuple(name for name in PRECISIONS if name != "fp16")  # its gradients underflow

#: Defaults by number of axes.
_BY_AXES: dict[str, dict[int, Any]] = {
    "patch_size": {2: 128, 3: 64},
    "batch_size": {2: 8, 3: 2},
    "flip_axes": {2: (0, 1), 3: (0,)},
}


def flip_axes_with_sides(spatial_dims: int) -> tuple[int, ...]:
    """The axes along which patches are flipped where labels are of one side: all by default but that of the sides."""
    return tuple(filter(None, _BY_AXES["flip_axes"][spatial_dims]))


def _default(name: str) -> str:
    flat, deep = (" ".join(map(str, value)) if isinstance(value, tuple) else value for value in _BY_AXES[name].values())
    return f"(default: {flat} in 2D, {deep} in 3D)"


@dataclasses.dataclass(frozen=True)
class StudySettings:
    """The settings that all runs of a study share. Settings that are None get a default for the number of axes.

    Args:
        spatial_dims: axes of the images, 2 or 3. ``patch_size`` and ``spacing_mm`` may be one number for all axes.

    Attributes:
        features: channels of each resolution of U-Net, U-Net^e, UNet+ and UNet++, finest first, at least three.
        budget: training steps of each run. Steps, not minutes: in the same time a smaller network would see more
            patches, and the result would depend on the machine.
        patch_size: size of a patch along each axis, in voxels; also that of a window in scoring.
        batch_size: patches per step.
        learning_rate: peak learning rate of AdamW, reached after a twentieth of the steps; then cosine decay to 0.
        precision: ``"auto"``, ``"fp32"`` or ``"bf16"``, in training and scoring. Weights, loss and scores stay in
            fp32.
        spacing_mm: voxel size to resample volumes to; None leaves the images on their own grids.
        flip_axes: axes of random flips of training patches. Leave out axes whose direction distinguishes classes; by
            default a study leaves out axis 0 where names of labels have a side.
        overlap: overlap of neighbouring windows in scoring, as a share of a window.
        checkpoint_steps: steps between two checkpoints; an interruption costs at most as many.

    Raises:
        TypeError: a value of the wrong type.
        ValueError: an invalid value.
    """

    spatial_dims: dataclasses.InitVar[int]
    features: tuple[int, ...] = option(
        (16, 32, 64, 128, 256), nargs="+", type=int, metavar="N", help="channels by resolution"
    )
    budget: int = option(1500, type=int, metavar="STEPS", help="training steps per run")
    batch_size: int = option(None, type=int, metavar="N", help=f"patches per step {_default('batch_size')}")
    patch_size: tuple[int, ...] = option(
        None, nargs="+", type=int, metavar="N", help=f"size of patches and windows {_default('patch_size')}"
    )
    learning_rate: float = option(1e-3, type=float, metavar="RATE", help="highest learning rate of the schedule")
    precision: str = option(
        "auto",
        metavar="NAME",
        help="auto, fp32 or bf16 (default: auto, bf16 where the device has it natively)",
    )
    spacing_mm: tuple[float, ...] | None = option(
        None, nargs="+", type=float, metavar="MM", help="resample to this voxel size (default: no resampling)"
    )
    flip_axes: tuple[int, ...] = option(
        None,
        nargs="*",
        type=int,
        metavar="AXIS",
        help=f"axes that patches are flipped along {_default('flip_axes')}; axis 0 is left out where labels have sides",
    )
    overlap: float = option(0.25, type=float, metavar="SHARE", help="overlap of windows in scoring")
    checkpoint_steps: int = option(50, type=int, metavar="STEPS", help="steps between checkpoints")

    def __post_init__(self, spatial_dims: int) -> None:
        given = {name: getattr(self, name) for name in option_names(StudySettings)}
        values = given | {name: of[spatial_dims] for name, of in _BY_AXES.items() if given[name] is None}
        for name in ("batch_size", "patch_size", "learning_rate", "spacing_mm", "flip_axes", "overlap"):
            value = values[name]
            if name in ("patch_size", "spacing_mm") and _is_list(value) and len(value) == 1:
                (value,) = value
            checked = check_one(name, value, spatial_dims)
            values[name] = tuple(checked) if isinstance(checked, list) else checked
        for name in ("budget", "checkpoint_steps"):
            values[name] = SETTABLE["steps"](name, values[name], spatial_dims)
        features = values["features"]
        if not _is_list(features) or len(features) < 3:
            raise ValueError(
                f"features must have at least three entries, got {features!r}. With two, there is only L1, and all "
                "variants are the same network."
            )
        values["features"] = tuple(SETTABLE["steps"]("features", entry, spatial_dims) for entry in features)
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check()

    @classmethod
    def complete(cls, given: Mapping[str, Any], spatial_dims: int) -> StudySettings:
        """The settings by name; missing ones and None get the default.

        Raises:
            TypeError: a value of the wrong type.
            ValueError: an unknown setting, or an invalid value.
        """
        names = option_names(cls)
        unknown = next((name for name in given if name not in names), None)
        if unknown is not None:
            raise ValueError(f"settings must be among {', '.join(names)}, got {unknown!r}. Correct the name.")
        return cls(spatial_dims, **{name: value for name, value in given.items() if value is not None})

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON types."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values

    def _check(self) -> None:
        if self.precision not in _PRECISIONS:
            reason = "Its gradients underflow; use bf16." if self.precision == "fp16" else "Correct the name."
            raise ValueError(f"precision must be one of {', '.join(_PRECISIONS)}, got {self.precision!r}. {reason}")
        depth = len(self.features) - 1
        # instance norm needs more than one element in the coarsest map
        if max(self.patch_size) <= 2**depth:
            raise ValueError(
                f"patch_size must be more than {2**depth} along at least one axis for {len(self.features)} features, "
                f"got {list(self.patch_size)}. Give a larger patch_size, or fewer features."
            )


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Which runs to do, and how; nothing here changes the result of a run.

    Attributes:
        variants: names or patterns such as ``"unet++*"``; None is all.
        seeds: one training of each network per seed.
        shard: ``"K/N"`` for every N-th run from the K-th on; None is all of them.
        num_workers: processes that draw patches; 0 draws them in this one.
        cache_rate: share of the prepared training cases to keep in memory.

    Raises:
        TypeError: a value of the wrong type.
        ValueError: an invalid value.
    """

    variants: Sequence[str] | None = option(
        None,
        group=_RUNS,
        nargs="+",
        action="extend",
        metavar="NAME",
        help="names or patterns such as 'unet++*', see --list (default: all)",
    )
    seeds: Sequence[int] = option(
        (0,),
        group=_RUNS,
        nargs="+",
        action="extend",
        type=int,
        metavar="SEED",
        help="a run of each network per seed",
    )
    shard: str | None = option(
        None,
        group=_RUNS,
        metavar="K/N",
        help="do every N-th run from the K-th on: N processes with one folder share the work",
    )
    num_workers: int = option(0, group=_SPEED, type=int, metavar="N", help="processes that draw patches")
    cache_rate: float = option(
        1.0, group=_SPEED, type=float, metavar="SHARE", help="share of the training cases that is kept in memory"
    )

    def __post_init__(self) -> None:
        names, seeds = self.variants, self.seeds
        if names is not None and not (_is_list(names) and names and all(isinstance(name, str) for name in names)):
            raise TypeError(f"variants must be a list of names, got {names!r}. Write ['unet_L4', 'unet++*'].")
        whole = _is_list(seeds) and all(isinstance(seed, int) and seed >= 0 for seed in seeds)
        if not whole or not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds must be different whole numbers from 0 up, got {seeds!r}. Write 0 1 2.")
        if not isinstance(self.num_workers, int) or self.num_workers < 0:
            raise ValueError(
                f"num_workers must be 0 or more, got {self.num_workers!r}. 0 draws patches in this process."
            )
        if not 0 <= self.cache_rate <= 1:
            raise ValueError(
                f"cache_rate must lie between 0 and 1, got {self.cache_rate!r}. 1 keeps all cases in memory."
            )
        self.part()

    def part(self) -> tuple[int, int]:
        """K and N of this process; under ``torchrun``, from its rank and the number of processes."""
        return own_shard(self.shard)


def read_config(path: str | PathLike[str]) -> dict[str, Any]:
    """The settings in a JSON file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a JSON object.
    """
    return read_json_object(path, 'config must name a JSON file of settings, such as {"budget": 1000}.')


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)

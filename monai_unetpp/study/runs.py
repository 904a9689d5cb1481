"""What a study compares: the networks that are trained, and the rows of its table."""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from monai_unetpp import topology
from monai_unetpp.networks import NestedUNet

__all__ = [
    "MEAN_OF_HEADS",
    "PARAMETER_TOLERANCE",
    "REFERENCE",
    "WIDE",
    "StudyRow",
    "StudyVariant",
    "assign_shard",
    "build_network",
    "choose_variants",
    "count_parameters",
    "is_chosen",
    "list_rows",
    "list_variants",
    "match_wide_features",
]

MEAN_OF_HEADS = "mean"
"""Name, in place of a level's, of the mean of the class probabilities of all heads."""

REFERENCE = "UNet++, deep supervision"
"""Name of the row that all others are compared with."""

WIDE = "unet_wide"
"""Name of the U-Net with the parameters of UNet++."""

PARAMETER_TOLERANCE = 0.01
"""Largest relative difference between the parameters of the wide U-Net and of UNet++."""

Kind = Literal["network", "mean", "embedded", "isolated"]


@dataclasses.dataclass(frozen=True)
class StudyVariant:
    """A network that is trained, once per seed.

    Attributes:
        name: as in folders and on the command line, such as ``"unet++_ds"``.
        variant: of :class:`~monai_unetpp.NestedUNet`.
        features: channels of each resolution.
        deep_supervision: whether every level is trained.
    """

    name: str
    variant: str
    features: tuple[int, ...]
    deep_supervision: bool

    @property
    def deepest(self) -> str:
        """Its deepest level."""
        return topology.level_name(len(self.features) - 1)

    def config(self, spatial_dims: int, in_channels: int, out_channels: int) -> dict[str, Any]:
        """Arguments of :class:`~monai_unetpp.NestedUNet`."""
        return {
            "spatial_dims": spatial_dims,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "features": self.features,
            "variant": self.variant,
            "deep_supervision": self.deep_supervision,
        }


@dataclasses.dataclass(frozen=True)
class StudyRow:
    """A line of the table: a trained network, used at one level.

    Attributes:
        name: as in the table.
        variant: name of the :class:`StudyVariant` that is trained for it; several rows may share one.
        level: such as ``"L4"``, or :data:`MEAN_OF_HEADS`.
        kind: ``"network"`` for a network at its deepest level, ``"mean"`` for the mean of all its heads,
            ``"embedded"`` for UNet++ cut to a level after training, ``"isolated"`` for that level trained alone.
    """

    name: str
    variant: str
    level: str
    kind: Kind


def list_variants(features: Sequence[int], wide_features: Sequence[int] | None) -> tuple[StudyVariant, ...]:
    """All networks that a study trains.

    UNet++ L1 is the same network as the U-Net of depth 1, so it is trained once.

    Args:
        features: channels of each resolution of all but the wide U-Net.
        wide_features: those of the wide U-Net, see :func:`match_wide_features`; None leaves it out.
    """
    wide = () if wide_features is None else (StudyVariant(WIDE, "unet", tuple(wide_features), False),)
    given = tuple(features)
    depths = range(1, len(given))
    return (
        *(StudyVariant(f"unet_{topology.level_name(k)}", "unet", given[: k + 1], False) for k in depths),
        *wide,
        StudyVariant("unet_e", "unet_e", given, True),
        StudyVariant("unet+", "unet+", given, False),
        StudyVariant("unet+_ds", "unet+", given, True),
        StudyVariant("unet++", "unet++", given, False),
        StudyVariant("unet++_ds", "unet++", given, True),
        *(StudyVariant(f"unet++_{topology.level_name(k)}_alone", "unet++", given[: k + 1], True) for k in depths[1:-1]),
    )


def list_rows(features: Sequence[int]) -> tuple[StudyRow, ...]:
    """All rows of a study's table, in their order.

    Args:
        features: channels of each resolution; only their number matters.
    """
    levels = [topology.level_name(k) for k in range(1, len(features))]
    deepest, cut = levels[-1], levels[:-1]
    supervised = {"U-Net^e": "unet_e", "UNet+, deep supervision": "unet+_ds", REFERENCE: "unet++_ds"}
    plain = {"UNet+": "unet+", "UNet++": "unet++"}
    rows = [StudyRow(f"U-Net {level}", f"unet_{level}", level, "network") for level in levels]
    rows.append(StudyRow("wide U-Net", WIDE, deepest, "network"))
    # each network without deep supervision before the same with it
    for name, variant in sorted({**plain, **supervised}.items(), key=lambda item: _ORDER.index(item[1])):
        rows.append(StudyRow(name, variant, deepest, "network"))
        if name in supervised:
            rows.append(StudyRow(f"{name}, mean of heads", variant, MEAN_OF_HEADS, "mean"))
    rows += [StudyRow(f"UNet++ {level}, embedded", "unet++_ds", level, "embedded") for level in cut]
    rows += [
        StudyRow(f"UNet++ {level}, alone", "unet_L1" if level == "L1" else f"unet++_{level}_alone", level, "isolated")
        for level in cut
    ]
    return tuple(rows)


_ORDER = ("unet_e", "unet+", "unet+_ds", "unet++", "unet++_ds")


def is_chosen(name: str, patterns: Sequence[str] | None) -> bool:
    """Whether a variant's name is given or matches a pattern; None means all of them."""
    return patterns is None or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def choose_variants(variants: Sequence[StudyVariant], patterns: Sequence[str] | None) -> tuple[StudyVariant, ...]:
    """Those of ``variants`` whose name is given or matches a pattern such as ``"unet++*"``.

    Raises:
        ValueError: a pattern that no name matches.
    """
    for pattern in patterns or ():
        if not any(is_chosen(each.name, [pattern]) for each in variants):
            names = ", ".join(each.name for each in variants)
            raise ValueError(f"variants must be names or patterns of {names}, got {pattern!r}. Correct the name.")
    return tuple(each for each in variants if is_chosen(each.name, patterns))


def assign_shard(count: int, shard: tuple[int, int]) -> list[int]:
    """The numbers of the runs of one of several processes.

    Args:
        count: number of all runs.
        shard: ``(k, n)``, process k of n, from 1 on.

    Raises:
        ValueError: k is not within 1 to n.
    """
    k, n = shard
    if not 1 <= k <= n:
        raise ValueError(f"shard must be K/N with K from 1 to N, got {k}/{n}. For two processes give 1/2 and 2/2.")
    return list(range(k - 1, count, n))


def build_network(config: Mapping[str, Any]) -> NestedUNet:
    """A network without memory for its weights, to count and to list its levels."""
    with torch.device("meta"):
        return NestedUNet(**config)


def count_parameters(config: Mapping[str, Any]) -> int:
    """Number of parameters of the network of ``config``."""
    return sum(parameter.numel() for parameter in build_network(config).parameters())


def match_wide_features(
    features: Sequence[int], *, spatial_dims: int, in_channels: int = 1, out_channels: int = 2
) -> tuple[int, ...]:
    """Features of a U-Net that has as many parameters as UNet++, in the proportions of ``features``.

    All features are multiplied by one factor, which is found by bisection, and rounded. Where that is not within
    :data:`PARAMETER_TOLERANCE`, each is rounded up or down so that the number of parameters is closest. So each differs
    by no more than one from the exact proportion.

    Args:
        features: channels of each resolution of UNet++.
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes with the background.

    Raises:
        ValueError: features so small that no rounding comes within :data:`PARAMETER_TOLERANCE`.

    Example:
        >>> match_wide_features((32, 64, 128, 256, 512), spatial_dims=2)
        (35, 69, 138, 277, 554)
    """
    common = {"spatial_dims": spatial_dims, "in_channels": in_channels, "out_channels": out_channels}
    target = count_parameters({**common, "features": tuple(features), "deep_supervision": False})

    def parameters(candidate: Sequence[int]) -> int:
        return count_parameters({**common, "features": tuple(candidate), "variant": "unet", "deep_supervision": False})

    low, high = 1.0, 2.0
    while high - low > 0.5 / max(features):
        middle = (low + high) / 2
        low, high = (middle, high) if parameters(_scaled(features, middle)) < target else (low, middle)
    best = _scaled(features, high)
    if abs(parameters(best) - target) > PARAMETER_TOLERANCE * target:
        bounds = [(int(high * each), int(high * each) + 1) for each in features]
        best = min(itertools.product(*bounds), key=lambda candidate: abs(parameters(candidate) - target))
    found = parameters(best)
    if abs(found - target) > PARAMETER_TOLERANCE * target:
        raise ValueError(
            f"features must be large enough for a wide U-Net with the {target:,} parameters of UNet++ within "
            f"{PARAMETER_TOLERANCE:.0%}, got {list(features)}, for which the closest, {list(best)}, has {found:,}. "
            f"Give larger features, or leave {WIDE} out of variants."
        )
    return best


def _scaled(features: Sequence[int], factor: float) -> tuple[int, ...]:
    return tuple(max(1, round(factor * each)) for each in features)

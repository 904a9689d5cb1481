"""What a study compares: the networks that are trained, and the rows of its table."""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch

from monai_unetpp import topology
from monai_unetpp.measuring import size
from monai_unetpp.networks import NestedUNet
from monai_unetpp.reporting.numbers import percent

__all__ = [
    "MEAN_OF_HEADS",
    "PARAMETER_TOLERANCE",
    "REFERENCE",
    "WIDE",
    "StudyRow",
    "StudyVariant",
    "choose_names",
    "count_parameters",
    "list_rows",
    "list_variants",
    "match_wide_features",
    "variant_names",
]

MEAN_OF_HEADS = "mean"
"""Stands in for a level, as the mean of the class probabilities of all heads."""

REFERENCE = "UNet++, deep supervision"
"""Name of the row that all others are compared with."""

WIDE = "unet_wide"
"""Name of the U-Net with the parameters of UNet++."""

PARAMETER_TOLERANCE = 0.01
"""Largest relative difference between the parameters of the wide U-Net and of UNet++."""

_LARGEST_STEP = 3

Kind = Literal["network", "mean", "embedded", "isolated"]


@dataclasses.dataclass(frozen=True)
class StudyVariant:
    """A network that is trained once per seed.

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
    # each network first without deep supervision, then with it
    nested = {"unet_e": "U-Net^e", "unet+": "UNet+", "unet+_ds": "UNet+, deep supervision"}
    nested |= {"unet++": "UNet++", "unet++_ds": REFERENCE}
    rows = [StudyRow(f"U-Net {level}", f"unet_{level}", level, "network") for level in levels]
    rows.append(StudyRow("wide U-Net", WIDE, deepest, "network"))
    for variant, name in nested.items():
        rows.append(StudyRow(name, variant, deepest, "network"))
        if variant not in ("unet+", "unet++"):
            rows.append(StudyRow(f"{name}, mean of heads", variant, MEAN_OF_HEADS, "mean"))
    rows += [StudyRow(f"UNet++ {level}, embedded", "unet++_ds", level, "embedded") for level in cut]
    rows += [
        StudyRow(f"UNet++ {level}, alone", "unet_L1" if level == "L1" else f"unet++_{level}_alone", level, "isolated")
        for level in cut
    ]
    return tuple(rows)


def variant_names(features: Sequence[int]) -> tuple[str, ...]:
    """Names of all networks, including the wide one even if there is none for these ``features``."""
    return tuple(each.name for each in list_variants(features, features))


def choose_names(names: Sequence[str], patterns: Sequence[str] | None) -> tuple[str, ...]:
    """The ``names`` that match one of ``patterns``, such as ``"unet++*"``; None means all of them.

    Raises:
        ValueError: a pattern that no name matches.
    """
    if patterns is None:
        return tuple(names)
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            listed = ", ".join(names)
            raise ValueError(f"variants must be names or patterns of {listed}, got {pattern!r}. Correct the name.")
    return tuple(name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))


def count_parameters(config: Mapping[str, Any]) -> int:
    """Number of parameters of the network of ``config``, without allocating its weights."""
    with torch.device("meta"):
        return size.count_parameters(NestedUNet(**config))


def match_wide_features(
    features: Sequence[int], *, spatial_dims: int, in_channels: int = 1, out_channels: int = 2
) -> tuple[int, ...]:
    """Features of a U-Net with as many parameters as UNet++, in the proportions of ``features``.

    All features are multiplied by one factor, found by bisection, and rounded. If that is not within
    :data:`PARAMETER_TOLERANCE`, each is rounded up or down to come closest. If that does not suffice, as with few
    channels, each may differ by up to three more channels, but is never lower than in ``features``.

    Args:
        features: channels of each resolution of UNet++.
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes with the background.

    Raises:
        ValueError: ``features`` are too small for any to come within :data:`PARAMETER_TOLERANCE`.

    Example:
        >>> match_wide_features((32, 64, 128, 256, 512), spatial_dims=2)
        (35, 69, 138, 277, 554)
    """
    common = {"spatial_dims": spatial_dims, "in_channels": in_channels, "out_channels": out_channels}
    target = count_parameters({**common, "features": tuple(features), "deep_supervision": False})

    parameters = _parameter_polynomial(features, {**common, "variant": "unet", "deep_supervision": False})
    low, high = 1.0, 2.0
    while high - low > 0.5 / max(features):
        middle = (low + high) / 2
        low, high = (middle, high) if parameters(_scaled(features, middle)) < target else (low, middle)
    best = _scaled(features, high)
    for step in range(_LARGEST_STEP + 1):
        if abs(parameters(best) - target) <= PARAMETER_TOLERANCE * target:
            break
        bounds = [range(max(each, int(high * each) - step), int(high * each) + 2 + step) for each in features]
        best = min(itertools.product(*bounds), key=lambda candidate: abs(parameters(candidate) - target))
    found = parameters(best)
    if abs(found - target) > PARAMETER_TOLERANCE * target:
        raise ValueError(
            f"features must be large enough for a wide U-Net with the {target:,} parameters of UNet++ within "
            f"{percent(PARAMETER_TOLERANCE)}, got {list(features)}, for which the closest, {list(best)}, has "
            f"{found:,}. Give larger features, or leave {WIDE} out of variants."
        )
    return best


def _parameter_polynomial(features: Sequence[int], common: Mapping[str, Any]) -> Callable[[Sequence[int]], int]:
    """The number of parameters as a function of the features, without building each network.

    It is a polynomial of second degree, whose mixed terms join neighbouring resolutions only, as a convolution has
    inputs of its own and of one other resolution. So a few networks, with about these ``features``, determine it.
    """
    count = len(features)

    def more(*indices: int) -> int:
        changed = [each + indices.count(index) for index, each in enumerate(features)]
        return count_parameters({**common, "features": tuple(changed)})

    base = more()
    once, twice = [more(i) - base for i in range(count)], [more(i, i) - base for i in range(count)]
    mixed = [more(i, i + 1) - base - once[i] - once[i + 1] for i in range(count - 1)]
    # second differences are even: the coefficient of a square is half of one
    squares = [(twice[i] - 2 * once[i]) // 2 for i in range(count)]

    def parameters(candidate: Sequence[int]) -> int:
        x = [mine - theirs for mine, theirs in zip(candidate, features, strict=True)]
        own = sum(each * (once[i] + squares[i] * (each - 1)) for i, each in enumerate(x))
        return base + own + sum(mixed[i] * x[i] * x[i + 1] for i in range(count - 1))

    return parameters


def _scaled(features: Sequence[int], factor: float) -> tuple[int, ...]:
    return tuple(max(1, round(factor * each)) for each in features)

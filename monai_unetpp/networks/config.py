"""The checked arguments of a nested U-Net."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import torch
from monai.networks.layers.factories import Act, Dropout, Norm
from monai.networks.layers.utils import get_act_layer, get_dropout_layer, get_norm_layer
from monai.utils.enums import UpsampleMode

from monai_unetpp import topology

BLOCKS = ("plain", "residual")

#: The arguments of NestedUNet in order; a test compares its signature with them.
_REQUIRED = ("spatial_dims", "in_channels", "out_channels")
_DEFAULTS: dict[str, Any] = {
    "features": (32, 64, 128, 256, 512),
    "variant": "unet++",
    "strides": 2,
    "kernel_size": 3,
    "block": "plain",
    "act": ("LeakyReLU", {"negative_slope": 0.1, "inplace": True}),
    "norm": ("instance", {"affine": True}),
    "bias": True,
    "dropout": 0.0,
    "upsample": "deconv",
    "deep_supervision": True,
    "up_features": None,
    "last_features": None,
    "ceil_mode": True,
    "use_checkpoint": False,
}


@dataclasses.dataclass(frozen=True)
class NestedUNetConfig:
    """Arguments of ``NestedUNet`` after :meth:`check`: complete, normalized and compatible."""

    spatial_dims: int
    in_channels: int
    out_channels: int
    features: tuple[int, ...]
    variant: str
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    block: str
    act: Any
    norm: Any
    bias: bool
    dropout: Any
    upsample: str
    deep_supervision: bool
    up_features: tuple[int, ...]
    last_features: int
    ceil_mode: bool
    use_checkpoint: bool
    given: dict[str, Any]

    @classmethod
    def check(cls, **arguments: Any) -> NestedUNetConfig:
        """Check the arguments of ``NestedUNet``, with its defaults for missing ones; see there for errors."""
        given = _with_defaults(arguments)
        dims = _one_of("spatial_dims", given["spatial_dims"], (2, 3))
        features = _channels("features", given["features"])
        if len(features) < 2:
            raise ValueError(
                f"features must have at least two entries, got {list(features)}. Each entry after the first adds a "
                "level: two give L1."
            )
        depth = len(features) - 1
        strides = _per_level("strides", given["strides"], depth, dims)
        last = given["last_features"]
        last = features[0] if last is None else _positive("last_features", last)
        layers = {name: _plain(name, given[name]) for name in ("act", "norm", "dropout")}
        _check_layers(given, {*features, last})
        switches = {name: given[name] for name in ("bias", "deep_supervision", "ceil_mode", "use_checkpoint")}
        for name, value in switches.items():
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False, got {value!r}.")
        return cls(
            spatial_dims=dims,
            in_channels=_positive("in_channels", given["in_channels"]),
            out_channels=_positive("out_channels", given["out_channels"]),
            features=features,
            variant=_one_of("variant", given["variant"], topology.VARIANTS),
            strides=strides,
            kernel_sizes=_kernel_sizes(given["kernel_size"], depth, dims),
            block=_one_of("block", given["block"], BLOCKS),
            upsample=_upsample(given, strides),
            up_features=_up_features(given["up_features"], features),
            last_features=last,
            given={name: _plain(name, value) for name, value in given.items()},
            **layers,
            **switches,
        )

    @property
    def depth(self) -> int:
        """Number of downsampling steps, and of the deepest level."""
        return len(self.features) - 1

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that have a head, shallowest first."""
        names = topology.level_names(self.depth, self.variant)
        return names if self.deep_supervision else names[-1:]

    def channels(self, node: topology.Node) -> int:
        """Output channels of ``node``."""
        return self.last_features if node == (0, self.depth) else self.features[node.depth]

    @property
    def downsampling(self) -> tuple[int, ...]:
        """The factor between the finest and the coarsest resolution along each axis."""
        return tuple(math.prod(stride[axis] for stride in self.strides) for axis in range(self.spatial_dims))

    def smallest_size(self) -> list[int]:
        """The smallest input size along each axis."""
        return [1] * self.spatial_dims if self.ceil_mode else list(self.downsampling)

    def pruned(self, level: str) -> NestedUNetConfig:
        """The configuration of the network from :meth:`NestedUNet.prune`."""
        index = topology.level_index(level, self.levels)
        changes: dict[str, Any] = {"features": self.given["features"][: index + 1], "deep_supervision": False}
        for name, length in (("strides", index), ("kernel_size", index + 1), ("up_features", index)):
            if isinstance(self.given[name], list):
                changes[name] = self.given[name][:length]
        if index < self.depth:
            changes["last_features"] = None
        return NestedUNetConfig.check(**{**self.given, **changes})

    def as_dict(self) -> dict[str, Any]:
        """The constructor's arguments as plain values for JSON and ``weights_only`` loading."""
        return {name: _plain(name, value) for name, value in self.given.items()}


def _with_defaults(arguments: Mapping[str, Any]) -> dict[str, Any]:
    known = (*_REQUIRED, *_DEFAULTS)
    unknown = [name for name in arguments if name not in known]
    if unknown:
        raise TypeError(f"NestedUNet has no argument {unknown[0]!r}. It takes: {', '.join(known)}.")
    missing = [name for name in _REQUIRED if name not in arguments]
    if missing:
        raise TypeError(f"NestedUNet needs the argument {missing[0]!r}.")
    return {name: arguments[name] if name in arguments else _DEFAULTS[name] for name in known}


def _one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    # 2.0 and True are equal to integers, and members of enumerations to texts
    if isinstance(value, (bool, float)) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r}.")
    return allowed[allowed.index(value)]


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}.")
    if value < 1:
        raise ValueError(f"{name} must be 1 or more, got {value}.")
    return value


def _channels(name: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a sequence of integers such as (32, 64, 128), got {value!r}.")
    return tuple(_positive(f"every entry of {name}", entry) for entry in value)


def _per_level(name: str, value: Any, count: int, dims: int) -> tuple[tuple[int, ...], ...]:
    """Expand a number, or one entry per level, to one tuple per level with one number per axis."""
    if isinstance(value, int) and not isinstance(value, bool):
        return ((_positive(name, value),) * dims,) * count
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be an integer or a sequence with one entry per level, got {value!r}.")
    if len(value) != count:
        raise ValueError(
            f"{name} must have {count} entries, one per {'step down' if name == 'strides' else 'resolution'}, "
            f"got {len(value)}: {value!r}. Give one number to use it everywhere."
        )
    expanded = []
    for entry in value:
        if isinstance(entry, Sequence) and not isinstance(entry, str):
            if len(entry) != dims:
                raise ValueError(f"every entry of {name} must be a number or have {dims} numbers, got {entry!r}.")
            expanded.append(tuple(_positive(f"every entry of {name}", size) for size in entry))
        else:
            expanded.append((_positive(f"every entry of {name}", entry),) * dims)
    return tuple(expanded)


def _kernel_sizes(value: Any, depth: int, dims: int) -> tuple[tuple[int, ...], ...]:
    kernels = _per_level("kernel_size", value, depth + 1, dims)
    if any(size % 2 == 0 for kernel in kernels for size in kernel):
        raise ValueError(f"kernel_size must be odd, got {value!r}. Use 3, or 1 along an axis.")
    return kernels


def _upsample(given: Mapping[str, Any], strides: tuple[tuple[int, ...], ...]) -> str:
    upsample: str = _one_of("upsample", given["upsample"], tuple(mode.value for mode in UpsampleMode))
    if upsample == "pixelshuffle" and any(len(set(stride)) > 1 for stride in strides):
        raise ValueError(
            f"strides must be the same along every axis for upsample='pixelshuffle', got {given['strides']!r}. "
            "Use upsample='deconv' for anisotropic strides."
        )
    return upsample


def _up_features(value: Any, features: tuple[int, ...]) -> tuple[int, ...]:
    """Channels of the maps upsampled into each row, by default those of the row."""
    if value is None:
        return features[:-1]
    up_features = _channels("up_features", value)
    if len(up_features) != len(features) - 1:
        raise ValueError(
            f"up_features must have one entry for each row but the deepest, {len(features) - 1}, got "
            f"{list(up_features)}. Leave it out to use the features of the rows."
        )
    return up_features


def _check_layers(given: Mapping[str, Any], channels: set[int]) -> None:
    """Make the layers once with MONAI's factories, on no device, so that invalid arguments fail here."""
    for name, factory in (("act", Act), ("norm", Norm), ("dropout", Dropout)):
        value = given[name]
        if name == "dropout":
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                if not 0 <= value < 1:
                    raise ValueError(f"dropout must be a probability from 0 up to 1, got {value}.")
                continue
        elif value is None:
            continue
        layer, arguments = _split_layer(name, value)
        # they halve or normalise the last axis, which is not the channel axis of an image
        known = [option.lower() for option in factory.names if option not in ("GEGLU", "LAYER")]
        if layer.lower() not in known:
            raise ValueError(
                f"{name} must name one of MONAI's layers, got {value!r}. Use one of: {', '.join(sorted(known))}."
            )
        if layer.lower() == "group":
            groups = arguments.get("num_groups")
            odd = [count for count in sorted(channels) if not isinstance(groups, int) or groups < 1 or count % groups]
            if odd:
                raise ValueError(
                    f"norm='group' needs num_groups that divides every entry of features, got num_groups={groups!r} "
                    f"for {odd[0]} channels. Give norm=('group', {{'num_groups': n}}) with such an n."
                )
        parameters = arguments.get("num_parameters", 1)
        if layer.lower() == "prelu" and parameters != 1 and channels != {parameters}:
            raise ValueError(
                f"act='prelu' needs one parameter, or as many as every entry of features, got num_parameters="
                f"{parameters!r} for {sorted(channels)} channels. Leave num_parameters out."
            )
        try:
            with torch.device("meta"):
                if name == "act":
                    get_act_layer((layer, arguments))
                elif name == "norm":
                    get_norm_layer((layer, arguments), given["spatial_dims"], channels=min(channels))
                else:
                    get_dropout_layer((layer, arguments), dropout_dim=1)
        except (TypeError, ValueError, RuntimeError) as e:
            raise ValueError(
                f"{name} must have the arguments of its layer, got {value!r}. Give ({layer!r}, {{...}}) with other "
                f"arguments: {e}"
            ) from e


def _split_layer(name: str, value: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(value, str):
        return value, {}
    if isinstance(value, Sequence) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], Mapping):
        return value[0], dict(value[1])
    number = "a probability, " if name == "dropout" else ""
    raise TypeError(
        f"{name} must be {number}a layer's name or (name, arguments), got {value!r}. Write it as for MONAI's "
        "factories, such as 'relu' or ('instance', {'affine': True})."
    )


def _plain(name: str, value: Any) -> Any:
    """Copy ``value`` with sequences as lists; only values that JSON can hold are allowed."""
    if isinstance(value, Enum):
        return _plain(name, value.value)
    if value is None or isinstance(value, bool):
        return value
    # of exactly these types, as numbers and texts of numpy are more than safe loading takes
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(name, entry) for key, entry in value.items()}
    if isinstance(value, Sequence):
        return [_plain(name, entry) for entry in value]
    raise TypeError(
        f"{name} must consist of plain values (numbers, text, lists), got {value!r}. Name layers as for MONAI's "
        "factories, such as 'relu' or ('instance', {'affine': True})."
    )

"""Convert a trained BasicUNetPlusPlus of MONAI."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from monai.networks.layers.factories import Act, Dropout, LayerFactory, Norm
from monai.networks.nets import BasicUNetPlusPlus
from torch import nn

from monai_unetpp import topology

_Network = TypeVar("_Network", bound=nn.Module)

_DEPTH = 4
#: Arguments of layers that depend on their place, not on their configuration.
_PLACE_ARGUMENTS = ("num_features", "num_channels", "device", "dtype")


def convert_basic_unetplusplus(net: nn.Module, network: Callable[..., _Network]) -> _Network:
    """Build the nested U-Net that is equivalent to a ``BasicUNetPlusPlus``; see ``NestedUNet.from_basic_unetplusplus``.

    MONAI's network repeats the border of odd axes, and halves the channels on the way up in every row but the top one;
    the converted network, of the class ``network``, does the same through ``ceil_mode=False`` and ``up_features``.
    """
    source = _checked_class(net)
    arguments = _constructor_arguments(source)
    _check_layers(source, arguments)
    if not source.deep_supervision:
        warnings.warn(
            "The network returns only its deepest output: if it was trained like this, the heads of L1, L2 and L3 are "
            "untrained, and pruning to them gives noise. Train with deep_supervision=True to prune.",
            stacklevel=3,
        )
    features = arguments["features"]
    with torch.device("meta"):
        converted = network(
            **{
                **arguments,
                "features": features[:5],
                "up_features": [features[1], features[2] // 2, features[3] // 2, features[4] // 2],
                "last_features": features[5],
                "ceil_mode": False,
            }
        )
    weights = {_renamed(key): value.clone() for key, value in source.state_dict().items()}
    converted.load_state_dict(weights, assign=True)
    trainable = {_renamed(name): parameter.requires_grad for name, parameter in source.named_parameters()}
    for name, parameter in converted.named_parameters():
        parameter.requires_grad_(trainable[name])
    modes = {_renamed(name): module.training for name, module in source.named_modules() if "." in name}
    for name, module in converted.train(source.training).named_modules():
        module.training = modes.get(name, module.training)
    return converted


def _checked_class(net: nn.Module) -> BasicUNetPlusPlus:
    if not isinstance(net, BasicUNetPlusPlus) or type(net).forward is not BasicUNetPlusPlus.forward:
        inner = next((name for name in ("module", "_orig_mod") if hasattr(net, name)), None)
        remedy = f"Pass its .{inner}." if inner else "Other networks cannot be converted."
        raise TypeError(f"net must be a monai.networks.nets.BasicUNetPlusPlus, got {type(net).__name__}. {remedy}")
    return net


def _constructor_arguments(net: BasicUNetPlusPlus) -> dict[str, Any]:
    """The arguments that build ``net``, read from its first blocks."""
    first = net.conv_0_0.conv_0
    if not hasattr(first, "conv") or not isinstance(first.conv, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        raise ValueError(
            f"net must begin with a plain convolution, got {type(getattr(first, 'conv', first)).__name__}. Undo "
            "fusing, quantisation and parametrisations before converting."
        )
    dims = len(first.conv.kernel_size)
    if dims == 1:
        raise ValueError("net must have 2 or 3 spatial dimensions, got 1. NestedUNet has no 1D form.")
    adn = getattr(first, "adn", None)
    layers = dict(adn.named_children()) if isinstance(adn, nn.Module) else {}
    encoders = [net.conv_0_0, *(getattr(net, f"conv_{row}_0").convs for row in range(1, _DEPTH + 1))]
    columns = (*encoders, net.upcat_0_4.convs)
    return {
        "spatial_dims": dims,
        "in_channels": first.conv.in_channels,
        "out_channels": net.final_conv_0_4.out_channels,
        "features": [block.conv_1.conv.out_channels for block in columns],
        "act": _layer_spec(Act, "act", layers.get("A")),
        "norm": _layer_spec(Norm, "norm", layers.get("N"), dims),
        "dropout": _dropout_spec(layers.get("D")),
        "bias": first.conv.bias is not None,
        "upsample": _upsample_mode(net.upcat_0_1.upsample),
    }


def _upsample_mode(upsample: nn.Module) -> str:
    """The mode of MONAI's UpSample, after which its layers are named."""
    name = next((name for name, _ in upsample.named_children() if name != "preconv"), "deconv")
    return "nontrainable" if name == "upsample_non_trainable" else name


def _layer_spec(factory: LayerFactory, argument: str, layer: nn.Module | None, *place: int) -> Any:
    """The spec ``(name, arguments)`` of ``layer`` for ``factory``; ``None`` for no layer."""
    if layer is None or isinstance(layer, nn.Identity):
        return None
    # without apex, instance_nvfuser means plain instance norm, so try the plain name first
    for name in sorted(factory.names, key=lambda name: name == "INSTANCE_NVFUSER"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            constructor = factory.get_constructor(name, *place)
        if type(layer) is constructor:
            return (name.lower(), _layer_arguments(argument, layer))
    known = ", ".join(name.lower() for name in factory.names)
    raise ValueError(
        f"{argument} of net must be one of MONAI's layers ({known}), got {type(layer).__name__}. Replace these layers "
        "by one of them before converting."
    )


def _layer_arguments(argument: str, layer: nn.Module) -> dict[str, Any]:
    """The non-default arguments of ``layer``, read from the attributes of the same names."""
    arguments: dict[str, Any] = {}
    for name, parameter in inspect.signature(type(layer)).parameters.items():
        if name in _PLACE_ARGUMENTS or not hasattr(layer, name):
            continue
        value = getattr(layer, name)
        if isinstance(parameter.default, bool) and not isinstance(value, bool):
            # an argument such as bias: the attribute of this name is the parameter, or None without one
            if name == "bias" and getattr(layer, "affine", True) is False:
                continue
            value = value is not None
        if value == parameter.default:
            continue
        if value is not None and not isinstance(value, (bool, int, float, str, Sequence)):
            raise ValueError(
                f"{argument} of net must have plain arguments, got {name}={value!r} in {type(layer).__name__}. "
                "Set it to a number or to its default before converting."
            )
        arguments[name] = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
    return arguments


def _dropout_spec(layer: nn.Module | None) -> Any:
    if layer is None or isinstance(layer, nn.Identity):
        return 0.0
    if type(layer) is nn.Dropout and not layer.inplace:
        return layer.p
    name, arguments = _layer_spec(Dropout, "dropout", layer, 1)
    return (name, {"p": cast(float, layer.p), **arguments})


def _check_layers(net: BasicUNetPlusPlus, arguments: Mapping[str, Any]) -> None:
    """Rebuild MONAI's network from ``arguments`` and compare every layer of ``net`` with it."""
    missing = {name: "" for name in ("act", "norm") if arguments[name] is None}
    with torch.device("meta"):
        rebuilt = BasicUNetPlusPlus(**{**arguments, **missing})
    expected = {name: _description(module) for name, module in rebuilt.named_modules() if name}
    found = {name: _description(module) for name, module in net.named_modules() if name}
    for name in (*found, *expected):
        kept, wanted = found.get(name, "no layer"), expected.get(name, "no layer")
        # without dropout, act or norm MONAI may omit the layer or use an identity
        if kept != wanted and not {kept, wanted} <= {"no layer", "Identity()", "Dropout(p=0.0, inplace=False)"}:
            raise ValueError(
                f"net must have the layers that BasicUNetPlusPlus builds, the same in every block: expected {wanted} "
                f"as {name}, got {kept}. Restore it before converting."
            )


def _description(module: nn.Module) -> str:
    if next(module.children(), None) is None:
        return repr(module)
    return type(module).__name__


def _renamed(key: str) -> str:
    """Translate MONAI's name of a weight to that of ``NestedUNet``."""
    part, _, rest = key.partition(".")
    kind, row, column = part.rsplit("_", 2)
    if kind == "final_conv":
        return f"{topology.head_key(topology.level_name(int(column)))}{rest}"
    node = topology.Node(int(row), int(column))
    return f"{node.key}{rest if rest.startswith('upsample.') else 'block.' + rest.removeprefix('convs.')}"

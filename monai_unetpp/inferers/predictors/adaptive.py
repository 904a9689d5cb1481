"""Run each window only as deep as needed, with torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch

from monai_unetpp.inferers.depth_gate import ADAPTIVE, DEPTHS, levels_agree
from monai_unetpp.inferers.predictors.eager import TorchPredictor
from monai_unetpp.networks import NestedUNet
from monai_unetpp.networks.stages import NetworkStage

#: Levels of the first stage: a window cannot stop before two levels can be compared.
FIRST_LEVELS = 2


class AdaptiveTorchPredictor(TorchPredictor):
    """Computes each window up to the first level that agrees with the one before it.

    The windows of a batch go from stage to stage together; finished ones drop out. The result is a dict with the
    logits under ``"adaptive"``, and under ``"depths"`` the index in ``levels`` of the level of each window, ``(B,)``.

    Args:
        network: a ``NestedUNet`` with two or more levels.
        tolerance: of ``1 - Dice`` between two levels, see :func:`monai_unetpp.inferers.depth_gate.levels_agree`.
        **settings: see :class:`Predictor`, without ``levels``.

    Raises:
        TypeError: the network is not a ``NestedUNet``.
        ValueError: the network has one level.
    """

    def __init__(self, network: Callable[..., Any], *, tolerance: float, **settings: Any) -> None:
        nested = check_levels_to_choose(network)
        super().__init__(nested, **{**settings, "levels": nested.levels})
        self.tolerance = tolerance
        computed = nested if self._copy is None else cast(NestedUNet, self._copy.current())
        self._stages = computed.split(FIRST_LEVELS)

    def _outputs(self, network: Any, windows: torch.Tensor) -> dict[str, torch.Tensor]:
        # the stages share the modules of the network
        outputs, kept = self._stages[0].advance({"input": windows})
        shallower, result = (outputs[level] for level in self._stages[0].levels)
        deeper, places = result, torch.arange(len(windows))
        depths = torch.full((len(windows),), FIRST_LEVELS - 1)
        for number, stage in enumerate(self._stages[1:], start=FIRST_LEVELS):
            going_on = (~levels_agree(shallower, deeper, self.tolerance)).cpu().nonzero()[:, 0]
            if not len(going_on):
                break
            places, shallower = places[going_on], deeper[going_on]
            deeper, kept = _advanced(stage, kept, going_on)
            result[places] = deeper
            depths[places] = number
        return {ADAPTIVE: result, DEPTHS: depths}


def _advanced(
    stage: NetworkStage, kept: Mapping[str, torch.Tensor], windows: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The logits of the next level for some windows, and the nodes kept for later stages."""
    count = len(windows)
    some = next(iter(kept.values()))
    if count < len(some):
        if some.device.type == "cuda":
            # use few batch sizes: cuDNN benchmarks convolutions for each
            padded = min(1 << (count - 1).bit_length(), len(some))
            windows = torch.cat([windows, windows[-1:].expand(padded - count)])
        kept = {name: value[windows] for name, value in kept.items()}
    outputs, kept = stage.advance(kept)
    return outputs[stage.levels[0]][:count], {name: value[:count] for name, value in kept.items()}


def check_levels_to_choose(network: Any) -> NestedUNet:
    """``network``, if its depth can be chosen: a ``NestedUNet`` of several levels, computed as this class does."""
    if not isinstance(network, NestedUNet):
        raise TypeError(
            f"network must be a NestedUNet for levels={ADAPTIVE!r}, got {type(network).__name__}. Convert "
            "BasicUNetPlusPlus with NestedUNet.from_basic_unetplusplus, or leave the adaptive depth out."
        )
    if type(network).forward_levels is not NestedUNet.forward_levels:
        raise TypeError(
            f"network must compute levels as NestedUNet does for levels={ADAPTIVE!r}, got {type(network).__name__} "
            f"with its own forward_levels. Use levels='{ADAPTIVE}=...', which calls it, or leave the adaptive depth "
            "out."
        )
    check_several_levels(network.levels)
    return network


def check_several_levels(levels: Sequence[str]) -> None:
    """Raise a ValueError if there is only one level to choose from."""
    if len(levels) < FIRST_LEVELS:
        raise ValueError(
            f"network must have two or more levels for levels={ADAPTIVE!r}, got only {levels[0]}. Give a deeper level "
            "of a network that was trained with deep_supervision, or leave the adaptive depth out."
        )

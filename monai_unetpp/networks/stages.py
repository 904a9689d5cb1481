"""A nested U-Net in stages: each continues from nodes of earlier ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from monai_unetpp import topology

__all__ = ["NetworkStage"]


class NetworkStage(nn.Module):
    """The nodes and heads of one stage, as a function of tensors that can be exported and converted.

    It shares its nodes with the whole network. In UNet++, each next level needs one new diagonal of nodes.

    Args:
        stage: the nodes and levels.
        nodes: all nodes of the network, by name.
        heads: all heads of the network, by level.

    Shapes:
        Takes the image ``(B, in_channels, H, W[, D])`` in the first stage, else the outputs of the nodes in
        :attr:`takes`; returns the logits ``(B, out_channels, H, W[, D])`` of :attr:`levels`, then the outputs of the
        nodes in :attr:`keeps`.
    """

    def __init__(self, stage: topology.Stage, nodes: nn.ModuleDict, heads: nn.ModuleDict) -> None:
        super().__init__()
        self.levels = stage.levels
        self.takes = tuple(node.name for node in stage.takes) or ("input",)
        self.keeps = tuple(node.name for node in stage.keeps)
        self.nodes = nn.ModuleDict({node.name: nodes[node.name] for node in stage.nodes})
        self.heads = nn.ModuleDict({level: heads[level] for level in stage.levels})
        self._head_nodes = {level: topology.head_node(level).name for level in stage.levels}

    def forward(self, *taken: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the stage from the outputs of :attr:`takes`, in order."""
        features = dict(zip(self.takes, taken, strict=True))
        for name, node in self.nodes.items():
            features[name] = node([features[key] for key in node.predecessors])  # type: ignore[union-attr]
        logits = (head(features[self._head_nodes[level]]) for level, head in self.heads.items())
        return (*logits, *(features[name] for name in self.keeps))

    def advance(self, kept: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Compute the stage from the kept nodes of earlier ones.

        Args:
            kept: outputs of nodes by name; ``"input"`` is the image.

        Returns:
            The logits by level, and ``kept`` without the image and with the nodes that this stage adds.
        """
        outputs = self(*(kept[name] for name in self.takes))
        logits = dict(zip(self.levels, outputs[: len(self.levels)], strict=True))
        added = dict(zip(self.keeps, outputs[len(self.levels) :], strict=True))
        return logits, {**{name: value for name, value in kept.items() if name != "input"}, **added}

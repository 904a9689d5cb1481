"""The parts of a node: pooling or upsampling, concatenation, and a block of convolutions."""

# TorchScript reads the annotations of attributes, hence no "from __future__ import annotations" here.

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution, ResidualUnit
from torch import nn
from torch.fx.experimental.symbolic_shapes import statically_known_true

from monai_unetpp.networks.config import NestedUNetConfig

#: Whether torch.export is tracing; torch before 2.7 cannot tell it from torch.compile.
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
#: Whether a graph can be asked about its sizes while it is traced; with torch 2.6 it also cuts by zero.
_KNOWS_SIZES = hasattr(torch.compiler, "is_exporting")


class EncoderNode(nn.Module):
    """Node ``X(i, 0)``: max pooling (none in the top row), then a block of convolutions.

    ``predecessors`` are the names of the input nodes, and ``releases`` those of the nodes whose output no later node
    needs, possibly including this one.
    """

    predecessors: list[str]
    releases: list[str]

    def __init__(self, pool: nn.Module, block: nn.Module, predecessors: list[str], releases: list[str]) -> None:
        super().__init__()
        self.pool = pool
        self.block = block
        self.predecessors = predecessors
        self.releases = releases

    def forward(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Compute the node from its single input; the list is emptied."""
        features: torch.Tensor = self.block(self.pool(inputs.pop()))
        return features


class DecoderNode(nn.Module):
    """Node ``X(i, j)``, ``j > 0``: upsample the node below, concatenate it with nodes of the row, then a block.

    The upsampled map is cropped to the row's size if pooling kept the end of an axis (``ceil_mode``), and extended by
    repeating its border if pooling dropped it. ``predecessors`` are the names of the input nodes, the node below last;
    for ``releases`` see :class:`EncoderNode`.
    """

    predecessors: list[str]
    releases: list[str]

    def __init__(
        self, upsample: nn.Module, block: nn.Module, ceil_mode: bool, predecessors: list[str], releases: list[str]
    ) -> None:
        super().__init__()
        self.upsample = upsample
        self.block = block
        self.ceil_mode = ceil_mode
        self.predecessors = predecessors
        self.releases = releases

    def forward(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Compute the node from its predecessors in order; the list is emptied before convolutions, as memory peaks."""
        below = self.upsample(inputs.pop())
        inputs.append(self._fit(below, inputs[0]))
        del below
        joined = torch.cat(inputs, dim=1)
        inputs.clear()
        features: torch.Tensor = self.block(joined)
        return features

    def _fit(self, upsampled: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        if not self.ceil_mode:
            return _extend(upsampled, reference)
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return _cut(upsampled, reference)
        return _cut_in_python(upsampled, reference)


def _extend(upsampled: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    missing: list[int] = []
    for axis in range(reference.dim() - 1, 1, -1):
        missing.append(0)
        missing.append(reference.shape[axis] - upsampled.shape[axis])
    # a padding by nothing would write the sizes into an exported graph, which then takes no others
    if not torch.jit.is_scripting() and _are_zero(missing):  # type: ignore[attr-defined]
        return upsampled
    return F.pad(upsampled, missing, "replicate")


@torch.jit.unused
def _are_zero(sizes: list[int]) -> bool:
    """Whether all sizes are known to be 0; symbolic ones are not."""
    return not torch.compiler.is_dynamo_compiling() and all(isinstance(size, int) and size == 0 for size in sizes)


def _cut(upsampled: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    if reference.dim() == 5:
        return upsampled[:, :, : reference.shape[2], : reference.shape[3], : reference.shape[4]]
    return upsampled[:, :, : reference.shape[2], : reference.shape[3]]


@torch.jit.unused
def _cut_in_python(upsampled: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Crop ``upsampled`` to the size of ``reference``, also in an exported graph with symbolic sizes.

    A slice tests whether it changes anything, which would restrict an exported graph to even or to odd sizes. Negative
    padding does not; in eager mode it would cost a copy.
    """
    sizes = (*upsampled.shape[2:], *reference.shape[2:])
    known = not torch.compiler.is_dynamo_compiling() and all(isinstance(size, int) for size in sizes)
    if known and upsampled.shape[2:] == reference.shape[2:]:
        return upsampled
    if known or not _is_exporting():
        return _cut(upsampled, reference)
    excess: list[int] = []
    equal = True
    for axis in range(reference.dim() - 1, 1, -1):
        if _KNOWS_SIZES and statically_known_true(upsampled.shape[axis] == reference.shape[axis]):
            excess.extend((0, 0))
        else:
            equal = False
            excess.extend((0, reference.shape[axis] - upsampled.shape[axis]))
    return upsampled if equal else F.pad(upsampled, excess)


def make_block(config: NestedUNetConfig, in_channels: int, out_channels: int, kernel_size: Sequence[int]) -> nn.Module:
    """Make a node's block: two convolutions, each with norm, dropout and activation in MONAI's order."""
    dims, layers = config.spatial_dims, {name: getattr(config, name) for name in ("act", "norm", "dropout", "bias")}
    layers["kernel_size"] = kernel_size
    if config.block == "residual":
        block: nn.Module = ResidualUnit(dims, in_channels, out_channels, subunits=2, **layers)
    else:
        block = nn.Sequential()
        for index, channels in enumerate((in_channels, out_channels)):
            block.add_module(f"conv_{index}", Convolution(dims, channels, out_channels, **layers))
    _accept_single_values(block)
    return block


class _InstanceNorm(nn.modules.instancenorm._InstanceNorm):
    """Instance norm that maps a single value per channel to the bias in eval mode instead of failing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # not x[0, 0], for which a MetaTensor would take the metadata of the whole batch apart
        if self.training and x.dim() > 2 and x.numel() == x.shape[0] * x.shape[1]:
            raise ValueError(
                f"training needs more than one value per channel for instance norm, got a map of {list(x.shape)}. "
                "Use larger patches, fewer levels, or a norm such as ('group', {'num_groups': 4})."
            )
        return torch.instance_norm(
            x,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
            torch.backends.cudnn.enabled,
        )


class _GroupNorm(nn.GroupNorm):
    """Group norm that maps a single value per group to the bias in eval mode instead of failing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps, torch.backends.cudnn.enabled)


def _accept_single_values(block: nn.Module) -> None:
    """Change norms that refuse inputs with one value per channel, as in deep rows of tiny images."""
    for module in block.modules():
        if isinstance(module, nn.modules.instancenorm._InstanceNorm):
            module.__class__ = _InstanceNorm
        elif isinstance(module, nn.GroupNorm):
            module.__class__ = _GroupNorm

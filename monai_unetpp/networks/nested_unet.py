"""NestedUNet: U-Nets of every depth in one network, which can be pruned to any of them."""

# TorchScript reads the annotations of attributes, hence no "from __future__ import annotations" here.

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from os import PathLike
from typing import Any

import torch
from monai.networks.blocks import UpSample
from monai.networks.layers.factories import Conv, Pool
from torch import nn
from torch.utils.checkpoint import checkpoint

from monai_unetpp import topology
from monai_unetpp.networks.blocks import DecoderNode, EncoderNode, make_block
from monai_unetpp.networks.config import NestedUNetConfig
from monai_unetpp.networks.conversion import convert_basic_unetplusplus
from monai_unetpp.networks.stages import NetworkStage


class NestedUNet(nn.Module):
    """UNet++ and its relatives, in 2D and 3D, with levels that can be pruned.

    Node ``X(i, j)`` concatenates earlier nodes of its row with the upsampled node below; the head of level ``Lk`` is
    attached to ``X(0, k)``. The levels are trained together. Then :meth:`prune` reduces the network to the nodes of one
    level: smaller on disk and in memory, faster, and with exactly the output of this level in the full network.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: channels of the segmentation, including the background for softmax.
        features: channels of each resolution, finest first. ``n`` entries give the levels ``L1`` to
            ``L{n - 1}``. More entries give more context, larger ones more capacity.
        variant: ``"unet++"`` (dense skips), ``"unet+"`` (neighbouring nodes only), ``"unet_e"`` (a decoder
            for each depth on one encoder) or ``"unet"`` (one decoder, hence one level, the deepest).
        strides: downsampling between resolutions: one number, or ``len(features) - 1`` entries, each a
            number or one per axis. Use 1 along an axis with thick voxels.
        kernel_size: odd size of the convolutions: one number, or ``len(features)`` entries, each a number
            or one per axis.
        block: ``"plain"`` (convolution, norm, activation, twice) or ``"residual"``.
        act: MONAI's activation name or ``(name, arguments)``.
        norm: MONAI's normalisation name or ``(name, arguments)``, or ``None`` as in the papers.
        bias: whether the convolutions of the blocks have a bias.
        dropout: MONAI's dropout probability or ``(name, arguments)``.
        upsample: ``"deconv"`` (as in the papers), ``"deconvgroup"``, ``"nontrainable"`` or ``"pixelshuffle"``.
        deep_supervision: give every level a head and train them together. Without it only the deepest level
            has a head.
        up_features: channels of the upsampled maps that enter each row, finest row first; by default those of
            the row (``features[:-1]``).
        last_features: channels of the last node of the top row, which carries the deepest head; by default
            ``features[0]``.
        ceil_mode: if a stride does not divide the size of an axis, keep its end (``True``: any size from 1 up works) or
            drop it and repeat the border on the way up (``False``, as in ``BasicUNetPlusPlus``).
        use_checkpoint: recompute nodes in the backward pass instead of keeping their activations: training needs less
            memory but more time.

    Shapes:
        Input ``(B, in_channels, H, W[, D])``; each output ``(B, out_channels, H, W[, D])``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has an invalid value; the message names the remedy.

    Example:
        >>> import torch
        >>> from monai_unetpp import NestedUNet
        >>> net = NestedUNet(spatial_dims=2, in_channels=1, out_channels=2, features=(8, 16, 32)).eval()
        >>> net.levels
        ('L1', 'L2')
        >>> image = torch.rand(1, 1, 33, 20)
        >>> bool(torch.equal(net.prune("L1")(image), net.forward_levels(image)["L1"]))
        True

    See:
        Zhou et al., "UNet++: Redesigning Skip Connections to Exploit Multiscale Features in Image
        Segmentation", arXiv:1912.05074; first in arXiv:1807.10165.
    """

    # the public module: MONAI's ComponentLocator finds a class only in its own __module__
    __module__ = "monai_unetpp"

    __jit_unused_properties__ = ("config",)
    _deepest: list[str]
    _deepest_first: list[str]
    _level_nodes: dict[str, list[str]]
    _head_nodes: dict[str, str]
    _smallest: list[int]

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        features: Sequence[int] = (32, 64, 128, 256, 512),
        variant: str = "unet++",
        strides: int | Sequence[int | Sequence[int]] = 2,
        kernel_size: int | Sequence[int | Sequence[int]] = 3,
        block: str = "plain",
        act: str | tuple[str, dict[str, Any]] = ("LeakyReLU", {"negative_slope": 0.1, "inplace": True}),
        norm: str | tuple[str, dict[str, Any]] | None = ("instance", {"affine": True}),
        bias: bool = True,
        dropout: float | tuple[str, dict[str, Any]] = 0.0,
        upsample: str = "deconv",
        deep_supervision: bool = True,
        up_features: Sequence[int] | None = None,
        last_features: int | None = None,
        ceil_mode: bool = True,
        use_checkpoint: bool = False,
    ) -> None:
        # the arguments, nothing else having been defined
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        checked = NestedUNetConfig.check(**arguments)
        super().__init__()
        self._assemble(checked, _make_nodes(checked), _make_heads(checked))

    def _assemble(self, config: NestedUNetConfig, nodes: nn.ModuleDict, heads: nn.ModuleDict) -> None:
        self._config = config
        self.in_channels = config.in_channels
        self.spatial_dims = config.spatial_dims
        self.use_checkpoint = config.use_checkpoint
        self.deep_supervision = config.deep_supervision
        self.levels: tuple[str, ...] = config.levels
        self._deepest = [config.levels[-1]]
        self._deepest_first = list(reversed(config.levels))
        self._level_nodes = {
            level: [node.name for node in topology.nodes_of_levels([level], config.variant)] for level in self.levels
        }
        self._head_nodes = {level: topology.head_node(level).name for level in self.levels}
        self._smallest = config.smallest_size()

        self.nodes = nodes
        self.heads = heads
        self.register_state_dict_post_hook(_store_config)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values, so that ``NestedUNet(**net.config)`` is the same network."""
        return self._config.as_dict()

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Segment ``x``.

        Args:
            x: ``(B, in_channels, H, W[, D])``.

        Returns:
            In eval mode, or without deep supervision, the logits of the deepest level,
            ``(B, out_channels, H, W[, D])``. In training with deep supervision a list with the logits of every level,
            deepest first, all at full resolution.
        """
        if self.training and self.deep_supervision:
            outputs = self._forward(x, self._deepest_first)
            return [outputs[level] for level in self._deepest_first]
        return self._forward(x, self._deepest)[self._deepest[0]]

    def forward_levels(self, x: torch.Tensor, levels: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        """Compute the logits of several levels in one pass, without nodes that none of them needs.

        Args:
            x: ``(B, in_channels, H, W[, D])``.
            levels: such as ``["L1", "L3"]``; by default all.

        Returns:
            The logits ``(B, out_channels, H, W[, D])`` by level, shallowest first.

        Raises:
            ValueError: no level is given, or the network lacks one.
        """
        wanted = list(self.levels if levels is None else levels)
        if isinstance(levels, str) or not wanted:
            raise ValueError(f"levels must be a non-empty list out of {', '.join(self.levels)}, got {levels!r}.")
        for level in wanted:
            topology.level_index(level, self.levels)
        return self._forward(x, wanted)

    def split(self, first: int = 1) -> tuple[NetworkStage, ...]:
        """Split the network into stages that share its nodes: the first takes the image, each later one adds a level.

        Raises:
            ValueError: ``first``, the number of levels of the first stage, is not from 1 to that of all levels.
        """
        if isinstance(first, bool) or first not in range(1, len(self.levels) + 1):
            raise ValueError(f"first must be a number of levels from 1 to {len(self.levels)}, got {first!r}.")
        stages = topology.stages_of_levels(self.levels, self._config.variant, first)
        return tuple(NetworkStage(stage, self.nodes, self.heads) for stage in stages)

    def prune(self, level: str) -> "NestedUNet":
        """Make a new network with only the nodes and the head of ``level``, one of :attr:`levels`.

        Its output is exactly that of ``level`` in this network. Its nodes and head are deep copies: what was frozen or
        changed here, such as ``eps`` of a norm, is so there as well, and hooks are copied. Methods of a subclass are
        not: the result is a plain ``NestedUNet``.

        Raises:
            ValueError: this network lacks the level.
            RuntimeError: hooks compute weights, as those of ``torch.nn.utils.prune`` do until its ``remove``.
        """
        config = self._config.pruned(level)
        nodes, heads = nn.ModuleDict(), nn.ModuleDict()
        # make copies that can be trained, even if called in inference mode
        with torch.inference_mode(False):
            for name, releases in _released_names(config).items():
                copied: Any = copy_module(self.nodes[name])
                copied.releases, nodes[name] = releases, copied
            heads[level] = copy_module(self.heads[level])
        pruned = NestedUNet.__new__(NestedUNet)
        nn.Module.__init__(pruned)
        pruned._assemble(config, nodes, heads)
        pruned.training = pruned.nodes.training = pruned.heads.training = self.training
        pruned.use_checkpoint = self.use_checkpoint
        for name, hooks in vars(self).items():
            if name.startswith(("_forward_", "_backward_")) and isinstance(hooks, dict):
                setattr(pruned, name, hooks.copy())
        pruned._is_full_backward_hook = self._is_full_backward_hook
        return pruned

    @classmethod
    def from_checkpoint(
        cls,
        path: str | PathLike[str],
        level: str | None = None,
        config: Mapping[str, Any] | None = None,
        map_location: str | torch.device = "cpu",
    ) -> "NestedUNet":
        """Rebuild a network, or one of its levels, from a file of weights.

        State dicts written with ``torch.save(net.state_dict(), path)`` contain the configuration, also inside
        checkpoints of MONAI's ``CheckpointSaver``. A dict with ``state_dict`` and ``config`` works as well.

        Args:
            path: the file; it is read with ``weights_only=True``.
            level: build and load only this level.
            config: constructor arguments, for a file without them.
            map_location: device of the weights.

        Raises:
            ValueError: the file has no weights of a nested U-Net, or no configuration; the weights do not fit; or the
                network lacks the level.
            FileNotFoundError: the file does not exist.
        """
        from monai_unetpp.networks.checkpoint import read_checkpoint

        weights, stored = read_checkpoint(path)
        arguments = config if config is not None else stored
        if arguments is None:
            raise ValueError(
                f"{path}: this checkpoint does not say how its network was built. Pass config=..., the arguments "
                "of NestedUNet, or save it with torch.save(net.state_dict(), path)."
            )
        try:
            return cls.from_weights(weights, arguments, level, map_location)
        except (TypeError, ValueError) as e:
            raise ValueError(f"{path}: {e}") from e

    @classmethod
    def from_weights(
        cls,
        weights: Mapping[str, torch.Tensor],
        config: Mapping[str, Any],
        level: str | None = None,
        map_location: str | torch.device = "cpu",
    ) -> "NestedUNet":
        """Build a network, or one of its levels, from copies of weights.

        Args:
            weights: a state dict of the whole network.
            config: constructor arguments.
            level: build only this level.
            map_location: device of the weights.

        Raises:
            ValueError: the arguments are invalid, the weights do not fit, or the network lacks the level.
        """
        try:
            checked = NestedUNetConfig.check(**config)
        except (TypeError, ValueError) as e:
            raise ValueError(f"the configuration cannot build a network: {e}") from e
        keys = list(weights)
        if level is not None:
            topology.level_index(level, checked.levels)
            keys = topology.keys_of_level(keys, level, checked.variant)
            checked = checked.pruned(level)
        with torch.device("meta"):
            net = NestedUNet(**checked.as_dict())
        try:
            # make copies that can be trained, even if called in inference mode
            with torch.inference_mode(False):
                net.load_state_dict({key: weights[key].to(map_location, copy=True) for key in keys}, assign=True)
        except RuntimeError as e:
            problems = [line.strip() for line in str(e).splitlines()[1:]] or [str(e)]
            more = f" And {len(problems) - 1} more." if len(problems) > 1 else ""
            raise ValueError(
                f"the weights do not fit the network's configuration: {problems[0]}{more} Pass the config=... that "
                "the network was trained with."
            ) from e
        return net

    @classmethod
    def from_basic_unetplusplus(cls, net: nn.Module) -> "NestedUNet":
        """Convert a trained ``monai.networks.nets.BasicUNetPlusPlus``, so that it can be pruned.

        Args:
            net: a 2D or 3D network with any layers that MONAI's factories can name. It is not changed.

        Returns:
            A network with copies of the weights and the same mode, device and dtype, whose level ``Lk`` equals output
            ``k`` of ``net`` (MONAI's list starts with L1).

        Raises:
            TypeError: ``net`` is of another class, or wrapped.
            ValueError: ``net`` is 1D, or has layers that ``BasicUNetPlusPlus`` would not build.

        Warns:
            UserWarning: ``net`` returns only its deepest output, so the other heads may not have been trained.

        Example:
            >>> from monai.networks.nets import BasicUNetPlusPlus
            >>> trained = BasicUNetPlusPlus(spatial_dims=2, features=(4, 4, 8, 8, 8, 4), deep_supervision=True)
            >>> NestedUNet.from_basic_unetplusplus(trained).prune("L2").levels
            ('L2',)
        """
        return convert_basic_unetplusplus(net, cls)

    def _forward(self, x: torch.Tensor, levels: list[str]) -> dict[str, torch.Tensor]:
        self._check_input(x)
        features: dict[str, torch.Tensor] = {"input": x}
        outputs: dict[str, torch.Tensor] = {}
        for name, node in self.nodes.items():
            needed = False
            for level in levels:
                needed = needed or name in self._level_nodes[level]
            if needed:
                inputs = [features[key] for key in node.predecessors]  # type: ignore[union-attr]
                for key in node.releases:  # type: ignore[union-attr]
                    if key != name:
                        features.pop(key)
                # only the dict may refer to a map, so that it is freed after its last use
                features[name] = node(inputs) if torch.jit.is_scripting() else self._node(node, inputs)  # type: ignore[attr-defined]
                for level, head in self.heads.items():
                    if self._head_nodes[level] == name and level in levels:
                        outputs[level] = head(features[name])
                if name in node.releases:  # type: ignore[operator]
                    features.pop(name)
        return outputs

    @torch.jit.unused
    def _node(self, node: nn.Module, inputs: list[torch.Tensor]) -> torch.Tensor:
        if self.use_checkpoint and self.training and torch.is_grad_enabled():
            return _checkpointed(node, inputs)
        features: torch.Tensor = node(inputs)
        return features

    def _check_input(self, x: torch.Tensor) -> None:
        if x.dim() != self.spatial_dims + 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"input must have shape (batch, {self.in_channels}, {self.spatial_dims} spatial axes), "
                f"got {list(x.shape)}. Add or move the channel axis, or build the network for this image."
            )
        if x.shape[0] == 0:
            raise ValueError("the batch must have at least one image, got none. Leave out empty batches.")
        for axis in range(self.spatial_dims):
            if x.shape[axis + 2] < self._smallest[axis]:
                raise ValueError(
                    f"spatial axis {axis} of the input must have at least {self._smallest[axis]} elements, got "
                    f"{x.shape[axis + 2]}. Pad the image, use fewer levels, or build with ceil_mode=True."
                )


def _make_nodes(config: NestedUNetConfig) -> nn.ModuleDict:
    nodes, released = topology.nodes_of_levels(config.levels, config.variant), _released_names(config)
    return nn.ModuleDict({node.name: _make_node(node, config, released[node.name]) for node in nodes})


def _released_names(config: NestedUNetConfig) -> dict[str, list[str]]:
    """By name of each node, those whose output no later node needs; the node of the image also releases the input."""
    nodes = topology.nodes_of_levels(config.levels, config.variant)
    released = topology.last_uses(nodes, config.variant)
    return {
        node.name: [gone.name for gone in released[node]]
        + ([] if topology.predecessors(node, config.variant) else ["input"])
        for node in nodes
    }


def _make_heads(config: NestedUNetConfig) -> nn.ModuleDict:
    convolution = Conv[Conv.CONV, config.spatial_dims]
    channels = {level: config.channels(topology.head_node(level)) for level in config.levels}
    return nn.ModuleDict({level: convolution(count, config.out_channels, 1) for level, count in channels.items()})


def _make_node(node: topology.Node, config: NestedUNetConfig, releases: list[str]) -> nn.Module:
    row, column = node
    joined = topology.predecessors(node, config.variant)
    predecessors = [used.name for used in joined] or ["input"]
    if column == 0:
        incoming = config.channels(joined[0]) if joined else config.in_channels
    else:
        incoming = sum(config.channels(used) for used in joined[:-1]) + config.up_features[row]
    block = make_block(config, incoming, config.channels(node), config.kernel_sizes[row])
    if column == 0:
        pool: nn.Module = nn.Identity()
        if row:
            step = config.strides[row - 1]
            pool = Pool[Pool.MAX, config.spatial_dims](step, step, ceil_mode=config.ceil_mode)
        return EncoderNode(pool, block, predecessors, releases)
    upsample = UpSample(
        config.spatial_dims,
        config.channels(joined[-1]),
        config.up_features[row],
        scale_factor=config.strides[row],
        mode=config.upsample,
    )
    return DecoderNode(upsample, block, config.ceil_mode, predecessors, releases)


def copy_module(module: nn.Module) -> nn.Module:
    """A deep copy of a module; a ``RuntimeError`` with the remedy if a hook computes its weights."""
    try:
        return copy.deepcopy(module)
    except RuntimeError as e:
        if "deepcopy" not in str(e):
            raise
        raise RuntimeError(
            "network must have weights of its own to be copied, not ones that a hook computes. Call remove of "
            "torch.nn.utils.prune, or remove_weight_norm of torch.nn.utils, first."
        ) from e


def _checkpointed(node: nn.Module, inputs: list[torch.Tensor]) -> torch.Tensor:
    options: dict[str, Any] = {}
    # a compiled graph counts each batch once in any case
    if not torch.compiler.is_compiling():
        options["context_fn"] = lambda: (nullcontext(), _KeptStatistics(node))
    features: torch.Tensor = checkpoint(lambda *tensors: node(list(tensors)), *inputs, use_reentrant=False, **options)
    return features


class _KeptStatistics(AbstractContextManager[None]):
    """Keeps the running statistics of norms while a node is computed again, which would count each batch twice."""

    def __init__(self, node: nn.Module) -> None:
        norms: list[Any] = [each for each in node.modules() if getattr(each, "track_running_stats", False)]
        self._norms = [norm for norm in norms if norm.training]
        self._settings: list[tuple[Any, Any]] = []

    def __enter__(self) -> None:
        self._settings = [(norm.momentum, norm.num_batches_tracked) for norm in self._norms]
        for norm, (_, count) in zip(self._norms, self._settings, strict=True):
            # a copy counts: torch's SyncBatchNorm does not go without
            norm.momentum, norm.num_batches_tracked = 0.0, None if count is None else count.clone()

    def __exit__(self, *error: object) -> None:
        for norm, (momentum, count) in zip(self._norms, self._settings, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def _store_config(module: nn.Module, state_dict: Any, prefix: str, local_metadata: dict[str, Any]) -> None:
    """Write the configuration into the state dict's metadata, where torch keeps layer versions."""
    if isinstance(module, NestedUNet):
        local_metadata["config"] = module.config

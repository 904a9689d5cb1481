"""Put operations that OpenVINO knows in place of those that ``torch.export`` traces."""

from __future__ import annotations

import functools
import operator
from typing import Any, cast

import torch
from torch import fx, nn

from monai_unetpp.inferers.predictors.tracing import without_warnings_of_torch

_aten = torch.ops.aten
_CONVOLUTIONS = (_aten.conv1d.default, _aten.conv2d.default, _aten.conv3d.default)
_TRANSPOSED = (_aten.conv_transpose1d.default, _aten.conv_transpose2d.input, _aten.conv_transpose3d.input)
_POOLING = {
    _aten.max_pool2d.default: _aten.max_pool2d_with_indices.default,
    _aten.max_pool3d.default: _aten.max_pool3d_with_indices.default,
}
_IN_PLACE = {_aten.leaky_relu_.default: _aten.leaky_relu.default, _aten.relu_.default: _aten.relu.default}
_DROPOUT = (_aten.dropout.default, _aten.feature_dropout.default)
_INSTANCE_NORM, _BATCH_NORM = _NORMS = (_aten.instance_norm.default, _aten.batch_norm.default)
#: Known to OpenVINO.
_KNOWN = (
    _INSTANCE_NORM,
    _aten.upsample_bilinear2d.vec,
    _aten.upsample_trilinear3d.vec,
    _aten.slice.Tensor,
    _aten.leaky_relu.default,
    _aten.relu.default,
    _aten.cat.default,
    operator.getitem,
)


def openvino_graph(program: torch.export.ExportedProgram) -> nn.Module:
    """Return the graph of a network in eval mode in operations that OpenVINO converts; ``program`` may be changed.

    Networks of convolutions, instance norm, rectifiers, max pooling and concatenations, as nested U-Nets are, take a
    few replacements. Torch's decomposition, which traces anew and takes longer than all else, does the others.
    """
    _fit_pooling(program)
    with without_warnings_of_torch():
        if _is_simple(program.graph):
            _replace(program.graph)
        else:
            program = program.run_decompositions(_decompositions())
        return cast(nn.Module, program.module())


def _fit_pooling(program: torch.export.ExportedProgram) -> None:
    """Shorten kernels of max pooling to their axes, as OpenVINO takes no longer ones; the results are the same."""
    for node in program.graph.nodes:
        # only with ceil_mode, the last argument, does torch take longer ones
        if node.target in _POOLING and len(node.args) == 6:
            data, kernel, stride, padding, *rest = node.args
            sizes = data.meta["val"].shape[2:]
            if len(kernel) == len(sizes) and not any(padding):
                node.args = (data, list(map(min, kernel, sizes)), stride, padding, *rest)


def _is_simple(graph: fx.Graph) -> bool:
    """Whether :func:`_replace` can do it: all operations are known, and what is changed in place has one reader."""
    known = {*_CONVOLUTIONS, *_TRANSPOSED, *_POOLING, *_IN_PLACE, *_DROPOUT, _BATCH_NORM, *_KNOWN}
    calls = [node for node in graph.nodes if node.op == "call_function"]
    return (
        all(node.target in known and not node.kwargs for node in calls)
        and all(_is_own(node.args[0]) for node in calls if node.target in _IN_PLACE)
        # statistics of the batch are no constants, and dropout of a network in eval mode may be meant
        and not any(node.args[5] for node in calls if node.target is _BATCH_NORM)
        and not any(node.args[2] for node in calls if node.target in _DROPOUT)
    )


def _is_own(tensor: Any) -> bool:
    """Whether a convolution or norm made a tensor that only one other reads; dropout hands on what it gets."""
    while len(tensor.users) == 1 and tensor.target in _DROPOUT:
        tensor = tensor.args[0]
    return len(tensor.users) == 1 and tensor.target in (*_CONVOLUTIONS, *_TRANSPOSED, *_NORMS)


def _replace(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        if node.target in _DROPOUT:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target in _IN_PLACE:
            node.target = _IN_PLACE[node.target]
        elif node.target in (*_CONVOLUTIONS, *_TRANSPOSED):
            node.args = _convolution_arguments(node)
            node.target = _aten.convolution.default
        elif node.target is _BATCH_NORM:
            data, weight, bias, mean, variance, _, momentum, epsilon, _ = node.args
            node.args = (data, weight, bias, mean, variance, momentum, epsilon)
            node.target = _aten._native_batch_norm_legit_no_training.default
            _take_the_first(graph, node)
        elif node.target in _POOLING:
            node.target = _POOLING[node.target]
            _take_the_first(graph, node)


def _convolution_arguments(node: fx.Node) -> tuple[Any, ...]:
    """The arguments of ``aten.convolution``; those that are left out have their defaults."""
    axes = node.meta["val"].ndim - 2
    ones, zeros = [1] * axes, [0] * axes
    if node.target in _TRANSPOSED:
        found = _filled(node.args, (None, ones, zeros, zeros, 1, ones))
        data, weight, bias, stride, padding, more, groups, dilation = found
        return data, weight, bias, stride, padding, dilation, True, more, groups
    data, weight, bias, stride, padding, dilation, groups = _filled(node.args, (None, ones, zeros, ones, 1))
    return data, weight, bias, stride, padding, dilation, False, zeros, groups


def _filled(arguments: tuple[Any, ...], defaults: tuple[Any, ...]) -> tuple[Any, ...]:
    """Data, weight and the arguments after them."""
    return (*arguments, *defaults[len(arguments) - 2 :])


def _take_the_first(graph: fx.Graph, node: fx.Node) -> None:
    with graph.inserting_after(node):
        first = graph.call_function(operator.getitem, (node, 0))
    first.meta["val"] = node.meta["val"]
    node.meta["val"] = (first.meta["val"],)
    node.replace_all_uses_with(first, lambda user: user is not first)


@functools.cache
def _decompositions() -> dict[Any, Any]:
    """What torch puts in place of operations that OpenVINO does not know; to list it takes a tenth of a second."""
    from openvino.frontend.pytorch.torchdynamo.export_decompositions import ops_to_not_decompose
    from torch.export.decomp_utils import CustomDecompTable

    # do not decompose instance norm, which would cost several passes in another memory layout: whole, it becomes one
    # operation together with the activation
    kept = {*ops_to_not_decompose(), _INSTANCE_NORM}
    return {operation: found for operation, found in CustomDecompTable().items() if operation not in kept}

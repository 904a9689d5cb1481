"""The triangle of nodes: which nodes exist, what each one joins, and what a level needs.

Pure Python, no torch. No other module derives which node belongs to which level. Indices are those of the UNet++ papers
(arXiv:1807.10165, arXiv:1912.05074): node ``X(i, j)`` has depth ``i`` (0 is full resolution) and column ``j`` (0 is the
encoder). The head of level ``Lk`` sits on ``X(0, k)``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

__all__ = [
    "VARIANTS",
    "Node",
    "Stage",
    "Variant",
    "head_key",
    "head_node",
    "keys_of_level",
    "last_uses",
    "level_index",
    "level_name",
    "level_names",
    "levels_of_keys",
    "nodes_of_levels",
    "predecessors",
    "stages_of_levels",
]

Variant = Literal["unet", "unet_e", "unet+", "unet++"]
VARIANTS: tuple[str, ...] = get_args(Variant)
_HEAD_KEY = re.compile(r"heads\.(L\d+)\.")


class Node(NamedTuple):
    """Node ``X(depth, column)`` of the triangle."""

    depth: int
    column: int

    @property
    def name(self) -> str:
        """The node's name in the network, such as ``"x_0_2"``."""
        return f"x_{self.depth}_{self.column}"

    @property
    def key(self) -> str:
        """The prefix of the node's entries in a state dict."""
        return f"nodes.{self.name}."


class Stage(NamedTuple):
    """The step from one level to the next, reusing the outputs of earlier nodes.

    Attributes:
        levels: the levels whose outputs it yields, shallowest first.
        nodes: the nodes that it computes, in order; in UNet++ one diagonal for each level.
        takes: the nodes of earlier stages whose outputs it needs; the first stage needs only the image.
        keeps: its own nodes whose outputs later stages need.
    """

    levels: tuple[str, ...]
    nodes: tuple[Node, ...]
    takes: tuple[Node, ...]
    keeps: tuple[Node, ...]


def level_name(index: int) -> str:
    """The name of level ``index``: 2 gives ``"L2"``."""
    return f"L{index}"


def level_names(depth: int, variant: str) -> tuple[str, ...]:
    """The levels of a network with ``depth`` downsampling steps, shallowest first.

    A plain U-Net has a single level, its deepest; every other variant has ``L1`` to ``L{depth}``.
    """
    if variant == "unet":
        return (level_name(depth),)
    return tuple(level_name(k) for k in range(1, depth + 1))


def level_index(level: str, levels: Sequence[str]) -> int:
    """The number in a level's name: ``"L2"`` gives 2.

    Raises:
        ValueError: ``level`` is not one of ``levels``.
    """
    if level not in levels:
        raise ValueError(f"level must be one of {', '.join(levels)}, got {level!r}.")
    return int(level[1:])


def head_node(level: str) -> Node:
    """The node that carries the head of ``level``."""
    return Node(0, int(level[1:]))


def head_key(level: str) -> str:
    """The prefix of the entries of the head of ``level`` in a state dict."""
    return f"heads.{level}."


def predecessors(node: Node, variant: str) -> tuple[Node, ...]:
    """The nodes whose outputs ``node`` takes, in the order of concatenation.

    Encoder nodes take the node above. All others take nodes of their own row, left to right: the encoder node in
    ``unet`` and ``unet_e`` (long skip), the left neighbour in ``unet+`` (short skip), all earlier nodes in ``unet++``
    (dense skips). The upsampled node below comes last.
    """
    i, j = node
    if j == 0:
        return (Node(i - 1, 0),) if i else ()
    below = Node(i + 1, j - 1)
    if variant in ("unet", "unet_e"):
        return Node(i, 0), below
    if variant == "unet+":
        return Node(i, j - 1), below
    return (*(Node(i, k) for k in range(j)), below)


def nodes_of_levels(levels: Iterable[str], variant: str) -> tuple[Node, ...]:
    """All nodes that ``levels`` need, in an order in which they can be computed.

    The order is diagonal by diagonal, so that the nodes of a shallower level come first.
    """
    needed: set[Node] = set()
    waiting = [head_node(level) for level in levels]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting.extend(predecessors(node, variant))
    return tuple(sorted(needed, key=lambda node: (node.depth + node.column, node.column)))


def stages_of_levels(levels: Sequence[str], variant: str, first: int = 1) -> tuple[Stage, ...]:
    """The stages that compute ``levels`` one after the other, each node once.

    Args:
        levels: shallowest first.
        variant: one of :data:`VARIANTS`.
        first: how many levels the first stage yields; each further stage yields one.
    """
    groups = [tuple(levels[:first]), *((level,) for level in levels[first:])]
    done: set[Node] = set()
    computed: list[tuple[Node, ...]] = []
    for group in groups:
        computed.append(tuple(node for node in nodes_of_levels(group, variant) if node not in done))
        done.update(computed[-1])
    stages: list[Stage] = []
    needed_later: set[Node] = set()
    for group, nodes in zip(reversed(groups), reversed(computed), strict=True):
        needed = {used for node in nodes for used in predecessors(node, variant)} - set(nodes)
        keeps = tuple(node for node in nodes if node in needed_later)
        stages.insert(0, Stage(group, nodes, tuple(sorted(needed)), keeps))
        needed_later |= needed
    return tuple(stages)


def last_uses(nodes: Sequence[Node], variant: str) -> dict[Node, tuple[Node, ...]]:
    """For each node, the nodes whose outputs are no longer needed once it has been computed.

    A node whose output no other takes lists itself. Heads do not count, as they are computed with their node.

    Args:
        nodes: in the order of computation, see :func:`nodes_of_levels`.
        variant: one of :data:`VARIANTS`.
    """
    last = {node: node for node in nodes}
    for node in nodes:
        for used in predecessors(node, variant):
            last[used] = node
    freed: dict[Node, list[Node]] = {node: [] for node in nodes}
    for used, user in last.items():
        freed[user].append(used)
    return {node: tuple(gone) for node, gone in freed.items()}


def keys_of_level(keys: Iterable[str], level: str, variant: str) -> list[str]:
    """The state-dict ``keys`` that a network pruned to ``level`` keeps, with its own head only."""
    kept = (*(node.key for node in nodes_of_levels([level], variant)), head_key(level))
    return [key for key in keys if key.startswith(kept)]


def levels_of_keys(keys: Iterable[str]) -> list[str]:
    """The levels that have a head among the ``keys`` of a state dict, in their order."""
    return list(dict.fromkeys(found[1] for key in keys if (found := _HEAD_KEY.match(key))))

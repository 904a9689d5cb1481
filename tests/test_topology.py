"""The triangle of nodes."""

import pytest

from monai_unetpp.topology import (
    VARIANTS,
    Node,
    head_key,
    head_node,
    keys_of_level,
    last_uses,
    level_index,
    level_names,
    nodes_of_levels,
    predecessors,
)


def test_names_of_nodes_heads_and_levels():
    assert Node(1, 2).name == "x_1_2"
    assert Node(1, 2).key == "nodes.x_1_2."
    assert head_key("L3") == "heads.L3."
    assert head_node("L3") == (0, 3)
    assert level_names(3, "unet++") == ("L1", "L2", "L3")
    assert level_names(3, "unet") == ("L3",)


def test_level_index_reads_the_number():
    assert level_index("L2", ("L1", "L2")) == 2


@pytest.mark.parametrize("level", ["L3", "l1", "", "2"])
def test_level_index_refuses_other_levels(level):
    with pytest.raises(ValueError, match=r"level must be one of L1, L2, got"):
        level_index(level, ("L1", "L2"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_encoder_nodes_take_the_node_above(variant):
    assert predecessors(Node(0, 0), variant) == ()
    assert predecessors(Node(3, 0), variant) == ((2, 0),)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("unet", ((1, 0), (2, 1))),
        ("unet_e", ((1, 0), (2, 1))),
        ("unet+", ((1, 1), (2, 1))),
        ("unet++", ((1, 0), (1, 1), (2, 1))),
    ],
)
def test_decoder_nodes_take_their_row_and_the_node_below(variant, expected):
    assert predecessors(Node(1, 2), variant) == expected


@pytest.mark.parametrize("variant", ["unet+", "unet++"])
def test_a_level_keeps_the_triangle_above_its_diagonal(variant):
    for k in range(1, 5):
        triangle = {(i, j) for i in range(k + 1) for j in range(k + 1 - i)}
        assert set(nodes_of_levels([f"L{k}"], variant)) == triangle


@pytest.mark.parametrize("variant", ["unet", "unet_e"])
def test_a_level_of_a_plain_decoder_keeps_encoder_and_one_diagonal(variant):
    nodes = nodes_of_levels(["L3"], variant)
    assert set(nodes) == {(0, 0), (1, 0), (2, 0), (3, 0), (2, 1), (1, 2), (0, 3)}


def test_an_ensemble_shares_the_encoder_only():
    both = set(nodes_of_levels(["L2", "L3"], "unet_e"))
    assert len(both) == 4 + 2 + 3
    assert set(nodes_of_levels(["L2"], "unet_e")) & set(nodes_of_levels(["L3"], "unet_e")) == {(0, 0), (1, 0), (2, 0)}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_nodes_come_after_what_they_need(variant, depth):
    nodes = nodes_of_levels(level_names(depth, variant), variant)
    assert len(set(nodes)) == len(nodes)
    for position, node in enumerate(nodes):
        assert set(predecessors(node, variant)) <= set(nodes[:position])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_last_uses_free_everything_once_and_nothing_too_early(variant, depth):
    """Simulates every set of levels over the order and releases of the whole network."""
    levels = level_names(depth, variant)
    everything = nodes_of_levels(levels, variant)
    freed_by = last_uses(everything, variant)
    freed = [node for gone in freed_by.values() for node in gone]
    assert sorted(freed) == sorted(everything)
    for wanted in [[level] for level in levels] + [list(levels), [levels[0], levels[-1]]]:
        needed = set(nodes_of_levels(wanted, variant))
        there: set[Node] = set()
        for node in everything:
            if node in needed:
                assert set(predecessors(node, variant)) <= there
                there = (there - set(freed_by[node])) | ({node} - set(freed_by[node]))
        if wanted == list(levels):
            assert there == set()


def test_keys_of_level_keeps_its_nodes_and_its_own_head():
    keys = ["nodes.x_0_0.w", "nodes.x_1_0.w", "nodes.x_0_1.w", "nodes.x_0_2.w", "nodes.x_2_0.w", "nodes.x_1_1.w"]
    keys += ["heads.L1.w", "heads.L2.w", "nodes.x_0_10.w", "heads.L10.w"]
    assert keys_of_level(keys, "L1", "unet++") == ["nodes.x_0_0.w", "nodes.x_1_0.w", "nodes.x_0_1.w", "heads.L1.w"]
    assert keys_of_level(keys, "L2", "unet++") == [*keys[:6], "heads.L2.w"]
    assert "nodes.x_0_1.w" not in keys_of_level(keys, "L2", "unet_e")

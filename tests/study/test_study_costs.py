"""The mean of heads, and what the rows of the table cost."""

import dataclasses

import pytest
import torch

from monai_unetpp import NestedUNet
from monai_unetpp.files import write_json
from monai_unetpp.inferers.head_averaging import mean_of_heads
from monai_unetpp.measuring.environment import Environment
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.plain_values import to_plain
from monai_unetpp.study.costs import (
    Latencies,
    MeanOfHeads,
    RowLatency,
    cut_network,
    measure_latencies,
    network_size,
    read_latencies,
)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return NestedUNet(2, 1, 2, features=(2, 4, 4)).eval()


def test_the_mean_of_heads_is_that_of_their_probabilities(network):
    image = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        levels = network.forward_levels(image)
        found = MeanOfHeads(network).forward_levels(image, ["L1", "mean"])
        assert list(found) == ["L1", "mean"]
        assert torch.equal(found["L1"], levels["L1"])
        mean = (levels["L1"].softmax(1) + levels["L2"].softmax(1)) / 2
        torch.testing.assert_close(found["mean"].softmax(1), mean)
        # the one function for it, so that a study measures what users get
        assert torch.equal(found["mean"], mean_of_heads(list(levels.values())))
        assert torch.equal(MeanOfHeads(network)(image), found["mean"])
        assert list(MeanOfHeads(network).forward_levels(image, ["L2"])) == ["L2"]


def test_a_row_costs_what_is_left_of_its_network(network):
    sizes = {level: network_size(network, level, (16, 16)) for level in ("L1", "L2", "mean")}
    whole = sum(parameter.numel() for parameter in network.parameters())
    head = sum(parameter.numel() for parameter in network.heads["L1"].parameters())
    assert sizes["mean"]["parameters"] == whole
    assert sizes["L2"]["parameters"] == whole - head
    assert sizes["L1"]["parameters"] == sum(p.numel() for p in network.prune("L1").parameters())
    assert 0 < sizes["L1"]["flops"] < sizes["L2"]["flops"] < sizes["mean"]["flops"]
    # by hand: a head of L1 is a 1x1 convolution from 2 to 2 channels, two operations each, on 256 pixels
    assert sizes["mean"]["flops"] - sizes["L2"]["flops"] == 256 * 2 * 2 * 2


def test_latencies_with_ratios_within_the_rounds(network):
    networks = {level: cut_network(network, level) for level in ("L1", "L2")}
    options = {"device": torch.device("cpu"), "precision": "fp32", "repeats": 3, "warm_up": 1}
    found = measure_latencies(networks, 1, (16, 16), reference="L2", **options)
    assert list(found) == ["L1", "L2"]
    assert (found["L2"].ratio.lower, found["L2"].ratio.upper) == (1, 1)
    assert found["L1"].seconds.count == 3
    assert found["L1"].ratio.median > 0
    assert measure_latencies(networks, 1, (16, 16), reference=None, **options)["L1"].ratio is None


def test_latencies_are_kept_for_the_same_rows_on_the_same_machine(tmp_path):
    path, here = tmp_path / "latency.json", Environment("abacus", "fp32", "torch", 1, {}, "2026-01-02")
    seconds = Quartiles(2.0, 1.0, 3.0, 15)
    latencies = {"a": RowLatency(seconds, None), "b": RowLatency(seconds, Quartiles(1.0, 1.0, 1.0, 15))}
    assert read_latencies(path, ["a", "b"], here) is None
    measured = Latencies(here, latencies)
    write_json(path, to_plain(measured))
    later = dataclasses.replace(here, date="2026-01-03")
    assert read_latencies(path, ["a", "b"], later) == measured
    assert read_latencies(path, ["a"], here) is None
    for changed in ({"threads": 2}, {"runtime": "openvino"}, {"versions": {"torch": "3"}}):
        assert read_latencies(path, ["a", "b"], dataclasses.replace(here, **changed)) is None
    for text in ("", "[]", '{"environment": {}, "rows": {}}', path.read_text()[:40]):
        path.write_text(text)
        assert read_latencies(path, ["a", "b"], here) is None

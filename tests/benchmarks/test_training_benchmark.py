"""The comparison with BasicUNetPlusPlus in training."""

import dataclasses
import json

import pytest
import torch
from forked import memory_measured_in_forks

from benchmarks.training import activation_bytes, format_training_benchmark, measure_training
from monai_unetpp import NestedUNet
from monai_unetpp.measuring.quartiles import Quartiles


@pytest.fixture(scope="module")
def result():
    with memory_measured_in_forks():
        return measure_training((4, 8, 8, 8, 8), patch_size=(64, 64), batch_size=2, repeats=3, warm_up=1)


@pytest.mark.slow
class TestMeasurement:
    def test_three_networks_with_their_costs(self, result):
        assert [cost.name for cost in result.costs] == [
            "BasicUNetPlusPlus",
            "NestedUNet",
            "NestedUNet, use_checkpoint",
        ]
        for cost in result.costs:
            assert isinstance(cost.step_s, Quartiles)
            assert 0 < cost.step_s.lower <= cost.step_s.median <= cost.step_s.upper
            assert cost.step_s.count == 3
            assert cost.activation_bytes > 0
            assert cost.peak_memory_bytes > 0
        assert result.ratios(result.costs[0]) == {"time": 1, "activations": 1, "peak_memory": 1}
        assert result.costs[1].parameters == result.costs[2].parameters

    def test_leaner_than_monais_network_and_half_with_checkpointing(self, result):
        monai, ours, checkpointed = result.costs
        assert ours.activation_bytes < monai.activation_bytes
        assert checkpointed.activation_bytes < ours.activation_bytes / 2

    def test_results_are_frozen_and_fit_json(self, result):
        again = json.loads(json.dumps(dataclasses.asdict(result)))
        assert again["environment"]["threads"] == torch.get_num_threads()
        assert again["environment"]["versions"]["torch"] == torch.__version__
        with pytest.raises(dataclasses.FrozenInstanceError):
            result.batch_size = 3

    def test_the_table_holds_the_numbers(self, result):
        table = format_training_benchmark(result)
        for cost in result.costs:
            (row,) = [line for line in table.splitlines() if line.startswith(f"| {cost.name} |")]
            assert f"{cost.step_s.median:.3f} s" in row
            assert f"{cost.activation_bytes / 2**20:.0f} MiB" in row
        assert "2 x 64 x 64" in table


def test_activation_bytes_count_what_backward_needs():
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1))
    image = torch.rand(1, 1, 8, 8)
    # the ReLU's output serves its own backward and the next convolution's; the first convolution's own is not needed
    assert activation_bytes(net, image) == (4 + 2) * 64 * 4
    with torch.no_grad():
        assert activation_bytes(net, image) == 2 * 64 * 4


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
def test_checkpointing_halves_activation_memory(dims):
    kept = [
        activation_bytes(
            NestedUNet(dims, 1, 2, features=(4, 4, 4, 4, 4), use_checkpoint=use).train(),
            torch.rand(1, 1, *(32,) * dims),
        )
        for use in (False, True)
    ]
    assert kept[1] < kept[0] / 2

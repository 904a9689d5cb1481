"""Measured costs: exact where they can be, consistent where they are times and memory."""

from __future__ import annotations

import itertools
import math
import subprocess
from collections import Counter

import pytest
import torch
from forked import memory_measured_in_forks
from monai.inferers import SimpleInferer, SlidingWindowInferer
from torch import nn

from monai_unetpp import NestedUNet
from monai_unetpp.inferers import FlipInferer, PrecisionInferer
from monai_unetpp.measuring import memory
from monai_unetpp.measuring.environment import describe_environment
from monai_unetpp.pruning import cost
from monai_unetpp.pruning.cost import check_pruned_networks, measure_costs

WINDOW, VOLUME = (32, 32), (256, 256)


def make_network(**changes: object) -> NestedUNet:
    torch.manual_seed(0)
    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "features": (4, 8, 8), **changes}
    return NestedUNet(**arguments).eval()


@pytest.fixture
def full() -> NestedUNet:
    return make_network()


@pytest.fixture
def pruned(full: NestedUNet) -> dict[str, NestedUNet]:
    return {level: full.prune(level) for level in full.levels}


@pytest.fixture
def without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the processes that measure memory, which take seconds to start."""
    monkeypatch.setattr(cost, "measure_peak_memory", lambda runs, *_: dict.fromkeys(runs, 1))


@pytest.mark.slow
class TestMeasured:
    @pytest.fixture(scope="class")
    @classmethod
    def costs(cls) -> dict[str, cost.PointCost]:
        full = make_network()
        with memory_measured_in_forks():
            return measure_costs(
                {"L1": full.prune("L1"), "whole": full},
                WINDOW,
                VOLUME,
                SlidingWindowInferer(WINDOW, sw_batch_size=2, overlap=0.25),
                precision="fp32",
                repeats=3,
                warm_up=1,
                full_network=full,
            )

    def test_points_in_order(self, costs: dict[str, cost.PointCost]) -> None:
        assert list(costs) == ["L1", "whole"]
        assert [each.point for each in costs.values()] == ["L1", "whole"]
        assert {each.window_shape for each in costs.values()} == {WINDOW}
        assert {each.volume_shape for each in costs.values()} == {VOLUME}

    def test_parameters_are_those_of_the_pruned_network(
        self, costs: dict[str, cost.PointCost], full: NestedUNet
    ) -> None:
        assert costs["whole"].parameters == sum(p.numel() for p in full.parameters())
        assert costs["L1"].parameters == sum(p.numel() for p in full.prune("L1").parameters())
        assert costs["L1"].checkpoint_bytes > 4 * costs["L1"].parameters
        assert costs["L1"].checkpoint_bytes < costs["whole"].checkpoint_bytes

    def test_a_shallower_level_works_less(self, costs: dict[str, cost.PointCost]) -> None:
        assert 0 < costs["L1"].flops_per_window < costs["whole"].flops_per_window

    def test_latencies(self, costs: dict[str, cost.PointCost]) -> None:
        for each in costs.values():
            for latency in (each.window_latency_s, each.volume_latency_s):
                assert 0 < latency.lower <= latency.median <= latency.upper
                assert latency.count == 3
            # the volume holds more than a hundred windows
            assert each.volume_latency_s.median > each.window_latency_s.median

    def test_memory_holds_weights_volume_and_output(self, costs: dict[str, cost.PointCost]) -> None:
        weights = 4 * costs["whole"].parameters
        volume_and_output = 4 * (1 + 2) * 256 * 256
        assert costs["whole"].peak_memory_bytes > weights + volume_and_output
        # a process of Python with torch takes some hundred MB, which is not the network's cost
        assert costs["whole"].peak_memory_bytes < 100e6

    def test_only_levels_of_the_full_network_are_checked(self, costs: dict[str, cost.PointCost]) -> None:
        assert costs["L1"].self_check == cost.SelfCheck(max_difference=0.0, equal=True)
        assert costs["whole"].self_check is None


def test_flops_of_a_known_network(without_memory: None) -> None:
    """One level by hand: multiplications and additions of every convolution on 8x8 and 4x4 pixels."""
    network = make_network(features=(2, 3), norm=None, deep_supervision=False)
    by_hand = 2 * (
        64 * 9 * (1 * 2 + 2 * 2)  # x_0_0
        + 16 * 9 * (2 * 3 + 3 * 3)  # x_1_0
        + 16 * 4 * (3 * 2)  # transposed convolution
        + 64 * 9 * (4 * 2 + 2 * 2)  # x_0_1
        + 64 * 1 * (2 * 2)  # head
    )
    [measured] = measure_costs({"L1": network}, (8, 8), (8, 8), SimpleInferer(), repeats=1, warm_up=0).values()
    assert measured.flops_per_window == by_hand


@pytest.mark.usefixtures("without_memory")
class TestOrder:
    def calls(self, pruned: dict[str, NestedUNet], seed: int) -> list[str]:
        calls: list[str] = []
        for point, network in pruned.items():
            network.register_forward_hook(lambda module, inputs, output, point=point: calls.append(point))
        measure_costs(pruned, (8, 8), (8, 8), SimpleInferer(), repeats=6, warm_up=2, seed=seed)
        # the last call of each network counts its operations
        return calls[: -len(pruned)]

    @pytest.mark.slow
    def test_rounds_take_every_network_once(self, full: NestedUNet, pruned: dict[str, NestedUNet]) -> None:
        calls = self.calls({**pruned, "whole": full}, seed=0)
        # a window and a volume each: two calls
        rounds = [calls[start : start + 6] for start in range(0, len(calls), 6)]
        assert len(rounds) == 2 + 6
        assert all(Counter(each) == {"L1": 2, "L2": 2, "whole": 2} for each in rounds)

    @pytest.mark.slow
    def test_order_changes_between_rounds_and_follows_the_seed(self, full: NestedUNet) -> None:
        orders = []
        for seed in (0, 0, 1):
            networks = {name: make_network().prune("L1") for name in "abcd"}
            orders.append(self.calls(networks, seed))
        assert orders[0] == orders[1] != orders[2]
        rounds = {tuple(orders[0][start : start + 8]) for start in range(0, len(orders[0]), 8)}
        assert len(rounds) > 1


@pytest.mark.usefixtures("without_memory")
class TestArguments:
    def measure(self, networks: object, **changes: object) -> None:
        arguments = {
            "window_shape": (8, 8),
            "volume_shape": (8, 8),
            "inferer": SimpleInferer(),
            "repeats": 1,
            **changes,
        }
        measure_costs(networks, **arguments)

    def test_none(self) -> None:
        with pytest.raises(ValueError, match="networks must hold at least one network, got none"):
            self.measure({})

    def test_other_network(self) -> None:
        with pytest.raises(TypeError, match="networks must be of NestedUNet, got Conv2d for other"):
            self.measure({"other": nn.Conv2d(1, 1, 1)})

    def test_train_mode(self, full: NestedUNet) -> None:
        with pytest.raises(ValueError, match=r"networks must be in eval mode, got L2 in train mode\. Call eval"):
            self.measure({"L2": full.train()})

    def test_mixed_dimensions(self, full: NestedUNet) -> None:
        with pytest.raises(ValueError, match="networks must all be 2D or all be 3D, got both"):
            self.measure({"a": full, "b": make_network(spatial_dims=3)})

    @pytest.mark.parametrize("name", ["window_shape", "volume_shape"])
    @pytest.mark.parametrize("shape", [(8, 8, 8), (8, 0)])
    def test_shapes(self, full: NestedUNet, name: str, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=f"{name} must have 2 sizes of 1 or more, one per spatial axis, got"):
            self.measure({"L2": full}, **{name: shape})

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"repeats": 0}, "repeats must be 1 or more, got 0"),
            ({"warm_up": -1}, "warm_up must be 0 or more, got -1"),
            ({"precision": "fp8"}, "precision must be one of"),
            ({"device": "meta"}, "device must be a CPU or a CUDA device, got 'meta'"),
        ],
    )
    def test_options(self, full: NestedUNet, options: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            self.measure({"L2": full}, **options)


@pytest.mark.slow
@pytest.mark.usefixtures("without_memory")
def test_energy_is_measured_where_the_machine_tells(
    pruned: dict[str, NestedUNet], monkeypatch: pytest.MonkeyPatch
) -> None:
    joules = itertools.count()
    monkeypatch.setattr(cost, "find_counter", lambda device: lambda: float(next(joules)))
    costs = measure_costs(pruned, (8, 8), (8, 8), SimpleInferer(), repeats=2, warm_up=0)
    found = [each.volume_energy_j for each in costs.values()]
    assert all(each is not None and each.count == 2 for each in found)
    monkeypatch.setattr(cost, "find_counter", lambda device: None)
    [silent] = measure_costs({"L2": pruned["L2"]}, (8, 8), (8, 8), SimpleInferer(), repeats=1, warm_up=0).values()
    assert silent.volume_energy_j is None


@pytest.mark.usefixtures("without_memory")
@pytest.mark.parametrize("wrap", [lambda inferer: inferer, lambda inferer: FlipInferer(inferer, (0,))])
def test_precision_replaces_that_of_the_inferer(full: NestedUNet, wrap) -> None:
    types = set()
    full.heads["L2"].register_forward_hook(lambda module, inputs, output: types.add(output.dtype))
    inferer = wrap(PrecisionInferer(SimpleInferer(), precision="bf16"))
    measure_costs({"L2": full}, (8, 8), (8, 8), inferer, precision="fp32", repeats=1, warm_up=0)
    assert types == {torch.float32}


class TestSelfCheck:
    def test_equal(self, full: NestedUNet, pruned: dict[str, NestedUNet]) -> None:
        checks = check_pruned_networks(full, pruned, (19, 16))
        assert checks == {level: cost.SelfCheck(max_difference=0.0, equal=True) for level in ("L1", "L2")}

    def test_altered_weights_are_found(self, full: NestedUNet, pruned: dict[str, NestedUNet]) -> None:
        with torch.no_grad():
            pruned["L1"].heads["L1"].bias += 0.5
        checks = check_pruned_networks(full, pruned, WINDOW)
        assert not checks["L1"].equal
        assert checks["L1"].max_difference == pytest.approx(0.5, abs=1e-5)
        assert checks["L2"].equal

    def test_named_points(self, full: NestedUNet, pruned: dict[str, NestedUNet]) -> None:
        networks = {"small": pruned["L1"], "alone": make_network(features=(4, 8))}
        assert check_pruned_networks(full, networks, WINDOW) == {}
        checks = check_pruned_networks(full, networks, WINDOW, levels={"small": "L1"})
        assert {point: check.equal for point, check in checks.items()} == {"small": True}

    def test_other_shape(self, full: NestedUNet) -> None:
        other = make_network(out_channels=3, features=(4, 8))
        checks = check_pruned_networks(full, {"L1": other}, WINDOW)
        assert checks["L1"] == cost.SelfCheck(max_difference=math.inf, equal=False)

    def test_unknown_points_and_levels(self, full: NestedUNet, pruned: dict[str, NestedUNet]) -> None:
        with pytest.raises(ValueError, match="levels must name operating points out of L1, L2, got 'L9'"):
            check_pruned_networks(full, pruned, WINDOW, levels={"L9": "L1"})
        with pytest.raises(ValueError, match="level must be one of L1, L2, got 'L9'"):
            check_pruned_networks(full, pruned, WINDOW, levels={"L1": "L9"})


def test_killed_process(full: NestedUNet, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(memory.subprocess, "run", lambda *arguments, **options: failed)
    with pytest.raises(RuntimeError, match=r"L2: .* failed \(exit code -9\)\. If memory ran out, give a smaller"):
        measure_costs({"L2": full}, (8, 8), (8, 8), SimpleInferer(), repeats=1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda(full: NestedUNet, pruned: dict[str, NestedUNet]) -> None:
    costs = measure_costs(
        pruned, WINDOW, VOLUME, SlidingWindowInferer(WINDOW), device="cuda", repeats=2, full_network=full
    )
    assert all(each.peak_memory_bytes > 4 * each.parameters for each in costs.values())
    assert all(each.self_check is not None and each.self_check.equal for each in costs.values())
    assert "cuda" in describe_environment("cuda").versions

"""Whole volumes: our levels, runtimes and precisions beside MONAI's route."""

import dataclasses
import json
import os
import shutil
from typing import ClassVar

import numpy as np
import pytest
import torch
from json_edits import edit_json
from monai.networks.nets import BasicUNetPlusPlus
from PIL import Image

from monai_unetpp import NestedUNet
from monai_unetpp.benchmark import contenders, run_benchmark, speed, speed_plot
from monai_unetpp.benchmark.contenders import (
    Contender,
    ContenderProcess,
    ContenderRun,
    InferenceTask,
    SegmentedVolume,
    StartedContender,
    expected_logits,
    make_volume,
    measure_matrix_ceiling,
)
from monai_unetpp.benchmark.speed import measure_inference
from monai_unetpp.benchmark.speed_options import SpeedOptions
from monai_unetpp.benchmark.speed_results import InferenceCost, check_targets
from monai_unetpp.benchmark.speed_tables import format_inference_benchmark
from monai_unetpp.cli import main
from monai_unetpp.inferers import sliding_windows
from monai_unetpp.inferers.predictors.choice import make_predictor
from monai_unetpp.measuring.quartiles import Quartiles

FEATURES = (4, 4, 4, 4, 4)
TINY = {"features": FEATURES, "volume_shape": (48, 32, 32), "window_shape": (32, 32, 32)}
MONAI, DEEP, SHALLOW = (
    Contender(None, "torch", "fp32"),
    Contender("L4", "torch", "fp32"),
    Contender("L1", "torch", "fp32"),
)


@pytest.fixture
def task(tmp_path):
    return make_task(tmp_path)


def make_task(folder, **changes):
    values = {
        "in_channels": 1,
        "out_channels": 3,
        "features": FEATURES,
        "volume_shape": (48, 32, 32),
        "window_shape": (32, 32, 32),
        "overlap": 0.25,
        "sw_batch_size": 2,
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "folder": str(folder),
        **changes,
    }
    return InferenceTask(**values)


class TestFairness:
    """Both routes compute the same, and MONAI's does nothing that is not needed."""

    @pytest.fixture(scope="class")
    @classmethod
    def expected_by_level(cls, tmp_path_factory):
        return expected_logits(make_task(tmp_path_factory.mktemp("converted")))

    @pytest.mark.slow
    @pytest.mark.parametrize("level", ["L1", "L2", "L3", "L4"])
    def test_each_level_gives_what_monais_network_gives(self, task, expected_by_level, level):
        started = ContenderRun(Contender(level, "torch", "fp32"), task).start()
        expected = expected_by_level[level]
        assert started.logits.shape == expected.shape == (3, 32, 32, 32)
        assert np.abs(started.logits - expected).max() < 1e-5 * np.abs(expected).max()

    @pytest.mark.slow
    def test_the_volume_gets_the_same_labels(self, task):
        found = [ContenderRun(contender, task).run(stages=False, labels=True).labels for contender in (MONAI, DEEP)]
        assert found[0].shape == (48, 32, 32)
        assert len(np.unique(found[0])) == 3
        assert (found[0] == found[1]).mean() > 0.9999

    @pytest.mark.slow
    def test_one_class_is_a_threshold_for_both(self, tmp_path):
        task = make_task(tmp_path, out_channels=1)
        found = [ContenderRun(contender, task).run(stages=False, labels=True).labels for contender in (MONAI, DEEP)]
        assert 0 < found[0].mean() < 1
        assert (found[0] == found[1]).mean() > 0.9999

    @pytest.mark.slow
    def test_monais_route(self, task):
        run = ContenderRun(MONAI, task)
        assert isinstance(run.network, BasicUNetPlusPlus)
        assert not run.network.training
        seen = []
        run.network.register_forward_hook(
            lambda module, inputs, output: seen.append(
                (len(output), inputs[0].shape[0], torch.is_inference_mode_enabled())
            )
        )
        run.run(stages=False, labels=False)
        # one output, the two windows in one batch
        assert seen == [(1, 2, True)]

    @pytest.mark.slow
    @pytest.mark.parametrize("contender", [Contender(None, "torch", "bf16"), Contender("L1", "torch", "bf16")])
    def test_precision_is_that_of_the_network(self, task, contender):
        run = ContenderRun(contender, task)
        types = set()
        convolution = next(module for module in run.network.modules() if isinstance(module, torch.nn.Conv3d))
        convolution.register_forward_hook(lambda module, inputs, output: types.add(output.dtype))
        run.run(stages=False, labels=False)
        assert types == {torch.bfloat16}

    @pytest.mark.slow
    def test_networks_are_really_pruned(self, task):
        networks = [ContenderRun(each, task).network for each in (SHALLOW, DEEP, MONAI)]
        assert networks[0].levels == ("L1",)
        parameters = [sum(each.numel() for each in network.parameters()) for network in networks]
        # MONAI's network holds the heads of the other levels too: 4 channels by 3 classes and a bias, three times
        assert parameters[0] < parameters[1] == parameters[2] - 3 * (4 * 3 + 3)

    def test_monais_network_has_the_norm_of_the_bundle(self, brain_bundle, tmp_path):
        network = contenders.build_monai_network(make_task(tmp_path, bundle=str(brain_bundle)))
        norms = {type(module) for module in network.modules() if "Norm" in type(module).__name__}
        assert norms == {torch.nn.BatchNorm3d}

    def test_the_volume_is_the_same_everywhere(self, task):
        volume = make_volume(task)
        assert volume.shape == (1, 1, 48, 32, 32)
        assert torch.equal(volume, make_volume(task))
        assert abs(float(volume.mean())) < 1e-5
        assert float(volume.std()) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_operations_of_a_network_counted_by_hand(tmp_path):
    """L1 in 2D with 2 and 3 channels on 32x32 and 16x16 pixels; MONAI's way up keeps the 3 channels."""
    task = make_task(tmp_path, features=(2, 3, 3, 3, 3), out_channels=2, volume_shape=(32, 32), window_shape=(32, 32))
    by_hand = 2 * (
        1024 * 9 * (1 * 2 + 2 * 2)  # x_0_0
        + 256 * 9 * (2 * 3 + 3 * 3)  # x_1_0
        + 256 * 4 * (3 * 3)  # transposed convolution
        + 1024 * 9 * ((2 + 3) * 2 + 2 * 2)  # x_0_1
        + 1024 * (2 * 2)  # head
    )
    assert ContenderRun(SHALLOW, task).start().flops_per_window == by_hand


class TestOneContender:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("contender", "names"),
        [(MONAI, {"network", "windows, stitching", "argmax"}), (DEEP, {"network", "windows", "stitching", "argmax"})],
    )
    def test_stages_are_parts_of_the_time(self, task, contender, names):
        run = ContenderRun(contender, task)
        done = run.run(stages=True, labels=False)
        assert names <= set(done.stages_s) <= names | {"preparation"}
        assert 0 < done.stages_s["network"] < sum(done.stages_s.values()) <= done.seconds
        assert done.labels is None
        assert run.run(stages=False, labels=False).stages_s == {}

    @pytest.mark.slow
    @pytest.mark.parametrize("shape", [(48, 32, 32), (32, 32, 32)])
    def test_the_volume_needs_no_preparation_after_the_start(self, tmp_path, monkeypatch, shape):
        """A network is converted for one size of batches: otherwise the first round would measure that too."""
        run, made = ContenderRun(SHALLOW, make_task(tmp_path, volume_shape=shape)), []
        monkeypatch.setattr(
            sliding_windows,
            "make_predictor",
            lambda *args, **settings: made.append(settings) or make_predictor(*args, **settings),
        )
        run.start()
        run.run(stages=False, labels=True)
        assert len(made) == 1

    def test_openvino_is_imported_without_telemetry(self, monkeypatch):
        imported = []
        monkeypatch.setattr(contenders, "has_openvino", lambda: True)
        monkeypatch.setattr(contenders, "import_openvino", lambda: imported.append("openvino"))
        contenders._load_libraries(Contender("L1", "openvino", "fp32"), torch.device("cpu"))
        assert imported == ["openvino"]

    def test_each_has_a_folder_without_blanks(self, task):
        """Compilers fail with blanks in paths, and nobody shall profit from what another one converted."""
        folders = [contenders.own_folder(each, task) for each in (SHALLOW, DEEP)]
        assert [folder.name for folder in folders] == ["L1_torch_fp32", "L4_torch_fp32"]

    def test_the_ceiling_is_a_rate(self, monkeypatch):
        monkeypatch.setattr(contenders, "_MOST_MATRIX", {"cpu": 256})
        rate = measure_matrix_ceiling("fp32", "cpu", tries=3)
        assert 1e8 < rate < 1e14
        assert torch.backends.cuda.matmul.allow_tf32 is False

    def test_the_ceiling_is_the_best_of_several_products_of_large_matrices(self, monkeypatch):
        # all but the first of each size; the last three are of the largest
        seconds = {256: [9, 0.01], 512: [0.02], 1024: [0.04], 2048: [4, 2, 8]}
        monkeypatch.setattr(contenders, "_product_seconds", lambda precision, device, size: seconds[size].pop(0))
        assert measure_matrix_ceiling("fp32", "cpu", tries=3) == 2**33
        assert not any(seconds.values())

    def test_the_ceiling_of_a_precision_that_the_processor_lacks_takes_small_matrices(self, monkeypatch):
        seconds = {256: [9, 0.01], 512: [0.5, 0.25]}
        monkeypatch.setattr(contenders, "_product_seconds", lambda precision, device, size: seconds[size].pop(0))
        assert measure_matrix_ceiling("bf16", "cpu", tries=2) == 2**30


class FakeProcess:
    """A contender that takes the times it is told, in this process."""

    #: Seconds of each round by contender; a text is the reason of a failure.
    seconds: ClassVar = {}
    flops = 100

    def __init__(self, contender, task):
        self.contender = contender
        self.rounds = iter(self.seconds.get(contender.name, [1.0] * 9))
        self.started = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def close(self):
        pass

    def start(self):
        if self.seconds.get(self.contender.name) == "start":
            raise RuntimeError("RuntimeError: no compiler")
        logits = np.zeros((2, 2, 2, 2), np.float32)
        logits[1] = 1
        if self.contender.precision == "bf16":
            # one of eight voxels gets another label
            logits[1, 0, 0, 0] = -0.5
        return StartedContender(parameters=7, flops_per_window=self.flops, preparation_s=1.5, logits=logits)

    def expect(self):
        logits = np.zeros((2, 2, 2, 2), np.float32)
        logits[1] = 1
        return dict.fromkeys(("L1", "L2", "L3", "L4"), logits)

    def run(self, stages, labels):
        seconds = next(self.rounds)
        if isinstance(seconds, str):
            raise RuntimeError(seconds)
        found = np.zeros((2, 2), np.uint8)
        found[0, 0] = self.contender.level is not None and self.contender.precision == "bf16"
        stages_s = {"network": 0.75 * seconds, "argmax": 0.125 * seconds}
        return SegmentedVolume(seconds, stages_s, int(1000 * seconds), found if labels else None)


@pytest.fixture
def fake(monkeypatch):
    """A function that measures with contenders that take the given seconds."""

    def measure(seconds, **options):
        monkeypatch.setattr(FakeProcess, "seconds", seconds)
        monkeypatch.setattr(speed, "ContenderProcess", FakeProcess)
        monkeypatch.setattr(speed, "measure_matrix_ceiling", lambda precision, device: 1000.0)
        monkeypatch.setattr(speed, "resolve_precision", lambda precision, device: "bf16")
        return measure_inference(**{**TINY, "runtimes": ["torch"], "device": "cpu", **options})

    return measure


class TestFigures:
    """Numbers computed by hand, with contenders that take fixed times."""

    @pytest.fixture
    def result(self, fake):
        seconds = {
            # beside the contenders in fp32, and again beside those in bf16
            "MONAI fp32": [8.0, 12.0, 10.0] * 2,
            "L4 torch fp32": [4.0, 3.0, 2.0],
            "L4 torch bf16": [2.0, 2.0, 2.0],
            "L1 torch bf16": [0.25, 0.5, 0.5],
        }
        return fake(seconds, levels=["L4", "L1"])

    def cost(self, result, name):
        (found,) = [cost for cost in result.costs if cost.name == name]
        return found

    def test_contenders_in_order(self, result):
        assert [cost.name for cost in result.costs] == [
            "MONAI fp32",
            "MONAI bf16",
            "L4 torch fp32",
            "L1 torch fp32",
            "L4 torch bf16",
            "L1 torch bf16",
        ]
        assert (result.reference, result.reference_network, result.missing) == ("MONAI fp32", "BasicUNetPlusPlus", ())

    def test_ratios_are_taken_within_each_round(self, result):
        # 8 / 4, 12 / 3, 10 / 2: the ratio of the medians would be 10 / 3
        assert self.cost(result, "L4 torch fp32").speed_up == Quartiles(median=4, lower=3, upper=4.5, count=3)
        assert self.cost(result, "MONAI fp32").speed_up == Quartiles(1, 1, 1, 6)
        assert self.cost(result, "L4 torch fp32").seconds == Quartiles(3, 2.5, 3.5, 3)

    def test_operations_per_second(self, result):
        cost = self.cost(result, "L4 torch fp32")
        # two windows of 100 operations in 3 seconds, of 1000 per second
        assert result.windows == 2
        assert cost.flops == 200
        assert cost.flops_per_s == pytest.approx(200 / 3)
        assert cost.ceiling_share == pytest.approx(200 / 3 / 1000)

    @pytest.mark.slow
    def test_stages_and_memory(self, result):
        cost = self.cost(result, "L4 torch fp32")
        assert cost.stages_s == {"network": 2.25, "argmax": 0.375, "other": 0.375}
        assert cost.outside_network == 0.25
        assert cost.peak_memory_bytes == 4000
        assert cost.preparation_s == 1.5

    def test_agreement(self, result):
        exact, reduced = self.cost(result, "L4 torch fp32"), self.cost(result, "L4 torch bf16")
        assert (exact.max_difference, exact.same_labels, exact.same_labels_volume) == (0, 1, 1)
        assert (reduced.max_difference, reduced.relative_difference) == (1.5, 1.5)
        assert (reduced.same_labels, reduced.same_labels_volume) == (7 / 8, 3 / 4)
        # another level has other labels in the volume
        assert self.cost(result, "L1 torch fp32").same_labels_volume is None

    def test_targets(self, result):
        deep, reduced, shallow, outside = check_targets(result)
        assert (deep.wanted, deep.measured, deep.contender, deep.met) == (3.5, 4, "L4 torch fp32", True)
        assert (reduced.wanted, reduced.measured, reduced.met) == (6, 5, False)
        # 32, 24, 20
        assert (shallow.wanted, shallow.measured, shallow.met) == (20, 24, True)
        assert (outside.wanted, outside.measured, outside.met) == (0.15, 0.25, False)

    def test_text(self, result):
        text = format_inference_benchmark(result)
        assert "- L4 fp32: 3.5 times as fast as MONAI fp32; 4.00 times (L4 torch fp32): met" in text
        assert "- L4 bf16: 6 times as fast as MONAI fp32; 5.00 times (L4 torch bf16): missed, 17 % short" in text
        assert "- time outside the network: at most 15 %; 25.0 % (L4 torch fp32): missed, 10.0 points above" in text
        assert "48 x 32 x 32 in 2 windows of 32 x 32 x 32, overlap 0.25, 4 at once, 4 classes" in text
        assert "| L4 torch fp32 | 3 (2.5 to 3.5) | 4.00 (3.00 to 4.50) | 25 % | 0 MiB | 1.5 s | 0 | 7 % |" in text
        assert "| L4 torch bf16 | 1.5e+00 | 1.5e+00 | 87.50 % | 75.00 % |" in text
        assert "Outputs in fp32 agree: 0.0e+00 of the largest logit, 1e-03 allowed." in text
        assert "Missing" not in text

    def test_text_of_outputs_that_differ(self, result):
        costs = tuple(
            dataclasses.replace(cost, relative_difference=0.01) if cost.name == "L4 torch fp32" else cost
            for cost in result.costs
        )
        text = format_inference_benchmark(dataclasses.replace(result, costs=costs))
        assert "Outputs in fp32 DO NOT AGREE: 1.0e-02 of the largest logit" in text

    def test_ready_for_json(self, result):
        again = json.loads(json.dumps(dataclasses.asdict(result)))
        assert again["costs"][2]["speed_up"]["median"] == 4
        assert again["environment"]["versions"]["torch"] == torch.__version__

    @pytest.mark.slow
    def test_plot(self, result, tmp_path):
        speed_plot.save_speed_plot(result, tmp_path / "speed.png")
        with Image.open(tmp_path / "speed.png") as image:
            assert image.format == "PNG"
            width, height = image.size
            colours = image.convert("RGB").getcolors(width * height)
        assert width > 1000
        assert height > 400
        # grey for MONAI has no length here; blue bars of torch
        assert {colour: count for count, colour in colours}[(0x00, 0x72, 0xB2)] > 5000

    def test_a_gpu_has_a_target_of_its_own(self, result):
        costs = tuple(dataclasses.replace(cost, precision="fp16") for cost in result.costs)
        given = dataclasses.replace(result, reference="MONAI fp32", costs=costs, on_gpu=True)
        speed_up, outside = check_targets(given)
        assert (speed_up.name, speed_up.wanted, speed_up.measured, speed_up.met) == ("L4 bf16 or fp16", 2, 5, True)
        assert outside.at_most

    def test_a_target_that_was_not_measured(self, fake):
        result = fake({}, levels=["L1"], precisions=["fp32"])
        assert [target.measured for target in check_targets(result)] == [None, None, None]
        assert not any(target.met for target in check_targets(result))
        assert "- L1 bf16: 20 times as fast as MONAI fp32; not measured" in format_inference_benchmark(result)


class TestGroups:
    def test_a_group_is_closed_before_the_next_is_started(self, fake, monkeypatch):
        events = []
        monkeypatch.setattr(FakeProcess, "__exit__", lambda self, *error: events.append(("end", self.contender.name)))
        start = FakeProcess.start

        def noted(process):
            events.append(("start", process.contender.name))
            return start(process)

        monkeypatch.setattr(FakeProcess, "start", noted)
        fake({}, levels=["L1", "L4"])
        assert [event for event in events if event[1] != "MONAI fp32"] == [
            ("start", "MONAI bf16"),
            ("start", "L4 torch fp32"),
            ("start", "L1 torch fp32"),
            ("end", "L1 torch fp32"),
            ("end", "L4 torch fp32"),
            ("end", "MONAI bf16"),
            ("start", "L4 torch bf16"),
            ("start", "L1 torch bf16"),
            ("end", "L1 torch bf16"),
            ("end", "L4 torch bf16"),
        ]
        assert events[-1] == ("end", "MONAI fp32")

    def test_the_reference_runs_in_every_group(self, fake):
        """Each group is compared with the reference's runs of its own rounds."""
        result = fake({"MONAI fp32": [2.0, 2.0, 2.0, 6.0, 6.0, 6.0]}, levels=["L1", "L4"])
        speed_up = {cost.name: cost.speed_up.median for cost in result.costs}
        assert speed_up["L4 torch fp32"] == 2
        assert speed_up["L4 torch bf16"] == 6

    def test_the_reference_has_computed_nothing_before_its_memory_is_measured(self, fake, monkeypatch):
        calls = {}

        def noting(method):
            def noted(process):
                calls.setdefault(process, []).append(method.__name__)
                return method(process)

            return noted

        for name in ("expect", "start"):
            monkeypatch.setattr(FakeProcess, name, noting(getattr(FakeProcess, name)))
        fake({}, levels=["L4"], precisions=["fp32"])
        assert sorted(calls.values()) == [["expect"], ["start"], ["start"]]


class TestFailures:
    def test_one_that_cannot_start_is_missing_and_the_rest_goes_on(self, fake):
        told = []
        result = fake({"L1 torch fp32": "start"}, levels=["L1", "L4"], precisions=["fp32"], progress=told.append)
        assert [cost.name for cost in result.costs] == ["MONAI fp32", "L4 torch fp32"]
        assert [dataclasses.astuple(each) for each in result.missing] == [
            ("L1 torch fp32", "RuntimeError: no compiler")
        ]
        assert "Missing:\n- L1 torch fp32: RuntimeError: no compiler" in format_inference_benchmark(result)
        assert "L1 torch fp32 is left out: RuntimeError: no compiler." in told
        assert [line for line in told if line.startswith("Round")] == [
            f"Round {number} of 3: MONAI fp32 1.00 s, fastest MONAI fp32 1.00 s (1.0 times as fast)."
            for number in (1, 2, 3)
        ]

    def test_one_that_fails_later_is_missing_too(self, fake):
        result = fake({"L1 torch fp32": [1.0, "out of memory"]}, levels=["L1", "L4"], precisions=["fp32"])
        assert [cost.name for cost in result.costs] == ["MONAI fp32", "L4 torch fp32"]
        assert result.missing[0].reason == "out of memory"

    @pytest.mark.parametrize("seconds", ["start", [1.0, "out of memory"]])
    def test_nothing_without_the_reference(self, fake, seconds):
        with pytest.raises(RuntimeError, match=r"MONAI fp32: MONAI's route failed .* give a smaller volume_shape"):
            fake({"MONAI fp32": seconds}, precisions=["fp32"])


class TestProcesses:
    """Real processes, which take seconds to start."""

    @pytest.mark.slow
    def test_measured(self):
        told = []
        result = measure_inference(
            **TINY, levels=["L4"], runtimes=["torch"], precisions=["fp32"], repeats=2, progress=told.append
        )
        monai, ours = result.costs
        assert (monai.name, ours.name, result.missing) == ("MONAI fp32", "L4 torch fp32", ())
        for cost in result.costs:
            assert isinstance(cost, InferenceCost)
            assert 0 < cost.seconds.lower <= cost.seconds.upper
            assert cost.seconds.count == 2
            assert 0 < cost.outside_network < 1
            # weights and volume at least; a process of Python with torch takes some hundred MB, which nobody pays for
            assert 4 * (cost.parameters + 48 * 32 * 32) < cost.peak_memory_bytes < 300e6
            assert cost.flops_per_s == pytest.approx(cost.flops / cost.seconds.median)
        assert ours.relative_difference < 1e-5
        assert ours.same_labels_volume > 0.9999
        assert result.ceilings["fp32"] > 1e8
        assert told[0] == "Preparing MONAI fp32 (1 of 2)."
        assert told[-1].startswith("Round 2 of 2: MONAI fp32 ")

    @pytest.mark.slow
    def test_an_error_in_the_process_is_told(self, task):
        with (
            ContenderProcess(Contender("L7", "torch", "fp32"), task) as process,
            pytest.raises(RuntimeError, match=r"^ValueError: level must be one of L1, L2, L3, L4, got 'L7'"),
        ):
            process.start()

    @pytest.mark.slow
    def test_a_process_that_dies_is_told(self, task):
        with (
            ContenderProcess(MONAI, task) as process,
            pytest.raises(RuntimeError, match="its process ended, perhaps for lack of memory"),
        ):
            process.call(os._exit, 1)


class TestBundle:
    @pytest.fixture
    def chosen(self, hippocampus_bundle, tmp_path):
        options = SpeedOptions(bundle=hippocampus_bundle, quick=True, sw_batch_size=2)
        return speed.make_task(options, torch.device("cpu"), str(tmp_path))

    def test_network_and_windows_are_the_bundles(self, chosen):
        assert chosen.features == (16, 32, 64, 128)
        assert chosen.out_channels == 3
        assert chosen.window_shape == chosen.volume_shape == (40, 56, 40)
        assert chosen.overlap == 0.25

    @pytest.mark.slow
    def test_where_monais_network_cannot_be_so_deep_the_bundles_is_the_reference(self, chosen):
        run = ContenderRun(MONAI, dataclasses.replace(chosen, window_shape=(16,) * 3, volume_shape=(16,) * 3))
        assert isinstance(run.network, NestedUNet)
        assert run.network.levels == ("L1", "L2", "L3")
        assert run.start().logits.shape == (3, 16, 16, 16)

    @pytest.mark.slow
    def test_weights_are_the_bundles(self, chosen):
        small = dataclasses.replace(chosen, window_shape=(16,) * 3, volume_shape=(16,) * 3)
        expected = expected_logits(small)
        assert list(expected) == ["L1", "L2", "L3"]
        found = ContenderRun(SHALLOW, small).start().logits
        assert np.allclose(found, expected["L1"], atol=1e-5 * np.abs(expected["L1"]).max())

    def test_features_are_given_by_the_bundle(self, hippocampus_bundle):
        with pytest.raises(ValueError, match=r"features must be left out with a bundle, got \(4, 4\)"):
            measure_inference(features=(4, 4), bundle=hippocampus_bundle)

    def test_a_bundle_that_chooses_its_windows_needs_their_size(self, hippocampus_bundle, tmp_path):
        bundle = tmp_path / "automatic"
        shutil.copytree(hippocampus_bundle, bundle)
        edit_json(bundle / "configs" / "inference.json", window_shape="auto")
        with pytest.raises(ValueError, match=r"its windows are chosen for each image, .* as window_shape \(--window\)"):
            measure_inference(bundle=bundle)
        options = SpeedOptions(bundle=bundle, window_shape=(16, 16, 16), quick=True)
        assert speed.make_task(options, torch.device("cpu"), str(tmp_path)).window_shape == (16, 16, 16)

    def test_windows_have_the_axes_of_the_bundle(self, hippocampus_bundle):
        with pytest.raises(ValueError, match=r"window_shape must have 3 sizes, as the images of .* got \(32, 32\)"):
            measure_inference(bundle=hippocampus_bundle, window_shape=(32, 32))

    def test_no_such_bundle(self):
        with pytest.raises(FileNotFoundError, match="got 'nonsense'"):
            measure_inference(bundle="nonsense")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repeats": 1}, "repeats must be a whole number, 2 or more, got 1"),
        ({"repeats": 2.5}, "repeats must be a whole number, 2 or more, got 2.5"),
        ({"features": (4, 8)}, r"features must have 5 positive entries, got \(4, 8\). BasicUNetPlusPlus has a fixed"),
        ({"window_shape": (32,)}, r"window_shape must have 2 or 3 positive sizes, got \(32,\)"),
        ({"window_shape": (32, 32, 16)}, r"window_shape must have sizes of 32 or more, got \(32, 32, 16\)"),
        ({"volume_shape": (32, 32)}, r"volume_shape must have 3 positive sizes like the windows, got \(32, 32\)"),
        ({"overlap": 1.0}, "overlap must be from 0 to below 1, got 1.0"),
        ({"overlap": (0.5, 0.5)}, r"overlap must have one entry per spatial axis of the image, 3, got \[0.5, 0.5\]"),
        ({"out_channels": 0}, "out_channels must be a whole number, 1 or more, got 0"),
        ({"sw_batch_size": 0}, "sw_batch_size must be a whole number, 1 or more, got 0"),
        ({"sw_batch_size": 2.5}, "sw_batch_size must be a whole number, 1 or more, got 2.5"),
        ({"levels": ["L5"]}, "levels must be among L1, L2, L3, L4, got 'L5'"),
        ({"runtimes": ["auto"]}, "runtimes must be among torch, compile, openvino, got 'auto'"),
        ({"precisions": ["fp16"]}, "precisions must be among fp32, bf16, got 'fp16'"),
    ],
)
def test_arguments_that_cannot_work(change, message):
    with pytest.raises(ValueError, match=message):
        measure_inference(**{**TINY, "device": "cpu", **change})


@pytest.mark.parametrize(("installed", "other"), [(True, "openvino"), (False, "compile")])
def test_runtimes_that_are_present(monkeypatch, installed, other):
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda name: installed or None)
    chosen = speed.choose_contenders(SpeedOptions(precisions=["bf16"]), ["L1"], torch.device("cpu"))
    # the reference is fp32 whatever is asked for
    assert [contender.name for contender in chosen] == [
        "MONAI fp32",
        "MONAI bf16",
        "L1 torch bf16",
        f"L1 {other} bf16",
    ]


@pytest.mark.parametrize(("native", "precisions"), [("fp32", ["fp32"]), ("bf16", ["fp32", "bf16"])])
def test_bf16_is_left_out_where_the_processor_lacks_it(monkeypatch, native, precisions):
    monkeypatch.setattr(speed, "resolve_precision", lambda precision, device: native)
    chosen = speed.choose_contenders(SpeedOptions(runtimes=["torch"]), ["L1"], torch.device("cpu"))
    assert [contender.precision for contender in chosen] == 2 * precisions


def test_contenders_on_a_gpu():
    chosen = speed.choose_contenders(SpeedOptions(runtimes=["torch"]), ["L1"], torch.device("cuda"))
    assert [contender.name for contender in chosen] == [
        "MONAI fp16",
        "MONAI fp32",
        "MONAI bf16",
        *(f"L1 torch {precision}" for precision in ("fp32", "bf16", "fp16")),
    ]


class TestByName:
    @pytest.mark.slow
    def test_inference_is_what_is_measured_if_nothing_else_is_named(self, fake, monkeypatch, tmp_path):
        result = fake({}, levels=["L1"], precisions=["fp32"])
        asked = {}

        def measured(**options):
            asked.update(options)
            return result

        monkeypatch.setattr(speed, "measure_inference", measured)
        text, figures = run_benchmark(device="cpu", quick=True, plot=tmp_path / "f.png", levels=["L1"])
        assert asked == {"device": torch.device("cpu"), "quick": True, "levels": ["L1"]}
        assert text == format_inference_benchmark(result)
        assert figures == dataclasses.asdict(result)
        assert (tmp_path / "f.png").stat().st_size > 10000

    def test_a_plot_of_another_kind_is_refused_before_measuring(self, tmp_path):
        with pytest.raises(ValueError, match=r"plot must be a PNG file, got '.*f\.svg'"):
            run_benchmark(device="cpu", plot=tmp_path / "f.svg")
        (tmp_path / "f.png").mkdir()
        with pytest.raises(ValueError, match=r"plot must be a file, got the folder '.*f\.png'"):
            run_benchmark(device="cpu", plot=tmp_path / "f.png")
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="must be a folder that can be written to"):
            run_benchmark(device="cpu", plot=tmp_path / "file" / "f.png")

    def test_figures_outlive_a_plot_that_cannot_be_written(self, fake, monkeypatch, tmp_path, capsys):
        def refuse(*_):
            raise OSError("f.png: cannot be written (No space left on device).")

        result = fake({}, levels=["L1"], precisions=["fp32"])
        monkeypatch.setattr(speed, "measure_inference", lambda **_: result)
        monkeypatch.setattr(speed_plot, "save_speed_plot", refuse)
        written = ["--plot", str(tmp_path / "f.png"), "-o", str(tmp_path / "f.json")]
        assert main(["benchmark", "--device", "cpu", *written]) == 2
        said = capsys.readouterr()
        assert said.out == f"{format_inference_benchmark(result)}\n"
        assert said.err == "monai-unetpp: f.png: cannot be written (No space left on device).\n"
        figures = json.loads((tmp_path / "f.json").read_text())
        assert figures == json.loads(json.dumps(dataclasses.asdict(result)))

    @pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
    def test_missing_device(self):
        with pytest.raises(ValueError, match="finds no CUDA GPU"):
            run_benchmark("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda():
    result = measure_inference(**TINY, levels=["L4"], runtimes=["torch"], repeats=2, device="cuda")
    assert result.reference == "MONAI fp16"
    assert {cost.name for cost in result.costs} >= {"L4 torch fp16", "MONAI fp32"}
    assert all(cost.peak_memory_bytes > 4 * 48 * 32 * 32 for cost in result.costs)
    assert all(cost.stages_s["network"] > 0 for cost in result.costs)

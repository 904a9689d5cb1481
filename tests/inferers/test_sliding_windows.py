import copy
import functools
import inspect
import json
import logging
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, EnsureChannelFirstd, Invertd, Orientationd, Spacingd
from torch import nn

from monai_unetpp import NestedUNet
from monai_unetpp.inferers import FlipInferer, NestedSlidingWindowInferer, PrecisionInferer, sliding_windows
from monai_unetpp.inferers.predictors import TorchPredictor
from monai_unetpp.inferers.window_run import device_of
from monai_unetpp.measuring.stage_timer import StageTimer
from monai_unetpp.openvino_loading import has_openvino

LOGGER = "monai_unetpp.inferers.sliding_windows"


def inferer(roi_size=8, **options):
    return NestedSlidingWindowInferer(roi_size, **{"precision": "fp32", "runtime": "torch", **options})


def three_channels(x):
    """Logits that depend on the place in the window, so that blending matters."""
    x = x[:, :1]
    return torch.cat([x.roll(1, 2), 0.5 - x.roll(-1, -1), x * x], dim=1)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return NestedUNet(spatial_dims=2, in_channels=1, out_channels=3, features=(4, 8, 8)).eval()


@pytest.fixture(scope="module")
def image():
    return torch.rand(2, 1, 19, 13, generator=torch.Generator().manual_seed(0))


class Recorder:
    """A network that keeps what it was given."""

    def __init__(self):
        self.windows = []

    def __call__(self, x):
        self.windows.append(x.clone())
        return three_channels(x)

    @property
    def count(self):
        return sum(len(windows) for windows in self.windows)


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize(
    ("shape", "roi_size", "overlap"),
    [
        ((1, 1, 30), 8, 0.25),
        ((1, 1, 19, 23), 8, 0.0),
        ((2, 2, 19, 23), (8, 6), (0.5, 0.1)),
        ((1, 1, 5, 23), 8, 0.25),
        ((1, 1, 5, 3), (8, 6), 0.25),
        ((1, 1, 9, 7), None, 0.25),
        ((1, 1, 9, 7), 0, 0.25),
        ((1, 1, 9, 17), (-1, 8), 0.6),
        ((1, 1, 9, 17), (None, 8), 0.9),
        ((2, 1, 11, 7, 14), (8, 8, 6), 0.5),
        ((1, 1, 8, 6, 30), (8, None, 8), 0.25),
    ],
)
class TestEqualToMonai:
    def test_logits(self, shape, roi_size, overlap, mode):
        x = torch.rand(shape)
        expected = SlidingWindowInferer(roi_size, 4, overlap, mode, cval=0.3)(x, three_channels)
        found = inferer(roi_size, overlap=overlap, mode=mode, cval=0.3)(x, three_channels)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)

    def test_labels(self, shape, roi_size, overlap, mode):
        x = torch.rand(shape)
        logits = SlidingWindowInferer(roi_size, 4, overlap, mode)(x, three_channels)
        labels = inferer(roi_size, overlap=overlap, mode=mode, output="labels", sw_batch_size=3)(x, three_channels)
        assert labels.dtype == torch.uint8
        assert labels.shape == (shape[0], 1, *shape[2:])
        highest = logits.max(dim=1, keepdim=True)[0]
        torch.testing.assert_close(logits.gather(1, labels.long()), highest, atol=1e-5, rtol=0)


def test_positional_arguments_are_those_of_monai(image):
    arguments = ((8, 8), 3, 0.5, "gaussian", 0.2, "reflect", 0.5)
    used, monais = NestedSlidingWindowInferer(*arguments), SlidingWindowInferer(*arguments)
    for name in ("roi_size", "sw_batch_size", "overlap", "sigma_scale", "padding_mode", "cval"):
        assert getattr(used, name) == getattr(monais, name), name
    assert used.mode == monais.mode.value


@pytest.mark.parametrize("padding_mode", ["reflect", "replicate", "circular"])
def test_padding_modes_equal_monais(padding_mode):
    x = torch.rand(1, 1, 6, 5, 20)
    expected = SlidingWindowInferer(8, 2, 0.25, padding_mode=padding_mode)(x, three_channels)
    found = inferer(mode="constant", padding_mode=padding_mode)(x, three_channels)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_network_equals_monais_inferer(net, image):
    expected = SlidingWindowInferer(8, 4, 0.5, "gaussian")(image, net)
    torch.testing.assert_close(inferer(overlap=0.5)(image, net), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("output", ["logits", "labels"])
class TestLevels:
    def test_one_level_is_that_of_the_pruned_network(self, net, image, output):
        expected = inferer(output=output)(image, net.prune("L1"))
        found = inferer(output=output, levels="L1")(image, net)
        torch.testing.assert_close(found, expected)

    def test_several_levels_come_from_one_pass(self, net, image, output, monkeypatch):
        calls = []
        forward_levels = net.forward_levels
        monkeypatch.setattr(net, "forward_levels", lambda x, levels: calls.append(1) or forward_levels(x, levels))
        both = inferer(output=output, levels=["L1", "L2"], sw_batch_size=2)
        found = both(image, net)
        assert list(found) == ["L1", "L2"]
        assert len(calls) == 6  # twelve windows
        for level, result in found.items():
            assert torch.equal(result, both.with_options(levels=level)(image, net))

    def test_a_list_of_one_gives_a_dict(self, net, image, output):
        assert list(inferer(output=output, levels=["L2"])(image, net)) == ["L2"]

    def test_the_mean_may_stand_among_levels(self, net, image, output):
        found = inferer(output=output, levels=["L1", "mean"])(image, net)
        assert torch.equal(found["mean"], inferer(output=output, levels="mean")(image, net))
        assert not torch.equal(found["mean"], found["L1"])


def test_the_mean_of_all_heads_in_one_window(net, image):
    heads = net.forward_levels(image)
    expected = (heads["L1"].softmax(1) + heads["L2"].softmax(1)) / 2
    torch.testing.assert_close(inferer(None, levels="mean")(image, net).softmax(1), expected)


def test_a_network_that_returns_a_dict(image):
    found = inferer()(image, lambda x: {"a": x, "b": 2 * x})
    torch.testing.assert_close(found, {"a": image, "b": 2 * image})


@pytest.mark.parametrize("method", [False, True])
def test_the_method_of_a_network_runs_as_the_network_does(method, image):
    net = NestedUNet(2, 1, 2, features=(4, 8), norm="batch", dropout=0.5)
    state = copy.deepcopy(net.state_dict())
    function = net.forward_levels if method else functools.partial(net.forward_levels, levels=["L1"])
    found = inferer()(image, function)
    assert net.training
    torch.testing.assert_close(net.state_dict(), state)
    torch.testing.assert_close(found["L1"], inferer()(image, net.eval()))
    doubled = functools.partial(net.double().forward_levels, levels=["L1"])
    assert inferer()(image, doubled)["L1"].dtype == torch.float64
    assert device_of(net.to("meta").forward_levels, torch.device("cpu")).type == "meta"


def test_a_network_that_returns_its_input_is_not_changed(image):
    """MONAI multiplies the weights into what the network returns."""
    torch.testing.assert_close(inferer(overlap=0.5)(image, lambda x: x), image)


@pytest.mark.parametrize("sw_batch_size", [1, 2, 5, 100, None])
def test_the_batch_size_changes_nothing(sw_batch_size, image):
    recorder = Recorder()
    found = inferer(sw_batch_size=sw_batch_size)(image, recorder)
    assert recorder.count == 12
    assert max(len(windows) for windows in recorder.windows) == min(sw_batch_size or 4, 12)
    torch.testing.assert_close(found, inferer(sw_batch_size=3)(image, three_channels))


def test_one_channel_is_thresholded_at_zero(image):
    labels = inferer(output="labels")(image, lambda x: x - 0.5)
    assert torch.equal(labels, (image > 0.5).to(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_in_float32(dtype):
    """In bfloat16 the sum of 1 and 1/256 is 1, and the mean of many windows would drift."""
    x = torch.rand(1, 1, 40, 40)
    expected = inferer(overlap=0.75)(x, lambda w: w.to(dtype).float())
    found = inferer(overlap=0.75)(x, lambda w: w.to(dtype))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_images_of_whole_numbers_become_float():
    x = torch.arange(400).reshape(1, 1, 20, 20)
    torch.testing.assert_close(inferer()(x, lambda w: w * 0.5), x * 0.5)


class TestFlips:
    def test_windows_are_averaged_over_their_mirror_images(self):
        x = torch.rand(1, 1, 8, 8)
        found = inferer(None, flips=[0, 1])(x, three_channels)
        torch.testing.assert_close(found, FlipInferer(axes=[0, 1])(x, three_channels))

    def test_several_levels(self, net, image):
        found = inferer(flips=[1], levels=["L1", "L2"])(image, net)
        torch.testing.assert_close(found["L1"], inferer(flips=[1])(image, net.prune("L1")))

    def test_half_precision_is_not_averaged_in_half_precision(self):
        x = torch.full((1, 1, 8, 8), 1.0)
        found = inferer(None, flips=[0])(x, lambda w: (w + torch.linspace(0, 1, 8)[:, None]).bfloat16())
        expected = (1 + torch.linspace(0, 1, 8)).bfloat16().float()
        torch.testing.assert_close(found[0, 0, :, 0], (expected + expected.flip(0)) / 2, atol=0, rtol=0)


class TestSkipConstant:
    @pytest.fixture
    def mostly_background(self):
        x = torch.full((1, 1, 40, 24), -1.0)
        x[0, 0, 10:14, 10:14] = torch.rand(4, 4)
        return x

    @pytest.mark.parametrize("output", ["logits", "labels"])
    @pytest.mark.parametrize("sw_batch_size", [1, 4])
    def test_the_result_is_the_same_for_fewer_windows(self, mostly_background, output, sw_batch_size):
        recorder = Recorder()
        options = {"sw_batch_size": sw_batch_size, "output": output}
        found = inferer(skip_constant=True, **options)(mostly_background, recorder)
        assert recorder.count == 5  # four hold a part of the square, of 7 x 4 windows; one stands for the others
        torch.testing.assert_close(found, inferer(**options)(mostly_background, three_channels))

    def test_each_value_needs_its_own_window(self):
        x = torch.cat([torch.full((1, 1, 32, 8), value) for value in (0.0, 1.0, 0.5)], dim=2)
        recorder = Recorder()
        found = inferer(skip_constant=True, overlap=0, sw_batch_size=2)(x, recorder)
        assert recorder.count == 3
        torch.testing.assert_close(found, inferer(overlap=0)(x, three_channels))

    @pytest.mark.parametrize(
        ("shape", "place", "value", "count"),
        [
            ((1, 2, 32, 8), (0, 1), torch.rand(32, 8), 4),  # in one of the channels
            ((1, 1, 32, 8), (0, 0, 13, 3), 1e-3, 2),
            ((2, 1, 32, 32), (0, 0), 0.0, 1),  # nowhere
        ],
    )
    def test_one_run_is_for_all_windows_without_any_other_voxel(self, shape, place, value, count):
        x = torch.zeros(shape)
        x[place] = value
        recorder = Recorder()
        inferer(skip_constant=True, overlap=0)(x, recorder)
        assert recorder.count == count

    def test_off_by_default(self, mostly_background):
        recorder = Recorder()
        inferer()(mostly_background, recorder)
        assert recorder.count == 28


class FixedPredictor(TorchPredictor):
    runtime = "compile"


def test_compiled_networks_get_windows_of_one_shape_only(image, monkeypatch):
    monkeypatch.setattr(sliding_windows, "make_predictor", fixed_predictor)
    recorder = Recorder()
    found = inferer(sw_batch_size=5)(image, recorder)
    assert [len(windows) for windows in recorder.windows] == [5, 5, 5]
    torch.testing.assert_close(found, inferer(sw_batch_size=1)(image, three_channels))


def fixed_predictor(network, *, runtime, cache_dir, **options):
    return FixedPredictor(network, **options)


class TestKeptPredictors:
    @pytest.fixture
    def made(self, monkeypatch):
        made = []
        make = sliding_windows.make_predictor
        monkeypatch.setattr(
            sliding_windows, "make_predictor", lambda network, **o: made.append(o["window_shape"]) or make(network, **o)
        )
        return made

    def test_one_for_all_images_with_windows_of_one_size(self, made, net, image):
        used = inferer(sw_batch_size=2)
        used(image, net)
        used(image[..., :10], net)
        assert made == [(8, 8)]

    def test_each_shape_has_its_own(self, made, net, image):
        used = inferer(None, sw_batch_size=1)
        for width in (10, 12, 10):
            used(image[..., :width], net)
        assert made == [(19, 10), (19, 12)]

    def test_another_network_has_its_own(self, made, net, image):
        used = inferer(sw_batch_size=2)
        used(image, net)
        found = used(image, net.prune("L1"))
        assert len(made) == 2
        torch.testing.assert_close(found, used(image, net.prune("L1")))

    def test_the_last_eight_are_kept(self, made, net, image):
        used = inferer(None)
        for width in (*range(4, 13), *range(5, 13)):
            used(image[..., :width], net)
        assert [shape[1] for shape in made] == list(range(4, 13))
        used(image[..., :4], net)
        assert [shape[1] for shape in made] == [*range(4, 13), 4]

    def test_another_precision_has_its_own(self, net, image):
        used = inferer(precision="fp32")
        exact = used(image, net)
        used.precision = "bf16"
        assert not torch.equal(used(image, net), exact)
        assert used.ran == ("torch", "bf16")

    @pytest.mark.parametrize("first", [torch.float32, torch.float64])
    def test_another_type_of_weights_has_its_own(self, image, first, monkeypatch):
        # float32 is not computed in bf16 where a processor has it
        monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
        net = NestedUNet(spatial_dims=2, in_channels=1, out_channels=3, features=(4, 8), norm="batch").eval().to(first)
        used = inferer(precision="auto")
        expected = used(image, net)
        torch.testing.assert_close(used(image, net.double()).float(), expected.float())

    def test_networks_of_several_threads_are_not_mixed_up(self, image, monkeypatch):
        used, mark = inferer(), sliding_windows.mark_changed_weights

        def while_another_thread_runs(network, known):
            monkeypatch.setattr(sliding_windows, "mark_changed_weights", mark)
            with ThreadPoolExecutor(1) as other:
                other.submit(used, image, lambda x: three_channels(x) + 1).result()
            return mark(network, known)

        monkeypatch.setattr(sliding_windows, "mark_changed_weights", while_another_thread_runs)
        torch.testing.assert_close(used(image, three_channels), inferer()(image, three_channels))

    @pytest.mark.parametrize("runtime", ["torch", "openvino"])
    def test_changed_weights_of_inference_mode_are_seen(self, image, runtime, tmp_path):
        if runtime == "openvino" and not has_openvino():
            pytest.skip("needs the extra openvino")
        used = inferer(runtime=runtime, cache_dir=tmp_path)
        with torch.inference_mode():
            net = NestedUNet(spatial_dims=2, in_channels=1, out_channels=3, features=(4, 8), norm="batch").eval()
            before = used(image, net)
            net.heads["L1"].bias.add_(1.0)
            torch.testing.assert_close(used(image, net), before + 1)

    def test_changed_weights_are_seen(self, image):
        net = nn.Conv2d(1, 2, 1)
        used = inferer()
        used(image, net)
        with torch.no_grad():
            net.weight.fill_(0.0)
            net.bias.copy_(torch.tensor([1.0, 2.0]))
        assert torch.allclose(used(image, net)[:, 1], torch.tensor(2.0))

    @pytest.mark.slow
    @pytest.mark.parametrize("runtime", ["torch", "openvino"])
    @pytest.mark.parametrize("levels", ["L2", "adaptive"])
    def test_weights_changed_without_a_new_version_are_seen(self, image, runtime, levels):
        if runtime == "openvino" and not has_openvino():
            pytest.skip("needs the extra openvino")
        net = NestedUNet(spatial_dims=2, in_channels=1, out_channels=3, features=(4, 8, 8), norm="batch").eval()
        options = {"levels": levels, "runtime": runtime, "precision": "fp32"}
        options |= {"adaptive_tolerance": 0.01} if levels == "adaptive" else {}
        used = inferer(**options)
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, fused=True)
        net(image).square().mean().backward()
        weights = net.heads["L2"].weight
        # in the second, neither the values nor their sum are others
        for change in (optimizer.step, lambda: weights.data.copy_(weights.data.flip(0))):
            before = used(image, net)
            change()
            found = used(image, net)
            assert not torch.equal(found, before)
            assert torch.equal(found, inferer(**options)(image, net))

    @pytest.mark.slow
    @pytest.mark.parametrize("runtime", ["torch", "compile", "openvino"])
    def test_other_modules_settings_and_hooks_are_seen(self, image, runtime, tmp_path, monkeypatch):
        if runtime == "openvino" and not has_openvino():
            pytest.skip("needs the extra openvino")
        # the traced graph as it is
        monkeypatch.setattr(torch, "compile", lambda graph, **_: graph)
        monkeypatch.setattr("monai_unetpp.inferers.predictors.compiled._check_cpp_compiler", lambda: None)
        net = NestedUNet(spatial_dims=2, in_channels=1, out_channels=3, features=(4, 8), norm="batch").eval()
        used = inferer(runtime=runtime, cache_dir=tmp_path)
        block = net.nodes["x_0_0"].block

        def other_activation():
            for module in block.modules():
                if isinstance(module, nn.LeakyReLU):
                    module.negative_slope = 0.9

        def other_norm():
            for module in block.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps = 1.0

        changes = (
            other_activation,
            lambda: net.nodes["x_0_1"].register_forward_hook(lambda _, __, output: 2 * output),
            lambda: net.heads.update({"L1": nn.Conv2d(4, 5, 1)}),
            other_norm,
            lambda: net.register_forward_pre_hook(lambda _, images: (images[0] - 3,)),
            lambda: setattr(net, "forward", lambda x: NestedUNet.forward(net, x) + 1),
        )
        # each takes OpenVINO a second
        for change in changes[:3] if runtime == "openvino" else changes:
            before = used(image, net)
            change()
            found = used(image, net)
            assert found.shape != before.shape or (found - before).abs().max() > 1e-3
            # of a function nothing is known, so it is called as it is
            torch.testing.assert_close(found, inferer()(image, lambda x: net(x)), atol=1e-4, rtol=1e-4)

    @pytest.mark.slow
    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda used: pickle.loads(pickle.dumps(used))])
    @pytest.mark.parametrize("runtime", ["torch", "openvino"])
    def test_copies_work_after_a_run(self, net, image, copied, runtime):
        if runtime == "openvino" and not has_openvino():
            pytest.skip("needs the extra openvino")
        used = inferer(runtime=runtime, precision="fp32")
        expected = used(image, net)
        again = copied(used)
        assert torch.equal(again(image, net), expected)
        assert torch.equal(used(image, net), expected)


class TestMetadata:
    def test_the_result_can_be_inverted_like_the_image(self, net, hippocampus_bundle):
        steps = json.loads((hippocampus_bundle / "configs" / "inference.json").read_text())["postprocessing"]
        options = next(step for step in steps["transforms"] if step["_target_"] == "Invertd")
        assert options["keys"] == "pred"
        affine = torch.diag(torch.tensor([-2.0, 2.0, 2.0, 1.0]))
        volume = MetaTensor(torch.rand(12, 10, 9), affine=affine)
        preprocessing = Compose(
            [
                EnsureChannelFirstd("image", channel_dim="no_channel"),
                Orientationd("image", "RAS", labels=None),
                Spacingd("image", (1.0, 1.0, 1.0)),
            ]
        )
        data = preprocessing({"image": volume})
        assert data["image"].shape[1:] != volume.shape
        labels = inferer(16, output="labels")(data["image"][None], lambda x: torch.cat([x, 0.5 - x], 1))
        assert isinstance(labels, MetaTensor)
        assert labels.dtype == torch.uint8
        data["pred"] = labels[0]
        inverted = Invertd("pred", preprocessing, orig_keys="image", nearest_interp=True)(data)["pred"]
        assert inverted.shape == (1, 12, 10, 9)
        torch.testing.assert_close(inverted.affine, affine.double(), check_dtype=False)
        assert set(inverted.unique().tolist()) <= {0, 1}
        assert len(data["image"].applied_operations) == 2

    def test_the_network_gets_plain_tensors(self, image):
        recorder = Recorder()
        found = inferer()(MetaTensor(image, meta={"filename_or_obj": "case.nii"}), recorder)
        assert {type(windows) for windows in recorder.windows} == {torch.Tensor}
        assert found.meta["filename_or_obj"] == "case.nii"

    def test_a_plain_image_gives_a_plain_tensor(self, image):
        assert type(inferer()(image, three_channels)) is torch.Tensor

    def test_each_level_has_the_metadata(self, net, image):
        found = inferer(levels=["L1", "L2"])(MetaTensor(image, meta={"a": 1}), net)
        assert [result.meta["a"] for result in found.values()] == [1, 1]


class TestOutOfMemory:
    class Network:
        """Takes at most ``most`` windows at once."""

        def __init__(self, most, error):
            self.most = most
            self.error = error
            self.sizes = []

        def __call__(self, x):
            self.sizes.append(len(x))
            if len(x) > self.most:
                raise self.error
            return three_channels(x)

    ERRORS = (
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 64 bytes."),
        RuntimeError("FIND was unable to find an engine to execute this computation"),
    )

    @pytest.mark.parametrize("error", ERRORS, ids=range(5))
    def test_half_as_many_windows_are_tried(self, image, error, caplog):
        network = self.Network(2, error)
        with caplog.at_level(logging.WARNING, LOGGER):
            found = inferer(sw_batch_size=4)(image, network)
        assert network.sizes == [4, 2, 2, 2, 2, 2, 2]
        assert "Not enough memory for 4 windows per batch: trying 2." in caplog.text
        torch.testing.assert_close(found, inferer()(image, three_channels))

    def test_then_half_of_these_until_they_fit(self, image):
        network = self.Network(1, MemoryError())
        torch.testing.assert_close(inferer(sw_batch_size=5)(image, network), inferer()(image, three_channels))
        assert network.sizes == [5, 2] + 12 * [1]

    @pytest.mark.parametrize(("sw_batch_size", "tried"), [(4, [4, 2, 1]), (1, [1])])
    def test_then_sizes_and_remedies_are_named(self, image, sw_batch_size, tried):
        network = self.Network(0, torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB."))
        used = inferer(sw_batch_size=sw_batch_size)
        expected = (
            r"got \[2, 1, 19, 13\] with single windows of \[8, 8\], output 'logits' \(CUDA out of memory\.\)\. "
            "Try output='labels', device='cpu'"
        )
        with pytest.raises(MemoryError, match=expected):
            used(image, network)
        assert network.sizes == tried
        network.most = 4
        used(image, network)
        assert network.sizes[len(tried)] == sw_batch_size, "the next image may be smaller"

    def test_what_did_not_fit_is_not_tried_for_the_next_image(self, image):
        used, network = inferer(sw_batch_size=4), self.Network(2, MemoryError())
        used(image, network)
        network.sizes.clear()
        used(image, network)
        assert set(network.sizes) == {2}

    def test_another_network_gets_all_again(self, image):
        used, other = inferer(sw_batch_size=4), self.Network(4, MemoryError())
        used(image, self.Network(2, MemoryError()))
        used(image, other)
        assert other.sizes[0] == 4

    def test_other_errors_are_not_taken_for_it(self, image):
        network = self.Network(0, RuntimeError("shapes do not fit"))
        with pytest.raises(RuntimeError, match="shapes do not fit"):
            inferer(sw_batch_size=4)(image, network)
        assert network.sizes == [4]


class TestEstimate:
    def test_by_hand(self):
        estimate = inferer((96, 96, 96), output="labels", sw_batch_size=4).estimate_memory((1, 1, 512, 512, 600), 3)
        assert estimate.input_bytes == 512 * 512 * 600 * 4
        assert estimate.sums_bytes == 3 * (96 * 512 * 96 + 512 * 512 * 24) * 4
        assert estimate.labels_bytes == 512 * 512 * 600
        assert estimate.window_bytes == 4 * 96**3 * (1 + 3) * 4
        assert estimate.total_bytes < 1.5e9

    def test_all_levels_of_a_large_volume_take_hardly_more(self):
        used = inferer((96, 96, 96), output="labels", levels=["L1", "L2", "L3", "L4"], sw_batch_size=1)
        estimate = used.estimate_memory((1, 1, 512, 512, 600), 3)
        assert estimate.labels_bytes == 4 * estimate.joined_bytes == 4 * 512 * 512 * 600
        assert estimate.total_bytes < 1.5e9

    @pytest.mark.parametrize(("length", "times"), [(400, 1), (8, 0)])
    def test_the_network_leaves_its_memory_to_many_large_maps(self, length, times, net, monkeypatch):
        released = []
        monkeypatch.setattr(TorchPredictor, "release", lambda self: released.append(self))
        inferer(8, levels=["L1", "L2"], output="labels", runtime="torch")(torch.rand(1, 1, 8, length), net)
        assert len(released) == times

    def test_logits_need_the_whole_image(self):
        estimate = inferer(8, levels=["L1", "L2"]).estimate_memory((2, 1, 20, 30), 3)
        assert estimate.sums_bytes == 2 * 2 * 3 * 20 * 30 * 4
        assert estimate.labels_bytes == 0

    def test_it_is_logged_before_the_run(self, image, caplog):
        with caplog.at_level(logging.INFO, LOGGER):
            inferer(sw_batch_size=3)(image, three_channels)
        assert "12 windows of 8x8, 3 per batch, torch fp32: 0 MB besides the network (input 0," in caplog.text

    def test_of_a_nested_unet_even_before_the_first_batch(self, net, image, caplog, monkeypatch):
        def failing(*_, **__):
            raise RuntimeError("the first batch")

        monkeypatch.setattr(TorchPredictor, "_predict", failing)
        with caplog.at_level(logging.INFO, LOGGER), pytest.raises(RuntimeError, match="the first batch"):
            inferer(sw_batch_size=3)(image, net)
        assert "12 windows of 8x8, 3 per batch" in caplog.text

    def test_later_runs_log_it_only_if_they_take_more(self, image, caplog):
        used = inferer()
        with caplog.at_level(logging.INFO, LOGGER):
            for each in (image, image, image[:1], torch.cat([image, image])):
                used(each, three_channels)
        assert [record.getMessage().split()[0] for record in caplog.records] == ["12", "24"]

    @pytest.mark.parametrize(("free", "warned"), [(100, True), (10**9, False), (None, False)])
    def test_a_warning_before_the_system_ends_the_process(self, image, caplog, monkeypatch, free, warned):
        monkeypatch.setattr(sliding_windows, "free_memory_bytes", lambda device: free)
        with caplog.at_level(logging.WARNING, LOGGER):
            inferer(sw_batch_size=2)(image, three_channels)
        expected = (
            "0.0 GB of memory are needed but 0.0 GB are free: the system may kill this program. Try sw_batch_size"
        )
        assert (expected in caplog.text) == warned


def test_stages_are_timed(image):
    used = inferer(output="labels")
    used.timer = StageTimer()
    used(image, three_channels)
    assert set(used.timer.seconds) == {"preparation", "windows", "network", "stitching", "argmax"}


def test_conversion_is_no_time_of_the_network(image, monkeypatch):
    passed = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: passed[0])

    class SlowlyPrepared(FixedPredictor):
        def prepare(self, windows):
            if not hasattr(self, "ready"):
                passed[0] += 3
            self.ready = True

        def _predict(self, windows):
            self.prepare(windows)
            return super()._predict(windows)

    monkeypatch.setattr(
        sliding_windows, "make_predictor", lambda network, *, runtime, cache_dir, **o: SlowlyPrepared(network, **o)
    )
    used = inferer()
    for seconds in (3, 0):
        used.timer = StageTimer()
        used(image, three_channels)
        assert used.timer.seconds["preparation"] == seconds
        assert used.timer.seconds["network"] == 0


def test_with_options_changes_only_what_it_is_given(image):
    used = inferer((8, 6), overlap=0.5, flips=[1], cval=2.0, levels=["L1"], device="cpu")
    changed = used.with_options(overlap=0.1, levels="L2")
    assert (changed.overlap, changed.levels) == (0.1, "L2")
    assert (used.overlap, used.levels) == (0.5, ("L1",))
    names = inspect.signature(NestedSlidingWindowInferer).parameters
    assert [name for name in names if getattr(used, name) != getattr(changed, name)] == ["overlap", "levels"]
    with pytest.raises(TypeError, match="roi"):
        used.with_options(roi=3)


def test_further_arguments_go_to_the_network(image):
    found = inferer(sw_batch_size=2)(image, lambda x, factor, shift: factor * x + shift, 2, shift=1)
    torch.testing.assert_close(found, 2 * image + 1)


def test_further_arguments_with_another_runtime_or_levels(net, image):
    with pytest.raises(ValueError, match="runtime must be 'torch' for other arguments of the network, got 'compile'"):
        inferer(runtime="compile")(image, net, 1)
    with pytest.raises(ValueError, match="levels must be None for other arguments of the network, got 'L1'"):
        inferer(levels="L1")(image, net, factor=1)


def test_it_works_inside_the_precision_inferer(image):
    net = nn.Conv2d(1, 2, 3, padding=1)
    found = PrecisionInferer(inferer(), "bf16")(image, net)
    torch.testing.assert_close(found, inferer()(image, net), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_arrays_stand_for_numbers_by_axis(image, kind):
    given = {"roi_size": [8, 6], "overlap": [0.25, 0.5], "sigma_scale": [0.125, 0.25]}
    options = {**{name: kind(value) for name, value in given.items()}, "mode": "gaussian"}
    network = nn.Conv2d(1, 2, 3, padding=1)
    assert torch.equal(inferer(**options)(image, network), inferer(**{**options, **given})(image, network))


def test_results_carry_no_gradient(image):
    assert not inferer()(image, nn.Conv2d(1, 2, 1)).requires_grad


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"roi_size": 1.5}, TypeError, "roi_size must be integers, one for all axes or each, or 'auto', got 1.5"),
        ({"roi_size": ()}, TypeError, r"roi_size must be integers, one for all axes or each, or 'auto', got \(\)"),
        ({"overlap": 1.0}, ValueError, "overlap must be from 0 to below 1, got 1.0"),
        ({"overlap": "half"}, TypeError, "overlap must be a number, or one per axis, got 'half'"),
        ({"sigma_scale": (0.1, 0)}, ValueError, r"sigma_scale must be above 0, got \(0.1, 0\)"),
        ({"mode": "gausian"}, ValueError, "gaussian"),
        ({"padding_mode": "reflekt"}, ValueError, "reflect"),
        ({"sw_batch_size": 0}, ValueError, "sw_batch_size must be an integer from 1 on, got 0. None chooses"),
        ({"levels": "L0"}, ValueError, "levels must be None, a level such as 'L2', 'mean', .* got 'L0'"),
        ({"levels": []}, ValueError, r"levels must be None, .* got \[\]"),
        ({"levels": ["L1", "L1"]}, ValueError, r"levels must be None, .* got \['L1', 'L1'\]"),
        ({"levels": 2}, ValueError, r"levels must be None, .* got 2"),
        ({"roi_size": np.array([8.0, 8.0])}, TypeError, r"roi_size must be integers, .* got \[8.0, 8.0\]"),
        ({"flips": 1}, ValueError, r"axes must be different spatial axes from 0 on, such as \(0, 1\), got 1"),
        ({"flips": "01"}, ValueError, "axes must be different spatial axes .* got '01'"),
        ({"output": "classes"}, ValueError, "output must be one of logits, labels, got 'classes'"),
        ({"flips": [0, 0]}, ValueError, "axes must be different spatial axes"),
        ({"device": "npu:x"}, ValueError, "device must be a name like 'cpu' or 'cuda:0', got 'npu:x'"),
        ({"runtime": "onnx"}, ValueError, "runtime must be one of auto, torch, compile, openvino, got 'onnx'"),
        ({"precision": "int8"}, ValueError, "precision must be one of auto, fp32, bf16, fp16, got 'int8'"),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        inferer(**{"roi_size": 8, **options})


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((8, 8), {}, r"inputs must have shape \(B, C, \*spatial\), got \[8, 8\]"),
        ((0, 1, 8, 8), {}, r"inputs must hold at least one image, got shape \[0, 1, 8, 8\]. Check the data loader"),
        (
            (1, 1, 8, 8),
            {"sigma_scale": (0.1,)},
            r"sigma_scale must have one entry per spatial axis of the image, 2, got",
        ),
        ((1, 1, 8, 0), {}, r"inputs must have no empty axis, got spatial size \[8, 0\]"),
        ((1, 1, 8, 0), {"roi_size": "auto"}, r"inputs must have no empty axis, got spatial size \[8, 0\]"),
        (
            (1, 1, 8, 8),
            {"roi_size": "auto", "overlap": (0.5,)},
            r"overlap must have one entry per spatial axis of the image, 2, got \[0.5",
        ),
        ((1, 1, 8, 8), {"roi_size": (8, 8, 8)}, r"roi_size must have one entry per spatial axis of the image, 2, got"),
        ((1, 1, 8, 8), {"overlap": (0.5,)}, r"overlap must have one entry per spatial axis of the image, 2, got \[0.5"),
    ],
)
def test_images_that_do_not_fit(shape, options, message):
    with pytest.raises(ValueError, match=message):
        inferer(**{"roi_size": 8, **options})(torch.zeros(shape), three_channels)


def test_networks_that_do_not_fit(net, image):
    with pytest.raises(ValueError, match=r"network must give logits of the windows' size, \[8, 8\] for each of 4, got"):
        inferer()(image, lambda x: x[..., ::2])
    with pytest.raises(TypeError, match="network must return a tensor or a dict of tensors, got list"):
        inferer()(image, lambda x: [x, x])
    with pytest.raises(TypeError, match="network must have levels for levels='mean', got function"):
        inferer(levels="mean")(image, three_channels)
    with pytest.raises(TypeError, match="network must have forward_levels"):
        inferer(levels="L1")(image, three_channels)
    for levels in ("L1", "mean"):
        with pytest.raises(TypeError, match=r"got DataParallel\. Use a NestedUNet \(.*wrapped.* its \.module\)"):
            inferer(levels=levels)(image, torch.nn.DataParallel(net))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestGpu:
    @pytest.mark.parametrize("output", ["logits", "labels"])
    @pytest.mark.parametrize(
        ("inputs_on", "stitched_on"), [("cpu", None), ("cpu", "cuda"), ("cuda", "cpu"), ("cuda", None)]
    )
    def test_equal_to_the_cpu(self, net, image, output, inputs_on, stitched_on, monkeypatch):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
        used = inferer(output=output, sw_batch_size=2, overlap=0.5)
        expected = used(image, net)
        on_gpu = NestedUNet(**net.config).eval().cuda()
        on_gpu.load_state_dict(net.state_dict())
        found = used.with_options(device=stitched_on)(image.to(inputs_on), on_gpu)
        assert found.device.type == (stitched_on or inputs_on)
        if output == "labels":
            assert (found.cpu() == expected).float().mean() > 0.99
        else:
            torch.testing.assert_close(found.cpu(), expected, atol=1e-3, rtol=1e-3)

    @pytest.mark.parametrize("skip_constant", [False, True])
    def test_windows_through_pinned_memory_are_not_mixed_up(self, skip_constant):
        x = torch.rand(1, 1, 64, 64, 64)
        x[..., :20] = 0
        net = nn.Conv3d(1, 1, 1, bias=False).cuda()
        nn.init.ones_(net.weight)
        found = inferer(16, sw_batch_size=3, overlap=0.5, skip_constant=skip_constant)(x, net)
        torch.testing.assert_close(found, x, atol=1e-3, rtol=1e-3)

"""Every runtime faces the same contract."""

import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import monai.networks.blocks
import pytest
import torch
from forked import run_forked
from torch import nn
from torch._dynamo.testing import CompileCounter

from monai_unetpp import NestedUNet, openvino_loading
from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.inferers.predictors import (
    CompiledPredictor,
    OpenVINOPredictor,
    TorchPredictor,
    choice,
    compiled,
    make_predictor,
    openvino_conversion,
    openvino_runtime,
    resolve_runtime,
)
from monai_unetpp.inferers.predictors.network_copy import checksum_on_device, checksums

SHAPE = (9, 8, 12)
needs_openvino = pytest.mark.skipif(not openvino_loading.has_openvino(), reason="needs the extra openvino")
RUNTIMES = [TorchPredictor, CompiledPredictor, pytest.param(OpenVINOPredictor, marks=needs_openvino)]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def build(dims=3, **arguments):
    torch.manual_seed(0)
    return NestedUNet(dims, 1, 2, features=(4, 6, 8), **arguments).eval()


def shallow():
    """What is traced in half the time."""
    torch.manual_seed(0)
    return NestedUNet(3, 1, 2, features=(4, 6)).eval()


def small():
    """What is converted fast, for tests in which the levels do not matter."""
    torch.manual_seed(0)
    return NestedUNet(2, 1, 2, features=(2, 4)).eval()


def predictor_of(kind, network, cache_dir, levels=None, batch_size=2, precision="fp32", window_shape=SHAPE):
    options = {"cache_dir": cache_dir} if kind is OpenVINOPredictor else {}
    if kind is CompiledPredictor:
        options = {"backend": "eager"}
    return kind(
        network,
        levels=levels,
        window_shape=window_shape,
        batch_size=batch_size,
        device="cpu",
        precision=precision,
        **options,
    )


def relative_error(found, expected):
    return float((found.float() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("kind", RUNTIMES)
class TestContract:
    @pytest.mark.slow
    @pytest.mark.parametrize("levels", [None, ["L1"], ["L2", "L1"]])
    def test_agrees_with_the_network(self, kind, levels, cache_dir):
        network, windows = build(), torch.rand(2, 1, *SHAPE)
        found = predictor_of(kind, network, cache_dir, levels)(windows)
        with torch.no_grad():
            expected = network.forward_levels(windows)
        if levels is None:
            found = {"L2": found}
        assert list(found) == (levels or ["L2"])
        for level, logits in found.items():
            assert logits.dtype == torch.float32
            assert relative_error(logits, expected[level]) < 1e-4

    @pytest.mark.slow
    def test_bf16_is_near(self, kind, cache_dir):
        network, windows = shallow(), torch.rand(2, 1, *SHAPE)
        predictor = predictor_of(kind, network, cache_dir, precision="bf16")
        with torch.no_grad():
            assert relative_error(predictor(windows), network(windows)) < 0.05
        assert predictor.precision == "bf16"

    @pytest.mark.slow
    def test_half_precision_windows_and_views(self, kind, cache_dir):
        network = shallow()
        windows = torch.rand(2, *SHAPE, 1).half().permute(0, 4, 1, 2, 3)
        with torch.no_grad():
            expected = network(windows.float())
        if kind is TorchPredictor:
            windows = windows.float()
        assert relative_error(predictor_of(kind, network, cache_dir)(windows), expected) < 1e-4

    @pytest.mark.slow
    def test_fewer_windows_than_a_batch(self, kind, cache_dir):
        network, windows = shallow(), torch.rand(1, 1, *SHAPE)
        found = predictor_of(kind, network, cache_dir, batch_size=3)(windows)
        with torch.no_grad():
            assert found.shape == (1, 2, *SHAPE)
            assert relative_error(found, network(windows)) < 1e-4

    @pytest.mark.slow
    def test_results_stay_after_the_next_batch(self, kind, cache_dir):
        predictor = predictor_of(kind, shallow(), cache_dir)
        first = predictor(torch.zeros(2, 1, *SHAPE))
        kept = first.clone()
        predictor(torch.rand(2, 1, *SHAPE))
        assert torch.equal(first, kept)

    @pytest.mark.slow
    def test_released_memory_is_taken_again(self, kind, cache_dir):
        windows = torch.rand(2, 1, *SHAPE)
        predictor = predictor_of(kind, shallow(), cache_dir)
        predictor.release()
        before = predictor(windows)
        predictor.release()
        assert torch.equal(predictor(windows), before)

    @pytest.mark.slow
    def test_changed_weights_are_seen(self, kind, cache_dir):
        network, windows = shallow(), torch.rand(2, 1, *SHAPE)
        predictor = predictor_of(kind, network, cache_dir)
        before = predictor(windows)
        with torch.no_grad():
            network.heads["L1"].bias.add_(1.0)
        assert torch.allclose(predictor(windows), before + 1, atol=1e-4)

    @pytest.mark.slow
    def test_changed_weights_are_seen_outside_of_inference_mode(self, kind, cache_dir):
        network, windows = shallow(), torch.rand(2, 1, *SHAPE)
        with torch.inference_mode():
            predictor = predictor_of(kind, network, cache_dir)
            before = predictor(windows).clone()
        with torch.no_grad():
            network.heads["L1"].bias.add_(1.0)
        assert torch.allclose(predictor(windows), before + 1, atol=1e-4)

    @pytest.mark.slow
    def test_the_network_stays_as_it_is(self, kind, cache_dir):
        network, windows = shallow().train(), torch.rand(2, 1, *SHAPE)
        network.heads["L1"].eval()
        weights = {name: (value.data_ptr(), value.stride()) for name, value in network.state_dict().items()}
        found = predictor_of(kind, network, cache_dir, precision="bf16")(windows)
        assert isinstance(found, torch.Tensor)
        assert not found.requires_grad
        assert network.training
        assert not network.heads["L1"].training
        assert weights == {name: (value.data_ptr(), value.stride()) for name, value in network.state_dict().items()}
        assert all(parameter.requires_grad for parameter in network.parameters())

    @pytest.mark.slow
    def test_other_modules(self, kind, cache_dir):
        torch.manual_seed(0)
        network, windows = nn.Conv2d(1, 2, 3, padding=1), torch.rand(2, 1, 6, 5)
        predictor = predictor_of(kind, network, cache_dir, window_shape=(6, 5))
        with torch.no_grad():
            assert relative_error(predictor(windows), network(windows)) < 1e-4
        with pytest.raises(TypeError, match=r"network must have forward_levels for levels \['L1'\], got Conv2d"):
            predictor_of(kind, network, cache_dir, ["L1"], window_shape=(6, 5))

    @pytest.mark.slow
    def test_modules_with_outputs_by_name(self, kind, cache_dir):
        network, windows = Outputs(dict), torch.rand(1, 1, 6, 5)
        found = predictor_of(kind, network, cache_dir, window_shape=(6, 5))(windows)
        assert list(found) == ["edges", "areas"]
        for name, expected in network(windows).items():
            assert relative_error(found[name], expected) < 1e-4

    def test_wrong_windows(self, kind, cache_dir):
        predictor = predictor_of(kind, shallow(), cache_dir)
        for shape in ((3, 1, *SHAPE), (2, 1, 9, 8, 11), (0, 1, *SHAPE)):
            with pytest.raises(ValueError, match=r"windows must have shape \(1 to 2, channels, 9, 8, 12\), got"):
                predictor(torch.rand(shape))

    def test_wrong_arguments(self, kind, cache_dir):
        network = shallow()
        with pytest.raises(ValueError, match=r"levels must be a non-empty list .* got 'L1'"):
            predictor_of(kind, network, cache_dir, "L1")
        with pytest.raises(ValueError, match="L7"):
            predictor_of(kind, network, cache_dir, ["L7"])
        with pytest.raises(ValueError, match=r"window_shape must be positive sizes, one per spatial axis, got \[0\]"):
            predictor_of(kind, network, cache_dir, window_shape=[0])
        with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
            predictor_of(kind, network, cache_dir, batch_size=0)
        with pytest.raises(TypeError, match="network must be a network or a function, got int"):
            predictor_of(kind, 3, cache_dir)


class Outputs(nn.Module):
    """A network of another kind with two outputs."""

    def __init__(self, gather):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = (nn.Conv2d(1, 2, 3, padding=1).requires_grad_(False) for _ in range(2))
        self.gather = gather

    def forward(self, windows):
        return self.gather([("edges", self.first(windows)), ("areas", self.second(windows))])


@pytest.mark.parametrize("kind", RUNTIMES[1:])
def test_modules_that_return_something_else_are_refused(kind, cache_dir):
    with pytest.raises(TypeError, match=r"network must return a tensor or a dict of tensors, got list\. Wrap it"):
        predictor_of(kind, Outputs(list), cache_dir, window_shape=(6, 5))(torch.rand(1, 1, 6, 5))


class Doubled(NestedUNet):
    """The same configuration and weights as the network, but another output."""

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNTIMES)
def test_a_subclass_computes_what_it_says(kind, tmp_path):
    network, windows = small(), torch.rand(2, 1, 8, 8)
    doubled = Doubled(**network.config).eval()
    doubled.load_state_dict(network.state_dict())
    expected = predictor_of(kind, network, tmp_path, window_shape=(8, 8))(windows)
    found = predictor_of(kind, doubled, tmp_path, window_shape=(8, 8))(windows)
    assert torch.allclose(found, 2 * expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNTIMES[1:])
def test_windows_with_other_channels_than_before_are_refused(kind, cache_dir):
    predictor = predictor_of(kind, NestedUNet(2, 3, 2, features=(2, 4)).eval(), cache_dir, window_shape=(8, 8))
    predictor(torch.rand(2, 3, 8, 8))
    with pytest.raises(ValueError, match="windows must have the 3 channels of the network, got 1"):
        predictor(torch.rand(2, 1, 8, 8))


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNTIMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_networks_in_another_type_with_any_runtime(kind, dtype, cache_dir, monkeypatch):
    # where a processor has bf16, OpenVINO takes it
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    network, windows = small().to(dtype), torch.rand(2, 1, 8, 8)
    found = predictor_of(kind, network, cache_dir, precision="auto", window_shape=(8, 8))(windows)
    with torch.no_grad():
        assert relative_error(found.float(), network(windows.to(dtype)).float()) < 1e-2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_in_another_type_compute_in_this_type(dtype, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    network, windows = build(2).to(dtype), torch.rand(1, 1, 8, 8)
    options = {"levels": None, "window_shape": (8, 8), "batch_size": 1}
    with torch.no_grad():
        assert torch.equal(make_predictor(network, **options)(windows), network(windows.to(dtype)))


def test_functions_run_with_torch_alone():
    options = {"levels": None, "window_shape": (4,), "batch_size": 1, "device": "cpu"}
    assert torch.equal(make_predictor(torch.neg, **options)(torch.ones(1, 1, 4)), -torch.ones(1, 1, 4))
    for runtime in ("compile", "openvino"):
        with pytest.raises(TypeError, match=f"network must be a module for runtime '{runtime}', got builtin"):
            make_predictor(torch.neg, **options, runtime=runtime)


class TestChoice:
    @pytest.mark.parametrize("installed", [True, False])
    def test_auto(self, installed, monkeypatch, caplog):
        monkeypatch.setattr(choice, "has_openvino", lambda: installed)
        choice._tell_once.cache_clear()
        network = build(2)
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                assert resolve_runtime("auto", network, "cpu") == ("openvino" if installed else "torch")
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == (0 if installed else 1)
        assert all('[openvino]"' in line and "pip install" in line for line in lines)
        assert resolve_runtime("auto", network, "cuda", "fp32") == "torch"
        assert resolve_runtime("auto", network, "cpu", "fp16") == "torch"
        assert resolve_runtime("auto", nn.Conv2d(1, 1, 1), "cpu") == "torch"
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            assert resolve_runtime("auto", build(2).to(dtype), "cpu") == "torch"
        assert resolve_runtime("compile", network, "cpu") == "compile"

    @needs_openvino
    def test_auto_with_an_openvino_that_cannot_be_loaded(self, monkeypatch, caplog):
        def broken(name):
            raise ImportError("libtbb.so.12: cannot open shared object file")

        monkeypatch.delitem(sys.modules, "openvino", raising=False)
        monkeypatch.setattr(openvino_loading.importlib, "import_module", broken)
        choice._tell_once.cache_clear()
        with caplog.at_level(logging.WARNING):
            assert [resolve_runtime("auto", build(), "cpu") for _ in range(2)] == ["torch", "torch"]
        (line,) = [record.getMessage() for record in caplog.records]
        assert "OpenVINO is installed but cannot be loaded (libtbb.so.12" in line

    def test_unknown_runtime(self):
        with pytest.raises(ValueError, match="runtime must be one of auto, torch, compile, openvino, got 'tensorrt'"):
            resolve_runtime("tensorrt", torch.neg, "cpu")

    def test_openvino_is_missing(self, monkeypatch):
        monkeypatch.delitem(sys.modules, "openvino", raising=False)
        monkeypatch.setattr(openvino_loading.importlib, "import_module", _missing)
        with pytest.raises(ImportError, match=r'needs OpenVINO. Install it: pip install .*\[openvino\]"'):
            openvino_loading.import_openvino()


def _missing(name):
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.complex64])
@pytest.mark.parametrize("checksum", [lambda x: int(checksum_on_device(x)), lambda x: checksums([x])[0]])
def test_a_checksum_sees_values_and_their_places(checksum, dtype):
    values = (100 * torch.randn(4, 512, generator=torch.Generator().manual_seed(0))).to(dtype)
    changed = values.clone()
    changed[3, 511] += 1
    others = [values.flip(0), values.flip(1), values.roll(1), -values, 2 * values, changed]
    assert len({checksum(each) for each in [values, *others]}) == 7
    assert checksum(values.clone()) == checksum(values.T.contiguous().T) == checksum(values)
    assert checksum(values[:0]) == 0


class TestCompiled:
    @pytest.mark.slow
    def test_one_compilation_for_all_batches_and_weights(self):
        counter, network = CompileCounter(), build(2)
        predictor = CompiledPredictor(
            network, levels=["L1"], window_shape=(9, 8), batch_size=2, device="cpu", precision="fp32", backend=counter
        )
        for windows in (torch.rand(2, 1, 9, 8), torch.rand(1, 1, 9, 8), torch.rand(2, 9, 8, 1).permute(0, 3, 1, 2)):
            predictor(windows)
            with torch.no_grad():
                network.heads["L1"].bias.add_(1)
        assert counter.frame_count == 1

    @pytest.mark.slow
    def test_more_predictors_than_torch_compiles_variants_of_one_function(self):
        small = nn.Conv2d(1, 1, 3, padding=1)
        # the name of the limit in torch 2.6, which later versions know too
        for size in range(8, 8 + torch._dynamo.config.cache_size_limit + 1):
            predictor = predictor_of(CompiledPredictor, small, None, window_shape=(size, 8))
            predictor(torch.rand(2, 1, size, 8))

    def test_no_compiler(self, monkeypatch):
        monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
        with pytest.raises(RuntimeError, match=r"needs a C\+\+ compiler .* got none"):
            CompiledPredictor(build(2), levels=None, window_shape=(8, 8), batch_size=1, device="cpu")


@needs_openvino
class TestOpenVINO:
    def test_wrong_device_and_precision(self):
        options = {"levels": None, "window_shape": (8, 8), "batch_size": 1}
        with pytest.raises(ValueError, match="device must be 'cpu' for runtime 'openvino', got 'cuda'"):
            OpenVINOPredictor(build(2), **options, device="cuda", precision="fp32")
        with pytest.raises(ValueError, match="precision must be fp32 or bf16 for runtime 'openvino', got 'fp16'"):
            OpenVINOPredictor(build(2), **options, device="cpu", precision="fp16")

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "arguments",
        [
            {"variant": "unet_e", "norm": "batch", "act": "relu", "block": "residual"},
            {"variant": "unet+", "norm": ("group", {"num_groups": 2}), "upsample": "nontrainable", "act": "prelu"},
            {"variant": "unet", "norm": None, "upsample": "pixelshuffle", "ceil_mode": False},
        ],
    )
    def test_other_layers(self, arguments, tmp_path):
        network, windows = build(2, **arguments), torch.rand(2, 1, 13, 10)
        predictor = predictor_of(OpenVINOPredictor, network, tmp_path, window_shape=(13, 10))
        with torch.no_grad():
            assert relative_error(predictor(windows), network(windows)) < 1e-4

    @pytest.mark.slow
    @pytest.mark.parametrize(("shape", "strides"), [((1, 9), 2), ((2, 1, 5), 3)])
    def test_axes_that_are_shorter_than_a_stride(self, shape, strides, tmp_path):
        network, windows = build(len(shape), strides=strides), torch.rand(1, 1, *shape)
        predictor = predictor_of(OpenVINOPredictor, network, tmp_path, batch_size=1, window_shape=shape)
        with torch.no_grad():
            assert relative_error(predictor(windows), network(windows)) < 1e-4

    @pytest.mark.slow
    def test_instance_norm_is_one_operation(self):
        model = openvino_conversion.convert_to_openvino(build(), ["L1"], torch.rand(2, 1, *SHAPE))
        kinds = [operation.get_type_name() for operation in model.get_ops()]
        # all levels share the encoder: without pruning, L1 needs two nodes of the encoder and one of the decoder
        assert kinds.count("MVN") == 6

    @pytest.mark.slow
    def test_instance_norm_far_from_zero(self, tmp_path):
        """A norm that subtracts the square of the mean from the mean of squares would lose all digits here."""
        network = nn.InstanceNorm3d(1, affine=True)
        windows = 1000 + torch.rand(1, 1, 32, 32, 32)
        predictor = predictor_of(OpenVINOPredictor, network, tmp_path, batch_size=1, window_shape=(32,) * 3)
        exact = network.double()(windows.double()).float()
        network.float()
        assert relative_error(predictor(windows), exact.detach()) < 1e-2

    @pytest.mark.slow
    def test_kept_models(self, tmp_path, monkeypatch, caplog):
        converted = []
        convert = openvino_conversion.convert_to_openvino
        monkeypatch.setattr(
            openvino_conversion,
            "convert_to_openvino",
            lambda *arguments: converted.append(1) or convert(*arguments),
        )
        network, windows = build(2), torch.rand(2, 1, 8, 8)

        def predicted(precision="fp32", level="L1", batch_size=2):
            options = {"levels": [level], "precision": precision, "batch_size": batch_size, "window_shape": (8, 8)}
            return predictor_of(OpenVINOPredictor, network, tmp_path, **options)(windows)[level]

        first = predicted()
        assert torch.equal(predicted(), first)
        predicted("bf16")
        assert len(converted) == 1
        (weights,) = tmp_path.glob("*.bin")
        damaged = bytearray(weights.read_bytes())
        damaged[len(damaged) // 2] ^= 255
        weights.write_bytes(damaged)
        with caplog.at_level(logging.WARNING):
            assert torch.equal(predicted(), first)
        assert "is damaged and is converted again" in caplog.text
        assert len(converted) == 2
        weights.unlink()
        assert torch.equal(predicted(), first)
        assert len(converted) == 3
        predicted(level="L2")
        assert torch.equal(predicted(batch_size=3), first)
        assert len(converted) == 4
        with torch.no_grad():
            network.heads["L1"].bias.add_(1)
        assert torch.allclose(predicted(), first + 1, atol=1e-4)
        assert len(converted) == 5
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "options",
        [
            {"spatial_dims": 3, "norm": "batch"},
            {"norm": "instance", "upsample": "nontrainable", "dropout": 0.1},
            {"norm": ("group", {"num_groups": 2}), "variant": "unet", "act": "prelu"},
            {"norm": None, "variant": "unet+", "ceil_mode": False},
            {"variant": "unet_e", "block": "residual", "strides": [2, (1, 2)], "kernel_size": [3, (1, 3), 3]},
        ],
        ids=["3d", "nontrainable", "unet", "unet+", "unet_e"],
    )
    def test_one_conversion_serves_windows_of_all_sizes(self, options, tmp_path):
        torch.manual_seed(0)
        options = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "features": (4, 4, 8), **options}
        network = NestedUNet(**options).eval()
        for head in network.heads.values():
            torch.nn.init.normal_(head.weight)
        levels = network.levels
        for size, batch in (((16, 24, 20), 2), ((32, 16, 8), 1), ((24, 40, 16), 3)):
            windows = torch.rand(batch, 1, *size[: network.spatial_dims])
            settings = {"levels": levels, "batch_size": batch, "window_shape": size[: network.spatial_dims]}
            found = predictor_of(OpenVINOPredictor, network, tmp_path, **settings)(windows)
            with torch.no_grad():
                exact = network.forward_levels(windows, levels)
            assert all(relative_error(found[level], exact[level]) < 1e-5 for level in levels)
        assert len(list(tmp_path.glob("*.xml"))) == 1

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("options", "size"), [({}, (15, 22)), ({"upsample": "pixelshuffle"}, (16, 24))], ids=["odd", "pixelshuffle"]
    )
    def test_a_graph_that_is_bound_to_its_size_serves_no_other(self, options, size, tmp_path):
        network = NestedUNet(2, 1, 2, features=(4, 4, 8), **options).eval()
        for number, shape in enumerate([(16, 16), size, size, (32, 16)]):
            windows = torch.rand(1, 1, *shape)
            settings = {"levels": ["L2"], "batch_size": 1, "window_shape": shape}
            found = predictor_of(OpenVINOPredictor, network, tmp_path, **settings)(windows)["L2"]
            assert found.shape == (1, 2, *shape), number
        assert len(list(tmp_path.glob("*.xml"))) == (3 if options else 2)

    @pytest.mark.slow
    def test_a_network_that_its_weights_and_modules_do_not_define_is_kept_apart(self, tmp_path):
        class Scaled(nn.Module):
            factor = 5.0

            def forward(self, x):
                return self.factor * x

        def activation(module):
            network = small()
            for block in network.nodes.values():
                for name, each in list(block.named_modules()):
                    if isinstance(each, nn.LeakyReLU):
                        block.get_submodule(name.rpartition(".")[0]).A = module
            return network

        hooked, swish = small(), monai.networks.blocks.Swish(alpha=5.0)
        hooked.nodes["x_0_1"].register_forward_hook(lambda _, __, output: 2 * output)
        windows = torch.rand(1, 1, 8, 8)
        networks = [hooked, small(), activation(monai.networks.blocks.Swish()), activation(swish), activation(Scaled())]
        for network in networks:
            settings = {"batch_size": 1, "window_shape": (8, 8)}
            found = predictor_of(OpenVINOPredictor, network, tmp_path, **settings)(windows)
            with torch.no_grad():
                torch.testing.assert_close(found, network(windows), atol=1e-4, rtol=1e-4)
        assert len(list(tmp_path.glob("*.xml"))) == 3

    @pytest.mark.slow
    def test_networks_that_were_not_used_for_longest_are_removed(self, tmp_path, monkeypatch):
        def use(length):
            settings = {"batch_size": 1, "window_shape": (length, 8)}
            predictor_of(OpenVINOPredictor, small(), tmp_path, **settings)(torch.rand(1, 1, length, 8))
            kept = sorted(tmp_path.glob("*.sha256"), key=lambda path: path.stat().st_mtime_ns)
            assert {path.stem for path in tmp_path.iterdir()} == {path.stem for path in kept}
            return [path.stem for path in kept]

        # of odd lengths each has a file of its own
        (first,) = use(5)
        _, second = use(7)
        assert use(5) == [second, first]
        taken = sum(path.stat().st_size for path in tmp_path.iterdir())
        monkeypatch.setattr(openvino_conversion, "_MOST_BYTES", int(1.2 * taken))
        kept = use(9)
        assert len(kept) == 2
        assert kept[0] == first
        monkeypatch.setattr(openvino_conversion, "_MOST_BYTES", 10)
        assert len(use(11)) == 1

    @pytest.mark.slow
    def test_what_was_prepared_is_not_converted_again(self, tmp_path, monkeypatch):
        converted = []
        convert = openvino_runtime.load_or_convert
        monkeypatch.setattr(openvino_runtime, "load_or_convert", lambda *a: converted.append(1) or convert(*a))
        network = small()
        predictor = predictor_of(OpenVINOPredictor, network, tmp_path, window_shape=(8, 8))
        predictor.prepare(torch.rand(1, 1, 8, 8))
        assert len(converted) == 1
        predictor(torch.rand(2, 1, 8, 8))
        predictor.prepare(torch.rand(2, 1, 8, 8))
        assert len(converted) == 1
        with torch.no_grad():
            network.heads["L1"].bias.add_(1)
        predictor.prepare(torch.rand(2, 1, 8, 8))
        assert len(converted) == 2

    @pytest.mark.slow
    def test_a_folder_that_cannot_be_written_to(self, tmp_path, caplog):
        (tmp_path / "file").write_text("")
        predictor = predictor_of(OpenVINOPredictor, small(), tmp_path / "file" / "cache", window_shape=(8, 8))
        assert predictor(torch.rand(2, 1, 8, 8)).shape == (2, 2, 8, 8)
        assert "cannot be cached there" in caplog.text

    @pytest.mark.slow
    def test_a_folder_that_can_only_be_read(self, tmp_path, monkeypatch, caplog):
        def refuse(*_, **__):
            raise OSError(30, "Read-only file system")

        def predicted(level):
            options = {"levels": [level], "window_shape": (8, 8)}
            return predictor_of(OpenVINOPredictor, network, tmp_path, **options)(windows)[level]

        network, windows = build(2), torch.rand(2, 1, 8, 8)
        first = predicted("L1")
        for name in ("utime", "replace", "unlink", "mkdir"):
            monkeypatch.setattr(os, name, refuse)
        with caplog.at_level(logging.WARNING):
            assert torch.equal(predicted("L1"), first)
            assert "converted network" not in caplog.text
            assert predicted("L2").shape == first.shape
        assert "cannot be cached there" in caplog.text

    def test_default_folder(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert openvino_conversion.default_cache_dir() == tmp_path / "monai-unetpp" / "openvino"
        monkeypatch.setenv("HOME", str(tmp_path))
        for relative in ("", "caches"):
            monkeypatch.setenv("XDG_CACHE_HOME", relative)
            assert openvino_conversion.default_cache_dir() == tmp_path / ".cache" / "monai-unetpp" / "openvino"

    @pytest.mark.slow
    @pytest.mark.parametrize("temporary", [True, False])
    def test_without_a_home_models_are_converted_every_time(self, monkeypatch, tmp_path, temporary):
        monkeypatch.setenv("HOME", "")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.chdir(tmp_path)
        assert openvino_conversion.default_cache_dir() is None
        if not temporary:
            monkeypatch.setattr(openvino_conversion.tempfile, "tempdir", str(tmp_path / "gone"))
        predictor = predictor_of(OpenVINOPredictor, small(), None, window_shape=(8, 8))
        assert predictor(torch.rand(2, 1, 8, 8)).shape == (2, 2, 8, 8)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.slow
    def test_nothing_is_sent(self, tmp_path):
        """In a process of its own, where connecting anywhere or importing the package for telemetry would stop it."""
        folder = tmp_path / "openvino_telemetry"
        folder.mkdir()
        (folder / "__init__.py").write_text("raise SystemExit('telemetry was imported')")
        script = tmp_path / "telemetry.py"
        script.write_text(f"""
import sys
def stop(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request"):
        raise SystemExit(event)
sys.addaudithook(stop)
sys.path.insert(0, {str(tmp_path)!r})
import torch
from monai_unetpp import NestedUNet, openvino_loading
from monai_unetpp.inferers.predictors import make_predictor
network = NestedUNet(2, 1, 2, features=(2, 4))
predictor = make_predictor(network, levels=None, window_shape=(8, 8), batch_size=1, device="cpu", runtime="openvino",
                           cache_dir={str(tmp_path / "cache")!r})
predictor(torch.rand(1, 1, 8, 8))
assert "openvino_telemetry" not in sys.modules
print("predicted")
""")
        done = run_forked(script, folder=tmp_path)
        assert (done.returncode, done.stdout) == (0, "predicted\n"), done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestGPU:
    @pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-2), ("bf16", 0.05), ("fp16", 0.02)])
    @pytest.mark.parametrize("runtime", ["torch", "compile"])
    def test_agrees_with_the_network(self, runtime, precision, tolerance):
        network, windows = build().cuda(), torch.rand(2, 1, *SHAPE, device="cuda")
        predictor = make_predictor(
            network,
            levels=["L1", "L2"],
            window_shape=SHAPE,
            batch_size=2,
            device="cuda",
            runtime=runtime,
            precision=precision,
        )
        strides = [parameter.stride() for parameter in network.parameters()]
        with torch.no_grad():
            expected = network.forward_levels(windows)
        for level, logits in predictor(windows).items():
            assert relative_error(logits, expected[level]) < tolerance
        assert strides == [parameter.stride() for parameter in network.parameters()]
        with torch.no_grad():
            network.heads["L2"].bias.add_(1.0)
        assert relative_error(predictor(windows)["L2"], expected["L2"] + 1) < 2 * tolerance


@pytest.mark.slow
@needs_openvino
def test_threads_do_not_mix_up_their_windows(tmp_path):
    predict = predictor_of(OpenVINOPredictor, build(), tmp_path, batch_size=1)
    windows = [torch.full((1, 1, *SHAPE), float(number)) + torch.rand(1, 1, *SHAPE) for number in range(4)]
    expected = [predict(window) for window in windows]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(predict, windows * 25))
    for result, wanted in zip(found, expected * 25, strict=True):
        torch.testing.assert_close(result, wanted)


@pytest.mark.slow
@needs_openvino
def test_networks_are_converted_by_several_threads(tmp_path):
    networks = [NestedUNet(2, 1, 2, features=[2, 2, count]).eval() for count in (2, 3)]
    images = [torch.rand(1, 1, 16, 12) for _ in networks]
    together = threading.Barrier(2)

    def infer(number):
        inferer = NestedSlidingWindowInferer((8, 8), runtime="openvino", precision="fp32", cache_dir=tmp_path)
        together.wait()
        return inferer(images[number], networks[number])

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(infer, range(2)))
    for image, network, result in zip(images, networks, found, strict=True):
        with torch.no_grad():
            expected = NestedSlidingWindowInferer((8, 8), runtime="torch", precision="fp32")(image, network)
        torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_signals_after_openvino_networks_came_and_went(tmp_path):
    """OpenVINO sets the stack that signals are handled on: it must not be one that is gone."""
    pytest.importorskip("openvino")
    script = tmp_path / "signals.py"
    script.write_text(
        """
import gc, os, signal, sys
import torch
from monai_unetpp import NestedUNet, openvino_loading
from monai_unetpp.inferers.predictors import make_predictor

def predictor(level):
    network = NestedUNet(2, 1, 2, features=(4, 8, 8)).eval().prune(level)
    made = make_predictor(
        network, levels=None, window_shape=(8, 8), batch_size=1, device="cpu", runtime="openvino", cache_dir=sys.argv[1]
    )
    made(torch.rand(1, 1, 8, 8))
    return made

handled = []
signal.signal(signal.SIGUSR1, lambda *_: handled.append(1))
first, second = predictor("L1"), predictor("L2")
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
assert handled == [1]
""",
        encoding="utf-8",
    )
    done = run_forked(script, tmp_path / "cache", folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]

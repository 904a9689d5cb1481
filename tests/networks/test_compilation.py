"""torch.compile, torch.export, TorchScript and ONNX take the network and agree with it."""

import io
import shutil
import warnings

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.export import Dim

from monai_unetpp import NestedUNet


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def build(dims=2, variant="unet++", features=(2, 4, 6), **arguments):
    torch.manual_seed(0)
    return NestedUNet(dims, 1, 2, features=features, variant=variant, **arguments).eval()


def assert_close(outputs, expected):
    if isinstance(expected, torch.Tensor):
        outputs, expected = [outputs], [expected]
    assert len(outputs) == len(expected)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(outputs, expected, strict=True))


class TestCompile:
    @pytest.mark.slow
    @pytest.mark.parametrize(("dims", "variant"), [(2, "unet_e"), (2, "unet+"), (3, "unet++")])
    def test_one_graph_in_evaluation_and_training(self, dims, variant):
        net = build(dims, variant, block="residual" if dims == 2 else "plain")
        compiled = torch.compile(net, fullgraph=True, backend="eager")
        image = torch.rand(2, 1, *(11, 9, 10)[:dims])
        assert_close(compiled(image), net(image))
        net.train()
        assert_close(compiled(image), net(image))

    @pytest.mark.slow
    def test_gradients_agree(self):
        net = build(features=(2, 4)).train()
        image = torch.rand(2, 1, 10, 9)
        gradients = []
        for function in (net, torch.compile(net, fullgraph=True, backend="aot_eager")):
            net.zero_grad()
            sum(output.square().mean() for output in function(image)).backward()
            gradients.append([parameter.grad.clone() for parameter in net.parameters()])
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))

    @pytest.mark.slow
    def test_checkpointing_counts_each_batch_once(self):
        plain = build(features=(2, 4), norm="batch").train()
        lean = NestedUNet(**{**plain.config, "use_checkpoint": True}).train()
        lean.load_state_dict(plain.state_dict())
        image = torch.rand(2, 1, 8, 8)
        for function in (plain, torch.compile(lean, backend="aot_eager")):
            sum(output.square().mean() for output in function(image)).backward()
        for name, value in plain.state_dict().items():
            torch.testing.assert_close(lean.state_dict()[name], value, msg=name)

    @pytest.mark.slow
    def test_levels_in_one_graph(self):
        net = build()
        image = torch.rand(1, 1, 8, 8)
        compiled = torch.compile(net.forward_levels, fullgraph=True, backend="eager")
        outputs, expected = compiled(image, ["L1", "L2"]), net.forward_levels(image, ["L1", "L2"])
        assert list(outputs) == list(expected)
        assert_close(list(outputs.values()), list(expected.values()))

    @pytest.mark.slow
    def test_no_compilation_for_shapes_that_were_seen(self):
        counter = CompileCounter()
        net = build()
        compiled = torch.compile(net, fullgraph=True, backend=counter)
        with torch.no_grad():
            for _ in range(4):
                compiled(torch.rand(2, 1, 16, 16))
            assert counter.frame_count == 1
            # a second shape makes sizes symbols, which then serve all others
            for size in ((16, 17), (24, 32), (19, 21), (40, 18)):
                image = torch.rand(2, 1, *size)
                assert_close(compiled(image), net(image))
        assert counter.frame_count <= 3

    @pytest.mark.slow
    @pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler (g++)")
    def test_inductor(self):
        net = build(features=(2, 2), norm=None, act="relu").train()
        image = torch.rand(1, 1, 9, 8)
        results = []
        for function in (net, torch.compile(net, fullgraph=True, dynamic=False)):
            net.zero_grad()
            outputs = function(image)
            sum(output.square().mean() for output in outputs).backward()
            results.append([*outputs, *(parameter.grad for parameter in net.parameters())])
        assert_close(*results)


class TestExport:
    @pytest.mark.slow
    def test_fixed_size(self):
        net, image = build(), torch.rand(1, 1, 9, 12)
        with torch.no_grad():
            program = torch.export.export(net, (image,))
            assert_close(program.module()(image), net(image))

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("example", "options"),
        [
            *(((2, 1, 16, 24), {"upsample": mode}) for mode in ("deconv", "nontrainable")),
            *(((2, 1, 13, 17), {"upsample": mode}) for mode in ("deconv", "nontrainable")),
            ((2, 1, 8, 9, 10), {"dims": 3, "features": (2, 4)}),
        ],
    )
    def test_any_batch_and_size_whatever_the_example(self, example, options):
        net = build(**options)
        axes = dict.fromkeys((0, *range(2, len(example))), Dim.AUTO)
        with torch.no_grad():
            program = torch.export.export(net, (torch.rand(example),), dynamic_shapes=(axes,)).module()
            for shape in ((1, 1, 16, 16, 9), (3, 1, 5, 21, 6), (2, 1, 31, 8, 7)):
                image = torch.rand(shape[: len(example)])
                assert_close(program(image), net(image))

    @pytest.mark.slow
    @pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="torch 2.6 cannot tell before it runs")
    def test_sizes_that_the_strides_divide_need_no_cropping(self):
        net = build()
        with torch.no_grad():
            program = torch.export.export(net, (torch.rand(1, 1, 16, 16),))
        assert "aten.pad" not in program.graph_module.code
        assert "constant_pad" not in program.graph_module.code


class TestScript:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("dims", "arguments"),
        [
            (2, {"variant": "unet_e", "block": "residual", "norm": "batch"}),
            (3, {"variant": "unet++", "strides": ((2, 2, 1), 2)}),
            (2, {"variant": "unet", "ceil_mode": False, "upsample": "nontrainable"}),
            (2, {"variant": "unet+", "norm": ("group", {"num_groups": 2}), "use_checkpoint": True}),
        ],
    )
    def test_agrees_in_evaluation_and_in_training(self, dims, arguments):
        net = build(dims, **arguments)
        scripted = torch.jit.script(net)
        stream = io.BytesIO()
        torch.jit.save(scripted, stream)
        stream.seek(0)
        loaded = torch.jit.load(stream)
        for size in ((12, 9, 7), (16, 16, 16)):
            image = torch.rand(2, 1, *size[:dims])
            for module in (scripted, loaded):
                assert torch.allclose(module.eval()(image), net.eval()(image), atol=1e-5)
        outputs = loaded.train()(image)
        assert isinstance(outputs, list)
        assert_close(outputs, net.train()(image))

    @pytest.mark.slow
    def test_inputs_are_checked(self):
        scripted = torch.jit.script(build(features=(2, 4)))
        with pytest.raises(torch.jit.Error, match=r"input must have shape \(batch, 1, 2 spatial axes\)"):
            scripted(torch.rand(1, 3, 8, 8))


@pytest.mark.slow
def test_onnx_with_any_batch():
    onnx = pytest.importorskip("onnx", reason="ONNX export needs onnx and onnxscript")
    pytest.importorskip("onnxscript", reason="ONNX export needs onnx and onnxscript")
    from onnx.reference import ReferenceEvaluator

    net = build(features=(2, 4), norm="batch", act="relu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net, (torch.rand(2, 1, 8, 7),), dynamo=True, verbose=False, dynamic_shapes=({0: Dim("batch")},)
        )
    onnx.checker.check_model(program.model_proto)
    session = ReferenceEvaluator(program.model_proto)
    for batch in (1, 3):
        image = torch.rand(batch, 1, 8, 7)
        (output,) = session.run(None, {program.model_proto.graph.input[0].name: image.numpy()})
        assert torch.allclose(torch.from_numpy(output), net(image), atol=1e-5)

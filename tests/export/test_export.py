"""Exported files are what the network is, or are not kept."""

import dataclasses
import importlib.util
import json
import re
import warnings

import pytest
import torch
from monai.data import load_net_with_metadata

from monai_unetpp import NestedUNet
from monai_unetpp.bundles import BundleConfig
from monai_unetpp.cli import main
from monai_unetpp.export import FORMATS, export, export_checkpoint, export_network
from monai_unetpp.openvino_loading import openvino_core

NEEDS = {"onnx": ("onnx", "onnxscript"), "openvino": ("openvino",)}


def require(format):
    for package in NEEDS.get(format, ()):
        pytest.importorskip(package, reason=f"format {format} needs {package}") if package != "openvino" else None
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"format {format} needs {package}")


@pytest.fixture(autouse=True)
def no_deprecations():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@pytest.fixture
def network():
    torch.manual_seed(0)
    return NestedUNet(2, 1, 2, features=(2, 4, 6), norm="batch", act="relu")


@pytest.mark.slow
@pytest.mark.parametrize("format", ["torch_export", "torchscript", "onnx", "openvino"])
@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_files_agree_with_the_level(format, dynamic_batch, network, tmp_path):
    require(format)
    path = tmp_path / f"network{FORMATS[format].suffix}"
    result = export_network(network, path, format, (9, 8), level="L1", dynamic_batch=dynamic_batch)
    open_batch = dynamic_batch or format == "torchscript"
    assert result.input_shape == (None if open_batch else 1, 1, 9, 8)
    assert result.output_shape == (None if open_batch else 1, 2, 9, 8)
    assert result.level == "L1"
    assert result.parameters == sum(parameter.numel() for parameter in network.prune("L1").parameters())
    run = FORMATS[format].load(path)
    for batch in (1, 5) if open_batch else (1,):
        windows = torch.rand(batch, 1, 9, 8)
        with torch.no_grad():
            expected = network.eval().forward_levels(windows)["L1"]
            assert torch.allclose(run(windows), expected, atol=1e-4)
    content = json.loads((tmp_path / f"{path.name}.json").read_text())
    assert content["level"] == "L1"
    assert content["versions"]["torch"] == torch.__version__
    assert content["largest_difference"] <= content["tolerance"] == 1e-4
    names = {path.name, f"{path.name}.json", *(f"network{suffix}" for suffix in FORMATS[format].companions)}
    assert {each.name for each in tmp_path.iterdir()} == names


def test_an_interruption_leaves_no_description_of_the_network_before(network, tmp_path, monkeypatch):
    path = tmp_path / "network.ts"
    export_network(network, path, "torchscript", (9, 8), level="L1")
    before = path.read_bytes()

    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("monai_unetpp.export.export.write_json", stop)
    with pytest.raises(KeyboardInterrupt):
        export_network(network, path, "torchscript", (9, 8), level="L2")
    assert path.read_bytes() != before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_networks_of_another_precision_are_exported_in_float32(dtype, network, tmp_path):
    path = tmp_path / "network.ts"
    network.to(dtype)
    export_network(network, path, "torchscript", (9, 8))
    windows = torch.rand(1, 1, 9, 8)
    with torch.no_grad():
        assert torch.allclose(FORMATS["torchscript"].load(path)(windows), network.float().eval()(windows), atol=1e-4)


@pytest.mark.slow
def test_a_file_that_disagrees_is_not_kept(network, tmp_path, monkeypatch):
    chosen = FORMATS["torchscript"]
    wrong = dataclasses.replace(chosen, load=lambda path: lambda windows: chosen.load(path)(windows) + 1)
    monkeypatch.setitem(export.FORMATS, "torchscript", wrong)
    path = tmp_path / "network.ts"
    path.write_text("an earlier file")
    with pytest.raises(RuntimeError, match=r"must agree with the network to 0.0001 .* got a difference of"):
        export_network(network, path, "torchscript", (8, 8))
    assert [each.name for each in tmp_path.iterdir()] == ["network.ts"]
    assert path.read_text() == "an earlier file"


@pytest.mark.slow
def test_not_a_number_is_no_agreement(network, tmp_path):
    with torch.no_grad():
        network.heads["L2"].bias.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="got a difference of nan"):
        export_network(network, tmp_path / "network.ts", "torchscript", (8, 8))


@pytest.mark.slow
def test_not_a_number_for_one_of_the_batches_is_no_agreement(network, tmp_path, monkeypatch):
    chosen = FORMATS["torchscript"]

    def load(path):
        run = chosen.load(path)
        return lambda windows: run(windows) * (float("nan") if len(windows) > 1 else 1)

    monkeypatch.setitem(export.FORMATS, "torchscript", dataclasses.replace(chosen, load=load))
    with pytest.raises(RuntimeError, match="got a difference of nan"):
        export_network(network, tmp_path / "network.ts", "torchscript", (8, 8))


@pytest.mark.slow
def test_the_network_stays_as_it_is(network, tmp_path):
    network.train()
    export_network(network, tmp_path / "network.ts", "torchscript", (8, 8))
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "keras"}, "format must be one of torch_export, torchscript, onnx, openvino, tensorrt, got 'keras'"),
        ({"path": "network.pt"}, r"path must end in .ts for format torchscript, got 'network.pt'"),
        ({"window_shape": (8, 8, 8)}, r"window_shape must be 2 positive integers, got \[8, 8, 8\]"),
        ({"window_shape": (8, 0)}, r"window_shape must be 2 positive integers, got \[8, 0\]"),
        ({"window_shape": "ab"}, r"window_shape must be 2 positive integers, got \['a', 'b'\]"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"level": "L9"}, "L9"),
    ],
)
def test_wrong_arguments(changes, message, network):
    arguments = {"path": "network.ts", "format": "torchscript", "window_shape": (8, 8), **changes}
    with pytest.raises(ValueError, match=message):
        export_network(network, **arguments)


@pytest.mark.parametrize("name", ["network.ts", "network.ts.json"])
def test_a_folder_is_no_file(network, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(IsADirectoryError, match=rf"{re.escape(name)}: is a folder\. Give the name of another file"):
        export_network(network, tmp_path / "network.ts", "torchscript", (8, 8))


@pytest.mark.parametrize("name", ["network.bin", "network.xml.json"])
def test_files_of_others_beside_an_export_are_not_replaced(network, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(
        FileExistsError, match=rf"{re.escape(name)}: exists, and would be replaced beside network\.xml\."
    ):
        export_network(network, tmp_path / "network.xml", "openvino", (8, 8))
    assert (tmp_path / name).read_text() == "mine"


def test_a_folder_that_cannot_be_written_to_is_told_before_any_work(network, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"must be a folder that can be written to, got '.*file' \("):
        export_network(network, tmp_path / "file" / "network.ts", "torchscript", (8, 8))


def test_wrong_network():
    with pytest.raises(TypeError, match="network must be a NestedUNet, got Identity"):
        export_network(torch.nn.Identity(), "network.ts", "torchscript", (8, 8))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_tensorrt_takes_one_number_of_windows(network, tmp_path):
    with pytest.raises(ValueError, match="dynamic_batch must be left out for format tensorrt"):
        export_network(network, tmp_path / "network.ep", "tensorrt", (8, 8), dynamic_batch=True)


def test_tensorrt_says_what_it_needs(network, tmp_path):
    with pytest.raises(ImportError, match=r"needs torch-tensorrt and an NVIDIA GPU.* pip install torch-tensorrt"):
        export_network(network, tmp_path / "network.ep", "tensorrt", (8, 8))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(network, tmp_path, monkeypatch):
    from monai_unetpp.export import formats

    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'format onnx needs onnx. Install it: pip install .*\[export\]"'):
        export_network(network, tmp_path / "network.onnx", "onnx", (8, 8))


def test_a_file_that_cannot_be_read_back_is_not_kept(network, tmp_path, monkeypatch):
    def refuse(path):
        raise RuntimeError("Exception from core.cpp:132:\nKernel is larger than the data\n")

    monkeypatch.setitem(FORMATS, "torchscript", dataclasses.replace(FORMATS["torchscript"], load=refuse))
    told = r"network.ts: .* could not be loaded to check it \(Kernel is larger than the data\).*larger window_shape"
    with pytest.raises(RuntimeError, match=told):
        export_network(network, tmp_path / "network.ts", "torchscript", (8, 8))
    assert list(tmp_path.iterdir()) == []


class TestCheckpoints:
    @pytest.mark.slow
    def test_checkpoint(self, network, tmp_path):
        torch.save(network.state_dict(), tmp_path / "model.pt")
        path = tmp_path / "network.ts"
        result = export_checkpoint(tmp_path / "model.pt", path, "torchscript", (8, 8), level="L1")
        assert result.source == str(tmp_path / "model.pt")
        with pytest.raises(ValueError, match="window_shape must be given for a checkpoint, got None"):
            export_checkpoint(tmp_path / "model.pt", path, "torchscript")

    @pytest.mark.slow
    def test_command_line(self, network, tmp_path, capsys):
        torch.save(network.state_dict(), tmp_path / "model.pt")
        arguments = ["export", str(tmp_path / "model.pt"), "-o", str(tmp_path / "network.ts"), "--level", "L1"]
        assert main([*arguments, "--window_shape", "8", "8"]) == 0
        assert "L1" in capsys.readouterr().out
        assert torch.jit.load(tmp_path / "network.ts")(torch.rand(1, 1, 8, 8)).shape == (1, 2, 8, 8)
        assert main(arguments) == 2
        assert "window_shape must be given" in capsys.readouterr().err
        arguments[3] = str(tmp_path / "network.txt")
        assert main([*arguments, "--window_shape", "8", "8"]) == 2
        assert "network.txt'. For a folder with the whole pipeline, give --format runner." in capsys.readouterr().err
        arguments[3] = str(tmp_path / "CAPITALS.TS")
        assert main([*arguments, "--window_shape", "8", "8"]) == 0
        assert {path.name for path in tmp_path.glob("CAPITALS*")} == {"CAPITALS.ts", "CAPITALS.ts.json"}

    @pytest.mark.slow
    def test_bundle(self, hippocampus_bundle, tmp_path):
        result = export_checkpoint(hippocampus_bundle, tmp_path / "network.ts", "torchscript", level="L1")
        assert result.source.endswith("model.pt")
        assert len(result.input_shape) == 5

    @pytest.mark.slow
    def test_the_default_level_is_that_of_segment(self, hippocampus_bundle, tmp_path):
        exported = export_checkpoint(hippocampus_bundle, tmp_path / "network.ts", "torchscript", (8, 8, 8))
        network = BundleConfig(hippocampus_bundle, "inference.json").parse("evaluator#network")
        assert exported.level == network.levels[-1] == "L2"
        weights = hippocampus_bundle / "models" / "model.pt"
        assert export_checkpoint(weights, tmp_path / "whole.ts", "torchscript", (8, 8, 8)).level == "L3"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "suffix"), [("torchscript", ".ts"), ("torch_export", ".pt2")])
def test_the_export_of_a_bundle_carries_its_metadata_and_inference(hippocampus_bundle, tmp_path, kind, suffix):
    path = tmp_path / f"hippocampus{suffix}"
    export_checkpoint(hippocampus_bundle, path, kind, (8, 8, 8), level="L1")
    expected = {
        name: json.loads((hippocampus_bundle / "configs" / f"{name}.json").read_text())
        for name in ("metadata", "inference")
    }
    beside = json.loads((tmp_path / f"{path.name}.json").read_text())
    assert {name: beside[name] for name in expected} == expected
    if suffix == ".ts":
        _, metadata, more = load_net_with_metadata(str(path), more_extra_files=("inference.json",))
        assert (metadata, json.loads(more["inference.json"])) == (expected["metadata"], expected["inference"])
    else:
        inside = dict.fromkeys(("metadata.json", "inference.json"), "")
        torch.export.load(path, extra_files=inside)
        assert {name: json.loads(inside[f"{name}.json"]) for name in expected} == expected


@pytest.mark.slow
def test_openvino_names_its_tensors_as_onnx_does(network, tmp_path):
    require("openvino")
    export_network(network, tmp_path / "a.xml", "openvino", (8, 8))
    model = openvino_core().read_model(tmp_path / "a.xml")
    assert (model.input(0).get_any_name(), model.output(0).get_any_name()) == ("image", "pred")

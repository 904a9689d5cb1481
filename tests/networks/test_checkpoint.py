"""Networks from files."""

import json
import subprocess

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.handlers import CheckpointSaver
from monai.networks.nets import BasicUNetPlusPlus
from monai.utils.enums import UpsampleMode
from torch import nn

from monai_unetpp import NestedUNet
from monai_unetpp.networks.checkpoint import read_checkpoint


@pytest.fixture
def net():
    torch.manual_seed(0)
    return NestedUNet(2, 1, 2, features=(4, 6, 8), norm="batch", strides=((2, 1), 2)).eval()


@pytest.fixture
def image():
    return torch.rand(1, 1, 9, 7)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pt"


def assert_same(loaded, net, image):
    assert loaded.config == net.config
    assert torch.equal(loaded.eval()(image), net(image))


def test_a_state_dict_carries_its_configuration(net, image, path):
    torch.save(net.state_dict(), path)
    assert_same(NestedUNet.from_checkpoint(path), net, image)
    assert_same(NestedUNet.from_checkpoint(str(path)), net, image)


def test_a_dict_with_weights_and_configuration(net, image, path):
    plain = {key: value for key, value in net.state_dict().items()}  # noqa: C416 - drops the metadata
    torch.save({"state_dict": plain, "config": json.loads(json.dumps(net.config))}, path)
    assert_same(NestedUNet.from_checkpoint(path), net, image)


@pytest.mark.parametrize("key", ["network", "model", "net", "state_dict"])
def test_the_names_of_training_checkpoints(net, image, path, key):
    optimizer = torch.optim.Adam(net.parameters())
    torch.save({"optimizer": optimizer.state_dict(), key: net.state_dict()}, path)
    assert_same(NestedUNet.from_checkpoint(path), net, image)


def test_a_file_of_monais_checkpoint_saver(net, image, tmp_path):
    engine = Engine(lambda engine, batch: None)
    CheckpointSaver(str(tmp_path), {"network": net, "trainer": engine}, save_interval=1).attach(engine)
    engine.run([0], max_epochs=1)
    (file,) = tmp_path.glob("*.pt")
    assert_same(NestedUNet.from_checkpoint(file), net, image)


def test_weights_of_a_wrapped_network(net, image, path):
    wrapper = nn.Module()
    wrapper.module = net
    torch.save(wrapper.state_dict(), path)
    assert_same(NestedUNet.from_checkpoint(path), net, image)


def test_plain_weights_need_a_configuration(net, image, path):
    torch.save(dict(net.state_dict()), path)
    with pytest.raises(ValueError, match=r"model\.pt: this checkpoint does not say how .* Pass config=\.\.\."):
        NestedUNet.from_checkpoint(path)
    assert_same(NestedUNet.from_checkpoint(path, config=net.config), net, image)


@pytest.mark.parametrize("level", ["L1", "L2"])
def test_a_level_is_what_prune_gives(net, image, path, level):
    torch.save(net.state_dict(), path)
    loaded = NestedUNet.from_checkpoint(path, level=level)
    assert loaded.config == net.prune(level).config
    assert torch.equal(loaded.eval()(image), net.prune(level)(image))


def test_a_level_needs_only_its_own_weights(net, image, path):
    weights = net.state_dict()
    for key in [key for key in weights if "x_2_0" in key or "heads.L2" in key]:
        del weights[key]
    torch.save(weights, path)
    assert torch.equal(NestedUNet.from_checkpoint(path, level="L1").eval()(image), net.prune("L1")(image))
    with pytest.raises(
        ValueError, match=r"model\.pt: the weights do not fit the network's configuration: Missing key.*x_2_0"
    ):
        NestedUNet.from_checkpoint(path)


def test_weights_are_mapped_so_that_only_what_is_needed_is_read(net, path, monkeypatch):
    torch.save(net.state_dict(), path)
    load, calls = torch.load, []
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: calls.append(kwargs) or load(*args, **kwargs))
    tensors, config = read_checkpoint(path)
    assert config == net.config
    assert set(tensors) == set(net.state_dict())
    assert [(call["mmap"], call["weights_only"]) for call in calls] == [(True, True)]


def test_a_loaded_network_does_not_hang_on_its_file(net, image, path):
    torch.save(net.state_dict(), path)
    loaded = NestedUNet.from_checkpoint(path).eval()
    before = loaded(image)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(loaded(image), before)


def test_files_of_the_old_format(net, image, path):
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=False)
    assert_same(NestedUNet.from_checkpoint(path), net, image)


def test_a_pruned_network_survives_a_file(net, image, path):
    pruned = net.prune("L1")
    torch.save(pruned.state_dict(), path)
    assert_same(NestedUNet.from_checkpoint(path), pruned, image)
    assert_same(NestedUNet.from_checkpoint(path, level="L1"), pruned, image)


def test_map_location(net, path):
    torch.save(net.state_dict(), path)
    assert {p.device.type for p in NestedUNet.from_checkpoint(path, map_location="meta").parameters()} == {"meta"}


def test_unknown_level(net, path):
    torch.save(net.state_dict(), path)
    with pytest.raises(ValueError, match=r"model\.pt: level must be one of L1, L2, got 'L5'"):
        NestedUNet.from_checkpoint(path, level="L5")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such file. Give the path of a checkpoint"):
        NestedUNet.from_checkpoint(tmp_path / "none.pt")


@pytest.mark.parametrize("content", [b"", b"not a file of weights", b"PK\x03"])
def test_corrupt_files(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.pt: not a file of weights that can be read safely"):
        NestedUNet.from_checkpoint(path)


def test_files_that_would_run_code_are_refused(path):
    torch.save({"network": subprocess.Popen}, path)
    with pytest.raises(ValueError, match=r"model\.pt: not a file of weights that can be read safely"):
        NestedUNet.from_checkpoint(path)


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (torch.save, r"it holds Python objects besides tensors, .*\. Save network\.state_dict\(\) with"),
        (lambda network, path: torch.save({"network": network}, path), "it holds Python objects besides tensors"),
        (
            lambda network, path: torch.jit.script(network).save(path),
            r"it is TorchScript, which holds code\. Save the state_dict\(\) of the orig",
        ),
        (lambda _, path: path.write_bytes(b"PK broken"), r"it is damaged, or was not .*\. Copy or save it again"),
    ],
)
def test_files_of_other_kinds_are_named_in_one_line(path, save, message):
    save(torch.nn.Linear(2, 2), path)
    with pytest.raises(
        ValueError, match=rf"model\.pt: not a file of weights that can be read safely: {message}"
    ) as caught:
        NestedUNet.from_checkpoint(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("content", [{}, [1, 2], 3, {"network": {"conv.weight": torch.ones(1)}}])
def test_files_of_something_else(path, content):
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"model\.pt: holds no weights of a nested U-Net"):
        NestedUNet.from_checkpoint(path)


def test_weights_of_monais_network_name_the_way_in(path):
    torch.save(BasicUNetPlusPlus(2, features=(2, 2, 2, 2, 2, 2)).state_dict(), path)
    with pytest.raises(ValueError, match=r"use NestedUNet\.from_basic_unetplusplus"):
        NestedUNet.from_checkpoint(path)


def test_weights_of_another_shape(net, path):
    torch.save(net.state_dict(), path)
    with pytest.raises(
        ValueError, match=r"model\.pt: the weights do not fit the network's configuration: size mismatch .* And 12 more"
    ):
        NestedUNet.from_checkpoint(path, config={**net.config, "features": [4, 6, 9]})


def test_a_configuration_that_cannot_build(net, path):
    torch.save(net.state_dict(), path)
    with pytest.raises(ValueError, match=r"model\.pt: the configuration cannot build a network: features must have"):
        NestedUNet.from_checkpoint(path, config={**net.config, "features": [4]})
    with pytest.raises(ValueError, match=r"model\.pt: the configuration cannot .*no argument 'depth'"):
        NestedUNet.from_checkpoint(path, config={**net.config, "depth": 4})


def test_weights_that_are_not_finite_are_refused(net, path):
    state = net.state_dict()
    state["heads.L1.bias"][0] = float("nan")
    torch.save(state, path)
    with pytest.raises(
        ValueError, match=r"model\.pt: the weights must be finite, got NaN or infinity in heads\.L1\.bias\."
    ):
        NestedUNet.from_checkpoint(path)


def test_a_file_that_is_cut_off_is_damaged_wherever_that_is(net, path):
    torch.save(net.state_dict(), path)
    content = path.read_bytes()
    for length in (4, 100, len(content) // 3, len(content) - 200, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"model\.pt: damaged, its end is missing\. Copy or download it again\."):
            read_checkpoint(path)


def test_a_file_of_two_networks_is_refused(net, path):
    torch.save(nn.ModuleDict({"student": net.prune("L1"), "net": net}).state_dict(), path)
    with pytest.raises(ValueError, match=r"must be those of one network, got 'net\.' and 'student\.'. Save the"):
        NestedUNet.from_checkpoint(path)


@pytest.mark.parametrize(
    "values",
    [
        {"dropout": np.float64(0.1)},
        {"act": ("LeakyReLU", {"negative_slope": np.float64(0.5)})},
        {"norm": (np.str_("instance"), {})},
        {"upsample": UpsampleMode.NONTRAINABLE},
    ],
)
def test_values_of_numpy_and_enums_are_stored_as_plain_ones(tmp_path, values):
    network = NestedUNet(2, 1, 2, features=(4, 8), **values)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    assert torch.load(tmp_path / "model.pt", weights_only=True)
    loaded = NestedUNet.from_checkpoint(tmp_path / "model.pt")
    assert loaded.config == network.config

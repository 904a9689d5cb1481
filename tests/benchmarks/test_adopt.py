"""Weights of a training in a bundle."""

import json

import pytest
import torch
from tiny_bundle import NETWORK, make_tiny_bundle

from benchmarks.adopt import main
from monai_unetpp import NestedUNet
from monai_unetpp.bundles import check_bundle, load_network
from monai_unetpp.bundles.training_record import BEST_ON_VALIDATION, LAST_AVERAGED, read_training_record


@pytest.fixture
def states():
    torch.manual_seed(7)
    return [NestedUNet(**NETWORK).state_dict() for _ in range(2)]


@pytest.mark.parametrize("kind", ["checkpoint", "model"])
def test_weights_come_with_their_hash_and_the_record_of_the_cases(states, decathlon_dir, tmp_path, capsys, kind):
    bundle = make_tiny_bundle(tmp_path / "tiny_unetpp")
    (bundle / "models" / "model.pt").unlink()
    content = {"network": states[0], "ema": dict(states[1]), "trainer": {}} if kind == "checkpoint" else states[1]
    torch.save(content, tmp_path / "weights.pt")
    assert main([str(tmp_path / "weights.pt"), str(bundle), str(decathlon_dir)]) == 0
    rule = LAST_AVERAGED if kind == "checkpoint" else BEST_ON_VALIDATION
    assert capsys.readouterr().out == f"{rule}.\n"
    loaded = load_network(bundle / "models" / "model.pt").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in states[1].items())
    assert check_bundle(bundle) == []
    record = read_training_record(bundle)
    selecting = [] if kind == "checkpoint" else ["case_4", "case_5"]
    assert (list(record.training), list(record.selecting)) == ([f"case_{n}" for n in range(4)], selecting)
    assert json.loads((bundle / "configs" / "metadata.json").read_text())["eval_metrics"] == {}


def test_weights_of_another_network_are_refused_in_one_line(decathlon_dir, tmp_path, capsys):
    bundle = make_tiny_bundle(tmp_path / "tiny_unetpp")
    torch.save(NestedUNet(**{**NETWORK, "out_channels": 7}).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "weights.pt"), str(bundle), str(decathlon_dir)])
    assert "weights.pt: not of the network of tiny_unetpp (" in capsys.readouterr().err

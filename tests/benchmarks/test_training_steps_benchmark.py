"""The benchmark of training steps with and without what makes them faster."""

import pytest
import torch

from benchmarks import training_steps
from monai_unetpp.training import write_template


def _write_bundle(folder, dims):
    values = {"spatial_dims": dims, "features": [2, 4, 4], "batch_size": 2, "patch_size": [16] * dims}
    values |= {"channels_last": True, "compile": False}
    write_template(folder, values)
    return folder


@pytest.fixture
def bundle(tmp_path):
    return _write_bundle(tmp_path / "b", 2)


def test_both_take_turns(bundle, capsys, monkeypatch):
    turns = []
    for name in ("keep_freed_memory", "return_freed_memory"):
        monkeypatch.setattr(training_steps, name, lambda name=name: turns.append(name) or True)
    assert training_steps.main([str(bundle), "--rounds", "3", "--steps", "1"]) == 0
    shown = capsys.readouterr().out
    assert "| b | 2, 4, 4 | 2 of 16 \N{MULTIPLICATION SIGN} 16 | no |" in shown
    assert "3 rounds; " in shown
    both = ["keep_freed_memory", "return_freed_memory"]
    assert [sorted(turns[place : place + 2]) for place in (1, 3, 5)] == [both] * 3


def test_where_memory_cannot_be_kept_one_line_says_so(bundle, capsys, monkeypatch):
    monkeypatch.setattr(training_steps, "keep_freed_memory", lambda: False)
    with pytest.raises(SystemExit):
        training_steps.main([str(bundle)])
    assert "GNU C library" in capsys.readouterr().err.splitlines()[-1]


def test_convolutions_that_pad_themselves_are_compared(bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    volumes = _write_bundle(tmp_path / "volumes", 3)
    assert training_steps.main([str(volumes), "--means", "depth", "--rounds", "2", "--steps", "1"]) == 0
    assert "s per step, padded by the library | by themselves |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        training_steps.main([str(bundle), "--means", "depth"])
    assert "no convolution pads the first axis itself" in capsys.readouterr().err.splitlines()[-1]

"""The benchmark of training steps with memory kept and given back."""

import pytest

from benchmarks import kept_memory
from monai_unetpp.training import write_template


@pytest.fixture
def bundle(tmp_path):
    write_template(tmp_path / "b", {"features": [2, 4, 4], "batch_size": 2, "patch_size": [16, 16], "compile": False})
    return tmp_path / "b"


def test_both_take_turns(bundle, capsys, monkeypatch):
    turns = []
    for name in list(kept_memory._SWITCHES):
        monkeypatch.setitem(kept_memory._SWITCHES, name, lambda name=name: turns.append(name))
    monkeypatch.setattr(kept_memory, "keep_freed_memory", lambda: True)
    assert kept_memory.main([str(bundle), "--rounds", "3", "--steps", "1"]) == 0
    shown = capsys.readouterr().out
    assert "| b | 2, 4, 4 | 2 of 16 \N{MULTIPLICATION SIGN} 16 | no |" in shown
    assert "3 rounds; " in shown
    assert [sorted(turns[place : place + 2]) for place in (0, 2, 4)] == [["given back", "kept"]] * 3


def test_where_memory_cannot_be_kept_one_line_says_so(bundle, capsys, monkeypatch):
    monkeypatch.setattr(kept_memory, "keep_freed_memory", lambda: False)
    with pytest.raises(SystemExit):
        kept_memory.main([str(bundle)])
    assert "GNU C library" in capsys.readouterr().err.splitlines()[-1]

"""How those who develop the package start the benchmarks, and the figures of the house."""

import dataclasses
import json

import pytest

from benchmarks import house, scoring, skipping, training
from benchmarks.__main__ import KINDS, main


@dataclasses.dataclass
class Result:
    seconds: float


@pytest.mark.parametrize("module", [training, scoring, skipping], ids=lambda module: module.__name__)
def test_each_kind_by_its_name(module, monkeypatch, capsys, tmp_path):
    kind = module.__name__.rpartition(".")[2]
    asked = []

    def measured(**options):
        asked.append(options)
        return Result(1.5)

    monkeypatch.setattr(module, f"measure_{kind}", measured)
    monkeypatch.setattr(module, f"format_{kind}_benchmark", lambda result: f"{result.seconds} s")
    main([kind, "--device", "cpu", "--quick", "-o", str(tmp_path / "figures.json")])
    assert capsys.readouterr().out == "1.5 s\n"
    assert json.loads((tmp_path / "figures.json").read_text()) == {"seconds": 1.5}
    main([kind, "--device", "cpu"])
    assert asked == [{"device": "cpu", **module.QUICK}, {"device": "cpu"}]


def test_another_kind(capsys):
    with pytest.raises(SystemExit):
        main(["speed"])
    told = capsys.readouterr().err
    assert all(kind in told for kind in KINDS)


def test_figures_of_a_house_counted_by_hand(tmp_path, capsys):
    room = tmp_path / "monai_unetpp" / "room"
    room.mkdir(parents=True)
    (room / "a.py").write_text('"""Docstring."""\n\n# comment\nx = 1\n\n\ndef f(a, *, b):\n    return a\n')
    (tmp_path / "monai_unetpp" / "a.py").write_text("def g():\n" + "    pass\n" * 61)
    found = house.figures(tmp_path)
    expected = {
        "modules": "2",
        "lines": "70",
        "lines of code": "65",
        "functions": "2",
        "mean length of a function": "32.0",
        "functions over 60 lines": "1",
        "functions over 100 lines": "0",
        "longest function": "62 (a.py:1 g)",
        "most parameters": "2 (room/a.py:7 f)",
        "files over 600 lines": "0",
        "file names that recur": "a.py 2",
        "lines of the root": "62",
        "lines of room": "8",
    }
    assert found == expected
    house.main([str(tmp_path)])
    assert "| longest function | 62 (a.py:1 g) |" in capsys.readouterr().out

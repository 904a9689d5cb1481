"""The guide to pruning: its Python runs, its links lead somewhere, its options exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from forked import measure_briefly
from monai.bundle import ConfigParser
from tiny_pruning import REPOSITORY, make_prunable_bundle, write_boxes

from monai_unetpp import NestedUNet
from monai_unetpp.cli import make_parser
from monai_unetpp.pruning import read_report

GUIDE = REPOSITORY / "docs" / "pruning" / "README.md"
TEXT = GUIDE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_python_blocks_run(tmp_path, monkeypatch):
    make_prunable_bundle(tmp_path / "my_bundle")
    write_boxes(tmp_path / "my_data", 3)
    monkeypatch.chdir(tmp_path)
    measure_briefly(monkeypatch)
    assert len(BLOCKS) == 7
    names: dict = {"__name__": "guide"}
    for number, block in enumerate(BLOCKS, start=1):
        exec(compile(block, f"block {number} of {GUIDE.name}", "exec"), names)
    found = {folder: read_report(Path(folder) / "report.json") for folder in ("out", "own_network", "stages", "own")}
    assert found["stages"] == names["result"]
    # all ways from Python give the same scores
    values = [
        [(row.case, row.point, row.label, row.score) for row in found[folder].rows]
        for folder in ("out", "own_network", "stages")
    ]
    assert values[0] == values[1] == values[2]
    assert found["own"].costs == {}
    assert "chosen by hand" in (tmp_path / "my_bundle_L1" / "docs" / "README.md").read_text()
    assert [point.name for point in names["scores"].points] == ["L1", "L2", "L3", "L4"]
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        expected = names["converted"].forward_levels(x, ["L2"])["L2"]
        assert torch.equal(names["shallow"].eval()(x), expected)
    assert isinstance(names["shallow"], NestedUNet)


def test_links_lead_to_files():
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert {"STATISTICS.md", "REPORT.md"} <= set(links)
    assert all((GUIDE.parent / link.split("#")[0]).is_file() for link in links if not link.startswith("https:"))


def test_options_exist():
    actions = next(a for a in make_parser()._actions if a.choices and "prune" in a.choices).choices["prune"]._actions
    known = {option for action in actions for option in action.option_strings}
    command_line = TEXT.split("The same through MONAI")[0]
    used = set(re.findall(r"(?<![\w-])--[a-z_]+", command_line))
    assert len(used) > 8
    assert used <= known


@pytest.mark.parametrize("name", ["train.json", "prune.json"])
def test_configurations_that_it_names_exist(hippocampus_bundle, name):
    assert f"my_bundle/configs/{name}" in TEXT
    assert ConfigParser.load_config_file(hippocampus_bundle / "configs" / name)

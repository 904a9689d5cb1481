"""The notebooks in examples/ are run cell by cell, without Jupyter."""

import json
from pathlib import Path

import pytest
from forked import measure_briefly

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def read_cells(name):
    return json.loads((EXAMPLES / name).read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_kept_without_outputs(path):
    code = [cell for cell in read_cells(path.name) if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
def test_segment_look_prune(tmp_path, monkeypatch, capsys):
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="the notebook needs the extra 'report'")
    pyplot.switch_backend("agg")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # a process of its own for each level takes half a minute
    measure_briefly(monkeypatch)
    names = {"__name__": "notebook"}
    for cell in read_cells("segment_look_prune.ipynb"):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert len(names["summary"].cases) == 3
    assert names["summary"].failures == ()
    # three images with both contours each
    assert [len(axis.collections) for axis in names["figure"].axes] == [2, 2, 2]
    assert names["final"].verdict == "prune"
    assert names["final"].summary in capsys.readouterr().out
    assert (names["folder"] / "pruning" / "report.html").is_file()
    pyplot.close("all")

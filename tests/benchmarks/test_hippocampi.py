"""Hippocampi found in whole brains, beside manual labels."""

import json
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from benchmarks import hippocampi


@pytest.fixture
def data_set(tmp_path):
    truth = np.zeros((10, 4, 4), np.int16)
    truth[1:3], truth[7:9] = 17, 53
    nib.save(nib.Nifti1Image(truth, np.diag([2.0, 1, 1, 1])), tmp_path / "label.nii.gz")
    lists = {"brains": [{"image": str(tmp_path / "brain.nii.gz"), "label": str(tmp_path / "label.nii.gz")}]}
    (tmp_path / "dataset.json").write_text(json.dumps(lists))
    nib.save(nib.Nifti1Image(truth, np.eye(4)), tmp_path / "brain.nii.gz")
    return tmp_path


def stand_in(found, failures=()):
    """For ``segment_files``: label maps of its own, by the bundle that is run within another or alone."""

    def segment(images, folder, bundle, within=None):
        folder.mkdir(parents=True)
        cases = []
        for image in images:
            output = folder / "seg.nii.gz"
            nib.save(nib.Nifti1Image(found["chain" if within else "head"], np.diag([2.0, 1, 1, 1])), output)
            cases.append(SimpleNamespace(image=image, output=str(output)))
        return SimpleNamespace(cases=cases, failures=list(failures))

    return segment


@pytest.fixture
def found():
    chain, head = np.zeros((2, 10, 4, 4), np.uint8)
    chain[1], chain[2], chain[7], chain[8] = 1, 2, 3, 4
    head[1], head[7] = 13, 27
    return {"chain": chain, "head": head}


def test_each_side_is_compared_with_its_own_label(data_set, found, monkeypatch, capsys):
    monkeypatch.setattr(hippocampi, "segment_files", stand_in(found))
    assert hippocampi.main([str(data_set), str(data_set / "out")]) == 0
    rows = json.loads((data_set / "out" / "hippocampi.json").read_text())
    assert [(row["route"], row["side"]) for row in rows] == [
        ("chain", "left"),
        ("chain", "right"),
        ("head alone", "left"),
        ("head alone", "right"),
    ]
    assert [row["dice"] for row in rows] == pytest.approx([1, 1, 2 / 3, 2 / 3])
    assert [row["ml"] for row in rows] == pytest.approx([0.064, 0.064, 0.032, 0.032])
    assert all(row["manual_ml"] == pytest.approx(0.064) for row in rows)
    assert "chain: 2 hippocampi, mean Dice 1.000, least 1.000; 0.06 ml, manually 0.06 ml" in capsys.readouterr().out


def test_sides_that_are_exchanged_are_not_overlooked(data_set, found, monkeypatch):
    found["chain"] = found["chain"][::-1].copy()
    monkeypatch.setattr(hippocampi, "segment_files", stand_in(found))
    hippocampi.main([str(data_set), str(data_set / "out")])
    rows = json.loads((data_set / "out" / "hippocampi.json").read_text())
    assert [row["dice"] for row in rows[:2]] == [0, 0]


def test_a_case_that_failed_is_told(data_set, found, monkeypatch, capsys):
    monkeypatch.setattr(hippocampi, "segment_files", stand_in(found, ["brain.nii.gz: is broken"]))
    with pytest.raises(SystemExit):
        hippocampi.main([str(data_set), str(data_set / "out")])
    assert "brain.nii.gz: is broken" in capsys.readouterr().err

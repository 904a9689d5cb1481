"""The comparison with nnU-Net: its files, what it is asked, and the table; no nnU-Net is needed."""

import itertools
import json
import math
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmarks.nnunet import __main__ as command
from benchmarks.nnunet.comparison import Comparison, Contestant, compare, format_comparison
from benchmarks.nnunet.peer import NnUNet
from monai_unetpp.bundles import write_training_record
from monai_unetpp.data.datasets.datalist import load_datalist

LABEL = np.zeros((3, 4, 5), np.uint8)
LABEL[0], LABEL[1] = 4, 9
LABELS = {"near": 4, "far": 9}


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 1, 2, 1])), path)
    return str(path)


@pytest.fixture
def data_dir(tmp_path):
    """Two cases for training and two for validation, of two channels."""
    root, lists = tmp_path / "data", {}
    for offset, key in ((0, "training"), (100, "validation")):
        lists[key] = [
            {
                "image": [
                    save(root / f"{key}_{n}_{c}.nii.gz", np.float32(LABEL + c + 10 * n + offset)) for c in range(2)
                ],
                "label": save(root / "labels" / f"{key}_{n}.nii.gz", LABEL),
            }
            for n in range(2)
        ]
    content = {"name": "Two", "labels": {"0": "background", "4": "near", "9": "far"}, **lists}
    (root / "dataset.json").write_text(json.dumps({**content, "modality": {"0": "T1", "1": "T2"}}))
    return root


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """What would be run, with its environment; segmentations are the truth, or for nnU-Net the first label alone."""
    ran = []

    def run(command, env=None, check=False):
        ran.append((command, env))
        options = dict(itertools.pairwise(command))
        if "segment" in command:
            for name in ("unseen0000", "unseen0001"):
                save(Path(options["-o"]) / f"{name}_0000_seg.nii.gz", LABEL)
        if command[0].endswith("nnUNetv2_predict"):
            for name in ("unseen0000", "unseen0001"):
                save(Path(options["-o"]) / f"{name}.nii.gz", np.uint8(LABEL == 4))
        return subprocess.CompletedProcess(command, 3 if "train" in command else 0)

    monkeypatch.setattr(subprocess, "run", run)
    return ran


def test_nnunet_finds_the_cases_as_it_wants_them(data_dir, tmp_path):
    peer = NnUNet(Path("/env/bin/python"), tmp_path / "work", 3)
    cases = json.loads((data_dir / "dataset.json").read_text())["training"]
    peer.write_data(cases, LABELS, ["T1", "T2"])
    names = sorted(str(path.relative_to(peer.raw)) for path in peer.raw.rglob("*") if path.is_file())
    images = [f"imagesTr/case000{case}_000{channel}.nii.gz" for case in range(2) for channel in range(2)]
    assert names == ["dataset.json", *images, "labelsTr/case0000.nii.gz", "labelsTr/case0001.nii.gz"]
    written = nib.load(peer.raw / "labelsTr" / "case0001.nii.gz")
    assert np.array_equal(written.dataobj, np.select([LABEL == 4, LABEL == 9], [1, 2]))
    assert written.affine[2, 2] == 2
    assert np.array_equal(nib.load(peer.raw / images[1]).dataobj, LABEL + 1)
    assert json.loads((peer.raw / "dataset.json").read_text()) == {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "near": 1, "far": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }


def test_both_get_the_training_list_alone_and_are_scored_on_the_unseen_cases(data_dir, tmp_path, commands):
    work = tmp_path / "work"
    found = compare(data_dir, work, 5.0, Path("/env/bin/python"))
    assert found.cases == 2
    assert found.ours.dice == {"near": [1, 1], "far": [1, 1]}
    assert found.nnunet.dice == {"near": [1, 1], "far": [0, 0]}
    ours = json.loads((work / "ours" / "data" / "dataset.json").read_text())
    assert "validation" not in ours
    assert all("training_" in image for case in ours["training"] for image in case["image"])
    programs = [Path(command[0]).name for command, _ in commands if command[0].startswith("/env/bin")]
    assert programs == ["nnUNetv2_plan_and_preprocess", "nnUNetv2_train", "nnUNetv2_predict"]
    train, segment = (command for command, _ in commands if "monai_unetpp" in command)
    assert train[-2:] == ["--minutes", "5.0"]
    assert len([part for part in segment if "/unseen/" in part]) == 4
    environment = next(env for command, env in commands if command[0].endswith("nnUNetv2_train"))
    assert environment["nnUNet_raw"] == str(work / "nnunet" / "raw")
    assert "PYTHONPATH" not in environment
    assert 0 < float(environment["NNUNET_TRAINING_MINUTES"]) <= 5
    assert (Path(environment["nnUNet_extTrainer"]) / "minutes_trainer.py").is_file()


@pytest.fixture
def trained(tmp_path):
    """What the benchmark from data to bundle leaves, with the record of one training case."""

    def make(minutes, case):
        folder = tmp_path / "trained"
        (folder / "bundle" / "configs").mkdir(parents=True)
        (folder / "outcome.json").write_text(json.dumps({"minutes": minutes}))
        (folder / "bundle" / "configs" / "metadata.json").write_text("{}")
        write_training_record(folder / "bundle", training=[case], rule="last, averaged")
        return folder

    return make


def test_a_bundle_of_the_same_minutes_spares_a_second_training(data_dir, tmp_path, commands, trained):
    folder = trained(4.5, load_datalist(data_dir, "training")[0])
    found = compare(data_dir, tmp_path / "work", 5.0, Path("/env/bin/python"), folder)
    assert found.ours.training_minutes == 4.5
    assert found.ours.dice == {"near": [1, 1], "far": [1, 1]}
    (ours,) = (command for command, _ in commands if "monai_unetpp" in command)
    assert ours[3] == "segment"
    assert ours[ours.index("--bundle") + 1] == str(folder / "bundle")


def test_a_bundle_that_knows_an_unseen_case_or_took_longer_is_refused(data_dir, tmp_path, commands, trained):
    folder = trained(5.5, load_datalist(data_dir, "validation")[1])
    with pytest.raises(ValueError, match=r"took 5\.5 minutes\. Give at least as many"):
        compare(data_dir, tmp_path / "work", 5.0, Path("/env/bin/python"), folder)
    with pytest.raises(ValueError, match=r"validation_1_0.*was trained on it"):
        compare(data_dir, tmp_path / "work", 6.0, Path("/env/bin/python"), folder)
    assert not commands


def test_pictures_of_two_axes_take_the_2d_configuration(commands, tmp_path):
    NnUNet(Path("/env/bin/python"), tmp_path, 2).train(1.0)
    assert "2d" in commands[0][0]


def test_the_table_compares_the_cases_that_both_have_a_value_for(tmp_path, monkeypatch, capsys):
    ours = Contestant(5.1, 20.0, {"near": [0.9, 0.8, 0.7], "far": [0.5, math.nan, 0.7]})
    peer = Contestant(5.2, 30.0, {"near": [0.8, 0.8, 0.6], "far": [0.5, math.nan, 0.5]})
    result = Comparison("Two", 5.0, 3, ours, peer)
    text = format_comparison(result)
    assert text.startswith("`Two`, 3 unseen cases, 5 minutes for each; ")
    assert "5.1 and 5.2 minutes" in text
    assert "| near | 3 | 0.8000 | 0.7333 | +0.0667 | -0.0768 to +0.2101 |" in text
    assert "| far | 2 | 0.6000 | 0.5000 | +0.1000 | -1.1706 to +1.3706 |" in text
    assert "| mean | 3 | " in text
    monkeypatch.setattr(command, "compare", lambda *given: result)
    table = tmp_path / "table.md"
    assert command.main([str(tmp_path), "--python", "/p", "--work", str(tmp_path), "-o", str(table)]) == 0
    assert table.read_text() == capsys.readouterr().out

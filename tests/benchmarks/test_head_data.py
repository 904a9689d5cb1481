"""The data set of the head bundle: its lists, and the ranges that its guard knows."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks.head_data import main
from monai_unetpp.guard import TrainingRanges

BUNDLE = Path(__file__).parents[2] / "bundles" / "head_mri_unetpp"


def save(path, voxels):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1, 2, 1])), path)


def test_maps_train_and_brains_select_or_judge(tmp_path, capsys):
    for number in range(2):
        head = np.zeros((12, 12, 12), np.int16)
        head[1:11, 1:11, 1:11], head[2:10, 2:10, 2:10], head[3 : 8 + number, 4:8, 4:8] = 516, 24, 17
        save(tmp_path / "maps" / f"head_{number}.nii.gz", head)
    for name in ("a", "b"):
        save(tmp_path / "brains" / "imagesTr" / f"{name}.nii.gz", np.arange(64, dtype=np.int16).reshape(4, 4, 4))
        for folder in ("brains", "labels"):
            save(tmp_path / folder / "labelsTr" / f"{name}.nii.gz", np.full((4, 4, 4), 17, np.int16))
    lists = {
        key: [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}]
        for key, name in (("training", "a"), ("validation", "b"))
    }
    (tmp_path / "brains" / "dataset.json").write_text(json.dumps(lists))
    folders = [str(tmp_path / name) for name in ("maps", "brains", "labels", "out")]
    assert main([*folders, "--bundle", str(BUNDLE)]) == 0
    assert capsys.readouterr().out == "2 heads, 1 and 1 brains.\n"
    made = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert all(case["image"] == case["label"] for case in made["training"])
    assert made["validation"][0]["label"] == str(tmp_path / "labels" / "labelsTr" / "a.nii.gz")
    assert Path(made["test"][0]["image"]).name == "b.nii.gz"
    assert made["brains"] == made["validation"] + made["test"]
    ranges = TrainingRanges.from_dict(json.loads((tmp_path / "out" / "fingerprint.json").read_text())["ranges"])
    assert (ranges.cases, ranges.constant_surround) == (2, 0.5)
    assert ranges.size_mm == ((5.0, 10.0), (4.0, 10.0), (8.0, 20.0))
    assert ranges.volumes_ml["left hippocampus"] == (0.16, 0.192)
    assert ranges.volumes_ml["fluid"] == (0.0, 0.864)

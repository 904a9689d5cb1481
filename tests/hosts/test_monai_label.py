"""Bundles in MONAI Label: its own tasks segment with them and train them.

They run where ``monailabel`` is installed, which ``.ci/hosts`` does in an environment of its own.
"""

from __future__ import annotations

import json
import shutil
import types
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import monai_unetpp

infer = pytest.importorskip("monailabel.tasks.infer.bundle", reason="MONAI Label is not installed")
train = pytest.importorskip("monailabel.tasks.train.bundle", reason="MONAI Label is not installed")

# what the host's own code warns of is no fault of a bundle
pytestmark = pytest.mark.filterwarnings("default")

BUNDLES = ("head_mri_unetpp", "hippocampus_mri_unetpp", "brain_tissue_mri_unetpp")


@pytest.mark.parametrize("name", BUNDLES)
def test_the_labels_are_those_of_segment(name, hippocampus_bundle, decathlon_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bundle = hippocampus_bundle.with_name(name)
    task = infer.BundleInferTask(str(bundle), {})
    case = decathlon_dir / "imagesTr" / "case_4.nii.gz"
    result, _ = task({"image": str(case), "device": "cpu"})
    found = monai_unetpp.segment(case, bundle=bundle, device="cpu")
    written = nib.load(result)
    np.testing.assert_allclose(written.affine, found.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(written.dataobj), found.array)


def small_copy(bundle: Path, folder: Path) -> Path:
    """The bundle with patches that are trained on in seconds."""
    copy = shutil.copytree(bundle, folder / "bundle")
    path = copy / "configs" / "train.json"
    content = json.loads(path.read_text()) | {"patch_size": [16, 16, 16], "num_workers": 0, "precision": "fp32"}
    path.write_text(json.dumps(content))
    return copy


def test_each_round_of_training_writes_the_model_that_the_host_loads(hippocampus_bundle, decathlon_dir, tmp_path):
    bundle = small_copy(hippocampus_bundle, tmp_path)
    model = bundle / "models" / "model.pt"
    entries = json.loads((decathlon_dir / "dataset.json").read_text())["training"]
    cases = [{key: str(decathlon_dir / value) for key, value in entry.items()} for entry in entries]
    datastore = types.SimpleNamespace(datalist=lambda: cases)
    before = torch.load(model, weights_only=True)
    for _ in range(2):
        task = train.BundleTrainTask(str(bundle), {})
        task({"model": bundle.name, "device": "cpu", "max_epochs": 1, "val_split": 0.25}, datastore)
        after = torch.load(model, weights_only=True)
        assert any(not torch.equal(after[key], before[key]) for key in before)
        before = after
    assert [path.name for path in (bundle / "models").iterdir()] == ["model.pt"]
    assert not list((bundle / "training").glob("checkpoint*"))
    assert infer.BundleInferTask(str(bundle), {}).is_valid()

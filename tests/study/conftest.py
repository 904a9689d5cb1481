"""A 2D data set that whole studies run on within seconds."""

import json

import nibabel as nib
import numpy as np
import pytest

from monai_unetpp.study import run_study

_TINY = {
    "features": [2, 4, 4],
    "budget": 6,
    "batch_size": 2,
    "patch_size": 16,
    "checkpoint_steps": 2,
    "precision": "fp32",
    "device": "cpu",
}


@pytest.fixture(scope="session")
def discs_dir(tmp_path_factory):
    """Eight images of 32 x 32 pixels with a bright disc each, in Decathlon form: five for training, three to score."""
    root = tmp_path_factory.mktemp("discs")
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir()
    generator = np.random.default_rng(0)
    grid = np.moveaxis(np.indices((32, 32)), 0, -1)
    entries = []
    for number in range(8):
        label = (np.linalg.norm(grid - generator.uniform(10, 22, 2), axis=-1) < 7).astype(np.uint8)
        image = (100 * label + generator.normal(200, 20, label.shape)).astype(np.float32)
        name = f"disc_{number}.nii.gz"
        nib.save(nib.Nifti1Image(image, np.eye(4)), root / "imagesTr" / name)
        nib.save(nib.Nifti1Image(label, np.eye(4)), root / "labelsTr" / name)
        entries.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    content = {
        "name": "Discs",
        "labels": {"0": "background", "1": "disc"},
        "training": entries[:5],
        "validation": entries[5:],
    }
    (root / "dataset.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def tiny():
    """The settings of ``tiny_study``, as arguments of ``run_study``."""
    return dict(_TINY)


@pytest.fixture(scope="session")
def tiny_study(discs_dir, tmp_path_factory):
    """The folder of a finished study of three networks, and what ``run_study`` returned."""
    folder = tmp_path_factory.mktemp("study")
    outcome = run_study(discs_dir, folder, variants=["unet_L1", "unet_L2", "unet++_ds"], **_TINY)
    return folder, outcome

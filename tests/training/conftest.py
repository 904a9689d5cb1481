"""A tiny 2D data set, and trainings by the template on it."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.utils import set_determinism

from monai_unetpp.bundles import BundleConfig
from monai_unetpp.training import TEMPLATE

TINY = {
    "features": [2, 4, 4],
    "steps": 6,
    "batch_size": 2,
    "patch_size": [16, 16],
    "checkpoint_steps": 2,
    "precision": "fp32",
    "device": torch.device("cpu"),
}


@pytest.fixture(scope="session")
def discs_dir(tmp_path_factory):
    """Six images of 24 x 24 pixels with a bright disc each, in Decathlon form: four for training."""
    root = tmp_path_factory.mktemp("discs")
    generator = np.random.default_rng(0)
    grid = np.moveaxis(np.indices((24, 24)), 0, -1)
    entries = []
    for number in range(6):
        label = (np.linalg.norm(grid - generator.uniform(8, 16, 2), axis=-1) < 5).astype(np.uint8)
        image = (100 * label + generator.normal(200, 20, label.shape)).astype(np.float32)
        for kind, data in (("image", image), ("label", label)):
            nib.save(nib.Nifti1Image(data, np.eye(4)), root / f"{kind}_{number}.nii.gz")
        entries.append({"image": f"image_{number}.nii.gz", "label": f"label_{number}.nii.gz"})
    content = {"labels": {"0": "background", "1": "disc"}, "training": entries[:4], "validation": entries[4:]}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def train(discs_dir, tmp_path):
    """A function that trains by the template: name of the folder and values in, the configuration and folder out."""

    def run(name, **values):
        config = BundleConfig(TEMPLATE, "train.json")
        for key, value in {**TINY, "dataset_dir": str(discs_dir), "output_dir": str(tmp_path / name), **values}.items():
            config[key] = value
        config.parse("initialize")
        try:
            config.parse("run")
        finally:
            set_determinism(seed=None)
        return config, tmp_path / name

    return run

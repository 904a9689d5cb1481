"""A tiny 2D data set, and trainings by the template on it."""

import pytest
import torch
from disc_images import write_disc_images
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
    """Six images with a bright disc each: four for training."""
    return write_disc_images(tmp_path_factory.mktemp("discs"), training=4, validation=2)


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

"""A 2D data set that whole studies run on within seconds."""

import pytest
from disc_images import write_disc_images

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
    """Eight images with a bright disc each: five for training, three to score."""
    return write_disc_images(tmp_path_factory.mktemp("discs"), training=5, validation=3)


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

"""What of earlier runs is kept, and what of it is no longer true."""

import csv

import numpy as np
import pytest
from runner_bundle import write_image

from monai_unetpp.data import write_volume
from monai_unetpp.results import EarlierResults

SHAPE = (4, 5, 6)


@pytest.fixture
def image(tmp_path):
    return write_image(tmp_path / "a.nii.gz", SHAPE, surround=False)


def rows_of(folder):
    with (folder / "volumes.csv").open(newline="") as file:
        return [(row["case"], row["label"], row["voxels"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("folder", ["out", "/elsewhere/before/it/was/renamed"])
def test_a_result_of_another_level_is_known_however_its_folder_was_named(image, tmp_path, folder):
    output = tmp_path / "out" / "a_seg.nii.gz"
    write_volume(output, np.ones(SHAPE, np.uint8), image, np.eye(4))
    runs = [
        {"options": {"level": "L1"}, "cases": [{"case": "a", "output": f"{folder}/a_seg.nii.gz", "warnings": ["odd"]}]}
    ]
    same, other = (EarlierResults(runs, {"options": {"level": level}}) for level in ("L1", "L2"))
    assert same.has(image, output)
    assert same.warnings(output) == ("odd",)
    assert not other.has(image, output)

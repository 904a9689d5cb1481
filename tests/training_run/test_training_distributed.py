"""Two processes train and judge a bundle as one process does with twice the batch."""

from __future__ import annotations

import csv
import json
import runpy

import pytest
import torch
from disc_images import write_disc_images
from forked import draw_nothing, measure_briefly, run_forked
from json_edits import edit_json

from monai_unetpp import NestedUNet
from monai_unetpp.bundles import read_training_record
from monai_unetpp.planning import Machine, plan

# what each process of torchrun runs; the test runs its run() itself to compare
PROGRAM = """
import sys

from monai_unetpp.training_run import TrainOptions, train


def run(dataset_dir, bundle):
    return train(TrainOptions(dataset_dir, bundle, device="cpu"))


if __name__ == "__main__":
    run(*sys.argv[1:])
"""
# instance norm: batch norm would see one half of the batch in each process
SETTINGS = {
    "features": [4, 8, 8],
    "strides": [[2, 2], [2, 2]],
    "kernel_size": [[3, 3]] * 3,
    "patch_size": [16, 16],
    "window_shape": [24, 24],
    "norm": "instance",
    "compile": False,
    "num_workers": 0,
    "learning_rate": 0.02,
    "steps": 12,
}


@pytest.fixture(scope="module")
def discs_dir(tmp_path_factory):
    return write_disc_images(tmp_path_factory.mktemp("discs"), training=6, validation=4)


def planned(discs_dir, bundle, batch_size):
    """A bundle whose loss is a mean over samples, so that it does not matter which of them a process has."""
    settings = {**SETTINGS, "batch_size": batch_size}
    plan(discs_dir, bundle, settings=settings, device="cpu", measure=lambda *_: Machine(1e10, 2**30, 2, "cpu"))
    path = bundle / "configs" / "train.json"
    edit_json(path, lambda content: content["plain_loss"].update(batch=False), precision="fp32")
    return bundle


def scores(bundle):
    with (bundle / "pruning" / "per_case.csv").open(newline="") as file:
        return {(row["case"], row["point"], row["label"]): float(row["dice"]) for row in csv.DictReader(file)}


def outputs(bundle):
    """What every level makes of one image, as one vector."""
    network = NestedUNet.from_checkpoint(bundle / "models" / "model.pt").eval()
    image = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.cat([each.flatten() for each in network.forward_levels(image).values()])


@pytest.mark.slow
def test_two_processes_agree_with_one(discs_dir, tmp_path, monkeypatch):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    two = planned(discs_dir, tmp_path / "two", batch_size=2)
    done = run_forked(program, discs_dir, two, folder=tmp_path, processes=2, measures_and_draws=False)
    assert done.returncode == 0, done.stderr
    measure_briefly(monkeypatch)
    draw_nothing(monkeypatch)
    run = runpy.run_path(str(program))["run"]
    one = planned(discs_dir, tmp_path / "one", batch_size=4)
    outcome = run(discs_dir, one)
    found = json.loads((two / "training" / "outcome.json").read_text())
    assert (found["verdict"], found["level"], found["steps"]) == (outcome.verdict, outcome.level, 12)
    assert read_training_record(two) == read_training_record(one)
    torch.testing.assert_close(outputs(two), outputs(one), atol=1e-3, rtol=1e-3)
    assert scores(two) == pytest.approx(scores(one), abs=0.01)
    assert (
        "A training in 2 processes, each with batches of its own, with this number of `steps`"
        in (two / "docs" / "README.md").read_text()
    )
    assert "A training with this number of `steps`" in (one / "docs" / "README.md").read_text()

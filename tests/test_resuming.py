"""A training in epochs by a bundle's train.json that was interrupted, against one that was not."""

from __future__ import annotations

import pytest
import torch
from monai.bundle import ConfigParser

#: Crops of labels that small volumes have, and windows to score them in.
SMALL = {
    "patch_size": [16] * 3,
    "window_shape": [16] * 3,
    "train#synthesis#3#transforms#1#transforms#0#roi_size": [12] * 3,
}


def train(bundle, dataset_dir, folder, last_epoch, num_workers):
    """Train until ``last_epoch`` of two, on the schedule of all, and give the weights and the curves."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "train.json"))
    parser.update(
        {
            "bundle_root": str(bundle),
            "dataset_dir": str(dataset_dir),
            "output_dir": str(folder),
            "check_data": False,
            "epochs": 2,
            "batch_size": 2,
            "val_interval": 1,
            "precision": "fp32",
            "num_workers": num_workers,
            **SMALL,
            "passes_per_epoch": 1,
            "network_def#features": [2, 4, 4],
            "network_def#dropout": 0.2,
            "train#trainer#max_epochs": last_epoch,
            "lr_scheduler#t_total": 2,
            # no bars, no TensorBoard
            "train#handlers": parser["train"]["handlers"][:-3],
        }
    )
    parser.get_parsed_content("initialize")
    parser.get_parsed_content("run")
    workers = parser.get_parsed_content("train#dataloader")._iterator
    if workers is not None:
        # torch waits five seconds for each if it is the garbage collector that ends them
        workers._shutdown_workers()
    weights = parser.get_parsed_content("network").state_dict()
    return weights, (folder / "curves.csv").read_text()


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.slow
def test_the_weights_are_the_same_to_the_last_bit(head_bundle, heads_dir, num_workers, tmp_path):
    whole, curves = train(head_bundle, heads_dir, tmp_path / "whole", 2, num_workers)
    train(head_bundle, heads_dir, tmp_path / "parts", 1, num_workers)
    torch.manual_seed(99)  # a new process would have other numbers, too
    resumed, resumed_curves = train(head_bundle, heads_dir, tmp_path / "parts", 2, num_workers)
    assert resumed_curves == curves
    for key, value in whole.items():
        assert torch.equal(resumed[key], value), key


def test_epochs_have_different_random_numbers(head_bundle, heads_dir, tmp_path):
    parser = ConfigParser()
    parser.read_config(str(head_bundle / "configs" / "train.json"))
    parser.update({"dataset_dir": str(heads_dir), "output_dir": str(tmp_path), **SMALL})
    dataset = parser.get_parsed_content("train#dataset")
    drawn = []
    for seed in (1, 1, 2):
        dataset.set_seed(seed)
        drawn.append(dataset[0]["image"])
        # the second call of an epoch goes on where the first has stopped
        assert not torch.equal(dataset[0]["image"], drawn[-1])
        dataset.set_seed(0)
        dataset[0]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])

"""Makes a complete bundle with a tiny untrained 3D network, for tests that check, load or prune one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from monai_unetpp import NestedUNet

NETWORK = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "features": [4, 8, 8]}
_TENSOR = {
    "type": "image",
    "format": "magnitude",
    "num_channels": 1,
    "spatial_shape": [16, 16, 16],
    "dtype": "float32",
    "value_range": [],
}


def _load(keys: list[str]) -> dict[str, Any]:
    return {
        "_target_": "Compose",
        "transforms": [{"_target_": "LoadImaged", "keys": keys, "ensure_channel_first": True}],
    }


INFERENCE: dict[str, Any] = {
    "imports": ["$import pathlib"],
    "bundle_root": ".",
    "dataset_dir": "$@bundle_root + '/data'",
    "output_dir": "$@bundle_root + '/eval'",
    "level": "L2",
    "device": "cpu",
    "features": [4, 8, 8],
    "network_def": {"_target_": "monai_unetpp.NestedUNet", **NETWORK, "features": "@features"},
    "network": {
        "_target_": "monai_unetpp.bundles.load_network",
        "checkpoint": "$@bundle_root + '/models/model.pt'",
        "level": "@level",
        "network_def": "@network_def",
        "device": "@device",
    },
    "preprocessing": _load(["image"]),
    "dataset": {
        "_target_": "Dataset",
        "data": "$[{'image': str(path)} for path in sorted(pathlib.Path(@dataset_dir).glob('*.nii.gz'))]",
        "transform": "@preprocessing",
    },
    "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16], "overlap": 0.25},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {
                "_target_": "SaveImaged",
                "keys": "pred",
                "output_dir": "@output_dir",
                "output_postfix": "seg",
                "separate_folder": False,
                "print_log": False,
            },
        ],
    },
    "handlers": [{"_target_": "StatsHandler", "iteration_log": False}],
    "evaluator": {
        "_target_": "SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": "@dataloader",
        "network": "@network",
        "inferer": "@inferer",
        "postprocessing": "@postprocessing",
        "val_handlers": "@handlers",
    },
    "initialize": ["$monai.utils.set_determinism(seed=0)"],
    "run": ["$@evaluator.run()"],
}

TRAIN: dict[str, Any] = {
    "bundle_root": ".",
    "dataset_dir": "$@bundle_root + '/data'",
    "output_dir": "$@bundle_root + '/models'",
    "device": "cpu",
    "level": None,
    "val_interval": 1,
    "network_def": {"_target_": "monai_unetpp.NestedUNet", **NETWORK},
    "loss": {"_target_": "monai_unetpp.NestedDeepSupervisionLoss", "loss": {"_target_": "DiceLoss"}},
    "optimizer": {"_target_": "torch.optim.AdamW", "params": "$@network_def.parameters()"},
    "train": {
        "preprocessing": _load(["image", "label"]),
        "dataset": {"_target_": "Dataset", "data": [], "transform": "@train#preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@train#dataset"},
        "inferer": {"_target_": "SimpleInferer"},
        "handlers": [
            {"_target_": "ValidationHandler", "validator": "@validate#evaluator", "interval": "@val_interval"}
        ],
        "trainer": {
            "_target_": "SupervisedTrainer",
            "max_epochs": 1,
            "device": "@device",
            "train_data_loader": "@train#dataloader",
            "network": "@network_def",
            "optimizer": "@optimizer",
            "loss_function": "@loss",
            "inferer": "@train#inferer",
            "train_handlers": "@train#handlers",
        },
    },
    "validate": {
        "preprocessing": _load(["image", "label"]),
        "dataset": {"_target_": "Dataset", "data": [], "transform": "@validate#preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@validate#dataset"},
        "inferer": {"_target_": "SimpleInferer"},
        "handlers": [{"_target_": "StatsHandler"}],
        "key_metric": {"val_mean_dice": {"_target_": "MeanDice"}},
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@validate#dataloader",
            "network": "@network_def",
            "inferer": "@validate#inferer",
            "key_val_metric": "@validate#key_metric",
            "val_handlers": "@validate#handlers",
        },
    },
    "run": ["$@train#trainer.run()"],
}

METADATA: dict[str, Any] = {
    "schema": "https://example.org/schema.json",
    "version": "1.2.3",
    "changelog": {"1.2.3": "first version"},
    "monai_version": "1.6.1",
    "pytorch_version": "2.13.0",
    "numpy_version": "2.4.6",
    "required_packages_version": {"monai-unetpp": "0.1.0"},
    "name": "Tiny",
    "task": "Testing",
    "description": "A network without training.",
    "authors": "Nobody",
    "copyright": "None",
    "eval_metrics": {"dice": 0.9},
    "network_data_format": {
        "inputs": {"image": _TENSOR},
        "outputs": {"pred": {**_TENSOR, "format": "segmentation", "num_channels": 3}},
    },
}

LOGGING = """[loggers]
keys=root
[handlers]
keys=
[formatters]
keys=
[logger_root]
level=WARNING
handlers=
"""


def make_tiny_bundle(root: Path) -> Path:
    """Write the bundle to the new folder ``root``."""
    for folder in ("configs", "docs", "models"):
        (root / folder).mkdir(parents=True)
    for name, content in (
        ("inference", INFERENCE),
        ("train", TRAIN),
        ("evaluate", {"output_dir": "$@bundle_root + '/eval'"}),
        ("prune", {"margin": 0.01}),
        ("metadata", METADATA),
    ):
        (root / "configs" / f"{name}.json").write_text(json.dumps(content, indent=4), encoding="utf-8")
    (root / "configs" / "logging.conf").write_text(LOGGING, encoding="utf-8")
    (root / "docs" / "README.md").write_text("# Tiny\n\nA network without training.\n", encoding="utf-8")
    (root / "docs" / "data_license.txt").write_text("CC0\n", encoding="utf-8")
    (root / "LICENSE").write_text("Apache-2.0\n", encoding="utf-8")
    torch.manual_seed(0)
    torch.save(NestedUNet(**NETWORK).state_dict(), root / "models" / "model.pt")
    return root

"""Bundles without training whose inferers look at intensities and places, so that what a chain must give is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from monai.inferers import Inferer

from monai_unetpp import NestedUNet

CONFIGS = Path(__file__).resolve().parents[2] / "bundles" / "hippocampus_mri_unetpp" / "configs"
TINY: dict[str, Any] = {"spatial_dims": 3, "in_channels": 1, "features": [2, 2], "strides": [1]}

#: What the inferer of the second bundle was shown, the newest last.
SHOWN: list[torch.Tensor] = []


class ByIntensity(Inferer):
    """The label of a voxel is its intensity in hundreds."""

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return torch.round(inputs / 100).to(torch.uint8)


class ByPlace(Inferer):
    """Of what is bright, 1 is the part on the side of the first axis where indices are low, and 2 the other."""

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        SHOWN.append(inputs.clone())
        bright = inputs > 50
        places = torch.nonzero(bright)[:, 2].float()
        index = torch.arange(inputs.shape[2]).reshape(1, 1, -1, 1, 1)
        return torch.where(bright, torch.where(index < places.mean(), 1, 2), 0).to(torch.uint8)


def make_bundle(root: Path, inferer: str, labels: list[str], **metadata: Any) -> Path:
    """Write a bundle to the new folder ``root``."""
    (root / "configs").mkdir(parents=True)
    (root / "models").mkdir()
    network = {**TINY, "out_channels": len(labels) + 1}
    inference = json.loads((CONFIGS / "inference.json").read_text(encoding="utf-8"))
    steps = inference["preprocessing"]["transforms"]
    inference["preprocessing"]["transforms"] = [
        step
        for step in steps
        if step["_target_"] in ("LoadImaged", "EnsureChannelFirstd", "Orientationd", "EnsureTyped")
    ]
    inference |= {"level": None, "network_def": {"_target_": "monai_unetpp.NestedUNet", **network}}
    inference["inferer"] = {"_target_": f"chained_bundles.{inferer}"}
    content = json.loads((CONFIGS / "metadata.json").read_text(encoding="utf-8"))
    content["network_data_format"]["outputs"]["pred"]["channel_def"] = dict(enumerate(["background", *labels]))
    for key in ("label_codes", "labels", "sha256", "within"):
        content.pop(key, None)
    content.update(metadata)
    for name, entries in (("inference", inference), ("metadata", content)):
        (root / "configs" / f"{name}.json").write_text(json.dumps(entries), encoding="utf-8")
    torch.save(NestedUNet(**network).state_dict(), root / "models" / "model.pt")
    return root

"""Makes a bundle with a tiny untrained network for ``segment`` and the runner, and images for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

from monai_unetpp import NestedUNet


def write_bundle(
    root: Path,
    dims: int,
    steps: list[Any],
    clear: bool = False,
    smooth: bool = False,
    values: tuple[int, ...] = (),
    **windows: Any,
) -> Path:
    """A bundle whose network is untrained, with batch norm, which does not mind what else is in a window."""
    network = {"spatial_dims": dims, "in_channels": 1, "out_channels": 3, "features": [4, 8, 8], "norm": "batch"}
    reader = {"_target_": "monai_unetpp.data.VolumeReader", "spatial_dims": [2, 3] if dims == 2 else 3}
    load = {"_target_": "LoadImaged", "keys": "image", "reader": reader, "ensure_channel_first": True}
    inferer = {"_target_": "monai_unetpp.inferers.NestedSlidingWindowInferer", "roi_size": "@window_shape"}
    inferer |= {"output": "labels", "runtime": "openvino", "precision": "@precision", **windows}
    if dims == 2:
        inferer = {"_target_": "monai_unetpp.inferers.SlicewiseInferer", "inferer": inferer}
    post = [{"_target_": "monai_unetpp.data.ClearBackgroundd", "keys": "pred"}] if clear else []
    post.append({"_target_": "Invertd", "keys": "pred", "orig_keys": "image", "transform": "@preprocessing"})
    post[-1] |= {"nearest_interp": True, "to_tensor": True}
    if smooth:
        inferer["output"] = "logits"
        inversion = {"_target_": "monai_unetpp.data.InvertProbabilitiesd", "keys": "pred", "orig_keys": "image"}
        post[-1] = inversion | {"transform": "@preprocessing"}
    if values:
        mapping = {"_target_": "MapLabelValued", "keys": "pred", "orig_labels": [1, 2], "target_labels": [*values]}
        post.append(mapping | {"dtype": "$torch.int32"})
    save = {"_target_": "monai_unetpp.data.SegmentationSaveImaged", "keys": "pred", "output_dir": "@output_dir"}
    cases = {"_target_": "monai_unetpp.data.find_cases", "input": "@input", "pictures": dims == 2}
    config = {
        "input": "",
        "output_dir": "",
        "overwrite": False,
        "level": None,
        "device": "cpu",
        "precision": "fp32",
        "window_shape": [16] * dims,
        "overlap": 0.25,
        "flips": [],
        "network_def": {"_target_": "monai_unetpp.NestedUNet", **network},
        "network": {"_target_": "monai_unetpp.bundles.load_network", "checkpoint": str(root / "models" / "model.pt")}
        | {"level": "@level", "network_def": "@network_def"},
        "preprocessing": {"_target_": "Compose", "transforms": [load, *steps]},
        "dataset": {"_target_": "monai_unetpp.data.CaseDataset", "data": cases, "transform": "@preprocessing"},
        "dataloader": {"_target_": "ThreadDataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": inferer,
        "postprocessing": {"_target_": "Compose", "transforms": [*post, save]},
        "evaluator": {"_target_": "monai_unetpp.engines.CaseEvaluator", "device": "@device"}
        | {"val_data_loader": "@dataloader", "network": "@network", "inferer": "@inferer"}
        | {"postprocessing": "@postprocessing"},
    }
    shape = {"image": {"spatial_shape": [16] * dims}}
    names = {"0": "background", "1": "one", "2": "two"}
    metadata = {"network_data_format": {"inputs": shape, "outputs": {"pred": {"channel_def": names}}}}
    (root / "configs").mkdir(parents=True)
    (root / "models").mkdir()
    (root / "configs" / "inference.json").write_text(json.dumps(config))
    (root / "configs" / "metadata.json").write_text(json.dumps(metadata))
    torch.manual_seed(0)
    net = NestedUNet(**network)
    for _ in range(3):  # so that batch norm has statistics of its own
        net(torch.randn(2, 1, *[16] * dims))
    torch.save({"state_dict": net.state_dict(), "config": net.config}, root / "models" / "model.pt")
    return root


def write_image(path: Path, shape: tuple[int, ...], surround: bool = True) -> Path:
    rng = np.random.default_rng(1)
    voxels = rng.normal(100, 20, shape).astype(np.float32)
    if surround:
        inside = np.zeros(shape, dtype=bool)
        inside[tuple(slice(4, size - 3) for size in shape)] = True
        voxels[~inside] = -5
    affine = np.array([[0, -1.1, 0.1, 3], [1.0, 0, 0, 5], [0, -0.1, 1.1, -4], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path

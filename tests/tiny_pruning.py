"""Data sets, a network and a bundle that the whole path of pruning runs on within seconds."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.inferers import SlidingWindowInferer
from monai.transforms import AsDiscreted, Compose, Invertd, LoadImaged, NormalizeIntensityd, Orientationd
from tiny_bundle import NETWORK, TRAIN, make_tiny_bundle

from monai_unetpp import NestedUNet
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.pruning import PruningPlan, prune
from monai_unetpp.pruning.results import PointCost, PruningResult

REPOSITORY = Path(__file__).resolve().parents[1]
LABELS = {"anterior": 1, "posterior": 2}
SHAPE = (16, 16, 16)


def write_boxes(root: Path, count: int, seed: int = 0) -> Path:
    """A data set in Decathlon form: two neighbouring boxes in each case, brighter than the noise around them."""
    generator = np.random.default_rng(seed)
    entries = []
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        image, label = _boxes(generator)
        name = f"case_{number:02d}.nii.gz"
        for folder, voxels in (("imagesTr", image), ("labelsTr", label)):
            nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.0, 1.2, 1.5, 1.0])), root / folder / name)
        entries.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    (root / "dataset.json").write_text(json.dumps({"training": entries, "validation": entries}))
    return root


def _boxes(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    label = np.zeros(SHAPE, np.uint8)
    x, y, z = generator.integers(2, 5, 3)
    label[x : x + 5, y : y + 8, z : z + 8] = 1
    label[x + 5 : x + 9, y : y + 8, z : z + 8] = 2
    return (100 * label + generator.normal(200, 5, SHAPE)).astype(np.float32), label


@functools.cache
def _weights() -> dict[str, torch.Tensor]:
    """Every node of the first row passes the intensity on, and every head cuts it between the means of the classes."""
    network = NestedUNet(**NETWORK).eval()
    image, label = _boxes(np.random.default_rng(100))
    x = torch.from_numpy((image - image.mean()) / image.std())[None, None]
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "adn.N.weight" not in name:
                parameter.zero_()
            if ".x_0_" in name and name.endswith("conv.weight"):
                parameter[0, ::4, 1, 1, 1] = 1.0
        for level in network.levels:
            features = []
            hook = network.heads[level].register_forward_pre_hook(lambda _, args, kept=features: kept.append(args[0]))
            network.forward_levels(x, [level])
            hook.remove()
            means = [float(features[0][0, 0][torch.from_numpy(label == value)].mean()) for value in range(3)]
            # three lines over the feature that cross half-way between the means of neighbouring classes
            low, high = (means[0] + means[1]) / 2, (means[1] + means[2]) / 2
            network.heads[level].weight[:, 0] = torch.tensor([0.0, 1.0, 2.0]).reshape(-1, 1, 1, 1)
            network.heads[level].bias.copy_(torch.tensor([0.0, -low, -low - high]))
    return network.state_dict()


def intensity_network() -> NestedUNet:
    """A network whose levels L1 and L2 both find the boxes, without a single wrong voxel."""
    network = NestedUNet(**NETWORK)
    network.load_state_dict(_weights())
    return network.eval()


def half_blind_network() -> NestedUNet:
    """The same, but that L1 finds nothing at all."""
    network = intensity_network()
    with torch.no_grad():
        network.heads["L1"].weight.zero_()
        network.heads["L1"].bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    return network


def make_pipeline(overlap: float = 0.25) -> dict[str, Any]:
    """Transforms and inferer of the boxes, as arguments of ``prune`` and ``evaluate_levels``."""
    preprocessing = Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            Orientationd("image", axcodes="RAS", labels=None),
            NormalizeIntensityd("image"),
        ]
    )
    invert = Invertd("pred", preprocessing, orig_keys="image", nearest_interp=True)
    return {
        "preprocessing": preprocessing,
        "inferer": SlidingWindowInferer(SHAPE, overlap=overlap),
        "postprocessing": Compose([AsDiscreted("pred", argmax=True), invert]),
    }


def prune_boxes(network: NestedUNet, dataset_dir: Any, output_dir: Path, **settings: Any) -> PruningResult:
    """Prune with the pipeline of the boxes, and with other fields of the plan where they are given."""
    defaults = {
        **make_pipeline(),
        "labels": LABELS,
        "tolerance_mm": dict.fromkeys(LABELS, 1.0),
        "window_shape": SHAPE,
        "bootstrap_samples": 200,
        "repeats": 1,
        "progress": False,
    }
    fields = {"network": network, "dataset_dir": dataset_dir, "output_dir": output_dir}
    return prune(PruningPlan.of(**(defaults | fields | settings)))


def fake_costs(networks: Any, window_shape: Any, volume_shape: Any, *_: Any, **__: Any) -> dict[str, PointCost]:
    """Costs that grow with the level, in place of ``measure_costs``."""
    return {
        name: PointCost(
            name, 10**rank, 10**rank, 100, *[Quartiles(rank, rank, rank, 1)] * 2, 5, tuple(window_shape), volume_shape
        )
        for rank, name in enumerate(networks, start=1)
    }


def break_label(folder: Path) -> None:
    """Give the second case a label that nobody named."""
    path = folder / "labelsTr" / "case_01.nii.gz"
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.full(SHAPE, 7, np.uint8), image.affine), path)


def prune_config() -> dict[str, Any]:
    """The ``prune.json`` of planned bundles, with all that their plan says written out."""
    template = REPOSITORY / "monai_unetpp" / "planning" / "template" / "configs" / "prune.json"
    config: dict[str, Any] = json.loads(template.read_text(encoding="utf-8"))
    invert = {"_target_": "Invertd", "keys": "pred", "orig_keys": "@image", "transform": "@preprocessing"}
    transforms = [
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {**invert, "nearest_interp": True, "to_tensor": True},
    ]
    config |= {"precision": "fp32", "postprocessing": {"_target_": "Compose", "transforms": transforms}}
    tolerance_mm = dict.fromkeys(LABELS, 1.0)
    config["plan"] |= {"title": "hippocampus_mri_unetpp", "labels": LABELS, "tolerance_mm": tolerance_mm}
    config["plan"] |= {"repeats": 1, "bootstrap_samples": 200}
    for key in ("subjects", "subject_pattern", "subjects_of"):
        del config["plan"][key]
    del config["planned"]
    return config


def make_prunable_bundle(root: Path, network: NestedUNet | None = None) -> Path:
    """The tiny bundle with :func:`prune_config`, and a network that finds the boxes."""
    make_tiny_bundle(root)
    torch.save((intensity_network() if network is None else network).state_dict(), root / "models" / "model.pt")
    train = copy.deepcopy(TRAIN) | {
        "seed": 0,
        "window_shape": list(SHAPE),
        "precision": "auto",
        "image": "image",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
                {"_target_": "NormalizeIntensityd", "keys": "image"},
            ],
        },
    }
    train["validate"]["inferer"] = {
        "_target_": "monai_unetpp.inferers.PrecisionInferer",
        "precision": "@precision",
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": "@window_shape"},
    }
    for name, content in (("train", train), ("prune", prune_config())):
        (root / "configs" / f"{name}.json").write_text(json.dumps(content, indent=4), encoding="utf-8")
    return root

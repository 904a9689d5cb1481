"""A bundle's way from file to file in MONAI's own parts, as a configuration for ``python -m monai.bundle run``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from monai_unetpp.benchmark.contenders import has_form_of_monai, norm_for_monai
from monai_unetpp.bundles import read_network_def
from monai_unetpp.bundles.json_files import read_object

#: MONAI's transforms for those of this package; None where there is none, and without the arguments that it lacks.
_TRANSFORMS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "LevelSurroundd": (None, ()),
    "BlockwiseSpacingd": ("Spacingd", ("pixdim", "mode", "padding_mode", "diagonal")),
    "CropBackgroundd": ("CropForegroundd", ("source_key", "margin", "allow_smaller")),
    "StandardizeIntensityd": ("NormalizeIntensityd", ()),
}
_EXTRA = {"NormalizeIntensityd": {"nonzero": True}}
_OURS = "monai_unetpp."


class MonaiRoute(NamedTuple):
    """The command that runs the configuration, and the name of the network in it."""

    command: list[str]
    network: str


def write_monai_route(
    bundle: Path, image: Path, folder: Path, program: list[str], window_shape: Sequence[int] | None = None
) -> MonaiRoute:
    """Write the configuration for one image, with a network of the same features and windows of the same kind.

    The network is ``BasicUNetPlusPlus`` with random weights where that can have the features of the bundle, else the
    bundle's own in PyTorch. Norm and overlap are the bundle's, and there are no flips.

    Args:
        bundle: folder of the bundle.
        image: NIfTI file.
        folder: where the configuration and the result go.
        program: of Python, such as ``["python"]``.
        window_shape: of the windows; by default the bundle's.

    Raises:
        ValueError: a transform that has no counterpart.
    """
    config = read_object(bundle / "configs" / "inference.json")
    network, initialize = _network(bundle, folder)
    steps = [step for given in config["preprocessing"]["transforms"] if (step := step_in_monai(given)) is not None]
    written = {
        # what the transforms may refer to, such as spacing_mm
        **{key: value for key, value in config.items() if isinstance(value, (int, float, list))},
        "imports": ["$import torch"],
        "image": "image",
        "device": "$torch.device('cpu')",
        "network": network,
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "dataset": {"_target_": "Dataset", "data": [{"image": str(image)}], "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": config["window_shape"] if window_shape is None else list(window_shape),
            "sw_batch_size": 4,
            "overlap": config["overlap"],
            "mode": "gaussian",
        },
        "postprocessing": {"_target_": "Compose", "transforms": _postprocessing(folder)},
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "initialize": initialize,
        "run": ["$@evaluator.run()"],
    }
    path = folder / "monai.json"
    path.write_text(json.dumps(written, indent=2), encoding="utf-8")
    command = [*program, "-m", "monai.bundle", "run", "--config_file", str(path), "--bundle_root", str(folder)]
    return MonaiRoute(command, network["_target_"].rpartition(".")[2])


def _network(bundle: Path, folder: Path) -> tuple[dict[str, Any], list[str]]:
    described = read_network_def(bundle)
    features = tuple(described["features"])
    if not has_form_of_monai(features):
        checkpoint = {"checkpoint": str(bundle / "models" / "model.pt"), "network_def": described}
        return {"_target_": "monai_unetpp.bundles.load_network", **checkpoint}, []
    from monai.networks.nets import BasicUNetPlusPlus

    sizes = {name: described[name] for name in ("spatial_dims", "in_channels", "out_channels")}
    # its last node has as many channels as its first, as in ours
    options = {**sizes, "features": [*features, features[0]], "deep_supervision": False, **norm_for_monai(described)}
    weights = folder / "basic_unetplusplus.pt"
    torch.manual_seed(0)
    torch.save(BasicUNetPlusPlus(**options).state_dict(), weights)
    loaded = f"$@network.load_state_dict(torch.load({str(weights)!r}, weights_only=True))"
    return {"_target_": "BasicUNetPlusPlus", **options}, [loaded]


def step_in_monai(step: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration of a transform with MONAI's own; None if MONAI's route does without it.

    Raises:
        ValueError: MONAI has no such transform.
    """
    name = step["_target_"].rpartition(".")[2]
    if name == "LoadImaged":
        return {key: value for key, value in step.items() if key != "reader"}
    if not step["_target_"].startswith(_OURS):
        return {**step, "device": "@device"} if "device" in step else dict(step)
    if name not in _TRANSFORMS:
        raise ValueError(f"{name}: MONAI has no such transform. Take a bundle without it.")
    target, known = _TRANSFORMS[name]
    if target is None:
        return None
    arguments = {key: value for key, value in step.items() if key in ("keys", *known)}
    return {"_target_": target, **arguments, **_EXTRA.get(target, {})}


def _postprocessing(folder: Path) -> list[dict[str, Any]]:
    invert = {"_target_": "Invertd", "keys": "pred", "orig_keys": "image", "transform": "@preprocessing"}
    save = {"_target_": "SaveImaged", "keys": "pred", "output_dir": str(folder / "monai"), "separate_folder": False}
    return [
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {**invert, "nearest_interp": True, "to_tensor": True},
        {**save, "output_postfix": "seg", "output_dtype": "$__import__('numpy').uint8"},
    ]

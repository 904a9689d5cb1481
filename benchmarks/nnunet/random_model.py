"""Write a model folder of nnU-Net v2 with random weights: ``NNUNET_PYTHON random_model.py FOLDER DESCRIPTION``.

For timing its predictor without a training. It runs in nnU-Net's environment and imports nothing of this package.
``DESCRIPTION`` is JSON: ``features``, ``patch_size``, ``spacing``, ``in_channels`` and ``out_channels``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_CONFIGURATION = "3d_fullres"


def write_model(folder: Path, features: list[int], patch_size: list[int], **sizes: Any) -> None:
    """Write plans, data set and weights of a plain U-Net with two convolutions per stage, and its size.

    Args:
        folder: what ``nnUNetv2_predict_from_modelfolder -m`` takes.
        features: channels per resolution.
        patch_size: of the windows.
        **sizes: ``spacing`` in mm, ``in_channels`` and ``out_channels``.
    """
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    channels, classes = sizes["in_channels"], sizes["out_channels"]
    plans = _plans(features, patch_size, sizes["spacing"], channels)
    architecture = plans["configurations"][_CONFIGURATION]["architecture"]
    torch.manual_seed(0)
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        channels,
        classes,
        deep_supervision=False,
    )
    labels = {"background": 0, **{f"label {value}": value for value in range(1, classes)}}
    names = {str(number): "MRI" for number in range(channels)}
    data = {"channel_names": names, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(data), encoding="utf-8")
    trained = {
        "network_weights": network.state_dict(),
        "init_args": {"configuration": _CONFIGURATION},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(trained, folder / "fold_0" / "checkpoint_final.pth")
    count = sum(weights.numel() for weights in network.parameters())
    (folder / "parameters.json").write_text(json.dumps(count), encoding="utf-8")


def _plans(features: list[int], patch_size: list[int], spacing: list[float], channels: int) -> dict[str, Any]:
    stages = len(features)
    resampling: dict[str, Any] = {}
    for name, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        resampling[f"resampling_fn_{name}"] = "resample_data_or_seg_to_shape"
        options = {"is_seg": name == "seg", "order": order, "order_z": 0, "force_separate_z": None}
        resampling[f"resampling_fn_{name}_kwargs"] = options
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": features,
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [[1, 1, 1], *[[2, 2, 2]] * (stages - 1)],
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    configuration = {
        "data_identifier": "benchmark",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": patch_size,
        "median_image_size_in_voxels": patch_size,
        "spacing": spacing,
        "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [True] * channels,
        "batch_dice": False,
        "architecture": architecture,
        **resampling,
    }
    return {
        "dataset_name": "Dataset501_Benchmark",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": patch_size,
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(number): {} for number in range(channels)},
        "configurations": {_CONFIGURATION: configuration},
    }


if __name__ == "__main__":
    write_model(Path(sys.argv[1]), **json.loads(sys.argv[2]))

"""nnU-Net v2 in an environment of its own: plan, preprocess, train for some minutes, predict."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from monai_unetpp.data.formats.reader import read_label_map

_NUMBER, _NAME = 501, "Dataset501_Benchmark"
_TRAINER = "nnUNetTrainerMinutes"
_ENDING = ".nii.gz"


class NnUNet:
    """nnU-Net with folders of its own.

    Args:
        python: interpreter of an environment with ``nnunetv2``; its programs are in the same folder.
        work: folder for raw, preprocessed and trained things.
        spatial_dims: 2 or 3.
    """

    def __init__(self, python: Path, work: Path, spatial_dims: int) -> None:
        self.programs = python.parent
        self.work = work
        self.configuration = "2d" if spatial_dims == 2 else "3d_fullres"
        self.raw = work / "raw" / _NAME

    def write_data(
        self, cases: Sequence[Mapping[str, Any]], labels: Mapping[str, int], channels: Sequence[str]
    ) -> None:
        """Lay the training cases out as nnU-Net wants them, with labels numbered from 1 on."""
        numbers = {value: number for number, value in enumerate(labels.values(), start=1)}
        for index, case in enumerate(cases):
            name = f"case{index:04d}"
            link_channels(self.raw / "imagesTr", name, case["image"])
            label = read_label_map(Path(case["label"]))
            voxels = label.data
            renamed = np.zeros(voxels.shape, np.uint8)
            for value, number in numbers.items():
                renamed[voxels == value] = number
            (self.raw / "labelsTr").mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(renamed, label.affine), self.raw / "labelsTr" / (name + _ENDING))
        content = {
            "channel_names": {str(number): name for number, name in enumerate(channels)},
            "labels": {"background": 0, **{name: numbers[value] for name, value in labels.items()}},
            "numTraining": len(cases),
            "file_ending": _ENDING,
        }
        (self.raw / "dataset.json").write_text(json.dumps(content, indent=2), encoding="utf-8")

    def train(self, minutes: float) -> float:
        """Plan, preprocess and train within ``minutes`` in all; returns the minutes that it took."""
        start = time.monotonic()
        self._run(
            "nnUNetv2_plan_and_preprocess", "-d", str(_NUMBER), "-c", self.configuration, "-np", "2", "-npfp", "2"
        )
        left = minutes - (time.monotonic() - start) / 60
        arguments = [str(_NUMBER), self.configuration, "all", "-tr", _TRAINER, "-device", "cpu"]
        self._run("nnUNetv2_train", *arguments, NNUNET_TRAINING_MINUTES=str(left))
        return (time.monotonic() - start) / 60

    def predict(self, images: Mapping[str, Any], output: Path) -> float:
        """Segment cases by name, with nnU-Net's test-time flips; returns the seconds that it took."""
        for name, image in images.items():
            link_channels(self.work / "unseen", name, image)
        start = time.monotonic()
        arguments = ["-i", str(self.work / "unseen"), "-o", str(output), "-d", str(_NUMBER), "-c", self.configuration]
        options = ["-f", "all", "-tr", _TRAINER, "-device", "cpu", "-npp", "1", "-nps", "1"]
        self._run("nnUNetv2_predict", *arguments, *options)
        return time.monotonic() - start

    def _run(self, program: str, *arguments: str, **variables: str) -> None:
        folders = {f"nnUNet_{name}": str(self.work / name) for name in ("raw", "preprocessed", "results")}
        trainer = str(Path(__file__).with_name("trainer"))
        # nnU-Net's loaders are processes: two of them for two cores, and no compilation that would cost its minutes
        settings = {"nnUNet_extTrainer": trainer, "nnUNet_n_proc_DA": "2", "nnUNet_compile": "f"}
        environment = {**os.environ, **folders, **settings, **variables}
        environment.pop("PYTHONPATH", None)
        subprocess.run([str(self.programs / program), *arguments], env=environment, check=True)


def link_channels(folder: Path, name: str, image: Any) -> None:
    """Name the files of a case, one for each channel, as nnU-Net does."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(image if isinstance(image, list) else [image]):
        target = folder / f"{name}_{number:04d}{_ENDING}"
        if str(file).endswith(_ENDING):
            shutil.copyfile(file, target)
        else:
            nib.save(nib.load(file), target)

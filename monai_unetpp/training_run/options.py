"""What a whole training is asked for. Importing this module takes no torch."""

from __future__ import annotations

import dataclasses
from os import fspath
from pathlib import Path

from monai_unetpp.choices import DEVICE_HELP
from monai_unetpp.options import option

__all__ = ["TrainOptions"]


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """From which data to train which bundle.

    Attributes:
        dataset_dir: folder with labelled images.
        output: folder of the bundle. One that ``monai-unetpp plan`` wrote is trained as it is.
        minutes: for everything: planning, training, verdict and report.
        folds: 3 or 5 trainings more, so that every case is scored by a network that never saw its subject.
        init: bundle or checkpoint whose weights to begin with, as far as they fit.
        settings: values of the plan set by hand, such as ``("batch_size=4",)``.
        device: such as ``"cpu"``; by default a GPU if there is one.
    """

    dataset_dir: Path = option(
        flags=("dataset_dir", "-i", "--input", "--dataset_dir"),
        metavar="DATASET_DIR",
        help="folder with labelled images: dataset.json in Decathlon or nnU-Net form, or images/ and labels/",
    )
    output: Path = option(
        flags=("-o", "--output", "--output_dir"), metavar="BUNDLE", help="folder of the bundle that is made"
    )
    minutes: float | None = option(
        None, type=float, metavar="M", help="time for everything, in minutes (default: that of the plan, else 60)"
    )
    folds: int | None = option(
        None,
        type=int,
        choices=(0, 3, 5),
        help="train so many times more, so that all cases judge the levels (default: that of the plan, else 0)",
    )
    init: str | None = option(None, metavar="BUNDLE_OR_FILE", help="begin with these weights, as far as they fit")
    settings: tuple[str, ...] = option(
        (),
        flags=("--set",),
        action="append",
        metavar="NAME=VALUE",
        help="set a value of the plan by hand, such as batch_size=4; repeatable",
    )
    device: str | None = option(None, metavar="DEVICE", help=DEVICE_HELP)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dataset_dir", Path(fspath(self.dataset_dir)))
        object.__setattr__(self, "output", Path(fspath(self.output)))
        object.__setattr__(self, "settings", tuple(self.settings or ()))
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes must be above 0, got {self.minutes}. Give the time that you have.")
        if self.folds not in (None, 0, 3, 5):
            raise ValueError(f"folds must be 0, 3 or 5, got {self.folds}. Three are enough for most data.")

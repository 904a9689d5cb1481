"""Makes small pictures with a red disc on green each, which the mean of the colours does not show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["NAMES", "paint_disc", "write_folder", "write_nnunet"]

SIZE = 24
NAMES = {"0": "R", "1": "G", "2": "B"}


def paint_disc(number: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """A picture ``(H, W, 3)`` and its label ``(H, W)``."""
    generator = np.random.default_rng(number)
    grid = np.moveaxis(np.indices((SIZE, SIZE)), 0, -1)
    label = (np.linalg.norm(grid - generator.uniform(8, 16, 2), axis=-1) < 5).astype(np.uint8)
    shift = generator.integers(20, 40, label.shape)
    red = 100 + np.where(label, shift, -shift)
    blue = generator.integers(40, 60, label.shape)
    return np.stack([red, 200 - red, blue], axis=-1).astype(np.uint8), label


def write_folder(root: Path, count: int, ending: str = ".png", grey: int = 0) -> Path:
    """A data set of two folders; the last pictures are grey, as many as asked for."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        pixels, label = paint_disc(number)
        picture = Image.fromarray(pixels)
        if number >= count - grey:
            picture = picture.convert("L")
        picture.save(root / "images" / f"disc_{number}{ending}")
        Image.fromarray(label).save(root / "labels" / f"disc_{number}.png")
    return root


def write_nnunet(root: Path, count: int, channel_names: Any = None) -> Path:
    """A data set in nnU-Net's form with one picture for each case."""
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        pixels, label = paint_disc(number)
        Image.fromarray(pixels).save(root / "imagesTr" / f"disc_{number}_0000.png")
        Image.fromarray(label).save(root / "labelsTr" / f"disc_{number}.png")
    content = {"channel_names": channel_names or NAMES, "labels": {"background": 0, "disc": 1}, "numTraining": count}
    (root / "dataset.json").write_text(json.dumps({**content, "file_ending": ".png"}))
    return root

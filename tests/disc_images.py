"""Makes a data set of small images with a bright disc each, in Decathlon form, for tests that train on it."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

SIZE = 24


def write_disc_images(root: Path, *, training: int, validation: int, value: int = 1) -> Path:
    """Write images of 24 x 24 pixels called ``disc_0``, ``disc_1`` and so on; discs have ``value`` in the labels."""
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir()
    generator = np.random.default_rng(0)
    grid = np.moveaxis(np.indices((SIZE, SIZE)), 0, -1)
    entries = []
    for number in range(training + validation):
        disc = np.linalg.norm(grid - generator.uniform(8, 16, 2), axis=-1) < 5
        image = (100 * disc + generator.normal(200, 20, disc.shape)).astype(np.float32)
        entry = {"image": f"imagesTr/disc_{number}.nii.gz", "label": f"labelsTr/disc_{number}.nii.gz"}
        nib.save(nib.Nifti1Image(image, np.eye(4)), root / entry["image"])
        label = value * disc.astype(np.uint8 if value < 256 else np.int16)
        nib.save(nib.Nifti1Image(label, np.eye(4)), root / entry["label"])
        entries.append(entry)
    content = {
        "name": "Discs",
        "labels": {"0": "background", str(value): "disc"},
        "training": entries[:training],
        "validation": entries[training:],
    }
    (root / "dataset.json").write_text(json.dumps(content))
    return root

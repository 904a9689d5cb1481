"""The files of a training in the folder of its bundle."""

from __future__ import annotations

from pathlib import Path

CHECK_FILE = "training/data_check.json"
"""The state of the data that passed the check and the hashes of their voxels, so that nothing is read again."""

#: What a training leaves in its folder, or in that of a fold, once it has saved anything.
_TRAINED_FILES = ("checkpoint_*.pt", "model.pt", "outcome.json")


def has_trained(folder: Path) -> bool:
    """Whether a training has saved weights or a checkpoint in its folder, or in that of a fold."""
    return any(any(folder.rglob(name)) for name in _TRAINED_FILES)

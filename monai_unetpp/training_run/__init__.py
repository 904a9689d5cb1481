"""From labelled data to a trained, evaluated and documented bundle: ``monai-unetpp train``.

Public names are loaded on first use, so that the command line can read the options without importing torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_unetpp.lazy import lazy_names

if TYPE_CHECKING:
    from monai_unetpp.training_run.run import TrainingOutcome, train
    from monai_unetpp.training_run.train_options import TrainOptions

__all__ = ["TrainOptions", "TrainingOutcome", "train"]

__getattr__, __dir__ = lazy_names(__name__, {".train_options": ("TrainOptions",), ".run": ("TrainingOutcome", "train")})

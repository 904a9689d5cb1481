"""Segment with an exported folder, using only numpy, scipy, nibabel and OpenVINO or ONNX Runtime.

Nothing here imports torch or MONAI, so a run starts in about a second. ``monai-unetpp export --format runner`` writes
the folder; the labels are those of ``monai-unetpp segment``.
"""

from monai_unetpp.runner.pipeline import PIPELINE_FILE, Pipeline, read_pipeline
from monai_unetpp.runner.segmenter import Segmenter

__all__ = ["PIPELINE_FILE", "Pipeline", "Segmenter", "read_pipeline"]

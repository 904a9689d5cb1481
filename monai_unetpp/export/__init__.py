"""Export networks to files for other programs, each verified by reading it back."""

from monai_unetpp.export.export import NetworkExport, export_checkpoint, export_network
from monai_unetpp.export.formats import FORMATS
from monai_unetpp.export.runner_folder import RunnerExport, export_runner

__all__ = ["FORMATS", "NetworkExport", "RunnerExport", "export_checkpoint", "export_network", "export_runner"]

"""Networks as files for other programs, each checked by reading it back."""

from monai_unetpp.export.export import FORMATS, NetworkExport, export_checkpoint, export_network

__all__ = ["FORMATS", "NetworkExport", "export_checkpoint", "export_network"]

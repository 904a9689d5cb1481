"""From files to cases: lists, readers, checks and writers."""

from monai_unetpp.data.datalist import load_datalist

__all__ = ["load_datalist"]

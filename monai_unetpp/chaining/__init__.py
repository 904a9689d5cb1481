"""Run one bundle within another: the first locates the region in a scan, the second segments it."""

from monai_unetpp.chaining.chain import Chain
from monai_unetpp.chaining.loaded_bundle import LoadedBundle
from monai_unetpp.chaining.pair import CropRule, Pair, read_pair
from monai_unetpp.chaining.within import SegmentWithind

__all__ = ["Chain", "CropRule", "LoadedBundle", "Pair", "SegmentWithind", "read_pair"]

"""One bundle within another: the first finds the place in a scan, the second segments there."""

from monai_unetpp.chaining.chain import Chain
from monai_unetpp.chaining.loaded_bundle import LoadedBundle
from monai_unetpp.chaining.pair import CropRule, Pair, read_pair
from monai_unetpp.chaining.within import SegmentWithind

__all__ = ["Chain", "CropRule", "LoadedBundle", "Pair", "SegmentWithind", "read_pair"]

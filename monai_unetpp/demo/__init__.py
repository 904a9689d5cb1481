"""The demonstration: an MRI template from an installed package, segmented at every level of the MRI bundles."""

from monai_unetpp.demo.demo import PARTS, DemoPart, DemoResult, LevelResult, demo

__all__ = ["PARTS", "DemoPart", "DemoResult", "LevelResult", "demo"]

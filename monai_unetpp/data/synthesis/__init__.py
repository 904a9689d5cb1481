"""Synthesize training images from label maps alone."""

from monai_unetpp.data.synthesis.deforming import RandDeformLabelsd
from monai_unetpp.data.synthesis.intensities import RandLabelsToImaged
from monai_unetpp.data.synthesis.mirroring import RandMirrorLabelsd
from monai_unetpp.data.synthesis.stripping import RandStripSurroundd
from monai_unetpp.data.synthesis.thick_slices import RandThickSlicesd

__all__ = ["RandDeformLabelsd", "RandLabelsToImaged", "RandMirrorLabelsd", "RandStripSurroundd", "RandThickSlicesd"]

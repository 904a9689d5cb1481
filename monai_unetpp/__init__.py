"""Nested U-Nets (UNet++) for MONAI that really get pruned."""

from monai_unetpp.losses import NestedDeepSupervisionLoss
from monai_unetpp.networks import NestedUNet

__version__ = "0.1.0"
__all__ = ["NestedDeepSupervisionLoss", "NestedUNet", "__version__"]

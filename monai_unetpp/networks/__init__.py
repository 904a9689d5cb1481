"""Nested U-Nets and what makes and loads them."""

from monai_unetpp.networks.nested_unet import NestedUNet

__all__ = ["NestedUNet"]

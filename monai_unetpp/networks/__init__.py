"""Nested U-Nets and what makes and loads them."""

from monai_unetpp.networks.nested_unet import NestedUNet
from monai_unetpp.networks.transfer import Transfer, transfer_weights

__all__ = ["NestedUNet", "Transfer", "transfer_weights"]

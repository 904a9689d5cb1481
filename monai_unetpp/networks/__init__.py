"""Nested U-Nets, their building blocks and their weights. Public names are loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_unetpp.lazy import lazy_names

if TYPE_CHECKING:
    from monai_unetpp.networks.nested_unet import NestedUNet
    from monai_unetpp.networks.transfer import Transfer, transfer_weights

__all__ = ["NestedUNet", "Transfer", "transfer_weights"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        ".nested_unet": ("NestedUNet",),
        ".transfer": ("Transfer", "transfer_weights"),
    },
)

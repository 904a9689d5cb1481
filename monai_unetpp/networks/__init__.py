"""Nested U-Nets, their building blocks and their weights. Public names are loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_unetpp.lazy import lazy_names

if TYPE_CHECKING:
    from monai_unetpp.networks.nested_unet import NestedUNet
    from monai_unetpp.networks.transfer import transfer_weights
    from monai_unetpp.networks.transferred import Transfer

__all__ = ["NestedUNet", "Transfer", "transfer_weights"]

__getattr__, __dir__ = lazy_names(
    __name__, {".nested_unet": ("NestedUNet",), ".transfer": ("transfer_weights",), ".transferred": ("Transfer",)}
)

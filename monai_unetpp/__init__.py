"""Nested U-Nets (UNet++) for MONAI that can actually be pruned.

Public names are loaded on first use, so that ``monai-unetpp --help`` need not wait for torch. MONAI configs find them
by their short names once this package has been imported, and always as ``monai_unetpp.<name>``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from monai_unetpp.version import __version__

if TYPE_CHECKING:
    from monai_unetpp.in_memory import Segmentation, segment
    from monai_unetpp.losses import NestedDeepSupervisionLoss
    from monai_unetpp.networks.nested_unet import NestedUNet

__all__ = ["NestedDeepSupervisionLoss", "NestedUNet", "Segmentation", "__version__", "segment"]

_HOMES = {
    "NestedDeepSupervisionLoss": "monai_unetpp.losses",
    "NestedUNet": "monai_unetpp.networks.nested_unet",
    "Segmentation": "monai_unetpp.in_memory",
    "segment": "monai_unetpp.in_memory",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

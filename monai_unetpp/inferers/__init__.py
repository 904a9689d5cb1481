"""How a network is run over images."""

from monai_unetpp.inferers.flips import FlipInferer
from monai_unetpp.inferers.precision import PrecisionInferer

__all__ = ["FlipInferer", "PrecisionInferer"]

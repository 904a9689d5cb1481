"""How a network is run over images."""

from monai_unetpp.inferers.precision import PrecisionInferer

__all__ = ["PrecisionInferer"]

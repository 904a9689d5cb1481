"""Run networks over images."""

from monai_unetpp.inferers.flips import FlipInferer
from monai_unetpp.inferers.precision import PrecisionInferer
from monai_unetpp.inferers.slices import SlicewiseInferer
from monai_unetpp.inferers.sliding_windows import NestedSlidingWindowInferer
from monai_unetpp.inferers.window_memory import WindowMemory

__all__ = ["FlipInferer", "NestedSlidingWindowInferer", "PrecisionInferer", "SlicewiseInferer", "WindowMemory"]

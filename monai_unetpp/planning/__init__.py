"""From labelled data to a plan for a network: what the data are like."""

from monai_unetpp.planning.fingerprint import CaseFingerprint, ChannelIntensity, Fingerprint, IntensityStatistics
from monai_unetpp.planning.measuring import take_fingerprint

__all__ = ["CaseFingerprint", "ChannelIntensity", "Fingerprint", "IntensityStatistics", "take_fingerprint"]

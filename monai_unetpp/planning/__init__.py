"""From labelled data to a plan for a network: what the data are like."""

from monai_unetpp.planning.fingerprint import CaseFingerprint, ChannelIntensity, Fingerprint, IntensityStatistics

__all__ = ["CaseFingerprint", "ChannelIntensity", "Fingerprint", "IntensityStatistics"]

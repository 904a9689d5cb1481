"""Fingerprints of data sets that there are not."""

import dataclasses

import numpy as np

from monai_unetpp.data.transforms.extent import PERCENTILES
from monai_unetpp.planning import CaseFingerprint, ChannelIntensity, Fingerprint, IntensityStatistics
from monai_unetpp.planning.fingerprint import QUANTILES

DARK = IntensityStatistics(p0_5=0.0, p5=1.0, p50=10.0, p95=80.0, p99_5=100.0, mean=15.0, sd=20.0)
BRIGHT = IntensityStatistics(p0_5=0.0, p5=20.0, p50=90.0, p95=99.0, p99_5=100.0, mean=80.0, sd=20.0)


def fingerprint(
    shape=(64, 64, 64),
    spacings=((1.0, 1.0, 1.0),),
    modality="MR",
    labels=None,
    voxels=None,
    surround=False,
    left_right=(),
    whole=(DARK,),
    channels=("T1",),
    foreground=DARK,
    medians=None,
    bounds=((0.0, 100.0),),
    in_surround=None,
    faces=None,
    ignored=(0,),
    cut=({},),
):
    """As many cases as there are ``spacings``, ``whole`` intensities or numbers of ``ignored`` voxels."""
    labels = labels or {"organ": 1}
    count = max(len(spacings), len(whole), len(ignored))
    dims = len(shape)
    spacings = [tuple(spacings[number % len(spacings)])[:dims] for number in range(count)]
    cases = tuple(
        CaseFingerprint(
            name=f"case_{number}",
            subject=f"case_{number}",
            shape=shape,
            spacing_mm=spacing,
            size_mm=tuple(edge * mm for edge, mm in zip(shape, spacing, strict=True)),
            constant_surround=surround,
            voxels=voxels or dict.fromkeys(labels, 100),
            parts=dict.fromkeys(labels, 1),
            intensity=tuple(ChannelIntensity(whole[number % len(whole)], foreground) for _ in channels),
            bounds=bounds,
            medians=medians or {},
            in_surround=in_surround or {},
            faces=faces or {},
            ignored=ignored[number % len(ignored)],
            cut=cut[number % len(cut)],
        )
        for number, spacing in enumerate(spacings)
    )
    median = tuple(sorted(values)[len(values) // 2] for values in zip(*spacings, strict=True))
    return Fingerprint(
        spatial_dims=dims,
        channels=channels,
        modality=modality,
        labels=labels,
        ignore_label=None,
        cases=cases,
        median_spacing_mm=median,
        median_shape=shape,
        left_right=left_right,
        intensity=tuple(ChannelIntensity(whole[0], foreground) for _ in channels),
        quantiles=tuple(_quantiles(foreground) for _ in channels),
    )


def _quantiles(foreground):
    """A table with the percentiles that are known, and extremes 50 beyond the outer ones."""
    if foreground is None:
        return ()
    known = dataclasses.astuple(foreground)[: len(PERCENTILES)]
    inner = np.interp(QUANTILES[1:-1], PERCENTILES, known)
    return (known[0] - 50, *map(float, inner), known[-1] + 50)

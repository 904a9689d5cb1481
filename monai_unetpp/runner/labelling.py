"""Label a whole image window by window, in bounded memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from monai_unetpp.runner.volume import Array
from monai_unetpp.window_layout import WindowLayout, choose_layout, gaussian_weights, overlapping_starts

__all__ = ["Predict", "label_image", "label_slices"]

#: Logits ``(C, *window)`` of a window ``(C, *window)``.
Predict = Callable[[Array], Array]
_PADDINGS = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def label_slices(
    image: Array, windows: Mapping[str, Any], predict: Predict, axis: int, most_voxels: int | None = None
) -> Array:
    """Label a volume ``(C, H, W, D)`` with a 2D network, slice by slice across ``axis``."""
    slices = [label_image(part, windows, predict, most_voxels) for part in np.moveaxis(image, axis + 1, 0)]
    return np.stack(slices, axis=axis)


def label_image(image: Array, windows: Mapping[str, Any], predict: Predict, most_voxels: int | None = None) -> Array:
    """Find the class of the highest logit at each voxel; with one channel, whether its logit is above 0.

    Windows and weights are those of ``NestedSlidingWindowInferer``. Logits are held for one slab, one window long.

    Args:
        image: ``(C, *spatial)``.
        windows: windows of a :class:`monai_unetpp.runner.Pipeline`.
        predict: the network.
        most_voxels: largest window, if windows are chosen for each image.

    Returns:
        ``(*spatial)``, uint8 for up to 256 classes, else int16.
    """
    layout = _lay_out(image.shape[1:], windows, most_voxels)
    mode = _PADDINGS[windows["padding_mode"]]
    fill = {"constant_values": windows["cval"]} if mode == "constant" else {}
    if any(after for _, after in layout.padding):
        image = np.pad(image, [(0, 0), *layout.padding], mode=mode, **fill)  # type: ignore[call-overload]
    predict = _averaging_flips(predict, windows["flips"])
    if windows["skip_constant"]:
        predict = _remembering_constants(predict)
    stitcher: _LabelStitcher | None = None
    for position in layout.positions:
        parts = tuple(slice(start, start + size) for start, size in zip(position, layout.window_size, strict=True))
        cut = (slice(None), *parts)
        logits = predict(np.ascontiguousarray(image[cut]))
        if stitcher is None:
            stitcher = _LabelStitcher(layout, len(logits), windows)
        stitcher.add(position, logits)
    if stitcher is None:
        raise AssertionError("a layout has at least one window")
    return stitcher.result()


def _lay_out(size: Sequence[int], windows: Mapping[str, Any], most_voxels: int | None) -> WindowLayout:
    if most_voxels is not None:
        return choose_layout(size, most_voxels, windows["multiples"], windows["overlap"])
    shape, overlap = tuple(windows["shape"]), windows["overlap"]
    overlaps = overlap if isinstance(overlap, list) else [overlap] * len(shape)
    starts = tuple(
        overlapping_starts(max(whole, length), length, part)
        for whole, length, part in zip(size, shape, overlaps, strict=True)
    )
    return WindowLayout(tuple(size), shape, starts)


def _averaging_flips(predict: Predict, axes: Sequence[int]) -> Predict:
    """Average the logits over all mirror images along ``axes``."""
    if not axes:
        return predict

    def mean(window: Array) -> Array:
        total: Array | None = None
        for kept in itertools.product((False, True), repeat=len(axes)):
            flipped = tuple(axis + 1 for axis, flip in zip(axes, kept, strict=True) if flip)
            logits = np.flip(predict(np.ascontiguousarray(np.flip(window, flipped))), flipped)
            total = logits if total is None else total + logits
        result: Array = np.asarray(total) / np.float32(2 ** len(axes))
        return result

    return mean


def _remembering_constants(predict: Predict) -> Predict:
    """Reuse the logits of the last constant window."""
    known: dict[bytes, Array] = {}

    def remembered(window: Array) -> Array:
        values = window.reshape(len(window), -1)
        if not (values == values[:, :1]).all():
            return predict(window)
        key = values[:, 0].tobytes()
        if key not in known:
            known.clear()
            known[key] = predict(window)
        return known[key]

    return remembered


class _LabelStitcher:
    """Sums weighted logits in a slab that moves along the image, and turns finished planes into labels."""

    def __init__(self, layout: WindowLayout, channels: int, windows: Mapping[str, Any]) -> None:
        self._layout = layout
        self._axis = layout.slab_axis
        blended = windows["blending"] == "gaussian"
        self._weights = gaussian_weights(layout.window_size, windows["sigma_scale"]) if blended else None
        self._sums = np.zeros((channels, *layout.slab_size), dtype=np.float32)
        self._labels = np.empty(layout.padded_size, dtype=np.uint8 if channels <= 256 else np.int16)
        self._begin = 0

    def add(self, position: Sequence[int], logits: Array) -> None:
        if position[self._axis] > self._begin:
            self._move_to(position[self._axis])
        starts = [0 if axis == self._axis else start for axis, start in enumerate(position)]
        parts = tuple(slice(start, start + size) for start, size in zip(starts, self._layout.window_size, strict=True))
        for sums, found in zip(self._sums, logits, strict=True):
            if self._weights is None:
                sums[parts] += found
            else:
                # round once, like torch's fused operation
                sums[parts] = sums[parts] + found.astype(np.float64) * self._weights

    def result(self) -> Array:
        self._write(self._layout.window_size[self._axis])
        inner = zip(self._layout.padding, self._layout.image_size, strict=True)
        return self._labels[tuple(slice(before, before + size) for (before, _), size in inner)]

    def _move_to(self, begin: int) -> None:
        step = begin - self._begin
        self._write(step)
        sums = np.moveaxis(self._sums, self._axis + 1, 0)
        sums[:-step] = sums[step:].copy()
        sums[-step:] = 0
        self._begin = begin

    def _write(self, planes: int) -> None:
        sums = np.moveaxis(self._sums, self._axis + 1, 0)[:planes]
        labels = np.moveaxis(self._labels, self._axis, 0)[self._begin : self._begin + planes]
        for plane, written in zip(sums, labels, strict=True):
            if not np.isfinite(plane.sum()):
                raise ValueError("the network gave NaN or infinity. Its weights are damaged: export the bundle again.")
            written[...] = plane[0] > 0 if len(plane) == 1 else plane.argmax(axis=0)

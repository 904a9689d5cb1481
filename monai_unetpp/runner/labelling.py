"""Compute the logits of a whole image window by window, or its labels in bounded memory or on the grid of the file."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from monai_unetpp.data.transforms.resampling import find_candidate_box
from monai_unetpp.runner.volume import Array, Volume
from monai_unetpp.window_layout import WindowLayout, choose_layout, gaussian_weights

#: Logits ``(C, *window)`` of a window ``(C, *window)``.
Predict = Callable[[Array], Array]
_PADDINGS = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
_BROKEN = "the network gave NaN or infinity. Its weights are damaged: export the bundle again."


def label_image(image: Array, windows: Mapping[str, Any], predict: Predict, most_voxels: int | None = None) -> Array:
    """Find the class of the highest logit at each voxel; with one channel, whether its logit is above 0.

    Windows and weights are those of ``NestedSlidingWindowInferer``, from the ``windows`` of a ``Pipeline``, with up to
    ``most_voxels`` where they are chosen for each image. Logits are held for one slab, one window long.

    Returns:
        ``(*spatial)`` for an image ``(C, *spatial)``, uint8 for up to 256 classes, else int16.
    """
    layout = _lay_out(image.shape[1:], windows, most_voxels)
    axis, weights = layout.slab_axis, _window_weights(layout, windows)
    channels, predictions = _predictions(image, layout, windows, predict)
    sums = np.zeros((channels, *layout.slab_size), dtype=np.float32)
    labels = np.empty(layout.padded_size, dtype=np.uint8 if channels <= 256 else np.int16)
    planes, written = np.moveaxis(sums, axis + 1, 0), np.moveaxis(labels, axis, 0)
    slabs = itertools.groupby(predictions, key=lambda found: found[0][axis])
    ends = (*layout.starts[axis][1:], layout.padded_size[axis])
    for (begin, slab), end in zip(slabs, ends, strict=True):
        for position, logits in slab:
            if layout.has_one_window:
                planes = np.moveaxis(logits, axis + 1, 0)
            else:
                _add(sums, _parts((*position[:axis], 0, *position[axis + 1 :]), layout), logits, weights)
        for plane, line in zip(planes[: end - begin], written[begin:end], strict=True):
            if not np.isfinite(plane.sum()):
                raise ValueError(_BROKEN)
            line[...] = plane[0] > 0 if channels == 1 else plane.argmax(axis=0)
        # the rest overlaps with the next slab
        planes[: begin - end] = planes[end - begin :].copy()
        planes[begin - end :] = 0
    return labels[_inner(layout)]


def infer_logits(image: Array, windows: Mapping[str, Any], predict: Predict, most_voxels: int | None = None) -> Array:
    """Average the windows' weighted logits at each voxel, ``(C, *spatial)`` in float32; see :func:`label_image`."""
    layout = _lay_out(image.shape[1:], windows, most_voxels)
    weights = _window_weights(layout, windows)
    channels, predictions = _predictions(image, layout, windows, predict)
    counts = np.zeros(layout.padded_size, dtype=np.float32)
    sums = np.zeros((channels, *layout.padded_size), dtype=np.float32)
    for position, logits in predictions:
        parts = _parts(position, layout)
        counts[parts] += 1 if weights is None else weights
        _add(sums, parts, logits, weights)
    sums /= counts
    kept = (slice(None), *_inner(layout))
    return sums[kept]


def likeliest_labels(logits: Array, volume: Volume) -> Array:
    """Find the class of the highest probability at each voxel of the file, like ``InvertProbabilitiesd``.

    The logits ``(C, H, W[, D])`` of ``C >= 2`` classes are those of the preprocessed image.

    Returns:
        ``(H, W[, D])``, uint8 for up to 256 classes, else int32; 0 where the preprocessing cropped.

    Raises:
        ValueError: the logits are not finite, or have one channel.
    """
    if len(logits) < 2:
        raise ValueError("the network has one channel, which cannot be smoothed. Export the bundle again.")
    total = logits[0].copy()
    for channel in logits[1:]:
        np.logaddexp(total, channel, out=total)
    if not np.isfinite(total).all():
        raise ValueError(_BROKEN)
    resampling = slice(volume.moving, None)
    best, affine = volume.bring_back((np.exp(logits[0] - total), volume.affine), resampling, linear=True)
    labels = np.zeros(best.shape, dtype=np.uint8 if len(logits) <= 256 else np.int32)
    for label, channel in enumerate(logits[1:], start=1):
        probability = np.exp(channel - total)
        box = find_candidate_box(probability, len(logits))
        if box is None:
            continue
        # blocks of zeros are not resampled
        alone = np.zeros_like(probability)
        alone[box] = probability[box]
        values, _ = volume.bring_back((alone, volume.affine), resampling, linear=True)
        labels[values > best] = label
        np.maximum(best, values, out=best)
    return volume.bring_back((labels, affine), slice(volume.moving))[0]


def _predictions(
    image: Array, layout: WindowLayout, windows: Mapping[str, Any], predict: Predict
) -> tuple[int, Iterator[tuple[tuple[int, ...], Array]]]:
    """The number of channels of the logits, and the start of each window with its logits."""
    mode = _PADDINGS[windows["padding_mode"]]
    fill = {"constant_values": windows["cval"]} if mode == "constant" else {}
    if any(after for _, after in layout.padding):
        image = np.pad(image, [(0, 0), *layout.padding], mode=mode, **fill)  # type: ignore[call-overload]
    predict = _averaging_flips(predict, windows["flips"])
    if windows["skip_constant"]:
        predict = _remembering_constants(predict)
    cuts = ((slice(None), *_parts(position, layout)) for position in layout.positions)
    predicted = (predict(np.ascontiguousarray(image[cut])) for cut in cuts)
    first = next(predicted)
    return len(first), zip(layout.positions, itertools.chain([first], predicted), strict=True)


def _parts(starts: Sequence[int], layout: WindowLayout) -> tuple[slice, ...]:
    return tuple(slice(start, start + size) for start, size in zip(starts, layout.window_size, strict=True))


def _inner(layout: WindowLayout) -> tuple[slice, ...]:
    """The image in the padded one."""
    inner = zip(layout.padding, layout.image_size, strict=True)
    return tuple(slice(before, before + size) for (before, _), size in inner)


def _window_weights(layout: WindowLayout, windows: Mapping[str, Any]) -> Array | None:
    if windows["blending"] != "gaussian" or layout.has_one_window:
        return None
    return gaussian_weights(layout.window_size, windows["sigma_scale"])


def _add(sums: Array, parts: tuple[slice, ...], logits: Array, weights: Array | None) -> None:
    for channel, found in zip(sums, logits, strict=True):
        if weights is None:
            channel[parts] += found
        else:
            # round once, like torch's fused operation
            channel[parts] = channel[parts] + found.astype(np.float64) * weights


def _lay_out(size: Sequence[int], windows: Mapping[str, Any], most_voxels: int | None) -> WindowLayout:
    if most_voxels is not None:
        return choose_layout(size, most_voxels, windows["multiples"], windows["overlap"])
    return WindowLayout.overlapping(size, windows["shape"], windows["overlap"])


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

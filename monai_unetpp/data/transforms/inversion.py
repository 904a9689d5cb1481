"""Resample probabilities back to the grid of the input, class by class."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    Cropd,
    Flipd,
    Invertd,
    InvertibleTransform,
    MapTransform,
    Orientationd,
    Padd,
    Rotate90d,
)
from monai.utils import ensure_tuple_rep

from monai_unetpp.data.transforms.resampling import find_candidate_box

_WIDE_KERNELS = ("area", "bicubic")
#: Transforms whose inverses only move voxels.
_MOVING = (Orientationd, Cropd, Padd, Flipd, Rotate90d)


class InvertProbabilitiesd(MapTransform):
    """Turn logits into a label map on the input's own grid, with smoother borders than by inverting labels.

    The preprocessing is inverted for the probabilities of one class at a time, interpolated like the image (splines as
    linear), and the likeliest class so far is kept. Whatever the number of classes, memory is needed for two float maps
    on the input's grid besides the logits, and to resample one: little with
    :class:`monai_unetpp.data.BlockwiseSpacingd`, about 60 bytes per voxel with MONAI's ``Spacingd``. The time is at
    most about that of ``Invertd`` on labels times the number of classes: ``BlockwiseSpacingd`` leaves out where a class
    cannot be the likeliest. Orientation, crops and padding before the first interpolation are inverted once, for the
    labels. If preprocessing only rotated by right angles, cropped or padded the image, both give the
    same labels.

    Args:
        keys: logits ``(C, H, W[, D])`` of ``C >= 2`` classes, class 0 the background, on any device; replaced by labels
            ``(1, H, W[, D])`` on the same device. Regions that preprocessing cropped become 0.
        transform: the invertible preprocessing of the image, such as MONAI's ``Compose``.
        orig_keys: key of the preprocessed image, a ``MetaTensor``; one for all or one for each of ``keys``.
        allow_missing_keys: whether items without a key are skipped.

    Raises:
        ValueError: ``transform`` is not invertible.

    Example:
        .. code-block:: json

            {
                "_target_": "monai_unetpp.data.InvertProbabilitiesd",
                "keys": "pred",
                "transform": "@preprocessing",
                "orig_keys": "image"
            }
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: InvertibleTransform,
        orig_keys: KeysCollection = "image",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not isinstance(transform, InvertibleTransform):
            raise ValueError(
                f"transform must be invertible, got {type(transform).__name__}. Use MONAI's Compose as preprocessing."
            )
        self.transform = transform
        self._moving, self._resampling = _split(transform)
        self.orig_keys = ensure_tuple_rep(orig_keys, len(self.keys))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the logits of each key by labels; what is wrong with them, or their image, is an error."""
        d = dict(data)
        for key, orig_key in self.key_iterator(d, self.orig_keys):
            image = d.get(orig_key)
            if not isinstance(image, MetaTensor):
                raise TypeError(
                    f"{orig_key} must be the preprocessed image with its metadata, got {type(image).__name__}. "
                    "Load it with LoadImaged."
                )
            if len(d[key]) < 2:
                raise ValueError(
                    f"{key} must have a channel of logits for each class, got shape {tuple(d[key].shape)}. Let the "
                    "inferer give logits, and leave AsDiscreted out."
                )
            d[key] = self._invert(d[key], orig_key, image)
        return d

    def _invert(self, logits: torch.Tensor, orig_key: Hashable, image: MetaTensor) -> MetaTensor:
        plain = logits.as_tensor() if isinstance(logits, MetaTensor) else logits
        normaliser = _log_sum_exp(plain)
        if not bool(normaliser.isfinite().all()):
            raise ValueError(
                "logits must be finite, got NaN or infinity. The network's weights are damaged, or they overflow its "
                "precision: try precision='fp32'."
            )
        operations = _as_linear_float32(image.applied_operations)
        is_linear = not _uses_wide_kernels(operations)
        # Invertd uses the metadata of the image, not its voxels
        applied = MetaTensor(plain.new_empty(0), meta=image.meta, applied_operations=operations)
        invert = Invertd("pred", self._resampling, orig_keys=orig_key, nearest_interp=False)

        def inverted(probability: torch.Tensor) -> MetaTensor:
            result: MetaTensor = invert({"pred": MetaTensor(probability[None]), orig_key: applied})["pred"]
            return result

        first = inverted((plain[0].float() - normaliser).exp_())
        best = first.as_tensor()
        labels = torch.zeros_like(best, dtype=torch.uint8 if len(plain) <= 256 else torch.int32)
        for label in range(1, len(plain)):
            probability = (plain[label].float() - normaliser).exp_()
            if is_linear:
                box = find_candidate_box(probability.cpu().numpy(), len(plain))
                if box is None:
                    continue
                # blocks of zeros are not resampled
                alone = torch.zeros_like(probability)
                alone[box] = probability[box]
                probability = alone
            values = inverted(probability).as_tensor()
            labels.masked_fill_(values > best, label)
            torch.maximum(best, values, out=best)
        found = MetaTensor(labels, meta=first.meta, applied_operations=first.applied_operations)
        if self._moving is None:
            return found
        moved: MetaTensor = Invertd("pred", self._moving, orig_keys=orig_key)({"pred": found, orig_key: found})["pred"]
        return moved


def _split(transform: InvertibleTransform) -> tuple[Compose | None, InvertibleTransform]:
    """The first steps of a preprocessing, if their inverses only move voxels, and all others."""
    if type(transform) is not Compose:
        return None, transform
    steps = transform.flatten().transforms
    is_inverted = [isinstance(step, InvertibleTransform) for step in steps]
    count = next((n for n, step in enumerate(steps) if is_inverted[n] and not isinstance(step, _MOVING)), len(steps))
    if not any(is_inverted[:count]) or not any(is_inverted[count:]):
        return None, transform
    return Compose(steps[:count]), Compose(steps[count:])


def _log_sum_exp(logits: torch.Tensor) -> torch.Tensor:
    """Like ``torch.logsumexp`` over the channels, but without doubling the memory."""
    total = logits[0].float()
    for channel in logits[1:]:
        total = torch.logaddexp(total, channel.float())
    return total


def _as_linear_float32(operations: Any, key: str | None = None) -> Any:
    """The applied operations with linear interpolation and float32: half the memory, enough for probabilities."""
    if isinstance(operations, Mapping):
        return {name: _as_linear_float32(value, name) for name, value in operations.items()}
    if isinstance(operations, (list, tuple)):
        return [_as_linear_float32(value, key) for value in operations]
    if key == "mode" and isinstance(operations, int):
        return 1
    if key == "dtype" and operations == "float64":
        return "float32"
    return operations


def _uses_wide_kernels(operations: Any) -> bool:
    """Whether any of the operations interpolates from more than the nearest voxels, as MONAI's ``Resize`` can."""
    if isinstance(operations, Mapping):
        return operations.get("mode") in _WIDE_KERNELS or _uses_wide_kernels(list(operations.values()))
    return isinstance(operations, (list, tuple)) and any(map(_uses_wide_kernels, operations))

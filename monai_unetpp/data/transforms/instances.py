"""Split a label map into one label per object."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from scipy import ndimage

from monai_unetpp.installing import install_command

#: Metadata key of the number of objects.
INSTANCE_COUNT = "instance_count"


class SplitInstances(Transform):
    """Number the objects of a label map and split those that touch.

    Connected components (of all labels but 0 together; neighbours share an edge, in 3D a face) are split by a
    watershed on the distance to their border, seeded at its prominent peaks: where two objects touch, the distance is
    smaller than inside both. Objects smaller than ``min_size`` are removed.

    Components are processed one by one, so memory is needed for two label maps and the largest component only.

    Args:
        min_size: smallest size of an object, in pixels.
        depth: how far a peak of the distance must rise above the saddle to the next, as a fraction of the component's
            largest distance, from 0 (split at every notch) to below 1. Raise it if elongated objects are cut in two.

    Raises:
        ImportError: scikit-image is not installed.
        ValueError: an argument is out of range, or a label map has several channels.

    Example:
        >>> import torch
        >>> labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
        >>> labels[0, :3, :3], labels[0, 5:, 5:] = 1, 1
        >>> SplitInstances(min_size=4)(labels).unique().tolist()
        [0, 1, 2]
    """

    def __init__(self, min_size: int = 10, depth: float = 0.15) -> None:
        if min_size < 1:
            raise ValueError(f"min_size must be at least 1, got {min_size}.")
        if not 0 <= depth < 1:
            raise ValueError(f"depth must be from 0 to below 1, got {depth}.")
        self.min_size = min_size
        self.depth = depth
        _watershed()  # report a missing package before any work

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Number the objects of ``img`` ``(1, H, W[, D])``; the result is int32, with metadata if ``img`` has it."""
        if img.shape[0] != 1:
            raise ValueError(
                f"the label map must have one channel, got shape {tuple(img.shape)}. Use AsDiscreted with argmax first."
            )
        labels = img.detach().cpu().numpy()[0]
        pixdim = img.pixdim.numpy()[: labels.ndim] if isinstance(img, MetaTensor) else np.ones(labels.ndim)
        numbered, count = self._numbered(labels, tuple(float(length) for length in pixdim))
        result: torch.Tensor = torch.from_numpy(numbered[None])
        if not isinstance(img, MetaTensor):
            return result
        counted: MetaTensor = MetaTensor(result).copy_meta_from(img)
        counted.meta[INSTANCE_COUNT] = count
        return counted

    def _numbered(self, labels: npt.NDArray[Any], pixdim: tuple[float, ...]) -> tuple[npt.NDArray[np.int32], int]:
        components = np.empty(labels.shape, dtype=np.int32)
        ndimage.label(labels != 0, output=components)
        numbered = np.zeros(labels.shape, dtype=np.int32)
        count = 0
        for number, box in enumerate(ndimage.find_objects(components), start=1):
            inside = components[box] == number
            if np.count_nonzero(inside) < self.min_size:
                continue
            parts = self._split(inside, pixdim)
            sizes = np.bincount(parts.ravel())
            kept = [part for part in range(1, len(sizes)) if sizes[part] >= self.min_size]
            new = np.zeros(len(sizes), dtype=np.int32)
            new[kept] = np.arange(count + 1, count + len(kept) + 1)
            np.add(numbered[box], new[parts], out=numbered[box])
            count += len(kept)
        return numbered, count

    def _split(self, inside: npt.NDArray[np.bool_], pixdim: tuple[float, ...]) -> npt.NDArray[np.int32]:
        # outside the box is outside the object; at the image border this does not move the peaks
        padded = np.pad(inside, 1)
        # in shortest edges of a pixel, whatever their unit
        sampling = [length / min(pixdim) for length in pixdim]
        distance = ndimage.distance_transform_edt(padded, sampling=sampling).astype(np.float32)
        peaks = _peaks(distance, self.depth * float(distance.max()))
        markers, count = ndimage.label(peaks & padded, structure=np.ones((3,) * padded.ndim))
        parts = _watershed()(-distance, markers, mask=padded) if count > 1 else padded
        return np.asarray(parts[(slice(1, -1),) * inside.ndim], dtype=np.int32)


class SplitInstancesd(MapTransform):
    """:class:`SplitInstances` for dictionaries, for use after ``Invertd``.

    The number of objects is kept in the metadata as ``instance_count``.

    Args:
        keys: label maps ``(1, H, W[, D])``.
        min_size: smallest size of an object, in pixels.
        depth: see :class:`SplitInstances`.
        allow_missing_keys: whether items without a key are skipped.
    """

    def __init__(
        self, keys: KeysCollection, min_size: int = 10, depth: float = 0.15, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = SplitInstances(min_size, depth)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Number the objects in the label maps of one item."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key])
        return d


def _peaks(distance: npt.NDArray[np.float32], height: float) -> npt.NDArray[np.bool_]:
    from skimage.morphology import local_maxima, reconstruction

    # the maxima that remain after filling those below the height
    return np.asarray(local_maxima(reconstruction(distance - max(height, 1e-3), distance)), dtype=bool)


def _watershed() -> Any:
    try:
        from skimage.segmentation import watershed
    except ImportError as e:
        raise ImportError(
            f"Splitting instances needs scikit-image. Install it with: {install_command('instances')}"
        ) from e
    return watershed

"""MONAI transforms that check labels, and leave out voxels to ignore."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.networks import one_hot
from monai.transforms import MapTransform, RandCropByPosNegLabeld
from monai.transforms.utils import map_binary_to_indices
from monai.utils import MetaKeys, convert_to_tensor

from monai_unetpp.data.formats.grid import ImageGeometry, check_same_grid
from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.data.formats.source_files import file_of
from monai_unetpp.errors import list_values
from monai_unetpp.losses import has_label


class CheckLabelsd(MapTransform):
    """Refuse label maps that are not on the grid of their image, or hold values without a class.

    The grids of the files are compared, so this may stand anywhere after ``LoadImaged``, best directly after it.

    Args:
        keys: label maps ``(1, H, W[, D])``.
        image_key: key of the image.
        classes: number of classes of the network with the background, where one output separates one class from the
            background; or the label values allowed besides 0.
        ignore_label: value of voxels that loss and scores leave out.
        allow_missing_keys: whether items without a key are skipped.

    Raises:
        ImageFileError: when called.

    Example:
        >>> import torch
        >>> item = {"image": torch.rand(1, 4, 4), "label": torch.full((1, 4, 4), 2.0)}
        >>> CheckLabelsd("label", image_key="image", classes=2)(item)
        Traceback (most recent call last):
        ...
        monai_unetpp.data.formats.image_errors.ImageFileError: label: the label must hold 0 and 1 only, got 2. ...
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str,
        classes: int | Sequence[int],
        ignore_label: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key
        values = range(1, max(int(classes), 2)) if isinstance(classes, (int, np.integer)) else classes
        self.values = sorted({0, *values, *([] if ignore_label is None else [ignore_label])})

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check the label maps of one item, which is returned unchanged."""
        d = dict(data)
        for key in self.key_iterator(d):
            file, image = file_of(d[key], key), d[self.image_key]
            check_same_grid(file, _grid_of_file(d[key]), file_of(image, self.image_key), _grid_of_file(image))
            self._check_values(d[key], file)
        return d

    def _check_values(self, label: Any, file: str) -> None:
        values = convert_to_tensor(label)
        if values.dtype in (torch.bool, torch.uint16, torch.uint32):
            # torch.isin does not take them
            values = values.long()
        allowed = torch.tensor(self.values, device=values.device)
        cast = allowed.to(values.dtype)
        known = torch.isin(values, cast[cast.to(torch.float64) == allowed])
        if not bool(known.all()):
            found = list_values([f"{value:g}" for value in values[~known].unique().tolist()])
            others = list_values([value for value in self.values if value])
            raise ImageFileError(
                f"{file}: the label must hold 0 and {others} only, got {found}. Correct the "
                "label map, or use a network with more classes."
            )


class OneHotLabelsd(MapTransform):
    """Turn label maps into one channel per class for MONAI's metrics, all 0 at voxels to ignore.

    Ignored voxels count for no class, so metrics are computed on all other voxels.

    Args:
        keys: label maps ``(1, H, W[, D])`` on one grid: predictions, and the truth last.
        classes: channels of the result, with the background.
        ignore_label: value of the voxels to ignore in the truth; None for none.

    Example:
        >>> import torch
        >>> item = {"pred": torch.tensor([[1.0, 1.0, 0.0]]), "label": torch.tensor([[1.0, 2.0, 0.0]])}
        >>> found = OneHotLabelsd(["pred", "label"], classes=2, ignore_label=2)(item)
        >>> found["pred"].tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """

    def __init__(self, keys: KeysCollection, classes: int, ignore_label: int | None = None) -> None:
        super().__init__(keys)
        self.classes = classes
        self.ignore_label = ignore_label

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert the label maps of one item."""
        d = dict(data)
        truth = convert_to_tensor(d[self.keys[-1]])
        ignored = None if self.ignore_label is None else has_label(truth, self.ignore_label)
        for key in self.key_iterator(d):
            labels = d[key]
            left_out = None if ignored is None else ignored.to(labels.device)
            if left_out is not None:
                labels = torch.where(left_out, torch.zeros_like(labels), labels)
            channels = one_hot(labels, num_classes=self.classes, dim=0)
            d[key] = channels if left_out is None else channels.masked_fill(left_out, 0)
        return d


class RandCropByKnownLabeld(RandCropByPosNegLabeld):
    """MONAI's ``RandCropByPosNegLabeld`` with patches centred on labelled voxels.

    MONAI counts all values above 0 as foreground, even voxels to ignore, from which nothing can be learned. Here they
    are neither foreground nor background. If there are no others, patches lie anywhere.

    Args:
        arguments: arguments of ``RandCropByPosNegLabeld``.
        ignore_label: value of the voxels to ignore; None for none.
        options: keyword arguments of ``RandCropByPosNegLabeld``.

    Example:
        >>> import torch
        >>> crop = RandCropByKnownLabeld("label", "label", (1, 1), pos=1, neg=0, ignore_label=2)
        >>> crop({"label": torch.tensor([[[0.0, 1.0], [2.0, 2.0]]])})[0]["label"].item()
        1.0
    """

    def __init__(self, *arguments: Any, ignore_label: int | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.ignore_label = ignore_label

    def randomize(
        self,
        label: torch.Tensor | None = None,
        fg_indices: Any = None,
        bg_indices: Any = None,
        image: torch.Tensor | None = None,
    ) -> None:
        """Choose the centres of the patches."""
        if self.ignore_label is not None and label is not None:
            known = ~has_label(convert_to_tensor(label, track_meta=False), self.ignore_label).any(dim=0).flatten()
            if fg_indices is None or bg_indices is None:
                fg_indices, bg_indices = map_binary_to_indices(label, image, self.cropper.image_threshold)
            places = (torch.as_tensor(each, dtype=torch.long, device=known.device) for each in (fg_indices, bg_indices))
            fg_indices, bg_indices = (each[known[each]] for each in places)
            if not len(fg_indices) and not len(bg_indices):
                bg_indices = torch.arange(len(known))
        super().randomize(label, fg_indices, bg_indices, image)


def _grid_of_file(image: Any) -> ImageGeometry:
    """The grid of an image before any transform; for arrays without metadata, the current one."""
    shape, affine = tuple(image.shape[1:]), np.eye(4)
    if isinstance(image, MetaTensor):
        shape = tuple(int(length) for length in image.meta.get(MetaKeys.SPATIAL_SHAPE, shape))
        affine = np.asarray(image.meta.get(MetaKeys.ORIGINAL_AFFINE, image.affine), dtype=np.float64)
    return ImageGeometry(shape, affine)

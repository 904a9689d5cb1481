"""Labels, channels and modality of a data set, whatever its form."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from monai_unetpp.data.datasets.case_check import label_values
from monai_unetpp.data.datasets.datalist import LISTS, load_datalist, read_content, read_form
from monai_unetpp.data.datasets.forms import Form
from monai_unetpp.data.datasets.label_names import name_values, read_label_names
from monai_unetpp.data.datasets.network_names import UNNAMED, read_channel_names, wrong_channel_names
from monai_unetpp.data.formats.grid import channel_axes, warn_once
from monai_unetpp.data.formats.nifti import open_nifti
from monai_unetpp.data.formats.pictures import has_colours, is_coloured
from monai_unetpp.data.formats.reader import read_label_map
from monai_unetpp.data.formats.suffixes import is_nifti_name, is_picture_name
from monai_unetpp.data.formats.tiff import COLOURS
from monai_unetpp.errors import counted

logger = logging.getLogger(__name__)

Modality = Literal["CT", "MR", "other"]

#: Words of a channel's name, which may be joined by ``_``.
_WORDS = r"(?<![^\W_])({})(?![^\W_])"
_CT = re.compile(_WORDS.format("CT|CBCT|computed tomography"), re.IGNORECASE)
_MR = re.compile(_WORDS.format(r"MRI?|T1\w*|T2\w*|FLAIR|PD|DWI|ADC|magnetic resonance"), re.IGNORECASE)
#: Channels of pictures in a data set that does not name them.
_COLOUR_NAMES = ("red", "green", "blue")


@dataclasses.dataclass(frozen=True)
class DataSetDescription:
    """Facts about a data set, from its ``dataset.json`` and its first case.

    Attributes:
        form: the form it came in.
        name: its name, or that of its folder.
        spatial_dims: 2 or 3, as in the first label.
        channels: name of every channel.
        labels: value by name, without the background and ``ignore``.
        ignore_label: value of voxels without a label; None if there are none.
        modality: taken from the channels' names; None if they do not tell.
    """

    form: Form
    name: str
    spatial_dims: int
    channels: tuple[str, ...]
    labels: dict[str, int]
    ignore_label: int | None
    modality: Modality | None


def describe_data_set(dataset_dir: str | PathLike[str], **subjects: Any) -> DataSetDescription:
    """Describe labels and channels of a data set from its ``dataset.json`` and its first case.

    Without a ``dataset.json`` all label maps are read for their values, and value 3 is called ``label_3``. Red, green
    and blue of single pictures are three channels where three are named, or where none is named and all have colours.

    Args:
        dataset_dir: folder in any form that :func:`monai_unetpp.data.load_datalist` takes.
        **subjects: how ``load_datalist`` finds them: ``subjects`` and ``subject_pattern``.

    Raises:
        FileNotFoundError: there is no data set.
        ValueError: it is unusable, or its ``dataset.json`` names no labels.
    """
    path = Path(dataset_dir) / "dataset.json"
    content = read_content(path)
    training = load_datalist(dataset_dir, "training", **subjects)
    form = read_form(path)
    cases = training
    if form == "folder":
        cases = [case for key in LISTS for case in load_datalist(dataset_dir, key, **subjects)]
        scanned = (label_values(read_label_map(Path(case["label"])).data) for case in cases)
        names = name_values(path.parent, frozenset[int]().union(*scanned))
    else:
        names = read_label_names(path, content.get("labels"))
    spatial_dims = _spatial_dims(training)
    images, named = [case["image"] for case in cases], read_channel_names(content)
    channels = _colour_channels(path, named, images) or _channels(path, named, images[0], spatial_dims)
    return DataSetDescription(
        form=form,
        name=str(content.get("name") or Path(dataset_dir).resolve().name),
        spatial_dims=spatial_dims,
        channels=channels,
        labels=names.foreground,
        ignore_label=names.ignore,
        modality=_modality(channels),
    )


def _spatial_dims(cases: Sequence[Mapping[str, Any]]) -> int:
    """Two or three, by most of a few cases: one may be a single slice of a volume."""
    looked_at = {0, len(cases) // 2, len(cases) - 1}
    found = [read_label_map(Path(cases[number]["label"])).data.ndim for number in sorted(looked_at)]
    return max(found, key=lambda dims: (found.count(dims), dims))


def _colour_channels(path: Path, named: Sequence[str], images: Sequence[Any]) -> tuple[str, ...]:
    """The names of red, green and blue where these are channels; where they are not, averaged colours are told."""
    single = [image for image in images if isinstance(image, str) and is_picture_name(image)]
    grey = None
    if not named and len(single) == len(images):
        # headers are faster than pixels
        grey = next((file for told in (has_colours, is_coloured) for file in single if not told(file)), None)
        if grey is None:
            logger.warning("%s: all pictures have colours. They are read as three channels.", path.parent)
            return _COLOUR_NAMES
    elif len(named) == COLOURS and images[0] in single and any(map(has_colours, single)):
        return tuple(named)
    files = single if grey else [images[0]] if isinstance(images[0], str) else images[0]
    coloured = next((file for file in files if is_picture_name(file) and is_coloured(file)), None)
    if coloured is not None:
        logger.warning(
            "%s: has colours, which are averaged to one channel. To use them, store each in a file of its own, such as "
            "case_0000.png, case_0001.png and case_0002.png%s.",
            coloured,
            f", or leave out {grey}, which has none" if grey else ", or name three channels" if single else "",
        )
    return ()


def _channels(path: Path, names: Sequence[str], image: Any, spatial_dims: int) -> tuple[str, ...]:
    """The names of the channels, in their order."""
    if isinstance(image, list):
        count = len(image)
    else:
        count = channel_axes(open_nifti(image).shape, spatial_dims)[1] if is_nifti_name(image) else 1
    # an extra axis may be time
    if count not in (1, len(names)) and not (isinstance(image, list) or read_form(path) == "folder"):
        raise ValueError(
            f"{path}: must name the channels of the images, got {counted(len(names), 'name')} for {count} on "
            f"the last axis of {image}. Name them, or give images without this axis."
        )
    if len(names) == count:
        return tuple(name.strip() or f"channel_{number}" for number, name in enumerate(names))
    if names:
        warn_once(wrong_channel_names(path, len(names), count))
    return tuple(f"channel_{number}" for number in range(count))


def _modality(channels: Sequence[str]) -> Modality | None:
    if all(UNNAMED.fullmatch(name) for name in channels):
        return None
    for modality, pattern in (("CT", _CT), ("MR", _MR)):
        if all(pattern.search(name) for name in channels):
            return modality  # type: ignore[return-value]
    return "other"

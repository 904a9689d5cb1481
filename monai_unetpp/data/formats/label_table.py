"""Labels with name and colour, and their table in the header of a NIfTI file."""

from __future__ import annotations

import colorsys
import dataclasses
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from nibabel.nifti1 import Nifti1Extension

from monai_unetpp.errors import printable

__all__ = ["Label", "label_table_extension", "make_labels"]

#: Colours of Okabe and Ito, distinct in all common kinds of colour blindness.
_FIRST = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
#: Step of the hue from label to label: the golden ratio keeps hues apart.
_GOLDEN = 0.61803398875
#: Code of an unregistered NIfTI extension, which programs expect for label tables.
_CODE = 0
_HEADER_BYTES, _BLOCK_BYTES = 8, 16


@dataclasses.dataclass(frozen=True)
class Label:
    """One label.

    Attributes:
        value: its value in label maps, from 1.
        name: name of the structure.
        colour: red, green and blue, each from 0 to 255.
    """

    value: int
    name: str
    colour: tuple[int, int, int]

    @property
    def hex_colour(self) -> str:
        """The colour as text, such as ``"#e69f00"``."""
        return "#{:02x}{:02x}{:02x}".format(*self.colour)


def make_labels(names: Mapping[int, str]) -> tuple[Label, ...]:
    """Labels by value, with a colour that depends on the value alone.

    Args:
        names: name of each value, without the background.

    Example:
        >>> [label.hex_colour for label in make_labels({1: "anterior", 2: "posterior"})]
        ['#e69f00', '#56b4e9']
    """
    return tuple(Label(value, printable(name), _colour(value)) for value, name in sorted(names.items()))


def label_table_extension(labels: Mapping[int, str]) -> Nifti1Extension:
    """Make the NIfTI header extension from which Connectome Workbench, TotalSegmentator and others read labels."""
    root: Any = ElementTree.Element("CaretExtension")
    volume = ElementTree.SubElement(root, "VolumeInformation", Index="0")
    table = ElementTree.SubElement(volume, "LabelTable")
    for label in make_labels(labels):
        shares = (f"{part / 255:.4f}" for part in label.colour)
        attributes = dict(zip(("Red", "Green", "Blue"), shares, strict=True)) | {"Key": str(label.value), "Alpha": "1"}
        ElementTree.SubElement(table, "Label", attributes).text = label.name
    ElementTree.SubElement(volume, "StudyMetaDataLinkSet")
    ElementTree.SubElement(volume, "VolumeType").text = "Label"
    text = b'<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="utf-8")
    # pad the block with spaces: some parsers stumble over zeros
    return Nifti1Extension(_CODE, text + b" " * (-(len(text) + _HEADER_BYTES) % _BLOCK_BYTES))


def _colour(value: int) -> tuple[int, int, int]:
    if 1 <= value <= len(_FIRST):
        return _FIRST[value - 1]
    red, green, blue = colorsys.hsv_to_rgb(value * _GOLDEN % 1, 0.75, 0.6 + 0.4 * (value % 2))
    return round(255 * red), round(255 * green), round(255 * blue)

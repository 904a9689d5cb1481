"""Names and colours of labels, in the formats of ITK-SNAP, 3D Slicer and BIDS."""

from __future__ import annotations

from collections.abc import Mapping

from monai_unetpp.data.formats.label_table import make_labels
from monai_unetpp.files import MARK

#: Their files in a folder of results.
TABLE_FILES = {"itk_snap": "labels.label", "slicer": "labels.ctbl"}
#: A further one in BIDS data sets.
BIDS_TABLE_FILE = "dseg.tsv"


def label_tables(names: Mapping[int, str], is_bids: bool) -> dict[str, str]:
    """The tables of a folder of results, text by file name; a BIDS data set has a further one."""
    tables = {TABLE_FILES["itk_snap"]: itk_snap_table(names), TABLE_FILES["slicer"]: slicer_table(names)}
    return {**tables, **({BIDS_TABLE_FILE: bids_table(names)} if is_bids else {})}


def itk_snap_table(names: Mapping[int, str]) -> str:
    """Label descriptions of ITK-SNAP: number, colour, opacity, visibility in 2D and 3D, and name.

    Args:
        names: name of each value, without the background.
    """
    rows = [(0, (0, 0, 0), 0, 0, "Clear Label")]
    rows += [(label.value, label.colour, 1, 1, label.name.replace('"', "'")) for label in make_labels(names)]
    lines = [
        f'{value:5d} {red:5d} {green:4d} {blue:4d} {opacity:9d} {shown:4d} {shown:4d}    "{name}"'
        for value, (red, green, blue), opacity, shown, name in rows
    ]
    return "\n".join([f"# written by {MARK}: label descriptions of ITK-SNAP", *lines, ""])


def slicer_table(names: Mapping[int, str]) -> str:
    """A colour table of 3D Slicer: number, name without spaces, red, green, blue and opacity.

    Args:
        names: name of each value, without the background.
    """
    lines = [
        f"{label.value} {'_'.join(label.name.split())} {' '.join(map(str, label.colour))} 255"
        for label in make_labels(names)
    ]
    return "\n".join([f"# written by {MARK}: colour table of 3D Slicer", "0 background 0 0 0 0", *lines, ""])


def read_slicer_table(text: str) -> dict[int, str]:
    """The name of each value, with ``_`` for spaces, in a colour table of 3D Slicer; other lines are left out."""
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {int(row[0]): row[1] for row in rows if len(row) > 1 and row[0].isascii() and row[0].isdecimal()}


def bids_table(names: Mapping[int, str]) -> str:
    """A table of BIDS: number, name and colour."""
    rows = [("index", "name", "color"), ("0", "background", "#000000")]
    rows += [(str(label.value), label.name, label.hex_colour) for label in make_labels(names)]
    return "".join("\t".join(row) + "\n" for row in rows)

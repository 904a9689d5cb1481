"""What can be chosen when images are segmented. Importing this module takes no torch.

:func:`monai_unetpp.segmentation.segment_files` takes these options by name, and the command line derives
its own from them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

from monai_unetpp.choices import BUNDLE_HELP, DEVICE_HELP, PRECISIONS, RUNTIMES
from monai_unetpp.options import OnOrOff, as_level, option, own_shard

__all__ = ["SegmentationOptions"]

_Path = str | PathLike[str]
_SPEED, _OBJECTS, _SETS = "speed and accuracy", "bundles of images", "BIDS and DICOM"
#: Keys that are not settings of a bundle.
_OWN = (
    "inputs",
    "output_dir",
    "bundle",
    "within",
    "mask",
    "device",
    "profile",
    "suffix",
    "series",
    "dicom_seg",
    "skip_existing",
    "shard",
)


@dataclasses.dataclass(frozen=True)
class SegmentationOptions:
    """Which images are segmented, by which bundle, and how. What is None is as the bundle says.

    Attributes:
        inputs: image files, folders of them, DICOM series folders, or folders with ``dataset.json``.
        output_dir: folder for ``<case>_seg.nii.gz``, or PNG or TIFF for such images: integer labels on the input's own
            grid. It may be left out for a BIDS data set: ``derivatives/monai-unetpp`` in it.
        bundle: name or folder of a bundle. One must be named: each takes other images.
        within: name or folder of a bundle that finds the place in the scan: ``bundle`` then segments crops around its
            labels, or the scan outside of its brain mask made background, as the metadata of ``bundle`` says.
        mask: whether to write a brain mask beside each label map, for bundles (of ``within``, if there is one) whose
            metadata say which labels make it.
        list_key: list of ``dataset.json`` to segment, where ``inputs`` are such folders, such as ``"validation"``.
        level: such as ``"L2"`` or 2: build and run only what this level needs; by default the deepest.
        adaptive: tolerance from 0 to 1, such as 0.03: each window runs only as deep as two neighbouring levels come to
            differ by less (in ``1 - Dice`` of every class); not together with ``level``.
        device: such as ``"cpu"`` or ``"cuda:0"``; by default a GPU if there is one.
        runtime: ``"auto"``, ``"torch"``, ``"compile"`` or ``"openvino"``.
        precision: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        overlap: part of a window that the next one covers again, from 0 to below 1: less is faster.
        window_shape: ``"auto"`` takes as few and as large windows as memory allows, for bundles whose network does not
            mind what else is in a window (batch norm); otherwise they are as the bundle says.
        flips: axes of the image to flip at test time, 0 the first; ``[]`` for none, which is fastest.
        smooth: whether each class is interpolated on the input's grid, for smoother borders, instead of the labels.
        instances: whether every object gets a number of its own, for bundles that find many of a kind.
        slice_axis: for bundles of images: the axis of volumes across which the slices lie, 0 the first, -1 the last.
        suffix: of a BIDS data set, what the names of the images end in; by default ``"T1w"``.
        series: of a folder with several DICOM series: the number, UID or description of one, or ``"all"`` for each
            that is a volume.
        dicom_seg: whether to write a DICOM SEG beside each label map of a DICOM series.
        skip_existing: whether images are passed over whose result is there already, made of the same content by the
            same weights and options.
        shard: ``"K/N"`` for every N-th case from the K-th on: N processes, on any computers that see one
            ``output_dir``, share the cases. Under ``torchrun`` the processes share them by rank.
        overwrite: whether results of other images in ``output_dir`` may be replaced; otherwise the case fails before
            the network works on it. Results of the same image always are, and files of others never.
        profile: whether to measure the stages of the work; then nothing is done at the same time.

    Raises:
        TypeError: inputs that are not paths.
        ValueError: no such runtime or precision, or a tolerance that cannot be.
    """

    inputs: _Path | Sequence[_Path] = option(
        flags=("inputs", "-i", "--input"),
        nargs="+",
        metavar="INPUT",
        help="image file (NIfTI, .nrrd, .mha, DICOM, ...; for bundles of images also PNG and TIFF), folder of them, "
        "DICOM series folder, BIDS data set, or data set (a folder with dataset.json, or with images and labels)",
    )
    output_dir: _Path | None = option(
        flags=("-o", "--output", "--output_dir"),
        required=False,
        metavar="DIR",
        help="folder for <case>_seg.nii.gz, .png or .tif, in the form of the input (default for a BIDS data set: its "
        "derivatives/monai-unetpp)",
    )
    bundle: _Path | None = option(None, metavar="BUNDLE", help=BUNDLE_HELP)
    within: _Path | None = option(
        None,
        metavar="BUNDLE",
        help="bundle that finds the place in the scan: the one of --bundle then segments "
        "there, for pairs that its metadata name",
    )
    mask: bool = option(
        False, help="write a brain mask beside each label map, for bundles whose metadata say which labels make it"
    )
    list_key: str | None = option(
        None,
        metavar="KEY",
        help="list of dataset.json to segment, such as validation (default: test if there is one, else validation, "
        "else training)",
    )
    level: str | int | None = option(
        None,
        type=as_level,
        metavar="LEVEL",
        help="L1 or 1, L2, ...: build and run only what this level needs (default: the deepest)",
    )
    adaptive: float | None = option(
        None,
        group=_SPEED,
        type=float,
        metavar="TOLERANCE",
        help="run each window only as deep as it needs: until two neighbouring levels differ by less than this in "
        "1 - Dice of every class, such as 0.03 (default: all windows at one level); prune --settings adaptive=... "
        "tells what it costs",
    )
    device: str | None = option(None, metavar="DEVICE", help=DEVICE_HELP)
    runtime: str | None = option(
        None, group=_SPEED, choices=RUNTIMES, help="what computes the network; auto: the fastest here"
    )
    precision: str | None = option(
        None, group=_SPEED, choices=PRECISIONS, help="auto: bf16 where the device has it, else fp32"
    )
    overlap: float | None = option(
        None,
        group=_SPEED,
        type=float,
        metavar="SHARE",
        help="of neighbouring windows, from 0 to below 1: less is faster",
    )
    window_shape: str | None = option(
        None,
        group=_SPEED,
        choices=("auto",),
        help="auto: as few and as large windows as memory allows, for networks with batch norm (default: the bundle's)",
    )
    flips: Sequence[int] | None = option(
        None,
        flags=("--no_flips",),
        group=_SPEED,
        action="store_const",
        const=(),
        help="no flips at test time: as many times faster",
    )
    smooth: bool | None = option(
        None,
        flags=("--smooth", "--no_smooth"),
        group=_SPEED,
        action=OnOrOff,
        help="interpolate each class on the input's grid: smoother borders, takes longer; or the labels (default: the "
        "bundle's)",
    )
    instances: bool | None = option(
        None, group=_OBJECTS, action="store_true", help="number and count the objects, split where they touch"
    )
    slice_axis: int | None = option(
        None,
        group=_OBJECTS,
        type=int,
        metavar="AXIS",
        help="axis of volumes across which the slices lie: 0, 1, 2 or -1",
    )
    suffix: str | None = option(
        None,
        group=_SETS,
        metavar="SUFFIX",
        help="what the names of the images of a BIDS data set end in (default: T1w)",
    )
    series: str | None = option(
        None,
        group=_SETS,
        metavar="SERIES",
        help="of a folder with several DICOM series: number, UID or description of one, or all for each that is a "
        "volume",
    )
    dicom_seg: bool = option(False, group=_SETS, help="write a DICOM SEG beside each label map of a DICOM series")
    skip_existing: bool = option(
        False,
        help="pass over images whose result is there already, made by the same weights and options",
    )
    shard: str | None = option(
        None,
        metavar="K/N",
        help="do every N-th case from the K-th on: N processes with one output folder share the cases",
    )
    overwrite: bool = option(
        False, help="replace results of other images that have the same name (default: these cases fail)"
    )
    profile: bool = option(False, help="show where the time goes; nothing is done at the same time then")

    def __post_init__(self) -> None:
        given: Any = self.inputs
        paths = [given] if isinstance(given, (str, PathLike)) else given
        if not isinstance(paths, (list, tuple)) or not all(isinstance(path, (str, PathLike)) for path in paths):
            raise TypeError(f"inputs must be a path or a list of paths, got {given!r}. Name a file or a folder.")
        object.__setattr__(self, "inputs", tuple(map(fspath, paths)))
        if self.level is not None:
            object.__setattr__(self, "level", as_level(str(self.level)))
        for name, known in (("runtime", RUNTIMES), ("precision", PRECISIONS)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}. Correct the name.")
        if self.within is not None and (self.instances or self.slice_axis is not None):
            raise ValueError("within must be left out together with instances or slice_axis. It is for volumes.")
        if self.adaptive is not None and not 0 <= self.adaptive <= 1:
            raise ValueError(f"adaptive must lie between 0 and 1, got {self.adaptive!r}. 0.03 is a good start.")
        if self.adaptive is not None and self.level is not None:
            raise ValueError(
                f"adaptive and level exclude each other, got {self.adaptive!r} and {self.level!r}. Leave one out: "
                "adaptive chooses the level of each window."
            )
        self.part()

    def part(self) -> tuple[int, int]:
        """K and N of the cases of this process."""
        return own_shard(self.shard)

    @property
    def paths(self) -> list[str]:
        """The inputs, also where there is only one."""
        given: Any = self.inputs
        return list(given)

    def settings_within(self) -> dict[str, Any]:
        """What is set in the ``inference.json`` of the bundle of ``within``: where cases are found, and how it runs."""
        taken = ("list_key", "overwrite", "runtime", "precision")
        return {name: value for name, value in self.settings().items() if name in taken}

    def settings(self) -> dict[str, Any]:
        """What is set in a bundle's ``inference.json``, by the name of its key; the others are as it says."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        # so that bundles without the key take what is false anyway
        values["overwrite"] = self.overwrite or None
        values["adaptive_tolerance"] = values.pop("adaptive")
        values["flips"] = None if self.flips is None else list(self.flips)
        return {name: value for name, value in values.items() if name not in _OWN and value is not None}

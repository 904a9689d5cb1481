"""Options for segmenting images. Does not import torch.

:func:`monai_unetpp.segmentation.segment_files` takes them by name, and the command line is derived from them.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

from monai_unetpp.choices import BUNDLE_HELP, DEVICE_HELP, PRECISIONS, RUNTIMES, SUBJECT_PATTERN_HELP, SUBJECTS_HELP
from monai_unetpp.options import OUTPUT_FLAGS, OnOrOff, as_level, option, own_shard

__all__ = ["ABOUT_FILES", "SegmentationOptions"]

_Path = str | PathLike[str]
_SPEED, _OBJECTS, _SETS = "speed and accuracy", "2D bundles", "BIDS and DICOM"
#: Fields that are not settings of a bundle.
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

ABOUT_FILES = ("list_key", "subjects", "subject_pattern", "overwrite")
"""Settings of a bundle that say which images to segment and what to replace, not how."""


@dataclasses.dataclass(frozen=True)
class SegmentationOptions:
    """Which images to segment, with which bundle, and how. None keeps the bundle's own setting.

    Attributes:
        inputs: image files, folders of them, DICOM series folders, or folders with ``dataset.json``.
        output_dir: folder for ``<case>_seg.nii.gz``, or PNG or TIFF for such images: integer labels on the input's own
            grid. Optional for a BIDS data set, where the default is its ``derivatives/monai-unetpp``.
        bundle: name or folder of a bundle. Required, as each is for one kind of image.
        within: name or folder of a bundle that locates the structure in the scan: ``bundle`` then segments crops around
            its labels, or the scan with everything outside its brain mask set to background, according to the metadata
            of ``bundle``.
        mask: whether to write a brain mask beside each label map. The metadata of the bundle (of ``within``, if given)
            must define its labels.
        list_key: list of ``dataset.json`` to segment, such as ``"validation"``, if the inputs are such folders.
        subjects: CSV file with the columns ``case`` and ``subject``. If the list of ``list_key`` must be drawn, it is
            the same as that of a training with this file.
        subject_pattern: regular expression with one group that finds the subject in the case's name, likewise.
        level: such as ``"L2"`` or 2: build and run only the nodes that this level needs; by default the
            level that the bundle chooses.
        adaptive: tolerance from 0 to 1, such as 0.033: each window stops at the level where two successive levels
            differ by less (in ``1 - Dice`` of every class). Not together with ``level``.
        device: such as ``"cpu"`` or ``"cuda:0"``; by default a GPU if there is one.
        runtime: ``"auto"``, ``"torch"``, ``"compile"`` or ``"openvino"``.
        precision: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        overlap: share of a window that overlaps with the next, from 0 to below 1: less is faster.
        window_shape: ``"auto"`` uses as few and as large windows as memory allows, for networks with batch norm, whose
            output does not depend on the size of the window.
        flips: axes of the image to flip at test time, 0 the first; ``[]`` for none, which is fastest.
        skip_constant: whether to run the network only once on windows that hold one and the same value throughout, such
            as empty background. The labels stay the same, but for rounding, which instance norms amplify there.
        smooth: whether to resample probabilities instead of labels to the input's grid, for smoother borders.
        instances: whether to number every object, for bundles that segment many objects of one kind.
        slice_axis: for 2D bundles: the axis of volumes along which the slices are stacked, 0 the first, -1 the last.
        suffix: suffix of the images of a BIDS data set; by default ``"T1w"``.
        series: for folders with several DICOM series: the number, UID or description of one, or ``"all"`` for every
            volume.
        dicom_seg: whether to write a DICOM SEG beside each label map of a DICOM series.
        skip_existing: whether to skip images that already have a result from the same content, weights, settings
            and options.
        shard: ``"K/N"`` for every N-th case from the K-th on: N processes, on any computers with access to
            ``output_dir``, share the cases. Under ``torchrun`` the processes share them by rank.
        overwrite: whether to replace results of other images with the same name; otherwise the case fails before the
            network runs, also where its result was changed since it was written, such as by hand. Other results of the
            same image are always replaced, files of other programs never.
        profile: whether to measure the stages of the work, which then run one after the other.

    Raises:
        TypeError: inputs that are not paths.
        FileNotFoundError: there is no file ``subjects``.
        ValueError: unknown runtime or precision, a tolerance out of range, or options that exclude each other.
    """

    inputs: _Path | Sequence[_Path] = option(
        flags=("inputs", "-i", "--input"),
        nargs="+",
        metavar="INPUT",
        help="image file (NIfTI, .nrrd, .mha, DICOM, ...; for 2D bundles also PNG, JPEG and TIFF), folder of such "
        "files, DICOM series folder, BIDS data set, or data set (a folder with dataset.json, or with images and "
        "labels)",
    )
    output_dir: _Path | None = option(
        flags=OUTPUT_FLAGS,
        required=False,
        metavar="DIR",
        help="folder for <case>_seg.nii.gz, .png or .tif, in the format of the input, PNG for JPEG (default for a BIDS "
        "data set: its derivatives/monai-unetpp)",
    )
    bundle: _Path | None = option(None, metavar="BUNDLE", help=BUNDLE_HELP)
    within: _Path | None = option(
        None,
        metavar="BUNDLE",
        help="bundle that locates the structure in the scan, for --bundle to segment there; only for pairs that the "
        "metadata of --bundle name",
    )
    mask: bool = option(
        False, help="write a brain mask beside each label map, for bundles whose metadata define its labels"
    )
    list_key: str | None = option(
        None,
        metavar="KEY",
        help="list of dataset.json to segment, such as validation (default: test if there is one, else validation, "
        "else training)",
    )
    subjects: _Path | None = option(
        None, metavar="FILE", help=f"if the list of --list_key must be drawn: {SUBJECTS_HELP}"
    )
    subject_pattern: str | None = option(
        None, metavar="REGEX", help=f"if the list of --list_key must be drawn: {SUBJECT_PATTERN_HELP}"
    )
    level: str | int | None = option(
        None,
        type=as_level,
        metavar="LEVEL",
        help="L1 or 1, L2, ...: build and run only the nodes of this level (default: the bundle's own)",
    )
    adaptive: float | None = option(
        None,
        group=_SPEED,
        type=float,
        metavar="TOLERANCE",
        help="choose the depth of each window: stop where two successive levels differ by less than this in "
        "1 - Dice of every class, such as 0.033 (default: all windows at one level); prune --settings adaptive=... "
        "measures the loss of accuracy",
    )
    device: str | None = option(None, metavar="DEVICE", help=DEVICE_HELP)
    runtime: str | None = option(
        None, group=_SPEED, choices=RUNTIMES, help="what runs the network; auto: the fastest on this machine"
    )
    precision: str | None = option(
        None, group=_SPEED, choices=PRECISIONS, help="auto: bf16 if the device supports it, else fp32"
    )
    overlap: float | None = option(
        None,
        group=_SPEED,
        type=float,
        metavar="SHARE",
        help="overlap of neighbouring windows, from 0 to below 1: less is faster",
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
        help="no flips at test time; F flipped axes take 2^F times as long",
    )
    skip_constant: bool | None = option(
        None,
        group=_SPEED,
        action="store_true",
        help="run the network once on all windows with the same value throughout, such as empty background: the same "
        "labels, sooner with small windows",
    )
    smooth: bool | None = option(
        None,
        flags=("--smooth", "--no_smooth"),
        group=_SPEED,
        action=OnOrOff,
        help="resample probabilities instead of labels to the input's grid: smoother borders, slower (default: the "
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
        help="axis of volumes along which the slices are stacked: 0, 1, 2 or -1",
    )
    suffix: str | None = option(
        None, group=_SETS, metavar="SUFFIX", help="suffix of the images of a BIDS data set (default: T1w)"
    )
    series: str | None = option(
        None,
        group=_SETS,
        metavar="SERIES",
        help="for folders with several DICOM series: number, UID or description of one, or all for every volume",
    )
    dicom_seg: bool = option(False, group=_SETS, help="write a DICOM SEG beside each label map of a DICOM series")
    skip_existing: bool = option(False, help="skip images that already have a result from the same weights and options")
    shard: str | None = option(
        None,
        metavar="K/N",
        help="do every N-th case from the K-th on: N processes with one output folder share the cases",
    )
    overwrite: bool = option(
        False,
        help="replace results of other images with the same name, and label maps that were edited after they were "
        "written (default: such cases fail)",
    )
    profile: bool = option(False, help="show where the time goes; all steps then run one after the other")

    def __post_init__(self) -> None:
        given: Any = self.inputs
        paths = [given] if isinstance(given, (str, PathLike)) else given
        if not isinstance(paths, (list, tuple)) or not all(isinstance(path, (str, PathLike)) for path in paths):
            raise TypeError(f"inputs must be a path or a list of paths, got {given!r}. Name a file or a folder.")
        if not paths:
            raise ValueError("inputs must name a file or a folder, got none. Check the pattern that gave the list.")
        # which would be the working directory, as of a variable that is not set
        for name, path in (*(("inputs", path) for path in paths), ("output_dir", self.output_dir)):
            if path is not None and not fspath(path):
                raise ValueError(f"{name} must be a path, got an empty name. Write . for the working directory.")
        object.__setattr__(self, "inputs", tuple(map(fspath, paths)))
        if self.level is not None:
            object.__setattr__(self, "level", as_level(str(self.level)))
        for name, known in (("runtime", RUNTIMES), ("precision", PRECISIONS)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}. Correct the name.")
        for name in ("subjects", "subject_pattern"):
            value = getattr(self, name)
            if value is not None and self.list_key is None:
                raise ValueError(f"{name} must be given with list_key, got {value!r} alone. Name the list to segment.")
        if self.subjects is not None and not os.path.isfile(self.subjects):
            raise FileNotFoundError(f"{fspath(self.subjects)}: no such file. subjects must be a {SUBJECTS_HELP}.")
        if self.within is not None and (self.instances or self.slice_axis is not None):
            raise ValueError("within must not be combined with instances or slice_axis. It is for volumes.")
        if self.dicom_seg and self.instances:
            raise ValueError("dicom_seg must not be combined with instances. A DICOM SEG has a segment for each label.")
        if self.adaptive is not None and not 0 <= self.adaptive <= 1:
            raise ValueError(f"adaptive must lie between 0 and 1, got {self.adaptive!r}. 0.033 is a good start.")
        if self.adaptive is not None and self.level is not None:
            raise ValueError(
                f"adaptive and level exclude each other, got {self.adaptive!r} and {self.level!r}. Leave one out: "
                "adaptive chooses the level of each window."
            )
        self.part()

    def part(self) -> tuple[int, int]:
        """K and N of this process, which does every N-th case from the K-th on."""
        return own_shard(self.shard)

    @property
    def paths(self) -> list[str]:
        """The inputs as a list."""
        given: Any = self.inputs
        return list(given)

    def settings_within(self) -> dict[str, Any]:
        """The overrides for the ``inference.json`` of ``within``."""
        taken = (*ABOUT_FILES, "runtime", "precision")
        return {name: value for name, value in self.settings().items() if name in taken}

    def settings(self) -> dict[str, Any]:
        """The overrides for a bundle's ``inference.json``, by key."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        # not False, as bundles may lack the key
        values["overwrite"] = self.overwrite or None
        values["adaptive_tolerance"] = values.pop("adaptive")
        values["flips"] = None if self.flips is None else list(self.flips)
        return {name: value for name, value in values.items() if name not in _OWN and value is not None}

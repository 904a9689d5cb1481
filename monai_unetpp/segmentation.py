"""Segmenting files with a bundle."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from ignite.engine import Events
from monai.data import get_track_meta, set_track_meta
from monai.utils import CommonKeys, ensure_tuple

from monai_unetpp.bundles import find_bundle, read_metadata, read_network_names
from monai_unetpp.bundles.json_files import METADATA_FILE
from monai_unetpp.chaining.chain import Chain, describe_run, to_json_value
from monai_unetpp.data.datasets.cases import expand_home
from monai_unetpp.data.datasets.dataset import CaseDataset
from monai_unetpp.data.datasets.network_names import check_channel_order, find_channel_names
from monai_unetpp.data.formats.dicom_seg import (
    SIDES,
    DicomSegSaved,
    check_references,
    check_replaceable,
    dicom_seg_path,
    read_label_codes,
)
from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.data.formats.naming import first_file
from monai_unetpp.data.formats.reader import read_geometry, read_label_map
from monai_unetpp.data.formats.series_choice import choose_series
from monai_unetpp.distributed import gathered
from monai_unetpp.engines import CaseResult
from monai_unetpp.errors import printable
from monai_unetpp.files import hash_file, make_output_dir
from monai_unetpp.measuring.sums import summed
from monai_unetpp.progress import Progress, counting
from monai_unetpp.results import (
    LabelVolume,
    RecordedCase,
    ResultFolder,
    RunInputs,
    collecting_warnings,
    hash_image,
    leave_out_finished,
    measure_file,
    outdated_beside,
    write_bids_description,
)
from monai_unetpp.segmentation_options import SegmentationOptions

__all__ = ["SegmentationSummary", "SegmentedCase", "segment_files", "segment_single"]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SegmentedCase:
    """One finished case.

    Attributes:
        case: name of the case.
        image: the input file or folder.
        output: the written file: NIfTI, or PNG or TIFF for such images.
        volumes_ml: volume of every label in millilitres, by name; empty for 2D images.
        seconds: wall time from requesting the image to the written file, which may overlap with the next case.
        stages: seconds by stage of the work; empty unless measured.
        instances: number of objects, None unless they were numbered.
        surround: ``value`` and ``share`` of the constant surround of the image, such as 0 and 0.6 for a skull-stripped
            brain; None if there is none, or the bundle does not look for one.
        volumes: value, voxels and millilitres of every label; empty if objects were numbered.
        warnings: what to know before using the result, such as differences from the training cases of the bundle, one
            line each.
        depths: windows by the level at which they stopped; empty unless the depth is chosen for each.
        problems: one line for each file beside the label map that could not be written.
    """

    case: str
    image: str
    output: str
    volumes_ml: dict[str, float]
    seconds: float
    stages: dict[str, float] = dataclasses.field(default_factory=dict)
    instances: int | None = None
    surround: dict[str, float] | None = None
    volumes: tuple[LabelVolume, ...] = ()
    warnings: tuple[str, ...] = ()
    depths: dict[str, int] = dataclasses.field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class SegmentationSummary:
    """What :func:`segment_files` did.

    Attributes:
        bundle: name of the bundle.
        within: name of the bundle that located the structure in the scan; empty if none was used.
        level: the level that was run; the deepest allowed if the depth is chosen for each window.
        device: the device of the network.
        runtime: runtime of the network, such as ``"openvino"``; empty if the bundle has another inferer than
            ``NestedSlidingWindowInferer``, or nothing was run.
        precision: such as ``"bf16"``; empty likewise.
        cases: the finished cases.
        failures: one line for each failed case, with its file.
        problems: one line for each file beside the label maps that could not be written.
        stages: seconds by stage of the work, summed over the finished cases; empty unless measured.
        depths: windows by the level at which they stopped, also summed; empty unless the depth is chosen for each.
        labels: name of each value of the label maps; empty if objects were numbered.
        output_dir: folder of the label maps.
        skipped: number of cases that had a result already.
    """

    bundle: str
    level: str
    device: str
    runtime: str
    precision: str
    cases: tuple[SegmentedCase, ...]
    failures: tuple[str, ...]
    stages: dict[str, float] = dataclasses.field(default_factory=dict)
    depths: dict[str, int] = dataclasses.field(default_factory=dict)
    labels: dict[int, str] = dataclasses.field(default_factory=dict)
    output_dir: str = ""
    skipped: int = 0
    within: str = ""
    problems: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def segment_files(
    inputs: str | PathLike[str] | Sequence[str | PathLike[str]],
    output_dir: str | PathLike[str] | None = None,
    bundle: str | PathLike[str] | None = None,
    level: str | int | None = None,
    device: str | None = None,
    progress: Progress = False,
    **options: Any,
) -> SegmentationSummary:
    """Segment images with a bundle's ``inference.json``; failed cases are reported, and the run goes on.

    The network is loaded once. While it works, the next image is loaded and the last result written. Besides the label
    maps, ``output_dir`` gets ``volumes.csv`` (voxels and millilitres by case and label), ``run.json`` (how each was
    made) and the names and colours of the labels for ITK-SNAP (``labels.label``) and 3D Slicer (``labels.ctbl``).

    Under ``torchrun`` the processes share the cases, wait for each other at the end, and return the same summary.

    Args:
        inputs: image files, folders of them, DICOM series folders, or folders with ``dataset.json``; or one BIDS data
            set, whose anatomical images are segmented by subject and session.
        output_dir: folder for ``<case>_seg.nii.gz``, or PNG or TIFF for such images: integer labels on the input's own
            grid. For a BIDS data set, the folder of a derivative with ``<case>_dseg.nii.gz``, by default its
            ``derivatives/monai-unetpp``.
        bundle: name or folder of a bundle. Required, as each is for one kind of image.
        level: such as ``"L2"`` or 2: build and run only the nodes that this level needs; by default the
            level that the bundle chooses.
        device: such as ``"cpu"`` or ``"cuda:0"``; by default a GPU if there is one.
        progress: True shows a bar on standard error; a function is called with a line of text after each case.
        **options: further options of :class:`~monai_unetpp.segmentation_options.SegmentationOptions`, such as
            ``runtime="openvino"`` or ``flips=[]``.

    Returns:
        The finished cases with their volumes, and the failures.

    Raises:
        ValueError: no bundle is named; the bundle, level or device is invalid; the bundle lacks a setting; or a file of
            another program has the name of one to be written.
        FileNotFoundError: no such bundle, or none of the inputs exists.
        TypeError: inputs that are not paths, or an unknown option.
        OSError: ``output_dir`` cannot be written to.
    """
    chosen = SegmentationOptions(inputs, output_dir, bundle, level=level, device=device, **options)
    run = _prepared(chosen, chosen.part())
    run.run(progress)
    # torchrun ends all processes when one of them has ended with an error, such as failed cases
    with gathered(run.summary()) as parts:
        return _joined(parts)


def segment_single(chosen: SegmentationOptions) -> tuple[SegmentationSummary, tuple[str, ...], int]:
    """Segment the only case in the inputs, in this process alone.

    Args:
        chosen: as the arguments of :func:`segment_files`.

    Returns:
        The summary, the files of the image (several for one with a file per channel, and for a chosen DICOM series;
        none if it failed), and the number of channels that the network takes.

    Raises:
        ValueError: the bundle finds several cases; this and other errors as for :func:`segment_files`.
    """
    run = _prepared(chosen, (1, 1))
    count = run.evaluator.state.epoch_length or 0
    if count > 1:
        raise ValueError(
            f"{', '.join(chosen.paths)}: contains {count} images. Name one, or use "
            "monai_unetpp.segmentation.segment_files."
        )
    run.run(False)
    files = next((done.files for done in run.evaluator.completed), ())
    return run.summary(), files, run.chain.first.network.in_channels


def _prepared(chosen: SegmentationOptions, shard: tuple[int, int]) -> _Run:
    """Load the network, find the cases of the shard, and check the output folder."""
    folder = find_bundle(chosen.bundle)
    given = RunInputs.find(chosen.paths, chosen.output_dir, chosen.suffix, chosen.list_key)
    _check_channels(folder if chosen.within is None else find_bundle(chosen.within), given.paths)
    chain = Chain.load(folder, chosen, given)
    own_totals = chain.totals if chain.pair is None else {}
    output_dir = make_output_dir(given.output_dir)
    results = ResultFolder(output_dir, chain.names, shard=shard, totals=own_totals, is_bids=given.bids is not None)
    results.check()
    if given.bids is not None:
        write_bids_description(results.path, given.bids, folder.name)
    run = _Run(chain, results, describe_run(chosen, chain))
    run.arrange(given, chosen)
    return run


def _check_channels(bundle: Path, paths: Sequence[str]) -> None:
    """Refuse data sets with the channels of the bundle in another order."""
    names = read_network_names(bundle)
    for path in map(expand_home, paths):
        found: list[str] = []
        # what is wrong with the file is told where its cases are read
        with contextlib.suppress(OSError, ValueError):
            found = find_channel_names(path)
        check_channel_order(path / "dataset.json", found, names)


@contextlib.contextmanager
def _tracking_metadata() -> Iterator[None]:
    """Have MONAI keep affines, even if the program has switched them off by ``set_track_meta``."""
    before = get_track_meta()
    set_track_meta(True)
    try:
        yield
    finally:
        set_track_meta(before)


class _Run:
    """One run of an evaluator, recorded in its output folder."""

    def __init__(self, chain: Chain, results: ResultFolder, described: Mapping[str, Any]) -> None:
        self.chain, self.evaluator, self.results = chain, chain.first.evaluator, results
        self.cases: list[SegmentedCase] = []
        self.failures: list[str] = []
        self.problems: list[str] = []
        self.skipped = 0
        self._warnings: list[str] = []
        self._dicom_seg: DicomSegSaved | None = None
        for saver in self.evaluator.savers:
            if CommonKeys.PRED in saver.keys:  # masks have their own label
                saver.labels = dict(results.names)
        level, device = chain.last.network.levels[-1], str(self.evaluator.state.device)
        results.run.update(started=_now(), **described, level=level, device=device)
        if results.shard[1] > 1:
            results.run["shard"] = "{}/{}".format(*results.shard)
        self._earlier = results.earlier

    @property
    def ran(self) -> tuple[str, str]:
        """Runtime and precision; empty if the inferer does not report them."""
        return getattr(self.chain.last.evaluator.inferer, "ran", None) or ("", "")

    def summary(self) -> SegmentationSummary:
        """What this process has done."""
        chain, (runtime, precision) = self.chain, self.ran
        return SegmentationSummary(
            bundle=chain.last.folder.name,
            level=chain.last.network.levels[-1],
            device=str(self.evaluator.state.device),
            runtime=runtime,
            precision=precision,
            cases=tuple(self.cases),
            failures=tuple(self.failures),
            stages=summed(case.stages for case in self.cases),
            depths=summed(case.depths for case in self.cases),
            labels=chain.names,
            output_dir=str(self.results.path),
            skipped=self.skipped,
            within="" if chain.pair is None else chain.first.folder.name,
            problems=tuple(self.problems),
        )

    def arrange(self, inputs: RunInputs, chosen: SegmentationOptions) -> None:
        """Name, share out and filter the cases before the first is loaded."""
        number, count = self.results.shard
        items, savers = self._listed, self.evaluator.savers
        if inputs.bids is None and not (chosen.skip_existing or chosen.dicom_seg or chosen.series or count > 1):
            self._protect_results(chosen, self._outputs())
            return
        if items is None:
            raise ValueError(
                "BIDS, skip_existing, series, shard and dicom_seg need a bundle with CaseDataset and "
                "SegmentationSaveImaged. Use another bundle, or leave these options out."
            )
        inputs.name_results(items, savers)
        if chosen.series is not None:
            choose_series(items, chosen.series)
        outputs = self._outputs()  # of all processes
        # before any is skipped, so that all processes count the same cases
        items[:] = items[number - 1 :: count]
        if chosen.dicom_seg:
            self._add_dicom_seg()
        if chosen.skip_existing:
            left_out = leave_out_finished(items, savers[0], self._earlier, [saver.result_path for saver in savers[1:]])
            damaged = [item for item, output in left_out if not self._keep(item, output, chosen.overwrite)]
            items += damaged
            self.skipped = len(left_out) - len(damaged)
        if chosen.dicom_seg:
            self._check_dicom_seg(items)
        self._protect_results(chosen, outputs)
        self.evaluator.state.epoch_length = len(items)

    def _keep(self, item: dict[str, Any], output: Path, overwrite: bool) -> bool:
        """Take over a finished case, and write a DICOM SEG that is missing or of the labels before a correction.

        False if its result cannot be read or the DICOM SEG not be written: the case fails, or is made again to
        overwrite it.
        """
        has_volume, numbered = self.chain.first.network.spatial_dims == 3, self.evaluator.numbers_objects
        changed = self._earlier.is_changed(output)
        case = self._earlier.case_name(str(item["case"]), output)
        try:
            warnings = self._warnings_of(first_file(item), output, changed)
            self.results.add_earlier(case, output, has_volume, warnings, numbered, changed)
        except ImageFileError as e:
            if overwrite:
                return False
            item["failure"] = f"{first_file(item)}: its earlier result cannot be kept: {e} Or remove it."
            return False
        if not numbered and not self._earlier.knows(output):
            digest = hash_image(*map(os.fspath, ensure_tuple(item["image"])))
            known = case, first_file(item), digest, str(output), 0.0, warnings
            with contextlib.suppress(OSError):  # it is gone meanwhile
                # what was corrected is not as it was written
                written = None if changed else hash_file(output)
                record = RecordedCase(*known, output_sha256=written, beside_sha256=_hashes(self._masks(item)))
                self.results.take_over(record)
        seg = dicom_seg_path(output)
        if self._dicom_seg is not None and (changed or not seg.exists() or outdated_beside(output, [seg])):
            try:
                kept = read_label_map(output)
                self._dicom_seg.write(output, kept.data, ensure_tuple(item["image"]), kept.affine)
            except (ValueError, OSError) as e:
                item["failure"] = printable(str(e))
                return False
        if changed:
            self._tell_of(
                output, "changed after it was written. It is kept, and measured again.", self._masks(item), always=True
            )
        return True

    def _warnings_of(self, file: str, output: Path, changed: bool) -> tuple[str, ...]:
        """The warnings about a finished case; if a killed run has not recorded them, those about its result."""
        if self._earlier.knows(output) or self.evaluator.numbers_objects:
            return self._earlier.warnings(output)
        with collecting_warnings() as told:
            logger.warning(
                "%s: segmented by a run that did not record it, such as one that was killed; its warnings about the "
                "image are not known. See its log%s.",
                file,
                "" if changed else f", or remove {output} to have it made again",
            )
            has_volume = self.chain.first.network.spatial_dims == 3
            volumes = measure_file(output, self.results.names, has_volume)
            pixels = math.prod(read_geometry(output).shape)
            self._check_result(file, volumes, {label.name: label.voxels / pixels for label in volumes})
        return tuple(line for line in told if line.startswith(f"{file}: "))

    def _check_result(self, file: str, volumes: Sequence[LabelVolume], shares: Mapping[str, float]) -> None:
        """Warn of an implausible result; within another bundle, the guards have checked each crop."""
        if self.chain.pair is None and self.chain.last.guard is not None:
            volumes_ml = {label.name: label.ml for label in volumes if label.ml is not None}
            self.chain.last.guard.check_result(file, volumes_ml, shares)

    def _tell_of(self, output: Path, what: str, masks: Sequence[Path] = (), *, always: bool = False) -> None:
        """Warn that a result was changed, or only if files beside it are of the labels before."""
        beside = dict.fromkeys([*masks, *self._earlier.beside(output)])
        old = ", ".join(map(str, outdated_beside(output, beside)))
        if old or always:
            logger.warning("%s: was %s%s", output, what, f" Of the labels before: {old}." if old else "")

    def _protect_results(self, chosen: SegmentationOptions, outputs: Sequence[tuple[dict[str, Any], Path]]) -> None:
        """Let cases fail whose results were changed by hand, and refuse a folder with results of other labels.

        ``outputs`` are the cases of all processes with their results.
        """
        own = self._outputs()
        # numbered objects have no rows to share
        for item, output in () if self.evaluator.numbers_objects else own:
            if other := self._earlier.namesake(str(item.get("case")), output):
                reason = (
                    f"{other} is the result of another image of this name, and both would share rows in volumes.csv"
                )
                item.setdefault(
                    "failure", f"{first_file(item)}: {reason}. Name another output folder, or segment both in one run."
                )
        for item, output in () if chosen.overwrite else own:
            if changed := next(filter(self._earlier.is_changed, (output, *self._masks(item))), None):
                reason = f"its result {changed} was changed after it was written"
                item.setdefault(
                    "failure", f"{first_file(item)}: {reason}. Move it away, or replace it with --overwrite."
                )
        self.results.check_labels({output.name for item, output in outputs if "failure" not in item})

    def _outputs(self) -> list[tuple[dict[str, Any], Path]]:
        """The cases with their results, if this package names them."""
        items, savers = self._listed or [], self.evaluator.savers
        return [(item, savers[0].result_path(first_file(item), item)) for item in items]

    def _masks(self, item: dict[str, Any]) -> list[Path]:
        """The files that this run writes beside the label map of a case, but for DICOM SEG."""
        return [saver.result_path(first_file(item), item) for saver in self.evaluator.savers[1:]]

    def _add_dicom_seg(self) -> None:
        folder, pair = self.chain.last.folder, self.chain.pair
        codes = read_label_codes(folder / METADATA_FILE, read_metadata(folder).get("label_codes"))
        if pair is not None:
            codes = {
                pair.value(number, value): dataclasses.replace(code, side=SIDES.get(crop.name.lower(), code.side))
                for number, crop in enumerate(pair.crops)
                for value, code in codes.items()
            }
        self._dicom_seg = DicomSegSaved("pred", self.results.names, codes, folder.name)
        self.evaluator.add_saver(self._dicom_seg)

    def _check_dicom_seg(self, items: list[dict[str, Any]]) -> None:
        """Let cases fail for which no DICOM SEG could be written."""
        for item in items:
            if "failure" not in item and os.path.exists(first_file(item)):
                try:
                    check_replaceable(dicom_seg_path(self.evaluator.savers[0].result_path(first_file(item), item)))
                    check_references(ensure_tuple(item["image"]))
                except (FileExistsError, ImageFileError) as e:
                    item["failure"] = printable(str(e))

    @property
    def _listed(self) -> list[dict[str, Any]] | None:
        """The cases in the bundle's data set; None unless it and the saver are those of this package."""
        dataset = getattr(self.evaluator.data_loader, "dataset", None)
        items = dataset.data if isinstance(dataset, CaseDataset) else None
        return items if isinstance(items, list) and self.evaluator.savers else None

    @_tracking_metadata()
    def run(self, progress: Progress) -> None:
        """Segment all cases; finished ones are recorded even after an interruption."""
        self._masks_of = {first_file(item): self._masks(item) for item in self._listed or []}
        with counting(progress, "segmenting") as count, collecting_warnings() as self._warnings:
            self.evaluator.add_event_handler(
                Events.ITERATION_COMPLETED, lambda engine: count(engine.state.iteration, engine.state.epoch_length)
            )
            self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._note_finished)
            try:
                if self.evaluator.state.epoch_length:
                    self.results.begin()
                    self.evaluator.run()
            finally:
                self.failures = list(map(str, self.evaluator.failures))
                self._note_finished()
                self._write()

    def _note_finished(self) -> None:
        """Record the cases that have finished since the last call."""
        for done in self.evaluator.completed[len(self.cases) :]:
            case = self._segmented_case(done)
            self.cases.append(case)
            self.problems += done.problems
            self.results.add(_recorded(case, done.files, self._masks_of.get(done.file, [])), case.volumes)
            self._tell_of(Path(case.output), "replaced.")

    def _segmented_case(self, done: CaseResult) -> SegmentedCase:
        # the numbers of objects are not labels
        volumes = self.chain.measure(done) if done.instances is None else ()
        self._check_result(done.file, volumes, self._shares(done))
        starts = tuple(f"{file}: " for file in done.files)
        return SegmentedCase(
            case=done.case,
            image=done.file,
            output=str(done.output),
            volumes_ml={label.name: label.ml for label in volumes if label.ml is not None},
            seconds=done.seconds,
            stages=done.stages,
            instances=done.instances,
            surround=done.surround,
            volumes=volumes,
            warnings=tuple(line for line in self._warnings if line.startswith(starts)),
            depths=self.chain.depths(done),
            problems=done.problems,
        )

    def _shares(self, done: CaseResult) -> dict[str, float]:
        """The share of the image that each label covers; all objects together if these are numbered."""
        if not done.pixels:
            return {}
        if done.instances is not None:
            labels = [name for value, name in self.chain.last.labels.items() if value]
            return dict.fromkeys(labels, done.covered / done.pixels) if len(labels) == 1 else {}
        return {name: done.voxels.get(value, 0) / done.pixels for value, name in self.chain.names.items()}

    def _write(self) -> None:
        inferer = self.chain.last.evaluator.inferer
        inferer = getattr(inferer, "inferer", inferer)  # of slices
        self.results.run.update(
            finished=_now(),
            runtime=self.ran[0],
            precision=self.ran[1],
            window=to_json_value(getattr(inferer, "roi_size", None)),
            window_sizes=to_json_value(sorted(getattr(inferer, "window_sizes", ()))),
            overlap=to_json_value(getattr(inferer, "overlap", None)),
            flips=to_json_value(getattr(inferer, "flips", None)),
            failures=self.failures,
            warnings=list(self._warnings),
        )
        for problem in self.results.write():
            logger.error("%s", problem)
            self.problems.append(problem)


def _recorded(case: SegmentedCase, files: Sequence[str], beside: Sequence[Path]) -> RecordedCase:
    details = {"instances": case.instances, "surround": case.surround}
    found = {key: value for key, value in details.items() if value is not None}
    # a bundle with a saver of its own may write elsewhere
    written = hash_file(case.output) if os.path.isfile(case.output) else None
    return RecordedCase(
        case.case,
        case.image,
        hash_image(*files),
        case.output,
        round(case.seconds, 3),
        case.warnings,
        found,
        written,
        _hashes(beside),
    )


def _hashes(files: Sequence[Path]) -> dict[str, str]:
    return {path.name: hash_file(path) for path in files if path.is_file()}


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")


def _joined(parts: Sequence[SegmentationSummary]) -> SegmentationSummary:
    """The combined summary of processes that shared the cases."""
    return dataclasses.replace(
        parts[0],
        runtime=next((part.runtime for part in parts if part.runtime), ""),
        precision=next((part.precision for part in parts if part.precision), ""),
        cases=tuple(case for part in parts for case in part.cases),
        failures=tuple(line for part in parts for line in part.failures),
        stages=summed(part.stages for part in parts),
        depths=summed(part.depths for part in parts),
        skipped=sum(part.skipped for part in parts),
        problems=tuple(line for part in parts for line in part.problems),
    )

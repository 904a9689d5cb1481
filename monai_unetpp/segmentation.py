"""Segmenting files with a bundle, from Python."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from ignite.engine import Events
from monai.utils import CommonKeys

from monai_unetpp.bundles import WEIGHTS_FILE, find_bundle, read_metadata
from monai_unetpp.chaining import Chain
from monai_unetpp.data.dicom import is_dicom_file
from monai_unetpp.data.dicom_seg import DicomSegSaved, dicom_seg_path, read_label_codes
from monai_unetpp.data.series_choice import choose_series
from monai_unetpp.distributed import gathered
from monai_unetpp.engines import CaseResult
from monai_unetpp.files import hash_file, remove_leftovers
from monai_unetpp.measuring.environment import command_line, software_versions
from monai_unetpp.measuring.sums import summed
from monai_unetpp.progress import Progress, counting
from monai_unetpp.results import (
    RUN_FILE,
    EarlierResults,
    LabelVolume,
    RecordedCase,
    ResultFolder,
    RunInputs,
    collecting_warnings,
    hash_image,
    leave_out_finished,
    read_runs,
    write_bids_description,
)
from monai_unetpp.segmentation_options import SegmentationOptions

__all__ = ["SegmentationSummary", "SegmentedCase", "make_output_dir", "segment_files"]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SegmentedCase:
    """One finished case.

    Attributes:
        case: its name.
        image: the file or folder that was read.
        output: the file that was written: NIfTI, or PNG or TIFF for such images.
        volumes_ml: volume of every label in millilitres, by name; empty for 2D images.
        seconds: wall time from asking for the image to the written file; the file may be written while the next case
            is under way.
        stages: seconds by stage of the work, empty unless they were measured.
        instances: number of objects, None unless they were numbered.
        surround: ``value`` and ``share`` of the constant surround of the image, such as 0 and 0.6 of a skull-stripped
            brain; None where there is none, or the bundle does not look for one.
        volumes: voxels and millilitres of every label, with its value; empty where objects were numbered.
        warnings: what should be known before the result is used, such as how the image or the result differs from the
            cases that the bundle was trained on, one line each.
        depths: windows by the level that they stopped at; empty unless the depth is chosen for each.
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


@dataclasses.dataclass(frozen=True)
class SegmentationSummary:
    """What :func:`segment_files` did.

    Attributes:
        bundle: name of the bundle.
        within: name of the bundle that found the place in the scan; empty where there was none.
        level: the level that was run; the deepest that a window may go to where the depth is chosen for each.
        device: where it was run.
        runtime: what ran the network, such as ``"openvino"``; empty where the bundle has another inferer than
            ``NestedSlidingWindowInferer``, or nothing was run.
        precision: such as ``"bf16"``; empty likewise.
        cases: the finished cases.
        failures: one line for each failed case, which names its file.
        stages: seconds by stage of the work, summed over the finished cases; empty unless they were measured.
        depths: windows by the level that they stopped at, summed likewise; empty unless the depth is chosen for each.
        labels: name of each value of the label maps.
        output_dir: where they are.
        skipped: number of cases whose results were there already.
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
    """Segment images with a bundle's ``inference.json``; cases that fail are reported and the rest go on.

    The network is loaded once. The next image is loaded and the last result written while it works. Beside the label
    maps ``output_dir`` gets ``volumes.csv`` (voxels and millilitres by case and label), ``run.json`` (how each was
    made) and the names and colours of the labels for ITK-SNAP (``labels.label``) and 3D Slicer (``labels.ctbl``).

    Under ``torchrun`` the processes share the cases, wait for each other at the end, and return the same summary.

    Args:
        inputs: image files, folders of them, DICOM series folders, or folders with ``dataset.json``; or one BIDS data
            set, of which the anatomical images are segmented by subject and session.
        output_dir: folder for ``<case>_seg.nii.gz``, or PNG or TIFF for such images: integer labels on the input's own
            grid. Of a BIDS data set a derived one with ``<case>_dseg.nii.gz``, by default
            ``derivatives/monai-unetpp`` in it.
        bundle: name or folder of a bundle. One must be named: each takes other images.
        level: such as ``"L2"`` or 2: build and run only what this level needs; by default the deepest.
        device: such as ``"cpu"`` or ``"cuda:0"``; by default a GPU if there is one.
        progress: True shows a bar on standard error, a function is called with a line of text after each case.
        **options: further ones of :class:`~monai_unetpp.segmentation_options.SegmentationOptions`, such as
            ``runtime="openvino"`` or ``flips=[]``.

    Returns:
        The finished cases with their volumes, and the failures.

    Raises:
        ValueError: no bundle; a bundle, level or device that cannot be used, or a setting that it does not have;
            another program's file in the place of one that is to be written; the message names it and the remedy.
        FileNotFoundError: no such bundle, or none of the inputs exists.
        TypeError: inputs that are not paths, or an option that there is not.
        OSError: ``output_dir`` cannot be written to.
    """
    chosen = SegmentationOptions(inputs, output_dir, bundle, level=level, device=device, **options)
    folder = find_bundle(chosen.bundle)
    given = RunInputs.find(chosen.paths, chosen.output_dir, chosen.suffix)
    chain = Chain.load(folder, chosen, given)
    names = chain.names
    own_totals = chain.totals if chain.pair is None else {}
    output_dir = make_output_dir(given.output_dir)
    results = ResultFolder(output_dir, names, shard=chosen.part(), totals=own_totals)
    results.check()
    if given.bids is not None:
        write_bids_description(results.path, given.bids, names, folder.name)
    run = _Run(chain, results, _described(chosen, chain))
    run.arrange(given, chosen)
    run.run(progress)
    ran_runtime, ran_precision = run.ran
    own = SegmentationSummary(
        bundle=folder.name,
        level=chain.last.network.levels[-1],
        device=str(chain.first.evaluator.state.device),
        runtime=ran_runtime,
        precision=ran_precision,
        cases=tuple(run.cases),
        failures=tuple(run.failures),
        stages=summed(case.stages for case in run.cases),
        depths=summed(case.depths for case in run.cases),
        labels=names,
        output_dir=str(results.path),
        skipped=run.skipped,
        within="" if chain.pair is None else chain.first.folder.name,
    )
    # torchrun ends all processes when one of them has ended with an error, such as failed cases
    with gathered(own) as parts:
        return _joined(parts)


class _Run:
    """One run of an evaluator, which is recorded in the folder of its results."""

    def __init__(self, chain: Chain, results: ResultFolder, described: Mapping[str, Any]) -> None:
        self.chain, self.evaluator, self.results = chain, chain.first.evaluator, results
        self.cases: list[SegmentedCase] = []
        self.failures: list[str] = []
        self.skipped = 0
        self._warnings: list[str] = []
        self._files_of: dict[str, list[str]] = {}
        for saver in self.evaluator.savers:
            if CommonKeys.PRED in saver.keys:  # masks have a label of their own
                saver.labels = dict(results.names)
        level, device = chain.last.network.levels[-1], str(self.evaluator.state.device)
        results.run.update(started=_now(), **described, level=level, device=device)
        if results.shard[1] > 1:
            results.run["shard"] = "{}/{}".format(*results.shard)

    @property
    def ran(self) -> tuple[str, str]:
        """Runtime and precision; empty where the inferer does not tell."""
        return getattr(self.chain.last.evaluator.inferer, "ran", None) or ("", "")

    def arrange(self, inputs: RunInputs, chosen: SegmentationOptions) -> None:
        """Change the list of cases by what is known of them, before the first is loaded.

        Raises:
            ValueError: the bundle keeps its cases in another way than this package's.
        """
        number, count = self.results.shard
        if inputs.bids is None and not (chosen.skip_existing or chosen.dicom_seg or chosen.series or count > 1):
            return
        items, savers = self._items(), self.evaluator.savers
        inputs.name_results(items, savers)
        if chosen.series is not None:
            self._files_of = choose_series(items, chosen.series)
        # before any is left out, so that all processes count the same cases
        items[:] = items[number - 1 :: count]
        if chosen.dicom_seg:
            self._add_dicom_seg(items)
        if chosen.skip_existing:
            earlier = EarlierResults(read_runs(self.results.path / RUN_FILE), self.results.run)
            beside: list[Callable[[str, dict[str, Any]], Path]] = [saver.result_path for saver in savers[1:]]
            if chosen.dicom_seg:
                beside.append(lambda image, item: dicom_seg_path(savers[0].result_path(image, item)))
            left_out = leave_out_finished(items, savers[0], earlier, beside)
            for case, _, output in left_out:
                has_volume = self.chain.first.network.spatial_dims == 3
                self.results.add_earlier(case, output, has_volume, earlier.warnings(output))
            self.skipped = len(left_out)
        self.evaluator.state.epoch_length = len(items)

    def _add_dicom_seg(self, items: list[dict[str, Any]]) -> None:
        folder, pair = self.chain.last.folder, self.chain.pair
        codes = read_label_codes(folder / "configs" / "metadata.json", read_metadata(folder).get("label_codes"))
        if pair is not None:
            numbers = range(len(pair.crops))
            codes = {pair.value(number, value): code for number in numbers for value, code in codes.items()}
        self.evaluator.add_saver(DicomSegSaved("pred", self.results.names, codes, folder.name, self._files_of))
        for item in items:
            image = item["image"][0] if isinstance(item["image"], list) else item["image"]
            if os.path.exists(image) and not (os.path.isdir(image) or is_dicom_file(image)):
                reason = "not DICOM, so no DICOM SEG can be written. Leave --dicom-seg out."
                item.setdefault("failure", f"{image}: {reason}")

    def _items(self) -> list[dict[str, Any]]:
        """The cases, as the data set of the bundle keeps them."""
        items = getattr(getattr(self.evaluator.data_loader, "dataset", None), "data", None)
        if not isinstance(items, list) or not self.evaluator.savers:
            raise ValueError(
                "BIDS, skip_existing, series, shard and dicom_seg need a bundle with CaseDataset and "
                "SegmentationSaveImaged. Take another bundle, or leave them out."
            )
        return items

    def run(self, progress: Progress) -> None:
        """Segment all cases; finished ones are recorded even after an interruption."""
        with counting(progress, "segmenting") as count, collecting_warnings() as self._warnings:
            self.evaluator.add_event_handler(
                Events.ITERATION_COMPLETED, lambda engine: count(engine.state.iteration, engine.state.epoch_length)
            )
            self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._note_finished)
            try:
                if self.evaluator.state.epoch_length:
                    self.evaluator.run()
            finally:
                self.failures = list(map(str, self.evaluator.failures))
                self._note_finished()
                self._write()

    def _note_finished(self) -> None:
        """Take over the cases that were finished since the last time."""
        for done in self.evaluator.completed[len(self.cases) :]:
            case = self._segmented_case(done)
            self.cases.append(case)
            with contextlib.suppress(OSError):  # reported at the end, where it is tried again
                self.results.add(_recorded(case, self._files_of.get(case.image, [case.image])), case.volumes)

    def _segmented_case(self, done: CaseResult) -> SegmentedCase:
        volumes = self.chain.measure(done)
        volumes_ml = {label.name: label.ml for label in volumes if label.ml is not None}
        # within another bundle, the guards have looked at each place
        if self.chain.pair is None and self.chain.last.guard is not None:
            names = self.chain.names if done.pixels else {}
            shares = {name: done.voxels.get(value, 0) / done.pixels for value, name in names.items()}
            self.chain.last.guard.check_result(done.file, volumes_ml, shares)
        return SegmentedCase(
            case=done.case,
            image=done.file,
            output=str(done.output),
            volumes_ml=volumes_ml,
            seconds=done.seconds,
            stages=done.stages,
            instances=done.instances,
            surround=done.surround,
            volumes=volumes if done.instances is None else (),
            warnings=tuple(line for line in self._warnings if line.startswith(f"{done.file}: ")),
            depths=done.depths,
        )

    def _write(self) -> None:
        inferer = self.chain.last.evaluator.inferer
        self.results.run.update(
            finished=_now(),
            runtime=self.ran[0],
            precision=self.ran[1],
            window=_plain(getattr(inferer, "roi_size", None)),
            overlap=_plain(getattr(inferer, "overlap", None)),
            flips=_plain(getattr(inferer, "flips", None)),
            failures=self.failures,
            warnings=list(self._warnings),
        )
        try:
            self.results.write()
        except (OSError, ValueError) as e:
            logger.error("%s", e)
            self.failures.append(str(e))


def _described(chosen: SegmentationOptions, chain: Chain) -> dict[str, Any]:
    """What ``run.json`` says of a run before it begins."""
    return {
        "command": command_line(),
        "options": {
            key: _plain(value) for key, value in chosen.settings().items() if key not in ("list_key", "overwrite")
        },
        "bundle": _described_bundle(chain.last.folder),
        **({} if chain.pair is None else {"within": _described_bundle(chain.first.folder)}),
        "versions": software_versions("nibabel", "SimpleITK", "highdicom", "openvino"),
    }


def _described_bundle(folder: Path) -> dict[str, Any]:
    weights = folder / WEIGHTS_FILE
    return {
        "name": folder.name,
        "folder": str(folder),
        "version": str(read_metadata(folder).get("version", "")),
        "weights": WEIGHTS_FILE,
        "sha256": hash_file(weights) if weights.is_file() else None,
    }


def _recorded(case: SegmentedCase, files: Sequence[str]) -> RecordedCase:
    details = {"instances": case.instances, "surround": case.surround}
    found = {key: value for key, value in details.items() if value is not None}
    return RecordedCase(
        case.case, case.image, hash_image(*files), case.output, round(case.seconds, 3), case.warnings, found
    )


def _plain(value: Any) -> Any:
    """``value`` as JSON has it."""
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")


def _joined(parts: Sequence[SegmentationSummary]) -> SegmentationSummary:
    """What processes that shared the cases did together."""
    return dataclasses.replace(
        parts[0],
        runtime=next((part.runtime for part in parts if part.runtime), ""),
        precision=next((part.precision for part in parts if part.precision), ""),
        cases=tuple(case for part in parts for case in part.cases),
        failures=tuple(line for part in parts for line in part.failures),
        stages=summed(part.stages for part in parts),
        depths=summed(part.depths for part in parts),
        skipped=sum(part.skipped for part in parts),
    )


def make_output_dir(folder: str | PathLike[str]) -> Path:
    """Make a folder for results, and see that files can be written there before any work is done.

    Args:
        folder: the folder; its missing parents are made too. What killed runs left in it is removed.

    Returns:
        Its path.

    Raises:
        OSError: it cannot be made or written to; the message names it.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            remove_leftovers(path)
    except OSError as e:
        raise OSError(
            f"output_dir must be a folder that can be written to, got {fspath(folder)!r} ({e.strerror}). "
            "Choose another folder."
        ) from e
    return path

"""The whole command: examine every case, find the worst, write the report."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.data import ImageKind, describe_case_failure, load_datalist
from monai_unetpp.data.datasets.case_check import CheckedCase
from monai_unetpp.data.datasets.check import tell_doubtful
from monai_unetpp.data.datasets.datalist import read_content
from monai_unetpp.data.datasets.label_names import LabelNames
from monai_unetpp.data.datasets.labelled import LabelledCase, list_cases, repeated_names
from monai_unetpp.failures.examined_cases import (
    CaseArrays,
    ScoredLabels,
    choose_labels,
    find_segmentation,
    read_arrays,
    score_arrays,
)
from monai_unetpp.failures.failure_options import FailureOptions
from monai_unetpp.failures.kind_tables import format_failures
from monai_unetpp.failures.kinds import ExaminedCase, FailureReport, error_key, kinds_of, summarise_kinds
from monai_unetpp.failures.sheet import MOST_PICTURES, save_sheet
from monai_unetpp.files import make_output_dir, write_json, write_text
from monai_unetpp.measuring.environment import describe_environment
from monai_unetpp.progress import Progress, counting
from monai_unetpp.reporting.figures import check_drawing
from monai_unetpp.results.colour_tables import TABLE_FILES, read_slicer_table

logger = logging.getLogger(__name__)

_PICTURE = "failures.png"


def find_failures(
    dataset_dir: str | PathLike[str],
    output_dir: str | PathLike[str],
    segmentations: str | PathLike[str] | None = None,
    *,
    progress: Progress = False,
    **options: Any,
) -> FailureReport:
    """Score segmentations against the labels of a data set, and show which kinds of images and which cases fail.

    Writes ``failures.json`` with the figures of every case, ``failures.md`` with a table by kind and the worst cases,
    and ``failures.png`` with pictures: the worst case of each kind, then the worst of the others. A missing or broken
    segmentation is reported, and the others go on. Without ``segmentations``, kinds are only counted and nothing is
    drawn. See ``kinds_of`` in ``monai_unetpp.failures.kinds`` for the kinds.

    Args:
        dataset_dir: folder with ``dataset.json`` in Decathlon form, 2D or 3D.
        output_dir: folder for the report.
        segmentations: folder with ``<case>_seg.nii.gz``, ``.png`` or ``.tif``, as
            :func:`monai_unetpp.segmentation.segment_files` and the bundles write them.
        progress: True shows a bar on standard error, a function is called with a line of text after each case.
        **options: other fields of :class:`~monai_unetpp.failures.failure_options.FailureOptions`, such as ``worst=20``
            or ``labels=["tumour"]``.

    Raises:
        FileNotFoundError: no ``dataset.json``, or no folder ``segmentations``.
        TypeError: an option of the wrong type, or an unknown one.
        ValueError: an unusable list or labels, two cases with the same name, or ``worst`` below 1.
        ImportError: matplotlib is not installed.
        OSError: ``output_dir`` cannot be written to.
    """
    chosen = FailureOptions(dataset_dir, output_dir, segmentations, **options)
    if chosen.folder is not None:
        check_drawing()
    listed = _listed(chosen)
    scored = choose_labels(dataset_dir, chosen.labels, chosen.instances)
    folder = make_output_dir(output_dir)
    if chosen.folder is not None and scored.allowed is not None:
        _tell_other_names(chosen.folder / TABLE_FILES["slicer"], Path(dataset_dir) / "dataset.json", scored)
    examined, checked, failures = _examine(listed, chosen.folder, scored, progress)
    named = None if scored.allowed is None else LabelNames(scored.named, scored.ignore)
    tell_doubtful(Path(dataset_dir) / "dataset.json", chosen.list_key, checked, named)
    # labels that are confused with each other leave the pooled foreground unchanged
    ranked_by = "mean_iou" if len(scored.named) > 1 else "foreground_iou"
    ranked = sorted(examined, key=lambda case: error_key(case, ranked_by))
    wrong = [case for case in ranked if math.isfinite(error_key(case, ranked_by))]
    report = _report(chosen, scored, ranked_by, examined, wrong, failures)
    _write(report, folder, _pick(wrong, report.case_kinds, min(chosen.worst, MOST_PICTURES)), _reader(listed, scored))
    return report


def _tell_other_names(table: Path, dataset: Path, labels: ScoredLabels) -> None:
    """Warn where the colour table beside the segmentations gives the name of a label to another value."""
    named: dict[int, str] = {}
    # people may edit it
    with contextlib.suppress(OSError, UnicodeError):
        named = read_slicer_table(table.read_text(encoding="utf-8"))
    found = {name.casefold(): value for value, name in named.items()}
    for name, value in labels.named.items():
        other = found.get("_".join(name.casefold().split()), value)
        if other != value:
            logger.warning(
                "%s: %r has the value %d, but %d in %s: different structures are compared. Give it one value.",
                *(table, name, other, value, dataset),
            )
            return


def _report(
    chosen: FailureOptions,
    scored: ScoredLabels,
    ranked_by: str,
    examined: Sequence[ExaminedCase],
    wrong: Sequence[ExaminedCase],
    failures: dict[str, str],
) -> FailureReport:
    folder, where = Path(chosen.dataset_dir), describe_environment()
    case_kinds = kinds_of(examined)
    kinds, overall = summarise_kinds(examined, case_kinds, ranked_by)
    return FailureReport(
        dataset=str(read_content(folder / "dataset.json").get("name") or folder.resolve().name),
        list_key=chosen.list_key,
        segmentations=None if chosen.folder is None else str(chosen.folder),
        labels=scored.named,
        ranked_by=ranked_by,
        cases=tuple(examined),
        case_kinds=case_kinds,
        kinds=kinds,
        overall=overall,
        worst=tuple(case.case for case in wrong[: chosen.worst]),
        failures=failures,
        environment={"device": where.device, "versions": where.versions, "date": where.date},
    )


def _listed(chosen: FailureOptions) -> list[LabelledCase]:
    """The cases of the list, which must have different names."""
    rules: dict[str, Any] = {"subjects": chosen.subjects, "subject_pattern": chosen.subject_pattern}
    cases = list_cases(load_datalist(chosen.dataset_dir, chosen.list_key, **rules))
    for message in repeated_names(cases).values():
        raise ValueError(message)
    return cases


def _examine(
    cases: Sequence[LabelledCase], folder: Path | None, labels: ScoredLabels, progress: Progress
) -> tuple[list[ExaminedCase], dict[LabelledCase, CheckedCase], dict[str, str]]:
    """The examined cases, what their files hold, and why some could not be scored."""
    examined: list[ExaminedCase] = []
    checked: dict[LabelledCase, CheckedCase] = {}
    failures: dict[str, str] = {}
    with counting(progress, "examining") as count:
        for done, case in enumerate(cases, start=1):
            try:
                # all cases must have the number of axes of the first
                dims = len(examined[0].spacing_mm) if examined else None
                examined_case, checked[case] = _examine_case(case, folder, labels, dims)
                examined.append(examined_case)
            except (OSError, ValueError, MemoryError) as e:
                file = str(case.image[0])
                reason = describe_case_failure(e, file, "loading")
                failures[case.name] = f"{file}: {reason}" if isinstance(e, MemoryError) else reason
            count(done, len(cases))
    return examined, checked, failures


def _examine_case(
    case: LabelledCase, folder: Path | None, labels: ScoredLabels, spatial_dims: int | None
) -> tuple[ExaminedCase, CheckedCase]:
    path = None if folder is None else find_segmentation(case, folder)
    arrays = read_arrays(case, labels, path, spatial_dims)
    examined = ExaminedCase(
        case=case.name,
        image=str(case.image[0]),
        label=str(case.label),
        segmentation=None if path is None else str(path),
        image_kind=ImageKind.of(arrays.image),
        spacing_mm=arrays.spacing_mm,
        score=None if path is None else score_arrays(arrays, labels.named),
    )
    return examined, arrays.checked


def _pick(wrong: Sequence[ExaminedCase], case_kinds: dict[str, dict[str, str]], count: int) -> list[ExaminedCase]:
    """The cases to draw, the worst first: the worst of each kind, then the worst of the others."""
    first_of_kind = {str(case_kinds[case.case]): case for case in reversed(wrong)}
    leading = {case.case for case in first_of_kind.values()}
    chosen = sorted(wrong, key=lambda case: case.case not in leading)[:count]
    names = {case.case for case in chosen}
    return [case for case in wrong if case.case in names]


def _reader(cases: Sequence[LabelledCase], labels: ScoredLabels) -> Callable[[ExaminedCase], CaseArrays]:
    by_name = {case.name: case for case in cases}

    def read(case: ExaminedCase) -> CaseArrays:
        path = None if case.segmentation is None else Path(case.segmentation)
        return read_arrays(by_name[case.case], labels, path, len(case.spacing_mm))

    return read


def _write(
    report: FailureReport, folder: Path, drawn: Sequence[ExaminedCase], read: Callable[[ExaminedCase], CaseArrays]
) -> None:
    picture = folder / _PICTURE
    # that of an earlier run
    picture.unlink(missing_ok=True)
    write_json(folder / "failures.json", report.as_dict(), indent=2)
    write_text(folder / "failures.md", format_failures(report, _PICTURE if drawn else None))
    if drawn:
        save_sheet(picture, drawn, report, read)

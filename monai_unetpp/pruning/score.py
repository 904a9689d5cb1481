"""Score every level of a network on labelled cases, all levels from one pass per case.

:func:`evaluate_levels` is the first stage of pruning: it knows nothing of costs and decides nothing.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from monai_unetpp.data import (
    ImageFileError,
    ImageGeometry,
    compare_geometry,
    describe_case_failure,
    describe_failure,
    read_geometry,
    write_volume,
)
from monai_unetpp.data.case_check import check_case
from monai_unetpp.data.check import tell_doubtful
from monai_unetpp.data.label_names import LabelNames
from monai_unetpp.data.labelled import LabelledCase, hash_files, list_cases, repeated_names
from monai_unetpp.data.labels import read_label_map
from monai_unetpp.distributed import gather, rank, share
from monai_unetpp.metrics import CaseScorer, LabelScore, disagreement, error_auroc, spacing_of_affine
from monai_unetpp.metrics.scores import check_labels, check_tolerances, scored_labels
from monai_unetpp.networks.hashing import hash_network
from monai_unetpp.pruning.finished import Fingerprint, FinishedCases, hash_text
from monai_unetpp.pruning.predict import (
    EMBEDDED,
    LevelSource,
    Network,
    Pipeline,
    list_sources,
    networks_ready,
    predict_case,
)
from monai_unetpp.pruning.results import DataProblem, OperatingPoint, ScoreRow

__all__ = ["PredictionHook", "Scores", "evaluate_levels", "predict_case"]

logger = logging.getLogger(__name__)

_Array = npt.NDArray[Any]
_T = TypeVar("_T")
PredictionHook = Callable[[LabelledCase, OperatingPoint, _Array, _Array], None]


@dataclasses.dataclass(frozen=True)
class Scores:
    """What :func:`evaluate_levels` found.

    Attributes:
        points: the operating points: the levels, shallowest first, then the extra ones.
        rows: a score for every case, point and label, in the order of the cases, points and labels given.
        problems: cases that have no rows, and why.
        cases: the cases that have rows, with their files.
        error_auroc: how well disagreement between the levels finds errors of the deepest one: mean over cases of
            the area under the ROC curve; None if not measured or nowhere defined.
    """

    points: tuple[OperatingPoint, ...]
    rows: tuple[ScoreRow, ...]
    problems: tuple[DataProblem, ...]
    cases: tuple[LabelledCase, ...]
    error_auroc: float | None = None


def evaluate_levels(
    network: Network,
    cases: Sequence[Mapping[str, Any]],
    *,
    preprocessing: Callable[..., Any],
    inferer: Callable[..., Any],
    postprocessing: Callable[..., Any],
    labels: Mapping[str, int],
    tolerance_mm: Mapping[str, float],
    ignore_label: int | None = None,
    levels: Sequence[str] | None = None,
    extra: Mapping[OperatingPoint, Network] | None = None,
    dataset: str = "dataset",
    device: torch.device | str = "cpu",
    spatial_dims: int | None = None,
    subjects: Mapping[str, str] | str | PathLike[str] | None = None,
    subject_pattern: str | None = None,
    configuration: str = "",
    store: str | PathLike[str] | None = None,
    exclude_problems: bool = False,
    uncertainty: bool = False,
    uncertainty_dir: str | PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_prediction: PredictionHook | None = None,
) -> Scores:
    """Score all levels of a network on labelled volumes, from one pass per case.

    Every case is checked before the network sees the first one. Predictions are compared on the label's own grid,
    read from the file without resampling; see :data:`monai_unetpp.metrics.RULES` for what is measured.

    In a process group (``torchrun``, with ``torch.distributed`` initialised) each process takes its share of the
    cases, and every process returns all of them: the same as a single process would.

    Args:
        network: anything with ``forward_levels(x, levels)`` such as :class:`~monai_unetpp.NestedUNet`, or any callable
            that takes a batch ``(1, C, H, W[, D])`` and returns a dict of logits ``(1, classes, H, W[, D])`` by level.
            It is moved to ``device`` and put in eval mode meanwhile.
        cases: dicts with ``image`` (a path, or one per channel), ``label`` and optionally ``subject``, as
            ``load_datalist`` gives them. Image and label must have one shape, and no corner of their grids may lie
            further apart than a tenth of the shortest voxel edge.
        preprocessing: MONAI ``Compose`` that loads and prepares key ``"image"`` to ``(C, H, W[, D])``. Transforms of
            other keys, such as the label's, are left out.
        inferer: MONAI inferer; called as ``inferer(batch, network)`` it must hand the dict of levels through, as
            ``SimpleInferer`` and ``SlidingWindowInferer`` (without ``buffer_steps``) do. A
            ``NestedSlidingWindowInferer`` is asked for the levels itself, so that it can compile or convert the
            network; leave its ``levels`` and ``output`` at their defaults.
        postprocessing: MONAI ``Compose`` that turns ``{"pred": logits, "image": image}`` of one level, without the
            batch axis, into integer labels ``"pred"`` on the image's original grid: such as ``AsDiscreted(argmax)``
            and ``Invertd``.
        labels: value of each label by name, without the background. Values above 0 that are not named are a problem
            in a label file, and background in a prediction.
        tolerance_mm: tolerance of the normalised surface Dice by label in mm; ``"foreground"`` is optional.
        ignore_label: value of voxels in label files that take no part in any score, whatever is predicted there.
        levels: names of the levels to score, shallowest first; by default ``network.levels``.
        extra: further networks, each an operating point of its own, scored on the same cases with the same
            transforms; a network returns logits, a dict of levels with the point's own, or has ``forward_levels``.
        dataset: name of the data set in all results.
        device: where the networks run.
        spatial_dims: 2 or 3; by default ``network.spatial_dims``, else what each label has.
        subjects: subject by name of the case (image file name without suffix), or a CSV file with the columns
            ``case`` and ``subject``.
        subject_pattern: regular expression with one group that finds the subject in the case's name. A case's own
            ``subject`` goes first, then ``subjects``, then the pattern; without all, each case is a subject.
        configuration: text of all settings of transforms and inferer, so that a finished case is scored again when
            they change. Required with ``store``.
        store: folder to keep finished cases in. A rerun scores only cases that are new or whose weights,
            configuration or data changed; an interrupted run loses no more than the case it was at.
        exclude_problems: leave out cases with problems in their data and go on, instead of stopping before any
            network work.
        uncertainty: measure how well disagreement between the levels finds errors of the deepest one.
        uncertainty_dir: folder for ``<case>_uncertainty.nii.gz``, the disagreement per voxel (0 to 1) on the image's
            own grid; implies ``uncertainty``. Take one folder per data set.
        progress: called with the number of finished cases and of all, by process 0 for its own share.
        on_prediction: called with the case, the operating point, its label map ``(H, W[, D])`` and the label's affine
            (in mm) after each prediction; not for cases taken from ``store``. See :func:`predict_case`.

    Returns:
        The scores. Where ``exclude_problems`` is set, a case on which the network fails becomes a
        :class:`~monai_unetpp.pruning.results.DataProblem`, and a further network that fails on a case is left out as
        a point; a case has rows at all points or at none.

    Raises:
        TypeError: an argument, or an output of the network or inferer, of the wrong kind.
        ValueError: arguments that do not go together; unless ``exclude_problems``, cases with problems in their data
            before any network work, and cases that failed after all others were scored (and kept in ``store``).
        RuntimeError: not a single case could be scored.

    Examples:
        A volume with a bright cube, and what to do with any image:

        >>> import tempfile, nibabel, numpy, torch
        >>> from monai import transforms
        >>> from monai.inferers import SlidingWindowInferer
        >>> folder = tempfile.mkdtemp()
        >>> cube = numpy.zeros((16, 16, 16), dtype="uint8")
        >>> cube[4:12, 4:12, 4:12] = 1
        >>> for name, voxels in (("case_image.nii.gz", 100.0 * cube), ("case_label.nii.gz", cube)):
        ...     nibabel.save(nibabel.Nifti1Image(voxels, numpy.diag([1, 1, 2, 1])), f"{folder}/{name}")
        >>> case = {"image": f"{folder}/case_image.nii.gz", "label": f"{folder}/case_label.nii.gz"}
        >>> preprocessing = transforms.Compose([
        ...     transforms.LoadImaged(keys="image", ensure_channel_first=True),
        ...     transforms.Orientationd(keys="image", axcodes="RAS", labels=None),
        ...     transforms.ScaleIntensityd(keys="image"),
        ... ])
        >>> settings = dict(
        ...     preprocessing=preprocessing,
        ...     inferer=SlidingWindowInferer(roi_size=(16, 16, 16)),
        ...     postprocessing=transforms.Compose([
        ...         transforms.AsDiscreted(keys="pred", argmax=True),
        ...         transforms.Invertd(keys="pred", transform=preprocessing, orig_keys="image", nearest_interp=True),
        ...     ]),
        ...     labels={"cube": 1},
        ...     tolerance_mm={"cube": 1.0},
        ... )

        Any network that returns a dict of levels:

        >>> def network(x):
        ...     return {"L1": torch.cat([0.5 - x, 0 * x], dim=1), "L2": torch.cat([0.5 - x, x - 0.5], dim=1)}
        >>> scores = evaluate_levels(network, [case], levels=["L1", "L2"], **settings)
        >>> [(row.point, row.label, row.score.dice) for row in scores.rows]
        [('L1', 'cube', 1.0), ('L2', 'cube', 1.0)]

        A ``BasicUNetPlusPlus`` that was trained with MONAI, converted first:

        >>> from monai.networks.nets import BasicUNetPlusPlus
        >>> from monai_unetpp import NestedUNet
        >>> trained = BasicUNetPlusPlus(3, 1, 2, features=(4, 4, 4, 4, 4, 4), deep_supervision=True)
        >>> scores = evaluate_levels(NestedUNet.from_basic_unetplusplus(trained), [case], **settings)
        >>> [point.name for point in scores.points]
        ['L1', 'L2', 'L3', 'L4']
    """
    check_labels(labels)
    check_tolerances(tolerance_mm, labels)
    _check_dataset(dataset)
    sources = list_sources(network, levels, extra or {})
    if spatial_dims is None:
        spatial_dims = getattr(network, "spatial_dims", None)
    evaluation = _Evaluation(
        sources=sources,
        pipeline=Pipeline(preprocessing, inferer, postprocessing),
        labels=dict(labels),
        ignore_label=ignore_label,
        tolerance_mm=dict(tolerance_mm),
        spatial_dims=spatial_dims,
        dataset=dataset,
        device=torch.device(device),
        uncertainty=uncertainty or uncertainty_dir is not None,
        uncertainty_dir=None if uncertainty_dir is None else Path(uncertainty_dir),
        on_prediction=on_prediction,
        memory=None
        if store is None
        else _Memory.of(store, dataset, sources, f"{configuration}{_ignoring(ignore_label)}", labels, tolerance_mm),
    )
    listed = list_cases(cases, subjects, subject_pattern)
    contents, problems = _check_cases(listed, evaluation, getattr(network, "in_channels", None), exclude_problems)
    sound = [case for case in listed if case.name in contents]
    found = _score_share(sound, contents, evaluation, progress)
    problems += [DataProblem(dataset, case.name, each) for case in sound if isinstance(each := found[case.name], str)]
    scored = {case: each for case in sound if isinstance(each := found[case.name], _CaseScores)}
    if not scored:
        raise RuntimeError(
            f"no case of {dataset!r} could be scored; the first one: {problems[0].case}: {problems[0].reason}"
        )
    failed = _failed_points(scored, evaluation)
    if not exclude_problems:
        _check_failures(dataset, problems, failed, len(listed))
    points = tuple(point for point in evaluation.points if point.name not in failed)
    for name, reasons in failed.items():
        logger.warning("%s is left out of the comparison: %s", name, " ".join(reasons))
    aurocs = [each.error_auroc for each in scored.values() if each.error_auroc is not None]
    return Scores(
        points=points,
        rows=tuple(row for case, each in scored.items() for row in evaluation.rows(case, each, points)),
        problems=tuple(problems),
        cases=tuple(scored),
        error_auroc=float(np.mean(aurocs)) if aurocs else None,
    )


def _ignoring(ignore_label: int | None) -> str:
    """What is added to the configuration, so that finished cases are scored again when it changes."""
    return "" if ignore_label is None else f"\nignore_label {ignore_label}"


def _failed_points(scored: Mapping[LabelledCase, _CaseScores], evaluation: _Evaluation) -> dict[str, list[str]]:
    """By further point that failed somewhere: the case and the reason, for each case on which it failed."""
    failed: dict[str, list[str]] = {}
    for source in evaluation.sources:
        reasons = [
            f"{case.name}: {each.failures[source.key]}" for case, each in scored.items() if source.key in each.failures
        ]
        failed |= {point.name: reasons for point in source.points if reasons}
    return failed


def _check_failures(
    dataset: str, problems: Sequence[DataProblem], failed: Mapping[str, Sequence[str]], count: int
) -> None:
    lines = [f"- {problem.case}: {problem.reason}" for problem in problems]
    lines += [f"- {point} on {reason}" for point, reasons in failed.items() for reason in reasons]
    if lines:
        raise ValueError(
            f"cases of {dataset!r} must all be scored, got {len(lines)} failure(s) on {count} cases:\n"
            + "\n".join(lines)
            + "\nFinished cases are kept where a store is given. Correct the cause and run again, or set "
            "exclude_problems to leave out these cases and further checkpoints."
        )


def _check_dataset(dataset: str) -> None:
    if not isinstance(dataset, str):
        raise TypeError(f"dataset must be a name, got {dataset!r}. Pass a string.")
    if not dataset or dataset in (".", "..") or "/" in dataset or "\\" in dataset:
        raise ValueError(f"dataset must be a name that a folder can have, got {dataset!r}. Leave out slashes.")


@dataclasses.dataclass(frozen=True)
class _CaseScores:
    """All scores of one case: by operating point and label, the AUROC, and why further networks failed."""

    scores: dict[str, dict[str, LabelScore]]
    error_auroc: float | None = None
    failures: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _Memory:
    """Where finished cases are kept, and what they depend on besides the data."""

    finished: FinishedCases
    weights: dict[str, str]
    configuration: dict[str, str]

    @classmethod
    def of(
        cls,
        store: str | PathLike[str],
        dataset: str,
        sources: Sequence[LevelSource],
        configuration: str,
        labels: Mapping[str, int],
        tolerance_mm: Mapping[str, float],
    ) -> _Memory:
        if not isinstance(configuration, str) or not configuration:
            raise ValueError(
                f"configuration must be a text of all settings where store is given, got {configuration!r}. Pass the "
                "config files' content, so that finished cases are scored again when it changes."
            )
        weights, settings = {}, {}
        for source in sources:
            if source.module is None:
                raise ValueError(
                    f"network must be a torch.nn.Module where store is given, got {type(source.network).__name__} for "
                    f"{source.key!r}. Make it a module, so that changed weights are noticed, or leave store out."
                )
            weights[source.key] = hash_network(source.module)
            settings[source.key] = hash_text(
                json.dumps([configuration, list(labels.items()), sorted(tolerance_mm.items()), source.levels])
            )
        return cls(FinishedCases(store, dataset), weights, settings)

    def fingerprint(self, source: LevelSource, content: str) -> Fingerprint:
        return Fingerprint(self.weights[source.key], self.configuration[source.key], content)


@dataclasses.dataclass(frozen=True)
class _Evaluation:
    """All that scoring one case needs to know."""

    sources: list[LevelSource]
    pipeline: Pipeline
    labels: dict[str, int]
    ignore_label: int | None
    tolerance_mm: dict[str, float]
    spatial_dims: int | None
    dataset: str
    device: torch.device
    uncertainty: bool
    uncertainty_dir: Path | None
    on_prediction: PredictionHook | None
    memory: _Memory | None

    @property
    def values(self) -> list[int]:
        """What label maps may hold besides 0."""
        return [*self.labels.values(), *([] if self.ignore_label is None else [self.ignore_label])]

    @property
    def points(self) -> tuple[OperatingPoint, ...]:
        return tuple(point for source in self.sources for point in source.points)

    def rows(self, case: LabelledCase, found: _CaseScores, points: Sequence[OperatingPoint]) -> Iterator[ScoreRow]:
        for point in points:
            for label in scored_labels(self.labels):
                score = found.scores[point.name][label]
                yield ScoreRow(self.dataset, case.name, case.subject, point.name, label, score)

    def score(self, case: LabelledCase, content: str) -> _CaseScores | str:
        """All scores of a case, finished ones from disk, or why there are none."""
        scores: dict[str, dict[str, LabelScore]] = {}
        failures: dict[str, str] = {}
        auroc = None
        for source in self.sources:
            recalled = self._recall(case, source, content)
            found = recalled or self._score_source(case, source)
            if isinstance(found, str):
                if source.key == EMBEDDED:
                    return found
                # a further network says nothing of the levels: the case stays
                failures[source.key] = found
                continue
            if recalled is None:
                self._remember(case, source, content, found)
            scores |= found.scores
            auroc = found.error_auroc if source.key == EMBEDDED else auroc
        return _CaseScores(scores, auroc, failures)

    def _score_source(self, case: LabelledCase, source: LevelSource) -> _CaseScores | str:
        started = time.perf_counter()
        try:
            truth = read_label_map(case.label, self.spatial_dims)
            image = self.pipeline.load(case)
            outputs = self.pipeline.infer(image, source, self.device)
        except Exception as e:
            return _failed(case, source, e)
        # a network or inferer of the wrong kind fails on every case: it is not the case's fault
        logits = source.pick(outputs)
        uncertain = self.uncertainty and source.key == EMBEDDED
        auroc = None
        try:
            shape = truth.data.shape
            entropy = self.pipeline.invert(disagreement(logits)[0], image, shape) if uncertain else None
            maps = {point: self.pipeline.label_map(logits[point.level], image, shape) for point in source.points}
            if entropy is not None:
                scored = truth.data != self.ignore_label if self.ignore_label is not None else np.s_[:]
                wrong = self._named(maps[source.points[-1]]) != truth.data
                auroc = error_auroc(entropy[scored], wrong[scored])
        except Exception as e:
            return _failed(case, source, e)
        if self.uncertainty_dir is not None and entropy is not None:
            _write_map(self._map_path(case), entropy, case, truth.affine)
        spacing = spacing_of_affine(truth.affine, truth.data.ndim)
        scorer = CaseScorer(truth.data, spacing, self.labels, self.tolerance_mm, self.ignore_label)
        scores = {}
        for point, label_map in maps.items():
            scores[point.name] = scorer.score(label_map)
            if self.on_prediction is not None:
                self.on_prediction(case, point, label_map, truth.affine)
        logger.info("%s (%s): scored in %.1f s.", case.name, source.key, time.perf_counter() - started)
        return _CaseScores(scores, auroc)

    def _named(self, label_map: _Array) -> _Array:
        return np.where(np.isin(label_map, list(self.labels.values())), label_map, 0)

    def _map_path(self, case: LabelledCase) -> Path:
        return (self.uncertainty_dir or Path()) / f"{case.name}_uncertainty.nii.gz"

    def _recall(self, case: LabelledCase, source: LevelSource, content: str) -> _CaseScores | None:
        if self.memory is None:
            return None
        record = self.memory.finished.load(case.name, source.key, self.memory.fingerprint(source, content))
        if record is None:
            return None
        if self.uncertainty and source.key == EMBEDDED:
            missing_map = self.uncertainty_dir is not None and not self._map_path(case).is_file()
            if missing_map or not record.get("uncertainty"):
                logger.info("%s: its uncertainty has not been kept. The case is scored again.", case.name)
                return None
        try:
            scores = {
                point.name: {label: LabelScore(**record["scores"][point.name][label]) for label in self._scored_labels}
                for point in source.points
            }
        except (KeyError, TypeError) as e:
            logger.warning("%s (%s): the finished case is damaged (%r). It is scored again.", case.name, source.key, e)
            return None
        return _CaseScores(scores, record.get("error_auroc") if self.uncertainty else None)

    @property
    def _scored_labels(self) -> tuple[str, ...]:
        return scored_labels(self.labels)

    def _remember(self, case: LabelledCase, source: LevelSource, content: str, found: _CaseScores) -> None:
        if self.memory is None:
            return
        record = {
            "scores": {
                point: {label: dataclasses.asdict(score) for label, score in by_label.items()}
                for point, by_label in found.scores.items()
            },
            "uncertainty": self.uncertainty and source.key == EMBEDDED,
            "error_auroc": found.error_auroc,
        }
        self.memory.finished.save(case.name, source.key, self.memory.fingerprint(source, content), record)


def _failed(case: LabelledCase, source: LevelSource, error: Exception) -> str:
    logger.warning("%s (%s) could not be scored.", case.name, source.key, exc_info=error)
    if isinstance(error, ImageFileError):
        return describe_failure(error)
    return f"{case.image[0]}: {describe_case_failure(error, str(case.image[0]), 'inference')}"


def _write_map(path: Path, values: _Array, case: LabelledCase, affine: _Array) -> None:
    # a file with several channels has another shape than its grid; the label lies on the same grid
    single = compare_geometry(read_geometry(case.image[0]), ImageGeometry(values.shape, affine)) is None
    write_volume(path, values.astype(np.float32), case.image[0] if single else case.label, affine)


def _check_cases(
    cases: Sequence[LabelledCase], evaluation: _Evaluation, in_channels: int | None, exclude_problems: bool
) -> tuple[dict[str, str], list[DataProblem]]:
    """The content's hash of every sound case by name, and the problems of the others."""
    repeated = repeated_names(cases)
    reasons = {
        name: f"{', '.join(str(case.image[0]) for case in same)}: names of cases must differ, got {name!r} "
        f"{len(same)} times. Rename the files."
        for name, same in repeated.items()
    }
    single = [case for case in cases if case.name not in repeated]
    checked = gather(
        {case.name: check_case(case, evaluation.values, evaluation.spatial_dims, in_channels) for case in share(single)}
    )
    reasons |= {name: found.problem for name, found in checked.items() if found.problem is not None}
    sound = [case for case in single if checked[case.name].problem is None]
    if rank() == 0:
        names_of_labels = LabelNames(evaluation.labels, evaluation.ignore_label)
        found_in = {case: checked[case.name] for case in sound}
        tell_doubtful(evaluation.dataset, evaluation.dataset, found_in, names_of_labels)
    contents = gather({case.name: hash_files(case.files) for case in share(sound)})
    names = dict.fromkeys(case.name for case in cases)
    problems = [DataProblem(evaluation.dataset, name, reasons[name]) for name in names if name in reasons]
    if problems and not exclude_problems:
        listing = "\n".join(f"- {problem.case}: {problem.reason}" for problem in problems)
        raise ValueError(
            f"cases of {evaluation.dataset!r} must be sound, got {len(problems)} of {len(names)} with a problem:\n"
            f"{listing}\nCorrect them, or set exclude_problems to leave them out."
        )
    for problem in problems:
        logger.warning("%s is left out. %s", problem.case, problem.reason)
    return contents, problems


def _score_share(
    cases: Sequence[LabelledCase],
    contents: Mapping[str, str],
    evaluation: _Evaluation,
    progress: Callable[[int, int], None] | None,
) -> dict[str, _CaseScores | str]:
    """The scores of all cases by name, or why there are none; this process scores its share of them."""
    own = share(cases)
    found: dict[str, _CaseScores | str] = {}
    with networks_ready(evaluation.sources, evaluation.device):
        for done, case in enumerate(own, start=1):
            found[case.name] = evaluation.score(case, contents[case.name])
            if progress is not None and rank() == 0:
                progress(done, len(own))
    return gather(found)

"""Score one case: each network runs once for all its operating points; finished scores are read from disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

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
from monai_unetpp.data.datasets.labelled import LabelledCase
from monai_unetpp.data.formats.grid import voxel_ml
from monai_unetpp.data.formats.reader import Volume, read_label_map
from monai_unetpp.files import write_json
from monai_unetpp.inferers.label_maps import check_finite
from monai_unetpp.metrics import CaseScorer, LabelScore, error_auroc, spacing_of_affine
from monai_unetpp.metrics.scores import scored_labels
from monai_unetpp.metrics.uncertainty import Disagreement
from monai_unetpp.plain_values import from_plain, to_plain
from monai_unetpp.pruning.pipeline_text import describe_network
from monai_unetpp.pruning.results import OperatingPoint, ScoreRow
from monai_unetpp.pruning.scoring.arguments import Scoring
from monai_unetpp.pruning.scoring.prediction import EMBEDDED, LevelSource, Network, Pipeline, list_sources
from monai_unetpp.version import __version__
from monai_unetpp.window_layout import AUTO

logger = logging.getLogger(__name__)

_Array = npt.NDArray[Any]
_Scores = dict[str, dict[str, LabelScore]]
_MAP_SUFFIX = "_uncertainty.nii.gz"


@dataclasses.dataclass(frozen=True)
class CaseScores:
    """All scores of one case, by operating point and label.

    Attributes:
        error_auroc: how well disagreement finds errors; None if not measured or undefined.
        failures: why further networks failed, by key.
        depths: number of windows that stopped, by gate and level.
    """

    scores: _Scores
    error_auroc: float | None = None
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    depths: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)


class FinishedCases:
    """Scored cases, one JSON file each: ``<store>/<dataset>/<case>.json``.

    A file holds one record per network, so that adding a checkpoint keeps the scores of the others. Records are valid
    for the same files of the case and what else scores depend on, as SHA-256 by network: ``"weights"`` of the network,
    and ``"configuration"`` of its transforms, inferer, labels and tolerances.
    """

    def __init__(self, store: str | PathLike[str], dataset: str, depends_on: Mapping[str, Mapping[str, str]]) -> None:
        self.folder = Path(store) / dataset
        self.depends_on = depends_on

    def load(self, case: str, network: str, content: str) -> dict[str, Any] | None:
        """The record of a network on a case whose files have this SHA-256; None if it is not valid, which is logged."""
        entry = self._read(case).get(network)
        if entry is None:
            return None
        try:
            before, now = entry["fingerprint"], self._fingerprint(network, content)
            changes = [name for name in now if before[name] != now[name]]
            record: dict[str, Any] = entry["record"]
        except (KeyError, TypeError) as e:
            logger.warning("%s is damaged (%r). The case is scored again.", self._path(case), e)
            return None
        if changes:
            logger.info("%s (%s): %s changed. The case is scored again.", case, network, " and ".join(changes))
            return None
        return record

    def save(self, case: str, network: str, content: str, record: Mapping[str, Any]) -> None:
        """Keep the record of a network on a case, beside those of other networks."""
        networks = self._read(case)
        networks[network] = {"fingerprint": self._fingerprint(network, content), "record": dict(record)}
        write_json(self._path(case), {"case": case, "networks": networks}, indent=1, allow_nan=False)

    def _fingerprint(self, network: str, content: str) -> dict[str, str]:
        return {**self.depends_on[network], "data": content}

    def _path(self, case: str) -> Path:
        return self.folder / f"{case}.json"

    def _read(self, case: str) -> dict[str, Any]:
        path = self._path(case)
        if not path.is_file():
            return {}
        try:
            return dict(json.loads(path.read_text(encoding="utf-8"))["networks"])
        except (ValueError, KeyError, TypeError) as e:
            logger.warning("%s is damaged (%r). The case is scored again.", path, e)
            return {}


@dataclasses.dataclass(frozen=True)
class CaseEvaluation:
    """Everything needed to score a case; of the sources, the network whose levels are evaluated is the first."""

    scoring: Scoring
    sources: list[LevelSource]
    pipeline: Pipeline
    memory: FinishedCases | None

    @classmethod
    def of(cls, network: Network, scoring: Scoring) -> CaseEvaluation:
        """Check the networks against ``scoring``, and hash them if finished cases are kept."""
        if scoring.spatial_dims is None:
            scoring = dataclasses.replace(scoring, spatial_dims=getattr(network, "spatial_dims", None))
        sources = list_sources(network, scoring.levels, scoring.extra or {}, scoring.adaptive)
        pipeline = Pipeline(scoring.preprocessing, scoring.inferer, scoring.postprocessing)
        return cls(scoring, sources, pipeline, _memory(scoring, sources))

    @property
    def points(self) -> tuple[OperatingPoint, ...]:
        """The operating points of all networks."""
        return tuple(point for source in self.sources for point in source.points)

    def rows(self, case: LabelledCase, scored: CaseScores, points: Sequence[OperatingPoint]) -> Iterator[ScoreRow]:
        """The scores of a case at some points, one row per label."""
        for point in points:
            for label in scored_labels(self.scoring.labels):
                score = scored.scores[point.name][label]
                yield ScoreRow(self.scoring.dataset, case.name, case.subject, point.name, label, score)

    def score(self, case: LabelledCase, content: str) -> CaseScores | str:
        """All scores of a case, or why there are none; ``content`` is the hash of its files."""
        scores: _Scores = {}
        failures: dict[str, str] = {}
        depths: dict[str, dict[str, int]] = {}
        auroc = None
        for source in self.sources:
            recalled = self._recall(case, source, content)
            outcome = recalled or self.score_source(case, source)
            if isinstance(outcome, str):
                if source.key == EMBEDDED:
                    return outcome
                # failures of further networks do not concern the levels: keep the case
                failures[source.key] = outcome
                continue
            if recalled is None and self.memory is not None:
                record = {**to_plain(outcome), "uncertainty": self._uncertain(source)}
                self.memory.save(case.name, source.key, content, record)
            scores |= outcome.scores
            depths |= outcome.depths
            auroc = outcome.error_auroc if source.key == EMBEDDED else auroc
        return CaseScores(scores, auroc, failures, depths)

    def score_source(self, case: LabelledCase, source: LevelSource) -> CaseScores | str:
        """The scores of the points of one network, or why it failed."""
        started = time.perf_counter()
        try:
            truth = read_label_map(case.label, self.scoring.spatial_dims)
            image = self.pipeline.load(case)
            outputs = self.pipeline.infer(image, source, torch.device(self.scoring.device))
        except Exception as e:
            return _failed(case, source, e)
        # a wrong type of network or inferer is not the fault of the case: let it raise
        logits = source.pick(outputs)
        try:
            shape, uncertain, disagreement = truth.data.shape, self._uncertain(source), Disagreement()
            maps: dict[OperatingPoint, _Array] = {}
            for point in (*source.points, *source.gates):
                found = outputs[point.level] if point in source.gates else logits[point.level]
                check_finite(found)
                maps[point] = self.pipeline.label_map(found, image, shape)
                if uncertain and point in source.points:
                    disagreement.add(found)
                # before those of the next level
                del found
            entropy = self.pipeline.invert(disagreement.entropy()[0], image, shape) if uncertain else None
            auroc = None if entropy is None else self._error_auroc(entropy, maps[source.points[-1]], truth.data)
        except Exception as e:
            return _failed(case, source, e)
        if self.scoring.uncertainty_dir is not None and entropy is not None:
            _write_map(self._map_path(case), entropy, case, truth.affine)
        scores = self._scores(case, maps, truth)
        logger.info("%s (%s): scored in %.1f s.", case.name, source.key, time.perf_counter() - started)
        return CaseScores(scores, auroc, depths=self.pipeline.depths(source))

    def _scores(self, case: LabelledCase, maps: Mapping[OperatingPoint, _Array], truth: Volume) -> _Scores:
        how, scores = self.scoring, {}
        spacing = spacing_of_affine(truth.affine, truth.data.ndim)
        size_ml = voxel_ml(truth.affine, truth.data.ndim)
        scorer = CaseScorer(truth.data, spacing, how.labels, how.tolerance_mm, how.ignore_label, size_ml)
        for point, label_map in maps.items():
            scores[point.name] = scorer.score(label_map)
            if how.on_prediction is not None:
                how.on_prediction(case, point, label_map, truth.affine)
        return scores

    def _uncertain(self, source: LevelSource) -> bool:
        return self.scoring.measures_uncertainty and source.key == EMBEDDED

    def _error_auroc(self, entropy: _Array, deepest: _Array, truth: _Array) -> float | None:
        how = self.scoring
        scored = truth != how.ignore_label if how.ignore_label is not None else np.s_[:]
        named = np.where(np.isin(deepest, list(how.labels.values())), deepest, 0)
        return error_auroc(entropy[scored], (named != truth)[scored])

    def _map_path(self, case: LabelledCase) -> Path:
        return Path(self.scoring.uncertainty_dir or "") / f"{case.name}{_MAP_SUFFIX}"

    def _recall(self, case: LabelledCase, source: LevelSource, content: str) -> CaseScores | None:
        if self.memory is None:
            return None
        record = self.memory.load(case.name, source.key, content)
        if record is None:
            return None
        try:
            stored = from_plain(CaseScores, record, "record")
            scores = {
                point.name: {label: stored.scores[point.name][label] for label in scored_labels(self.scoring.labels)}
                for point in (*source.points, *source.gates)
            }
            depths = {gate.name: stored.depths[gate.name] for gate in source.gates}
        except (KeyError, ValueError) as e:
            logger.warning("%s (%s): the stored scores are damaged (%r). It is scored again.", case.name, source.key, e)
            return None
        if self._uncertain(source):
            missing_map = self.scoring.uncertainty_dir is not None and not self._map_path(case).is_file()
            if missing_map or not record.get("uncertainty"):
                logger.info("%s: its uncertainty was not stored. The case is scored again.", case.name)
                return None
        return CaseScores(scores, stored.error_auroc if self.scoring.measures_uncertainty else None, depths=depths)


def _memory(scoring: Scoring, sources: Sequence[LevelSource]) -> FinishedCases | None:
    if scoring.store is None:
        return None
    if not isinstance(scoring.configuration, str) or not scoring.configuration:
        raise ValueError(
            "configuration must be a text of all settings where store is given, got "
            f"{scoring.configuration!r}. Pass the content of the config files: finished cases are scored again "
            "when it changes."
        )
    ignoring = "" if scoring.ignore_label is None else f"\nignore_label {scoring.ignore_label}"
    scored = [list(scoring.labels.items()), sorted(scoring.tolerance_mm.items())]
    depends_on = {}
    for source in sources:
        if source.module is None:
            raise ValueError(
                f"network must be a torch.nn.Module where store is given, got {type(source.network).__name__} for "
                f"{source.key!r}. Make it a module, so that changes of weights are detected, or leave store out."
            )
        # another version may score differently
        alone = ["each level alone"] if getattr(scoring.inferer, "roi_size", None) == AUTO else []
        settings = json.dumps([__version__, f"{scoring.configuration}{ignoring}", *scored, source.asked, *alone])
        depends_on[source.key] = {
            "weights": hashlib.sha256(describe_network(source.module).encode()).hexdigest(),
            "configuration": hashlib.sha256(settings.encode()).hexdigest(),
        }
    return FinishedCases(scoring.store, scoring.dataset, depends_on)


def _failed(case: LabelledCase, source: LevelSource, error: Exception) -> str:
    logger.warning("%s (%s) could not be scored.", case.name, source.key, exc_info=error)
    if isinstance(error, ImageFileError):
        return describe_failure(error)
    return f"{case.image[0]}: {describe_case_failure(error, str(case.image[0]), 'inference')}"


def remove_other_maps(folder: str | PathLike[str], cases: Collection[str]) -> None:
    """Remove the maps of disagreement of cases that an earlier run scored, but not this one."""
    for path in Path(folder).glob(f"*{_MAP_SUFFIX}"):
        if path.name.removesuffix(_MAP_SUFFIX) not in cases:
            path.unlink()


def _write_map(path: Path, values: _Array, case: LabelledCase, affine: _Array) -> None:
    # a file with several channels has more axes than its grid; the label is on the same grid
    single = compare_geometry(read_geometry(case.image[0]), ImageGeometry(values.shape, affine)) is None
    write_volume(path, values.astype(np.float32), case.image[0] if single else case.label, affine)

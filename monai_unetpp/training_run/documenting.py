"""Adding the results of a training to its bundle: weights with hash and record, curves, and the README."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_unetpp.bundles import WEIGHTS_FILE, read_metadata, weights_entry
from monai_unetpp.bundles.json_files import METADATA_FILE
from monai_unetpp.bundles.training_record import (
    LAST,
    LAST_AVERAGED,
    TrainingRecord,
    find_training_record,
    put_training_record,
)
from monai_unetpp.errors import counted
from monai_unetpp.files import atomic_path, write_json
from monai_unetpp.planning import write_readme
from monai_unetpp.pruning import verdict
from monai_unetpp.pruning.points.tradeoffs import accuracy_of_each
from monai_unetpp.pruning.report.opening import OF_OTHER_NETWORKS, out_of_fold_sentences
from monai_unetpp.pruning.report.result_tables import UNSCORED, accuracy_table, worst_cases_table
from monai_unetpp.pruning.results import Exposure, PruningResult
from monai_unetpp.pruning.summary import data_sets, summarise
from monai_unetpp.reporting.markdown import escape
from monai_unetpp.training_run.fitting import Fitted, read_fitted
from monai_unetpp.training_run.judging import fold_dir

#: Files of a training that are copied to the bundle's docs.
_SHOWN = ("curve.csv", "levels.csv", "training.png")


def install_weights(bundle: Path, fitted: Fitted, cases: Sequence[Mapping[str, Any]], init: str | None = None) -> None:
    """Copy the weights of a training into the bundle, and record their origin in its metadata.

    There is no model selection: the weights are those after the last step on ``cases``, the training cases. The
    training started from ``init``, a bundle or checkpoint.
    """
    with atomic_path(bundle / WEIGHTS_FILE) as temporary:
        shutil.copyfile(fitted.weights, temporary)
    metadata = read_metadata(bundle)
    metadata.pop("eval_metrics", None)
    _write_metadata(bundle, metadata | weights_entry(bundle))
    # a training whose bundle was planned before, or whose files were changed meanwhile, has left none
    record = find_training_record(fitted.weights)
    if record is None:
        record = TrainingRecord.of(cases, rule=LAST_AVERAGED if fitted.averaged else LAST, started_from=init)
    put_training_record(bundle, record)
    for name in _SHOWN:
        if (fitted.folder / name).is_file():
            with atomic_path(bundle / "docs" / name) as temporary:
                shutil.copyfile(fitted.folder / name, temporary)


def document(bundle: Path, fitted: Fitted, cases: int, folds: int, result: PruningResult | None = None) -> None:
    """Rewrite the bundle's README: how it was trained, on how many cases, and with how many folds.

    After the verdict, it has the ``result`` too, whose scores are also written to the metadata, unless they are those
    of the folds' networks or no case has a label.
    """
    performance = None
    if result is not None:
        performance = _performance(bundle, result)
        means = accuracy_of_each(result.rows, [point.name for point in result.points])
        if means and not _out_of_fold(result):
            metrics = {f"mean_dice_{point}": round(mean, 4) for point, mean in means.items()}
            _write_metadata(bundle, read_metadata(bundle) | {"eval_metrics": metrics})
    write_readme(bundle, training=_training(bundle, fitted, cases, folds), performance=performance, folds=folds)


def _training(bundle: Path, fitted: Fitted, cases: int, folds: int) -> str:
    weights = "the moving average of the weights" if fitted.averaged else "the weights"
    together = f" in {fitted.processes} processes, each with batches of its own," if fitted.processes > 1 else ""
    repeatable = f"A training{together} with this number of `steps` and no `minutes` is exactly repeatable."
    if fitted.earlier_processes:
        numbers = ", then ".join(map(str, (*fitted.earlier_processes, fitted.processes)))
        repeatable = f"It cannot be repeated exactly, as the number of processes changed: {numbers}."
    parts = [
        f"Trained on {counted(cases, 'case')} for {counted(fitted.steps, 'step')} in {fitted.seconds / 60:.1f} "
        f"minutes. The bundle has {weights} after the last step; it used no cases for model selection. {repeatable}"
    ]
    if folds:
        parts.append(
            f"In addition, {folds} networks were trained on parts of the cases, so that each case is scored by a "
            "network that has never seen its subject. Their scores decide between the levels; for the network in this "
            f"bundle, no part was left out.{_processes_of_folds(bundle, fitted, folds)}"
        )
    if fitted.transfer is not None:
        parts.append(f"It started from weights {escape(fitted.transfer)}.")
        record = find_training_record(fitted.weights)
        if record is not None and record.selecting:
            parts.append(
                f"{counted(len(record.selecting), 'case')} had chosen those weights: figures on them are optimistic."
            )
    if (bundle / "docs" / "training.png").is_file():
        dice = ", and Dice of every level on a few cases" if (bundle / "docs" / "levels.csv").is_file() else ""
        parts.append(f"![Training loss{dice}](training.png)")
    return "\n\n".join(parts)


def _processes_of_folds(bundle: Path, fitted: Fitted, folds: int) -> str:
    """A sentence that says how many processes trained each fold; empty if as many as the bundle's network."""
    found = {number: read_fitted(fold_dir(bundle, number)) for number in range(1, folds + 1)}
    used = {number: (*each.earlier_processes, each.processes) for number, each in found.items() if each is not None}
    if set(used.values()) <= {(fitted.processes,)}:
        return ""
    told = ", ".join(f"{' then '.join(map(str, each))} for fold {number}" for number, each in used.items())
    return f" Processes that trained them together, each with batches of its own: {told}."


def _out_of_fold(result: PruningResult) -> list[Exposure]:
    return [each for each in result.exposures or () if each.out_of_fold]


def _performance(bundle: Path, result: PruningResult) -> str:
    summary = summarise(result)
    parts = [" ".join(filter(None, [escape(verdict(result).summary), escape(result.settings.get(UNSCORED, ""))]))]
    if exposures := _out_of_fold(result):
        parts.append(f"**{OF_OTHER_NETWORKS}** {escape(' '.join(out_of_fold_sentences(exposures)))}")
    tables = [
        *(accuracy_table(result, summary, name) for name in data_sets(result)),
        worst_cases_table(result, summary),
    ]
    # with headings one level below that of the section
    parts += [f"##{table.markdown()}" for table in tables if table is not None]
    parts += [f"![One of the worst cases]({name})" for name in _copy_pictures(bundle, result)]
    parts.append(
        "All figures, with costs and methods, are in `pruning/report.html` of the unpruned bundle, unless that folder "
        "was removed before sharing."
    )
    return "\n\n".join(parts)


def _copy_pictures(bundle: Path, result: PruningResult) -> list[str]:
    """Copy the pictures of the worst cases to ``docs``, with numbers as names, as case names are users' text."""
    for old in (bundle / "docs").glob("worst_*.png"):
        old.unlink()
    names = []
    for number, path in enumerate(result.overlays, start=1):
        source = bundle / "pruning" / path
        if source.is_file():
            names.append(f"worst_{number}.png")
            shutil.copyfile(source, bundle / "docs" / names[-1])
    return names


def _write_metadata(bundle: Path, content: Mapping[str, Any]) -> None:
    write_json(bundle / METADATA_FILE, content, indent=4, ensure_ascii=False)

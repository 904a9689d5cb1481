"""The verdict on a newly trained bundle: on untouched cases, or on all by cross-fitting."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from random import Random
from typing import Any

from monai_unetpp.bundles import WEIGHTS_FILE, BundleConfig, hash_file, read_metadata
from monai_unetpp.bundles.json_files import METADATA_FILE
from monai_unetpp.bundles.training_record import find_training_record
from monai_unetpp.data import find_ignore_label
from monai_unetpp.data.datasets.labelled import list_cases
from monai_unetpp.distributed import rank
from monai_unetpp.errors import counted, list_values
from monai_unetpp.files import write_text
from monai_unetpp.planning import load_plan
from monai_unetpp.planning.starting import find_start
from monai_unetpp.pruning import PruningPlan, evaluate_levels, judge, prune, verdict, write_pruned_bundle
from monai_unetpp.pruning.pipeline_text import describe_settings
from monai_unetpp.pruning.preflight import check_write
from monai_unetpp.pruning.results import PruningResult
from monai_unetpp.pruning.scoring.folds import format_scores
from monai_unetpp.pruning.scoring.levels import Scores
from monai_unetpp.pruning.statistics import MIN_SUBJECTS
from monai_unetpp.topology import level_name

_Entries = Sequence[Mapping[str, Any]]


def pruning_plan(bundle: Path, **values: Any) -> PruningPlan:
    """The pruning plan of a bundle's ``prune.json``, with keys such as ``dataset_dir`` or ``network`` overridden."""
    plan: PruningPlan = BundleConfig(bundle, "train.json", "prune.json", values=values).parse("plan")
    return plan


def fold_dir(bundle: Path, number: int) -> Path:
    """The folder for the training of a fold, numbered from 1."""
    return bundle / "training" / f"fold_{number}"


def _by_subject(entries: _Entries) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for case, entry in zip(list_cases(entries), entries, strict=True):
        found[case.subject].append(entry)
    return found


def split_folds(entries: _Entries, count: int, seed: int = 0) -> list[list[Mapping[str, Any]]]:
    """The cases of each fold, with all of a subject in the same one; ``seed`` is for the order of the subjects."""
    by_subject = _by_subject(entries)
    if len(by_subject) < count:
        raise ValueError(f"folds must not be more than subjects, got {count} for {len(by_subject)}. Use fewer, or 0.")
    subjects = sorted(by_subject)
    Random(seed).shuffle(subjects)
    folds: list[list[Mapping[str, Any]]] = [[] for _ in range(count)]
    for subject in sorted(subjects, key=lambda name: -len(by_subject[name])):
        min(folds, key=len).extend(by_subject[subject])
    return folds


def spread_cases(entries: _Entries, count: int) -> list[Mapping[str, Any]]:
    """At most ``count`` cases: all of evenly spread subjects, as many as fit; a single larger one is cut short."""
    if len(entries) <= count:
        return list(entries)
    subjects = list(_by_subject(entries).values())
    for kept in range(min(count, len(subjects)), 0, -1):
        found = [entry for number in range(kept) for entry in subjects[number * len(subjects) // kept]]
        if len(found) <= count:
            return found
    return subjects[0][:count]


def thin_folds(folds: Sequence[_Entries], entries: _Entries, count: int) -> list[list[Mapping[str, Any]]]:
    """The ``count`` cases of all folds, ``entries``, that are scored: evenly spread, at least one of each fold."""
    kept = {id(entry) for entry in spread_cases(entries, count)}
    return [[entry for entry in fold if id(entry) in kept] or list(fold[:1]) for fold in folds]


def score_fold(
    bundle: Path,
    entries: _Entries,
    folder: Path,
    values: Mapping[str, Any],
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score a fold's cases with the network that has never seen them; finished ones are kept, failed ones left out.

    They are written to ``per_case.csv`` too, from where ``monai-unetpp prune --scores`` reads them. ``folder`` is that
    of the fold's training, and ``values``, such as ``dataset_dir``, override those of the bundle's configurations.
    """
    plan = pruning_plan(bundle, **values, checkpoint=str(folder / "model.pt"))
    pipeline = plan.pipeline
    scores = evaluate_levels(
        pipeline.network,
        entries,
        **pipeline.steps,
        labels=pipeline.labels,
        tolerance_mm=pipeline.tolerance_mm,
        ignore_label=find_ignore_label(values["dataset_dir"]),
        dataset=plan.data.names[0],
        device=pipeline.device,
        subjects=plan.data.subjects,
        subject_pattern=plan.data.subject_pattern,
        configuration=json.dumps(describe_settings(pipeline.steps)),
        store=folder / "scores",
        exclude_problems=True,
        progress=progress,
    )
    if rank() == 0:
        write_text(folder / "per_case.csv", format_scores(scores.rows, pipeline.tolerance_mm))
    return scores


def judge_bundle(
    bundle: Path,
    folds: Sequence[Scores],
    fields: Mapping[str, Any],
    values: Mapping[str, Any],
    tell: Callable[[str], None] | None = None,
) -> PruningResult:
    """Decide between the levels, and write the report to the folder ``pruning`` of the bundle.

    ``folds`` are scores of all cases by networks that have never seen them; without any, the validation cases are
    scored, but for those that cannot be. ``fields`` of the pruning plan say what there is time for, and ``values``
    override those of configurations.
    """
    plan = _final_plan(bundle, values).with_fields(**fields, exclude_problems=True, progress=tell)
    if not folds:
        return prune(plan)
    checkpoints = [fold_dir(bundle, number) / "model.pt" for number in range(1, len(folds) + 1)]
    networks = [pruning_plan(bundle, **values, checkpoint=str(path)).pipeline.network for path in checkpoints]
    return judge(folds, plan, networks=networks)


def tell_few_subjects(training: _Entries, validation: _Entries, tell: Callable[[str], None]) -> None:
    """Tell where validation cases are too few for a verdict, before the time is spent."""
    judging = len({case.subject for case in list_cases(validation)})
    if judging < MIN_SUBJECTS:
        subjects = len({case.subject for case in list_cases([*training, *validation])})
        remedy = f" With --folds 3, all {subjects} subjects judge." if subjects >= MIN_SUBJECTS else ""
        tell(
            f"{counted(judging, 'subject')} for validation, fewer than the {MIN_SUBJECTS} that a verdict on the levels "
            f"needs, so the deepest will be kept.{remedy}"
        )


def check_start(init: str | PathLike[str] | None, judging: _Entries, folds: int, tell: Callable[[str], None]) -> None:
    """Tell of judging cases that the initial weights were trained on or selected by; cross-fitting refuses them."""
    try:
        start = None if init is None else find_start(init)
    except FileNotFoundError:  # no longer needed once the training has ended
        return
    record = None if start is None else find_training_record(start)
    if record is None:
        return
    cases = list_cases(judging)
    roles = {case.name: record.role_of_image(case.image) for case in cases}
    trained = [name for name, role in roles.items() if role == "training"]
    seen = trained or [name for name, role in roles.items() if role is not None]
    if not seen:
        return
    what = "were used for training" if trained else "chose the weights of"
    found = f"{len(seen)} of {len(cases)} judging cases {what} {init} ({list_values(seen)})"
    if folds:
        raise ValueError(
            f"init must be weights that saw no case where folds are given, but {found}: networks would score what they "
            "have seen. Leave init or folds out."
        )
    meaning = "there will be no verdict" if trained else "accuracies will be optimistic, above all the deepest level's"
    tell(f"{found}, so {meaning}. Give weights that never saw them, or other validation cases.")


def check_targets(bundle: Path) -> None:
    """Refuse a place where the pruned bundle of any level cannot be written, before the training."""
    levels = [level_name(number) for number in range(1, len(load_plan(bundle)["strides"]))]
    for level in levels:
        check_target(bundle, level)
    folder = bundle.resolve().parent
    if levels and not os.access(folder, os.W_OK):
        raise PermissionError(
            f"{folder}: is read-only, but a pruned bundle may have to be written there, beside {bundle.name}. Take "
            "another folder for the bundle, such as one within this."
        )


def check_target(bundle: Path, level: str) -> Path:
    """Where the bundle that is pruned to a level belongs, unless there is another than one cut out of this one."""
    target = bundle.with_name(f"{bundle.name}_{level}")
    if not target.exists():
        return target
    metadata = read_metadata(target) if (target / METADATA_FILE).is_file() else {}
    # lost weights are installed again from the training
    weights = next(filter(Path.is_file, (bundle / WEIGHTS_FILE, bundle / "training" / "model.pt")), None)
    if weights is None or metadata.get("pruned_from", {}).get("sha256") != hash_file(weights):
        raise FileExistsError(
            f"{target}: exists and was not cut out of this training, but its pruned bundle may have to be written "
            "there. Move it away, or take another folder."
        )
    return target


def cut_bundle(bundle: Path, result: PruningResult, values: Mapping[str, Any]) -> Path | None:
    """Write the pruned bundle beside the unpruned one, unless it is there; None if the verdict is not to prune."""
    final = verdict(result)
    if final.verdict != "prune":
        return None
    target = check_target(bundle, final.level)
    # it may have been filled in or fine-tuned since
    if (target / WEIGHTS_FILE).is_file():
        return target
    plan = _final_plan(bundle, values).with_fields(write=target, overwrite=True)
    inference = check_write(plan.pipeline, plan.outputs)
    return write_pruned_bundle(
        bundle, final.level, target, decision=final, result=result, inference=inference, overwrite=True
    )


def _final_plan(bundle: Path, values: Mapping[str, Any]) -> PruningPlan:
    return pruning_plan(bundle, **values, output_dir=str(bundle / "pruning"))

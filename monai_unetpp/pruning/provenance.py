"""How a report was made: its settings, and earlier rules in the same folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from monai_unetpp.metrics.scores import with_foreground
from monai_unetpp.pruning.inference import inference_of
from monai_unetpp.pruning.plan import PruningPlan
from monai_unetpp.pruning.report.report_files import read_report
from monai_unetpp.pruning.report.result_tables import EARLIER_RULES, UNSCORED
from monai_unetpp.pruning.results import InferenceSetting
from monai_unetpp.pruning.rules import Rules
from monai_unetpp.reporting.numbers import percent

logger = logging.getLogger(__name__)

#: Of costs, by which nothing is judged.
_RUNS, _PART_OF_VOLUME = "runs per latency", "share of a volume that costs are measured on"


def run_settings(plan: PruningPlan, own: InferenceSetting | None, folds: int = 0) -> dict[str, str]:
    """How images are segmented and cases chosen, in words; 0 folds where the network itself scores the cases."""
    data = plan.data
    used = inference_of(plan.pipeline.inferer, plan.pipeline.device)
    settings = {}
    if "window_shape" in used:
        size = used["window_shape"]
        settings["window"] = "x".join(map(str, size)) if isinstance(size, list) else str(size or "the whole image")
        settings["overlap of windows"] = str(used["overlap"])
        settings["blending of windows"] = used["blending"]
    else:
        settings["inferer"] = type(plan.pipeline.inferer).__name__
    settings["flips along axes"] = ", ".join(map(str, used["flips"])) or "none"
    settings["precision"] = used["precision"]
    if own is not None:
        settings["runtime"] = own.runtime
    settings["list of cases"] = f"out of fold, {folds} networks" if folds else data.list_key
    if data.scores:
        settings["scores"] = (
            "from tables, which do not say how images were segmented: windows, flips, precision and runtime are those "
            "with which costs were measured"
        )
    if data.unscored:
        settings[UNSCORED] = data.unscored
    if data.confirm_dir is not None:
        settings["confirmed on"] = data.confirm_dir.resolve().name
    if data.confirm_share is not None:
        settings["share of subjects kept back to confirm"] = f"{data.confirm_share:g}"
        settings["seed of the split"] = str(plan.rules.seed)
    settings[_RUNS] = str(plan.costs.repeats)
    if plan.costs.volume_share < 1:
        settings[_PART_OF_VOLUME] = percent(plan.costs.volume_share)
    return settings


def earlier_rules(
    folder: Path, plan: PruningPlan, settings: Mapping[str, str], subjects: Mapping[tuple[str, str], str]
) -> dict[str, str]:
    """Different rules by which an earlier report in the folder judged the same cases, as they must be fixed in advance.

    So must the cases be: adding some after a look at the verdict, and judging again, is a second test. Leaving out a
    whole data set is one as well; a further data set only makes the verdict stricter.
    """
    path = folder / "report.json"
    if not path.is_file():
        return {}
    try:
        earlier = read_report(path)
    except (ValueError, TypeError, KeyError, OSError) as e:
        logger.warning("%s could not be read (%s): its rules are not compared with those of this run.", path, e)
        return {}
    told = {(row.dataset, row.case): row.subject for row in earlier.rows}
    pairs = {(subject, subjects[case]) for case, subject in told.items() if case in subjects}
    if not pairs:
        return {}
    before, rules = earlier.settings.get(EARLIER_RULES), _in_words(earlier.rules)
    own = {
        key: value for key, value in earlier.settings.items() if key != EARLIER_RULES and not key.startswith("left out")
    }
    changed = {
        key: own.get(key, "not given")
        for key in {**own, **settings}
        if key not in (_RUNS, _PART_OF_VOLUME) and own.get(key) != settings.get(key)
    }
    texts = [] if before is None else [before]
    now = with_foreground(plan.pipeline.tolerance_mm)
    tolerances = {label: value for label, value in with_foreground(earlier.tolerance_mm).items() if label in now}
    loosened = any(now[label] != value for label, value in tolerances.items())
    # other names for the same groups of cases change nothing
    regrouped = any(len({pair[side] for pair in pairs}) < len(pairs) for side in range(2))
    sets = {dataset for dataset, _ in told}
    exchanged = any(dataset in sets for dataset, _ in told.keys() ^ subjects.keys())
    if changed or loosened or regrouped or exchanged or rules != _in_words(plan.rules):
        where = "" if sets <= {dataset for dataset, _ in subjects} else f" in {', '.join(sorted(sets))}"
        parts = [
            *rules,
            *(["tolerances " + ", ".join(f"{name}={mm:g}" for name, mm in tolerances.items())] if loosened else []),
            *([f"{len(told)} cases of {len(set(told.values()))} subjects{where}"] if regrouped or exchanged else []),
            *(f"{key} {value}" for key, value in changed.items()),
        ]
        texts.append("; ".join(parts))
    return {EARLIER_RULES: " | ".join(dict.fromkeys(texts))} if texts else {}


def _in_words(rules: Rules) -> list[str]:
    drops = (f"{metric}={value:g}" for metric, value in sorted(rules.max_case_drop.items()))
    return [
        f"margins {', '.join(sorted(map(str, rules.margins)))}",
        f"alpha {rules.alpha:g}",
        f"largest drops {', '.join(drops)}",
        f"least Dice of the deepest level {rules.min_reference:g}",
        f"{rules.bootstrap_samples} resamples",
        f"seed {rules.seed}",
    ]

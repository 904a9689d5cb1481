"""The output folder of a study: shared settings, state and result of each run."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from monai_unetpp.files import exclusively, read_json_object, write_json
from monai_unetpp.study.accuracy_table import RunResult
from monai_unetpp.study.data_set import StudyCases
from monai_unetpp.study.design import StudySettings
from monai_unetpp.training import write_template

State = Literal["finished", "failed", "interrupted", "open"]


@dataclasses.dataclass(frozen=True)
class StudyFolder:
    """An output folder, which need not exist yet, for runs with the same settings and data set.

    It holds ``settings.json``, the bundle that trains every run, and ``runs/<variant>/seed_<n>/`` with the
    checkpoints or weights of a run, its ``curve.csv``, and ``result.json`` or ``failure.txt``.
    """

    path: Path

    @property
    def settings_file(self) -> Path:
        """The settings and cases that all runs share."""
        return self.path / "settings.json"

    @property
    def bundle(self) -> Path:
        """The bundle that trains every run."""
        return self.path / "bundle"

    def run(self, variant: str, seed: int) -> Path:
        """The folder of a run."""
        return self.path / "runs" / variant / f"seed_{seed}"

    def read_settings(self, cases: StudyCases) -> dict[str, Any]:
        """The settings that the folder was started with; none for a new one.

        Those of other cases are refused by the names of cases and labels; :meth:`compare` reads their files too.
        """
        stored = self._stored()
        if stored is None:
            return {}
        before = stored.pop("cases", None)
        now = _known_before(cases.description(), before)
        known = {key: before.get(key) for key in now} if isinstance(before, dict) else None
        self._refuse_changes({"cases": known}, {"cases": now})
        return stored

    def compare_settings(self, settings: StudySettings) -> None:
        """Refuse other settings than those of the folder, without its cases, whose files take long to read."""
        now, stored = settings.as_dict(), self._stored()
        self._refuse_changes(now if stored is None else {name: stored.get(name) for name in now}, now)

    def compare(self, settings: StudySettings, cases: StudyCases) -> str:
        """The fingerprint of settings and cases, which every result carries; others than in the folder are refused."""
        terms, stored = _terms(settings, cases), self._stored()
        if stored is not None:
            terms["cases"] = _known_before(terms["cases"], stored.get("cases"))
        self._refuse_changes(terms if stored is None else stored, terms)
        return hashlib.sha256(json.dumps(terms, sort_keys=True).encode()).hexdigest()

    def claim(self, settings: StudySettings, cases: StudyCases) -> None:
        """Write settings, cases and bundle, or refuse others than those in the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        with exclusively(self.path, by_file=True):
            self.compare(settings, cases)
            write_template(self.bundle, {**settings.as_dict(), "steps": settings.budget, **cases.network_data()})
            if not self.settings_file.is_file():
                write_json(self.settings_file, _terms(settings, cases), indent=2)

    def state(self, variant: str, seed: int) -> State:
        """The state of a run."""
        folder = self.run(variant, seed)
        if (folder / "result.json").is_file():
            return "finished"
        if (folder / "failure.txt").is_file():
            return "failed"
        begun = (folder / "model.pt").is_file() or any(folder.glob("checkpoint_*.pt"))
        return "interrupted" if begun else "open"

    def write_result(self, result: RunResult) -> None:
        """Write the result of a finished run, without the curve, which has its own file."""
        content = dataclasses.asdict(result)
        del content["curve"]
        write_json(self.run(result.variant, result.seed) / "result.json", content, indent=1)

    def read_results(self, fingerprint: str) -> Iterator[RunResult]:
        """The results of all finished runs; one of other settings or cases is refused."""
        for path in sorted(self.path.glob("runs/*/*/result.json")):
            content = read_json_object(path, "Remove it, so that its run is scored again.")
            if content.get("fingerprint") != fingerprint:
                raise ValueError(
                    f"{path}: must be a run of the settings and cases of this study, got one of others. Remove it "
                    "from the folder."
                )
            yield RunResult(**content, curve=[row["loss"] for row in read_curve(path.parent)])

    def _stored(self) -> dict[str, Any] | None:
        """The content of the file of settings; None if there is none yet."""
        if not self.settings_file.is_file():
            return None
        return read_json_object(self.settings_file, "Restore it, or give another output_dir.")

    def _refuse_changes(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        pairs = {name: (before.get(name), now.get(name)) for name in {**before, **now}}
        changes = [_difference(name, old, new) for name, (old, new) in pairs.items() if old != new]
        if changes:
            raise ValueError(
                f"output_dir must hold runs of the same settings only, got {self.path} with others: "
                f"{'; '.join(changes)}. Give its original settings, or another output_dir."
            )


def read_curve(run: Path) -> list[dict[str, float]]:
    """The steps of a run from its ``curve.csv``."""
    with (run / "curve.csv").open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def _terms(settings: StudySettings, cases: StudyCases) -> dict[str, Any]:
    """What all runs of the folder must share."""
    return {**settings.as_dict(), "cases": cases.as_dict()}


def _known_before(cases: dict[str, Any], before: Any) -> dict[str, Any]:
    """What a folder holds of its cases, without their subjects if an earlier version made it, which left them out."""
    known = not isinstance(before, dict) or "subjects" in before
    return {key: value for key, value in cases.items() if known or key != "subjects"}


def _difference(name: str, before: Any, now: Any) -> str:
    if name != "cases":
        return f"{name} was {before!r} and is {now!r}"
    if not isinstance(before, dict) or before.get("validation") != now.get("validation"):
        return (
            "its cases, images or labels are not those of dataset_dir, or --subjects and --subject_pattern drew others"
        )
    if before.get("subjects") != now.get("subjects"):
        return "the subjects of its cases are not those that dataset_dir, --subjects and --subject_pattern give now"
    return "its cases, images or labels are not those of dataset_dir"

"""The pruned bundle: smaller, whole, with exactly the level's output, and honest about where it comes from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from json_edits import edit_json
from monai.bundle import ConfigWorkflow
from tiny_bundle import make_tiny_bundle

from monai_unetpp import NestedUNet
from monai_unetpp.bundles import TrainingRecord, check_bundle, load_network, read_metadata, read_training_record
from monai_unetpp.bundles.training_record import save_training_record
from monai_unetpp.measuring.environment import Environment
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.metrics import LabelScore
from monai_unetpp.pruning.results import (
    Comparison,
    Decision,
    Exposure,
    OperatingPoint,
    PointCost,
    PruningResult,
    ScoreRow,
)
from monai_unetpp.pruning.rules import Margin, Rules
from monai_unetpp.pruning.write import check_writable, write_pruned_bundle

COMPARISON = Comparison(
    point="L1",
    reference="L2",
    metric="dice",
    label="anterior",
    margin=0.01,
    cases=12,
    clusters=12,
    mean_reference=0.9,
    mean_point=0.8975,
    mean_difference=-0.0025,
    sd_difference=0.004,
    lower_bound=-0.0046,
    upper_bound=-0.0004,
    method="bca",
    worst_difference=-0.01,
    worst_case="case_7",
    state="pass",
    subjects_needed=None,
    reason="the bound lies above the margin.",
)
DECISION = Decision(
    dataset="study",
    verdict="prune",
    level="L1",
    role="choose and report",
    cases=12,
    subjects=12,
    comparisons=(COMPARISON,),
    blockers=(),
    subjects_needed=None,
    optimistic=True,
    summary="Prune to L1: every guarded metric stays within its margin.",
)


#: Of the levels of the tiny bundle.
PARAMETERS = {"L1": 4799, "L2": 16_067}


def point_cost(point: str, factor: int) -> PointCost:
    return PointCost(
        point=point,
        parameters=PARAMETERS[point],
        flops_per_window=2_000_000_000 * factor,
        checkpoint_bytes=5_000_000 * factor,
        window_latency_s=Quartiles(0.01 * factor, 0.009 * factor, 0.012 * factor, 10),
        volume_latency_s=Quartiles(0.5 * factor, 0.4 * factor, 0.6 * factor, 10),
        peak_memory_bytes=30_000_000 * factor,
        window_shape=(16, 16, 16),
        volume_shape=(40, 48, 32),
    )


def score(dice: float | None) -> LabelScore:
    state = "both_empty" if dice is None else "ok" if dice else "false_positive"
    return LabelScore(state, dice, dice, None if dice is None else 2.0, dice, 0.0, 1.0, 1.0)


def make_result(**changes: Any) -> PruningResult:
    rows = [
        ScoreRow("study", case, case, point, "anterior", score(dice))
        for point, values in (("L1", (0.7, 0.9, None)), ("L2", (0.8, 0.9, 0.0)))
        for case, dice in zip("abc", values, strict=True)
    ]
    result = PruningResult(
        title="Tiny",
        points=(OperatingPoint("L1", "L1"), OperatingPoint("L2", "L2"), OperatingPoint("L1 alone", "L1", "extra")),
        labels=("anterior",),
        tolerance_mm={"anterior": 1.0},
        rows=tuple(rows),
        problems=(),
        costs={"L1": point_cost("L1", 1), "L2": point_cost("L2", 4)},
        environment=Environment("A processor", "fp32", "torch", 2, {}, "2026-01-01"),
        rules=Rules(
            margins=(Margin("dice", 0.01), Margin("nsd", 0.02, ("anterior",))),
            alpha=0.05,
            max_case_drop={"dice": 0.1},
            bootstrap_samples=1000,
            seed=0,
        ),
        decisions=(DECISION,),
        trade_offs=(),
        command="prune",
    )
    return dataclasses.replace(result, **changes)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_tiny_bundle(tmp_path / "tiny_unetpp")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out" / "pruned_bundle"


def read_config(bundle: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((bundle / "configs" / name).read_text(encoding="utf-8"))
    return content


class TestPrunedBundle:
    @pytest.mark.slow
    @pytest.mark.parametrize("level", ["L1", "L2"])
    def test_gives_exactly_the_output_of_the_level(self, source: Path, target: Path, level: str) -> None:
        assert write_pruned_bundle(source, level, target) == target
        image = torch.rand(1, 1, 19, 16, 17, generator=torch.Generator().manual_seed(3))
        pruned = load_network(target / "models" / "model.pt")
        full = load_network(source / "models" / "model.pt")
        with torch.no_grad():
            assert torch.equal(pruned(image), full.forward_levels(image, [level])[level])
        assert pruned.levels == (level,)

    @pytest.mark.slow
    def test_is_smaller_and_passes_all_checks(self, source: Path, target: Path) -> None:
        record = TrainingRecord({"case": "hash"}, {}, "last")
        save_training_record(source / "models" / "model.pt", record)
        write_pruned_bundle(source, "L1", target)
        # the cases of the weights beside which it lay
        assert read_training_record(target) == record
        sizes = [(bundle / "models" / "model.pt").stat().st_size for bundle in (target, source)]
        assert sizes[0] < sizes[1] / 2
        assert check_bundle(target) == []

    def test_a_network_too_large_for_the_zoo_can_be_pruned(self, source: Path, target: Path) -> None:
        with (source / "docs" / "large.bin").open("wb") as file:
            file.truncate(30_000_000)
        assert check_bundle(source) == ["docs/large.bin: must be at most 25 MB, got 30.0 MB."]
        assert check_bundle(write_pruned_bundle(source, "L1", target), sizes=False) == []

    def test_configurations_define_the_pruned_network(self, source: Path, target: Path) -> None:
        write_pruned_bundle(source, "L1", target)
        expected = {
            "_target_": "monai_unetpp.NestedUNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 3,
            "features": [4, 8],
            "deep_supervision": False,
        }
        for name in ("inference.json", "train.json"):
            before, after = read_config(source, name), read_config(target, name)
            # a value that the definition refers to is changed where it stands
            features = after["features"] if "features" in before else expected["features"]
            assert {**after["network_def"], "features": features} == expected
            assert after["network_def"]["features"] == ("@features" if "features" in before else [4, 8])
            assert after["level"] is None
            untouched = before.keys() - {"network_def", "level", "features"}
            assert all(after[key] == before[key] for key in untouched)
        assert read_config(target, "evaluate.json") == read_config(source, "evaluate.json")
        assert not (target / "configs" / "prune.json").exists()

    def test_takes_nothing_but_the_bundle_along(self, source: Path, target: Path) -> None:
        for name in ("models/model.ts", "eval/case_seg.nii.gz", "data/dataset.json", ".git/config"):
            (source / name).parent.mkdir(exist_ok=True)
            (source / name).write_text("x", encoding="utf-8")
        write_pruned_bundle(source, "L1", target)
        assert sorted(path.name for path in target.iterdir()) == ["LICENSE", "configs", "docs", "models"]
        assert [path.name for path in (target / "models").iterdir()] == ["model.pt"]
        for name in ("LICENSE", "docs/data_license.txt", "configs/logging.conf"):
            assert (target / name).read_bytes() == (source / name).read_bytes()

    def test_leaves_the_source_as_it_was(self, source: Path, target: Path) -> None:
        before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
        write_pruned_bundle(source, "L1", target, result=make_result())
        assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
        assert [path.name for path in target.parent.iterdir()] == ["pruned_bundle"]

    def test_a_read_only_source_gives_a_bundle_that_can_be_changed(self, source: Path, target: Path) -> None:
        for path in sorted(source.rglob("*"), reverse=True):
            path.chmod(0o555 if path.is_dir() else 0o444)
        write_pruned_bundle(source, "L1", target)
        assert all(path.stat().st_mode & stat.S_IWUSR for path in target.rglob("*"))

    @pytest.mark.slow
    def test_runs_by_itself(self, source: Path, target: Path, tmp_path: Path) -> None:
        write_pruned_bundle(source, "L1", target)
        (tmp_path / "images").mkdir()
        values = np.random.default_rng(0).normal(size=(20, 18, 17)).astype(np.float32)
        nib.save(nib.Nifti1Image(values, np.diag([1, 2, 3, 1])), tmp_path / "images" / "case.nii.gz")
        labels = []
        for bundle, overrides in ((source, {"level": "L1"}), (target, {})):
            workflow = ConfigWorkflow(
                config_file=str(bundle / "configs" / "inference.json"),
                logging_file=False,
                workflow_type="inference",
                bundle_root=str(bundle),
                dataset_dir=str(tmp_path / "images"),
                output_dir=str(tmp_path / "out" / bundle.name),
                **overrides,
            )
            workflow.initialize()
            workflow.run()
            labels.append(np.asarray(nib.load(tmp_path / "out" / bundle.name / "case_seg.nii.gz").dataobj))
        assert np.array_equal(*labels)
        assert len(np.unique(labels[0])) > 1

    @pytest.mark.slow
    def test_can_be_pruned_again(self, source: Path, target: Path, tmp_path: Path) -> None:
        write_pruned_bundle(source, "L2", target)
        again = write_pruned_bundle(target, "L2", tmp_path / "again")
        assert read_metadata(again)["version"] == "1.4.0"
        assert read_metadata(again)["pruned_from"]["name"] == "pruned_bundle"

    @pytest.mark.slow
    def test_weights_without_configuration(self, source: Path, target: Path) -> None:
        path = source / "models" / "model.pt"
        torch.save(dict(load_network(path).state_dict()), path)
        write_pruned_bundle(source, "L1", target)
        assert load_network(target / "models" / "model.pt").levels == ("L1",)


class TestOrigin:
    def test_metadata_with_a_result(self, source: Path, target: Path) -> None:
        write_pruned_bundle(source, "L1", target, result=make_result())
        metadata = read_metadata(target)
        assert metadata["version"] == "1.3.0"
        assert list(metadata["changelog"]) == ["1.3.0", "1.2.3"]
        assert metadata["changelog"]["1.3.0"] == "pruned to level L1, cut out of tiny_unetpp 1.2.3"
        assert metadata["name"] == "Tiny (pruned to level L1)"
        assert metadata["description"] == f"Level L1, cut out of this network: {read_metadata(source)['description']}"
        assert metadata["eval_metrics"] == {"dice_anterior": 0.8975}
        origin = metadata["pruned_from"]
        digest = hashlib.sha256((source / "models" / "model.pt").read_bytes()).hexdigest()
        assert (origin["name"], origin["version"], origin["level"]) == ("tiny_unetpp", "1.2.3", "L1")
        assert origin["sha256"] == digest
        assert (origin["verdict"], origin["summary"]) == ("prune", DECISION.summary)
        assert (origin["dataset"], origin["cases"], origin["optimistic"]) == ("study", 12, True)
        assert origin["margins"] == [
            {"metric": "dice", "value": 0.01, "labels": None},
            {"metric": "nsd", "value": 0.02, "labels": ["anterior"]},
        ]
        assert origin["alpha"] == 0.05
        assert origin["eval_metrics"] == {"dice": 0.9}

    def test_metadata_with_a_decision_alone(self, source: Path, target: Path) -> None:
        write_pruned_bundle(source, "L1", target, decision=DECISION)
        origin = read_metadata(target)["pruned_from"]
        assert origin["margins"] == [{"metric": "dice", "value": 0.01, "labels": ["anterior"]}]
        assert "alpha" not in origin

    def test_metadata_without_verdict(self, source: Path, target: Path) -> None:
        write_pruned_bundle(source, "L1", target)
        metadata = read_metadata(target)
        assert metadata["pruned_from"]["verdict"] is None
        assert "eval_metrics" not in metadata
        readme = (target / "docs" / "README.md").read_text(encoding="utf-8")
        assert "chosen by hand, without the pruning evaluator's verdict" in readme

    def test_readme_says_what_why_and_what_it_costs(self, source: Path, target: Path) -> None:
        write_pruned_bundle(source, "L1", target, result=make_result())
        readme = (target / "docs" / "README.md").read_text(encoding="utf-8")
        assert readme.startswith("# Pruned to level L1\n")
        assert readme.endswith((source / "docs" / "README.md").read_text(encoding="utf-8"))
        assert "level L1 of `tiny_unetpp` 1.2.3" in readme
        assert f"Verdict on 12 cases (study): {DECISION.summary}" in readme
        assert "optimistic" not in readme
        assert "chosen by hand" not in readme
        assert "| Dice, anterior | 0.900 | 0.897 | -0.0025 | -0.0046 | 0.01 | 12 |" in readme
        assert "| Parameters | 16,067 | 4,799 | 3.3 times |" in readme
        assert "| Operations per window of 16x16x16 | 8 GFLOP | 2 GFLOP | 4.0 times |" in readme
        assert "| Time per volume of 40x48x32 | 2 s (1.6 to 2.4) | 0.5 s (0.4 to 0.6) | 4.0 times |" in readme
        assert "| Peak memory per volume | 120.00 MB | 30.00 MB | 4.0 times |" in readme
        assert "Measured on A processor with 2 threads, fp32, torch" in readme

    def test_figures_of_other_networks_are_not_those_of_the_bundle(self, source: Path, target: Path) -> None:
        exposure = Exposure("study", "choose and report", 12, 9, 0, "last", out_of_fold=True)
        write_pruned_bundle(source, "L1", target, result=make_result(exposures=(exposure,)))
        metadata = read_metadata(target)
        assert "eval_metrics" not in metadata
        assert metadata["pruned_from"]["out_of_fold"] is True
        readme = (target / "docs" / "README.md").read_text(encoding="utf-8")
        assert "**These figures are of other networks, not of this one.** Each case of study was scored by a" in readme
        assert "The network of the bundle was trained on 9 of these 12 cases: its own accuracy is not" in readme
        # those of its own network, on cases that confirm, are
        confirmation = dataclasses.replace(DECISION, role="confirm", dataset="other")
        exposures = (exposure, Exposure("other", "confirm", 12, 0, 0, "last"))
        result = make_result(decisions=(DECISION, confirmation), exposures=exposures)
        write_pruned_bundle(source, "L1", target, result=result, overwrite=True)
        assert read_metadata(target)["eval_metrics"] == {"dice_anterior": 0.8975}
        assert read_metadata(target)["pruned_from"]["out_of_fold"] is False
        assert "other networks" not in (target / "docs" / "README.md").read_text(encoding="utf-8")

    def test_cases_that_chose_the_weights_are_told(self, source: Path, target: Path) -> None:
        exposure = Exposure("study", "choose and report", 12, 0, 11, "best on validation")
        write_pruned_bundle(source, "L1", target, result=make_result(exposures=(exposure,)))
        readme = (target / "docs" / "README.md").read_text(encoding="utf-8")
        assert "11 of 12 cases also chose the weights (best on validation), so the figures are optimistic." in readme

    def test_level_against_the_verdict_is_said(self, source: Path, target: Path) -> None:
        kept = dataclasses.replace(DECISION, verdict="keep", level="L2", summary="Keep L2.")
        write_pruned_bundle(source, "L1", target, decision=kept)
        readme = (target / "docs" / "README.md").read_text(encoding="utf-8")
        assert "**The level was chosen by hand: the verdict was 'keep' with level L2.**" in readme
        assert read_metadata(target)["pruned_from"]["verdict_level"] == "L2"

    def test_level_that_was_not_compared_shows_means_of_the_same_cases(self, source: Path, target: Path) -> None:
        decision = dataclasses.replace(DECISION, verdict="keep", level="L2", comparisons=())
        write_pruned_bundle(source, "L1", target, result=make_result(decisions=(decision,)))
        readme = (target / "docs" / "README.md").read_text(encoding="utf-8")
        # the false positive of L2 counts, and so does that L1 has none
        assert "| Dice, anterior | 0.567 | 0.867 | +0.3000 | - | - | 3 |" in readme
        assert "| HD95, anterior | 2.00 | 1.33 |" in readme

    @pytest.mark.parametrize(
        ("changes", "of_the_last"),
        [({}, {"dataset": "all"}), ({"role": "choose"}, {"dataset": "other", "role": "confirm"})],
        ids=["on all data sets", "confirmation"],
    )
    def test_the_last_decision_counts(self, source: Path, target: Path, changes: dict, of_the_last: dict) -> None:
        last = dataclasses.replace(DECISION, **of_the_last, summary="The last word.")
        decisions = (dataclasses.replace(DECISION, **changes), last)
        write_pruned_bundle(source, "L1", target, result=make_result(decisions=decisions))
        assert read_metadata(target)["pruned_from"]["summary"] == "The last word."

    def test_means_are_of_the_cases_of_the_verdict(self, source: Path, target: Path) -> None:
        # three cases only confirm; where these choose, all is worse
        chosen = [
            ScoreRow("study", f"chosen {case}", case, point, "anterior", score(0.2))
            for point in ("L1", "L2")
            for case in "ab"
        ]
        result = make_result(confirming=(("study", "a"), ("study", "b"), ("study", "c")))
        result = dataclasses.replace(result, rows=(*result.rows, *chosen))
        decision = dataclasses.replace(DECISION, comparisons=(), role="confirm")
        write_pruned_bundle(source, "L1", target, decision=decision, result=result)
        assert read_config(target, "metadata.json")["eval_metrics"]["dice_anterior"] == pytest.approx(0.8667)
        text = (target / "docs" / "README.md").read_text(encoding="utf-8")
        assert "| Mean over cases | L2 | L1 |" in text

    def test_one_level_leaves_no_depth_to_choose(self, source: Path, target: Path) -> None:
        edit_json(source / "configs" / "inference.json", adaptive_tolerance=0.033, level="L2")
        write_pruned_bundle(source, "L1", target)
        content = read_config(target, "inference.json")
        assert (content["level"], content["adaptive_tolerance"]) == (None, None)

    def test_segments_as_it_was_evaluated(self, source: Path, target: Path) -> None:
        for name in ("inference", "train"):
            edit_json(source / "configs" / f"{name}.json", precision="auto")
        write_pruned_bundle(source, "L1", target, inference={"precision": "bf16", "flips": [0]})
        for name in ("inference", "evaluate"):
            content = json.loads((target / "configs" / f"{name}.json").read_text(encoding="utf-8"))
            # what the configurations do not have is not made up
            assert (content["precision"], "flips" in content) == ("bf16", False)


class TestRefusals:
    def nothing_left(self, target: Path) -> bool:
        return not target.parent.exists() or not list(target.parent.iterdir())

    def test_unknown_level(self, source: Path, target: Path) -> None:
        with pytest.raises(ValueError, match="level must be one of L1, L2, got 'L5'"):
            write_pruned_bundle(source, "L5", target)
        assert self.nothing_left(target)

    def test_result_of_another_network(self, source: Path, target: Path) -> None:
        result = make_result(points=(OperatingPoint("L2", "L2"),))
        with pytest.raises(ValueError, match=r"result must be of the network that is pruned, got one without level L1"):
            write_pruned_bundle(source, "L1", target, result=result)
        costs = {"L1": dataclasses.replace(point_cost("L1", 1), parameters=4800)}
        with pytest.raises(ValueError, match=r"got one whose level L1 has 4,800 parameters, not 4,799\. Give the"):
            write_pruned_bundle(source, "L2", target, result=make_result(costs=costs))
        assert self.nothing_left(target)

    @pytest.mark.slow
    def test_existing_target(self, source: Path, target: Path) -> None:
        write_pruned_bundle(source, "L1", target)
        with pytest.raises(FileExistsError, match=r"pruned_bundle: exists already\. Give another folder"):
            write_pruned_bundle(source, "L2", target)
        write_pruned_bundle(source, "L2", target, overwrite=True)
        assert load_network(target / "models" / "model.pt").levels == ("L2",)
        assert [path.name for path in target.parent.iterdir()] == ["pruned_bundle"]

    def test_existing_folder_that_is_no_bundle_is_never_replaced(self, source: Path, target: Path) -> None:
        target.mkdir(parents=True)
        (target / "thesis.txt").write_text("precious", encoding="utf-8")
        with pytest.raises(FileExistsError, match="pruned_bundle: is no bundle, so it is not replaced"):
            write_pruned_bundle(source, "L1", target, overwrite=True)
        assert (target / "thesis.txt").read_text(encoding="utf-8") == "precious"

    def test_what_cannot_be_written_to_is_refused_before_any_work(
        self, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_pruned_bundle(source, "L1", target)
        for closed, asked in ((target, target), (target.parent, target), (target.parent, target.parent / "a" / "b")):
            monkeypatch.setattr(os, "access", lambda path, _, closed=closed: path != closed)
            with pytest.raises(PermissionError, match=f"{closed.name}: is read-only, but the pruned bundle goes"):
                check_writable(source, asked, overwrite=True)

    @pytest.mark.parametrize("place", [".", "pruned", ".."])
    def test_target_inside_or_around_the_source(self, source: Path, place: str) -> None:
        with pytest.raises(ValueError, match="target must lie outside of the bundle that is pruned"):
            write_pruned_bundle(source, "L1", source / place, overwrite=True)
        assert check_bundle(source) == []

    def test_no_source(self, tmp_path: Path, target: Path) -> None:
        with pytest.raises(FileNotFoundError, match="none: no such folder"):
            write_pruned_bundle(tmp_path / "none", "L1", target)

    def test_incomplete_source(self, source: Path, target: Path) -> None:
        (source / "docs" / "README.md").unlink()
        with pytest.raises(FileNotFoundError, match=r"README\.md: no such file\. A bundle must have it"):
            write_pruned_bundle(source, "L1", target)

    def test_source_with_problems(self, source: Path, target: Path) -> None:
        (source / "docs" / "data_license.txt").unlink()
        with pytest.raises(ValueError, match=r"does not pass the checks.*docs/data_license\.txt: missing"):
            write_pruned_bundle(source, "L1", target)
        assert self.nothing_left(target)

    def test_version_that_cannot_be_counted_up(self, source: Path, target: Path) -> None:
        path = source / "configs" / "metadata.json"
        path.write_text(path.read_text(encoding="utf-8").replace("1.2.3", "first"), encoding="utf-8")
        with pytest.raises(ValueError, match=r"version of the bundle .* must have the form 1\.2\.3, got 'first'"):
            write_pruned_bundle(source, "L1", target)
        assert self.nothing_left(target)

    @pytest.mark.slow
    def test_other_output_leaves_nothing_behind(
        self, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        prune = NestedUNet.prune

        def wrong(network: NestedUNet, level: str) -> NestedUNet:
            pruned = prune(network, level)
            with torch.no_grad():
                pruned.heads[level].bias += 1
            return pruned

        monkeypatch.setattr(NestedUNet, "prune", wrong)
        with pytest.raises(RuntimeError, match=r"does not give the output of level L1 \(largest difference 1"):
            write_pruned_bundle(source, "L1", target)
        assert self.nothing_left(target)

    @pytest.mark.slow
    def test_failed_replacement_keeps_the_old_bundle(
        self, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_pruned_bundle(source, "L1", target)
        replace = os.replace
        moves = []

        def fail_second(old: Path, new: Path) -> None:
            moves.append(new)
            if len(moves) == 2:
                raise OSError("disk full")
            replace(old, new)

        monkeypatch.setattr(os, "replace", fail_second)
        with pytest.raises(OSError, match="disk full"):
            write_pruned_bundle(source, "L2", target, overwrite=True)
        assert load_network(target / "models" / "model.pt").levels == ("L1",)
        assert [path.name for path in target.parent.iterdir()] == ["pruned_bundle"]

"""How far a verdict can be trusted: other samples, other data sets, and cases that took part in the weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence

import nibabel
import numpy as np
import pytest
from forked import measure_briefly
from json_edits import edit_json
from test_decide import DICE, POINTS, decide, levels, ok, rows_of
from test_write import DECISION, make_result
from tiny_pruning import SHAPE, half_blind_network, intensity_network, make_prunable_bundle, write_boxes
from tiny_pruning import prune_boxes as run

from monai_unetpp.bundles import load_network, write_training_record
from monai_unetpp.bundles.training_record import BEST_ON_VALIDATION
from monai_unetpp.cli.program import main
from monai_unetpp.data import load_datalist
from monai_unetpp.data.datasets.labelled import LabelledCase, list_cases
from monai_unetpp.data.formats.naming import entry_name
from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.pruning import verdict
from monai_unetpp.pruning.decision import trust
from monai_unetpp.pruning.decision.samples import GuardSample, PointSamples
from monai_unetpp.pruning.decision.stability import differences_between
from monai_unetpp.pruning.doubts import (
    doubts_of_common_subjects,
    doubts_of_rules,
    doubts_of_shared_subjects,
    doubts_of_split,
    doubts_of_tolerances,
    shortest_edge,
)
from monai_unetpp.pruning.plan import EvaluationData
from monai_unetpp.pruning.points.tradeoffs import mean_accuracy, resampled_accuracy
from monai_unetpp.pruning.report.opening import honesty, trust_sentences
from monai_unetpp.pruning.report.result_tables import stability_table
from monai_unetpp.pruning.results import DataProblem, Exposure, ScoreRow, SetDifference, Stability, TrainingGap
from monai_unetpp.pruning.rules import Margin, Rules

RULES = Rules(margins=DICE, bootstrap_samples=500)


class TestStability:
    def test_a_clear_verdict_comes_from_every_sample(self) -> None:
        ((stability,), between) = trust(rows_of(levels(60, l1=-0.05, sd=0.002)), POINTS, RULES)
        assert stability.subjects == 60
        for shares in (stability.halves, stability.new_samples, stability.leave_one_out):
            assert shares == {"L2": 1.0}
        assert (stability.turning, between) == ((), ())

    def test_a_close_verdict_often_turns(self) -> None:
        rows = rows_of(levels(40, l1=-0.006, sd=0.01))
        decision = decide(rows, POINTS, DICE, dataset="A", bootstrap_samples=500)
        ((stability,), _) = trust(rows, POINTS, RULES)
        assert decision.level == "L1"
        assert 0.3 < stability.new_samples["L1"] < 0.95
        assert stability.halves["L1"] < stability.new_samples["L1"]
        assert len(stability.turning) < 40
        assert sum(stability.halves.values()) == pytest.approx(1)
        assert stability.leave_one_out["L1"] == pytest.approx(1 - len(stability.turning) / 40)

    def test_each_of_many_subjects_is_left_out_once(self, monkeypatch):
        rows = rows_of(levels(60, l1=-0.008, sd=0.02))
        ((whole,), _) = trust(rows, POINTS, RULES)
        monkeypatch.setattr("monai_unetpp.pruning.decision.stability._LEFT_OUT_AT_ONCE", 7)
        ((blocks,), _) = trust(rows, POINTS, RULES)
        assert blocks == whole

    def test_the_order_of_the_cases_changes_nothing(self) -> None:
        rows = rows_of(levels(40, l1=-0.006, sd=0.02))
        names = list(dict.fromkeys(row.case for row in rows))
        of = {name: [row for row in rows if row.case == name] for name in names}
        found = []
        for order in (names, names[::-1], [*names[1::2], *names[::2]]):
            own = [row for name in order for row in of[name]]
            accuracy = resampled_accuracy(own, ["L1", "L2", "L3"])
            (stability,), _ = trust(own, POINTS, RULES)
            found.append((stability.new_samples, stability.halves, stability.turning, accuracy.means.round(9).tolist()))
        assert found[0] == found[1] == found[2]

    def test_the_joint_verdict_is_repeated_on_samples_of_all_data_sets(self) -> None:
        good, worse = rows_of(levels(60, l1=-0.05, sd=0.002)), rows_of(levels(40, sd=0.002), dataset="B")
        (joint, first, second), _ = trust([*good, *worse], POINTS, RULES)
        assert [each.dataset for each in (joint, first, second)] == ["all", "A", "B"]
        assert (joint.subjects, joint.new_samples, joint.turning) == (100, {"L2": 1.0}, ())
        bad = rows_of(levels(40, l1=-0.05, l2=-0.05, sd=0.002), dataset="B")
        assert trust([*good, *bad], POINTS, RULES)[0][0].halves == {"L3": 1.0}
        few = rows_of(levels(9, sd=0.002), dataset="B")
        assert trust([*good, *few], POINTS, RULES)[0][0].leave_one_out == {"inconclusive": 1.0}

    def test_samples_of_few_subjects_have_no_verdict(self) -> None:
        ((stability,), _) = trust(rows_of(levels(9)), POINTS, RULES)
        assert stability.new_samples == stability.leave_one_out == {"inconclusive": 1.0}

    def test_a_single_subject_has_no_verdict_in_any_sample(self) -> None:
        one, many = rows_of(levels(1)), rows_of(levels(60, sd=0.002), dataset="B")
        for rows in (one, [*one, *many]):
            first = trust(rows, POINTS, RULES)[0][0]
            assert first.new_samples == first.halves == first.leave_one_out == {"inconclusive": 1.0}

    @pytest.mark.slow
    def test_the_rule_of_the_samples_is_that_of_the_verdict(self) -> None:
        for seed in range(12):
            rng = np.random.default_rng(seed)
            dice = {p: 0.8 + rng.normal(-0.004 * rng.random(), 0.015, 35) for p in ("L1", "L2")} | {"L3": [0.8] * 35}
            rows = rows_of(dice)
            for point, case in (("L1", 3), ("L3", 7), ("L2", 9)):
                if rng.random() < 0.5:
                    rows = [
                        dataclasses.replace(row, score=ok(0.1))
                        if (row.point, row.case) == (point, f"case_{case:03d}")
                        else row
                        for row in rows
                    ]
            decision = decide(rows, POINTS, DICE, dataset="A", bootstrap_samples=500)
            ((stability,), _) = trust([*rows, *_twins(rows)], POINTS, RULES)
            assert stability.subjects == 70
            ((stability,), _) = trust(rows, POINTS, RULES)
            name = "inconclusive" if decision.verdict == "inconclusive" else decision.level
            assert stability.leave_one_out.get(name, 0) >= 1 - len(stability.turning) / 35


def _twins(rows: list[ScoreRow]) -> list[ScoreRow]:
    return [dataclasses.replace(row, case=f"{row.case}b", subject=f"{row.subject}b") for row in rows]


class TestBetweenSets:
    def test_a_loss_that_one_set_alone_has_depends_on_the_set(self) -> None:
        rows = rows_of(levels(30, l1=-0.01)) + rows_of(levels(40), dataset="B")
        _, between = trust(rows, POINTS, RULES)
        (shallow,) = [each for each in between if each.point == "L1"]
        assert shallow.difference == pytest.approx(-0.01)
        assert shallow.lower < -0.01 < shallow.upper < 0
        assert shallow.depends_on_set
        assert not next(each for each in between if each.point == "L2").depends_on_set

    def test_sets_of_few_subjects_are_not_compared_and_others_rarely_differ_by_chance(self) -> None:
        rng = np.random.default_rng(0)
        assert trust(rows_of(levels(30)) + rows_of(levels(9, l1=-0.05), dataset="B"), POINTS, RULES)[1] == ()
        found = [
            GuardSample("dice", "x", 0.01, (), rng.normal(size=10), None, np.zeros(10, np.int64)) for _ in range(600)
        ]
        samples = [PointSamples("L1", (each,), (), held=False) for each in found]
        pairs = [differences_between({"A": [a], "B": [b]}) for a, b in zip(samples[::2], samples[1::2], strict=True)]
        assert 0.02 < np.mean([pair[0].depends_on_set for pair in pairs]) < 0.08
        same = dataclasses.replace(found[0], differences=np.full(10, 0.1))
        alike = {name: [PointSamples("L1", (same,), (), held=False)] for name in "AB"}
        assert not differences_between(alike)[0].depends_on_set

    def test_the_sentence_is_true_of_gains_and_weighs_by_the_margins(self) -> None:
        # better everywhere, by more on B
        found = [
            SetDifference("L1", "dice", "liver", "A", "B", -0.02, -0.03, -0.01, True),
            SetDifference("L1", "hd95_mm", "liver", "A", "B", 0.5, 0.4, 0.6, True),
        ]
        result = make_result(between_sets=tuple(found), rules=Rules(margins=["dice=0.01", "hd95_mm=2"]))
        first, second = [each for each in trust_sentences(result) if each.startswith("Depends on the set")]
        assert "Dice of liver at L1 is 0.0200 worse on A than on B (95 % interval 0.0100 to 0.0300)" in first
        assert "HD95 in mm of liver at L1 is 0.5000 worse on B than on A" in second

    def test_the_number_of_intervals_tells_how_many_exclude_0_by_chance(self) -> None:
        one = SetDifference("L1", "dice", "liver", "A", "B", -0.02, -0.03, -0.01, True)
        others = [dataclasses.replace(one, label=str(number), lower=-0.05, depends_on_set=False) for number in range(9)]
        told = trust_sentences(make_result(between_sets=(one, *others)))
        assert "Of 10 such intervals, 1 excludes 0; without any difference, one in twenty does by chance." in told
        told = trust_sentences(make_result(between_sets=(one,) * 4))
        assert [text for text in told if text.startswith("Of 4 such intervals, 4 exclude 0; ") and "them all" in text]


class TestConfirmation:
    CHOICE = dataclasses.replace(DECISION, role="choose")
    CONFIRMATION = dataclasses.replace(DECISION, role="confirm", verdict="keep", level="L2")

    def test_other_data_sets_are_those_that_choose(self) -> None:
        none = SetDifference("L1", "dice", "liver", "A", "B", -0.02, -0.05, 0.01, False)
        told = trust_sentences(make_result(between_sets=(none,)))
        assert "No level is shown to lose more on one data set than on another (all 95 % intervals include 0)." in told
        for decisions in ((self.CHOICE,), (self.CHOICE, self.CONFIRMATION)):
            (told,) = trust_sentences(make_result(between_sets=(none,), decisions=decisions, exposures=()))[-1:]
            assert "than on another, among the cases that choose (A, B) (all 95 % intervals include 0)." in told
            some = dataclasses.replace(none, upper=-0.01, depends_on_set=True)
            (told,) = trust_sentences(make_result(between_sets=(some,), decisions=decisions, exposures=()))[-1:]
            assert told.startswith("Of 1 such intervals, among the cases that choose (A, B), 1 excludes 0;")

    def test_stability_is_that_of_the_choice(self) -> None:
        choice = Stability("study", 30, {"L1": 1.0}, {"L1": 1.0}, {"L1": 1.0}, ("a",))
        confirmed = make_result(stability=(choice,), decisions=(self.CHOICE, self.CONFIRMATION))
        assert "All subjects are of those that chose the level." in stability_table(confirmed).notes
        told = trust_sentences(confirmed)[0]
        assert told.startswith("The same test on 30 other subjects like those that chose the level would say: prune to")
        assert "Leaving out a single subject changes the choice for 1 of them (a)." in told
        other = dataclasses.replace(self.CONFIRMATION, dataset="other")
        told = trust_sentences(make_result(stability=(choice,), decisions=(self.CHOICE, other)))[0]
        assert "30 other subjects like those of study that chose the level would say" in told
        # nothing was confirmed
        told = trust_sentences(make_result(stability=(choice,), decisions=(self.CHOICE,)))[0]
        assert told.startswith("The same test on 30 other subjects like these would say")

    @pytest.mark.parametrize(("count", "told"), [("training", "trained the network"), ("selecting", "also chose the")])
    def test_cases_that_choose_and_those_that_confirm_are_told_apart(self, count, told) -> None:
        exposures = [
            Exposure("D", role, 15, **{"training": 0, "selecting": 0, count: number}, rule="best")
            for role, number in (("choose", 9), ("confirm", 8))
        ]
        sentences = " ".join(trust_sentences(make_result(exposures=tuple(exposures))))
        assert "9 of 15 cases of D that choose the level" in sentences
        assert f"8 of 15 cases of D that confirm the level {told}" in sentences


class TestDoubts:
    def test_subjects_with_other_cases_in_the_training_list_are_told(self, tmp_path) -> None:
        def entries(session: int, numbers: Sequence[int]) -> list[dict[str, str]]:
            names = [f"sub-{number:02d}_ses-{session}.nii.gz" for number in numbers]
            return [{"image": f"images/{name}", "label": f"labels/{name}"} for name in names]

        folder = tmp_path / "twice"
        folder.mkdir()
        content = {"training": entries(1, range(5)), "validation": entries(2, range(3, 9))}
        (folder / "dataset.json").write_text(json.dumps(content))
        scored = next(iter(make_result().rows))
        rows = [
            dataclasses.replace(scored, dataset="twice", case=case.name, subject=case.subject)
            for case in list_cases(load_datalist(folder, "validation"))
        ]
        (told,) = doubts_of_shared_subjects(EvaluationData(folder), rows)
        assert told.startswith("2 of 6 subjects of twice have other cases in its list 'training' (sub-03, sub-04): if")
        assert not list(doubts_of_shared_subjects(EvaluationData(folder), rows[2:]))
        assert not list(doubts_of_shared_subjects(EvaluationData(folder, list_key="training"), rows))
        (folder / "dataset.json").write_text(json.dumps({"validation": content["validation"]}))
        assert not list(doubts_of_shared_subjects(EvaluationData(folder), rows))

    def test_people_in_several_data_sets_count_twice(self):
        first = [{"image": f"a/{name}.nii.gz", "label": "a/label.nii.gz"} for name in ("sub-01_T1w", "case_1")]
        second = [
            {"image": "b/other.nii.gz", "label": "b/label.nii.gz", "subject": "sub-01"},
            {"image": "b/case_1.nii.gz", "label": "b/label.nii.gz"},
        ]
        (told,) = doubts_of_common_subjects({"a": first, "b": second})
        assert told.startswith("1 name of subjects in several data sets (sub-01): they count as different people.")
        assert not list(doubts_of_common_subjects({"a": first, "b": second}, [DataProblem("b", "other", "the same")]))
        assert not list(doubts_of_common_subjects({"a": first, "b": second[1:]}))
        assert not list(doubts_of_common_subjects({"a": [*first, {**second[0], "image": "a/other.nii.gz"}]}))

    def test_margins_and_levels_that_say_little(self) -> None:
        assert list(doubts_of_rules(Rules())) == []
        told = " ".join(doubts_of_rules(Rules(margins=["dice=0.08"], alpha=0.2)))
        assert "--margin dice=0.08 lets a level lose 8 points of Dice" in told
        assert "--alpha 0.2, one verdict in 5 may be wrong" in told
        assert list(doubts_of_rules(Rules(margins=["hd95_mm=2"]))) == []
        with pytest.raises(ValueError, match="margin must be below 1, got 1 for dice"):
            Rules(margins=[Margin("dice", 1.0)])

    def test_too_few_subjects_to_split(self) -> None:
        assert list(doubts_of_split(60, 0.5)) == list(doubts_of_split(20, None)) == []
        assert "splits 59 subjects: with fewer than 60" in next(iter(doubts_of_split(59, 0.5)))

    def test_tolerances_finer_than_the_grid_or_coarser_than_the_structure(self) -> None:
        # of 1 ml, as far as the score says: a ball with a radius of 6.2 mm
        rows = rows_of({"L1": [0.8]}, label="liver")
        assert list(doubts_of_tolerances({"liver": 1.0}, rows, 1.0, 3)) == []
        assert "smaller than a voxel (1 mm)" in next(iter(doubts_of_tolerances({"liver": 0.5}, rows, 1.0, 3)))
        assert "larger than half of the structure" in next(iter(doubts_of_tolerances({"liver": 7.0}, rows, 1.0, 3)))

    def test_tolerances_in_2d_are_compared_with_pixels_and_with_a_disc(self) -> None:
        # of 1 ml and 1 mm thick, as 2D images are scored: a disc with a radius of 17.8 mm
        rows = rows_of({"L1": [0.8]}, label="liver")
        assert list(doubts_of_tolerances({"liver": 17.0}, rows, 1.0, 2)) == []
        assert "smaller than a pixel (1 mm): a border" in next(iter(doubts_of_tolerances({"liver": 0.5}, rows, 1.0, 2)))
        (told,) = doubts_of_tolerances({"liver": 18.0}, rows, 1.0, 2)
        assert "larger than half of the structure (a disc of its area has a radius of 17.8 mm)" in told

    @pytest.mark.parametrize(("shape", "edge"), [((8, 6), 2.0), ((8, 6, 1), 2.0), ((8, 6, 4), 0.5)])
    def test_the_thickness_of_a_single_slice_is_no_edge(self, tmp_path, shape, edge) -> None:
        path = tmp_path / "label.nii.gz"
        nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), np.diag([2.0, 3.0, 0.5, 1.0])), path)
        assert shortest_edge(LabelledCase("label", "label", (path,), path)) == edge


def test_resampled_accuracies_vary_around_the_accuracy() -> None:
    rows = rows_of(levels(30, sd=0.05)) + rows_of(levels(30, l1=-0.1), label="Posterior")
    names = [point.name for point in POINTS]
    resampled = resampled_accuracy(rows, names)
    assert resampled.of_labels.shape == (1000, 3, 2)
    means = dict(zip(names, resampled.means.mean(axis=0), strict=True))
    assert means == pytest.approx(mean_accuracy(rows, names), abs=0.002)
    assert 0.005 < resampled.of_labels[:, 0, 0].std() < 0.015
    assert np.array_equal(resampled.among(["L3", "L1"]).means, resampled.means[:, [2, 0]])


def test_resampled_accuracies_are_means_of_data_sets_that_differ_in_labels() -> None:
    rows = rows_of({"L1": [0.9] * 9}) + rows_of({"L1": [0.1] * 9}, label="Posterior")
    rows += rows_of({"L1": [0.9] * 9}, dataset="B")
    # (0.9 + 0.1) / 2 on A and 0.9 on B
    assert mean_accuracy(rows, ["L1"]) == {"L1": pytest.approx(0.7)}
    assert resampled_accuracy(rows, ["L1"]).means == pytest.approx(0.7)


# ---------------------------------------------------------------- the whole path


def recorded(folder, network, **lists):
    bundle = make_prunable_bundle(folder, network)
    write_training_record(bundle, rule=BEST_ON_VALIDATION, **lists)
    return {"bundle": bundle, "network": load_network(bundle / "models" / "model.pt")}


@pytest.mark.slow
def test_training_cases_among_the_judging_ones_leave_no_verdict(tmp_path, boxes, quick) -> None:
    entries = load_datalist(boxes, "validation")
    result = run(dataset_dir=boxes, output_dir=tmp_path / "out", **recorded(tmp_path / "b", None, training=entries[:1]))
    final = verdict(result)
    assert (final.verdict, final.level) == ("inconclusive", "L2")
    assert final.summary.startswith("No verdict, keep L2 for now: 1 of 20 judging cases were used for training")


@pytest.mark.slow
def test_nothing_is_recommended_on_training_cases(tmp_path, boxes, quick, monkeypatch) -> None:
    measure_briefly(monkeypatch)
    given = recorded(tmp_path / "b", None, training=load_datalist(boxes, "validation")[:1])
    windows = NestedSlidingWindowInferer(SHAPE, overlap=0.25, runtime="torch", precision="fp32")
    asked = {"settings": ["overlap=0"], "settings_repeats": 1, "budgets": ["parameters=1e9"]}
    result = run(dataset_dir=boxes, output_dir=tmp_path / "out", inferer=windows, **asked, **given)
    assert result.grid.recommended is None
    assert result.grid.reason.startswith("Nothing is recommended: some of these cases were used for training")
    assert all("But some of these cases were used for training" in picked.reason for picked in result.trade_offs)


@pytest.mark.slow
def test_what_is_left_of_all_data_sets_is_not_told_as_all(tmp_path, quick) -> None:
    sets = [write_boxes(tmp_path / name, 10, seed=seed) for seed, name in enumerate("abc")]
    given = recorded(tmp_path / "bundle", None, training=load_datalist(sets[0], "validation"))
    result = run(dataset_dir=sets, output_dir=tmp_path / "out", **given)
    assert [each.dataset for each in result.stability] == ["b", "c"]


@pytest.mark.slow
def test_the_selecting_list_lets_prune_stand_and_marks_all_else(tmp_path, boxes, quick) -> None:
    entries = load_datalist(boxes, "validation")
    lists = {"training": [], "selecting": entries}
    good = run(dataset_dir=boxes, output_dir=tmp_path / "1", **recorded(tmp_path / "b1", None, **lists))
    assert (verdict(good).verdict, verdict(good).warnings) == ("prune", ())
    assert "20 of 20 cases of boxes also chose the weights (best on validation)" in " ".join(trust_sentences(good))
    blind = recorded(tmp_path / "b2", half_blind_network(), **lists)
    bad = run(dataset_dir=boxes, output_dir=tmp_path / "2", training_list="training", **blind)
    assert verdict(bad).verdict == "keep"
    assert "selection favours the deepest level; test on unseen cases" in verdict(bad).warnings[-1]
    assert {(gap.point, gap.label) for gap in bad.training_gap} >= {("L1", "anterior"), ("L2", "posterior")}


@pytest.mark.slow
def test_other_weights_than_the_bundles_have_no_record(tmp_path, boxes, quick) -> None:
    entries = load_datalist(boxes, "validation")
    given = recorded(tmp_path / "b", None, training=entries) | {"network": half_blind_network()}
    result = run(dataset_dir=boxes, output_dir=tmp_path / "out", **given)
    assert result.exposures is None
    assert "does not say which cases" in " ".join(trust_sentences(result))


@pytest.mark.slow
def test_weights_that_replaced_those_of_the_record_have_no_record(tmp_path, boxes, quick) -> None:
    given = recorded(tmp_path / "b", None, training=load_datalist(boxes, "validation"))
    edit_json(tmp_path / "b" / "configs" / "metadata.json", sha256={"models/model.pt": "0" * 64})
    assert run(dataset_dir=boxes, output_dir=tmp_path / "out", **given).exposures is None


@pytest.mark.slow
def test_confirming_cases_that_chose_the_weights_are_optimistic(tmp_path, quick) -> None:
    boxes = write_boxes(tmp_path / "boxes", 50)
    lists = {"training": [], "selecting": load_datalist(boxes, "validation")}
    given = recorded(tmp_path / "b", None, **lists)
    result = run(dataset_dir=boxes, output_dir=tmp_path / "out", confirm_share=0.5, **given)
    confirming = [decision for decision in result.decisions if decision.role == "confirm"]
    assert [(decision.verdict, decision.optimistic) for decision in confirming] == [("prune", True)]
    assert "took part in the weights (boxes): their figures are optimistic too" in honesty(result)
    # the choice is what other samples repeat, on the choosing cases alone
    assert [stability.subjects for stability in result.stability] == [25]


@pytest.mark.slow
def test_training_cases_among_the_confirming_ones_leave_the_stability_of_the_choice(tmp_path, quick) -> None:
    boxes = write_boxes(tmp_path / "boxes", 50)
    plain = run(intensity_network(), dataset_dir=boxes, output_dir=tmp_path / "plain", confirm_share=0.5)
    choosing = {row.case for row in plain.rows} - {case for _, case in plain.confirming}
    entries = [entry for entry in load_datalist(boxes, "validation") if entry_name(entry) not in choosing]
    given = recorded(tmp_path / "b", None, training=entries[:1])
    result = run(dataset_dir=boxes, output_dir=tmp_path / "out", confirm_share=0.5, **given)
    assert verdict(result).verdict == "inconclusive"
    assert [stability.subjects for stability in result.stability] == [25]


def test_a_single_label_called_foreground_has_its_gap_told() -> None:
    gap = TrainingGap("study", "L1", "foreground", 0.9, 0.8)
    result = make_result(labels=("foreground",), training_gap=(gap,))
    assert "Dice of foreground on training cases minus that on judging ones (study): L1 +0.1000." in trust_sentences(
        result
    )


@pytest.mark.slow
def test_training_cases_have_no_stability(tmp_path, boxes, quick) -> None:
    given = recorded(tmp_path / "b", None, training=load_datalist(boxes, "validation")[:1])
    assert run(dataset_dir=boxes, output_dir=tmp_path / "out", **given).stability == ()


@pytest.mark.slow
def test_the_same_voxels_under_two_names_are_refused(tmp_path, boxes, quick, capsys) -> None:
    def copy(name, source, target, folder=boxes):
        root = shutil.copytree(folder, tmp_path / name)
        for part in ("imagesTr", "labelsTr"):
            image = nibabel.load(root / part / source)
            # another name, number type and compression
            nibabel.save(nibabel.Nifti1Image(image.get_fdata(), image.affine), root / part / target)
        return root

    twice = copy("twice", "case_00.nii.gz", "copy.nii")
    copied = {"image": "./imagesTr/copy.nii", "label": "./labelsTr/copy.nii"}
    edit_json(twice / "dataset.json", lambda content: content["validation"].append(copied))
    with pytest.raises(ValueError, match=r"copy\.nii: the same image as .*case_00.*would count as two subjects"):
        run(intensity_network(), twice, tmp_path / "1")
    result = run(intensity_network(), twice, tmp_path / "2", exclude_problems=True)
    assert ([problem.case for problem in result.problems], verdict(result).subjects) == (["copy"], 20)
    other = write_boxes(tmp_path / "other", 12, seed=3)
    for part in ("imagesTr", "labelsTr"):
        shutil.copy(boxes / part / "case_03.nii.gz", other / part / "case_07.nii.gz")
    for how in ({"dataset_dir": [boxes, other]}, {"dataset_dir": boxes, "confirm_dir": other}):
        with pytest.raises(ValueError, match=r"other, case_07: .*the same image as .*case_03\.nii\.gz \(boxes\)"):
            run(intensity_network(), output_dir=tmp_path / "3", **how)
    assert main(["check", str(twice)]) != 0
    assert "the same image as" in capsys.readouterr().err


@pytest.mark.slow
def test_scans_that_are_stored_along_other_axes_are_the_same_subjects(tmp_path, boxes, quick, capsys) -> None:
    turned = shutil.copytree(boxes, tmp_path / "turned")
    for path in turned.glob("*Tr/*.nii.gz"):
        stored = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.asarray(stored.dataobj), stored.affine).slicer[::-1, :, ::-1], path)
    with pytest.raises(
        ValueError, match=r"case_00\.nii\.gz: the same image, .* order of axes, as .*\(boxes\); they would"
    ):
        run(intensity_network(), boxes, tmp_path / "1", confirm_dir=turned)
    trained = recorded(tmp_path / "b", None, training=load_datalist(turned, "validation")[:1])
    final = verdict(run(dataset_dir=boxes, output_dir=tmp_path / "2", **trained))
    assert final.summary.startswith("No verdict, keep L2 for now: 1 of 20 judging cases were used for training")
    content = json.loads((turned / "dataset.json").read_text())
    (turned / "dataset.json").write_text(
        json.dumps(content | {"training": [{key: str(boxes / path) for key, path in content["training"][0].items()}]})
    )
    assert main(["check", str(turned)]) != 0
    assert "the same image, with other directions or another order of axes, as" in capsys.readouterr().err

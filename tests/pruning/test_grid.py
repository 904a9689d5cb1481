"""The whole path with a grid of settings: every level at every setting is scored, timed, compared and reported."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import json
import pickle

import pytest
import torch
from forked import measure_briefly, memory_measured_in_forks
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, SpatialCropd
from tiny_pruning import LABELS, SHAPE, half_blind_network, intensity_network, make_pipeline, prune_boxes, write_boxes

from monai_unetpp import NestedUNet
from monai_unetpp.data import load_datalist
from monai_unetpp.data.datasets.labelled import list_cases
from monai_unetpp.inferers import FlipInferer, NestedSlidingWindowInferer, PrecisionInferer, SlicewiseInferer
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.metrics import LabelScore
from monai_unetpp.pruning import cost as cost_module
from monai_unetpp.pruning import (
    evaluate_levels,
    evaluation_stages,
    measure_costs,
    measure_setting_costs,
    read_report,
    write_report,
)
from monai_unetpp.pruning.inference import inference_of
from monai_unetpp.pruning.pipeline_text import describe_settings
from monai_unetpp.pruning.report.grid_tables import grid_networks_table, grid_table
from monai_unetpp.pruning.results import InferenceSetting, OperatingPoint, PointCost
from monai_unetpp.pruning.scoring import case_scores
from monai_unetpp.pruning.scoring.prediction import Pipeline, list_sources
from monai_unetpp.reporting.numbers import significant

SECOND = Quartiles(1.0, 1.0, 1.0, 1)
RUNTIME = "openvino" if importlib.util.find_spec("openvino") else "torch"


def make_inferer(**changes) -> NestedSlidingWindowInferer:
    arguments = {"roi_size": SHAPE, "overlap": 0.25, "runtime": "torch", "precision": "fp32", **changes}
    return NestedSlidingWindowInferer(**arguments)


def run(*given, **settings):
    return prune_boxes(*given, **{"inferer": make_inferer(), "settings_repeats": 1, **settings})


@pytest.fixture
def quick(without_page, monkeypatch):
    """Without costs, pictures and the page."""

    def costs(networks, window_shape, volume_shape, *_, **__):
        return {
            name: PointCost(name, 1, 1, 1, SECOND, SECOND, 1, tuple(window_shape), volume_shape) for name in networks
        }

    def setting_costs(networks, points, inferer, level_costs, **_):
        found = {point.name: dataclasses.replace(level_costs[point.level], point=point.name) for point in points}
        return found, dict.fromkeys(found, SECOND)

    monkeypatch.setattr(evaluation_stages, "measure_costs", costs)
    monkeypatch.setattr(evaluation_stages, "measure_setting_costs", setting_costs)


# ---------------------------------------------------------------- the whole path


@pytest.fixture(scope="module")
def complete(tmp_path_factory, few_boxes):
    """L1 is blind; two overlaps and two precisions, all that is measured but the memory."""
    folder = tmp_path_factory.mktemp("complete") / "out"
    with pytest.MonkeyPatch.context() as patch:
        measure_briefly(patch)
        settings = {"overlap": [0.0, 0.25], "precision": ["fp32", "bf16"]}
        return folder, run(half_blind_network(), few_boxes, folder, settings=settings)


NAMES = [
    f"{level} overlap={overlap} {precision} torch"
    for overlap, precision in (("0.25", "fp32"), ("0", "fp32"), ("0", "bf16"), ("0.25", "bf16"))
    for level in ("L1", "L2")
]


@pytest.mark.slow
def test_every_level_is_scored_at_every_setting(complete):
    _, result = complete
    grid = result.grid
    assert [point.name for point in grid.points] == NAMES
    assert grid.reference == "L2 overlap=0.25 fp32 torch"
    assert len(grid.rows) == 8 * 3 * 3
    dice = {point.name: [row.score.dice for row in grid.rows if row.point == point.name] for point in grid.points}
    for point in grid.points:
        assert (max(dice[point.name]) == 0) if point.level == "L1" else (min(dice[point.name]) > 0.98)
        assert grid.accuracy[point.name] == (0 if point.level == "L1" else pytest.approx(1.0, abs=0.02))


@pytest.mark.slow
def test_levels_are_as_without_a_grid(complete, few_boxes, tmp_path, quick):
    _, result = complete
    plain = run(half_blind_network(), few_boxes, tmp_path)
    assert plain.grid is None
    assert (plain.points, plain.rows, plain.decisions) == (result.points, result.rows, result.decisions)
    assert plain.settings == result.settings
    # the level's own rows are those of its point at the inferer's own setting
    own = [row.score for row in result.grid.rows if row.point == "L2 overlap=0.25 fp32 torch"]
    assert own == [row.score for row in result.rows if row.point == "L2"]


@pytest.mark.slow
def test_times_are_of_the_volume_and_relative_to_the_reference(complete):
    grid = complete[1].grid
    assert grid.time_ratios[grid.reference] == Quartiles(1.0, 1.0, 1.0, 1)
    reference = grid.costs[grid.reference].volume_latency_s.median
    for name, cost in grid.costs.items():
        assert cost.volume_latency_s.count == 1
        assert grid.time_ratios[name].median == pytest.approx(cost.volume_latency_s.median / reference)
    # what overlap does not change is one measurement
    windows = {name: cost.window_latency_s for name, cost in grid.costs.items()}
    assert windows["L2 overlap=0 bf16 torch"] == windows["L2 overlap=0.25 bf16 torch"]
    assert windows["L2 overlap=0 fp32 torch"] == complete[1].costs["L2"].window_latency_s
    assert windows["L2 overlap=0 fp32 torch"] != windows["L2 overlap=0 bf16 torch"]


@pytest.mark.slow
def test_windows_of_the_whole_volume_are_points_of_their_own(few_boxes, tmp_path, quick):
    result = run(half_blind_network(), few_boxes, tmp_path, settings="windows=own,auto")
    names = [point.name for point in result.grid.points if point.level == "L2"]
    assert names == ["L2 overlap=0.25 fp32 torch", "L2 overlap=0.25 fp32 torch windows=auto"]
    dice = {name: [row.score.dice for row in result.grid.rows if row.point == name] for name in names}
    assert min(dice[names[1]]) > 0.98
    lines = (tmp_path / "operating_points.csv").read_text().splitlines()
    place = lines[0].split(",").index("windows")
    assert {line.split(",")[place] for line in lines[1:]} == {"own", "auto"}


def test_windows_that_a_level_chooses_are_those_of_its_own_network(tmp_path):
    """Not those of the deepest level, whose sizes are multiples of more."""
    torch.manual_seed(0)
    network = NestedUNet(3, 1, 3, features=[4, 4, 4, 4], norm="batch").eval()
    (case,) = list_cases(load_datalist(write_boxes(tmp_path, 1), "training"))
    pipeline = make_pipeline()
    crop = SpatialCropd("image", roi_start=[0, 0, 0], roi_end=[11, 13, 10])
    pipeline["preprocessing"] = Compose([*pipeline["preprocessing"].transforms, crop])
    steps = Pipeline(pipeline["preprocessing"], make_inferer(roi_size="auto"), pipeline["postprocessing"])
    image = steps.load(case)
    source = list_sources(network, network.levels, {})[0]
    found = source.pick(steps.infer(image, source, torch.device("cpu")))
    for level in network.levels:
        alone = make_inferer(roi_size="auto")(image.as_tensor()[None].float(), network.prune(level))
        torch.testing.assert_close(found[level], alone, rtol=0, atol=0)
    together = make_inferer(roi_size="auto", levels=["L1", "L3"])(image.as_tensor()[None].float(), network)
    assert not torch.equal(together["L1"], found["L1"])


@pytest.mark.slow
def test_three_cases_give_numbers_and_no_recommendation(complete):
    grid = complete[1].grid
    assert grid.recommended is None
    assert set(grid.on_front) == set(NAMES)
    assert max(grid.on_front.values()) == 1.0
    assert "3 subjects are fewer than the 10" in grid.reason
    assert {outcome.state for outcome in grid.outcomes} == {"inconclusive"}
    assert {outcome.point for outcome in grid.outcomes} == set(NAMES) - {grid.reference}


@pytest.mark.slow
def test_report_can_be_read_back_and_names_every_point(complete):
    folder, result = complete
    assert read_report(folder / "report.json") == result
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert 'id="points"' in page
    assert "Holm" in page
    summary = (folder / "summary.md").read_text(encoding="utf-8")
    assert "Operating points, the fastest first" in summary
    assert "3 subjects are fewer than the 10" in summary
    with (folder / "operating_points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 * 3 * 3
    first = rows[-1]
    assert (first["level"], first["overlap"], first["flips"], first["precision"], first["runtime"]) == (
        *("L2", "0.25", "", "bf16", "torch"),
    )
    assert first["point"] == "L2 overlap=0.25 bf16 torch"


@pytest.mark.slow
def test_table_has_a_row_for_each_point_and_network(complete):
    _, result = complete
    table = grid_table(result.grid, result)
    assert len(table.rows) == 8
    ratios = [result.grid.time_ratios[name].median for name in NAMES]
    column = table.columns.index("Time ratio")
    assert table.rows[0][column].text.startswith(significant(min(ratios)))
    # the reference stands out where nothing is recommended
    (marked,) = table.marked
    # settings that all points share are told once
    assert table.columns[:4] == ("Level", "Overlap", "Precision", "Result")
    assert [cell.text for cell in table.rows[marked]][:4] == ["L2", "0.25", "fp32", "reference"]
    assert table.notes[0] == "The same for all of them: flips none, runtime torch, windows own."
    assert len(grid_networks_table(result.grid).rows) == 2 * 2


@pytest.mark.slow
def test_means_in_the_table_are_over_the_cases_that_are_compared(complete):
    _, result = complete
    # a case without the label, which all points but the reference find
    empty = LabelScore("both_empty", None, None, None, None, 0.0, 0.0, 0.0)
    found = LabelScore("false_positive", 0.0, 0.0, 0.0, 9.0, 1.0, 1.0, 0.0)
    rows = [
        dataclasses.replace(row, score=empty if row.point == result.grid.reference else found)
        if (row.case, row.label) == ("case_00", "anterior")
        else row
        for row in result.grid.rows
    ]
    grid = dataclasses.replace(result.grid, rows=tuple(rows))
    table = grid_table(grid, result)
    shown = table.rows[table.marked[0]][table.columns.index("Dice, anterior")].text
    others = [
        row.score.dice
        for row in rows
        if (row.point, row.label) == (grid.reference, "anterior") and row.score.dice is not None
    ]
    assert len(others) == 2
    assert shown == f"{(1 + sum(others)) / 3:.3f}"


@pytest.mark.slow
def test_means_in_the_table_are_over_all_data_sets(complete):
    _, result = complete
    better = [
        dataclasses.replace(row, dataset="other", score=dataclasses.replace(row.score, dice=1.0))
        for row in result.grid.rows
    ]
    grid = dataclasses.replace(result.grid, rows=(*result.grid.rows, *better))
    table = grid_table(grid, result)
    shown = table.rows[table.marked[0]][table.columns.index("Dice, anterior")].text
    dice = [row.score.dice for row in result.grid.rows if (row.point, row.label) == (grid.reference, "anterior")]
    assert shown == f"{(1 + sum(dice) / len(dice)) / 2:.3f}"


@pytest.mark.slow
def test_a_report_without_grid_removes_the_file_of_an_earlier_one(complete, tmp_path):
    _, result = complete
    result = dataclasses.replace(result, overlays=())
    assert write_report(result, tmp_path)["operating_points"].is_file()
    assert "operating_points" not in write_report(dataclasses.replace(result, grid=None), tmp_path)
    assert not (tmp_path / "operating_points.csv").exists()
    assert 'id="points"' not in (tmp_path / "report.html").read_text(encoding="utf-8")


# ---------------------------------------------------------------- resuming, other data


@pytest.mark.slow
def test_finished_cases_are_kept_by_setting(few_boxes, tmp_path, quick, scored):
    run(intensity_network(), few_boxes, tmp_path, settings="overlap=0")
    assert [overlap for _, overlap in scored] == [0.25] * 3 + [0.0] * 3
    scored.clear()
    # a further setting costs its own cases only
    result = run(intensity_network(), few_boxes, tmp_path, settings="overlap=0,0.5")
    assert [overlap for _, overlap in scored] == [0.5] * 3
    assert "earlier rules" not in result.settings
    kept = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("operating_points/*/*/*.json"))
    assert len(kept) == 6
    assert kept[0] == "operating_points/overlap=0.5_fp32_torch/few/case_00.json"


@pytest.mark.slow
def test_points_are_compared_on_cases_that_choose_only(few_boxes, tmp_path, quick, scored):
    other = write_boxes(tmp_path / "other", 3, seed=5)
    result = run(intensity_network(), few_boxes, tmp_path / "out", confirm_dir=other, settings="overlap=0")
    assert {row.dataset for row in result.grid.rows} == {"few"}
    assert len([overlap for _, overlap in scored if overlap == 0.0]) == 3
    split = run(intensity_network(), few_boxes, tmp_path / "split", confirm_share=0.3, settings="overlap=0")
    choosing = {row.case for row in split.grid.rows}
    assert len(choosing) == 2
    assert {row.case for row in split.grid.rows if "overlap=0 " in row.point} == choosing


@pytest.mark.slow
def test_a_setting_that_fails_stops_the_run_or_is_left_out(few_boxes, tmp_path, quick, monkeypatch):
    def failing(pipeline, image, source, device):
        if pipeline.inferer.overlap == 0.0 and image.mean() != 0 and len(seen) == 0:
            seen.append(1)
            raise RuntimeError("no more memory")
        return infer(pipeline, image, source, device)

    seen: list[int] = []
    infer = case_scores.Pipeline.infer
    monkeypatch.setattr(case_scores.Pipeline, "infer", failing)
    with pytest.raises(ValueError, match=r"at overlap=0 fp32 torch: (.|\n)*no more memory"):
        run(intensity_network(), few_boxes, tmp_path / "stop", settings="overlap=0")
    seen.clear()
    result = run(intensity_network(), few_boxes, tmp_path / "go", settings="overlap=0,0.5", exclude_problems=True)
    assert [point.name for point in result.grid.points if point.level == "L2"] == [
        "L2 overlap=0.25 fp32 torch",
        "L2 overlap=0.5 fp32 torch",
    ]
    assert "not run on 1 case." in result.grid.left_out["overlap=0 fp32 torch"]
    assert "no more memory" in grid_table(result.grid, result).notes[-1]


@pytest.mark.slow
def test_a_setting_that_fails_on_all_cases_is_left_out_too(few_boxes, tmp_path, quick, monkeypatch):
    def failing(pipeline, image, source, device):
        if pipeline.inferer.overlap == 0.0:
            raise RuntimeError("logits are not finite")
        return infer(pipeline, image, source, device)

    infer = case_scores.Pipeline.infer
    monkeypatch.setattr(case_scores.Pipeline, "infer", failing)
    result = run(intensity_network(), few_boxes, tmp_path, settings="overlap=0,0.5", exclude_problems=True)
    assert {point.setting.overlap for point in result.grid.points} == {(0.25,), (0.5,)}
    assert "logits are not finite" in result.grid.left_out["overlap=0 fp32 torch"]


def test_other_inferers_and_bad_grids_stop_at_once(few_boxes, tmp_path):
    with pytest.raises(TypeError, match="inferer must be a NestedSlidingWindowInferer where settings are given"):
        run(intensity_network(), few_boxes, tmp_path, inferer=SlidingWindowInferer(SHAPE), settings="overlap=0")
    with pytest.raises(ValueError, match="settings must be among overlap"):
        run(intensity_network(), few_boxes, tmp_path, settings="level=L1")
    with pytest.raises(ValueError, match="settings_repeats must be 1 or more, got 0"):
        run(intensity_network(), few_boxes, tmp_path, settings="overlap=0", settings_repeats=0)
    with pytest.raises(ValueError, match=r"inferer must have output='logits' where levels are scored, got 'labels'"):
        run(intensity_network(), few_boxes, tmp_path, inferer=make_inferer(output="labels"))
    with pytest.raises(ValueError, match=r"inferer must have levels=None where levels are scored, got 'L1'"):
        run(intensity_network(), few_boxes, tmp_path, inferer=make_inferer(levels="L1"))


# ---------------------------------------------------------------- scores and costs through our inferer


def test_our_inferer_scores_as_monais_does(few_boxes):
    cases = load_datalist(few_boxes, "validation")
    rest = {"labels": LABELS, "tolerance_mm": dict.fromkeys(LABELS, 1.0)}
    theirs = evaluate_levels(intensity_network(), cases, **make_pipeline(), **rest)
    ours = evaluate_levels(
        intensity_network(), cases, **(make_pipeline() | {"inferer": make_inferer(mode="constant")}), **rest
    )
    assert ours.rows == theirs.rows


@pytest.mark.slow
@pytest.mark.skipif(RUNTIME != "openvino", reason="needs openvino")
def test_openvino_scores_like_torch(few_boxes, tmp_path):
    cases = load_datalist(few_boxes, "validation")[:1]
    rest = {"labels": LABELS, "tolerance_mm": dict.fromkeys(LABELS, 1.0)}
    found = [
        evaluate_levels(
            intensity_network(),
            cases,
            **(make_pipeline() | {"inferer": make_inferer(runtime=runtime, cache_dir=tmp_path)}),
            **rest,
        )
        for runtime in ("torch", "openvino")
    ]
    for one, other in zip(found[0].rows, found[1].rows, strict=True):
        assert (one.point, one.label) == (other.point, other.label)
        assert one.score.dice == pytest.approx(other.score.dice, abs=0.01)


def test_costs_through_our_inferer(monkeypatch):
    monkeypatch.setattr(cost_module, "measure_peak_memory", lambda runs, *_: dict.fromkeys(runs, 5))
    network = intensity_network()
    networks = {level: network.prune(level).eval() for level in network.levels}
    calls: list[str] = []
    for name, each in networks.items():
        each.register_forward_hook(lambda *_, name=name: calls.append(name))
    inferer = make_inferer(overlap=0.5, flips=(0,))
    costs = measure_costs(networks, SHAPE, (24, 16, 16), inferer, precision="fp32", repeats=1, warm_up=0)
    # flips and overlap belong to the volume: two windows and their mirror images in one batch, against one window
    assert calls.count("L2") == 1 + 2 + 1
    assert costs["L2"].flops_per_window > costs["L1"].flops_per_window

    settings = [InferenceSetting((0.5,), (0,), "fp32", "torch"), InferenceSetting((0.0,), (), "fp32", "torch")]
    points = [OperatingPoint(f"{level} {s.name}", level, setting=s) for s in settings for level in networks]
    calls.clear()
    reference = points[1].name
    found, ratios = measure_setting_costs(networks, points, inferer, costs, reference=reference, repeats=2, warm_up=1)
    # three rounds; with flips two passes, without one
    assert calls.count("L2") == 3 * (2 + 1)
    assert ratios[reference] == Quartiles(1.0, 1.0, 1.0, 2)
    assert {cost.peak_memory_bytes for cost in found.values()} == {5}
    with pytest.raises(ValueError, match=r"reference must be one of L1 .*, got 'L9'"):
        measure_setting_costs(networks, points, inferer, costs, reference="L9")
    bare = [OperatingPoint("L1", "L1")]
    with pytest.raises(ValueError, match="points must have a setting, got none for 'L1'"):
        measure_setting_costs(networks, bare, inferer, costs, reference="L1")


@pytest.mark.slow
def test_memory_of_our_inferer_is_measured_in_a_process_of_its_own():
    network = intensity_network().prune("L1").eval()
    options = {"precision": "fp32", "repeats": 1}
    with memory_measured_in_forks():
        (cost,) = measure_costs({"L1": network}, SHAPE, (48, 48, 48), make_inferer(), **options).values()
    weights = 4 * cost.parameters
    assert cost.peak_memory_bytes > weights + 4 * (1 + 3) * 48**3 * 0.5
    assert cost.peak_memory_bytes < 300e6


# ---------------------------------------------------------------- settings as text


def test_a_used_inferer_is_described_like_a_new_one():
    used = make_inferer()
    used(torch.zeros(1, 1, *SHAPE), intensity_network())
    assert describe_settings(used) == describe_settings(make_inferer(sw_batch_size=3, progress=True))
    assert describe_settings(used) != describe_settings(make_inferer(overlap=0.5))
    assert json.loads(describe_settings(used))["NestedSlidingWindowInferer"]["roi_size"] == list(SHAPE)


def test_our_inferer_is_told_in_the_words_of_monais():
    theirs = inference_of(SlidingWindowInferer(list(SHAPE), overlap=0.25, mode="gaussian"), "cpu")
    assert inference_of(make_inferer(roi_size=list(SHAPE)), "cpu") == theirs
    assert inference_of(SlicewiseInferer(make_inferer(roi_size=list(SHAPE))), "cpu") == theirs
    assert inference_of(make_inferer(flips=[1, 0], precision="bf16"), "cpu")["flips"] == [0, 1]
    wrapped = FlipInferer(FlipInferer(PrecisionInferer(make_inferer(flips=[1], precision="fp32"), "bf16"), [0]), [2])
    assert [inference_of(wrapped, "cpu")[name] for name in ("flips", "precision")] == [[0, 1, 2], "bf16"]
    # it must reach another process
    assert pickle.loads(pickle.dumps(make_inferer().with_options(levels=None))).overlap == 0.25

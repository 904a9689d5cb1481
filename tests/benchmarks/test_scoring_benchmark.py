"""All levels from one pass beside the deepest alone."""

import dataclasses
import json

import pytest
import torch

from benchmarks import scoring
from benchmarks.scoring import format_scoring_benchmark, measure_scoring
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.pruning.scoring.levels import evaluate_levels

TINY = {"features": (4, 4, 4), "volume_shape": (20, 18, 16), "window_shape": (16, 16, 16)}


@pytest.fixture(scope="module")
def result():
    return measure_scoring(**TINY, repeats=3)


class TestMeasurement:
    @pytest.mark.slow
    def test_levels_and_rounds(self, result):
        assert result.all_levels.levels == ("L1", "L2")
        assert result.deepest.levels == ("L2",)
        assert result.ratio.count == result.network_ratio.count == result.deepest.total_s.count == 3
        assert result.volume_shape == TINY["volume_shape"]

    @pytest.mark.slow
    def test_network_and_the_rest_are_parts_of_the_total(self, result):
        for each in (result.all_levels, result.deepest):
            assert 0 < each.network_s.median < each.total_s.median
            assert 0 < each.rest_s.median < each.total_s.median
            assert each.total_s.lower <= each.total_s.median <= each.total_s.upper

    def test_ready_for_json(self, result):
        assert json.loads(json.dumps(dataclasses.asdict(result)))["ratio"]["median"] == result.ratio.median
        assert result.environment.threads == torch.get_num_threads()
        assert {"torch", "monai", "monai-unetpp"} <= set(result.environment.versions)

    @pytest.mark.slow
    def test_both_take_turns_and_predictions_are_good(self, monkeypatch):
        asked, dice = [], []

        def recorded(*arguments, levels, **options):
            scores = evaluate_levels(*arguments, levels=levels, **options)
            asked.append(tuple(levels))
            dice.extend(row.score.dice for row in scores.rows)
            return scores

        monkeypatch.setattr(scoring, "evaluate_levels", recorded)
        measure_scoring(**TINY, repeats=2, warm_up=1)
        every, deepest = ("L1", "L2"), ("L2",)
        assert [set(asked[start : start + 2]) for start in (0, 2, 4)] == [{every, deepest}] * 3
        # without smooth predictions the metrics would cost far more than those of a trained network
        assert min(dice) > 0.7


@pytest.mark.parametrize(("median", "verdict"), [(1.15, "within 1.15"), (1.16, "above 1.15")])
def test_text_tells_the_ratio_and_the_verdict(result, median, verdict):
    given = dataclasses.replace(result, ratio=Quartiles(median, 1.1, 1.2, 3))
    text = format_scoring_benchmark(given)
    assert f"All levels cost {median:.3f} times the deepest alone (quartiles 1.100-1.200, 3 rounds): {verdict}" in text
    assert f"| L1, L2 | {result.all_levels.total_s.median:.3f} s" in text
    assert "20 x 18 x 16 in windows of 16 x 16 x 16, features 4, 4, 4, fp32" in text

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
import torch

from monai_unetpp.metrics import disagreement, error_auroc


class TestDisagreement:
    def test_by_hand(self):
        # probabilities (0.9, 0.1) and (0.5, 0.5): mean (0.7, 0.3)
        first = torch.tensor([0.9, 0.1]).log().reshape(1, 2, 1, 1)
        second = torch.zeros(1, 2, 1, 1)
        expected = -(0.7 * math.log(0.7) + 0.3 * math.log(0.3)) / math.log(2)
        assert disagreement({"L1": first, "L2": second}).item() == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize("classes", [2, 3, 7])
    def test_uniform_is_one_for_any_number_of_classes(self, classes):
        logits = torch.zeros(1, classes, 4, 5, 6)
        found = disagreement({"L1": logits})
        assert found.shape == (1, 1, 4, 5, 6)
        torch.testing.assert_close(found, torch.ones_like(found))

    def test_certain_is_zero_and_never_nan(self):
        logits = torch.tensor([1e4, -1e4]).reshape(1, 2, 1, 1)
        assert disagreement({"L1": logits, "L2": logits}).item() == 0.0

    def test_single_channel_is_a_probability_of_foreground(self):
        logits = torch.randn(1, 1, 6, 6, generator=torch.manual_seed(0))
        two = torch.cat([torch.zeros_like(logits), logits], dim=1)
        torch.testing.assert_close(disagreement({"L1": logits}), disagreement({"L1": two}))

    def test_half_precision_is_computed_in_float32(self):
        assert disagreement({"L1": torch.zeros(1, 2, 2, 2, dtype=torch.bfloat16)}).dtype == torch.float32

    @pytest.mark.parametrize("shapes", [[], [(1, 2, 4, 4), (1, 2, 4, 5)]])
    def test_bad_arguments(self, shapes):
        logits = {f"L{i}": torch.zeros(shape) for i, shape in enumerate(shapes, 1)}
        with pytest.raises(
            ValueError, match="logits_by_level must hold logits of the same shape for at least one level"
        ):
            disagreement(logits)


class TestAuroc:
    @pytest.mark.parametrize("seed", range(3))
    def test_is_the_share_of_pairs_in_the_right_order(self, seed):
        generator = np.random.default_rng(seed)
        # few different values, so that there are ties
        uncertainty, error = generator.integers(0, 5, 60) / 4, generator.random(60) < 0.3
        pairs = uncertainty[error][:, None] - uncertainty[~error][None]
        expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
        assert error_auroc(uncertainty, error) == pytest.approx(expected)

    def test_evenly_spaced_voxels_stand_for_many(self, monkeypatch):
        monkeypatch.setattr(importlib.import_module("monai_unetpp.metrics.uncertainty"), "_MOST_RANKED", 100)
        generator = np.random.default_rng(0)
        uncertainty, error = generator.random((40, 50)), generator.random((40, 50)) < 0.3
        flat = uncertainty.reshape(-1)[::20], error.reshape(-1)[::20]
        assert error_auroc(uncertainty, error) == error_auroc(*flat)

    def test_chance_where_all_voxels_are_equally_uncertain(self):
        assert error_auroc(np.ones(4), [True, False, False, True]) == 0.5

    @pytest.mark.parametrize("error", [np.zeros((2, 2), bool), np.ones((2, 2), bool)])
    def test_undefined_without_errors_or_without_anything_else(self, error):
        assert error_auroc(np.zeros((2, 2)), error) is None

    def test_shapes_must_agree(self):
        with pytest.raises(ValueError, match=r"uncertainty and error must have the same shape, got \(2,\) and \(3,\)"):
            error_auroc(np.zeros(2), np.zeros(3))

"""What leaving out constant windows saves."""

import dataclasses
import json

import pytest
import torch

from benchmarks.skipping import format_skipping_benchmark, measure_skipping


@pytest.fixture(scope="module")
def volume():
    """Something in one corner: of the eight windows of 16, one holds it."""
    volume = torch.zeros(32, 32, 32)
    volume[:10, :12, :9] = torch.rand(10, 12, 9) + 0.1
    return volume


@pytest.fixture(scope="module")
def result(volume):
    return measure_skipping(features=(4, 4, 4), window_sizes=(16, 32), overlap=0, repeats=2, volume=volume)


@pytest.mark.slow
def test_only_windows_with_something_and_one_without_are_computed(result):
    small, large = result.savings
    assert (small.window_size, small.windows, small.computed) == (16, 8, 2)
    assert (large.window_size, large.windows, large.computed) == (32, 1, 1)
    assert result.background == pytest.approx(1 - 10 * 12 * 9 / 32**3)


@pytest.mark.slow
def test_times_are_shares_within_rounds_and_labels_agree(result):
    for saving in result.savings:
        assert saving.same_labels == 1
        assert saving.time_ratio.count == saving.all_s.count == saving.skipping_s.count == 2
        assert 0 < saving.time_ratio.lower <= saving.time_ratio.median <= saving.time_ratio.upper
    assert json.loads(json.dumps(dataclasses.asdict(result)))["savings"][0]["computed"] == 2
    assert result.environment.runtime in ("torch", "compile", "openvino")


@pytest.mark.slow
def test_text(result):
    text = format_skipping_benchmark(result)
    assert text.startswith("A volume of 32 x 32 x 32, 97 % of it background, overlap 0, features 4, 4, 4, ")
    assert "\n| 16 | 8 | 6 | " in text
    assert text.endswith("| 100.00 % |\n")

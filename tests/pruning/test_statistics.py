"""Bounds of a mean paired difference: right in hand-computed cases, and honest in simulated ones."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks import simulate
from monai_unetpp.pruning.statistics import (
    FULL_SUBJECTS,
    MIN_SUBJECTS,
    bound_alpha,
    is_non_inferior,
    least_mean,
    least_subjects,
    mean_bounds,
    skewness_corrected_t,
    subject_means,
    subjects_needed,
    unseen_rate,
)

REPETITIONS = 4000
ALPHA = 0.05
HIGHEST = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / REPETITIONS)


def left_skewed(n: int, seed: int = 0) -> np.ndarray:
    return 1 - np.random.default_rng(seed).exponential(size=n)


def power_without_difference(subjects: int, ratio: float, **options: int) -> float:
    normal = simulate.MODERATE_SHAPES[0]
    return simulate.acceptance(normal, subjects, drop=0.0, ratios=(ratio,), **options)[ratio]


class TestBounds:
    def test_symmetric_sample_gives_the_ordinary_t_bound(self) -> None:
        sample = np.array([-3.0, -1.0, 0.0, 1.0, 3.0])
        expected = -stats.t.ppf(0.95, 4) * math.sqrt(20 / 4) / math.sqrt(5)
        assert skewness_corrected_t(sample) == pytest.approx(expected)

    def test_right_skew_gives_the_ordinary_bound_and_left_skew_a_lower_one(self) -> None:
        left = left_skewed(30)
        plain = stats.t.ppf(0.95, 29) * left.std(ddof=1) / math.sqrt(30)
        assert skewness_corrected_t(-left) == pytest.approx(-left.mean() - plain)
        assert skewness_corrected_t(left) < left.mean() - 1.05 * plain

    @pytest.mark.parametrize("n", [10, 30, 100])
    def test_one_drop_among_equal_subjects_is_bounded_like_the_binomial(self, n: int) -> None:
        sample = np.zeros(n)
        sample[0] = -1.0
        exact = -stats.beta.ppf(1 - ALPHA, 2, n - 1)
        assert skewness_corrected_t(sample, ALPHA) == pytest.approx(exact, rel=0.2)

    def test_the_bound_becomes_stricter_without_a_step_as_subjects_become_few(self) -> None:
        assert bound_alpha(MIN_SUBJECTS, 0.05) == pytest.approx(0.005)
        assert bound_alpha(FULL_SUBJECTS, 0.05) == bound_alpha(200, 0.05) == 0.05
        levels = np.array([bound_alpha(n, 0.05) for n in range(MIN_SUBJECTS, FULL_SUBJECTS + 1)])
        steps = levels[1:] / levels[:-1]
        assert steps == pytest.approx(10 ** (1 / 20))
        assert bound_alpha(np.array([10, 30]), 0.05) == pytest.approx([0.005, 0.05])

    def test_one_excluded_subject_does_not_halve_the_power(self) -> None:
        power = [power_without_difference(n, 1.5, repetitions=2000, bootstrap_samples=200) for n in range(22, 28)]
        assert max(np.diff(power)) < 0.12

    @pytest.mark.slow
    def test_lower_bound_is_the_lower_of_both_methods(self) -> None:
        methods = set()
        for seed in range(40):
            sample = np.sort(np.random.default_rng(seed).normal(size=30))
            bca = stats.bootstrap(
                (sample,), np.mean, confidence_level=0.9, n_resamples=999, rng=np.random.default_rng(seed)
            ).confidence_interval
            t_lower, t_upper = float(skewness_corrected_t(sample)), -float(skewness_corrected_t(-sample))
            found = mean_bounds(sample, bootstrap_samples=999, seed=seed)
            assert found.lower == pytest.approx(min(bca.low, t_lower), abs=1e-6)
            assert found.upper == pytest.approx(max(bca.high, t_upper), abs=1e-6)
            assert found.method == ("bca" if bca.low < t_lower else "t")
            methods.add(found.method)
        assert methods == {"bca", "t"}

    @pytest.mark.parametrize("value", [0.0, -0.02, 0.3 - 0.2])
    @pytest.mark.parametrize("n", [2, 12, 40])
    def test_equal_differences_bound_themselves(self, value: float, n: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = mean_bounds([value, value + 1e-17] * (n // 2))
        assert [found.mean, found.lower, found.upper] == pytest.approx([value] * 3)
        assert found.sd == 0

    @pytest.mark.parametrize("n", [25, 200])
    def test_a_single_different_subject_gives_finite_bounds(self, n: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = mean_bounds([0.0] * (n - 1) + [-0.1], bootstrap_samples=200)
        assert -0.1 < found.lower < found.mean < found.upper < 0.01

    def test_bounds_move_and_stretch_with_the_sample(self) -> None:
        sample = left_skewed(40)
        base = mean_bounds(sample, bootstrap_samples=999)
        moved = mean_bounds(1e-3 * sample - 0.2, bootstrap_samples=999)
        assert moved.lower == pytest.approx(1e-3 * base.lower - 0.2, abs=1e-9)
        assert moved.upper == pytest.approx(1e-3 * base.upper - 0.2, abs=1e-9)

    def test_the_order_of_the_subjects_does_not_matter(self) -> None:
        sample = np.random.default_rng(0).gamma(0.5, size=40)
        assert mean_bounds(sample, bootstrap_samples=500) == mean_bounds(sample[::-1], bootstrap_samples=500)

    def test_same_seed_same_bounds(self) -> None:
        samples = [np.random.default_rng(seed).normal(size=30) for seed in range(10)]
        first = [mean_bounds(sample, seed=3, bootstrap_samples=200) for sample in samples]
        assert first == [mean_bounds(sample, seed=3, bootstrap_samples=200) for sample in samples]
        assert first != [mean_bounds(sample, seed=4, bootstrap_samples=200) for sample in samples]

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda: mean_bounds([0.1]), r"differences must be two numbers or more, got shape \(1,\)"),
            (lambda: mean_bounds([0.1, math.nan]), "differences must be finite, got nan"),
            (lambda: mean_bounds([0.1, 0.2], alpha=0.7), "alpha must lie between 0 and 0.5, got 0.7"),
            (lambda: mean_bounds([0.1, 0.2], bootstrap_samples=9), "bootstrap_samples must be 100 or more, got 9"),
        ],
    )
    def test_bad_arguments(self, call, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            call()


def test_subject_means_weigh_subjects_alike() -> None:
    means = subject_means([1.0, 3.0, 10.0], ["a", "a", "b"])
    assert means.tolist() == [2.0, 10.0]


class TestSizes:
    @pytest.mark.parametrize(("sd", "n"), [(0.02, 25), (0.03, 56), (0.05, 155)])
    def test_published_sample_sizes(self, sd: float, n: int) -> None:
        assert simulate.sample_size(sd, 0.01) == n
        assert n < subjects_needed(sd, 0.01) <= n + 4

    def test_only_the_bound_is_corrected_for_several_tests(self) -> None:
        assert subjects_needed(0.001, 0.01, alpha=0.05 / 31, error=0.05) == subjects_needed(0.001, 0.01)
        assert subjects_needed(0.03, 0.01, alpha=0.05 / 31, error=0.05) > 1.5 * subjects_needed(0.03, 0.01)

    def test_without_any_spread_the_unseen_drops_decide(self) -> None:
        needed = subjects_needed(0.0, 0.01)
        assert least_mean(needed, 0.01) < 0 <= least_mean(needed - 1, 0.01)

    def test_unseen_rate_is_the_exact_rule_of_three(self) -> None:
        assert (1 - unseen_rate(30)) ** 30 == pytest.approx(0.05)
        assert unseen_rate(300) == pytest.approx(3 / 300, rel=0.01)

    def test_all_numbers_up_to_the_largest_are_tried(self) -> None:
        for enough in (7_000, 9_999, 10_000):
            assert least_subjects(lambda count, enough=enough: float(count >= enough), 10, 10_000, 10_000) == enough
        assert least_subjects(lambda count: float(count > 10_000), 10, 10_000, 10_000) is None

    def test_fewer_than_ten_are_never_enough(self) -> None:
        lower = np.full(3, 1.0)
        assert not is_non_inferior(lower, lower, subjects=MIN_SUBJECTS - 1, margin=0.01).any()
        assert is_non_inferior(lower, lower, subjects=MIN_SUBJECTS, margin=0.01).all()
        assert is_non_inferior(1.0, 1.0, subjects=9, margin=0.01) is False

    def test_a_bound_at_the_margin_is_not_enough(self) -> None:
        assert is_non_inferior(-0.01, 0.0, subjects=100, margin=0.01) is False
        assert is_non_inferior(-0.0099, 0.0, subjects=100, margin=0.01) is True


class TestSimulation:
    @pytest.mark.parametrize("n", [10, 24, 25, 60])
    def test_fast_bounds_are_those_of_the_decision(self, n: int) -> None:
        for shape in (simulate.MODERATE_SHAPES[0], simulate.MODERATE_SHAPES[3], simulate.HEAVY_SHAPES[1]):
            samples = shape.draw(np.random.default_rng(5), (12, n))
            samples[0] = 0.25
            samples[1] = np.round(samples[1])
            fast = simulate.lower_bounds(samples, bootstrap_samples=500, seed=3)
            slow = [mean_bounds(sample, bootstrap_samples=500, seed=3).lower for sample in samples]
            assert fast == pytest.approx(slow, abs=1e-8)

    @pytest.mark.parametrize("shape", [*simulate.MODERATE_SHAPES, *simulate.HEAVY_SHAPES], ids=lambda s: s.name)
    def test_shapes_have_the_moments_they_state(self, shape: simulate.Shape) -> None:
        values = shape.draw(np.random.default_rng(0), (1_000_000,))
        assert values.mean() == pytest.approx(0, abs=0.005)
        assert values.std() == pytest.approx(1, abs=0.05)
        if shape.skewness > -5:
            assert stats.skew(values) == pytest.approx(shape.skewness, abs=0.1)

    @pytest.mark.slow
    @pytest.mark.parametrize("n", [10, 30, 100])
    @pytest.mark.parametrize("shape", simulate.MODERATE_SHAPES, ids=lambda s: s.name)
    def test_a_drop_of_the_margin_is_accepted_no_more_often_than_alpha(self, shape: simulate.Shape, n: int) -> None:
        shares = simulate.acceptance(shape, n, repetitions=REPETITIONS, bootstrap_samples=1000, seed=1)
        assert max(shares.values()) <= HIGHEST, shares

    def test_the_plain_t_bound_would_not_do(self) -> None:
        """The reason for the correction: without it the level is exceeded."""
        samples = simulate.MODERATE_SHAPES[3].draw(np.random.default_rng(1), (REPETITIONS, 30))
        plain = samples.mean(axis=1) - stats.t.ppf(0.95, 29) * samples.std(axis=1, ddof=1) / math.sqrt(30)
        assert (plain > 0).mean() > HIGHEST

    @pytest.mark.parametrize("shape", simulate.HEAVY_SHAPES, ids=lambda s: s.name)
    def test_heavy_tails_within_the_margin_are_refused_with_ten_subjects(self, shape: simulate.Shape) -> None:
        shares = simulate.acceptance(shape, 10, ratios=(0.25, 0.5, 1, 2), repetitions=REPETITIONS)
        assert max(shares.values()) <= 0.01, shares

    @pytest.mark.slow
    @pytest.mark.parametrize(("ratio", "n"), [(3, 56), (5, 155)])
    def test_power_at_the_published_sample_sizes(self, ratio: float, n: int) -> None:
        assert simulate.sample_size(ratio, 1) == n
        power = power_without_difference(n, ratio, repetitions=10_000, bootstrap_samples=500)
        assert power >= 0.75

    @pytest.mark.parametrize("ratio", [0.5, 1, 1.5, 2, 3, 5])
    def test_power_with_the_subjects_needed(self, ratio: float) -> None:
        needed = subjects_needed(ratio, 1)
        assert needed is not None
        power = power_without_difference(needed, ratio, repetitions=REPETITIONS, bootstrap_samples=500)
        assert power >= 0.75

    @pytest.mark.slow
    @pytest.mark.parametrize("labels", [1, 20])
    def test_levels_without_difference_rarely_fail_whatever_the_number_of_labels(self, labels: int) -> None:
        assert simulate.failing_rate(labels, 100, repetitions=400) < ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 400)


class TestCommand:
    def test_prints_tables(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert simulate.main(["--repetitions", "20", "--bootstrap-samples", "100"]) == 0
        printed = capsys.readouterr().out
        assert "power" in printed
        for shape in (*simulate.MODERATE_SHAPES, *simulate.HEAVY_SHAPES):
            assert f"| {shape.name} |" in printed

    @pytest.mark.slow
    def test_renews_the_tables_of_a_document(self, tmp_path: Path) -> None:
        path = tmp_path / "doc.md"
        path.write_text("before\n<!-- simulated tables: begin -->\nold\n<!-- simulated tables: end -->\nafter\n")
        arguments = ["--repetitions", "20", "--bootstrap-samples", "100", "--into", str(path)]
        assert simulate.main(arguments) == 0
        text = path.read_text()
        assert text.startswith("before\n")
        assert text.endswith("-->\nafter\n")
        assert "old" not in text
        assert simulate.main(arguments) == 0
        assert path.read_text() == text

    def test_refuses_a_document_without_a_place_for_tables(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "doc.md"
        path.write_text("nothing")
        with pytest.raises(SystemExit, match="2"):
            simulate.main(["--repetitions", "20", "--bootstrap-samples", "100", "--into", str(path)])
        assert "must hold the lines" in capsys.readouterr().err
        assert path.read_text() == "nothing"

    def test_refuses_bad_counts(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="2"):
            simulate.main(["--repetitions", "0"])
        assert "--repetitions must be 1 or more" in capsys.readouterr().err

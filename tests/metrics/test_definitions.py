"""Each metric is defined once, and the definition fits the scores."""

import dataclasses

import pytest

from monai_unetpp.metrics import GUARDED, METRICS, LabelScore
from monai_unetpp.pruning.decide import DEFAULT_MARGINS, DEFAULT_MAX_CASE_DROP


def test_every_metric_is_a_figure_of_a_score():
    assert set(METRICS) <= {field.name for field in dataclasses.fields(LabelScore)}
    assert list(GUARDED) == ["dice", "iou", "nsd", "hd95_mm"]


@pytest.mark.parametrize("key", METRICS)
def test_a_key_ends_in_the_unit(key):
    metric = METRICS[key]
    assert metric.key == key
    assert key.endswith(f"_{metric.unit}") or not metric.unit
    # a share is best at 1, an error at 0
    assert metric.perfect == float(metric.larger_is_better)
    assert metric.larger_is_better == (not metric.unit)


def test_names_with_units():
    assert (METRICS["hd95_mm"].heading, METRICS["hd95_mm"].in_words) == ("HD95 (mm)", "HD95 in mm")
    assert METRICS["dice"].heading == METRICS["dice"].in_words == "Dice"


def test_defaults_of_the_verdict():
    assert {margin.metric: margin.value for margin in DEFAULT_MARGINS} == {"dice": 0.01, "nsd": 0.02}
    assert DEFAULT_MAX_CASE_DROP == {"dice": 0.20, "iou": 0.20, "nsd": 0.40}
    for margin in DEFAULT_MARGINS:
        assert METRICS[margin.metric].case_drop == pytest.approx(20 * margin.value)

"""The benchmark of large volumes."""

import pytest
from forked import memory_measured_in_forks

from benchmarks import streaming
from benchmarks.streaming import QUICK, format_streaming_benchmark, measure_streaming


def test_memory_that_the_first_window_leaves_counts(monkeypatch):
    events = []

    class Peak:
        def __init__(self, device):
            events.append("baseline")

        def restart(self):
            events.append("forget the peak")

        def bytes(self):
            return 1

    class Inferer(streaming.NestedSlidingWindowInferer):
        def __call__(self, inputs, network):
            events.append(tuple(inputs.shape[2:]))

    monkeypatch.setattr(streaming, "PeakMemory", Peak)
    monkeypatch.setattr(streaming, "NestedSlidingWindowInferer", Inferer)
    streaming._stream(("L1",), (16, 16, 24), (16, 16, 16), (2, 2), 2, 0.25, "cpu")
    assert events == ["baseline", (16, 16, 16), "forget the peak", (16, 16, 24)]


@pytest.mark.slow
def test_all_levels_of_a_volume_are_set_beside_one():
    with memory_measured_in_forks():
        result = measure_streaming(**QUICK)
    one, all_levels = result.volumes
    assert (one.levels, all_levels.levels) == (("L2",), ("L1", "L2"))
    assert one.windows == all_levels.windows == 27
    # the volume itself is in both
    assert 64 * 64 * 72 * 4 < one.estimated_bytes < all_levels.estimated_bytes
    assert min(one.peak_bytes, one.seconds, all_levels.peak_bytes, all_levels.seconds) > 0
    lines = format_streaming_benchmark(result).splitlines()
    assert lines[0].startswith("A volume of 64 x 64 x 72, 3 classes, features 4, 8, 8;")
    assert lines[-2].startswith("| 32 x 32 x 32 (27) | L2 |")
    assert lines[-1].startswith("| 32 x 32 x 32 (27) | L1, L2 |")

"""Wall time by stage, with a clock that the test sets."""

import threading

import pytest

from monai_unetpp.measuring import stage_timer
from monai_unetpp.measuring.stage_timer import StageTimer


class Clock:
    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(stage_timer, "time", clock)
    return clock


def test_times_of_a_stage_add_up(clock):
    timer = StageTimer()
    for seconds in (1.0, 2.5):
        with timer.stage("network"):
            clock.now += seconds
    assert timer.seconds == {"network": 3.5}


def test_an_inner_stage_is_not_counted_for_the_outer_one(clock):
    timer = StageTimer()
    with timer.stage("windows"):
        clock.now += 1
        with timer.stage("network"):
            clock.now += 4
        clock.now += 2
    assert timer.seconds == {"network": 4, "windows": 3}


def test_a_stage_that_fails_is_counted_and_closed(clock):
    timer = StageTimer()

    def break_down():
        with timer.stage("network"):
            clock.now += 4
            raise RuntimeError("broken")

    with timer.stage("windows"):
        with pytest.raises(RuntimeError, match="broken"):
            break_down()
        clock.now += 1
    assert timer.seconds == {"network": 4, "windows": 1}


def test_stages_of_two_threads_are_not_nested(clock):
    timer = StageTimer()

    def save():
        with timer.stage("save"):
            clock.now += 2

    with timer.stage("network"):
        thread = threading.Thread(target=save)
        thread.start()
        thread.join()
        clock.now += 1
    assert timer.seconds == {"save": 2, "network": 3}


def test_reset_forgets(clock):
    timer = StageTimer()
    with timer.stage("network"):
        clock.now += 1
    timer.reset()
    assert timer.seconds == {}

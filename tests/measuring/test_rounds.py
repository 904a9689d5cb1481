"""Taking turns, with a clock that the tasks set."""

import pytest

from monai_unetpp.measuring import rounds
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.measuring.rounds import shuffled_rounds, time_rounds


def test_every_round_holds_each_once_in_orders_that_change_and_can_be_repeated():
    orders = list(shuffled_rounds("abcde", 20, seed=3))
    assert all(sorted(order) == list("abcde") for order in orders)
    assert len(set(orders)) > 10
    assert orders == list(shuffled_rounds("abcde", 20, seed=3)) != list(shuffled_rounds("abcde", 20, seed=4))


class Clock:
    def __init__(self):
        self.now = 0.0
        self.calls = []

    def perf_counter(self):
        return self.now

    def task(self, name, seconds):
        """Takes each of ``seconds`` in turn."""
        left = iter(seconds)

        def run():
            self.calls.append(name)
            self.now += next(left)

        return run


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(rounds, "time", clock)
    return clock


def test_measured_rounds_follow_the_warm_up_and_keep_their_places(clock):
    tasks = {"slow": clock.task("slow", [9, 4, 6]), "fast": clock.task("fast", [9, 1, 2])}
    assert time_rounds(tasks, repeats=2, warm_up=1) == {"slow": [4, 6], "fast": [1, 2]}
    assert [set(clock.calls[start : start + 2]) for start in (0, 2, 4)] == [{"slow", "fast"}] * 3


def test_nothing_to_measure():
    assert time_rounds({}, repeats=3) == {}


def test_ratios_are_those_of_one_round():
    assert Quartiles.of_ratios([8.0, 12.0, 10.0], [4.0, 3.0, 2.0]) == Quartiles(4, 3, 4.5, 3)
    with pytest.raises(ValueError, match="zip"):
        Quartiles.of_ratios([1.0], [])


def test_quartiles_as_text():
    assert Quartiles(1.234, 1, 2, 3).text(".2f", " s") == "1.23 s (1.00 to 2.00)"

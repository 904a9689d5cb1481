"""Trainings with all that the recipe adds: averaged weights, self-distillation, a budget of time, curves."""

import csv
import logging
import math
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from monai.optimizers import WarmupCosineSchedule
from torch.nn.parallel import DistributedDataParallel

from monai_unetpp import NestedUNet
from monai_unetpp.bundles.training_record import TrainingRecord, find_training_record
from monai_unetpp.data import load_datalist
from monai_unetpp.training import (
    BudgetedCosineSchedule,
    LastModelSaver,
    LateLoss,
    LevelCurves,
    RemainingPatches,
    TrainingBudget,
    WeightAverage,
    accelerate,
)
from monai_unetpp.training import patches as patches_module
from monai_unetpp.training.observing import dice_of_classes

#: What a plan of this package's own adds to the template.
RECIPE = {
    "ema": 0.04,
    "distillation": 0.5,
    "dropout": 0.1,
    "class_weights": [0.5, 1.5],
    "train#weights": [1.0, 1.0, 2.5, 4.0],
    "observed_cases": 2,
    "observed_seconds": 0,
}


def weights(folder):
    return torch.load(folder / "model.pt", weights_only=True)


def are_equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def losses(folder, column="loss"):
    return [float(row[column]) for row in csv.DictReader((folder / "curve.csv").open())]


def rates(folder):
    return losses(folder, "learning_rate")


def test_the_late_loss_takes_over_at_the_end_of_a_training():
    class Constant(torch.nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, prediction, target):
            return torch.tensor(self.value)

    budget = TrainingBudget(8)
    loss = LateLoss(Constant(1.0), Constant(2.0), budget, late_share=0.25)
    assert float(loss(None, None)) == 1.0
    engine = Engine(lambda engine, batch: float(loss(None, None)))
    budget.attach(engine)
    seen = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.append(engine.state.output))
    engine.run(range(8), max_epochs=1)
    assert seen == [1, 1, 1, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_the_share_of_a_late_loss_is_checked(share):
    with pytest.raises(ValueError, match="late_share must be 0 to 1"):
        LateLoss(torch.nn.L1Loss(), torch.nn.L1Loss(), TrainingBudget(8), share)


@pytest.mark.slow
def test_class_weights_count_until_the_last_part_of_a_training(train):
    """As long as weights count, the loss of the same patches is another one."""
    _, with_weights = train("weights", class_weights=[0.1, 5.0], late_share=0.5)
    _, without = train("none", late_share=0.5)
    _, throughout = train("throughout", class_weights=[0.1, 5.0], late_share=0.0)
    assert losses(with_weights)[0] != losses(without)[0]
    assert losses(with_weights)[:3] == losses(throughout)[:3]
    assert losses(with_weights)[3:] != losses(throughout)[3:]


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass with each look at the clock of the budget, by one each."""
    now = [0.0]

    def tick():
        now[0] += 1
        return now[0]

    monkeypatch.setattr("monai_unetpp.training.budget.time", SimpleNamespace(monotonic=tick))
    return now


@pytest.mark.slow
def test_an_interrupted_training_ends_like_one_that_was_not(train, discs_dir, tmp_path):
    config, whole = train("whole", **RECIPE)
    with pytest.MonkeyPatch.context() as patched:
        original = patches_module.NumberedPatches.__getitem__

        def stop(self, index):
            if index == 9:
                raise KeyboardInterrupt
            return original(self, index)

        patched.setattr(patches_module.NumberedPatches, "__getitem__", stop)
        with pytest.raises(KeyboardInterrupt):
            train("parts", **RECIPE)
    assert not (tmp_path / "parts" / "model.pt").exists()
    _, parts = train("parts", **RECIPE)
    assert are_equal(weights(whole), weights(parts))
    assert rates(whole) == rates(parts)
    # when it is looked at depends on the time that this takes; what was seen before the interruption is kept
    first = [(folder / "levels.csv").read_text().splitlines()[:2] for folder in (whole, parts)]
    assert first[0] == first[1]
    # what is kept are the averaged weights, which are not those of the last step
    network = config.parse("network").state_dict()
    assert not are_equal(weights(whole), network)
    assert are_equal(weights(whole), config.parse("average").averaged.state_dict())


@pytest.mark.slow
def test_the_cases_of_the_weights_are_recorded_beside_them(train, discs_dir, caplog):
    entries = load_datalist(discs_dir, "training")
    first, second = ({"train#cases#data": part} for part in (entries[:3], entries[2:]))
    _, folder = train("first", **first)
    whole = TrainingRecord.of(entries, rule="last")
    assert find_training_record(folder / "model.pt") == TrainingRecord.of(entries[:3], rule="last")
    # what the weights started from was trained on cases too
    _, later = train("later", init=str(folder / "model.pt"), ema=0.04, **second)
    record = find_training_record(later / "model.pt")
    assert (record.training, record.rule) == (whole.training, "last, averaged")
    with (later / "model.pt").open("ab") as file:
        file.write(b"other weights")
    assert find_training_record(later / "model.pt") is None
    _, without = train("without", record_cases=False)
    assert find_training_record(without / "model.pt") is None
    entries[0]["image"] = str(discs_dir / "missing.nii.gz")
    saver = LastModelSaver(torch.nn.Linear(1, 1), folder / "other.pt", entries)
    saver(Engine(lambda engine, batch: None))
    assert "other.pt: the training cases were not recorded (" in caplog.text
    assert (folder / "other.pt").is_file()


@pytest.mark.slow
def test_curves_are_written_while_it_runs_and_observe_only(train):
    _, watched = train("watched", observed_cases=2, observed_seconds=0)
    _, alone = train("alone")
    rows = list(csv.DictReader((watched / "levels.csv").open()))
    assert list(rows[0]) == ["step", "L1", "L2"]
    assert rows[0]["step"] == "2"
    assert all(0 <= float(row[level]) <= 1 for row in rows for level in ("L1", "L2"))
    assert (watched / "training.png").read_bytes().startswith(b"\x89PNG")
    assert list((watched / "tensorboard").iterdir())
    assert not (alone / "levels.csv").exists()
    assert are_equal(weights(watched), weights(alone))


@pytest.mark.slow
def test_a_look_that_memory_does_not_suffice_for_is_the_last(train, monkeypatch, caplog):
    looks = []

    def fail(self):
        looks.append(self.network.eval())
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(LevelCurves, "_score", fail)
    config, folder = train("tight", observed_cases=2, observed_seconds=0)
    assert len(looks) == 1
    assert config.parse("train#levels").network.training
    assert caplog.text.count("too little memory to score whole cases") == 1
    assert len(losses(folder)) == 6
    assert not (folder / "levels.csv").exists()


@pytest.mark.slow
def test_minutes_end_a_training_with_its_learning_rate_down(train, clock):
    # a second for each step, and one for the start
    config, folder = train("timed", steps=1000, minutes=20.5 / 60, checkpoint_steps=4)
    steps = rates(folder)
    assert len(steps) == 21
    assert max(steps) == pytest.approx(1e-3, rel=0.03)
    assert steps[-1] < 0.02 * max(steps)
    assert config.parse("pace").seconds == 21
    assert (folder / "model.pt").is_file()


@pytest.mark.slow
def test_an_interrupted_training_has_the_time_that_was_left(train, clock):
    with pytest.MonkeyPatch.context() as patched:
        original = patches_module.NumberedPatches.__getitem__

        def stop(self, index):
            if index == 2 * 13:
                raise KeyboardInterrupt
            return original(self, index)

        patched.setattr(patches_module.NumberedPatches, "__getitem__", stop)
        with pytest.raises(KeyboardInterrupt):
            train("timed", steps=1000, minutes=20.5 / 60, checkpoint_steps=4)
    # from the checkpoint after step 12 on, whatever passed since
    clock[0] += 1000
    _, folder = train("timed", steps=1000, minutes=20.5 / 60, checkpoint_steps=4)
    assert len(rates(folder)) == 21
    assert rates(folder)[-1] < 0.02 * max(rates(folder))


def test_without_minutes_the_schedule_is_that_of_monai():
    def factors(make):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule, found = make(optimizer), []
        for _ in range(50):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return found

    ours = factors(lambda optimizer: BudgetedCosineSchedule(optimizer, TrainingBudget(50)))
    assert ours == factors(
        lambda optimizer: WarmupCosineSchedule(optimizer, round(0.05 * 50), 50, warmup_multiplier=0.1)
    )


def test_a_slow_first_step_leaves_time_for_the_learning_rate_to_rise(monkeypatch):
    """As where torch.compile takes a tenth of the minutes."""
    budget = TrainingBudget(1000, minutes=1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = BudgetedCosineSchedule(optimizer, budget)
    trainer = Engine(lambda engine, batch: None)
    trainer.state.iteration, clock = 1, [0.0]
    monkeypatch.setattr("monai_unetpp.training.budget.time", SimpleNamespace(monotonic=lambda: clock[0]))
    clock[0] = 6.0
    budget(trainer)
    rates = [schedule.lr_lambda(1)]
    for seconds in (7.5, 9.0, 10.0):
        clock[0], trainer.state.iteration = seconds, trainer.state.iteration + 1
        budget(trainer)
        rates.append(schedule.lr_lambda(trainer.state.iteration))
        # it goes on so after an interruption
        resumed = TrainingBudget(1000, minutes=1)
        resumed.load_state_dict(budget.state_dict())
        again = BudgetedCosineSchedule(optimizer, resumed).lr_lambda(trainer.state.iteration)
        assert again == pytest.approx(rates[-1])
    assert rates[:2] == pytest.approx([0.118, 0.55])
    assert all(0.93 < rate < 1 for rate in rates[2:])


def test_a_resumed_training_knows_how_many_processes_it_had(monkeypatch):
    states, found = [{"seconds": 1.0}], []
    for count in (2, 2, 1):
        monkeypatch.setattr("monai_unetpp.training.budget.process_count", lambda count=count: count)
        budget = TrainingBudget(100)
        budget.load_state_dict(states[-1])
        found.append(budget.processes)
        states.append(budget.state_dict())
    assert found == [[2], [2], [2, 1]]


def test_the_time_that_is_left():
    budget = TrainingBudget(100, minutes=10)
    assert math.isnan(budget.remaining_s(0))
    budget.load_state_dict({"seconds": 60.0})
    assert budget.remaining_s(5) == pytest.approx(540)
    # with few steps left, training ends before its time
    assert budget.remaining_s(75) == pytest.approx(20)


def test_preparing_cases_takes_time_from_the_minutes_but_not_all():
    budget = TrainingBudget(100, minutes=10)
    budget.count_preparation(240.0)
    budget.seconds = 180.0
    assert budget.position(0) == pytest.approx(50)
    resumed = TrainingBudget(100, minutes=10)
    # what the first session took, not this one
    resumed.count_preparation(5.0)
    resumed.load_state_dict(budget.state_dict())
    assert resumed.position(0) == pytest.approx(50)
    budget.count_preparation(10_000.0)
    assert budget.position(0) == pytest.approx(100 * 180 / 60)
    # steps alone have no clock
    by_steps = TrainingBudget(100)
    by_steps.count_preparation(240.0)
    assert by_steps.position(3) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainingBudget(0), "steps must be 1 or more, got 0"),
        (lambda: TrainingBudget(5, minutes=0), "minutes must be above 0, got 0"),
        (lambda: WeightAverage(torch.nn.Linear(1, 1), 1.0), "share must lie between 0 and 1, got 1.0"),
        (lambda: WeightAverage(torch.nn.Linear(1, 1), 0.1, least=0), "least must lie between 0 and 1, got 0"),
        (lambda: LevelCurves(None, (), None, None, ".", share=0), "share must lie between 0 and 1, got 0"),
    ],
)
def test_values_that_cannot_work_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_average_reaches_back_over_a_share_of_the_steps():
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    average = WeightAverage(network, share=0.5)
    engine = Engine(lambda engine, batch: torch.nn.init.constant_(network.weight, engine.state.iteration))
    average.attach(engine)
    engine.run([0, 0])
    # momentum 1 / 1.5, then 1 / 2
    first = 1 / 1.5
    assert average.averaged.weight.item() == pytest.approx(first * 0.5 + 2 * 0.5)
    assert WeightAverage(network).averaged is network
    assert WeightAverage(network).state_dict() == {}


def test_where_nothing_can_be_compiled_training_goes_on(monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setattr(torch, "compile", fail)
    network = NestedUNet(3, 1, 2, features=(2, 4))
    keys = list(network.state_dict())
    with caplog.at_level(logging.WARNING):
        assert accelerate(network, channels_last=True, compile=True) is network
    assert "without torch.compile, which does not work here (no C++ compiler)" in caplog.text
    assert list(network.state_dict()) == keys
    assert len(network(torch.rand(1, 1, 8, 8, 8))) == 1


def test_the_layout_stays_once_a_network_is_wrapped_for_several_processes():
    """Its gradients would come back from the other processes in another order."""
    network = NestedUNet(2, 1, 2, features=(2, 4))
    strides = [weight.stride() for weight in network.parameters()]
    wrapped = DistributedDataParallel.__new__(DistributedDataParallel)
    torch.nn.Module.__init__(wrapped)
    wrapped.module = network
    assert accelerate(wrapped, channels_last=True) is wrapped
    assert [weight.stride() for weight in network.parameters()] == strides
    accelerate(network, channels_last=True)
    assert [weight.stride() for weight in network.parameters()] != strides


@pytest.mark.slow
def test_an_accelerated_training_keeps_plain_weights(train, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **settings: compiled.append((self, settings)))
    config, fast = train("fast", channels_last=True, compile=True)
    _, plain = train("plain")
    assert compiled == [(config.parse("network"), {"dynamic": False})]
    assert weights(fast).keys() == weights(plain).keys()
    assert all(value.is_contiguous() for value in weights(fast).values())
    assert losses(fast)[0] == pytest.approx(losses(plain)[0], rel=1e-4)


def test_dice_of_a_label_by_hand():
    label = torch.tensor([[0, 1, 1, 3]])
    logits = torch.nn.functional.one_hot(torch.tensor([[0, 1, 2, 2]]), 3).movedim(-1, 0).float()
    # class 1: 1 of 2 and 1; class 2: one voxel that nobody labelled does not count, the other is wrong
    assert dice_of_classes(logits, label, 3) == pytest.approx([2 / 3, 0])
    assert dice_of_classes(logits[:2], torch.tensor([[0, 1, 0, 0]]), None) == [1.0]
    # one channel: two voxels are found, and one of them is right
    assert dice_of_classes(torch.tensor([[[-1.0, 2.0, 0.5, -3.0]]]), torch.tensor([[0, 1, 0, 3]]), 3) == [
        pytest.approx(2 / 3)
    ]
    # neither there nor found
    assert dice_of_classes(torch.eye(1, 3).reshape(3, 1, 1), torch.tensor([[0]]), None) == []


def test_processes_share_the_patches_of_a_step(monkeypatch):
    found = {}
    for rank in (0, 1):
        monkeypatch.setattr(patches_module, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(patches_module, "process_count", lambda: 2)
        sampler = RemainingPatches(length=6, batch_size=2)
        engine = Engine(lambda engine, batch: None)
        sampler.attach(engine)
        engine.state.iteration = 1
        found[rank] = list(sampler)
    # of the twelve patches of three steps, the first step took four
    assert found == {0: [4, 6, 8, 10], 1: [5, 7, 9, 11]}


def test_whole_cases_are_not_scored_where_the_time_would_not_suffice(tmp_path, monkeypatch):
    budget, looks = TrainingBudget(100, minutes=1), []
    curves = LevelCurves(None, ({},), None, None, tmp_path, budget=budget)
    for name, instead in (("_score_if_possible", lambda: looks.append(1)), ("_draw", lambda: None)):
        monkeypatch.setattr(curves, name, instead)
    monkeypatch.setattr(curves, "_tell_board", lambda *_: None)
    curves._ended, curves._took = -1e9, 20.0
    budget.seconds = 45.0
    curves(None)
    assert (budget.left_s, looks) == (15.0, [])
    budget.seconds = 30.0
    curves(None)
    assert looks == [1]
    assert TrainingBudget(100).left_s == math.inf

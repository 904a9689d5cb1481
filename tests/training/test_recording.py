import csv
import errno
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, MeanDice, ValidationHandler, from_engine
from monai.losses import DiceCELoss
from monai.optimizers import WarmupCosineSchedule
from monai.transforms import AsDiscreted
from torch.utils.data import DataLoader

from monai_unetpp import NestedDeepSupervisionLoss, NestedUNet
from monai_unetpp.bundles.training_record import TrainingRecord, find_training_record
from monai_unetpp.data import load_datalist
from monai_unetpp.training.recording import BestModelSaver, CurveWriter, TrainingCheckpoint
from monai_unetpp.training.steps import StepCurve


def make_training(folder, epochs, make_schedule=None):
    """A tiny training with everything attached; its data come from one generator, so runs can be compared."""
    torch.manual_seed(1)
    network = NestedUNet(2, 1, 2, features=(2, 4, 4))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    if make_schedule is None:
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    else:
        schedule = make_schedule(optimizer)
    image = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    batches = [{"image": image, "label": (image > 0.5).float()}] * 2
    best = BestModelSaver(network, folder / "model.pt")
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=batches,
        network=network,
        postprocessing=AsDiscreted(keys=["pred", "label"], argmax=[True, False], to_onehot=2),
        key_val_metric={"val_mean_dice": MeanDice(output_transform=from_engine(["pred", "label"]))},
        val_handlers=[best],
    )
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=batches,
        network=network,
        optimizer=optimizer,
        loss_function=NestedDeepSupervisionLoss(DiceCELoss(softmax=True, to_onehot_y=True)),
        train_handlers=[
            LrScheduleHandler(schedule, print_lr=False),
            ValidationHandler(2, evaluator),
            CurveWriter(folder / "curves.csv", evaluator, optimizer),
            TrainingCheckpoint(
                folder, {"network": network, "optimizer": optimizer, "schedule": schedule, "best_model": best}
            ),
        ],
    )
    return trainer, evaluator, network, best


def test_the_cases_of_the_best_weights_are_recorded_beside_them(discs_dir, tmp_path):
    training, selecting = (load_datalist(discs_dir, key) for key in ("training", "validation"))
    saver = BestModelSaver(torch.nn.Linear(1, 1), tmp_path / "model.pt", training, selecting)
    engine = Engine(lambda engine, batch: None)
    engine.state.key_metric_name, engine.state.metrics = "dice", {"dice": 0.5}
    saver(engine)
    expected = TrainingRecord.of(training, selecting, rule="best on validation")
    assert find_training_record(tmp_path / "model.pt") == expected
    assert len(expected.selecting) == len(selecting)


def read_curves(folder):
    with (folder / "curves.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(tmp_path):
    whole, *_, network, _ = make_training(tmp_path / "whole", 4)
    whole.run()
    make_training(tmp_path / "parts", 2)[0].run()
    resumed, *_, resumed_network, best = make_training(tmp_path / "parts", 4)
    resumed.run()
    assert resumed.state.epoch == 4
    assert resumed.state.iteration == whole.state.iteration
    assert best.best_epoch > 0
    for ours, theirs in zip(resumed_network.parameters(), network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert read_curves(tmp_path / "parts") == read_curves(tmp_path / "whole")


def test_curves_hold_one_row_per_epoch(tmp_path):
    make_training(tmp_path, 3)[0].run()
    rows = read_curves(tmp_path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert all(math.isfinite(float(row["train_loss"])) for row in rows)
    assert [bool(row["val_mean_dice"]) for row in rows] == [False, True, False]


def make_checkpoints(data_dir, folder, epochs=1, key="training"):
    """Epochs that train nothing on the cases of a list, as the bundles' trainers keep them."""
    cases = Dataset(Dataset(load_datalist(data_dir, key)), lambda case: torch.zeros(1))
    network = torch.nn.Linear(1, 1)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(cases, batch_size=None),
        network=network,
        optimizer=torch.optim.SGD(network.parameters()),
        loss_function=torch.nn.MSELoss(),
        iteration_update=lambda engine, batch: {"loss": 0.0},
        train_handlers=[TrainingCheckpoint(folder, {"network": network})],
    )
    trainer.run()
    return trainer


def test_a_training_goes_on_with_its_own_cases_only(discs_dir, tmp_path):
    folder = tmp_path / "training"
    make_checkpoints(discs_dir, folder)
    with pytest.raises(ValueError, match=r"checkpoint_epoch=1\.pt: comes from a training on other cases: \d+ im"):
        make_checkpoints(discs_dir, folder, 2, "validation")
    moved = shutil.copytree(discs_dir, tmp_path / "moved")
    assert make_checkpoints(moved, folder, 2).state.epoch == 2
    content = json.loads((moved / "dataset.json").read_text())
    left_out = content["training"].pop()
    (moved / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"1 image more or fewer, such as {Path(left_out['image']).name}"):
        make_checkpoints(moved, folder, 3)


@pytest.mark.slow
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog):
    make_training(tmp_path, 2)[0].run()
    (tmp_path / "checkpoint_epoch=2.pt").write_bytes(b"half a file")
    trainer, *_ = make_training(tmp_path, 3)
    with caplog.at_level("INFO"):
        trainer.run()
    assert "epoch=2.pt cannot be read" in caplog.text
    assert "continues after epoch 1" in caplog.text
    assert trainer.state.epoch == 3


@pytest.mark.slow
def test_damaged_checkpoints_of_later_epochs_do_not_count_as_the_latest(tmp_path):
    """As a full disk leaves them: good ones would be removed in their favour, also those that the saver counts."""
    make_training(tmp_path, 1)[0].run()
    for epoch in (3, 8, 9):
        (tmp_path / f"checkpoint_epoch={epoch}.pt").write_bytes(b"half a file")
    make_training(tmp_path, 5)[0].run()
    assert {path.name for path in tmp_path.glob("*.pt")} >= {"checkpoint_epoch=4.pt", "checkpoint_epoch=5.pt"}
    assert len(list(tmp_path.glob("*.pt.damaged"))) == 3


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left"), RuntimeError("PytorchStreamWriter failed writing file data/3")]
)
def test_a_full_disk_is_told_with_the_file_of_the_checkpoint(error, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match=r"epoch=1\.pt: cannot be written \(.*space.*\)\. Free space there, or"):
        make_training(tmp_path / "checkpoints", 1)[0].run()


@pytest.mark.slow
def test_old_checkpoints_do_not_pile_up(tmp_path):
    make_training(tmp_path, 2)[0].run()
    make_training(tmp_path, 4)[0].run()
    assert sorted(path.name for path in tmp_path.glob("checkpoint*")) == [
        "checkpoint_epoch=3.pt",
        "checkpoint_epoch=4.pt",
    ]


def test_only_a_better_model_replaces_the_best(tmp_path):
    trainer, evaluator, network, best = make_training(tmp_path, 2)
    trainer.run()
    saved = (tmp_path / "model.pt").read_bytes()
    best.best_metric = 2.0
    evaluator.run()
    assert (tmp_path / "model.pt").read_bytes() == saved
    best.best_metric = -1.0
    with torch.no_grad():
        next(network.parameters()).add_(1.0)
    evaluator.run(7)
    assert best.best_epoch == 7
    loaded = NestedUNet.from_checkpoint(tmp_path / "model.pt")
    assert torch.equal(next(loaded.parameters()), next(network.parameters()))


def test_the_best_metric_survives_a_restart(tmp_path):
    *_, best = make_training(tmp_path, 1)
    best.best_metric, best.best_epoch = 0.9, 5
    *_, other = make_training(tmp_path, 1)
    other.load_state_dict(best.state_dict())
    assert (other.best_metric, other.best_epoch) == (0.9, 5)


def test_a_checkpoint_beyond_the_last_epoch_is_an_error(tmp_path):
    make_training(tmp_path, 3)[0].run()
    with pytest.raises(ValueError, match=r"has done 6 steps in epochs of 2, and 2 epochs of 2 were asked for\. Go on"):
        make_training(tmp_path, 2)[0].run()


@pytest.mark.slow
def test_more_epochs_get_the_learning_rates_of_the_longer_schedule(tmp_path):
    def cosine(epochs):
        return lambda optimizer: WarmupCosineSchedule(optimizer, warmup_steps=1, t_total=epochs, warmup_multiplier=0.1)

    make_training(tmp_path / "whole", 6, cosine(6))[0].run()
    make_training(tmp_path / "parts", 2, cosine(2))[0].run()
    assert float(read_curves(tmp_path / "parts")[-1]["learning_rate"]) == 0
    make_training(tmp_path / "parts", 6, cosine(6))[0].run()
    rates = [[float(row["learning_rate"]) for row in read_curves(tmp_path / name)] for name in ("whole", "parts")]
    assert rates[1][2:] == pytest.approx(rates[0][2:])
    assert rates[1][-1] == 0
    assert rates[1][2] > 0.005


def test_the_gradient_scaler_is_kept(tmp_path):
    """MONAI's trainers make their scaler when they are run; here it is one that also works without a GPU."""
    scales = []
    for epochs, scale in ((1, 4.0), (2, 1024.0)):
        trainer, *_ = make_training(tmp_path / str(epochs), epochs)
        trainer.amp = True
        trainer.add_event_handler(Events.STARTED, set_scaler, scale)
        TrainingCheckpoint(tmp_path / "scaled", {}).attach(trainer)
        trainer.add_event_handler(Events.STARTED, lambda engine: scales.append(engine.scaler.get_scale()))
        trainer.run()
    assert scales == [4.0, 4.0]


def set_scaler(engine, scale):
    engine.scaler = torch.amp.GradScaler("cpu", init_scale=scale)


@pytest.mark.parametrize("decollate", [True, False])
def test_the_curve_by_step_needs_whole_batches(decollate, tmp_path):
    network = NestedUNet(2, 1, 2, features=(2, 4, 4))
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    loss = NestedDeepSupervisionLoss(DiceCELoss(softmax=True, to_onehot_y=True))
    curve = StepCurve(tmp_path / "curve.csv", loss, optimizer)
    batches = [{"image": torch.rand(2, 1, 8, 8), "label": torch.ones(2, 1, 8, 8)}]
    trainer = SupervisedTrainer(
        torch.device("cpu"), 1, batches, network, optimizer, loss, decollate=decollate, train_handlers=[curve]
    )
    if decollate:
        with pytest.raises(TypeError, match=r"must be a dict of the whole batch .* got list\. Give .* decollate=False"):
            trainer.run()
    else:
        trainer.run()
        assert len(curve.losses) == 1

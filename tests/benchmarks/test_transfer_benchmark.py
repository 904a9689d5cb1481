"""What weights of another bundle bring: trained twice on some cases, scored alike."""

import functools
import json

import pytest
import torch
from disc_images import write_disc_images
from tiny_planning import TINY, slow_machine

from benchmarks import transfer
from benchmarks.transfer import Transfer, format_transfers, main
from monai_unetpp import NestedUNet

FEATURES = TINY["features"]


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """The arguments for six steps on tiny images, and the weights of another network."""
    data = tmp_path / "data"
    data.mkdir()
    write_disc_images(data, training=4, validation=2)
    monkeypatch.setattr(transfer, "plan", functools.partial(transfer.plan, device="cpu", measure=slow_machine))
    source = tmp_path / "source.pt"
    torch.manual_seed(5)
    torch.save(NestedUNet(2, 1, 3, features=FEATURES).state_dict(), source)
    settings = [f"--set={key}={json.dumps(value)}" for key, value in TINY.items() if key != "steps"]
    return [str(data), str(source), "--work", str(tmp_path / "work"), "--steps", "6", *settings]


@pytest.mark.slow
def test_the_same_cases_from_other_weights(asked, tmp_path, monkeypatch, capsys):
    trained = []
    fit = transfer.fit

    def record(bundle, folder, values, tell, *, name, cases):
        trained.append((folder.name, values["init"], [case["image"] for case in cases]))
        return fit(bundle, folder, values, tell, name=name, cases=cases)

    monkeypatch.setattr(transfer, "fit", record)
    assert main([*asked, "--cases", "2", "4", "-o", str(tmp_path / "table.md")]) == 0
    source = str(tmp_path / "source.pt")
    assert [each[:2] for each in trained] == [
        ("transferred_2", source),
        ("fresh_2", None),
        ("transferred_4", source),
        ("fresh_4", None),
    ]
    assert [len(cases) for *_, cases in trained] == [2, 2, 4, 4]
    assert trained[0][2] == trained[1][2]
    text = (tmp_path / "table.md").read_text()
    assert text == capsys.readouterr().out
    rows = [line for line in text.splitlines() if line.startswith(("| 2 |", "| 4 |"))]
    assert [row.split("|")[2].strip() for row in rows] == ["source.pt", "random", "difference, 95 % interval"] * 2
    # what is done is kept
    assert main([*asked, "--cases", "2"]) == 0


@pytest.mark.slow
def test_more_cases_than_there_are(asked, capsys):
    with pytest.raises(SystemExit):
        main([*asked, "--cases", "5"])
    assert "--cases must be from 1 to 4, got 5." in capsys.readouterr().err


def test_the_table_holds_means_and_paired_differences():
    better, worse = {"L1": {"a": 0.6, "b": 0.8}}, {"L1": {"a": 0.5, "b": 0.7}}
    text = format_transfers([Transfer(3, better, worse)], "discs", "brain", 7)
    assert text.startswith("`discs`, 2 unseen cases, 7 steps, ")
    assert "| 3 | brain | 0.7000 |" in text
    assert "| 3 | random | 0.6000 |" in text
    assert "+0.1000 (+0.1000 to +0.1000)" in text

"""What is shown of errors."""

import json
import sys

import pytest
from monai.bundle import ConfigWorkflow

from monai_unetpp.errors import printable, tell_cause_last


@pytest.fixture
def hook(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "excepthook", lambda *error: shown.append(error))
    tell_cause_last()
    tell_cause_last()
    return shown


def test_what_a_bundle_refuses_comes_after_the_traceback_of_monai(tmp_path, monkeypatch, capsys):
    (tmp_path / "dataset.json").write_text('{"training": 3}')
    monkeypatch.setattr(sys, "excepthook", lambda *error: sys.stderr.write(f"{error[1]}\n"))
    config = {
        "check": {"_target_": "monai_unetpp.data.check_labelled_data", "dataset_dir": str(tmp_path)},
        "initialize": [{"_target_": "monai_unetpp.errors.tell_cause_last"}, "$@check"],
    }
    (tmp_path / "train.json").write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match=r"^Failed to ") as caught:
        ConfigWorkflow(str(tmp_path / "train.json"), workflow_type="train").initialize()
    sys.excepthook(caught.type, caught.value, caught.tb)
    first, *_, last = capsys.readouterr().err.strip().splitlines()
    assert first.startswith("Failed to ")
    assert last == f"{tmp_path}/dataset.json: the list 'training' must be a list of cases, got 3. Correct it."


def test_other_errors_are_shown_once(hook, capsys):
    error = ValueError("wrong")
    error.__cause__ = KeyError("a")
    sys.excepthook(ValueError, error, None)
    assert [each[1] for each in hook] == [error]
    assert capsys.readouterr().err == ""


def test_shown_names_have_one_line():
    assert printable("a\n\tb\udcff\x1b[2Jä.png") == r"a\n\tb\udcff\x1b[2Jä.png"

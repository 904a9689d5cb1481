"""Data sets of boxes that many tests of pruning judge on, and what takes long left out."""

from pathlib import Path

import pytest
from tiny_pruning import fake_costs, write_boxes

from monai_unetpp.pruning import evaluation, evaluation_stages
from monai_unetpp.pruning.report import report_files, worst_cases
from monai_unetpp.pruning.scoring import case_scores


@pytest.fixture(scope="session")
def boxes(tmp_path_factory):
    """Twenty cases: enough for a verdict."""
    return write_boxes(tmp_path_factory.mktemp("data") / "boxes", 20)


@pytest.fixture(scope="session")
def few_boxes(tmp_path_factory):
    """Three cases: too few for a verdict."""
    return write_boxes(tmp_path_factory.mktemp("data") / "few", 3, seed=1)


@pytest.fixture
def quick(monkeypatch):
    """Without what takes long and other tests look at: costs and pictures."""
    monkeypatch.setattr(evaluation_stages, "measure_costs", fake_costs)
    monkeypatch.setattr(worst_cases, "save_overlay", lambda *args, **_: args[5].write_bytes(b""))
    monkeypatch.setattr(evaluation, "write_report", lambda result, folder: {"html": Path(folder) / "report.html"})


@pytest.fixture
def without_page(monkeypatch):
    """Without costs, pictures and the page; the other files of the report are written."""
    monkeypatch.setattr(evaluation_stages, "measure_costs", fake_costs)
    monkeypatch.setattr(evaluation, "save_worst_cases", lambda *_: ())
    monkeypatch.setattr(report_files, "_html", lambda *_: "")


@pytest.fixture
def scored(monkeypatch):
    """Cases that a network is run on for their scores, with the overlap of the windows."""
    found = []
    score_source = case_scores.CaseEvaluation.score_source

    def counting(run, case, source):
        found.append((case.name, run.pipeline.inferer.overlap))
        return score_source(run, case, source)

    monkeypatch.setattr(case_scores.CaseEvaluation, "score_source", counting)
    return found

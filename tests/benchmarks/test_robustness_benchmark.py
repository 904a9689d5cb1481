"""What becomes of hostile and odd inputs: the check itself, and the kinds that are quick."""

import dataclasses
import json

import pytest

from benchmarks import robustness
from benchmarks.__main__ import main
from benchmarks.robustness import KINDS, format_robustness_benchmark, measure_robustness
from benchmarks.robustness.situations import READ, REFUSED, TOLD, WRONG, Kind, expect, expect_equal
from monai_unetpp.data.formats.grid import warn_once


def tried(tmp_path, attempt, outcome=READ, says=""):
    kind = Kind("Things")
    kind.add("a thing", attempt, outcome, says)
    (row,) = kind.try_all(tmp_path / "things")
    return row


def refuse(folder):
    raise ValueError(f"{folder}/a.nii: broken. Mend it.")


class TestCheck:
    def test_each_outcome_and_its_message_without_folders(self, tmp_path):
        row = tried(tmp_path, lambda folder: None)
        assert (row.situation, row.outcome, row.message) == ("a thing", READ, "")
        row = tried(tmp_path / "1", refuse, REFUSED, "broken")
        assert (row.outcome, row.message) == (REFUSED, "a.nii: broken. Mend it.")
        row = tried(tmp_path / "2", lambda folder: warn_once(f"{folder}/a.nii: odd."), TOLD, "odd")
        assert (row.outcome, row.message) == (TOLD, "a.nii: odd.")

    @pytest.mark.parametrize(
        ("attempt", "outcome", "says"),
        [
            (lambda folder: expect(False, "other voxels"), READ, ""),
            (lambda folder: expect_equal([1, 2], [1, 3]), READ, ""),
            (lambda folder: expect_equal([1, 2], [1, 2, 3]), READ, ""),
            (lambda folder: warn_once(f"{folder}/b.nii: odd."), READ, ""),
            (lambda folder: None, REFUSED, "broken"),
            (refuse, READ, ""),
            (refuse, REFUSED, "another reason"),
            (lambda folder: int("x"), REFUSED, "invalid"),
            (lambda folder: {}["key"], REFUSED, "key"),
        ],
        ids=range(9),
    )
    def test_anything_else_is_wrong(self, tmp_path, attempt, outcome, says):
        assert tried(tmp_path, attempt, outcome, says).outcome == WRONG

    def test_a_message_that_names_no_file_is_wrong(self, tmp_path):
        def attempt(folder):
            raise ValueError("something is broken.")

        assert tried(tmp_path, attempt, REFUSED, "broken").outcome == WRONG


@pytest.fixture(scope="module")
def result():
    return measure_robustness(kinds=("pictures", "labelled"))


@pytest.mark.slow
def test_nothing_is_wrong(result):
    assert [row for row in result.rows if row.outcome == WRONG] == []
    assert not result.failed
    assert {row.outcome for row in result.rows} == {READ, TOLD, REFUSED}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("pictures", "labelled")])
def test_nothing_is_wrong_of_the_kinds_that_segment(kind):
    assert [row for row in measure_robustness(kinds=(kind,)).rows if row.outcome == WRONG] == []


@pytest.mark.slow
def test_the_document_has_every_situation_and_its_limits(result):
    text = format_robustness_benchmark(result)
    assert text.startswith("# Unusual and hostile inputs\n")
    assert "python -m benchmarks robustness --device cpu -o docs/robustness.md" in text
    assert sum(line.startswith("| ") for line in text.splitlines()) == len(result.rows) + 2 * 2
    assert "## What this page does not cover" in text
    assert result.environment.date in text


@pytest.mark.slow
@pytest.mark.parametrize("outcome", [READ, WRONG])
def test_the_exit_code_tells_what_is_wrong_and_the_text_is_kept_as_such(result, outcome, monkeypatch, tmp_path, capsys):
    (kind, *_) = result.kinds
    changed = dataclasses.replace(kind, rows=(dataclasses.replace(kind.rows[0], outcome=outcome),))
    given = dataclasses.replace(result, kinds=(changed,))
    monkeypatch.setattr(robustness, "measure_robustness", lambda **options: given)
    assert main(["robustness", "--device", "cpu", "-o", str(tmp_path / "r.md")]) == (outcome == WRONG)
    assert (tmp_path / "r.md").read_text() == capsys.readouterr().out
    main(["robustness", "--device", "cpu", "-o", str(tmp_path / "r.json")])
    assert json.loads((tmp_path / "r.json").read_text())["kinds"][0]["rows"][0]["outcome"] == outcome


def test_another_device_is_refused_in_one_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["robustness", "--device", "meta"])
    assert "error: device must be" in capsys.readouterr().err.splitlines()[-1]

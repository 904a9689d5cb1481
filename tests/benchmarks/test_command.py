"""What the commands of the benchmarks share."""

import argparse

import pytest

from benchmarks.command import claim_work, offer_table, run_command


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counting")
    parser.add_argument("--count", type=int, default=2)
    offer_table(parser)
    return parser


def test_the_table_is_renewed_and_the_last_one_printed(parser, tmp_path, capsys):
    seen = []

    def work(count):
        for number in range(count):
            yield f"{number} of {count}"
            seen.append((tmp_path / "table.md").read_text())

    assert run_command(parser, ["-o", str(tmp_path / "table.md")], work) == 0
    assert seen == ["0 of 2\n", "1 of 2\n"]
    assert capsys.readouterr().out == "1 of 2\n"
    # nothing to print is no empty line
    assert run_command(parser, ["--count", "0"], work) == 0
    assert capsys.readouterr().out == ""


def test_what_cannot_work_is_told_in_one_line_and_what_is_a_bug_is_not(parser, capsys):
    def refuse(count):
        raise ValueError(f"count must be 9, got {count}. Give 9.")
        yield

    with pytest.raises(SystemExit, match="2"):
        run_command(parser, [], refuse)
    assert capsys.readouterr().err.splitlines()[-1].endswith("error: count must be 9, got 2. Give 9.")

    def fill_the_disk(count):
        yield "what was measured"
        raise OSError("the disk is full")

    with pytest.raises(SystemExit, match="2"):
        run_command(parser, [], fill_the_disk)
    assert capsys.readouterr().out == "what was measured\n"

    def break_down(count):
        yield str(int("two"))

    with pytest.raises(ValueError, match="invalid literal"):
        run_command(parser, [], break_down)


def test_a_run_goes_on_only_with_what_it_was_made_with(tmp_path):
    for _ in range(2):
        claim_work(tmp_path / "work", {"steps": 300, "source": "a"})
    with pytest.raises(ValueError, match=r"work: its results are those with steps 300, not 1500\. Give another --work"):
        claim_work(tmp_path / "work", {"steps": 1500, "source": "a"})

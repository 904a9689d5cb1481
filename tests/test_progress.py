"""Who is told how far a run is."""

import errno
import io
import logging
import sys
import time

import pytest

from monai_unetpp import progress as module
from monai_unetpp.progress import counting, silenced, teller, write_line

LOGGER = logging.getLogger("monai_unetpp.tried")


@pytest.mark.parametrize(("progress", "shown"), [(True, "one\ntwo\n"), (False, ""), (None, "")])
def test_lines_are_shown_on_standard_error_where_asked_for(progress, shown, capsys, caplog):
    caplog.set_level(logging.INFO)
    tell = teller(progress, LOGGER)
    tell("one")
    tell("two")
    assert capsys.readouterr() == ("", shown)
    assert caplog.messages == ["one", "two"]


def test_a_function_is_given_every_line(capsys):
    lines = []
    teller(lines.append, LOGGER)("100 %")
    with counting(lines.append, "scoring") as count:
        count(1, 3)
    assert lines == ["100 %", "scoring: 1 of 3"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (False, False), (None, False)])
def test_what_is_counted_is_a_bar_on_a_terminal(progress, shown, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with counting(progress, "scoring") as count:
        count(2, 3)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("scoring" in err and "2/3" in err) is shown


def test_a_line_is_written_now_and_then_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(module, "_LINE_S", 0.005)
    err = ""
    with counting(True, "scoring") as count:
        count(2, 3)
        for _ in range(1000):
            err += capsys.readouterr().err
            if "2 of 3" in err:
                break
            time.sleep(0.005)
    assert "scoring: 2 of 3 done, 0.0 min so far\n" in err


def test_what_ends_soon_is_told_without_a_line(capsys):
    with counting(True, "scoring") as count:
        count(1, 1)
    assert capsys.readouterr() == ("", "")


def test_nothing_is_shown_while_silenced(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with silenced(), counting(True, "scoring") as count:
        count(1, 1)
        teller(True, LOGGER)("one")
    assert capsys.readouterr() == ("", "")
    teller(True, LOGGER)("two")
    assert capsys.readouterr().err == "two\n"


def test_lines_stand_above_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with counting(True, "scoring") as count:
        count(1, 3)
        write_line("the header lies")
    before, after = capsys.readouterr().err.split("the header lies\n")
    assert before.endswith("\r")
    assert "scoring" in after


def test_of_lines_that_count_only_some_are_passed_on(monkeypatch):
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    lines = []
    tell = module.spaced(lines.append, 10)
    tell("begin")
    for done in range(1, 8):
        tell(f"scoring: {done} of 7")
        now += 4
    tell("end: 3 of 7 failed")
    assert lines == ["begin", *(f"scoring: {done} of 7" for done in (1, 4, 7)), "end: 3 of 7 failed"]


@pytest.mark.parametrize("terminal", [True, False])
def test_work_goes_on_where_its_terminal_is_closed(terminal, monkeypatch):
    closed = []

    class Terminal(io.StringIO):
        def isatty(self):
            return terminal

        def write(self, text):
            if closed:
                raise OSError(errno.EIO, "Input/output error")
            return super().write(text)

    monkeypatch.setattr(sys, "stderr", Terminal())
    with counting(True, "scoring") as count:
        closed.append(True)
        for done in range(3):
            time.sleep(0.11)  # a bar is drawn ten times a second at most
            count(done + 1, 3)
        teller(True, LOGGER)("one")

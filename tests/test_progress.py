"""Who is told how far a run is."""

import logging

import pytest

from monai_unetpp.progress import counting, teller

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
def test_what_is_counted_is_a_bar(progress, shown, capsys):
    with counting(progress, "scoring", "window") as count:
        count(2, 3)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("scoring" in err and "2/3" in err) is shown

"""One table for every medium."""

import pytest

from monai_unetpp.reporting.markdown import escape
from monai_unetpp.reporting.numbers import significant, time_unit
from monai_unetpp.reporting.tables import Table, TableCell


def test_cells_belong_to_columns_by_name():
    rows = [{"Level": "L1", "Dice": "0.9"}, {"Dice": None, "Level": TableCell("L2", "good")}]
    table = Table.of("Levels", rows, words=("Level",), notes=["", "A note."])
    assert table.columns == ("Level", "Dice")
    assert table.numeric == (False, True)
    assert table.rows[1] == (TableCell("L2", "good"), TableCell("\N{EN DASH}", "muted"))
    assert table.notes == ("A note.",)


def test_a_row_without_a_column_is_refused():
    with pytest.raises(KeyError, match="Dice"):
        Table.of("Levels", [{"Level": "L1", "Dice": "0.9"}, {"Level": "L2"}], words=())


def test_markdown():
    table = Table.of("A_B", [{"x|y": "a*b", "n": "1"}], words=("x|y",), marked=[0], notes=["<note>"])
    assert table.markdown().splitlines() == [
        "## A\\_B",
        "",
        "| x\\|y | n |",
        "| --- | ---: |",
        "| **a\\*b** | 1 |",
        "",
        "- &lt;note&gt;",
    ]


def test_lines_for_a_terminal():
    rows = [["a\nb", "1.5", None], ["long name", "10.5", "2"]]
    table = Table.of_rows("ignored", ["case", "ml", "ml"], rows, ["case"])
    assert table.text().split("\n") == [
        "case         ml  ml",
        "---------  ----  --",
        "a\\nb        1.5   \N{EN DASH}",
        "long name  10.5   2",
    ]


def test_text_stays_in_one_line():
    assert escape("a\nb") == "a b"


@pytest.mark.parametrize(("value", "text"), [(0.012345, "0.0123"), (1234.5, "1230"), (0, "0"), (-0.5, "-0.500")])
def test_significant_digits(value, text):
    assert significant(value) == text


@pytest.mark.parametrize(("seconds", "unit"), [([0.5, 0.2], "ms"), ([0.5, 1.0], "s"), ([], "s")])
def test_times_take_the_unit_of_the_longest(seconds, unit):
    assert time_unit(seconds)[0] == unit

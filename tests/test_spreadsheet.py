"""Cells that a spreadsheet would run."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_unetpp.spreadsheet import escape_cell, format_csv, read_cell, read_table


@pytest.mark.parametrize(
    "text", ["=cmd|' /C calc'!A0", "@SUM(1)", "+1+1", "-1+1", "\t=1", "\r=1", " =1", "\uff1d1", "'=1", "'t"]
)
def test_formulas_become_text(text):
    assert escape_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", [-1, -1.5, None, "-1.5", "+2e-3", "-inf", "", "liver", "a=b", "case-1", "1-2"])
def test_numbers_and_other_text_stay(value):
    assert escape_cell(value) is value


@pytest.mark.slow
@given(st.lists(st.lists(st.text(), min_size=2, max_size=2)))
def test_a_table_has_all_its_cells_and_no_formula(rows):
    text = format_csv(["=a", "b"], rows)
    read = list(csv.reader(io.StringIO(text, newline="")))
    lines = [[escape_cell(cell).replace("\r\n", "\n").replace("\r", "\n") for cell in row] for row in rows]
    assert read == [["'=a", "b"], *lines]
    for row in read:
        assert not any(cell[:1] in ("=", "@", "\t", "\r") for cell in row if cell)


@pytest.mark.slow
@given(st.text())
def test_what_was_escaped_is_read_back(text):
    assert read_cell(escape_cell(text)) == text


def test_a_missing_table_is_named_with_what_it_should_hold(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"/none\.csv: no such file\. Name the CSV file of subjects\."):
        read_table(tmp_path / "none.csv", ("case",), "subjects", "")


@pytest.mark.parametrize(
    "header", ["case;subject", "case\tsubject", '"case";"subject"', "sep=,\ncase,subject", "sep=;\ncase;subject"]
)
def test_a_table_that_a_spreadsheet_saved_otherwise_says_how_to_save_it(tmp_path, header):
    path = tmp_path / "table.csv"
    path.write_text(f"{header}\n", encoding="utf-8")
    remedy = r"Save it with commas and decimal points, and the names of the columns in the first line\.$"
    with pytest.raises(ValueError, match=f"with the column 'case', separated by commas, got .*{remedy}"):
        read_table(path, ("case", "subject"), "subjects", "Write these two.")
    path.write_text("name\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"got name\. Write these two\.$"):
        read_table(path, ("case", "subject"), "subjects", "Write these two.")

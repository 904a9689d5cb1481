"""Data lists in Decathlon form."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_unetpp.data import check_dataset, check_labelled_data, find_cases, find_ignore_label, load_datalist
from monai_unetpp.data.datasets.datalist import read_entries
from monai_unetpp.data.datasets.labelled import list_cases
from monai_unetpp.failures.examined_cases import choose_labels


def write_list(folder, count, **lists):
    entries = [
        {"image": f"./imagesTr/{number}.nii.gz", "label": f"./labelsTr/{number}.nii.gz"} for number in range(count)
    ]
    (folder / "dataset.json").write_text(json.dumps({"training": entries, **lists}))
    return entries


def test_a_drawn_validation_list_is_told_once_with_its_counts(tmp_path, caplog):
    write_list(tmp_path, 10)
    assert [len(load_datalist(tmp_path, key)) for key in ("training", "validation", "training")] == [8, 2, 8]
    told = "has no 'validation' list: 2 of its 10 cases were drawn for it, and 8 are left"
    assert (caplog.text.count(told), caplog.text.count("has no 'validation' list")) == (1, 1)


def test_the_same_cases_are_drawn_however_paths_are_written(tmp_path, monkeypatch):
    entries = write_list(tmp_path, 12)
    for entry in entries[::2]:
        entry["image"] = str(tmp_path / entry["image"])
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries}))

    def drawn(folder):
        return [Path(entry["image"]).name for entry in load_datalist(folder, "validation")]

    monkeypatch.chdir(tmp_path.parent)
    names = drawn(tmp_path)
    assert drawn(tmp_path.name) == names
    write_list(tmp_path, 12)
    assert drawn(tmp_path) == names


def test_a_given_validation_list_is_taken_in_silence(tmp_path, caplog):
    entries = write_list(tmp_path, 3)
    write_list(tmp_path, 3, validation=entries[:1])
    assert len(load_datalist(tmp_path, "validation")) == 1
    assert caplog.text == ""


def test_a_drawn_validation_list_keeps_subjects_together_as_they_are_given(tmp_path):
    entries = [{"image": f"{person}-{n}.nii.gz", "label": f"l/{person}{n}.nii.gz"} for person in "abcd" for n in "123"]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries}))
    lists = [load_datalist(tmp_path, key, subject_pattern="^(.)-") for key in ("training", "validation")]
    persons = [{case["subject"] for case in cases} for cases in lists]
    assert [len(found) for found in persons] == [3, 1]
    assert set.union(*persons) == set("abcd")
    with pytest.raises(ValueError, match=r"subject_pattern must match the name of every case, got '\(x\)', which does"):
        load_datalist(tmp_path, "training", subject_pattern="(x)")


def test_a_list_of_one_file_is_that_file_which_may_hold_all_channels(tmp_path):
    entries = [{"image": [f"{n}.nii"], "label": f"l/{n}.nii"} for n in range(5)]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries[:4], "validation": entries[4:]}))
    (case,) = load_datalist(tmp_path, "validation")
    assert case["image"] == str(tmp_path / "4.nii")


def test_a_subject_may_be_the_number_0(tmp_path):
    entries = [{"image": f"{n}.nii", "label": f"l/{n}.nii", "subject": n // 3} for n in range(9)]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries}))
    lists = [load_datalist(tmp_path, key) for key in ("training", "validation")]
    assert sorted(len(cases) for cases in lists) == [3, 6]
    assert {case["subject"] for cases in lists for case in cases} == {"0", "1", "2"}
    assert {case.subject for case in list_cases(entries)} == {"0", "1", "2"}
    unnamed = [{"image": entry["image"], "label": entry["label"]} for entry in entries]
    assert list_cases(unnamed, {str(n): n for n in range(9)})[0].subject == "0"


def test_a_drawn_validation_list_keeps_subjects_together_that_the_names_of_cases_tell(tmp_path):
    entries = [
        {"image": f"images/{2 * subject + scan}.nii.gz", "label": "l.nii.gz", "case": f"sub-{subject:02d}_scan{scan}"}
        for subject in range(12)
        for scan in range(2)
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries}))
    lists = [list_cases(load_datalist(tmp_path, key)) for key in ("training", "validation")]
    training, validation = ({case.subject for case in cases} for cases in lists)
    assert (len(training | validation), training & validation) == (12, set())


def drawn_counts(folder, *cases_of_subjects):
    """The numbers of cases of the subjects that are drawn for validation."""
    folder.mkdir()
    entries = [
        {"image": f"{subject}_{n}.nii", "label": f"l/{subject}_{n}.nii", "subject": str(subject)}
        for subject, count in enumerate(cases_of_subjects)
        for n in range(count)
    ]
    (folder / "dataset.json").write_text(json.dumps({"training": entries}))
    drawn, kept = ({case["subject"] for case in load_datalist(folder, key)} for key in ("validation", "training"))
    assert kept == {entry["subject"] for entry in entries} - drawn
    return sorted(cases_of_subjects[int(subject)] for subject in drawn)


def test_subjects_with_too_many_cases_are_not_drawn(tmp_path):
    for number, place in enumerate(([200, 20, 20], [20, 200, 20], [20, 20, 200])):
        assert set(drawn_counts(tmp_path / f"large_{number}", *place)) == {20}
    # where none can be, the one with the fewest is
    assert drawn_counts(tmp_path / "all", 34, 33, 33) == [33]
    assert drawn_counts(tmp_path / "alike", 4, 4) == [4]


def test_cases_of_as_many_subjects_are_drawn_as_ever(tmp_path):
    write_list(tmp_path, 12)
    assert [Path(case["image"]).name for case in load_datalist(tmp_path, "validation")] == ["1.nii.gz", "7.nii.gz"]


def test_only_image_and_label_are_paths(tmp_path):
    (tmp_path / "person").mkdir()
    entry = {"image": ["a.nii", "b.nii"], "label": "l.nii", "subject": "person", "fold": 3}
    (tmp_path / "dataset.json").write_text(json.dumps({"training": [entry], "validation": [entry]}))
    assert load_datalist(tmp_path, "training", label_key="truth") == [
        {
            "image": [str(tmp_path / "a.nii"), str(tmp_path / "b.nii")],
            "truth": str(tmp_path / "l.nii"),
            "subject": "person",
            "fold": 3,
        }
    ]


def test_listed_files_are_found_in_whatever_composed_characters(tmp_path):
    listed, stored = (unicodedata.normalize(form, "Jürgen") for form in ("NFC", "NFD"))
    names = [f"{stored}.nii.gz", f"{stored}2_0000.nii.gz", f"{stored}2_0001.nii.gz"]
    (tmp_path / stored).mkdir()
    for name in names:
        (tmp_path / stored / name).touch()
    paths = [f"{listed}/{listed}{number}.nii.gz" for number in ("", 2, 3)]
    entries = [{"image": path, "label": paths[0]} for path in paths] + [{"image": paths[:1], "label": paths[0]}]
    path = tmp_path / "dataset.json"
    found = read_entries(path, {"training": entries}, "training")
    first, *channels = (str(tmp_path / stored / name) for name in names)
    # of what is missing, the name is that of the list
    assert [case["image"] for case in found] == [first, channels, str(tmp_path / paths[2]), first]
    assert {case["label"] for case in found} == {first}
    assert [case["case"] for case in found] == [listed, f"{listed}2", f"{listed}3", listed]


def test_files_of_one_name_are_told_apart_by_their_folders_wherever_the_data_set_is(tmp_path):
    entries = [{"image": f"case_{n}/imaging.nii.gz", "label": f"case_{n}/segmentation.nii.gz"} for n in range(3)]
    other = {"image": "more/scan.nii.gz", "label": "more/label.nii.gz"}
    lists = {"training": [*entries[:2], other], "validation": entries[2:], "test": ["case_9/imaging.nii.gz"]}
    for folder in (tmp_path / "here", tmp_path / "case_0" / "there"):
        folder.mkdir(parents=True)
        (folder / "dataset.json").write_text(json.dumps(lists))
        listed = [entry for key in ("training", "validation") for entry in load_datalist(folder, key)]
        names = ["case_0_imaging", "case_1_imaging", "scan", "case_2_imaging"]
        # all have one: a batch needs entries with the same keys
        assert [entry["case"] for entry in listed] == names
        cases = list_cases(listed)
        assert [case.name for case in cases] == names
        assert list_cases([case.as_entry() for case in cases]) == cases
        assert [case["case"] for case in find_cases(folder, list_key="validation")] == names[3:]
        # nothing but segmentations is made of images without labels
        assert [case["case"] for case in find_cases(folder)] == ["imaging"]


def test_the_case_of_an_entry_is_its_name(tmp_path):
    entries = [{"image": f"{n}/T1.nii.gz", "label": f"{n}/l.nii.gz", "case": n} for n in range(2)]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries, "validation": entries[:1]}))
    assert [case.name for case in list_cases(load_datalist(tmp_path, "training"))] == ["0", "1"]
    assert [case["case"] for case in find_cases(tmp_path, list_key="training")] == ["0", "1"]
    entries[1]["case"] = "../a"
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries, "validation": entries[:1]}))
    with pytest.raises(ValueError, match=r"the 'case' of entry 1 of 'training' must be a name for files, got '\.\./a'"):
        load_datalist(tmp_path, "training")


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "null", '{"a": 1', "\ufeff[]", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"], ids=range(8)
)
def test_what_is_no_object_is_told_in_one_line(tmp_path, text):
    path = tmp_path / "dataset.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"dataset\.json: (cannot be read as JSON|must hold a JSON object)") as caught:
        load_datalist(tmp_path, "training")
    assert str(caught.value).count("\n") == 0
    assert check_dataset(tmp_path) == [str(caught.value)]
    assert refusal(lambda: find_cases(tmp_path)) == str(caught.value)


def test_a_byte_order_mark_is_passed_over_by_all(tmp_path):
    write_list(tmp_path, 3, validation=[])
    path = tmp_path / "dataset.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(load_datalist(tmp_path, "training")) == len(find_cases(tmp_path)) == 3


def test_bytes_that_are_no_text_and_folders_are_told_in_one_line(tmp_path):
    path = tmp_path / "dataset.json"
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match=r"dataset\.json: cannot be read as JSON"):
        load_datalist(tmp_path, "training")
    with pytest.raises(FileNotFoundError, match=r"dataset\.json/dataset\.json: no such file\. Name a folder with"):
        load_datalist(path, "training")
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=r"dataset\.json: cannot be read as JSON"):
        load_datalist(tmp_path, "training")


def refusal(read):
    """Why something cannot be read; empty if it can. Anything but a ValueError is a fault."""
    try:
        read()
    except ValueError as e:
        return str(e)
    return ""


STRINGS = st.text() | st.sampled_from(["a.nii.gz", "..", "\0", "\ud800"])
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | STRINGS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["image", "label", "0", "1", "ignore", "a"]) | st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)
CONTENTS = st.dictionaries(
    st.sampled_from(["training", "validation", "test", "labels", "numTraining", "channel_names", "name"]),
    JSON_VALUES | st.lists(st.dictionaries(st.sampled_from(["image", "label"]), JSON_VALUES), max_size=3),
    max_size=5,
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=JSON_VALUES | CONTENTS)
def test_any_json_is_read_or_told_in_one_line_that_names_the_file(tmp_path, content):
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    for problem in check_dataset(tmp_path):
        # a list may name any file
        assert str(tmp_path) in problem or problem.startswith("/")
        assert len(problem.splitlines()) == 1
    for read in (
        lambda: load_datalist(tmp_path, "training"),
        lambda: load_datalist(tmp_path, "validation"),
        lambda: find_ignore_label(tmp_path),
        lambda: check_labelled_data(tmp_path),
        lambda: choose_labels(tmp_path),
        lambda: find_cases(tmp_path),
    ):
        message = refusal(read)
        first = message.splitlines()[:1]
        assert not first or str(tmp_path) in first[0]
        # all but the list of broken cases is one line
        assert len(message.splitlines()) <= 1 or "cases must be sound" in first[0]


def test_a_long_list_below_a_folder_with_an_umlaut_reads_no_folder_again_and_again(tmp_path, monkeypatch):
    root = tmp_path / "Jürgen"
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    stored = [unicodedata.normalize("NFD", f"Käse{number}.nii.gz") for number in range(20)]
    for name in stored:
        for folder, kept in (("images", name.replace(".nii", "_0000.nii")), ("labels", name)):
            (root / folder / kept).touch()
    entries = [
        {"image": f"images/{name}", "label": f"labels/{name}"}
        for name in (unicodedata.normalize("NFC", each) for each in stored)
    ]
    (root / "dataset.json").write_text(json.dumps({"training": entries}), encoding="utf-8")
    listed, list_folder = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder=".": listed.append(folder) or list_folder(folder))
    found = load_datalist(root, "training")
    assert {os.path.basename(entry["label"]) for entry in found} <= set(stored)
    assert len(listed) <= 4


def test_a_table_of_subjects_names_cases_in_whatever_composed_characters(tmp_path):
    name, named = (unicodedata.normalize(form, "Jürgen") for form in ("NFD", "NFC"))
    table = tmp_path / "subjects.csv"
    table.write_text(f"case,subject\n{named},7\n", encoding="utf-8")
    for image in (f"{name}.nii.gz", f"{name}_0000.nii.gz"):
        (case,) = list_cases([{"image": image, "label": f"{name}.nii.gz"}], subjects=table)
        assert case.subject == "7"

"""Data lists in Decathlon form."""

from __future__ import annotations

import json

from monai_unetpp.data import load_datalist


def write_list(folder, count, **lists):
    entries = [
        {"image": f"./imagesTr/{number}.nii.gz", "label": f"./labelsTr/{number}.nii.gz"} for number in range(count)
    ]
    (folder / "dataset.json").write_text(json.dumps({"training": entries, **lists}))
    return entries


def test_a_drawn_validation_list_is_told_with_its_counts(tmp_path, caplog):
    write_list(tmp_path, 10)
    assert len(load_datalist(tmp_path, "validation")) == 2
    assert "has no 'validation' list: 2 of its 10 training cases were drawn for it, and 8 are left" in caplog.text


def test_a_given_validation_list_is_taken_in_silence(tmp_path, caplog):
    entries = write_list(tmp_path, 3)
    write_list(tmp_path, 3, validation=entries[:1])
    assert len(load_datalist(tmp_path, "validation")) == 1
    assert caplog.text == ""

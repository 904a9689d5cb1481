"""The output folder of a study: whose runs it holds."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from monai_unetpp.study import StudySettings, data_set, run_study
from monai_unetpp.study.data_set import find_study_cases
from monai_unetpp.study.study_folder import StudyFolder


def test_a_folder_holds_runs_of_one_setting(discs_dir, tmp_path):
    cases = find_study_cases(discs_dir)
    settings = StudySettings(2, budget=5)
    folder, other = StudyFolder(tmp_path / "study"), StudyFolder(tmp_path / "other")
    fingerprint = folder.compare(settings, cases)
    assert not folder.path.exists()
    folder.claim(settings, cases)
    folder.claim(settings, cases)
    assert folder.compare(settings, cases) == fingerprint
    with pytest.raises(ValueError, match=r"got .* with others: budget was 5 and is 6\. Give its original"):
        folder.claim(StudySettings(2, budget=6), cases)
    fewer = dataclasses.replace(cases, validation=cases.validation[1:])
    with pytest.raises(ValueError, match=r"its cases, images or labels are not those of dataset_dir"):
        folder.claim(settings, fewer)
    with pytest.raises(ValueError, match=r"its cases, images or labels are not those of dataset_dir"):
        folder.read_settings(fewer)
    assert folder.read_settings(cases) == settings.as_dict()
    assert other.read_settings(fewer) == {}
    assert other.compare(StudySettings(2, budget=6), cases) != fingerprint
    folder.settings_file.write_text("[]")
    with pytest.raises(ValueError, match=r"settings\.json: must hold a JSON object, got list\. Restore it"):
        folder.claim(settings, cases)
    result = folder.run("unet_L1", 0) / "result.json"
    result.parent.mkdir(parents=True)
    result.write_text('{"seed": ')
    with pytest.raises(ValueError, match=r"seed_0/result\.json: cannot be read as JSON .* Remove it"):
        list(folder.read_results(fingerprint))


@pytest.mark.parametrize("kind", ["image", "label"])
def test_files_that_were_changed_under_the_same_names_are_other_cases(discs_dir, tmp_path, kind):
    data = shutil.copytree(discs_dir, tmp_path / "data")
    folder, settings = StudyFolder(tmp_path / "study"), StudySettings(2)
    folder.claim(settings, find_study_cases(data))
    file = Path(find_study_cases(data).training[0][kind])
    before = file.read_bytes()
    found = nibabel.load(file)
    nibabel.save(nibabel.Nifti1Image(np.flip(found.get_fdata(), 0).astype(np.uint8), found.affine), file)
    with pytest.raises(ValueError, match="its cases, images or labels are not those of dataset_dir"):
        folder.compare(settings, find_study_cases(data))
    file.write_bytes(before)
    # wherever they are
    folder.compare(settings, find_study_cases(data.rename(tmp_path / "moved")))


@pytest.mark.slow
def test_a_list_of_runs_reads_no_images(discs_dir, tmp_path, monkeypatch):
    folder, settings = StudyFolder(tmp_path), StudySettings(2, precision="fp32")
    folder.claim(settings, find_study_cases(discs_dir))
    monkeypatch.setattr(data_set, "hash_files", lambda files: pytest.fail("the images are read"))
    assert run_study(discs_dir, tmp_path, list_only=True, device="cpu").runs[0].state == "open"
    (folder.settings_file).write_text("{}")
    with pytest.raises(ValueError, match="its cases, images or labels are not those of dataset_dir"):
        run_study(discs_dir, tmp_path, list_only=True, device="cpu")


def test_a_list_of_runs_with_other_settings_is_refused_as_their_training_is(discs_dir, tmp_path):
    StudyFolder(tmp_path).claim(StudySettings(2, budget=5, precision="fp32"), find_study_cases(discs_dir))
    with pytest.raises(ValueError, match=r"with others: budget was 5 and is 6\. Give its original"):
        run_study(discs_dir, tmp_path, list_only=True, device="cpu", budget=6)


@pytest.mark.parametrize("first", [True, False])
def test_subjects_of_a_folder_are_those_of_every_call(discs_dir, tmp_path, first):
    table, folder, settings = tmp_path / "subjects.csv", StudyFolder(tmp_path / "study"), StudySettings(2)
    table.write_text("case,subject\n" + "".join(f"disc_{number},{number // 2}\n" for number in range(9)))
    given, without = find_study_cases(discs_dir, subjects=table), find_study_cases(discs_dir)
    assert len(set(given.subjects.values())) < len(set(without.subjects.values()))
    folder.claim(settings, given if first else without)
    assert folder.read_settings(given if first else without) == settings.as_dict()
    for refuse in (folder.read_settings, lambda cases: folder.compare(settings, cases)):
        with pytest.raises(ValueError, match=r"subjects of its cases are not those that dataset_dir, --subjects and "):
            refuse(without if first else given)


def test_a_folder_of_an_earlier_version_which_did_not_keep_subjects_goes_on(discs_dir, tmp_path):
    folder, settings, cases = (
        StudyFolder(tmp_path),
        StudySettings(2),
        find_study_cases(discs_dir, subject_pattern="(.)"),
    )
    folder.claim(settings, cases)
    content = json.loads(folder.settings_file.read_text())
    assert content["cases"].pop("subjects") == cases.subjects
    folder.settings_file.write_text(json.dumps(content))
    fingerprint = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    assert folder.read_settings(cases) == settings.as_dict()
    assert folder.compare(settings, cases) == fingerprint


def test_a_bundle_that_was_changed_is_not_on_equal_terms(discs_dir, tmp_path):
    cases, settings = find_study_cases(discs_dir), StudySettings(2)
    folder = StudyFolder(tmp_path)
    folder.claim(settings, cases)
    path = folder.bundle / "configs" / "train.json"
    path.write_text(path.read_text().replace("0.0001", "0.1"))
    with pytest.raises(ValueError, match=r"train\.json: differs from what this version writes"):
        folder.claim(settings, cases)


def test_the_folder_knows_how_its_runs_stand(tmp_path):
    folder = StudyFolder(tmp_path)
    states = [folder.state("unet_L1", 0)]
    for name in ("checkpoint_epoch=1.pt", "failure.txt", "result.json"):
        path = folder.run("unet_L1", 0) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        states.append(folder.state("unet_L1", 0))
    assert states == ["open", "interrupted", "failed", "finished"]

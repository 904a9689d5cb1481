"""What of earlier runs is kept, and what of it is no longer true."""

import csv
import json
import shutil
import time
from contextlib import contextmanager

import nibabel
import numpy as np
import pytest
from json_edits import edit_json
from PIL import Image
from runner_bundle import write_bundle, write_image

from monai_unetpp.cli import main
from monai_unetpp.data import write_volume
from monai_unetpp.data.formats.nifti_marks import hash_voxels
from monai_unetpp.data.formats.pictures import picture_mark, write_picture
from monai_unetpp.data.formats.result_marks import identify_image
from monai_unetpp.files import hash_file
from monai_unetpp.guard import ImageRecord, TrainingRanges
from monai_unetpp.results import EarlierResults, LabelVolume, RecordedCase, ResultFolder
from monai_unetpp.results import folder as results_folder
from monai_unetpp.segmentation import _Run, segment_files

SHAPE = (4, 5, 6)


@pytest.fixture
def image(tmp_path):
    return write_image(tmp_path / "a.nii.gz", SHAPE, surround=False)


@contextmanager
def killed(monkeypatch):
    """Runs inside the block record that they begin, and nothing after that."""
    with monkeypatch.context() as patch:
        patch.setattr(ResultFolder, "add", lambda *_: None)
        patch.setattr(_Run, "_write", lambda *_: None)
        yield


def rows_of(folder):
    with (folder / "volumes.csv").open(newline="") as file:
        return [(row["case"], row["label"], row["voxels"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("folder", ["out", "/elsewhere/before/it/was/renamed"])
def test_a_result_of_another_level_is_known_however_its_folder_was_named(image, tmp_path, folder):
    output = tmp_path / "out" / "a_seg.nii.gz"
    write_volume(output, np.ones(SHAPE, np.uint8), image, np.eye(4))
    runs = [
        {"options": {"level": "L1"}, "cases": [{"case": "a", "output": f"{folder}/a_seg.nii.gz", "warnings": ["odd"]}]}
    ]
    same, other = (EarlierResults(runs, {"options": {"level": level}}) for level in ("L1", "L2"))
    assert same.has(image, output)
    assert same.warnings(output) == ("odd",)
    assert not other.has(image, output)


def test_numbered_objects_have_no_volumes_and_lose_those_of_labels(tmp_path):
    write_picture(tmp_path / "a_seg.png", np.arange(20, dtype=np.uint8).reshape(4, 5))

    def folder():
        return ResultFolder(tmp_path, {1: "cell"}, {"started": "now"})

    numbered = folder()
    numbered.add(RecordedCase("a", "a.png", None, "a_seg.png", 0.1), ())
    numbered.write()
    assert not (tmp_path / "volumes.csv").exists()
    for again in (True, False):
        plain = folder()
        for name in "ab":
            plain.add(
                RecordedCase(name, f"{name}.png", None, f"{name}_seg.png", 0.1), [LabelVolume(1, "cell", 5, None)]
            )
        plain.write()
        assert rows_of(tmp_path) == [("a", "1", "5"), ("b", "1", "5")]
        numbered = folder()
        if again:
            numbered.add(RecordedCase("a", "a.png", None, "a_seg.png", 0.1), ())
        else:
            numbered.add_earlier("a", tmp_path / "a_seg.png", False, numbered=True)
        numbered.write()
        assert rows_of(tmp_path) == [("b", "1", "5")]


@pytest.mark.slow
def test_skipped_images_with_numbered_objects_get_no_rows(nuclei_bundle, tmp_path):
    pytest.importorskip("skimage")
    pixels = np.full((40, 50), 10, np.uint8)
    pixels[8:20, 10:22] = pixels[24:36, 30:42] = 200
    Image.fromarray(pixels).save(tmp_path / "cells.png")
    options = {"level": "L1", "device": "cpu", "runtime": "torch", "flips": [], "skip_existing": True}

    def skipped(**more):
        return segment_files(tmp_path / "cells.png", tmp_path / "out", nuclei_bundle, **options, **more).skipped

    assert (skipped(), len(rows_of(tmp_path / "out"))) == (0, 1)
    assert (skipped(instances=True), rows_of(tmp_path / "out")) == (0, [])
    assert (skipped(instances=True), rows_of(tmp_path / "out")) == (1, [])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny", 3, [], runtime="torch")


def test_a_table_changed_during_the_run_costs_neither_cases_nor_the_record(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(results_folder, "_PAUSE_S", 0.0)
    images = [write_image(tmp_path / f"{name}.nii.gz", (16, 16, 16), surround=False) for name in "abc"]
    out = tmp_path / "out"
    summary = segment_files(images, out, tiny, progress=lambda line: (out / "volumes.csv").write_text("mine\n"))
    assert [done.case for done in summary.cases] == ["a", "b", "c"]
    assert summary.failures == ()
    (problem,) = summary.problems
    assert problem == (
        f"{out / 'volumes.csv'}: exists and was not written by monai-unetpp. Move it away, or name another folder."
    )
    assert (out / "volumes.csv").read_text() == "mine\n"
    (run,) = json.loads((out / "run.json").read_text())["runs"]
    assert [case["case"] for case in run["cases"]] == ["a", "b", "c"]


@pytest.mark.slow
def test_warnings_about_headers_are_those_of_every_run(tiny, tmp_path):
    image = write_image(tmp_path / "a.nii.gz", (16, 16, 16), surround=False)
    stored = nibabel.load(image)
    nibabel.save(nibabel.Nifti1Image(stored.get_fdata(), np.diag([1.0, 1, 60, 1])), image)
    told = [segment_files(image, tmp_path / "out", tiny).cases[0].warnings for _ in range(2)]
    assert told[0] == told[1]
    assert told[0][0].startswith(f"{image}: its header gives the unusual voxel size 1 x 1 x 60 mm.")


def test_a_result_that_replaces_another_is_recorded_at_once_unless_writing_takes_long(tmp_path, monkeypatch):
    def run(started, voxels, **finished):
        folder = ResultFolder(tmp_path, {1: "cell"}, {"started": started, **finished})
        for name in "abc":
            case = RecordedCase(name, f"{name}.nii", None, f"{name}_seg.nii.gz", 0.1)
            folder.add(case, [LabelVolume(1, "cell", voxels, None)])
        return folder

    run("first", 5, finished="first").write()
    # as where the process is killed: nothing is written at the end
    monkeypatch.setattr(results_folder, "_WRITES_PAUSE", 1e9)
    run("long", 6)
    assert rows_of(tmp_path) == [("a", "1", "6"), ("b", "1", "5"), ("c", "1", "5")]
    monkeypatch.setattr(results_folder, "_WRITES_PAUSE", 0.0)
    run("second", 7)
    assert rows_of(tmp_path) == [(name, "1", "7") for name in "abc"]
    runs = json.loads((tmp_path / "run.json").read_text())["runs"]
    assert [(run["started"], len(run["cases"])) for run in runs] == [("long", 0), ("second", 3)]


def test_waiting_for_another_process_is_not_writing(tmp_path, monkeypatch):
    @contextmanager
    def waiting(*_, **__):
        time.sleep(0.5)
        yield

    monkeypatch.setattr(results_folder, "exclusively", waiting)
    folder = ResultFolder(tmp_path, {1: "cell"}, {"started": "now"})
    folder.write()
    assert folder._took < 0.5


def test_results_of_the_same_name_and_another_suffix_keep_their_records(tmp_path):
    for started, suffix in (("1", "png"), ("2", "tif")):
        folder = ResultFolder(tmp_path, {1: "cell"}, {"started": started})
        folder.add(RecordedCase("a", f"a.{suffix}", None, f"a_seg.{suffix}", 0.1), ())
        folder.write()
    runs = json.loads((tmp_path / "run.json").read_text())["runs"]
    assert [case["output"] for run in runs for case in run["cases"]] == ["a_seg.png", "a_seg.tif"]


def test_names_that_are_not_utf_8_have_one_row(tmp_path):
    for voxels in (5, 7):
        folder = ResultFolder(tmp_path, {1: "cell"}, {"started": "now"})
        folder.add(RecordedCase("caf\udce9", "c.nii", None, "c_seg.nii", 0.1), [LabelVolume(1, "cell", voxels, None)])
        folder.write()
        folder.write()
    assert rows_of(tmp_path) == [("caf\\udce9", "1", "7")]


def test_other_settings_of_the_bundle_make_other_results(tmp_path):
    bundle = write_bundle(tmp_path / "tiny", 3, [], runtime="torch")
    image = write_image(tmp_path / "a.nii.gz", (16, 16, 16), surround=False)

    def skipped():
        return segment_files(image, tmp_path / "out", bundle, skip_existing=True).skipped

    assert [skipped(), skipped()] == [0, 1]
    edit_json(bundle / "configs" / "inference.json", lambda content: content.update(overlap=0.6))
    assert [skipped(), skipped()] == [0, 1]


@pytest.mark.slow
def test_a_result_that_was_corrected_by_hand_is_neither_lost_nor_misquoted(tiny, tmp_path):
    images = [write_image(tmp_path / f"{name}.nii.gz", (16, 16, 16), surround=False) for name in "ab"]
    out = tmp_path / "out"
    segment_files(images, out, tiny)
    found = nibabel.load(out / "a_seg.nii.gz")
    corrected = np.zeros(found.shape, np.uint8)
    corrected[:2, :3, :4] = 1
    # as editors do that keep the header
    nibabel.save(nibabel.Nifti1Image(corrected, found.affine, found.header), out / "a_seg.nii.gz")
    kept = (out / "a_seg.nii.gz").read_bytes()

    again = segment_files(images, out, tiny)
    assert [done.case for done in again.cases] == ["b"]
    (failure,) = again.failures
    assert failure.startswith(f"{images[0]}: its result {out / 'a_seg.nii.gz'} was changed after it was written. Move")
    assert (out / "a_seg.nii.gz").read_bytes() == kept

    assert segment_files(images, out, tiny, skip_existing=True).skipped == 2
    assert (out / "a_seg.nii.gz").read_bytes() == kept
    assert ("a", "1", "24") in rows_of(out)

    # with other options it would be made anew
    other = segment_files(images, out, tiny, skip_existing=True, level="L1")
    assert ([done.case for done in other.cases], len(other.failures)) == (["b"], 1)
    assert len(segment_files(images, out, tiny, overwrite=True).cases) == 2
    assert (out / "a_seg.nii.gz").read_bytes() != kept


def test_a_correction_that_was_saved_as_scaled_floats_is_measured_by_its_labels(tmp_path):
    folder = ResultFolder(tmp_path, {1: "one", 2: "two", 3: "three"})
    labels = np.repeat(np.arange(4), [54, 3, 2, 1]).reshape(3, 4, 5)
    write_volume(tmp_path / "a_seg.nii.gz", labels.astype(np.uint8), write_image(tmp_path / "a.nii.gz", (3, 4, 5)), [])
    found = nibabel.load(tmp_path / "a_seg.nii.gz")
    nibabel.save(nibabel.Nifti1Image(found.get_fdata(), found.affine, found.header), tmp_path / "a_seg.nii.gz")
    assert nibabel.load(tmp_path / "a_seg.nii.gz").get_fdata().max() % 1 > 0
    (tmp_path / "volumes.csv").write_text("case,label,name,voxels,ml,warnings\na,1,one,9,9,\na,,the head,99,99,\n")
    folder.add_earlier("a", tmp_path / "a_seg.nii.gz", True, changed=True)
    folder.write()
    # the sum is of labels that the label map does not hold
    assert rows_of(tmp_path) == [("a", "1", "3"), ("a", "2", "2"), ("a", "3", "1"), ("a", "", "99")]


@pytest.mark.slow
def test_a_damaged_result_fails_alone(tiny, tmp_path):
    images = [write_image(tmp_path / f"{name}.nii.gz", (16, 16, 16), surround=False) for name in "abc"]
    out = tmp_path / "out"
    segment_files(images[0], out, tiny)
    (out / "a_seg.nii.gz").write_bytes((out / "a_seg.nii.gz").read_bytes()[:-60])
    summary = segment_files(images, out, tiny, skip_existing=True)
    assert ([done.case for done in summary.cases], summary.skipped) == (["b", "c"], 0)
    (failure,) = summary.failures
    assert failure.startswith(f"{images[0]}: its earlier result cannot be kept: {out / 'a_seg.nii.gz'}: ")
    summary = segment_files(images, out, tiny, skip_existing=True, overwrite=True)
    assert ([done.case for done in summary.cases], summary.skipped, summary.failures) == (["a"], 2, ())


def test_a_case_that_fails_leaves_its_earlier_result_protected(tiny, tmp_path):
    image, out = write_image(tmp_path / "a.nii.gz", (16, 16, 16), surround=False), tmp_path / "out"
    segment_files(image, out, tiny)
    content = image.read_bytes()
    image.write_bytes(b"no image")
    assert len(segment_files(image, out, tiny).failures) == 1
    image.write_bytes(content)
    kept = edited(out / "a_seg.nii.gz")
    assert len(segment_files(image, out, tiny).failures) == 1
    assert (out / "a_seg.nii.gz").read_bytes() == kept


def test_numbered_objects_of_images_of_one_name_have_no_rows_to_share(nuclei_bundle, tmp_path):
    pytest.importorskip("skimage")
    options = {"level": "L1", "device": "cpu", "runtime": "torch", "flips": [], "instances": True}
    for suffix in ("png", "tif"):
        Image.fromarray(np.random.default_rng(0).integers(0, 200, (24, 24), np.uint8)).save(tmp_path / f"a.{suffix}")
        assert segment_files(tmp_path / f"a.{suffix}", tmp_path / "out", nuclei_bundle, **options).failures == ()


@pytest.mark.slow
def test_images_of_one_name_share_no_rows(nuclei_bundle, tmp_path):
    options = {"level": "L1", "device": "cpu", "runtime": "torch", "flips": []}
    out = tmp_path / "out"
    images = [write_image(tmp_path / "a.nii.gz", (24, 24), surround=False), tmp_path / "a.png"]
    Image.fromarray(np.random.default_rng(0).integers(0, 200, (24, 24), np.uint8)).save(images[1])

    def cases():
        return sorted({case for case, _, _ in rows_of(out)})

    segment_files(images[0], out, nuclei_bundle, **options)
    assert cases() == ["a"]
    (failure,) = segment_files(images[1], out, nuclei_bundle, **options).failures
    assert failure.startswith(f"{images[1]}: {out / 'a_seg.nii.gz'} is the result of another image of this name")
    for skip_existing, first in ((True, "a"), (False, "a.nii.gz")):
        assert segment_files(images, out, nuclei_bundle, **options, skip_existing=skip_existing).failures == ()
        assert cases() == [first, "a.png"]


@pytest.mark.slow
def test_kept_results_keep_the_names_of_their_rows(nuclei_bundle, tmp_path):
    options = {"level": "L1", "device": "cpu", "runtime": "torch", "flips": []}
    images = [write_image(tmp_path / "a.nii.gz", (24, 24), surround=False), tmp_path / "a.png"]
    Image.fromarray(np.random.default_rng(0).integers(0, 200, (24, 24), np.uint8)).save(images[1])

    for number, again in enumerate(((True, True), (True, False), (False, True))):
        out = tmp_path / f"out{number}"
        segment_files(images, out, nuclei_bundle, **options)
        edited(out / "a_seg.nii.gz")
        for image, skip in zip(images[::-1], again, strict=True):
            done = segment_files(image, out, nuclei_bundle, **options, skip_existing=skip, overwrite=not skip)
            assert (done.skipped, done.failures) == (skip, ())
        held = nibabel.load(out / "a_seg.nii.gz").get_fdata(), np.asarray(Image.open(out / "a_seg.png"))
        assert sorted(int(row[2]) for row in rows_of(out)) == sorted(map(np.count_nonzero, held))


def test_a_folder_holds_results_with_one_set_of_labels(tiny, tmp_path):
    images = [write_image(tmp_path / f"{name}.nii.gz", (16, 16, 16), surround=False) for name in "ab"]
    out = tmp_path / "out"
    segment_files(images[0], out, tiny)
    table = (out / "labels.ctbl").read_text()
    other = shutil.copytree(tiny, tmp_path / "other")
    edit_json(other / "configs" / "metadata.json", labels={"1": "something else"})
    with pytest.raises(
        ValueError, match=r"out: holds results with other labels, such as a_seg.nii.gz; .* Name another"
    ):
        segment_files(images[1], out, other)
    assert (out / "labels.ctbl").read_text() == table
    assert len(segment_files(images[1], tmp_path / "more", other).cases) == 1


def edited(path):
    found = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(1 - np.asarray(found.dataobj, np.uint8), found.affine, found.header), path)
    return path.read_bytes()


@pytest.mark.slow
def test_what_a_killed_run_has_written_is_recorded_by_the_next_so_that_corrections_are_kept(
    tiny, tmp_path, monkeypatch
):
    image, out = write_image(tmp_path / "a.nii.gz", SHAPE, surround=False), tmp_path / "out"
    # the first result is always recorded
    segment_files(write_image(tmp_path / "first.nii.gz", (16, 16, 16), surround=False), out, tiny)
    with killed(monkeypatch):
        segment_files(image, out, tiny)
    assert segment_files(image, out, tiny, skip_existing=True).skipped == 1
    result = out / "a_seg.nii.gz"
    found = nibabel.load(result)
    nibabel.save(nibabel.Nifti1Image(np.ones(SHAPE, np.uint8), found.affine, found.header), result)
    corrected = result.read_bytes()
    (failure,) = segment_files(image, out, tiny).failures
    assert "a_seg.nii.gz was changed after it was written" in failure
    assert segment_files(image, out, tiny, skip_existing=True).skipped == 1
    assert result.read_bytes() == corrected
    assert rows_of(out)[0] == ("a", "1", str(SHAPE[0] * SHAPE[1] * SHAPE[2]))


@pytest.mark.slow
def test_warnings_that_a_killed_run_has_not_recorded_are_told_again_or_as_missing(tmp_path, monkeypatch):
    bundle, out = write_bundle(tmp_path / "tiny", 3, [], runtime="torch"), tmp_path / "out"
    images = [write_image(tmp_path / f"{name}.nii.gz", (16, 16, 16), surround=False) for name in "ab"]
    record = ImageRecord((1.1, 1.0, 1.1), (17.6, 16.0, 17.6), False, (0.0,), (200.0,), {"one": 1e3, "two": 1e3})
    ranges = {"ranges": TrainingRanges.of([record], "MR").as_dict()}
    (bundle / "configs" / "fingerprint.json").write_text(json.dumps(ranges))
    segment_files(images[1], out, bundle)
    with killed(monkeypatch):
        segment_files(images[0], out, bundle)
    assert segment_files(images, out, bundle, skip_existing=True).skipped == 2
    runs = json.loads((out / "run.json").read_text())["runs"]
    told = {case["case"]: case["warnings"] for run in runs for case in run["cases"]}
    missing, *found = told["a"]
    assert missing.startswith(f"{images[0]}: segmented by a run that did not record it")
    assert f"remove {out / 'a_seg.nii.gz'} to" in missing
    (implausible,) = (line.replace("b.nii.gz", "a.nii.gz") for line in told["b"] if "the result is unlike" in line)
    assert found == [implausible]
    with (out / "volumes.csv").open(newline="") as file:
        rows = {row["case"]: row["warnings"] for row in csv.DictReader(file)}
    assert rows["a"] == "; ".join(told["a"])


@pytest.mark.slow
def test_what_a_killed_run_has_written_is_not_taken_for_corrected_by_hand(tiny, tmp_path, monkeypatch):
    image, out = write_image(tmp_path / "a.nii.gz", (16, 16, 16), surround=False), tmp_path / "out"
    segment_files(image, out, tiny, level="L1")
    with killed(monkeypatch):
        segment_files(image, out, tiny, level="L2")
    again = segment_files(image, out, tiny, level="L2", skip_existing=True)
    assert (len(again.cases), again.failures, again.skipped) == (1, (), 0)
    kept = edited(out / "a_seg.nii.gz")
    assert len(segment_files(image, out, tiny, level="L2").failures) == 1
    assert (out / "a_seg.nii.gz").read_bytes() == kept


@pytest.mark.slow
def test_what_a_killed_run_has_written_is_not_kept_as_if_it_were_of_the_run_before(tiny, tmp_path, monkeypatch):
    image, out = write_image(tmp_path / "a.nii.gz", (16, 16, 16), surround=False), tmp_path / "out"
    segment_files(image, out, tiny, level="L2")
    made = (out / "a_seg.nii.gz").read_bytes()
    with monkeypatch.context() as killed:
        for name in ("add", "write"):
            killed.setattr(ResultFolder, name, lambda *_: [])
        segment_files(image, out, tiny, level="L1")
    assert (out / "a_seg.nii.gz").read_bytes() != made
    again = segment_files(image, out, tiny, level="L2", skip_existing=True)
    assert (len(again.cases), again.skipped, again.failures) == (1, 0, ())
    assert segment_files(image, out, tiny, level="L2", skip_existing=True).skipped == 1
    assert (out / "a_seg.nii.gz").read_bytes() == made


@pytest.mark.parametrize("suffix", [".nii.gz", ".png", ".tif"])
def test_what_a_killed_run_has_written_over_a_recorded_result_is_told_from_a_correction(tmp_path, suffix):
    source, output = tmp_path / f"a{suffix}", tmp_path / f"a_seg{suffix}"

    def write(value):
        labels = np.full((6, 5), value, np.uint8)
        if suffix == ".nii.gz":
            write_volume(output, labels[..., None], source, np.eye(4))
        else:
            write_picture(output, labels, mark=picture_mark(identify_image(source), hash_voxels(labels)))

    if suffix == ".nii.gz":
        write_image(source, (6, 5, 1), surround=False)
    else:
        write_picture(source, np.arange(30, dtype=np.uint8).reshape(6, 5), mark="another")
    write(1)
    run = {"options": {}, "cases": [{"case": "a", "output": str(output), "output_sha256": hash_file(output)}]}
    earlier = EarlierResults([run], run)
    assert (earlier.has(source, output), earlier.is_changed(output)) == (True, False)
    write(2)  # by a run that did not come to record it: it is made again, whatever its options were
    assert (earlier.has(source, output), earlier.is_changed(output)) == (False, False)
    saved_by_another_program(output)
    assert earlier.is_changed(output)


@pytest.mark.parametrize("level", ["L2", "L1"])
def test_what_a_killed_run_has_not_come_to_stays_known(tiny, tmp_path, monkeypatch, level):
    images = [write_image(tmp_path / f"{name}.nii.gz", (16, 16, 16), surround=False) for name in "ab"]
    out = tmp_path / "out"
    segment_files(images, out, tiny, level="L2")
    with monkeypatch.context() as killed:
        for name in ("add", "write"):
            killed.setattr(ResultFolder, name, lambda *_: [])
        segment_files(images[0], out, tiny, level=level)
    kept = edited(out / "b_seg.nii.gz")
    (failure,) = segment_files(images[1], out, tiny, level=level).failures
    assert failure.startswith(f"{images[1]}: its result {out / 'b_seg.nii.gz'} was changed after it was written. Move")
    assert segment_files(images[1], out, tiny, level="L2", skip_existing=True).skipped == 1
    assert (out / "b_seg.nii.gz").read_bytes() == kept


@pytest.mark.slow
def test_a_killed_run_with_the_same_options_does_not_cost_a_correction(tiny, tmp_path, monkeypatch):
    image, out = write_image(tmp_path / "a.nii.gz", (16, 16, 16), surround=False), tmp_path / "out"
    segment_files(image, out, tiny)
    monkeypatch.setattr(ResultFolder, "add", lambda *_: [])
    segment_files(image, out, tiny)
    monkeypatch.undo()
    kept = edited(out / "a_seg.nii.gz")
    assert segment_files(image, out, tiny, skip_existing=True).skipped == 1
    assert (out / "a_seg.nii.gz").read_bytes() == kept
    labels = np.asarray(nibabel.load(out / "a_seg.nii.gz").dataobj)
    assert rows_of(out)[0][2] == str(np.count_nonzero(labels == 1))


@pytest.mark.slow
@pytest.mark.parametrize("levels", [("L2",), ("L2", "L2"), ("L2", "L1")])
def test_a_correction_of_what_a_killed_run_has_written_is_not_replaced(tiny, tmp_path, monkeypatch, levels):
    image, out = write_image(tmp_path / "a.nii.gz", (16, 16, 16), surround=False), tmp_path / "out"
    for level in levels[:-1]:
        segment_files(image, out, tiny, level=level)
    with monkeypatch.context() as killed:
        for name in ("add", "write"):
            killed.setattr(ResultFolder, name, lambda *_: [])
        segment_files(image, out, tiny, level=levels[-1])
    kept = edited(out / "a_seg.nii.gz")
    for skip_existing in (False, True, False):
        failures = segment_files(image, out, tiny, level=levels[-1], skip_existing=skip_existing).failures
        assert skip_existing or "a_seg.nii.gz was changed after it was written" in failures[0]
        assert (out / "a_seg.nii.gz").read_bytes() == kept


@pytest.mark.slow
def test_last_results_of_a_killed_run_are_of_its_level_though_it_has_not_recorded_them(tiny, tmp_path, monkeypatch):
    images = [write_image(tmp_path / f"{name}.nii.gz", (16, 16, 16), surround=False) for name in "ab"]
    out = tmp_path / "out"
    segment_files(images[0], out, tiny, level="L1")
    with killed(monkeypatch):
        segment_files(images[1], out, tiny, level="L1")
    assert segment_files(images[1], out, tiny, level="L1", skip_existing=True).skipped == 1
    assert segment_files(images[1], out, tiny, level="L2", skip_existing=True).skipped == 0


@pytest.mark.slow
def test_a_result_of_a_killed_run_is_not_taken_for_one_of_the_finished_runs_around_it(tiny, tmp_path, monkeypatch):
    images = [write_image(tmp_path / f"{name}.nii.gz", (16, 16, 16), surround=False) for name in "ab"]
    out = tmp_path / "out"
    segment_files(images[0], out, tiny, level="L1")
    with killed(monkeypatch):
        segment_files(images[1], out, tiny, level="L2")
    segment_files(images[0], out, tiny, level="L1")
    again = segment_files(images, out, tiny, level="L1", skip_existing=True)
    assert (again.skipped, [done.case for done in again.cases]) == (1, ["b"])


def test_results_of_which_no_record_tells_what_made_them_are_made_again(tiny, tmp_path):
    image, out = write_image(tmp_path / "a.nii.gz", (16, 16, 16), surround=False), tmp_path / "out"
    segment_files(image, out, tiny, "L1")
    (out / "run.json").unlink()
    summary = segment_files(image, out, tiny, "L2", skip_existing=True)
    assert (summary.skipped, summary.failures) == (0, ())
    # what was corrected is not lost
    edited(out / "a_seg.nii.gz")
    (out / "run.json").unlink()
    assert segment_files(image, out, tiny, "L2", skip_existing=True).skipped == 1


def masking(folder):
    """A bundle that writes masks."""
    bundle = write_bundle(folder / "masked", 3, [], runtime="torch")
    content = json.loads((bundle / "configs" / "metadata.json").read_text())
    named = list(content["network_data_format"]["outputs"]["pred"]["channel_def"].values())[1]
    edit_json(bundle / "configs" / "metadata.json", brain_mask=[named])
    return bundle


@pytest.mark.slow
@pytest.mark.parametrize("profile", [False, True])
def test_a_mask_that_was_corrected_by_hand_is_kept(tmp_path, profile):
    bundle = masking(tmp_path)
    image, out = write_image(tmp_path / "a.nii.gz", (16, 16, 16), surround=False), tmp_path / "out"
    segment_files(image, out, bundle, mask=True, profile=profile)
    (record,) = json.loads((out / "run.json").read_text())["runs"][0]["cases"]
    assert record["beside_sha256"].keys() == {"a_mask.nii.gz"}
    kept = edited(out / "a_mask.nii.gz")
    (failure,) = segment_files(image, out, bundle, mask=True).failures
    assert failure.startswith(f"{image}: its result {out / 'a_mask.nii.gz'} was changed after it was written. Move")
    assert segment_files(image, out, bundle, mask=True, skip_existing=True).skipped == 1
    # a run without masks leaves them and what is known about them
    assert segment_files(image, out, bundle).failures == ()
    assert len(segment_files(image, out, bundle, mask=True).failures) == 1
    assert (out / "a_mask.nii.gz").read_bytes() == kept
    assert segment_files(image, out, bundle, mask=True, overwrite=True).failures == ()
    assert (out / "a_mask.nii.gz").read_bytes() != kept


@pytest.mark.slow
def test_a_corrected_label_map_is_kept_though_it_is_newer_than_its_mask(tmp_path, caplog):
    bundle = masking(tmp_path)
    image, out = write_image(tmp_path / "a.nii.gz", (16, 16, 16), surround=False), tmp_path / "out"
    assert segment_files(image, out, bundle, mask=True).failures == ()
    kept = edited(out / "a_seg.nii.gz")
    again = segment_files(image, out, bundle, mask=True, skip_existing=True)
    assert (again.skipped, again.failures) == (1, ())
    assert (out / "a_seg.nii.gz").read_bytes() == kept
    assert f"measured again. Of the labels before: {out / 'a_mask.nii.gz'}." in caplog.text


def saved_by_another_program(path):
    """A corrected label map as programs save it that know nothing of the mark in it."""
    if path.suffix != ".gz":
        Image.fromarray(1 - np.asarray(Image.open(path))).save(path)
    else:
        found = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(1 - np.asarray(found.dataobj, np.uint8), found.affine), path)
    return path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".nii.gz", ".png"])
def test_corrections_that_lost_their_mark_are_results_all_the_same(nuclei_bundle, tmp_path, suffix):
    image, options = tmp_path / f"a{suffix}", {"level": "L1", "device": "cpu", "runtime": "torch", "flips": []}
    if suffix == ".png":
        Image.fromarray(np.random.default_rng(0).integers(0, 200, (24, 24), np.uint8)).save(image)
    else:
        write_image(image, (24, 24), surround=False)
    result = tmp_path / f"a_seg{suffix}"
    # beside the images, where a result must not become an image
    segment_files(tmp_path, tmp_path, nuclei_bundle, **options)
    kept = saved_by_another_program(result)
    again = segment_files(tmp_path, tmp_path, nuclei_bundle, **options, skip_existing=True)
    assert (again.skipped, again.failures, again.cases) == (1, (), ())
    assert result.read_bytes() == kept
    assert len(segment_files(tmp_path, tmp_path, nuclei_bundle, **options).failures) == 1
    assert result.read_bytes() == kept
    assert segment_files(tmp_path, tmp_path, nuclei_bundle, **options, overwrite=True).failures == ()
    assert result.read_bytes() != kept


@pytest.mark.slow
def test_results_under_other_names_of_the_labels_are_made_again(tiny, tmp_path):
    bundle = shutil.copytree(tiny, tmp_path / "bundle")
    images = [write_image(tmp_path / f"{name}.nii.gz", (16, 16, 16), surround=False) for name in "ab"]
    out = tmp_path / "out"
    segment_files(images[0], out, bundle)
    edit_json(bundle / "configs" / "metadata.json", labels={"1": "something else"})
    again = segment_files(images, out, bundle, skip_existing=True)
    assert (again.skipped, len(again.cases)) == (0, 2)
    assert {row[1] for row in rows_of(out)} == {"1"}
    assert segment_files(images, out, bundle, skip_existing=True).skipped == 2


@pytest.mark.slow
def test_it_is_told_that_a_mask_is_of_labels_that_were_replaced(tmp_path, caplog):
    bundle = masking(tmp_path)
    image, out = write_image(tmp_path / "a.nii.gz", (16, 16, 16), surround=False), tmp_path / "out"
    segment_files(image, out, bundle, mask=True)
    assert "Of the labels before" not in caplog.text
    segment_files(image, out, bundle)
    assert f"a_seg.nii.gz: was replaced. Of the labels before: {out / 'a_mask.nii.gz'}." in caplog.text


@pytest.mark.slow
def test_colours_may_be_changed_and_what_stays_needs_its_names(tiny, tmp_path):
    images = [write_image(tmp_path / f"{name}.nii.gz", (16, 16, 16), surround=False) for name in "ab"]
    out = tmp_path / "out"
    segment_files(images[0], out, tiny)
    table = out / "labels.ctbl"
    lines = [f"{' '.join(line.split()[:2])} 1 2 3 255" for line in table.read_text().splitlines()[1:]]
    table.write_text("\n".join([table.read_text().splitlines()[0], *lines, ""]))
    changed = table.read_text()
    assert len(segment_files(images[1], out, tiny).cases) == 1
    assert table.read_text() == changed
    # a is kept, as it was corrected, so that another bundle's names would be wrong
    edited(out / "a_seg.nii.gz")
    other = shutil.copytree(tiny, tmp_path / "other")
    edit_json(other / "configs" / "metadata.json", labels={"1": "something else"})
    with pytest.raises(ValueError, match=r"holds results with other labels, such as a_seg\.nii\.gz"):
        segment_files(images, out, other)
    assert len(segment_files(images, out, other, overwrite=True).cases) == 2


def test_a_table_that_was_removed_comes_back_though_all_images_are_skipped(tiny, tmp_path):
    image, out = write_image(tmp_path / "a.nii.gz", (16, 16, 16), surround=False), tmp_path / "out"
    segment_files(image, out, tiny)
    content = (out / "labels.ctbl").read_text()
    (out / "labels.ctbl").unlink()
    assert segment_files(image, out, tiny, skip_existing=True).skipped == 1
    assert (out / "labels.ctbl").read_text() == content


def test_a_file_that_cannot_be_written_is_told_once(tiny, tmp_path, monkeypatch, capsys, caplog):
    def refuse(_):
        raise OSError("there is no space for volumes.csv")

    image = write_image(tmp_path / "a.nii.gz", (16, 16, 16), surround=False)
    monkeypatch.setattr(ResultFolder, "_write_volumes", refuse)
    assert main(["segment", str(image), "-o", str(tmp_path / "out"), "--bundle", str(tiny)]) == 1
    assert (capsys.readouterr().err + caplog.text).count("no space for volumes.csv") == 1


@pytest.mark.slow
def test_numbered_objects_and_labels_have_folders_of_their_own(nuclei_bundle, tmp_path):
    pytest.importorskip("skimage")
    options = {"level": "L1", "device": "cpu", "runtime": "torch", "flips": []}
    images, out = (
        [write_image(tmp_path / f"{name}.nii.gz", (24, 24), surround=False) for name in "ab"],
        tmp_path / "out",
    )
    segment_files(images[0], out, nuclei_bundle, **options)
    with pytest.raises(ValueError, match=r"out: holds results with other labels, such as a_seg\.nii\.gz"):
        segment_files(images[1], out, nuclei_bundle, **options, instances=True)
    segment_files(images, out, nuclei_bundle, **options, instances=True)
    assert not list(out.glob("labels.*"))
    with pytest.raises(ValueError, match=r"out: holds numbered objects, such as a_seg\.nii\.gz"):
        segment_files(images[1], out, nuclei_bundle, **options)


@pytest.mark.slow
def test_one_result_that_cannot_be_read_does_not_end_the_others(tiny, tmp_path, monkeypatch):
    images = [write_image(tmp_path / f"{name}.nii.gz", (16, 16, 16), surround=False) for name in "ab"]
    segment_files(images, tmp_path / "out", tiny)

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("monai_unetpp.results.earlier.hash_file", refused)
    assert len(segment_files(images, tmp_path / "out", tiny).cases) == 2

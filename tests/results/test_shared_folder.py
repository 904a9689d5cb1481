"""Several processes segment the cases of one folder into one folder of results."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from forked import run_forked
from runner_bundle import write_bundle, write_image

from monai_unetpp.results import LabelVolume, RecordedCase, ResultFolder
from monai_unetpp.segmentation import segment_files


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A bundle, and five images of which the third is broken."""
    root = tmp_path_factory.mktemp("cohort")
    bundle = write_bundle(root / "tiny", 3, [], runtime="torch")
    (root / "images").mkdir()
    for number in range(5):
        path = write_image(root / "images" / f"case_{number}.nii.gz", (16, 16, 16 + number), surround=False)
        if number == 2:
            path.write_bytes(b"no image")
    return bundle, root / "images"


def cases_in(folder):
    """Of the table, and of each run in the record."""
    with (folder / "volumes.csv").open(newline="") as file:
        table = [row["case"] for row in csv.DictReader(file) if row["label"] == "1"]
    runs = json.loads((folder / "run.json").read_text())["runs"]
    return table, {run.get("shard"): [case["case"] for case in run["cases"]] for run in runs}


@pytest.mark.slow
def test_two_processes_share_what_is_left_and_the_first_tells_of_all(cohort, tmp_path):
    bundle, images = cohort
    segment_files(images, tmp_path, bundle, shard="1/3")
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*_seg.nii.gz")}
    # what was interrupted before its rows were written
    (tmp_path / "volumes.csv").unlink()
    options = ("--bundle", bundle, "-o", tmp_path, "--json", "--skip_existing")
    done = run_forked("monai_unetpp", "segment", images, *options, folder=tmp_path.parent, processes=2)
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert [case["case"] for case in told["cases"]] == ["case_4", "case_1"]
    assert told["skipped"] == 2
    assert done.stderr.count("1 of 3 cases failed; the others are done.") == 1
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    table, runs = cases_in(tmp_path)
    assert table == ["case_0", "case_1", "case_3", "case_4"]
    assert runs == {"1/3": ["case_0", "case_3"], "1/2": ["case_4"], "2/2": ["case_1"]}


@pytest.mark.slow
def test_a_further_run_passes_over_what_the_shards_have_done(cohort, tmp_path):
    bundle, images = cohort
    first = segment_files(images, tmp_path, bundle, shard="1/3")
    assert [case.case for case in first.cases] == ["case_0", "case_3"]
    rest = segment_files(images, tmp_path, bundle, shard="1/2", skip_existing=True)
    assert ([case.case for case in rest.cases], rest.skipped, len(rest.failures)) == (["case_4"], 1, 1)
    (tmp_path / "volumes.csv").unlink()
    last = segment_files(images, tmp_path, bundle, skip_existing=True)
    assert ([case.case for case in last.cases], last.skipped) == (["case_1"], 3)
    table, runs = cases_in(tmp_path)
    assert table == ["case_0", "case_1", "case_3", "case_4"]
    assert runs == {"1/3": ["case_0", "case_3"], "1/2": ["case_4"], None: ["case_1"]}


def test_more_shards_than_cases(cohort, tmp_path):
    bundle, images = cohort
    summary = segment_files(images, tmp_path, bundle, shard="7/9")
    assert (summary.cases, summary.failures) == ((), ())


def test_a_shard_that_cannot_be(cohort, tmp_path, monkeypatch):
    bundle, images = cohort
    with pytest.raises(ValueError, match="shard must be K/N with K from 1 to N, got 3/2"):
        segment_files(images, tmp_path, bundle, shard="3/2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ValueError, match="shard must not be given under torchrun, got '1/2'"):
        segment_files(images, tmp_path, bundle, shard="1/2")


def test_no_row_is_lost_when_many_write_at_the_same_time(tmp_path):
    def write(number):
        folder = ResultFolder(tmp_path, {1: "one"}, {"started": "now", "shard": f"{number}/4"}, shard=(number, 4))
        for index in range(5):
            name = f"case_{number}_{index}"
            folder.add(RecordedCase(name, name, None, name, 0.1), [LabelVolume(1, "one", 5, 0.5)])
            folder.write()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(1, 5)))
    table, runs = cases_in(tmp_path)
    assert len(table) == 20
    assert {shard: len(cases) for shard, cases in runs.items()} == {f"{number}/4": 5 for number in range(1, 5)}


@pytest.mark.slow
def test_runs_that_start_at_the_same_time_keep_their_records(tmp_path):
    image = write_image(tmp_path / "a.nii.gz", (4, 5, 6), surround=False)
    bundle = write_bundle(tmp_path / "bundle", 3, [], runtime="torch")
    ids = set()
    for name in "ab":
        segment_files(image, tmp_path / name, bundle)
        ids |= {run["id"] for run in json.loads((tmp_path / name / "run.json").read_text())["runs"]}
    assert len(ids) == 2
    for each in ids:
        folder = ResultFolder(tmp_path, {1: "one"}, {"started": "now", "id": each})
        folder.add(RecordedCase(each, each, None, each, 0.1), ())
        folder.write()
    assert {run["id"] for run in json.loads((tmp_path / "run.json").read_text())["runs"]} == ids


def test_no_row_is_lost_when_programs_segment_single_images_into_one_folder(tmp_path):
    """As by a job for each image, none of which knows of the others."""

    def write(number):
        folder = ResultFolder(tmp_path, {1: "one"}, {"started": f"at {number}"})
        for index in range(5):
            name = f"case_{number}_{index}"
            folder.add(RecordedCase(name, name, None, name, 0.1), [LabelVolume(1, "one", 5, 0.5)])
            folder.write()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    table, _ = cases_in(tmp_path)
    assert len(table) == 20
    runs = json.loads((tmp_path / "run.json").read_text())["runs"]
    assert sorted(len(run["cases"]) for run in runs) == [5, 5, 5, 5]
    # and no lock is left in the folder
    assert not list(tmp_path.glob(".*"))


def test_two_processes_with_pictures_of_one_name_keep_the_rows_of_both(tmp_path):
    folders = [ResultFolder(tmp_path, {1: "one"}) for _ in range(2)]
    # both begin
    assert not any(folder.earlier.namesake("a", tmp_path / "a_seg.tif") for folder in folders)
    for number, (folder, suffix) in enumerate(zip(folders, ("png", "tif"), strict=True)):
        (tmp_path / f"a_seg.{suffix}").write_bytes(b"")
        for name in ("a", f"other_{suffix}"):
            case = RecordedCase(name, f"{name}.{suffix}", None, str(tmp_path / f"{name}_seg.{suffix}"), 0.1)
            folder.add(case, [LabelVolume(1, "one", number, None)])
    for folder in folders:
        folder.write()
    table, _ = cases_in(tmp_path)
    assert table == ["a", "a.tif", "other_png", "other_tif"]
    recorded = [case for run in json.loads((tmp_path / "run.json").read_text())["runs"] for case in run["cases"]]
    assert {case["case"]: case["image"] for case in recorded}["a.tif"] == "a.tif"

"""What stands beside the label maps of ``segment``: names and colours, volumes, and how they were made."""

import csv
import hashlib
import json
import logging
import subprocess
import sys
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import pytest
from runner_bundle import write_image

from monai_unetpp.bundles import hash_file
from monai_unetpp.data.formats.label_table import make_labels
from monai_unetpp.results import (
    ResultFolder,
    collecting_warnings,
    hash_image,
    itk_snap_table,
    measure_labels,
    slicer_table,
)
from monai_unetpp.results.run_record import RecordedCase
from monai_unetpp.results.volumes import LabelVolume
from monai_unetpp.segmentation import segment_files

NAMES = {1: "anterior", 2: "posterior"}
OPTIONS = {"level": "L1", "device": "cpu", "runtime": "torch", "precision": "fp32", "flips": []}


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def segmented(hippocampus_bundle, decathlon_dir, tmp_path_factory):
    """Two cases of a folder, and the summary of the run."""
    out = tmp_path_factory.mktemp("out")
    images = [decathlon_dir / "imagesTr" / f"case_{number}.nii.gz" for number in (0, 1)]
    return segment_files(images, out, hippocampus_bundle, **OPTIONS), out


@pytest.mark.slow
def test_a_label_map_carries_names_and_colours(segmented):
    result = nib.load(segmented[0].cases[0].output)
    (extension,) = result.header.extensions
    assert extension.get_code() == 0
    table = ElementTree.fromstring(extension.get_content()).find("VolumeInformation/LabelTable")
    assert [(int(label.get("Key")), label.text) for label in table] == list(NAMES.items())
    assert all(0 <= float(label.get(part)) <= 1 for label in table for part in ("Red", "Green", "Blue"))
    # whole blocks, so that readers which look for the next extension find the voxels
    assert extension.get_sizeondisk() % 16 == 0


def test_tables_of_colours_agree(segmented):
    _, out = segmented
    snap = [line.split() for line in (out / "labels.label").read_text().splitlines() if not line.startswith("#")]
    slicer = [line.split() for line in (out / "labels.ctbl").read_text().splitlines() if not line.startswith("#")]
    assert [row[0] for row in snap] == [row[0] for row in slicer] == ["0", "1", "2"]
    assert [row[1:4] for row in snap[1:]] == [row[2:5] for row in slicer[1:]]
    assert [row[7] for row in snap[1:]] == ['"anterior"', '"posterior"']


def test_names_with_spaces_and_quotes_keep_the_form_of_the_tables():
    assert '    "grey "'.replace(" ", "") in itk_snap_table({1: 'grey "'}).replace(" ", "").replace("'", '"')[:-1] + '"'
    assert "1 grey_matter 230 159 0 255" in slicer_table({1: "grey matter"})


def test_colours_stay_apart_for_many_labels():
    assert len({label.colour for label in make_labels({value: str(value) for value in range(1, 118)})}) > 110


def test_volumes_are_those_of_the_files(segmented):
    summary, out = segmented
    rows = rows_of(out / "volumes.csv")
    assert [(row["case"], row["label"], row["name"]) for row in rows] == [
        (case, str(value), name) for case in ("case_0", "case_1") for value, name in NAMES.items()
    ]
    for done in summary.cases:
        labels = nib.load(done.output)
        for label in done.volumes:
            (row,) = [row for row in rows if (row["case"], row["label"]) == (done.case, str(label.value))]
            assert int(row["voxels"]) == label.voxels == (np.asarray(labels.dataobj) == label.value).sum()
            assert float(row["ml"]) == pytest.approx(label.voxels * 1.0 * 1.2 * 1.5 / 1000, rel=1e-5)
    assert summary.as_dict()["cases"][0]["volumes"][0]["value"] == 1


def test_a_run_can_be_told_and_repeated(segmented, hippocampus_bundle, decathlon_dir):
    _, out = segmented
    (run,) = json.loads((out / "run.json").read_text())["runs"]
    weights = hippocampus_bundle / "models" / "model.pt"
    assert (run["bundle"]["name"], run["bundle"]["sha256"]) == (hippocampus_bundle.name, hash_file(weights))
    assert (run["level"], run["precision"], run["runtime"], run["flips"]) == ("L1", "fp32", "torch", [])
    assert (run["window"], run["window_sizes"], run["failures"]) == ([40, 56, 40], [[40, 56, 40]], [])
    assert run["versions"]["monai-unetpp"]
    assert run["command"]
    image = decathlon_dir / "imagesTr" / "case_0.nii.gz"
    assert run["cases"][0]["sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()


@pytest.mark.slow
def test_the_windows_of_pictures_and_those_that_were_chosen_are_told(nuclei_bundle, tmp_path):
    write_image(tmp_path / "a.nii.gz", (24, 24), surround=False)
    options = {"level": "L1", "device": "cpu", "runtime": "torch"}
    for window, found in ((None, ([416, 256], [[416, 256]])), ("auto", ("auto", [[24, 24]]))):
        out = tmp_path / str(window)
        segment_files(tmp_path / "a.nii.gz", out, nuclei_bundle, window_shape=window, **options)
        (run,) = json.loads((out / "run.json").read_text())["runs"]
        assert (run["window"], run["window_sizes"]) == found
        assert (run["overlap"], run["flips"]) == (0.25, [])


def test_what_earlier_runs_finished_is_kept(tmp_path):
    def write(started, case, voxels, warnings=()):
        folder = ResultFolder(tmp_path, NAMES, {"started": started, "finished": started})
        folder.add(
            RecordedCase(case, "a.nii", None, f"{case}_seg.nii.gz", 1.0, warnings), [LabelVolume(1, "a", voxels, None)]
        )
        folder.write()

    write("1", "one", 1)
    write("2", "=two", 2, ("strange",))
    write("3", "one", 3)
    found = [(row["case"], row["voxels"], row["ml"], row["warnings"]) for row in rows_of(tmp_path / "volumes.csv")]
    assert found == [("'=two", "2", "", "strange"), ("one", "3", "", "")]
    write("4", "=two", 4)
    assert [row["voxels"] for row in rows_of(tmp_path / "volumes.csv")] == ["4", "3"]
    runs = json.loads((tmp_path / "run.json").read_text())["runs"]
    assert [(run["started"], [case["case"] for case in run["cases"]]) for run in runs] == [
        ("3", ["one"]),
        ("4", ["=two"]),
    ]


def test_a_run_without_results_is_recorded_only_while_it_lasts(tmp_path):
    folder = ResultFolder(tmp_path, NAMES, {"started": "now"})
    folder.begin()
    assert [run["cases"] for run in json.loads((tmp_path / "run.json").read_text())["runs"]] == [[]]
    folder.run["finished"] = "later"
    folder.write()
    assert not (tmp_path / "run.json").exists()


def test_tables_that_other_programs_have_saved_again_are_still_ours(tmp_path):
    folder = ResultFolder(tmp_path, NAMES, {"started": "now"})
    folder.add(RecordedCase("a", "a.nii", None, "a_seg.nii.gz", 0.1), ())
    folder.write()
    for name in ("labels.ctbl", "labels.label"):
        lines = (tmp_path / name).read_text().splitlines()[1:]
        (tmp_path / name).write_text("\n".join([f"# of another program: {name}", *lines]))
    ResultFolder(tmp_path, NAMES, {}).check()
    (tmp_path / "labels.ctbl").write_text("1 liver 1 2 3 255")
    with pytest.raises(ValueError, match=r"labels\.ctbl: exists and was not written by monai-unetpp"):
        ResultFolder(tmp_path, NAMES, {}).check()


def test_a_table_of_volumes_that_a_spreadsheet_has_saved_again_is_still_ours(tmp_path):
    rows = ["case,label,name,voxels,ml,warnings", "a,1,liver,8,0.008,", "'=b,1,liver,9,0.009,"]
    table = tmp_path / "volumes.csv"
    table.write_bytes("\r\n".join([*rows, ""]).encode("utf-8-sig"))
    folder = ResultFolder(tmp_path, NAMES, {"started": "now"})
    folder.check()
    folder.add(RecordedCase("c", "c.nii", None, "c_seg.nii.gz", 0.1), measure_labels({1: "liver"}, {1: 7}, {1: 0.007}))
    folder.write()
    assert table.read_text(encoding="utf-8").splitlines() == [rows[0], rows[2], rows[1], "c,1,liver,7,0.007,"]


@pytest.mark.parametrize("name", ["volumes.csv", "run.json", "labels.ctbl", "labels.label"])
def test_files_of_others_are_not_replaced(hippocampus_bundle, decathlon_dir, tmp_path, name):
    (tmp_path / name).write_text("mine\n")
    with pytest.raises(ValueError, match=rf"{name}: exists and was not written by monai-unetpp\. Move it away"):
        segment_files(decathlon_dir / "imagesTr" / "case_0.nii.gz", tmp_path, hippocampus_bundle, **OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine\n"


def test_warnings_are_collected_and_errors_are_not():
    with collecting_warnings() as lines:
        logging.getLogger("monai_unetpp.data.formats.dicom").warning("%s: odd", "a.dcm")
        logging.getLogger("monai_unetpp.engines").error("b.dcm: failed")
    logging.getLogger("monai_unetpp.data.formats.dicom").warning("later")
    assert lines == ["a.dcm: odd"]


@pytest.mark.parametrize("of", ["", "monai_unetpp"])
def test_warnings_are_collected_where_only_errors_are_shown(of, caplog):
    package, child = logging.getLogger("monai_unetpp"), logging.getLogger("monai_unetpp.data.formats.dicom")
    before = package.level, package.propagate
    with caplog.at_level(logging.ERROR, of), collecting_warnings() as lines:
        child.warning("a.dcm: odd")
        child.error("b.dcm: failed")
    assert lines == ["a.dcm: odd"]
    assert [record.getMessage() for record in caplog.records] == ["b.dcm: failed"]
    assert (package.level, package.propagate) == before
    # in two threads, the block that began first may end first
    with caplog.at_level(logging.ERROR, of):
        first, second = collecting_warnings(), collecting_warnings()
        first.__enter__()
        lines = second.__enter__()
        first.__exit__(None, None, None)
        child.warning("c.dcm: odd")
        second.__exit__(None, None, None)
        child.warning("later")
    assert lines == ["c.dcm: odd"]
    assert [record.getMessage() for record in caplog.records] == ["b.dcm: failed"]
    assert (package.level, package.propagate) == before


@pytest.mark.parametrize("propagate", [True, False])
def test_handlers_of_the_caller_are_shown_what_they_would_be_without_collecting(propagate, monkeypatch):
    package, child = logging.getLogger("monai_unetpp"), logging.getLogger("monai_unetpp.data.formats.dicom")
    shown: list[str] = []
    own = logging.Handler()
    own.emit = lambda record: shown.append(record.getMessage())  # type: ignore[method-assign]
    monkeypatch.setattr(package, "handlers", [own])
    monkeypatch.setattr(package, "propagate", propagate)
    monkeypatch.setattr(package, "level", logging.ERROR)
    monkeypatch.setattr(logging.getLogger("monai_unetpp.engines"), "level", logging.INFO)
    logging.Logger.manager._clear_cache()  # type: ignore[attr-defined]
    with collecting_warnings() as lines:
        child.warning("a.dcm: odd")
        child.error("b.dcm: failed")
        logging.getLogger("monai_unetpp.engines").info("of a logger with a level of its own")
    assert lines == ["a.dcm: odd"]
    assert shown == ["b.dcm: failed", "of a logger with a level of its own"]
    assert own.filters == []
    assert package.propagate is propagate


def test_warnings_are_shown_as_always_where_nothing_is_configured():
    script = (
        "import logging\n"
        "from monai_unetpp.results import collecting_warnings\n"
        "logger = logging.getLogger('monai_unetpp.engines')\n"
        "with collecting_warnings() as lines: logger.warning('odd'); logger.error('failed'); logger.info('fine')\n"
        "assert lines == ['odd']"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-2:] == ["odd", "failed"]


def test_the_hash_of_several_files_does_not_depend_on_their_order(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"1")
    (tmp_path / "b.dcm").write_bytes(b"2")
    lines = sorted(hashlib.sha256(content).hexdigest() for content in (b"1", b"2"))
    assert hash_image(tmp_path) == hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    assert hash_image(tmp_path / "missing.nii") is None

"""The command line: what it prints where, and its exit codes."""

import dataclasses
import errno
import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import monai_unetpp
from monai_unetpp import cli
from monai_unetpp.cli.quiet import REPEATING_LOGGERS, logging_to_stderr, shown
from monai_unetpp.errors import counted
from monai_unetpp.progress import teller
from monai_unetpp.pruning import PruningPlan
from monai_unetpp.pruning.results import DataProblem, Decision, OperatingGrid, PruningResult, TradeOff
from monai_unetpp.results import collecting_warnings

COMMANDS = (
    *("demo", "bundles", "segment", "plan", "train", "prune", "export"),
    *("check", "failures", "study", "benchmark", "completion"),
)


@pytest.fixture
def run(capsys):
    """A function that runs the command line and returns its exit code, standard output and standard error."""

    def run_command(*arguments):
        capsys.readouterr()
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as e:
            code = e.code
        out, err = capsys.readouterr()
        return code, out, err

    return run_command


@pytest.fixture
def images(decathlon_dir, tmp_path):
    """A folder with two images, and a file that is none between them."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a", "z"):
        shutil.copy(decathlon_dir / "imagesTr" / "case_0.nii.gz", folder / f"{name}.nii.gz")
    (folder / "broken.nii.gz").write_text("no image")
    return folder


@pytest.fixture
def segment(run, hippocampus_bundle, tmp_path):
    """Runs ``segment`` with the shallowest level into the folder ``out``."""

    def run_segment(*arguments):
        common = ("-o", tmp_path / "out", "--bundle", hippocampus_bundle, "--device", "cpu", "--level", "L1")
        return run("segment", *common, *arguments)

    return run_segment


def test_help_does_not_wait_for_torch():
    code = """
import sys
from monai_unetpp.cli import main
for command in (None, *sys.argv[1:]):
    try:
        main([*([command] if command else []), "--help"])
    except SystemExit as e:
        assert e.code == 0
    print("LOADED", sorted({"torch", "monai", "numpy", "nibabel", "matplotlib"} & set(sys.modules)))
"""
    commands = COMMANDS
    done = subprocess.run([sys.executable, "-c", code, *commands], capture_output=True, text=True, check=True)
    assert re.findall(r"^LOADED (.*)$", done.stdout, re.MULTILINE) == ["[]"] * (len(commands) + 1)


def test_the_program_is_a_module_too():
    done = subprocess.run([sys.executable, "-m", "monai_unetpp", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: monai-unetpp")


def test_the_main_help(run):
    code, out, _ = run("--help")
    assert code == 0
    assert all(f"\n    {command} " in out or f"\n    {command}\n" in out for command in COMMANDS)
    exit_codes = out.split("exit codes:")[1]
    assert re.findall(r"^  (\d+) ", exit_codes, re.MULTILINE) == ["0", "1", "2", "3", "130"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_each_help_can_be_parsed(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    examples = re.findall(r"^  monai-unetpp (.*)$", out.split("examples:")[1], re.MULTILINE)
    assert examples
    for example in examples:
        arguments = example.split(" > ")[0].split()
        # what comes next after training is shown too
        assert arguments[0] == command or (command, arguments[0]) == ("train", "segment")
        cli.make_parser().parse_args(arguments)


def test_the_version(run):
    code, out, _ = run("--version")
    assert (code, out) == (0, f"monai-unetpp {monai_unetpp.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["paint"], "there is no command 'paint'"),
        (["segmnt", "a.nii.gz"], "there is no command 'segmnt'. Did you mean segment?"),
        (["seg", "a.nii.gz"], "there is no command 'seg'. Did you mean segment?"),
        (["-v", "segment", "a.nii.gz"], "segment: error: -v must be given after the command."),
        (["--verbose", "segment", "a.nii.gz"], "--verbose must be given after the command."),
        (["segment", "a.nii.gz", "--bundle", "hippo"], "output_dir must name the folder for the results"),
        (["prune", "-o", "x"], "one of the arguments DATASET_DIR -i/--input/--dataset_dir is required"),
        (
            ["prune", "d", "-o", "x"],
            "bundle must be named, as each is for one kind of image. Available: brain_tissue_mri",
        ),
        (["prune", "d", "-i", "e", "-o", "x"], "not allowed with argument DATASET_DIR"),
        (["segment", "-o", "x"], "one of the arguments INPUT -i/--input is required"),
        (["failures", "--dataset_dir", "d"], "required: -o/--output/--output_dir"),
        (["failures", "--dataset_dir", "d", "-o", "x", "--worst", "all"], "invalid int value: 'all'"),
        (["prune", "-o", "x", "--dataset_dir", "d", "--confirm_share", "half"], "invalid float value: 'half'"),
        (["segment", "a.nii.gz", "-o", "x", "--lvl", "L1"], "unrecognized arguments: --lvl L1. Did you mean --level?"),
        (["check", "a", "b"], "unrecognized arguments: b. Give one input."),
        (["segment", "a", "-o", "x", "b"], "unrecognized arguments: b. List all inputs in one place."),
        (
            ["prune", "d", "-o", "x", "--settings", "flips=none", "overlap=0.5"],
            "unrecognized arguments: overlap=0.5. Repeat the option before each.",
        ),
        (["segment", "a.nii.gz", "-o", "x", "--quiet", "--verbose"], "not allowed with argument"),
        (["segment", "a.nii.gz", "-o", "x", "--runtime", "gpu"], "invalid choice: 'gpu'"),
        (["segment", "a.nii.gz", "-o", "x", "--precision", "int8"], "invalid choice: 'int8'"),
        (["segment", "a.nii.gz", "-o", "x", "--overlap", "half"], "invalid float value: 'half'"),
        (["check", ""], "check: error: target must not be empty. Leave it out, or write . for the working directory."),
        (["plan", "", "-o", "x"], "dataset_dir must not be empty"),
        (["train", "d", "-o", "x", "--init="], "init must not be empty"),
        (["prune", "", "-o", "x", "--bundle", "hippo"], "dataset_dir must not be empty"),
        (["failures", "", "-o", "x"], "dataset_dir must not be empty"),
        (["study", "d", "-o", ""], "output_dir must not be empty"),
    ],
)
def test_bad_usage(run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_the_help_of_segment_names_pictures_and_bundles(run):
    text = " ".join(run("segment", "--help")[1].split())
    for part in ("also PNG, JPEG and TIFF", "<case>_seg.nii.gz, .png or .tif", "segment cells.png --bundle nuclei "):
        assert part in text
    for bundle in (
        "brain_tissue_mri_unetpp",
        "fetal_brain_mri_unetpp",
        "head_mri_unetpp",
        "hippocampus_mri_unetpp",
        "nuclei_microscopy_unetpp",
    ):
        assert bundle in text


def test_the_other_processes_of_torchrun_leave_the_word_to_the_first(run, monkeypatch, tmp_path):
    from monai_unetpp import study

    outcome = study.StudyOutcome((), ("unet_L1, seed 0: failed",))
    monkeypatch.setattr(study, "run_study", lambda **options: outcome)
    arguments = ("study", "--dataset_dir", tmp_path, "-o", tmp_path)
    assert run(*arguments)[0] == 1
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(*arguments) == (0, "", "")


def test_they_do_not_end_the_first_by_an_error_while_it_prints(run, monkeypatch, stub_prune):
    from monai_unetpp import segmentation, training_run

    summary = segmentation.SegmentationSummary("tiny", "L1", "cpu", "torch", "fp32", (), ("a.nii: broken.",))
    monkeypatch.setattr(segmentation, "segment_files", lambda **_: summary)
    path = Path("bundle")
    outcome = training_run.TrainingOutcome(path, None, path, "inconclusive", "L2", "Too few cases.", 5)
    monkeypatch.setattr(training_run, "train", lambda *_, **__: outcome)
    stub_prune(pruning_result("inconclusive"))
    calls = [("segment", "a", "-o", "O"), ("train", "D", "-o", "O"), ("prune", "D", "-o", "O")]
    assert [run(*arguments)[0] for arguments in calls] == [1, 3, 3]
    # which would be a crash for torchrun
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert [run(*arguments)[0] for arguments in calls] == [1, 0, 0]
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert [run(*arguments) for arguments in calls] == [(0, "", "")] * 3


@pytest.mark.slow
def test_segment_prints_a_table(segment, images, tmp_path, caplog):
    (images / "broken.nii.gz").unlink()
    code, out, err = segment(images)
    assert (code, err) == (0, "")
    # what is about to be done, and the memory that it takes
    (told,) = [record.message for record in caplog.records if record.name != "monai_unetpp.guard"]
    assert re.fullmatch(r"\d+ windows? of 40x56x40, .* MB besides the network \(.*\)\.", told)
    lines = out.splitlines()
    assert re.fullmatch("hippocampus_mri_unetpp, level L1, on cpu, (torch|openvino), (fp32|bf16)", lines[0])
    assert lines[1].split() == ["case", "anterior", "(ml)", "posterior", "(ml)", "seconds"]
    assert lines[-1] == f"Segmentations are in {tmp_path / 'out'}"
    rows = {cells[0]: [float(cell) for cell in cells[1:]] for cells in (line.split() for line in lines[3:-1])}
    assert list(rows) == ["a", "z"]
    labels = nib.load(tmp_path / "out" / "a_seg.nii.gz")
    voxel_ml = np.prod(labels.header.get_zooms()) / 1000
    for value in (1, 2):
        expected = (np.asarray(labels.dataobj) == value).sum() * voxel_ml
        assert rows["a"][value - 1] == pytest.approx(expected, abs=6e-4)


@pytest.mark.slow
def test_segment_names_what_failed_and_does_the_rest(segment, images, tmp_path):
    missing = tmp_path / "missing.nii.gz"
    code, out, err = segment(images, missing)
    assert code == 1
    lines = err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"monai-unetpp: {images / 'broken.nii.gz'}: not a NIfTI image")
    assert lines[1].startswith(f"monai-unetpp: {missing}: no such file or folder")
    assert lines[2] == "monai-unetpp: 2 of 4 cases failed; the others are done."
    assert [line.split()[0] for line in out.splitlines()[3:-1]] == ["a", "z"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*_seg*")) == ["a_seg.nii.gz", "z_seg.nii.gz"]


def test_segment_when_nothing_can_be_done(segment, tmp_path):
    broken = tmp_path / "broken.nii.gz"
    broken.write_text("no image")
    code, out, err = segment(broken)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == "monai-unetpp: 1 of 1 cases failed; nothing was segmented."


def test_segment_of_what_does_not_exist(segment, tmp_path):
    code, out, err = segment(tmp_path / "missing.nii.gz")
    assert (code, out) == (2, "")
    assert err.splitlines() == [f"monai-unetpp: {tmp_path / 'missing.nii.gz'}: no such file or folder. Check the path."]


@pytest.mark.slow
def test_segment_as_json(segment, images, tmp_path):
    code, out, err = segment(images, "--json")
    assert code == 1
    summary = json.loads(out)
    assert (summary["bundle"], summary["level"], summary["device"]) == ("hippocampus_mri_unetpp", "L1", "cpu")
    assert [case["case"] for case in summary["cases"]] == ["a", "z"]
    assert summary["cases"][0]["output"] == str(tmp_path / "out" / "a_seg.nii.gz")
    assert set(summary["cases"][0]["volumes_ml"]) == {"anterior", "posterior"}
    assert len(summary["failures"]) == 1
    assert "broken.nii.gz" in err


@pytest.fixture
def stub_segment(monkeypatch):
    """A list of the arguments that ``segment`` is called with; it says that it segmented two cases."""
    from monai_unetpp import segmentation

    calls = []
    cases = tuple(
        segmentation.SegmentedCase(name, f"{name}.nii", f"{name}_seg.nii.gz", {"box": 1.0}, 4.0, stages)
        for name, stages in (("a", {"other": 0.5, "load": 1.0, "network": 2.5}), ("b", {"other": 0.5, "load": 3.5}))
    )

    def segment(**options):
        calls.append(options)
        stages = {"other": 1.0, "load": 4.5, "network": 2.5} if options["profile"] else {}
        return segmentation.SegmentationSummary("tiny", "L1", "cpu", "torch", "fp32", cases, (), stages)

    monkeypatch.setattr(segmentation, "segment_files", segment)
    return calls


def test_segment_hands_on_its_arguments(run, stub_segment):
    run("segment", "a", "-o", "O")
    run(
        *("segment", "a", "b", "-o", "O", "--bundle", "B", "--level", "L2", "--device", "cpu", "--runtime", "openvino"),
        *("--precision", "bf16", "--overlap", "0.25", "--no-flips", "--smooth", "--profile", "--list_key", "training"),
        *("--subjects", "S.csv", "--subject-pattern", "(.*)_"),
        "--skip-constant",
        *("--overwrite", "--skip-existing", "--suffix", "T2w", "--series", "all", "--dicom-seg", "--shard", "2/3"),
        *("--within", "F", "--mask"),
    )
    run("segment", "a", "-o", "O", "--no-smooth")
    plain, full, rough = stub_segment
    assert rough["smooth"] is False
    assert {name for name, value in plain.items() if value is not None} == {
        *("inputs", "output_dir", "overwrite", "profile", "progress", "skip_existing", "dicom_seg", "mask")
    }
    assert full == {
        "adaptive": None,
        "window_shape": None,
        "inputs": ["a", "b"],
        "output_dir": "O",
        "bundle": "B",
        "within": "F",
        "mask": True,
        "level": "L2",
        "device": "cpu",
        "runtime": "openvino",
        "precision": "bf16",
        "overlap": 0.25,
        "flips": (),
        "skip_constant": True,
        "smooth": True,
        "instances": None,
        "slice_axis": None,
        "list_key": "training",
        "subjects": "S.csv",
        "subject_pattern": "(.*)_",
        "overwrite": True,
        "skip_existing": True,
        "shard": "2/3",
        "suffix": "T2w",
        "series": "all",
        "dicom_seg": True,
        "profile": True,
        "progress": True,
    }


def test_many_labels_stand_below_each_other(run, stub_segment, monkeypatch):
    from monai_unetpp import segmentation

    volumes = {f"part {number}": float(number) for number in range(9)}
    case = segmentation.SegmentedCase("a", "a.nii", "a_seg.nii.gz", volumes, 0.5)
    summary = segmentation.SegmentationSummary("tiny", "L1", "cpu", "torch", "fp32", (case,), (), within="finder")
    monkeypatch.setattr(segmentation, "segment_files", lambda **options: summary)
    code, out, _ = run("segment", "a", "-o", "O")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert out.startswith("tiny within finder, level L1")
    assert ["a", "part", "8", "8.000"] in lines
    assert ["a", "0.50"] in lines


def test_objects_are_counted(run, stub_segment, monkeypatch):
    from monai_unetpp import segmentation

    case = segmentation.SegmentedCase("a", "a.png", "a_seg.png", {}, 0.5, instances=17)
    summary = segmentation.SegmentationSummary("tiny", "L1", "cpu", "torch", "fp32", (case,), ())
    monkeypatch.setattr(segmentation, "segment_files", lambda **options: summary)
    code, out, _ = run("segment", "a", "-o", "O", "--instances")
    assert code == 0
    assert [line.split() for line in out.splitlines()[1:4:2]] == [["case", "objects", "seconds"], ["a", "17", "0.50"]]


def test_a_profile_as_a_table(run, stub_segment):
    code, out, err = run("segment", "a", "-o", "O", "--profile")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    start = lines.index("Where the time went, in seconds:")
    assert [line.split() for line in lines[start + 1 : start + 7] if not line.startswith("-")] == [
        ["case", "load", "network", "other", "sum"],
        ["a", "1.00", "2.50", "0.50", "4.00"],
        ["b", "3.50", "0.00", "0.50", "4.00"],
        ["all", "cases", "4.50", "2.50", "1.00", "8.00"],
        ["share", "(%)", "56", "31", "12", "100"],
    ]
    assert "Where the time went" not in run("segment", "a", "-o", "O")[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("terminal", "options", "shown"), [(True, [], True), (False, [], False), (True, ["--json"], True)]
)
def test_a_progress_bar_on_a_terminal_only(segment, images, monkeypatch, terminal, options, shown):
    (images / "broken.nii.gz").unlink()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    code, out, err = segment(images, *options)
    assert code == 0
    assert ("segmenting" in err) is shown
    assert "segmenting" not in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--level", "L9"], "L9"),
        (["--level", "deep"], "deep"),
        (["--bundle", "nonsense"], "bundle must be the folder or the name of a bundle, got 'nonsense'"),
        (["--device", "toaster"], "device must be a name like 'cpu' or 'cuda:0', got 'toaster'"),
    ],
)
def test_segment_with_arguments_that_name_nothing(segment, images, tmp_path, options, message):
    code, out, err = segment(images, *options)
    assert (code, out) == (2, "")
    assert err.startswith("monai-unetpp: ")
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_details_do_not_repeat_what_the_summary_says(segment, images, caplog):
    (images / "broken.nii.gz").write_text("no image")
    segment(images, "--verbose")
    assert not any("broken" in record.getMessage() or "Engine run" in record.getMessage() for record in caplog.records)


@pytest.mark.slow
def test_an_interruption_keeps_what_is_finished(segment, images, tmp_path, monkeypatch):
    from monai_unetpp import engines

    finished = []

    def interrupt(prediction):
        finished.append(prediction)
        if len(finished) == 2:
            raise KeyboardInterrupt
        return {}

    (images / "broken.nii.gz").unlink()
    monkeypatch.setattr(engines, "count_voxels", interrupt)
    code, _, err = segment(images)
    assert code == 130
    assert err.splitlines()[-1] == "monai-unetpp: interrupted; finished cases are kept."
    assert "Traceback" not in err
    labels = nib.load(tmp_path / "out" / "a_seg.nii.gz")
    assert labels.shape == nib.load(images / "a.nii.gz").shape
    (recorded,) = json.loads((tmp_path / "out" / "run.json").read_text())["runs"][0]["cases"]
    assert recorded["case"] == "a"


def test_a_request_to_end_is_an_interruption(run, monkeypatch):
    """As of a cluster at the time limit of a job."""
    from monai_unetpp import segmentation

    def work(**options):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(segmentation, "segment_files", work)
    code, _, err = run("segment", "a", "-o", "O")
    assert (code, err) == (130, "monai-unetpp: interrupted; finished cases are kept.\n")
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("command", "work", "said"),
    [
        (("export", "b", "-o", "n.onnx"), "monai_unetpp.export.export_checkpoint", "interrupted."),
        (("check", "b"), "monai_unetpp.bundles.find_bundle", "interrupted."),
        (
            ("study", "--dataset_dir", "d", "-o", "s"),
            "monai_unetpp.study.run_study",
            "interrupted; finished runs are kept.",
        ),
        (
            ("prune", "d", "--bundle", "b", "-o", "o"),
            "monai_unetpp.pruning.from_bundle.prune_bundle",
            "interrupted; finished cases are kept.",
        ),
    ],
)
def test_an_interruption_says_what_is_kept(run, monkeypatch, command, work, said):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(work, interrupt)
    code, _, err = run(*command)
    assert (code, err) == (130, f"monai-unetpp: {said}\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal about the end of other processes")
def test_worker_processes_that_end_at_the_same_request_are_no_error(run, monkeypatch):
    """PyTorch raises an error if a worker of a loader is ended."""
    from monai_unetpp import segmentation

    def refuse(*_):
        raise RuntimeError("a worker is killed")

    def work(**options):
        signal.signal(signal.SIGCHLD, refuse)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGCHLD)

    before = signal.getsignal(signal.SIGCHLD)
    monkeypatch.setattr(segmentation, "segment_files", work)
    try:
        assert run("segment", "a", "-o", "O")[0] == 130
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_run_leaves_logging_and_warnings_as_they_were(segment, tmp_path):
    def state():
        loggers = [logging.getLogger(name) for name in REPEATING_LOGGERS]
        return [(logger.level, logger.disabled) for logger in loggers], list(warnings.filters)

    before = state()
    segment(tmp_path / "missing.nii.gz")
    assert state() == before


@pytest.mark.slow
def test_demo(run, tmp_path):
    pytest.importorskip("nilearn")
    code, out, err = run("demo", "hippocampus", "-o", tmp_path / "demo", "--device", "cpu")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) < 100
    start = lines.index("") + 1
    assert re.fullmatch("hippocampus: hippocampus_mri_unetpp on cpu, (torch|openvino), (fp32|bf16)", lines[start])
    assert " ".join(lines[start + 1].split()) == (
        "level parameters % of L3 anterior (ml) posterior (ml) seconds % of L3 network"
    )
    rows = {cells[0]: cells[1:] for cells in (line.split() for line in lines[start + 3 : start + 6])}
    assert list(rows) == ["L1", "L2", "L3"]
    assert (rows["L3"][1], rows["L3"][5]) == ("100.0", "100")
    parameters = [int(cells[0].replace(",", "")) for cells in rows.values()]
    assert float(rows["L1"][1]) == pytest.approx(100 * parameters[0] / parameters[2], abs=0.06)
    named = [line.split(maxsplit=1)[1] for line in lines[start + 6 :]]
    assert len(named) == 5
    beside = {"labels.ctbl", "labels.label", "run.json", "volumes.csv"}
    written = [str(path) for path in (tmp_path / "demo").rglob("*.*") if path.name not in beside]
    assert sorted(named) == sorted(written)
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["hippocampus"]


def test_demo_begins_only_once_its_parts_are_known(run, tmp_path):
    code, out, err = run("demo", "nothing", "-o", tmp_path / "demo")
    assert (code, out) == (2, "")
    assert "parts must be of structures, brain, hippocampus, got 'nothing'" in err


def test_demo_without_its_extra(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn.datasets", None)
    code, _, err = run("demo", "-o", tmp_path / "demo")
    assert code == 2
    assert re.search(r'pip install .*\[demo\]"', err)
    assert err.count("\n") == 1


def decision(verdict):
    return Decision("set", verdict, "L1", "choose and report", 12, 12, (), (), None, True, f"The verdict: {verdict}.")


def pruning_result(verdict="keep", problems=()):
    values = {field.name: () for field in dataclasses.fields(PruningResult)}
    values |= {
        "decisions": (decision(verdict),),
        "problems": tuple(problems),
        "trade_offs": (TradeOff("pareto", ("L1", "L2"), "No other is better."), TradeOff("flops<=1", (), "Too dear.")),
        "grid": None,
        "adaptive": None,
    }
    return PruningResult(**values)


@pytest.fixture
def stub_prune(monkeypatch):
    """A function that sets what ``prune_bundle`` returns, and returns the arguments of its calls."""
    from monai_unetpp.pruning import from_bundle

    def stub(result):
        calls = []

        def prune_bundle(*arguments, **options):
            calls.append((arguments, options))
            return result

        monkeypatch.setattr(from_bundle, "prune_bundle", prune_bundle)
        return calls

    return stub


@pytest.mark.parametrize(
    ("verdict", "problems", "expected"),
    [
        ("prune", [], 0),
        ("keep", [], 0),
        ("prune", [DataProblem("set", "case_3", "no label")], 1),
        ("inconclusive", [], 3),
        ("inconclusive", [DataProblem("set", "case_3", "no label")], 3),
    ],
)
def test_exit_codes_of_prune(run, stub_prune, verdict, problems, expected):
    stub_prune(pruning_result(verdict, problems))
    code, out, err = run("prune", "--dataset_dir", "D", "-o", "O", "--write", "P")
    assert code == expected
    assert f"set: The verdict: {verdict}." in out.splitlines()
    assert "Pareto front: L1, L2. No other is better." in out
    assert "Budget: operations per window of at most 1 operations: none. Too dear." in out
    assert "Report: O/report.html" in out
    assert ("Pruned bundle: P" in out) is (verdict == "prune")
    assert ("left out: case_3 (set): no label" in err) is bool(problems)


@pytest.mark.slow
def test_prune_says_in_words_what_the_cases_are_for(run, stub_prune):
    decisions = (
        dataclasses.replace(decision("prune"), role="choose"),
        dataclasses.replace(decision("keep"), role="confirm", dataset="all"),
    )
    stub_prune(dataclasses.replace(pruning_result(), decisions=decisions))
    _, out, _ = run("prune", "--dataset_dir", "D", "-o", "O")
    assert out.splitlines()[:2] == [
        "set, cases that choose the level: The verdict: prune.",
        "all data sets together, cases that confirm the level: The verdict: keep.",
    ]


def test_prune_tells_what_it_recommends(run, stub_prune):
    grid = OperatingGrid("L2 a", (), (), {}, {}, {}, (), (), "L1 b", "The fastest of them is L1 b.")
    stub_prune(dataclasses.replace(pruning_result(), grid=grid))
    _, out, _ = run("prune", "--dataset_dir", "D", "-o", "O")
    assert "operating points: The fastest of them is L1 b.\n" in out


def test_prune_hands_on_its_arguments(run, stub_prune):
    calls = stub_prune(pruning_result())
    run(
        *("prune", "--bundle", "B", "--dataset_dir", "D", "--dataset_dir", "E", "-o", "O", "--list_key", "test"),
        *("--checkpoint", "C", "--confirm_dir", "F", "--confirm_share", "0.3", "--margin", "dice=0.01"),
        *("--margin", "nsd:anterior=0.02", "--max_case_drop", "dice=0.1", "--budget", "flops=1e9"),
        *("--utility_weight", "0.1", "--extra", "alone=A", "--subject_pattern", "(s.)", "--exclude_problems"),
        *("--save_uncertainty", "--write", "P", "--overwrite", "--device", "cpu"),
        *("--subjects", "S", "--alpha", "0.025", "--seed", "3"),
        *("--settings", "overlap=0,0.5", "--settings", "flips=none,0", "--settings_repeats", "2", "--repeats", "4"),
    )
    ((arguments, options),) = calls
    assert arguments == ("B",)
    assert options == {
        "output_dir": "O",
        "write": "P",
        "dataset_dir": ["D", "E"],
        "min_reference": None,
        "scores": None,
        "training_list": None,
        "list_key": "test",
        "checkpoint": "C",
        "confirm_dir": "F",
        "confirm_share": 0.3,
        "margins": ["dice=0.01", "nsd:anterior=0.02"],
        "max_case_drop": ["dice=0.1"],
        "budgets": ["flops=1e9"],
        "utility_weight": 0.1,
        "extra": ["alone=A"],
        "subjects": "S",
        "alpha": 0.025,
        "seed": 3,
        "subject_pattern": "(s.)",
        "settings": ["overlap=0,0.5", "flips=none,0"],
        "repeats": 4,
        "settings_repeats": 2,
        "exclude_problems": True,
        "save_uncertainty": True,
        "overwrite": True,
        "device": "cpu",
    }


def test_every_setting_of_prune_is_one_of_the_bundles(run, stub_prune, hippocampus_bundle):
    """What the command line sets is a field of the plan, or a key of the configuration: MONAI accepts any other.

    Flags that are not given leave the bundle's own settings.
    """
    calls = stub_prune(pruning_result())
    run("prune", "--dataset_dir", "D", "-o", "O")
    read = (json.loads((hippocampus_bundle / "configs" / f"{name}.json").read_text()) for name in ("train", "prune"))
    assert set(calls[0][1]) <= set().union(PruningPlan.field_names(), *read)
    given = {name: value for name, value in calls[0][1].items() if value is not None}
    assert given == {"dataset_dir": ["D"], "output_dir": "O"}


def test_check_a_bundle(run, hippocampus_bundle, tmp_path):
    code, out, err = run("check", hippocampus_bundle)
    assert (code, err) == (0, "")
    *listed, verdict = out.splitlines()
    assert verdict == f"{hippocampus_bundle}: no problems found."
    # which is information, and no problem
    assert any(line.startswith("  $import torch    (inference.json imports#0") for line in listed)
    assert any(line.startswith("  $import ignite") for line in listed)
    copy = tmp_path / "copy"
    (copy / "configs").mkdir(parents=True)
    for name in ("inference.json", "metadata.json"):
        shutil.copy(hippocampus_bundle / "configs" / name, copy / "configs")
    code, out, err = run("check", copy)
    assert code == 1
    assert out.splitlines()[-1] == f"{copy}: {counted(len(err.splitlines()), 'problem')} found."
    assert "LICENSE" in err


def test_check_a_data_set(run, decathlon_dir, tmp_path):
    code, out, err = run("check", decathlon_dir)
    assert (code, out, err) == (0, f"{decathlon_dir}: no problems found.\n", "")
    broken = shutil.copytree(decathlon_dir, tmp_path / "broken")
    (broken / "labelsTr" / "case_1.nii.gz").unlink()
    code, out, err = run("check", broken)
    assert code == 1
    assert "case_1.nii.gz" in err
    assert out == f"{broken}: {counted(len(err.splitlines()), 'problem')} found.\n"


def test_check_what_is_neither(run, tmp_path):
    code, out, err = run("check", tmp_path)
    assert (code, out) == (2, "")
    assert "neither a bundle (it has no configs folder) nor a data set (it has no dataset.json, nor" in err
    code, _, err = run("check", tmp_path / "missing")
    assert code == 2
    assert "bundle must be the folder or the name of a bundle" in err


@pytest.fixture
def stub_benchmark(monkeypatch):
    """The arguments with which ``run_benchmark`` was called; it is to tell how far it is."""
    from monai_unetpp import benchmark

    calls = []

    def run_benchmark(*, progress, **options):
        calls.append(options)
        assert progress is True
        return "a table", {"seconds": 1.5}

    monkeypatch.setattr(benchmark, "run_benchmark", run_benchmark, raising=False)
    return calls


def test_benchmark(run, stub_benchmark, tmp_path):
    code, out, err = run("benchmark", "--quick", "-o", tmp_path / "figures.json")
    assert (code, out, err) == (0, "a table\n", "")
    assert stub_benchmark == [{"quick": True}]
    assert json.loads((tmp_path / "figures.json").read_text()) == {"seconds": 1.5}


def test_benchmark_hands_on_its_arguments(run, stub_benchmark):
    run(
        *("benchmark", "--features", "4,8,8,8,8", "--volume", "48,32,40", "--window", "32,32,32", "--overlap", "0.5"),
        *("--classes", "3", "--levels", "L1,L4", "--runtimes", "torch, openvino", "--precisions", "bf16"),
        *("--repeats", "5", "--device", "cpu", "--bundle", "B", "--plot", "P.png"),
    )
    (call,) = stub_benchmark
    assert call == {
        "quick": False,
        "features": (4, 8, 8, 8, 8),
        "volume_shape": (48, 32, 40),
        "window_shape": (32, 32, 32),
        "overlap": 0.5,
        "out_channels": 3,
        "levels": ["L1", "L4"],
        "runtimes": ["torch", "openvino"],
        "precisions": ["bf16"],
        "repeats": 5,
        "device": "cpu",
        "bundle": "B",
        "plot": "P.png",
    }


def test_benchmark_with_sizes_that_are_none(run):
    code, out, err = run("benchmark", "--window", "32,big")
    assert (code, out) == (2, "")
    assert "argument --window: must be whole numbers separated by commas, got '32,big'" in err


def test_a_user_without_a_name(run, stub_segment, monkeypatch):
    def refuse():
        raise KeyError("getpwuid(): uid not found: 54321")

    monkeypatch.setattr("getpass.getuser", refuse)
    monkeypatch.setenv("USER", "")
    assert run("segment", "a", "-o", "O")[0] == 0
    assert os.environ["USER"] == str(os.getuid())


@pytest.mark.parametrize(("chosen", "expected"), [({}, "1000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)])
def test_waiting_threads_sleep_unless_the_user_chose_how_they_wait(run, stub_segment, monkeypatch, chosen, expected):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    assert run("segment", "a", "-o", "O")[0] == 0
    assert os.environ.get("GOMP_SPINCOUNT") == expected


def applying(error):
    """``error`` as MONAI wraps it where a transform of a configuration fails."""
    wrapped = RuntimeError("applying transform <LoadImaged object at 0x7f>")
    wrapped.__cause__ = error
    return wrapped


def raiser(error):
    def fail(**options):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("scan.nii.gz: damaged. Copy it."), "scan.nii.gz: damaged. Copy it."),
        (applying(ValueError("scan.nii.gz: damaged. Copy it.")), "monai-unetpp: scan.nii.gz: damaged. Copy it."),
        (TypeError("inputs must be a path, got 5."), "inputs must be a path, got 5."),
        (OSError(28, "No space left on device", "out"), "No space left on device: 'out'"),
        (FileNotFoundError("D: no such folder."), "D: no such folder."),
        (RuntimeError("out of memory"), "out of memory"),
        (MemoryError(), "not enough memory"),
        (KeyError("level"), "KeyError: 'level'. This is a bug in monai-unetpp"),
        (AttributeError("no such thing"), "AttributeError: no such thing. This is a bug in monai-unetpp"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero. This is a bug"),
        (AssertionError(), "AssertionError. This is a bug in monai-unetpp"),
        (RecursionError("too deep"), "RecursionError: too deep. This is a bug in monai-unetpp"),
        (ValueError("one\ntwo \x1b[31m\udcff"), "one two \\x1b[31m\\udcff"),
    ],
    # names of tests must be text for pytest-xdist
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "told",
)
def test_no_error_ends_in_a_traceback(run, monkeypatch, tmp_path, caplog, error, expected):
    monkeypatch.setattr("monai_unetpp.segmentation.segment_files", raiser(error))
    code, out, err = run("segment", "a", "-o", tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("monai-unetpp: ")
    assert len(err.splitlines()) == 1
    assert expected in err
    assert "Traceback" not in err + caplog.text
    run("segment", "a", "-o", tmp_path, "-v")
    assert "Traceback" in caplog.text


def test_what_python_raises_itself_is_an_error_of_ours(run, monkeypatch, tmp_path):
    monkeypatch.setattr("monai_unetpp.segmentation.segment_files", lambda **options: int("x"))
    code, _, err = run("segment", "a", "-o", tmp_path)
    assert code == 2
    assert "ValueError: invalid literal for int() with base 10: 'x'. This is a bug in monai-unetpp" in err


def test_a_warning_is_said_once(run, monkeypatch, tmp_path, caplog, stub_segment):
    stub = monai_unetpp.segmentation.segment_files

    def warn(**options):
        for name in ("monai_unetpp.data", "nibabel.global"):
            for _ in range(3):
                logging.getLogger(name).warning("%s: the header lies", options["inputs"][0])
        return stub(**options)

    monkeypatch.setattr("monai_unetpp.segmentation.segment_files", warn)
    for _ in range(2):
        run("segment", "a", "-o", tmp_path)
    # once in each run, and nibabel's not a second time by our own handler
    assert [record.name for record in caplog.records] == ["monai_unetpp.data"] * 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["segment", "-i", "a", "b", "-o", "O", "--list-key", "test", "--level", "2"], ("list_key", "test")),
        (["segment", "a", "b", "--output-dir", "O", "--list-key=a-b", "--level=l2"], ("list_key", "a-b")),
        (["segment", "a", "b", "-o", "O", "--no-flips", "--level", "L2"], ("flips", ())),
    ],
)
def test_options_have_dashes_or_underscores(run, stub_segment, given, expected):
    assert run(*given)[0] == 0
    (options,) = stub_segment
    assert (options["inputs"], options["output_dir"], options["level"]) == (["a", "b"], "O", "L2")
    assert options[expected[0]] == expected[1]


def test_names_after_two_dashes_stay_as_they_are(run, stub_segment):
    assert run("segment", "--output-dir", "O", "--", "--my-scan.nii.gz", "--list-key")[0] == 0
    assert (stub_segment[0]["inputs"], stub_segment[0]["output_dir"]) == (["--my-scan.nii.gz", "--list-key"], "O")


def test_every_option_has_underscores_alone_so_that_dashes_can_be_taken_for_them():
    commands = cli.make_parser()._commands()
    assert set(commands) == set(COMMANDS)
    names = {name for command in commands.values() for name in command.option_names()}
    assert {name for name in names if "-" in name[2:]} == set()


@pytest.mark.parametrize("command", ["prune", "failures", "study", "plan", "train"])
@pytest.mark.parametrize("given", [["D"], ["-i", "D"], ["--dataset_dir", "D"], ["--dataset-dir", "D"]])
def test_every_command_takes_its_data_set_in_the_same_ways(command, given):
    options = cli.make_parser().parse_args([command, *given, "-o", "O"])
    assert options.dataset_dir in ("D", ["D"])


def test_what_nobody_knows_is_shown_as_it_was_typed_with_the_usage_of_the_command(run):
    code, _, err = run("prune", "D", "-o", "O", "--confirm-shar-e", "0.5")
    assert code == 2
    assert err.startswith("usage: monai-unetpp prune ")
    assert "unrecognized arguments: --confirm-shar-e 0.5. Did you mean --confirm_share" in err


@pytest.mark.parametrize("quiet", [True, False])
def test_quiet_shows_neither_warnings_nor_what_else_is_shown_and_keeps_warnings_for_the_record(
    monkeypatch, capsys, quiet
):
    root, logger = logging.getLogger(), logging.getLogger("monai_unetpp.inferers.sliding_windows")
    before = root.level
    monkeypatch.setattr(root, "handlers", [])
    try:
        with logging_to_stderr(False, quiet), collecting_warnings() as lines, shown(logger.name):
            logger.info("memory")
            logger.warning("left is unknown")
            logger.error("no result")
    finally:
        root.setLevel(before)
    assert lines == ["left is unknown"]
    err = capsys.readouterr().err
    assert [text in err for text in ("memory", "left is unknown", "no result")] == [not quiet, not quiet, True]


def test_verbose_shows_each_line_of_progress_once(monkeypatch, capsys):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    before = root.level
    try:
        with logging_to_stderr(True):
            for progress in (True, False):
                teller(progress, logging.getLogger("monai_unetpp.tried"))(f"progress is {progress}")
    finally:
        root.setLevel(before)
    assert capsys.readouterr().err.splitlines() == ["progress is True", "progress is False"]


def test_quiet_says_nothing_but_errors(run, stub_segment):
    assert run("segment", "a", "-o", "O", "--quiet") == (0, "", "")
    code, out, _ = run("segment", "a", "-o", "O", "-q", "--json")
    assert (code, json.loads(out)["bundle"]) == (0, "tiny")
    code, out, err = run("check", "no/such/bundle", "-q")
    assert (code, out) == (2, "")
    assert "no/such/bundle" in err


@pytest.mark.slow
def test_bundles_are_listed_with_their_levels(run, hippocampus_bundle):
    code, out, err = run("bundles")
    assert (code, err) == (0, "")
    assert "hippocampus_mri_unetpp 0" in out
    assert re.search(r"^L1 +74,099 ", out, re.MULTILINE)
    # its own choice, and for heads the deepest
    assert re.search(r"hippocampus_mri_unetpp 0.*?^L2 \(default\) ", out, re.MULTILINE | re.DOTALL)
    assert re.search(r"head_mri_unetpp 0.*?^L4 \(default\) ", out, re.MULTILINE | re.DOTALL)
    listed = {bundle["name"]: bundle for bundle in json.loads(run("bundles", "--json")[1])}
    assert [level["level"] for level in listed["hippocampus_mri_unetpp"]["levels"]] == ["L1", "L2", "L3"]
    assert listed["hippocampus_mri_unetpp"]["path"] == str(hippocampus_bundle)
    assert [listed[name]["default_level"] for name in ("hippocampus_mri_unetpp", "head_mri_unetpp")] == ["L2", ""]


def test_a_bundle_that_cannot_be_read_does_not_hide_the_others(run, tmp_path, monkeypatch):
    for name, text in (("broken", "{"), ("planned", '{"task": "of hearts", "version": "0.1.0"}')):
        (tmp_path / name / "configs").mkdir(parents=True)
        (tmp_path / name / "configs" / "metadata.json").write_text(text)
    monkeypatch.setenv("MONAI_UNETPP_BUNDLES", str(tmp_path))
    listed = {bundle["name"]: bundle for bundle in json.loads(run("bundles", "--json")[1])}
    assert listed["broken"]["task"].startswith("cannot be read: ")
    assert (listed["planned"]["task"], listed["planned"]["levels"]) == ("of hearts", [])
    assert "hippocampus_mri_unetpp" in listed


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_script_completes_commands(run, shell):
    code, out, _ = run("completion", shell)
    assert code == 0
    assert all(word in out for word in ("segment", "skip_existing", "monai-unetpp"))


def test_the_beginning_of_a_name_is_enough_for_a_bundle(hippocampus_bundle, tmp_path, monkeypatch):
    from monai_unetpp.bundles import find_bundle

    assert find_bundle("hippo") == hippocampus_bundle
    for name in ("heart_a", "heart_b"):
        (tmp_path / name / "configs").mkdir(parents=True)
        (tmp_path / name / "configs" / "metadata.json").write_text("{}")
    monkeypatch.setenv("MONAI_UNETPP_BUNDLES", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"bundle must be unambiguous, got 'heart': it may be heart_a, heart_b\. Give more"
    ):
        find_bundle("heart")
    assert find_bundle("heart_a") == tmp_path / "heart_a"


def test_a_gpu_is_a_gpu_by_either_name(monkeypatch):
    import torch

    from monai_unetpp.devices import resolve_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(resolve_device(name)) for name in ("gpu", "GPU:1", "cuda:1")] == ["cuda", "cuda:1", "cuda:1"]


@pytest.mark.parametrize(("count", "found"), [(1, "only cuda:0"), (3, "cuda:0 to cuda:2")])
def test_a_gpu_beyond_those_that_are_here_is_refused(monkeypatch, count, found):
    import torch

    from monai_unetpp.devices import resolve_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert str(resolve_device(f"cuda:{count - 1}")) == f"cuda:{count - 1}"
    with pytest.raises(ValueError, match=rf"^device 'cuda:3' was asked for, but torch finds {found} here\. Use one"):
        resolve_device("cuda:3")


@pytest.mark.parametrize(
    ("published", "command"),
    [(True, r'pip install "monai-unetpp\[report\]"'), (False, r'pip install -c ".+" -e ".+\[report\]"')],
)
def test_the_command_that_installs_an_extra_changes_by_one_constant(published, command, monkeypatch):
    from monai_unetpp import installing

    monkeypatch.setattr(installing, "PUBLISHED", published)
    assert re.fullmatch(command, installing.install_command("report"))


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert cli.main(["bundles"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_output_that_nobody_takes_is_no_error_at_the_end_of_the_program(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert cli.main(["bundles"]) == 0
        # leaving the block flushes what is left, as Python does at its end


@pytest.mark.slow
def test_what_failed_is_told_where_nobody_takes_the_output(monkeypatch, capsys):
    from monai_unetpp import bundles

    monkeypatch.setattr(bundles, "check_bundle", lambda *_, **__: ["this is wrong."])
    monkeypatch.setattr(bundles, "bundle_code", lambda _: {"$code" * 10_000: ["everywhere"]})
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert cli.main(["check", "hippocampus_mri_unetpp"]) == 1
    assert capsys.readouterr().err == "monai-unetpp: this is wrong.\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_output_that_finds_no_room_on_the_disk_is_an_error(monkeypatch, capsys, number):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(number, os.strerror(number))

        def fileno(self):
            raise OSError(errno.EBADF, "not a file")

    monkeypatch.setattr(sys, "stdout", Full())
    assert cli.main(["bundles", "--json"]) == 2
    assert f"the program's output: cannot be written ({os.strerror(number)})" in capsys.readouterr().err


def test_what_breaks_within_the_work_is_no_reader_that_has_gone(monkeypatch, capsys):
    from monai_unetpp import bundles

    def broken(*_, **__):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(bundles, "check_bundle", broken)
    assert cli.main(["check", "hippocampus_mri_unetpp"]) == 2
    assert "Broken pipe" in capsys.readouterr().err


def test_a_command_does_its_work_where_its_streams_are_closed_from_the_start(monkeypatch):
    from monai_unetpp import bundles, progress

    def counted(*_, **__):
        with progress.counting(True, "checking") as count:
            count(1, 1)
        progress.write_line("a line")
        return ["a problem"]

    monkeypatch.setattr(bundles, "check_bundle", counted)
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["check", "hippocampus_mri_unetpp"]) == 1
    assert (sys.stdout, sys.stderr) == (None, None)


def test_messages_that_nobody_reads_do_not_end_a_command(monkeypatch):
    from monai_unetpp import bundles

    def told(*_, **__):
        sys.stderr.write("x" * 100_000)
        sys.stderr.flush()
        return []

    monkeypatch.setattr(bundles, "check_bundle", told)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as output:
        monkeypatch.setattr(sys, "stderr", output)
        assert cli.main(["check", "hippocampus_mri_unetpp"]) == 0


def test_long_work_goes_on_where_its_terminal_is_closed(monkeypatch, stub_prune):
    from monai_unetpp import training_run

    class Closed:
        def write(self, text):
            raise OSError(errno.EIO, "Input/output error")

        def flush(self):
            raise OSError(errno.EIO, "Input/output error")

    told, path = [], Path("bundle")

    def train(options, progress):
        for step in range(3):
            progress(f"step {step}")
            told.append(step)
        return training_run.TrainingOutcome(path, None, path, "inconclusive", "L2", "Too few cases.", 3)

    monkeypatch.setattr(training_run, "train", train)
    monkeypatch.setattr(sys, "stdout", Closed())
    assert cli.main(["train", "D", "-o", "O"]) == 3
    assert told == [0, 1, 2]
    stub_prune(pruning_result("inconclusive"))
    assert cli.main(["prune", "D", "-o", "O"]) == 3


def test_figures_that_cannot_be_written_are_refused_before_measuring(run, tmp_path):
    code, _, err = run("benchmark", "--quick", "-o", tmp_path)
    assert code == 2
    assert err.startswith(f"monai-unetpp: output must be a file, got the folder '{tmp_path}'. Give it a name")
    (tmp_path / "file").write_text("")
    code, _, err = run("benchmark", "--quick", "-o", tmp_path / "file" / "figures.json")
    assert code == 2
    assert "must be a folder that can be written to" in err


def test_warnings_do_not_hand_control_characters_of_names_to_the_terminal(monkeypatch, capsys):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with logging_to_stderr(False):
        logging.getLogger("monai_unetpp.data").warning("a\x1b[31m.nii: unusual.\nSecond line")
    assert capsys.readouterr().err == "a\\x1b[31m.nii: unusual.\nSecond line\n"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_what_the_terminal_cannot_show_is_escaped(monkeypatch, encoding):
    from monai_unetpp import bundles

    def told(*_, **__):
        sys.stdout.write("K\u00f6pfe \udcff\n")
        return []

    monkeypatch.setattr(bundles, "check_bundle", told)
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", output)
    assert cli.main(["check", "hippocampus_mri_unetpp"]) == 0
    output.flush()
    shown = output.buffer.getvalue().decode(encoding)
    assert shown.splitlines()[0] == ("K\u00f6pfe \\udcff" if encoding == "utf-8" else "K\\xf6pfe \\udcff")


def test_the_fingerprint_of_a_planned_bundle_is_not_replaced(decathlon_dir, tmp_path, run):
    (tmp_path / "plan.json").write_text("{}")
    code, _, err = run("check", decathlon_dir, "--fingerprint", tmp_path / "fingerprint.json")
    assert (code, (tmp_path / "fingerprint.json").exists()) == (2, False)
    assert "is of a planned bundle, which has the ranges of its training cases" in err

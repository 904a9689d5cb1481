"""Whole studies: done, interrupted, shared, refused and failed."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from forked import run_forked

from monai_unetpp import cli, files
from monai_unetpp.losses import NestedDeepSupervisionLoss
from monai_unetpp.study import format_study, run_study
from monai_unetpp.study import study as orchestration
from monai_unetpp.training import NumberedPatches


def states(outcome):
    return {run.name: run.state for run in outcome.runs}


@pytest.fixture
def drawn(monkeypatch):
    """The numbers of all training patches that are drawn from now on."""
    numbers, original = [], NumberedPatches.__getitem__

    def record(self, index):
        numbers.append(index)
        return original(self, index)

    monkeypatch.setattr(NumberedPatches, "__getitem__", record)
    return numbers


@pytest.fixture
def interrupted(discs_dir, tmp_path, tiny, monkeypatch):
    """A folder in which U-Net L2 was interrupted in its fifth step."""
    original = NumberedPatches.__getitem__

    def interrupt(self, index):
        if index == 9:
            raise KeyboardInterrupt
        return original(self, index)

    with monkeypatch.context() as patched:
        patched.setattr(NumberedPatches, "__getitem__", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_study(discs_dir, tmp_path, variants=["unet_L2"], **tiny)
    return tmp_path


@pytest.mark.slow
def test_a_finished_study(tiny_study):
    folder, outcome = tiny_study
    assert outcome.failures == ()
    assert set(states(outcome).values()) == {"finished"}
    assert outcome.report == folder / "study.md"
    content = json.loads((folder / "study.json").read_text())
    assert [row["name"] for row in content["rows"]] == [
        "U-Net L1",
        "U-Net L2",
        "UNet++, deep supervision",
        "UNet++, deep supervision, mean of heads",
        "UNet++ L1, embedded",
        "UNet++ L1, alone",
    ]
    assert outcome.report.read_text() == format_study(content)
    for name in ("accuracy.png", "curves.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    for row in content["rows"]:
        assert list(content["scores"][row["name"]]["0"]) == ["disc_5", "disc_6", "disc_7"]
        # the mean of the table, from the scores of the cases
        iou = [case["disc"]["iou"] for case in content["scores"][row["name"]]["0"].values()]
        assert row["iou"]["mean"] == pytest.approx(sum(iou) / 3)
    # the level alone is the U-Net of depth 1; the embedded one is another network
    scores = content["scores"]
    assert scores["UNet++ L1, alone"] == scores["U-Net L1"]
    assert scores["UNet++ L1, embedded"] != scores["UNet++ L1, alone"]


@pytest.mark.slow
def test_what_a_run_leaves_behind(tiny_study):
    folder = tiny_study[0] / "runs" / "unet++_ds" / "seed_0"
    assert sorted(path.name for path in folder.glob("[!.]*")) == ["curve.csv", "model.pt", "result.json"]
    lines = (folder / "curve.csv").read_text().splitlines()
    assert lines[0] == "step,loss,learning_rate,seconds"
    assert [int(line.split(",")[0]) for line in lines[1:]] == [1, 2, 3, 4, 5, 6]
    content = json.loads((folder / "result.json").read_text())
    assert set(content["scores"]) == set(content["sizes"]) == {"L1", "L2", "mean"}
    assert content["sizes"]["L1"]["parameters"] < content["sizes"]["L2"]["parameters"]


@pytest.mark.slow
def test_finished_runs_are_not_repeated(tiny_study, discs_dir, drawn):
    folder, before = tiny_study
    # settings that are not given are those of the folder
    outcome = run_study(discs_dir, folder, variants=["unet_L?"], device="cpu")
    assert drawn == []
    assert states(outcome) == {"unet_L1, seed 0": "finished", "unet_L2, seed 0": "finished"}
    assert outcome.report == before.report


@pytest.mark.slow
def test_an_interrupted_run_gives_what_it_would_have_given(tiny_study, interrupted, discs_dir, tiny, drawn):
    listed = run_study(discs_dir, interrupted, variants=["unet_L2"], list_only=True, **tiny)
    assert states(listed) == {"unet_L2, seed 0": "interrupted"}
    outcome = run_study(discs_dir, interrupted, variants=["unet_L2"], **tiny)
    assert states(outcome) == {"unet_L2, seed 0": "finished"}
    # from the checkpoint after step 4 on, with two patches per step
    assert drawn == [8, 9, 10, 11]
    one, other = (root / "runs" / "unet_L2" / "seed_0" for root in (tiny_study[0], interrupted))
    weights = [torch.load(folder / "model.pt", weights_only=True) for folder in (one, other)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    results = [json.loads((folder / "result.json").read_text()) for folder in (one, other)]
    assert results[0]["scores"] == results[1]["scores"]
    curves = [[line.split(",")[:3] for line in (f / "curve.csv").read_text().splitlines()] for f in (one, other)]
    assert curves[0] == curves[1]


@pytest.mark.slow
def test_a_budget_that_is_no_multiple_of_the_checkpoints(discs_dir, tmp_path, tiny, drawn):
    outcome = run_study(discs_dir, tmp_path, variants=["unet_L1"], **{**tiny, "budget": 3})
    assert outcome.failures == ()
    assert drawn == [0, 1, 2, 3, 4, 5]
    assert len((tmp_path / "runs" / "unet_L1" / "seed_0" / "curve.csv").read_text().splitlines()) == 1 + 3


@pytest.mark.slow
def test_scoring_that_was_interrupted_needs_no_training(tiny_study, discs_dir, tmp_path, tiny, drawn):
    folder = tmp_path / "study"
    shutil.copytree(tiny_study[0], folder)
    result = folder / "runs" / "unet_L1" / "seed_0" / "result.json"
    before = json.loads(result.read_text())
    result.unlink()
    run_study(discs_dir, folder, variants=["unet_L1"], **tiny)
    assert drawn == []
    assert json.loads(result.read_text())["scores"] == before["scores"]


@pytest.mark.slow
def test_other_settings_are_refused(tiny_study, discs_dir, tiny):
    with pytest.raises(ValueError, match=r"output_dir must hold runs of the same settings only.*budget was 6 and is 7"):
        run_study(discs_dir, tiny_study[0], **{**tiny, "budget": 7})


@pytest.mark.slow
def test_runs_of_other_settings_are_refused_in_the_report(tiny_study, discs_dir, tmp_path, tiny):
    folder = tmp_path / "study"
    shutil.copytree(tiny_study[0], folder)
    path = folder / "runs" / "unet_L1" / "seed_0" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fingerprint": "other"}))
    with pytest.raises(ValueError, match=r"result\.json: must be a run of the settings and cases of this study"):
        run_study(discs_dir, folder, variants=["unet_L1"], report_only=True, **tiny)


@pytest.mark.slow
def test_shards_share_the_runs_and_the_last_one_reports(discs_dir, tmp_path, tiny):
    options = {"variants": ["unet_L1"], "seeds": [0, 1], **tiny}
    first = run_study(discs_dir, tmp_path, shard="1/2", **options)
    assert states(first) == {"unet_L1, seed 0": "finished", "unet_L1, seed 1": "open"}
    assert first.report is None
    second = run_study(discs_dir, tmp_path, shard="2/2", **options)
    assert set(states(second).values()) == {"finished"}
    content = json.loads(second.report.with_suffix(".json").read_text())
    assert set(content["rows"][0]["iou"]["by_seed"]) == {"0", "1"}
    assert content["rows"][0]["iou"]["sd"] is not None


@pytest.mark.slow
def test_a_failed_run_of_one_process_does_not_end_the_other(discs_dir, tmp_path):
    """The second process fails at once, while the first has two runs to do, and then the report."""
    broken = tmp_path / "runs" / "unet_L2" / "seed_0" / "model.pt"
    broken.parent.mkdir(parents=True)
    broken.write_text("no weights")
    options = "--features 2 4 4 --budget 40 --batch_size 2 --patch_size 16 --precision fp32 --device cpu"
    done = run_forked(
        *("monai_unetpp", "study", "--dataset_dir", discs_dir, "-o", tmp_path),
        *("--variants", "unet_L?", "unet+", "--seeds", "0", *options.split()),
        folder=tmp_path,
        processes=2,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.count(f"Report: {tmp_path / 'study.md'}") == 1
    assert "1 run failed; the others are done" in done.stderr
    content = json.loads((tmp_path / "study.json").read_text())
    assert [row["name"] for row in content["rows"]] == ["U-Net L1", "UNet+", "UNet++ L1, alone"]
    assert "U-Net L2" in content["missing"]


@pytest.mark.slow
def test_a_run_that_fails_leaves_the_others(discs_dir, tmp_path, tiny, monkeypatch):
    original = orchestration.train_network

    def fail(bundle, values, **options):
        if values["variant"] == "unet+":
            raise RuntimeError("the loss became nan at step 3")
        return original(bundle, values, **options)

    options = {"variants": ["unet+", "unet_L1"], **tiny}
    with monkeypatch.context() as patched:
        patched.setattr(orchestration, "train_network", fail)
        outcome = run_study(discs_dir, tmp_path, **options)
    assert outcome.failures == ("unet+, seed 0: RuntimeError: the loss became nan at step 3",)
    assert states(outcome) == {"unet_L1, seed 0": "finished", "unet+, seed 0": "failed"}
    assert "Not trained yet: U-Net L2;" in outcome.report.read_text()
    assert states(run_study(discs_dir, tmp_path, **options))["unet+, seed 0"] == "finished"


def test_a_run_of_another_study_in_the_same_folder_is_refused(discs_dir, tmp_path, tiny, monkeypatch, capsys, drawn):
    """Such as a job that was started twice: each would go on from the checkpoints of the other."""
    monkeypatch.setattr(files, "_PATIENCE_S", 0.0)
    run = tmp_path / "runs" / "unet_L1" / "seed_0"
    run.mkdir(parents=True)
    options = [*("--features", "2", "4", "4"), *("--budget", "6"), *("--patch_size", "16"), *("--device", "cpu")]
    with files.claimed(run, "trains"):
        code = cli.main(["study", str(discs_dir), "-o", str(tmp_path), "--variants", "unet_L1", *options])
    assert code == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith("seed_0: another process trains there. Wait until it has ended, or take another folder.")
    )
    assert drawn == []
    assert not (run / "failure.txt").exists()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_fails_the_run(discs_dir, tmp_path, tiny, monkeypatch):
    loss = NestedDeepSupervisionLoss.forward
    monkeypatch.setattr(NestedDeepSupervisionLoss, "forward", lambda *arguments: loss(*arguments) * float("nan"))
    outcome = run_study(discs_dir, tmp_path, variants=["unet_L1"], **tiny)
    assert len(outcome.failures) == 1
    assert "Give a lower learning_rate" in outcome.failures[0]
    assert outcome.report is None


@pytest.mark.parametrize(
    ("file", "value", "message"),
    [
        (
            "labelsTr/disc_2.nii.gz",
            7,
            r"disc_2\.nii\.gz: the label must hold 0 and 1 only, got 7\. Correct the label",
        ),
        ("labelsTr/disc_2.nii.gz", 257, r"disc_2\.nii\.gz: the label must hold 0 and 1 only, got 257"),
        ("imagesTr/disc_2.nii.gz", 7, r"disc_2\.nii\.gz: all voxels have the value 7\.0, so there is nothing"),
        ("labelsTr/disc_6.nii.gz", 7, r"disc_6\.nii\.gz: the label must hold 0 and 1 only, got 7"),  # of validation
    ],
)
def test_broken_cases_are_found_before_training(discs_dir, tmp_path, tiny, drawn, file, value, message):
    root = shutil.copytree(discs_dir, tmp_path / "data")
    dtype = np.float32 if file.startswith("images") else np.int16
    nib.save(nib.Nifti1Image(np.full((24, 24), value, dtype), np.eye(4)), root / file)
    with pytest.raises(ValueError, match=rf"cases must be sound, got 1 of 8 with a problem:\n.*{message}"):
        run_study(root, tmp_path / "out", variants=["unet_L1"], **tiny)
    assert drawn == []
    # nothing was trained: the folder is free for other settings
    assert not (tmp_path / "out").exists()


def test_a_folder_is_not_taken_by_what_trained_nothing(discs_dir, tmp_path, tiny, monkeypatch):
    def missing(*arguments):
        raise ImportError("install matplotlib")

    with pytest.raises(ValueError, match="output_dir must hold a finished run"):
        run_study(discs_dir, tmp_path, variants=["unet_L1"], report_only=True, **tiny)
    with pytest.raises(ValueError, match="got 'unet_5'"):
        run_study(discs_dir, tmp_path, variants=["unet_5"], **tiny)
    with monkeypatch.context() as patched:
        patched.setattr(orchestration, "check_drawing", missing)
        with pytest.raises(ImportError):
            run_study(discs_dir, tmp_path, variants=["unet_L1"], **tiny)
    assert list(tmp_path.iterdir()) == []


def test_a_device_on_which_no_costs_can_be_measured_is_refused_before_any_work(discs_dir, tmp_path, tiny):
    with pytest.raises(ValueError, match="device must be a CPU or a CUDA device, got 'mps'"):
        run_study(discs_dir, tmp_path, variants=["unet_L1"], **{**tiny, "device": "mps"})


@pytest.mark.slow
def test_another_data_set_for_a_folder(tiny_study, decathlon_dir):
    with pytest.raises(ValueError, match="its cases, images or labels are not those of dataset_dir"):
        run_study(decathlon_dir, tiny_study[0], device="cpu")


@pytest.mark.slow
def test_any_label_values_train_the_same_network(tiny_study, discs_dir, tmp_path, tiny):
    root = shutil.copytree(discs_dir, tmp_path / "data")
    for path in (root / "labelsTr").iterdir():
        data = 300 * np.asarray(nib.load(path).dataobj, dtype=np.int16)
        nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "labels": {"0": "background", "300": "disc"}}))
    outcome = run_study(root, tmp_path / "out", variants=["unet_L2"], **tiny)
    mine, theirs = (
        json.loads((folder / "runs" / "unet_L2" / "seed_0" / "result.json").read_text())
        for folder in (tmp_path / "out", tiny_study[0])
    )
    assert outcome.failures == ()
    assert mine["config"]["out_channels"] == 2
    assert mine["scores"] == theirs["scores"]


@pytest.mark.slow
def test_voxels_that_are_to_be_ignored(discs_dir, tmp_path, tiny):
    root = shutil.copytree(discs_dir, tmp_path / "data")
    for path in (root / "labelsTr").iterdir():
        data = 7 * np.asarray(nib.load(path).dataobj)
        data[:4] = 9
        nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "labels": {"none": 0, "disc": 7, "ignore": 9}}))
    outcome = run_study(root, tmp_path / "out", variants=["unet_L1"], **tiny)
    assert outcome.failures == ()
    result = json.loads((tmp_path / "out" / "runs" / "unet_L1" / "seed_0" / "result.json").read_text())
    assert result["config"]["out_channels"] == 2
    assert set(result["scores"]["L1"]["disc_5"]) == {"disc"}


@pytest.mark.slow
def test_a_wide_network_that_does_not_exist_is_left_out(discs_dir, tmp_path, tiny):
    told = []
    listed = run_study(discs_dir, tmp_path, variants=["unet_*"], list_only=True, progress=told.append, **tiny)
    assert [run.variant.name for run in listed.runs] == ["unet_L1", "unet_L2", "unet_e"]
    assert told[0].startswith("unet_wide is left out: features must be large enough")
    with pytest.raises(ValueError, match="features must be large enough"):
        run_study(discs_dir, tmp_path, variants=["unet_wide"], **tiny)


@pytest.mark.slow
def test_a_report_does_not_miss_a_wide_network_that_does_not_exist(tiny_study):
    missing = json.loads((tiny_study[0] / "study.json").read_text())["missing"]
    assert "UNet+" in missing
    assert "wide U-Net" not in missing


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2])
def test_channels_on_a_fourth_axis(decathlon_dir, tmp_path, tiny, channels):
    root = shutil.copytree(decathlon_dir, tmp_path / "data")
    for path in (root / "imagesTr").iterdir():
        image = nib.load(path)
        data = np.stack([image.get_fdata(dtype=np.float32)] * 2, axis=-1)
        nib.save(nib.Nifti1Image(data, image.affine), path)
    path = root / "dataset.json"
    names = {str(number): name for number, name in enumerate(["T1", "T2"][:channels])}
    path.write_text(json.dumps({**json.loads(path.read_text()), "modality": names}))
    options = {"variants": ["unet_L1"], **tiny, "budget": 2, "spacing_mm": 1.5}
    if channels == 1:
        # a series in time is no image of several channels
        with pytest.raises(ValueError, match=r"must name the channels .* got 1 name for 2 on the last axis"):
            run_study(root, tmp_path / "out", **options)
        return
    outcome = run_study(root, tmp_path / "out", **options)
    assert outcome.failures == ()
    result = json.loads((tmp_path / "out" / "runs" / "unet_L1" / "seed_0" / "result.json").read_text())
    assert result["config"]["in_channels"] == 2
    assert set(result["scores"]["L1"]) == {"case_4", "case_5"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seeds": [0, 0]}, ValueError, r"seeds must be different whole numbers from 0 up, got \[0, 0\]"),
        ({"seeds": []}, ValueError, r"seeds must be different"),
        ({"variants": "unet_L1"}, TypeError, r"variants must be a list of names, got 'unet_L1'"),
        ({"shard": "3/2"}, ValueError, r"shard must be K/N with K from 1 to N, got 3/2"),
        ({"shard": "0/2"}, ValueError, r"shard must be K/N with K from 1 to N, got 0/2"),
        ({"shard": "half"}, ValueError, r"shard must be K/N, got 'half'"),
        ({"num_workers": -1}, ValueError, r"num_workers must be 0 or more, got -1"),
        ({"cache_rate": 2}, ValueError, r"cache_rate must lie between 0 and 1, got 2"),
        ({"report_only": True}, ValueError, r"output_dir must hold a finished run"),
    ],
)
def test_arguments_that_cannot_work(discs_dir, tmp_path, tiny, options, error, message):
    with pytest.raises(error, match=message):
        run_study(discs_dir, tmp_path, **{"variants": ["unet_L1"], **tiny, **options})


@pytest.mark.slow
def test_volumes_with_two_classes_and_a_config_file(decathlon_dir, tmp_path, tiny):
    root = shutil.copytree(decathlon_dir, tmp_path / "data")
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "labels": {"0": "no", "1": "front", "2": "left back"}}))
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"variants": ["unet_L1"], "seeds": [3], "budget": 9, "spacing_mm": 1.5}))
    outcome = run_study(root, tmp_path / "out", config=config, **{**tiny, "budget": 2})
    assert states(outcome) == {"unet_L1, seed 3": "finished"}
    content = json.loads(outcome.report.with_suffix(".json").read_text())
    assert content["settings"]["patch_size"] == [16, 16, 16]
    assert content["settings"]["budget"] == 2
    # a mirrored label of one side is another one
    assert content["settings"]["flip_axes"] == []
    assert set(content["scores"]["U-Net L1"]["3"]["case_4"]) == {"front", "left back"}
    config.write_text(json.dumps({"variants": None, "seeds": None}))
    assert run_study(root, tmp_path / "out", config=config, list_only=True, **{**tiny, "budget": 2}).runs


@pytest.mark.slow
def test_the_command_line(tiny_study, discs_dir, capsys):
    common = ["study", "--dataset_dir", str(discs_dir), "-o", str(tiny_study[0]), "--device", "cpu"]
    assert cli.main([*common, "--variants", "unet_L?", "unet+", "--list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [(row[0], row[-1]) for row in rows] == [("unet_L1", "finished"), ("unet_L2", "finished"), ("unet+", "open")]
    assert cli.main([*common, "--variants", "unet_L?", "--report_only"]) == 0
    assert "| UNet++, deep supervision |" in capsys.readouterr().out
    assert cli.main([*common, "--variants", "unet_L?", "--batch_size", "3"]) == 2
    assert "batch_size was 2 and is 3" in capsys.readouterr().err


def test_exit_code_when_a_run_fails(discs_dir, tmp_path, tiny, capsys, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("out of paper")

    monkeypatch.setattr(orchestration, "train_network", fail)
    common = ["study", "--dataset_dir", str(discs_dir), "-o", str(tmp_path), "--device", "cpu"]
    assert cli.main([*common, "--features", "2", "4", "4", "--variants", "unet_L1"]) == 1
    assert "unet_L1, seed 0: RuntimeError: out of paper" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_study_on_a_gpu(discs_dir, tmp_path, tiny):
    outcome = run_study(
        discs_dir, tmp_path, variants=["unet++_ds"], **{**tiny, "device": "cuda:0", "precision": "auto"}
    )
    assert outcome.failures == ()
    content = json.loads(outcome.report.with_suffix(".json").read_text())
    assert content["environment"]["device"] == torch.cuda.get_device_name(0)
    assert len(content["rows"]) == 3

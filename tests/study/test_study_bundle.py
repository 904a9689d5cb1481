"""The bundle of a study: plain configuration that MONAI runs on its own, and that reads nothing in users' texts."""

import json
import shutil

import monai.bundle
import pytest
import torch

from monai_unetpp.study import run_study


@pytest.mark.slow
def test_monai_alone_trains_and_evaluates_what_the_study_did(tiny_study, discs_dir, tmp_path):
    folder = tiny_study[0]
    bundle, run = folder / "bundle", folder / "runs" / "unet++_ds" / "seed_0"
    configs = [str(bundle / "configs" / name) for name in ("train.json", "evaluate.json")]
    common = {"bundle_root": str(bundle), "dataset_dir": str(discs_dir), "device": "$torch.device('cpu')"}
    monai.bundle.run(config_file=configs[:1], output_dir=str(tmp_path), **common)
    mine, theirs = (torch.load(path / "model.pt", weights_only=True) for path in (tmp_path, run))
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    monai.bundle.run(config_file=configs, checkpoint=str(run / "model.pt"), output_dir=str(tmp_path / "eval"), **common)
    lines = (tmp_path / "eval" / "val_mean_iou_raw.csv").read_text().splitlines()[1:]
    scores = json.loads((run / "result.json").read_text())["scores"]["L2"]
    assert [float(line.split(",")[-1]) for line in lines] == pytest.approx(
        [case["disc"]["iou"] for case in scores.values()], abs=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["$1 / 0", "@seed", "%seed", "a#b::c"])
def test_folders_and_labels_with_signs_of_monai_are_names(discs_dir, tmp_path, tiny, name):
    root = shutil.copytree(discs_dir, tmp_path / f"data {name.replace('/', ':')}" / name.replace("/", ":"))
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "name": name, "labels": {"0": "none", "1": name}}))
    folder = tmp_path / name.replace("/", ":")
    outcome = run_study(root, folder, variants=["unet_L1"], **{**tiny, "budget": 2})
    assert outcome.failures == ()
    assert (folder / "runs" / "unet_L1" / "seed_0" / "result.json").is_file()
    assert name in json.loads((folder / "study.json").read_text())["cases"]["labels"]

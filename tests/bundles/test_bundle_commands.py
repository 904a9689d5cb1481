"""Every command that the bundles promise; of each kind one is run as a user runs it, from another working directory."""

import csv
import logging
import sys
import types
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_runs import configs, missing_properties, run_command, run_here, run_torchrun, succeed, training_in_processes
from monai.bundle import ConfigParser
from monai.utils import set_determinism

from monai_unetpp import NestedUNet
from monai_unetpp.bundles import BundleConfig, check_bundle

SCHEMA = Path(__file__).resolve().parents[3] / "shared" / "schema" / "meta_schema_20240725.json"
QUICK = [
    "--steps",
    "2",
    "--num_workers",
    "0",
    "--compile",
    "False",
    "--patch_size",
    "[16,16,16]",
    "--precision",
    "fp32",
]


def test_the_bundle_follows_the_rules_of_the_model_zoo(bundle):
    schema = SCHEMA if SCHEMA.is_file() else None
    assert check_bundle(bundle, schema=schema) == []


def test_verify_metadata_with_a_local_schema(bundle, tmp_path, caplog):
    if not SCHEMA.is_file():
        pytest.skip("the metadata schema is not at hand, and tests download nothing")
    local = tmp_path / "schema.json"
    local.write_bytes(SCHEMA.read_bytes())
    with caplog.at_level(logging.INFO):
        run_here("verify_metadata", "--meta_file", bundle / "configs" / "metadata.json", "--filepath", local)
    assert "metadata is verified with no error" in caplog.text


@pytest.mark.parametrize("config", ["train.json", "inference.json"])
@pytest.mark.slow
def test_verify_net_in_out(bundle, caplog, config):
    if config == "train.json" and "hippocampus" not in bundle.name:
        pytest.skip("the rules of the model zoo, tested above, say that all configurations define one network")
    folder = bundle / "configs"
    with caplog.at_level(logging.INFO):
        run_here(
            *("verify_net_in_out", "network_def", "--bundle_root", bundle),
            *("--config_file", folder / config, "--meta_file", folder / "metadata.json"),
        )
    assert "data shape of network is verified with no error" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("workflow_type", ["train", "infer"])
def test_monai_finds_all_properties_of_a_workflow(bundle, request, tmp_path, workflow_type):
    kind = next((kind for kind in ("nuclei", "head") if kind in bundle.name), None)
    data_sets = {"nuclei": "nuclei_dir", "head": "heads_dir", None: "decathlon_dir"}
    labelled = request.getfixturevalue(data_sets[kind])
    images = labelled if workflow_type == "train" else labelled / "imagesTr"
    assert missing_properties(bundle, workflow_type, dataset_dir=images, output_dir=tmp_path) == []


@pytest.mark.slow
def test_monai_loads_the_network_without_any_data(bundle):
    try:
        network = monai.bundle.load(bundle.name, bundle_dir=str(bundle.parent))
    finally:
        set_determinism(seed=None)
    stored = torch.load(bundle / "models" / "model.pt", weights_only=True)
    weights = network.state_dict()
    assert isinstance(network, NestedUNet)
    assert all(torch.equal(weights[name], value) for name, value in stored.items() if isinstance(value, torch.Tensor))


@pytest.mark.slow
def test_ckpt_export_gives_the_same_numbers(bundle, tmp_path):
    exported = tmp_path / "model.ts"
    config = bundle / "configs" / "inference.json"
    run_here("ckpt_export", "network_def", "--filepath", exported, "--config_file", config, "--bundle_root", bundle)
    network = NestedUNet.from_checkpoint(bundle / "models" / "model.pt").eval()
    size = (17, 16, 9)[: network.spatial_dims]
    x = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(exported)(x), network(x), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_commands_that_check_and_export_in_a_process_of_their_own(hippocampus_bundle, tmp_path):
    folder = hippocampus_bundle / "configs"
    common = ("--config_file", folder / "inference.json", "--bundle_root", hippocampus_bundle)
    done = run_command(tmp_path, "verify_net_in_out", "network_def", *common, "--meta_file", folder / "metadata.json")
    assert "data shape of network is verified with no error" in succeed(done).stdout + done.stderr
    succeed(run_command(tmp_path, "ckpt_export", "network_def", *common, "--filepath", tmp_path / "model.ts"))
    assert (tmp_path / "model.ts").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("level", [None, "L1"])
def test_inference_writes_labels_on_the_grid_of_the_input(hippocampus_bundle, decathlon_dir, tmp_path, level):
    case = decathlon_dir / "imagesTr" / "case_4.nii.gz"
    run_here(
        *("run", "--config_file", hippocampus_bundle / "configs" / "inference.json"),
        *("--bundle_root", hippocampus_bundle, "--input", case, "--output_dir", tmp_path / "out"),
        *(["--level", level] if level else []),
    )
    image, labels = nib.load(case), nib.load(tmp_path / "out" / "case_4_seg.nii.gz")
    assert labels.shape == image.shape
    assert np.array_equal(labels.affine, image.affine)
    assert labels.header["sform_code"] == image.header["sform_code"]
    assert set(np.unique(labels.dataobj)) <= {0, 1, 2}
    (names,) = labels.header.extensions
    assert b">anterior<" in names.get_content()
    assert b">posterior<" in names.get_content()


@pytest.mark.slow
def test_inference_takes_the_zoos_key_and_goes_on_after_a_broken_file(hippocampus_bundle, decathlon_dir, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "good.nii.gz").write_bytes((decathlon_dir / "imagesTr" / "case_0.nii.gz").read_bytes())
    (folder / "broken.nii.gz").write_text("no image")
    done = run_command(
        tmp_path,
        *("run", "--config_file", hippocampus_bundle / "configs" / "inference.json"),
        *("--bundle_root", hippocampus_bundle, "--dataset_dir", folder, "--output_dir", tmp_path / "out"),
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert f"{folder / 'broken.nii.gz'}: not a NIfTI image" in done.stdout + done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good_seg.nii.gz"]


@pytest.mark.slow
def test_train_resume_and_evaluate(hippocampus_bundle, decathlon_dir, tmp_path):
    out = tmp_path / "training"
    common = ["--bundle_root", hippocampus_bundle, "--dataset_dir", decathlon_dir]
    train = ["run", "--config_file", configs(hippocampus_bundle, "train.json"), *common, "--output_dir", out]
    succeed(run_command(tmp_path, *train, *QUICK))
    run_here(*train, *QUICK[2:], "--steps", "3")
    with (out / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert NestedUNet.from_checkpoint(out / "model.pt").levels == ("L1", "L2", "L3")

    run_here(
        *("run", "--config_file", configs(hippocampus_bundle, "train.json", "evaluate.json"), *common),
        *("--output_dir", tmp_path / "evaluation", "--checkpoint", out / "model.pt", "--level", "L2"),
    )
    with (tmp_path / "evaluation" / "val_mean_dice_raw.csv").open() as file:
        cases = list(csv.DictReader(file))
    assert [Path(row["filename"]).name for row in cases] == ["case_4.nii.gz", "case_5.nii.gz"]
    # two processes share the cases; weights to start from are for trainings
    files = configs(hippocampus_bundle, "train.json", "evaluate.json", "multi_gpu_train.json")
    shared = ["--output_dir", tmp_path / "shared", "--checkpoint", out / "model.pt", "--level", "L2"]
    others = ["--init", hippocampus_bundle / "models" / "model.pt", "--num_workers", "0"]
    succeed(run_command(tmp_path, "run", "--config_file", files, *common, *shared, *others, processes=2))
    with (tmp_path / "shared" / "val_mean_dice_raw.csv").open() as file:
        assert sorted(csv.DictReader(file), key=lambda row: row["filename"]) == cases


@pytest.mark.slow
def test_fine_tuning_starts_from_the_weights_of_the_bundle(hippocampus_bundle, decathlon_dir, tmp_path):
    """With next to no learning rate they stay where they are; only the statistics of batch norms move."""
    run_here(
        *("run", "--config_file", configs(hippocampus_bundle, "train.json", "finetune.json")),
        *("--bundle_root", hippocampus_bundle, "--dataset_dir", decathlon_dir, "--output_dir", tmp_path / "out"),
        *("--learning_rate", "1e-9", *QUICK),
    )
    found = NestedUNet.from_checkpoint(tmp_path / "out" / "model.pt").state_dict()
    given = NestedUNet.from_checkpoint(hippocampus_bundle / "models" / "model.pt").state_dict()
    assert found.keys() == given.keys()
    for name, weights in given.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(found[name], weights, atol=1e-6, rtol=0, msg=name)


def test_fine_tuning_does_not_go_on_with_the_training_that_made_the_weights(bundle):
    """As it would in the same folder, whose checkpoint it would find."""
    trained, tuned = (BundleConfig(bundle, "train.json", *others) for others in ((), ("finetune.json",)))
    assert trained.parse("output_dir") != tuned.parse("output_dir")
    readme = (bundle / "docs" / "README.md").read_text()
    assert all(line.endswith("--output_dir O_finetuned") for line in readme.splitlines() if "/finetune.json'" in line)


@pytest.mark.slow
def test_a_level_trained_alone_has_only_its_own_nodes(hippocampus_bundle, decathlon_dir, tmp_path):
    run_here(
        *("run", "--config_file", configs(hippocampus_bundle, "train.json"), "--bundle_root", hippocampus_bundle),
        *("--dataset_dir", decathlon_dir, "--output_dir", tmp_path / "alone", "--level", "L1", *QUICK),
    )
    network = NestedUNet.from_checkpoint(tmp_path / "alone" / "model.pt")
    assert network.levels == ("L1",)
    assert set(network.nodes) == {"x_0_0", "x_1_0", "x_0_1"}


@pytest.mark.slow
def test_two_processes_train_together(hippocampus_bundle, decathlon_dir, tmp_path):
    out = tmp_path / "training"
    succeed(run_torchrun(tmp_path, *training_in_processes(hippocampus_bundle, decathlon_dir, out, *QUICK)))
    assert NestedUNet.from_checkpoint(out / "model.pt").levels == ("L1", "L2", "L3")


def test_hosts_that_read_images_themselves_find_what_they_need(bundle):
    """The MONAI Deploy App SDK leaves LoadImaged out, and takes a ``network`` before ``network_def``."""
    inference = ConfigParser.load_config_file(bundle / "configs" / "inference.json")
    load, channel = inference["preprocessing"]["transforms"][:2]
    assert "ensure_channel_first" not in load
    assert channel == {"_target_": "EnsureChannelFirstd", "keys": "@image"}
    assert "network" not in inference


@pytest.mark.slow
def test_monai_label_finds_the_model_that_it_trained(written_bundle, monkeypatch):
    def trained() -> BundleConfig:
        config = BundleConfig(written_bundle, "train.json")
        config["train#dataset#data"] = config["validate#dataset#data"] = []
        return config

    config = trained()
    config["output_dir"] = "elsewhere"
    assert config.parse("validate#best_model").path == Path("elsewhere/model.pt")
    monkeypatch.setitem(sys.modules, "monailabel", types.ModuleType("monailabel"))
    config = trained()
    assert config.parse("validate#best_model").path == written_bundle / "models" / "model.pt"
    assert config.parse("check_data") is False


def test_configs_repeat_each_other_exactly(written_bundle):
    """What inference.json must repeat from train.json is equal: the network, and the preprocessing of the image."""
    train, inference = (
        ConfigParser.load_config_file(written_bundle / "configs" / name) for name in ("train.json", "inference.json")
    )
    assert inference["network_def"] == train["network_def"]
    for key in {"patch_size", "window_shape", "overlap"} & set(inference):
        assert inference[key] == train[key]
    # networks for images also take volumes, slice by slice
    is_2d = train["network_def"]["spatial_dims"] == 2
    # labels are enough to write, while metrics of the training take logits
    inferer = inference["inferer"]["inferer"] if is_2d else inference["inferer"]
    adaptive = {"levels": "$None if @adaptive_tolerance is None else 'adaptive'"}
    adaptive["adaptive_tolerance"] = "@adaptive_tolerance"
    assert inference["adaptive_tolerance"] is None
    skipping = {"skip_constant": "@skip_constant"}
    assert {**inferer, "output": "logits"} == {**train["validate"]["inferer"], **adaptive, **skipping}

    def for_the_image(transform):
        kept = {k: v for k, v in transform.items() if k != "allow_missing_keys"}
        mode = kept.get("mode")
        reader = kept.get("reader")
        if reader:
            kept["reader"] = {k: v for k, v in reader.items() if k != "spatial_dims"}
        return {**kept, "keys": "@image", **({"mode": mode[0]} if isinstance(mode, list) else {})}

    def parts(transform):
        # where hosts load images themselves, they leave LoadImaged out
        if not transform.pop("ensure_channel_first", False):
            return [transform]
        return [transform, {"_target_": "EnsureChannelFirstd", "keys": "@image"}]

    transforms = [train[t.removeprefix("@")] if isinstance(t, str) else t for t in train["preprocessing"]["transforms"]]
    listed = [for_the_image(t) for t in transforms if t["keys"] != "@label"]
    ours = [part for transform in listed for part in parts(transform)]
    # inference does the rest where the network is, training in processes that have no GPU
    theirs = [for_the_image(t) for t in inference["preprocessing"]["transforms"] if t["_target_"] != "EnsureTyped"]
    assert theirs == ours

"""Every code block of the README and of the guides is run in a folder that looks like a user's."""

import contextlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_runs import run_here
from forked import measure_briefly
from monai.bundle import ConfigParser
from monai.networks.nets import BasicUNetPlusPlus

from monai_unetpp import NestedDeepSupervisionLoss, NestedUNet
from monai_unetpp.cli import main, make_parser
from monai_unetpp.data import case_name, load_datalist, write_volume
from monai_unetpp.template import load_template

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = ("segment.md", "train.md", "recipe.md", "networks.md", "export.md", "command_line.md", "faq.md")
TEXT = "\n".join([README, *((ROOT / "docs" / name).read_text(encoding="utf-8") for name in GUIDES)])
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def users_folder(tmp_path, decathlon_dir, monkeypatch):
    """An image, a data set, segmentations of it, parts of the clone and a trained network of MONAI's, by name."""
    shutil.copy(decathlon_dir / "imagesTr" / "case_0.nii.gz", tmp_path / "image.nii.gz")
    shutil.copytree(decathlon_dir, tmp_path / "my_dataset")
    for case in load_datalist(decathlon_dir, "validation"):
        label = nib.load(case["label"])
        path = tmp_path / "segmentations" / f"{case_name(case['image'])}_seg.nii.gz"
        write_volume(path, np.asarray(label.dataobj), case["image"], label.affine)
    for part in ("bundles", "benchmarks"):
        (tmp_path / part).symlink_to(ROOT / part)
    trained = BasicUNetPlusPlus(spatial_dims=2, in_channels=1, out_channels=2, features=(8, 8, 16, 32, 64, 8))
    torch.save(trained.state_dict(), tmp_path / "trained.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks(language):
    return [text for kind, text in BLOCKS if kind == language]


def test_the_readme_has_no_blocks_of_other_kinds():
    assert {kind for kind, _ in BLOCKS} == {"text", "bash", "python", "json"}
    assert "@" not in re.sub(r"`[^`]*`|```.*?```", "", TEXT, flags=re.DOTALL), "an unfilled place"


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(blocks("python"))))
def test_python_blocks(users_folder, index):
    exec(compile(blocks("python")[index], f"README python block {index}", "exec"), {})


def test_the_config_builds_what_it_says():
    [text] = [text for text in blocks("json") if "network_def" in text]
    parser = ConfigParser(json.loads(text))
    network = parser.get_parsed_content("network_def")
    assert isinstance(network, NestedUNet)
    assert isinstance(parser.get_parsed_content("loss"), NestedDeepSupervisionLoss)
    assert network.eval()(torch.rand(1, 1, 9, 8, 4)).shape == (1, 2, 9, 8, 4)


def commands():
    lines = [line for text in blocks("bash") for line in text.splitlines() if line.strip() and line[0] != "#"]
    # what the README and a guide both show, perhaps with another output folder, is run once
    return list({re.sub(r" -o \S+", "", line): line for line in lines if not line.startswith("pip install")}.values())


def installs():
    return [line for text in blocks("bash") for line in text.splitlines() if line.startswith("pip install")]


@pytest.mark.parametrize("command", commands())
@pytest.mark.slow
def test_commands(users_folder, command, monkeypatch):
    words = shlex.split(re.sub(r"\$\w+", "1", command))
    if "scan.nii.gz" in words:
        template = load_template()[0]
        scan = nib.Nifti1Image(template.get_fdata()[::2, ::2, ::2], template.affine @ np.diag([2, 2, 2, 1]))
        nib.save(scan, users_folder / "scan.nii.gz")
    if words[0] == "torchrun":
        words = words[words.index("monai_unetpp") :]
    if words[1] == "benchmark" or words[:3] == ["python", "-m", "benchmarks"]:
        words.append("--quick")
    if words[1] == "prune":
        measure_briefly(monkeypatch)
    if words[1] == "segment" and "bf16" in words:
        # slow on processors that do not have it
        words += ["--level", "L1"]
    if words[1] in ("plan", "train") or "my_bundle" in words or "--help" in words:
        # tests of training do what takes its time, and make the bundle
        _is_understood(words[1:])
    elif words[0] == "monai-unetpp":
        # two cases are too few for a verdict
        assert main(words[1:]) == (3 if words[1] == "prune" else 0)
    elif words[:3] == ["python", "-m", "monai.bundle"]:
        run_here(*words[3:])
    else:
        done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr[-2000:]


def _is_understood(words):
    with contextlib.suppress(SystemExit) if "--help" in words else contextlib.nullcontext():
        make_parser().parse_args(words)


def test_the_readme_shows_its_picture_and_states_the_licence_of_it():
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert pictures == ["docs/images/demo.png"]
    assert (ROOT / pictures[0]).stat().st_size < 500_000
    assert "Copyright (C) 1993" in (ROOT / "docs/images/LICENSE.txt").read_text(encoding="utf-8")


def test_blocks_for_continuous_integration_install_and_run():
    for name, end in (("demo", "&& monai-unetpp demo"), ("test", "&& pytest")):
        block = re.search(rf"<!-- {name} command -->\n```bash\n(.*?)```", README, re.DOTALL)
        assert block[1].strip().startswith("pip install -c constraints.txt -e ")
        assert block[1].strip().endswith(end)


def test_installs_are_constrained_and_end_in_commands_that_exist():
    assert installs()
    assert all("-c constraints.txt" in line for line in installs())
    # the tests of the demonstration run it
    demo = next(line for line in installs() if "demo" in line.split("&&")[-1])
    _is_understood(shlex.split(demo.split("&&")[-1])[1:])

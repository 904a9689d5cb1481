"""Names by which MONAI's configs find the classes, and what is imported, in processes that imported little before."""

import json
import re
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

NETWORK = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "features": [2, 4]}
LOSS = {"loss": {"_target_": "DiceCELoss", "softmax": True, "to_onehot_y": True}}


#: A process that imports MONAI alone and then, for each line with a folder, a script and its arguments, forks itself.
SERVER = """
import json, os, sys
import monai.bundle, monai.data, monai.engines, monai.handlers, monai.inferers, monai.transforms
for line in sys.stdin:
    folder, script, arguments = json.loads(line)
    if os.fork() == 0:
        os.chdir(folder)
        sys.path.insert(0, folder)
        sys.argv[1:] = arguments
        exec(script, {"__name__": "__main__"})
        sys.exit()
    _, status = os.wait()
    print(f"status {status}", flush=True)
"""


@pytest.fixture(scope="module")
def run_beside_monai(tmp_path_factory):
    """A function that runs a script where only MONAI was imported, in a folder, and returns what it wrote."""
    errors = tmp_path_factory.mktemp("errors") / "errors.txt"
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with errors.open("w") as told, subprocess.Popen([sys.executable, "-c", SERVER], stderr=told, **options) as server:

        def run(script, folder, *arguments):
            server.stdin.write(json.dumps([str(folder), script, list(map(str, arguments))]) + "\n")
            server.stdin.flush()
            lines = []
            while not lines or not lines[-1].startswith("status "):
                lines.append(server.stdout.readline())
                assert lines[-1], errors.read_text()
            assert lines.pop() == "status 0\n", errors.read_text()
            return "".join(lines)

        yield run
        server.stdin.close()


@pytest.mark.slow
def test_monai_configs_find_network_and_loss(run_beside_monai, tmp_path):
    """By short names after an import, also of the modules before MONAI looks for them, and by dotted paths."""
    build = """
import sys
from monai.bundle import ConfigParser
parser = ConfigParser()
parser.read_config("config.json")
if parser.get("imports"):
    parser.get_parsed_content("imports")
network, loss = parser.get_parsed_content("network"), parser.get_parsed_content("loss")
import monai_unetpp, torch
assert type(network) is monai_unetpp.NestedUNet and type(loss) is monai_unetpp.NestedDeepSupervisionLoss
value = loss(network.train()(torch.rand(2, 1, 8, 8)), torch.zeros(2, 1, 8, 8))
assert len(sys.path) == len(set(sys.path))
print(network.levels[-1], value.dim(), flush=True)
"""
    for imports, prefix in ((["$import monai_unetpp"], ""), ([], "monai_unetpp.")):
        config = {
            "imports": imports,
            "network": {"_target_": f"{prefix}NestedUNet", **NETWORK},
            "loss": {"_target_": f"{prefix}NestedDeepSupervisionLoss", **LOSS},
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert run_beside_monai(build, tmp_path) == "L1 0\n"
    find = """
from monai.bundle import ComponentLocator
from monai_unetpp.networks import NestedUNet
from monai_unetpp.losses import NestedDeepSupervisionLoss
locator = ComponentLocator()
import monai_unetpp
for name in ("NestedUNet", "NestedDeepSupervisionLoss"):
    print(str(locator.get_component_module_name(name)).split(".")[0], flush=True)
"""
    assert run_beside_monai(find, tmp_path) == "monai_unetpp\n" * 2


@pytest.mark.slow
def test_segmenting_a_nifti_file_imports_what_monai_imports_and_no_more(run_beside_monai, hippocampus_bundle, tmp_path):
    script = """
import sys
def loaded():
    files = {name.partition(".")[0]: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
    return {name for name, file in files.items() if "site-packages" in file}
before = loaded()
from monai_unetpp.cli import main
assert main(sys.argv[1:]) == 0
print("MORE", sorted(loaded() - before - {"monai_unetpp"}), flush=True)
"""
    voxels = np.random.default_rng(0).integers(0, 900, (40, 56, 40), np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "image.nii.gz")
    options = ["--level", "L1", "--runtime", "torch", "--device", "cpu"]
    arguments = ["segment", "image.nii.gz", "--bundle", hippocampus_bundle, "-o", "out", *options]
    assert re.findall(r"^MORE (.*)$", run_beside_monai(script, tmp_path, *arguments), re.MULTILINE) == ["[]"]


def test_importing_has_no_side_effects(tmp_path):
    script = """
import logging, os, random, sys, warnings
before = (list(sys.path), os.getcwd(), dict(os.environ), random.getstate(), list(warnings.filters), logging.root.level,
          list(logging.root.handlers))
import monai_unetpp
after = (list(sys.path), os.getcwd(), dict(os.environ), random.getstate(), list(warnings.filters), logging.root.level,
         list(logging.root.handlers))
assert before == after
print(monai_unetpp.__version__, "torch" in sys.modules, "monai" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    version, torch_loaded, monai_loaded = done.stdout.split()
    assert version.count(".") == 2
    assert (torch_loaded, monai_loaded) == ("False", "False")
    assert list(tmp_path.iterdir()) == []

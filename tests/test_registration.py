"""Names by which MONAI's configs find the classes, in a fresh interpreter and another working directory."""

import json
import subprocess
import sys

import pytest

NETWORK = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "features": [2, 4]}
LOSS = {"loss": {"_target_": "DiceCELoss", "softmax": True, "to_onehot_y": True}}


def run(script, cwd, *arguments):
    finished = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.split()


@pytest.mark.slow
def test_monai_configs_find_network_and_loss(tmp_path):
    """By short names after an import, also of the modules before MONAI looks for them, and by dotted paths.

    Each in a process that has imported nothing but MONAI.
    """
    for name, imports, prefix in (("short", ["$import monai_unetpp"], ""), ("dotted", [], "monai_unetpp.")):
        config = {
            "imports": imports,
            "network": {"_target_": f"{prefix}NestedUNet", **NETWORK},
            "loss": {"_target_": f"{prefix}NestedDeepSupervisionLoss", **LOSS},
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(config))
    script = """
import os, sys
from monai.bundle import ComponentLocator, ConfigParser

def is_child():
    if os.fork() == 0:
        return True
    _, status = os.wait()
    assert status == 0
    return False

if is_child():
    from monai_unetpp.networks import NestedUNet
    from monai_unetpp.losses import NestedDeepSupervisionLoss
    locator = ComponentLocator()
    import monai_unetpp
    for name in ("NestedUNet", "NestedDeepSupervisionLoss"):
        print(str(locator.get_component_module_name(name)).split(".")[0], flush=True)
    os._exit(0)
name = "short" if is_child() else "dotted"
parser = ConfigParser()
parser.read_config(f"{name}.json")
if parser.get("imports"):
    parser.get_parsed_content("imports")
network, loss = parser.get_parsed_content("network"), parser.get_parsed_content("loss")
import monai_unetpp, torch
assert type(network) is monai_unetpp.NestedUNet and type(loss) is monai_unetpp.NestedDeepSupervisionLoss
value = loss(network.train()(torch.rand(2, 1, 8, 8)), torch.zeros(2, 1, 8, 8))
assert len(sys.path) == len(set(sys.path))
print(name, network.levels[-1], value.dim(), flush=True)
"""
    found = ["monai_unetpp", "monai_unetpp", "short", "L1", "0", "dotted", "L1", "0"]
    assert run(script, tmp_path) == found


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
    version, torch_loaded, monai_loaded = run(script, tmp_path)
    assert version.count(".") == 2
    assert (torch_loaded, monai_loaded) == ("False", "False")
    assert list(tmp_path.iterdir()) == []

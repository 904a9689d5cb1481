"""Two processes score the same cases as one."""

from __future__ import annotations

import json
import pickle
import runpy
from pathlib import Path

import nibabel
import numpy as np
import pytest
from forked import run_forked

# what each process of torchrun runs; the test runs its evaluate() itself to compare
PROGRAM = '''
import gc
import json
import pickle
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from monai.inferers import SlidingWindowInferer
from monai.transforms import AsDiscreted, Compose, Invertd, LoadImaged, Orientationd

from monai_unetpp import NestedUNet
from monai_unetpp.pruning.scoring.levels import evaluate_levels


def evaluate(cases, store, exclude_problems):
    """Scores or the error's message, passes of the network, and progress."""
    torch.manual_seed(0)
    network = NestedUNet(3, 1, 3, features=(4, 4, 8))
    for head in network.heads.values():
        torch.nn.init.normal_(head.weight)
    passes, progress = [], []
    network.nodes["x_0_0"].register_forward_hook(lambda *_: passes.append(1))
    load = LoadImaged("image", ensure_channel_first=True)
    preprocessing = Compose([load, Orientationd("image", axcodes="RAS", labels=None)])
    invert = Invertd("pred", preprocessing, orig_keys="image")
    try:
        result = evaluate_levels(
            network,
            cases,
            preprocessing=preprocessing,
            inferer=SlidingWindowInferer((16, 16, 16)),
            postprocessing=Compose([AsDiscreted("pred", argmax=True), invert]),
            labels={"first": 1, "second": 2},
            tolerance_mm={"first": 1.0, "second": 1.0},
            dataset="boxes",
            subject_pattern="case_([0-9])",
            store=store,
            configuration="settings",
            exclude_problems=exclude_problems,
            uncertainty=True,
            progress=lambda *step: progress.append(step),
        )
    except ValueError as e:
        result = str(e)
    return result, len(passes), progress


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    cases = json.loads((folder / "cases.json").read_text())
    dist.init_process_group("gloo")
    found = [evaluate(cases, folder / "store", exclude_problems) for exclude_problems in (False, True)]
    (folder / f"{dist.get_rank()}.pkl").write_bytes(pickle.dumps(found))
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()
'''


def write_cases(folder: Path) -> list[dict[str, str]]:
    """Five cases, the fourth with a label value that nobody named."""
    generator = np.random.default_rng(0)
    cases = []
    for number in range(5):
        label = np.zeros((16, 16, 16), np.uint8)
        label[3:9, 3:9, 3:9], label[9:13, 3:9, 3:9] = 1, 2 if number != 3 else 5
        image = (label + generator.normal(0, 1, label.shape)).astype(np.float32)
        case = {}
        for key, data in (("image", image), ("label", label)):
            path = folder / key / f"case_{number}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(data, np.diag([-1.0, 1.5, 2.0, 1.0])), path)
            case[key] = str(path)
        cases.append(case)
    (folder / "cases.json").write_text(json.dumps(cases))
    return cases


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path):
    cases = write_cases(tmp_path)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = run_forked(program, tmp_path, folder=tmp_path, processes=2)
    assert done.returncode == 0, done.stderr
    found = [pickle.loads((tmp_path / f"{rank}.pkl").read_bytes()) for rank in (0, 1)]

    # both processes stop at the problem that only one of them has seen
    for (message, passes, _), _ in found:
        assert "cases of 'boxes' must be sound, got 1 of 5" in message
        assert "got 5. Correct the label map. For training, name the value in labels" in message
        assert passes == 0

    evaluate = runpy.run_path(str(program))["evaluate"]
    single, passes, _ = evaluate(cases, tmp_path / "single", True)
    # four cases, two levels, two labels and the foreground
    assert [row.case for row in single.rows] == [f"case_{i}" for i in (0, 1, 2, 4) for _ in range(2 * 3)]
    assert len({row.score.dice for row in single.rows}) > 4
    assert [problem.case for problem in single.problems] == ["case_3"]
    assert single.error_auroc is not None
    assert [result for _, (result, _, _) in found] == [single, single]

    # each took its share, and only the first tells how far it is
    assert (passes, [shared for _, (_, shared, _) in found]) == (4, [2, 2])
    assert [steps for _, (_, _, steps) in found] == [[(1, 2), (2, 2)], []]
    # what two processes finished, one need not score again
    assert evaluate(cases, tmp_path / "store", True)[:2] == (single, 0)

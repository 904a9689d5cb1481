"""Commands of ``python -m monai.bundle``, in this process or, as a user runs them, in one of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fire
import monai.bundle
from forked import run_forked
from monai.utils import set_determinism


def configs(bundle: Path, *names: str) -> str:
    """Files of the bundle as the value of ``--config_file``."""
    return "[" + ",".join(f"'{bundle}/configs/{name}'" for name in names) + "]"


def run_here(*arguments: object) -> None:
    """Do what ``python -m monai.bundle`` does with these arguments, which are parsed as there, in this process."""
    try:
        fire.Fire(monai.bundle, command=list(map(str, arguments)))
    finally:
        # the seed that bundles set
        set_determinism(seed=None)


def missing_properties(bundle: Path, workflow_type: str, **overrides: object) -> list[str] | None:
    """What MONAI misses in the ``train`` or ``infer`` workflow of a bundle, by its own check of the properties."""
    name = {"train": "train.json", "infer": "inference.json"}[workflow_type]
    workflow = monai.bundle.ConfigWorkflow(
        config_file=str(bundle / "configs" / name),
        meta_file=str(bundle / "configs" / "metadata.json"),
        workflow_type=workflow_type,
        bundle_root=str(bundle),
        **{name: str(value) for name, value in overrides.items()},
    )
    try:
        workflow.initialize()
        return workflow.check_properties()
    finally:
        # the seed that bundles set
        set_determinism(seed=None)


def run_command(cwd: Path, *arguments: object, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """Run ``python -m monai.bundle`` in ``cwd``, in processes of its own, and return how it ended."""
    return run_forked("monai.bundle", *arguments, folder=cwd, processes=processes)


def run_torchrun(cwd: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Let ``torchrun`` itself run ``monai.bundle`` in ``cwd`` with two processes, in fresh interpreters."""
    launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launcher, "-m", "monai.bundle", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def succeed(process: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """The process, which must have ended well."""
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    return process


def training_in_processes(bundle: Path, dataset_dir: Path, out: Path, *options: str) -> tuple[object, ...]:
    """The command that trains with several processes, and writes to ``out``."""
    return (
        *("run", "--config_file", configs(bundle, "train.json", "multi_gpu_train.json")),
        *("--bundle_root", bundle, "--dataset_dir", dataset_dir, "--output_dir", out, *options),
    )

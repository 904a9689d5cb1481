"""Programs in processes of their own that start at once: they fork from a process that has imported MONAI.

Importing MONAI takes ten seconds where two workers share two cores. What must be seen in a fresh interpreter, or by
``torchrun`` itself, is still started as users do.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from monai_unetpp.measuring import memory

_TIMEOUT_S = 300
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "monai.bundle",
        "monai_unetpp.cli.program",
        "monai_unetpp.training_run",
        # what most programs import later
        "matplotlib.backends.backend_agg",
        "matplotlib.backends.backend_svg",
        "monai_unetpp.pruning.evaluation",
        "monai_unetpp.segmentation",
        "torch._dynamo",
    ]
)


def run_forked(
    program: str | Path, *arguments: object, folder: Path, processes: int = 1, measures_and_draws: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a program, as ``python -m`` or ``python`` do, or as ``torchrun`` does in several processes.

    Args:
        program: name of a module, or path of a script.
        arguments: of the program.
        folder: where it runs.
        processes: with more than one, they find each other as those of ``torchrun``; if one fails, the others end.
        measures_and_draws: whether pruning measures memory, in a process that imports everything anew, and more than a
            single round of the times, and draws its page and pictures.

    Returns:
        The exit status, the first that is not 0, and what all of them wrote.
    """
    words = [str(program), *map(str, arguments)]
    texts = [folder / f".{os.getpid()}_{time.monotonic_ns()}_{stream}.txt" for stream in ("output", "errors")]
    running = []
    port = _free_port()
    for rank in range(processes):
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        if processes > 1:
            size = str(processes)
            variables |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
            variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "forked"}
        process = _CONTEXT.Process(
            target=_run,
            args=(words, isinstance(program, Path), str(folder), variables, list(map(str, texts)), measures_and_draws),
        )
        process.start()
        running.append(process)
    deadline = time.monotonic() + _TIMEOUT_S
    while any(process.is_alive() for process in running):
        if any(process.exitcode for process in running) or time.monotonic() > deadline:
            time.sleep(1)
            for process in running:
                process.terminate()
            break
        time.sleep(0.02)
    for process in running:
        process.join(10)
    status = next((process.exitcode for process in running if process.exitcode), 0)
    output, errors = (text.read_text(encoding="utf-8") if text.exists() else "" for text in texts)
    for text in texts:
        text.unlink(missing_ok=True)
    return subprocess.CompletedProcess(words, status, output, errors)


def measure_briefly(patch: pytest.MonkeyPatch) -> None:
    """Let pruning time a single round, and tell a memory that nobody measured: that takes a process of its own."""
    cost = importlib.import_module("monai_unetpp.pruning.cost")
    patch.setattr(cost, "measure_peak_memory", lambda runs, *_: dict.fromkeys(runs, 1_000_000))
    of = cost._Measurement.of
    patch.setattr(cost._Measurement, "of", lambda device, repeats, warm_up, seed: of(device, 1, 0, seed))


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Let the report of pruning have an empty page and empty pictures of the worst cases."""
    patch.setattr("monai_unetpp.pruning.report.report_files._html", lambda *_: "")
    patch.setattr("monai_unetpp.pruning.report.worst_cases.save_overlay", lambda *given, **_: given[5].write_bytes(b""))


@contextmanager
def memory_measured_in_forks() -> Iterator[None]:
    """Within the block, the process that ``measure_in_new_processes`` starts forks from one that has imported MONAI."""

    def start(module: str, paths: Mapping[str, Path], remedy: str) -> None:
        process = _CONTEXT.Process(target=memory.do_jobs, args=(module, *map(str, paths.values())))
        process.start()
        process.join(_TIMEOUT_S)
        assert process.exitcode == 0, remedy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "_start", start)
        yield


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def _run(
    words: list[str],
    is_script: bool,
    folder: str,
    variables: dict[str, str],
    texts: list[str],
    measures_and_draws: bool,
) -> None:
    for text, stream in zip(texts, (sys.stdout, sys.stderr), strict=True):
        descriptor = os.open(text, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, 1 if stream is sys.stdout else 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).parent) if is_script else folder)
    if not measures_and_draws:
        patch = pytest.MonkeyPatch()
        measure_briefly(patch)
        draw_nothing(patch)
    if is_script:
        runpy.run_path(words[0], run_name="__main__")
    else:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)

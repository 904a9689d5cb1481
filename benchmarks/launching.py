"""Whole processes, measured from start to end, and the processor that they run on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

#: What holds the libraries to fewer instructions than the processor has. oneDNN reads the first, in torch and in
#: OpenVINO alike, and torch's own kernels the second.
HOLDS = {"avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}}
#: Instruction sets that decide how fast a network runs, by the flags that Linux has for them.
_SETS = {
    "AVX2": "avx2",
    "AVX-VNNI": "avx_vnni",
    "AVX-512": "avx512f",
    "AVX-512 VNNI": "avx512_vnni",
    "AVX-512 bf16": "avx512_bf16",
    "AMX bf16": "amx_bf16",
    "AMX int8": "amx_int8",
}
# A small process starts the command and waits for it: the peak of a process counts that of the one that started it.
_STARTER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(json.loads(sys.argv[1]), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
error = process.stderr.read().decode(errors="replace")
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - start
print(json.dumps([status, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, error[-2000:]]))
"""


@dataclasses.dataclass(frozen=True)
class Launched:
    """What a process took from its start to its end, in all its threads, and the most resident memory."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def launch(command: Sequence[str], variables: Mapping[str, str] | None = None) -> Launched:
    """Run a command to its end, with further environment variables; its standard output is thrown away.

    Raises:
        RuntimeError: it failed; the end of what it told is in the message.
    """
    starter = [sys.executable, "-I", "-S", "-c", _STARTER, json.dumps(list(command))]
    done = subprocess.run(starter, env={**os.environ, **(variables or {})}, capture_output=True, text=True, check=True)
    status, seconds, cpu_seconds, peak_bytes, error = json.loads(done.stdout)
    if status:
        raise RuntimeError(f"{' '.join(command)}: ended with status {status}. {error.strip()}")
    return Launched(seconds, cpu_seconds, peak_bytes)


def run_package(arguments: Sequence[str], codes: Sequence[int] = (0,)) -> None:
    """Run a command of the package, such as ``["train", "my_dataset"]``, as its users do, with its output shown.

    Raises:
        RuntimeError: it ended with another exit code than ``codes``.
    """
    command = [sys.executable, "-m", "monai_unetpp", *arguments]
    code = subprocess.run(command, check=False, env={**os.environ, "PYTHONUNBUFFERED": "1"}).returncode
    if code not in codes:
        raise RuntimeError(f"{' '.join(command)}: ended with exit code {code}. Its message is above.")


def instruction_sets(hold: str | None = None) -> str:
    """The instruction sets of the processor that matter, and what the libraries are held to."""
    flags: set[str] = set()
    with contextlib.suppress(OSError):
        found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
        flags = set(found[1].split()) if found else set()
    named = ", ".join(name for name, flag in _SETS.items() if flag in flags) or "unknown instruction sets"
    return named if hold is None else f"{named}; libraries held to {hold.upper()}"

import errno
import json
import mmap
import os
import pickle
import signal
import subprocess
import sys

import pytest
import torch

from monai_unetpp import free_memory
from monai_unetpp.free_memory import available_bytes, container_limit_bytes
from monai_unetpp.measuring import memory
from monai_unetpp.measuring.memory import (
    PeakMemory,
    do_jobs,
    measure_in_new_processes,
    peak_resident_bytes,
    reset_peak,
)


class MissingPath:
    """A file that cannot be read, as on systems without procfs."""

    def __init__(self, *parts):
        pass

    def read_text(self, encoding):
        raise FileNotFoundError("no such file")


def test_the_peak_grows_with_what_is_used():
    size = 64 * 2**20
    reset_peak()
    before = peak_resident_bytes()
    # from the system, not from what other tests have left to this process
    with mmap.mmap(-1, size) as used:
        used.write(b"1" * size)
        assert peak_resident_bytes() - before > 0.9 * size


def test_a_system_without_procfs(monkeypatch):
    pytest.importorskip("resource")
    monkeypatch.setattr(memory, "Path", MissingPath)
    assert peak_resident_bytes() > 2**20


def test_a_system_without_any_source(monkeypatch):
    monkeypatch.setattr(memory, "Path", MissingPath)
    for module in ("resource", "psutil"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match="pip install psutil"):
        peak_resident_bytes()


class TestNewProcess:
    """What is asked of the system; that it works is tested with those who measure."""

    def started(self, monkeypatch, code=0, written=""):
        calls = []

        def run(command, **options):
            calls.append((command, options))
            return subprocess.CompletedProcess(command, code, "", written)

        monkeypatch.setattr(memory.subprocess, "run", run)
        return calls

    def test_modules_are_found_where_they_are_here(self, monkeypatch):
        calls = self.started(monkeypatch)
        with pytest.raises(FileNotFoundError, match="result"):
            # nothing was done
            measure_in_new_processes(json.dumps, {"L1": ["text"]}, remedy="wait")
        ((command, options),) = calls
        assert command[:2] == [sys.executable, "-c"]
        assert command[3] == "json"
        assert set(sys.path) - {""} <= set(options["env"]["PYTHONPATH"].split(os.pathsep))

    def test_what_cannot_be_sent(self):
        with pytest.raises(
            ValueError, match=r"L1: the network and its inferer must be picklable, .* instead of lambdas"
        ):
            measure_in_new_processes(lambda: 1, {"L1": []}, remedy="wait")

    def test_a_full_temporary_folder_is_named(self, monkeypatch, tmp_path):
        def refuse(path, content):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        monkeypatch.setattr(memory.Path, "write_bytes", refuse)
        message = (
            rf"{tmp_path} \(for temporary files, chosen by TMPDIR\): cannot be written \(No space left on device\)"
        )
        with pytest.raises(OSError, match=message):
            measure_in_new_processes(json.dumps, {"L1": [1]}, remedy="wait")

    @pytest.mark.parametrize(
        ("code", "written", "reason"),
        [(1, "Traceback\nMemoryError: too large\n", "MemoryError: too large"), (-9, "", "exit code -9")],
    )
    def test_a_failure_is_told_with_its_last_line(self, monkeypatch, code, written, reason):
        self.started(monkeypatch, code, written)
        message = rf"L1: the process that measures memory failed \({reason}\)\. If memory ran out, wait\."
        with pytest.raises(RuntimeError, match=message):
            measure_in_new_processes(json.dumps, {"L1": [1]}, remedy="wait")

    def test_a_result_is_written_beside_its_job(self, tmp_path):
        path = tmp_path / "job.pkl"
        path.write_bytes(pickle.dumps((json.dumps, ([1, 2],), torch.get_num_threads())))
        do_jobs("json", str(path))
        assert pickle.loads(path.with_suffix(".result").read_bytes()) == "[1, 2]"

    @pytest.mark.slow
    def test_real_processes(self, tmp_path):
        jobs = {"L1": (("L1",),), "L2": (("L2",),)}
        assert measure_in_new_processes(json.dumps, jobs, remedy="wait") == {"L1": '["L1"]', "L2": '["L2"]'}
        # a function of the standard library that fails for a file: its words come back, with the job that failed
        (tmp_path / "file").touch()
        jobs = {name: (str(path),) for name, path in {"L1": tmp_path, "L2": tmp_path / "file"}.items()}
        with pytest.raises(RuntimeError, match=r"^L2: .* failed \(NotADirectoryError"):
            measure_in_new_processes(os.listdir, jobs, remedy="wait")
        jobs = dict.fromkeys(("L1", "L2"), (signal.SIGKILL,))
        with pytest.raises(RuntimeError, match=r"^L1: .* failed \(exit code -9\)"):
            measure_in_new_processes(signal.raise_signal, jobs, remedy="wait")


@pytest.mark.slow
def test_a_peak_counts_from_where_it_began():
    size = 64 * 2**20
    filled = b"1" * size
    with mmap.mmap(-1, size) as used:
        peak = PeakMemory("cpu")
        used.write(filled)
        assert 0.9 * size < peak.bytes() < 1.5 * size


def files_of_system(monkeypatch, contents):
    """Let the module read these files and no others."""

    class FakePath:
        def __init__(self, *parts):
            self.name = "/".join(parts)

        def read_text(self, encoding):
            if self.name not in contents:
                raise FileNotFoundError(self.name)
            return contents[self.name]

    for module in (memory, free_memory):
        monkeypatch.setattr(module, "Path", FakePath)


MEMINFO = {"/proc/meminfo": "MemTotal: 32000 kB\nMemAvailable:   16000 kB\n"}
V1, V2 = "/sys/fs/cgroup/memory", "/sys/fs/cgroup"


def limited_v2(limit, group=""):
    return {
        f"{V2}{group}/memory.max": f"{limit}\n",
        f"{V2}{group}/memory.current": "3000000\n",
        f"{V2}{group}/memory.stat": "file 900000\ninactive_file 500000\nactive_file 7\n",
    }


def limited_v1(limit, group=""):
    return {
        f"{V1}{group}/memory.limit_in_bytes": f"{limit}\n",
        f"{V1}{group}/memory.usage_in_bytes": "3000000\n",
        f"{V1}{group}/memory.stat": "inactive_file 1\ntotal_inactive_file 500000\n",
    }


JOB = {"/proc/self/cgroup": "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0\n"}
JOB_V1 = {"/proc/self/cgroup": "11:cpuset:/elsewhere\n9:cpu,memory:/slurm/job_7/step_0\n0::/\n"}
DOCKER_V1 = {"/proc/self/cgroup": "9:memory:/docker/4f\n"}


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({}, 16384000),
        (limited_v2(8000000), 5500000),
        (limited_v1(8000000), 5500000),
        (limited_v2("max"), 16384000),
        (limited_v1(2**63 - 4096), 16384000),
        (limited_v2(1000000), 0),
        (JOB | limited_v2(8000000, "/system.slice/slurmstepd.scope/job_7"), 5500000),
        (
            JOB
            | limited_v2("max", "/system.slice/slurmstepd.scope/job_7/step_0/user/task_0")
            | limited_v2(9000000, "/system.slice/slurmstepd.scope/job_7/step_0")
            | limited_v2(8000000, "/system.slice/slurmstepd.scope/job_7")
            | limited_v2(10000000),
            5500000,
        ),
        (JOB_V1 | limited_v1(2**63 - 4096) | limited_v1(8000000, "/slurm/job_7"), 5500000),
        (DOCKER_V1 | limited_v1(8000000), 5500000),
        (JOB, 16384000),
    ],
)
def test_what_is_available_is_bounded_by_the_container_or_the_job(monkeypatch, groups, expected):
    files_of_system(monkeypatch, MEMINFO | groups)
    assert available_bytes() == expected
    limited = expected == 5500000
    assert (container_limit_bytes() == 8000000) == limited


def test_what_is_available_is_unknown_without_procfs(monkeypatch):
    files_of_system(monkeypatch, {})
    assert available_bytes() is None

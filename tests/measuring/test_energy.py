"""Energy of tasks, from counters of a made-up machine."""

import sys
from types import SimpleNamespace

import pytest
import torch

from monai_unetpp.measuring import energy
from monai_unetpp.measuring.energy import energy_rounds, find_counter


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Two packages, a part, the platform that holds all, and a function that lets the first package use joules."""
    zones = {"0": "package-0", "1": "package-1", "0:0": "core", "2": "psys"}
    for name, zone in ((f"intel-rapl:{number}", zone) for number, zone in zones.items()):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(f"{zone}\n")
        (tmp_path / name / "energy_uj").write_text("900000\n")
        (tmp_path / name / "max_energy_range_uj").write_text("1000000\n")
    monkeypatch.setattr(energy, "_RAPL", tmp_path)

    def use(joules):
        for zone in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:2"):
            file = tmp_path / zone / "energy_uj"
            file.write_text(str((int(file.read_text()) + round(joules * 1e6)) % 1000000))

    return use


def test_packages_are_summed_and_a_counter_that_starts_again_is_no_loss(machine):
    counter = find_counter("cpu")
    before = counter()
    machine(0.05)
    assert counter() - before == pytest.approx(0.05)
    machine(0.3)
    assert counter() - before == pytest.approx(0.35)


def test_tasks_are_repeated_until_the_counter_has_moved(machine, monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(energy, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def task(name, seconds, joules):
        def run():
            calls.append(name)
            now[0] += seconds
            machine(joules)

        return run

    tasks = {"short": task("short", 0.0625, 0.002), "long": task("long", 3.0, 0.4)}
    found = energy_rounds(tasks, find_counter("cpu"), repeats=3)
    assert found["short"] == pytest.approx([0.002] * 3)
    assert found["long"] == pytest.approx([0.4] * 3)
    assert (calls.count("short"), calls.count("long")) == (12, 3)


def test_without_a_counter_or_the_right_to_read_it_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "_RAPL", tmp_path)
    assert find_counter("cpu") is None
    # listed, but not to be read
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "name").write_text("package-0\n")
    assert find_counter("cpu") is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_counter("cuda") is None


def test_a_gpu_is_found_by_its_identity(monkeypatch):
    joules = iter([1000, 1000, 3500])
    nvml = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda identity: identity,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(joules) if handle == b"GPU-ab-cd" else None,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="ab-cd"))
    counter = find_counter("cuda")
    before = counter()
    assert counter() - before == pytest.approx(2.5)

    def refuse(handle):
        raise RuntimeError("not supported")

    nvml.nvmlDeviceGetTotalEnergyConsumption = refuse
    assert find_counter("cuda") is None

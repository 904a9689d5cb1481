import pytest
import torch
from torch import nn

from monai_unetpp.inferers import window_memory
from monai_unetpp.inferers.window_memory import choose_batch_size, free_memory_bytes, usable_memory_bytes
from monai_unetpp.inferers.windows import WindowGrid
from monai_unetpp.measuring.memory import is_out_of_memory
from monai_unetpp.window_layout import FREE_PART, bytes_per_voxel

CPU = torch.device("cpu")
MANY = WindowGrid.over((80, 80), 8, 0.25)


@pytest.mark.parametrize(
    ("free", "chosen"), [(10**12, 4), (int(3 * 64 * bytes_per_voxel(8) / FREE_PART), 2), (10**3, 1), (None, 2)]
)
def test_windows_on_a_cpu(monkeypatch, free, chosen):
    monkeypatch.setattr(window_memory, "free_memory_bytes", lambda device: free)
    assert choose_batch_size(nn.Conv2d(1, 8, 3), MANY, 1, CPU) == chosen


def test_the_logits_of_many_classes_count(monkeypatch):
    monkeypatch.setattr(window_memory, "free_memory_bytes", lambda device: 10**6)
    assert choose_batch_size(nn.Conv2d(1, 8, 3), MANY, 1, CPU) == 4
    assert choose_batch_size(nn.Conv2d(1, 8, 3), MANY, 1, CPU, outputs=1000) == 1


def test_a_gpu_gets_what_keeps_it_busy(monkeypatch):
    monkeypatch.setattr(window_memory, "free_memory_bytes", lambda device: 80 * 10**9)
    cuda = torch.device("cuda")
    assert choose_batch_size(nn.Conv2d(1, 8, 3), MANY, 1, cuda) == 64
    large = WindowGrid.over((400, 400, 400), 96, 0.25)
    assert choose_batch_size(nn.Conv3d(1, 32, 3), large, 1, cuda) == 8
    monkeypatch.setattr(window_memory, "free_memory_bytes", lambda device: 10**9)
    assert choose_batch_size(nn.Conv3d(1, 32, 3), large, 1, cuda) == 1


def test_no_more_windows_than_there_are():
    assert choose_batch_size(lambda x: x, WindowGrid.over((8, 8), 8, 0.25), 1, CPU) == 1


def test_free_memory_where_the_system_tells():
    free = free_memory_bytes("cpu")
    assert free is None or 10**6 < free < 10**14


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp: std::bad_alloc"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


def test_processes_on_one_computer_share_its_memory(monkeypatch):
    monkeypatch.setattr(window_memory, "free_memory_bytes", lambda device: 1000)
    assert [usable_memory_bytes(device) for device in ("cpu", "cuda")] == [1000, 1000]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert [usable_memory_bytes(device) for device in ("cpu", "cuda")] == [250, 1000]
    monkeypatch.setattr(window_memory, "free_memory_bytes", lambda device: None)
    assert usable_memory_bytes("cpu") is None

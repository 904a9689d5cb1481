import sys

import pytest
import torch

from monai_unetpp import memory
from monai_unetpp.memory import peak_resident_bytes, reset_peak


class MissingPath:
    """A file that cannot be read, as on systems without procfs."""

    def __init__(self, *parts):
        pass

    def read_text(self, encoding):
        raise FileNotFoundError("no such file")


def test_the_peak_grows_with_what_is_used():
    reset_peak()
    before = peak_resident_bytes()
    used = torch.ones(64 * 2**20, dtype=torch.uint8)
    assert peak_resident_bytes() - before > 0.9 * used.numel()


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

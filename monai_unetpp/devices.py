"""Choosing device and precision by name."""

from __future__ import annotations

import re
from typing import Any

import torch

from monai_unetpp.choices import PRECISIONS

HALF_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Types of half precision by name."""


def resolve_device(name: str | None = None) -> torch.device:
    """The device named ``"cpu"``, ``"cuda"`` (or ``"gpu"``), ``"cuda:1"``, ...; by default a GPU if there is one.

    Raises:
        ValueError: unknown device, or no such device on this machine.
    """
    if name is None:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        # people say gpu, torch says cuda
        device = torch.device(re.sub(r"^gpu\b", "cuda", name.lower()))
    except RuntimeError as e:
        raise ValueError(f"device must be a name like 'cpu' or 'cuda:0', got {name!r}.") from e
    if device.type == "cuda":
        _check_gpu(name, device.index or 0)
    return device


def _check_gpu(name: str, number: int) -> None:
    if not torch.cuda.is_available():
        raise ValueError(f"device {name!r} was asked for, but torch finds no CUDA GPU here. Use device 'cpu'.")
    count = torch.cuda.device_count()
    if number >= count:
        found = "only cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise ValueError(f"device {name!r} was asked for, but torch finds {found} here. Use one of these, or 'cpu'.")


def resolve_precision(precision: str, device: torch.device | str) -> str:
    """The precision used on ``device``: ``"auto"`` is bf16 where the hardware supports it, else fp32."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
    if precision != "auto":
        return precision
    if torch.device(device).type == "cuda":
        if not torch.cuda.is_available():
            return "fp32"
        # torch answers for the current GPU only, and those of a machine may differ
        with torch.cuda.device(device):
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # older versions of torch do not report CPU capabilities: fp32 then
    capabilities: dict[str, Any] = (
        getattr(torch.cpu, "get_capabilities", dict)() if torch.device(device).type == "cpu" else {}
    )
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"


def synchronize(device: torch.device) -> None:
    """Wait until ``device`` has finished its work, so that it can be timed. A CPU needs no waiting."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""Choosing device and precision by name."""

from __future__ import annotations

import re
from typing import Any

import torch

from monai_unetpp.choices import PRECISIONS

__all__ = ["resolve_device", "resolve_precision", "synchronize"]


def resolve_device(name: str | None = None) -> torch.device:
    """The device of a name, or a GPU if there is one.

    Args:
        name: such as ``"cpu"``, ``"cuda"``, for which ``"gpu"`` stands too, or ``"cuda:1"``.

    Raises:
        ValueError: not a device, or one that is not here.
    """
    if name is None:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        # people say gpu, torch says cuda
        device = torch.device(re.sub(r"^gpu\b", "cuda", name.lower()))
    except RuntimeError as e:
        raise ValueError(f"device must be such as 'cpu' or 'cuda:0', got {name!r}.") from e
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} was asked for, but torch finds no CUDA GPU here. Use device 'cpu'.")
    return device


def resolve_precision(precision: str, device: torch.device | str) -> str:
    """What ``precision`` means on ``device``: ``"auto"`` is bf16 where it is computed natively, else fp32.

    Args:
        precision: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        device: where the network runs.

    Raises:
        ValueError: another precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
    if precision != "auto":
        return precision
    if torch.device(device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # older versions of torch cannot tell; they compute in fp32 unless asked otherwise
    capabilities: dict[str, Any] = (
        getattr(torch.cpu, "get_capabilities", dict)() if torch.device(device).type == "cpu" else {}
    )
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"


def synchronize(device: torch.device) -> None:
    """Wait until ``device`` has done what it was given, so that a clock can be read; a CPU never lags behind."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

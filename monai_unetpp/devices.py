"""Choosing the device by name."""

from __future__ import annotations

import torch

__all__ = ["resolve_device", "synchronize"]


def resolve_device(name: str | None = None) -> torch.device:
    """The device of a name, or a GPU if there is one.

    Args:
        name: such as ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.

    Raises:
        ValueError: not a device, or one that is not here.
    """
    if name is None:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise ValueError(f"device must be such as 'cpu' or 'cuda:0', got {name!r}.") from e
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} was asked for, but torch finds no CUDA GPU here. Use device 'cpu'.")
    return device


def synchronize(device: torch.device) -> None:
    """Wait until ``device`` has done what it was given, so that a clock can be read; a CPU never lags behind."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

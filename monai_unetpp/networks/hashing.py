"""Hash networks, to identify cached scores and converted models."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

__all__ = ["hash_network"]


def hash_network(network: nn.Module) -> str:
    """SHA-256 of a network's weights, and of its ``config`` or else its printed structure."""
    config = getattr(network, "config", None)
    digest = hashlib.sha256(repr(network if config is None else config).encode())
    for key, tensor in network.state_dict().items():
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        plain = tensor.detach().to("cpu", copy=False).contiguous().reshape(-1)
        digest.update(plain.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

"""Hash networks, to identify cached scores and converted models."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def hash_network(network: nn.Module) -> str:
    """SHA-256 of a network's weights, its ``config`` if it has one, and its printed structure."""
    digest = hashlib.sha256(f"{getattr(network, 'config', None)}{network!r}".encode())
    for key, tensor in network.state_dict().items():
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        plain = tensor.detach().to("cpu", copy=False).contiguous().reshape(-1)
        digest.update(plain.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

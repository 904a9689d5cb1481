"""Beside nnU-Net v2: the same training cases, the same machine, the same minutes, the same unseen cases."""

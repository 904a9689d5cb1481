"""Transforms of images and labels beyond those of MONAI, and the functions behind them."""

__all__: list[str] = []

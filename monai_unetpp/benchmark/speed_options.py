"""Options of the inference benchmark. Does not import torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from monai_unetpp.options import as_levels, option, separate_names, whole_numbers

__all__ = ["SpeedOptions"]

#: Defaults; the volume is about the bounding box of a brain at 1 mm.
_NETWORK: dict[str, Any] = {"features": (16, 32, 64, 128, 256), "in_channels": 1, "out_channels": 4}
_QUICK = {"features": (4, 8, 8, 8, 8), "volume_shape": (48, 32, 32), "window_shape": (32, 32, 32)}
_OVERLAP = 0.25
_VOLUMES = {3: (152, 168, 152), 2: (1024, 1024)}
_WINDOWS = {3: 96, 2: 256}
_ROUNDS = 3


def _quick(given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a quick run, without shapes of three axes where one of two is given."""
    flat = any(len(given[name]) != 3 for name in ("volume_shape", "window_shape") if name in given)
    return {name: value for name, value in _QUICK.items() if not (flat and name.endswith("_shape"))}


def _default(sizes: Sequence[int]) -> str:
    return f"(default: {','.join(map(str, sizes))})"


@dataclasses.dataclass(frozen=True)
class SpeedOptions:
    """What the contenders segment, and which of them to measure. None means the default.

    Attributes:
        quick: by default a small network and volume, two levels and two rounds.
        bundle: name or folder of a bundle whose network, windows and overlap to use.
        features: channels of the five resolutions.
        volume_shape: voxels of the volume; by default about the bounding box of a brain at 1 mm.
        window_shape: voxels of the windows; by default a cube or square.
        overlap: overlap of the windows, as a share of a window.
        in_channels: channels of the volume.
        out_channels: classes.
        levels: levels to measure; by default all.
        runtimes: ``"torch"``, ``"compile"``, ``"openvino"``; by default torch, and on a CPU OpenVINO if it is
            installed, else torch.compile.
        precisions: ``"fp32"``, ``"bf16"`` and on a GPU ``"fp16"``; by default all of them, without bf16 on a processor
            that lacks it.
        sw_batch_size: windows per batch.
        repeats: measured rounds, at least 2.

    Raises:
        ValueError: too few rounds, or a network in addition to a bundle.
    """

    quick: bool = option(False, help="small network and few rounds, to see that it works")
    bundle: str | PathLike[str] | None = option(
        None, metavar="BUNDLE", help="use the network, windows and overlap of this bundle"
    )
    features: Sequence[int] | None = option(
        None, type=whole_numbers, metavar="N,N,...", help=f"channels per resolution {_default(_NETWORK['features'])}"
    )
    volume_shape: Sequence[int] | None = option(
        None,
        flags=("--volume",),
        type=whole_numbers,
        metavar="N,N,N",
        help=f"voxels of the volume {_default(_VOLUMES[3])}",
    )
    window_shape: Sequence[int] | None = option(
        None,
        flags=("--window",),
        type=whole_numbers,
        metavar="N,N,N",
        help=f"voxels of a window {_default((_WINDOWS[3],) * 3)}",
    )
    overlap: float | Sequence[float] | None = option(
        None, type=float, metavar="SHARE", help=f"overlap of the windows, from 0 to below 1 (default: {_OVERLAP})"
    )
    in_channels: int | None = None
    out_channels: int | None = option(
        None, flags=("--classes",), type=int, metavar="N", help=f"output channels (default: {_NETWORK['out_channels']})"
    )
    levels: Sequence[str] | None = option(
        None, type=as_levels, metavar="L,L,...", help="levels, such as L1,L4 (default: all)"
    )
    runtimes: Sequence[str] | None = option(
        None,
        type=separate_names,
        metavar="R,R,...",
        help="among torch, compile, openvino (default: torch, and openvino on a CPU if it is installed, else compile)",
    )
    precisions: Sequence[str] | None = option(
        None,
        type=separate_names,
        metavar="P,P,...",
        help="among fp32, bf16, fp16 (default: all that the device has; fp16 only on a GPU)",
    )
    sw_batch_size: int = 4
    repeats: int | None = option(None, type=int, metavar="N", help=f"measured rounds (default: {_ROUNDS})")

    def __post_init__(self) -> None:
        if self.repeats is not None and not (isinstance(self.repeats, int) and self.repeats >= 2):
            raise ValueError(f"repeats must be a whole number, 2 or more, got {self.repeats}. Quartiles need repeats.")
        for name in _NETWORK:
            value = getattr(self, name)
            if self.bundle is not None and value is not None:
                raise ValueError(
                    f"{name} must be left out with a bundle, got {value!r}. The bundle's network has its own."
                )

    @property
    def rounds(self) -> int:
        """Number of measured rounds."""
        return self.repeats or (2 if self.quick else _ROUNDS)

    def task_values(self, of_bundle: dict[str, Any] | None = None) -> dict[str, Any]:
        """Network, volume and windows by name: as given, else from the bundle, else the default."""
        names = (*_NETWORK, "volume_shape", "window_shape", "overlap")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        known = of_bundle or {**_NETWORK, "overlap": _OVERLAP, **(_quick(given) if self.quick else {})}
        values: dict[str, Any] = {**known, **given}
        if "window_shape" not in values:
            dims = len(values["volume_shape"]) if "volume_shape" in values else 3
            values["window_shape"] = (_WINDOWS.get(dims, 256),) * dims
        if "volume_shape" not in values:
            windows = values["window_shape"]
            values["volume_shape"] = windows if self.quick else _VOLUMES[3 if len(windows) == 3 else 2]
        for name in ("features", "volume_shape", "window_shape"):
            values[name] = tuple(int(size) for size in values[name])
        if not isinstance(values["overlap"], (int, float)):
            values["overlap"] = tuple(values["overlap"])
        return values

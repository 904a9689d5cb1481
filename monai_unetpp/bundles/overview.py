"""Overview of the available bundles: purpose, and size and scores of every level."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai_unetpp.bundles.finding import list_bundles
from monai_unetpp.bundles.integrity import WEIGHTS_FILE
from monai_unetpp.bundles.json_files import METADATA_FILE, default_level, read_object
from monai_unetpp.networks.checkpoint import read_checkpoint
from monai_unetpp.topology import keys_of_level, levels_of_keys

#: Ends of the keys of what norms have counted, which are no parameters.
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclasses.dataclass(frozen=True)
class BundleLevel:
    """One level of a bundle's network.

    Attributes:
        level: such as ``"L2"``.
        parameters: number of parameters of the network pruned to this level.
        scores: scores in the metadata by metric, such as ``{"mean_dice": 0.886}``.
    """

    level: str
    parameters: int
    scores: dict[str, float]


@dataclasses.dataclass(frozen=True)
class BundleOverview:
    """Overview of a bundle.

    Attributes:
        name: as ``--bundle`` takes it.
        path: its folder.
        version: of the bundle.
        task: what it segments.
        images: which images it takes.
        intended_use: what it may be used for.
        data_source: what it was trained on, with the licence of the data.
        megabytes: size of the weights; 0 if there are none yet.
        levels: shallowest first; none without weights.
        default_level: the level that it runs by default; empty if that is the deepest or unknown.
    """

    name: str
    path: str
    version: str
    task: str
    images: str
    intended_use: str
    data_source: str
    megabytes: float
    levels: tuple[BundleLevel, ...]
    default_level: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return dataclasses.asdict(self)


def list_overviews() -> list[BundleOverview]:
    """All bundles that are found by name; the ``task`` of an unreadable one says why."""
    return [_overview(name, path) for name, path in list_bundles().items()]


def _overview(name: str, path: Path) -> BundleOverview:
    try:
        metadata = read_object(path / METADATA_FILE)
    except (OSError, ValueError) as e:
        return BundleOverview(name, str(path), "", f"cannot be read: {e}", "", "", "", 0.0, ())
    weights = path / WEIGHTS_FILE
    size = weights.stat().st_size / 1e6 if weights.is_file() else 0.0
    default = ""
    with contextlib.suppress(OSError, ValueError):
        default = default_level(path) or ""
    said = {key: str(metadata.get(key, "")) for key in ("version", "task", "intended_use", "data_source")}
    return BundleOverview(
        name,
        str(path),
        images=str(metadata.get("image_classes", "")),
        megabytes=round(size, 2),
        levels=tuple(_levels(weights, metadata.get("eval_metrics"))),
        default_level=default,
        **said,
    )


def _levels(weights: Path, metrics: Any) -> Iterator[BundleLevel]:
    """The levels in a file of weights, with their entries of ``{"mean_dice_L1": 0.88, ...}``; none if it has none."""
    scores = metrics if isinstance(metrics, Mapping) else {}
    with contextlib.suppress(OSError, ValueError):
        tensors, config = read_checkpoint(weights)
        if config is None:
            return
        for level in levels_of_keys(tensors):
            keys = keys_of_level(tensors, level, str(config.get("variant", "unet++")))
            parameters = sum(tensors[key].numel() for key in keys if not key.endswith(_STATISTICS))
            ending = f"_{level}"
            known = {
                name.removesuffix(ending): float(value)
                for name, value in scores.items()
                if name.endswith(ending) and isinstance(value, (int, float))
            }
            yield BundleLevel(level, parameters, known)

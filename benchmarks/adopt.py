"""Put the weights of a training into a bundle: ``python -m benchmarks.adopt WEIGHTS BUNDLE DATASET_DIR``.

Of a checkpoint of ``train.json`` the moving average of the weights is taken where there is one; of ``model.pt``, which
training writes beside it, what it holds: the best on the validation list. The metadata get the SHA-256 and the record
of the cases.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.command import run_command
from monai_unetpp import NestedUNet
from monai_unetpp.bundles import (
    WEIGHTS_FILE,
    find_bundle,
    read_metadata,
    read_network_def,
    weights_entry,
    write_training_record,
)
from monai_unetpp.bundles.training_record import BEST_ON_VALIDATION, LAST, LAST_AVERAGED
from monai_unetpp.data import load_datalist
from monai_unetpp.files import atomic_path, write_json
from monai_unetpp.networks.checkpoint import read_checkpoint

#: Where ``train.json`` keeps the moving average in its checkpoints.
_AVERAGE = "ema"


def adopt(weights: Path, bundle: Path, dataset_dir: Path) -> str:
    """Put weights into a bundle.

    Args:
        weights: a checkpoint of a training, or its ``model.pt``.
        bundle: the folder of the bundle.
        dataset_dir: folder with ``dataset.json``: its list ``training``, and ``validation`` where that selected.

    Returns:
        By which rule they were chosen, as the record says.

    Raises:
        FileNotFoundError: no such file.
        ValueError: weights that cannot be read or are of another network; a data set that cannot be read.
    """
    tensors, rule = _read(weights)
    network = NestedUNet(**read_network_def(bundle))
    try:
        network.load_state_dict(tensors)
    except RuntimeError as e:
        raise ValueError(f"{weights}: not of the network of {bundle.name} ({str(e).splitlines()[0]}).") from e
    training = load_datalist(dataset_dir, "training")
    selecting = load_datalist(dataset_dir, "validation") if rule == BEST_ON_VALIDATION else []
    (bundle / WEIGHTS_FILE).parent.mkdir(exist_ok=True)
    with atomic_path(bundle / WEIGHTS_FILE) as temporary:
        torch.save(network.state_dict(), temporary)
    content = read_metadata(bundle) | {"eval_metrics": {}} | weights_entry(bundle)
    write_json(bundle / "configs" / "metadata.json", content, indent=4, ensure_ascii=False)
    write_training_record(bundle, training=training, selecting=selecting, rule=rule)
    return rule


def _read(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    tensors, _ = read_checkpoint(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(content.get(_AVERAGE), dict):
        return content[_AVERAGE], LAST_AVERAGED
    return tensors, LAST if isinstance(content.get("network"), dict) else BEST_ON_VALIDATION


def main(arguments: Sequence[str] | None = None) -> int:
    """Put weights into a bundle, and tell by which rule they were chosen."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adopt", description=__doc__)
    parser.add_argument("weights", type=Path, help="checkpoint or model.pt of a training")
    parser.add_argument("bundle", help="name or folder of the bundle")
    parser.add_argument("dataset_dir", type=Path, help="folder with dataset.json")
    return run_command(parser, arguments, _adopt)


def _adopt(weights: Path, bundle: str, dataset_dir: Path) -> Iterator[str]:
    yield f"{adopt(weights, find_bundle(bundle), dataset_dir)}."


if __name__ == "__main__":
    raise SystemExit(main())

"""Scored cases on disk, so that an interrupted evaluation can continue."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.files import write_text

__all__ = ["Fingerprint", "FinishedCases"]

logger = logging.getLogger(__name__)

_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """SHA-256 of everything that scores depend on.

    Attributes:
        weights: of the network's weights and configuration.
        configuration: of preprocessing, inferer, postprocessing, labels and tolerances.
        data: of the content of image and label files.
    """

    weights: str
    configuration: str
    data: str

    def changes(self, earlier: Fingerprint) -> list[str]:
        """Names of the parts that differ from ``earlier``."""
        return [
            field.name
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(earlier, field.name)
        ]


class FinishedCases:
    """Scored cases, one JSON file each: ``<store>/<dataset>/<case>.json``.

    A file holds one record per network, so that adding a checkpoint keeps the scores of the others. It is written
    atomically.

    Args:
        store: folder that holds the data sets' folders.
        dataset: name of the data set.
    """

    def __init__(self, store: str | PathLike[str], dataset: str) -> None:
        self.folder = Path(store) / dataset

    def load(self, case: str, network: str, fingerprint: Fingerprint) -> dict[str, Any] | None:
        """The record of a network on a case if it is still valid; else the reason is logged."""
        entry = self._read(case).get(network)
        if entry is None:
            return None
        try:
            changes = fingerprint.changes(Fingerprint(**entry["fingerprint"]))
            record: dict[str, Any] = entry["record"]
        except (KeyError, TypeError) as e:
            logger.warning("%s is damaged (%r). The case is scored again.", self._path(case), e)
            return None
        if changes:
            logger.info("%s (%s): %s changed. The case is scored again.", case, network, " and ".join(changes))
            return None
        return record

    def save(self, case: str, network: str, fingerprint: Fingerprint, record: Mapping[str, Any]) -> None:
        """Keep the record of a network on a case, beside those of other networks.

        Raises:
            OSError: the file cannot be written.
            ValueError: a non-finite number.
        """
        networks = self._read(case)
        networks[network] = {"fingerprint": dataclasses.asdict(fingerprint), "record": dict(record)}
        content = {"format": _FORMAT, "case": case, "networks": networks}
        write_text(self._path(case), json.dumps(content, indent=1, allow_nan=False) + "\n")

    def _path(self, case: str) -> Path:
        return self.folder / f"{case}.json"

    def _read(self, case: str) -> dict[str, Any]:
        path = self._path(case)
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            networks = content["networks"] if content["format"] == _FORMAT else None
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as e:
            logger.warning("%s is damaged (%r). The case is scored again.", path, e)
            return {}
        if not isinstance(networks, dict):
            logger.info("%s was written in another format. The case is scored again.", path)
            return {}
        return networks

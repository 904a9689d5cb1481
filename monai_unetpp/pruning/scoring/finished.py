"""Scored cases on disk, so that an interrupted evaluation can continue."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.files import write_text

logger = logging.getLogger(__name__)


class FinishedCases:
    """Scored cases, one JSON file each: ``<store>/<dataset>/<case>.json``.

    A file holds one record per network, so that adding a checkpoint keeps the scores of the others. It is written
    atomically.

    Args:
        depends_on: by network, SHA-256 of what its scores depend on besides the files of a case: ``"weights"`` with the
            configuration of the network, and ``"configuration"`` of preprocessing, inferer, postprocessing, labels and
            tolerances.
    """

    def __init__(self, store: str | PathLike[str], dataset: str, depends_on: Mapping[str, Mapping[str, str]]) -> None:
        self.folder = Path(store) / dataset
        self.depends_on = depends_on

    def load(self, case: str, network: str, content: str) -> dict[str, Any] | None:
        """The record of a network on a case if it is still valid, else the reason is logged.

        ``content`` is the SHA-256 of the case's image and label files.
        """
        entry = self._read(case).get(network)
        if entry is None:
            return None
        try:
            before, now = entry["fingerprint"], self._fingerprint(network, content)
            changes = [name for name in now if before[name] != now[name]]
            record: dict[str, Any] = entry["record"]
        except (KeyError, TypeError) as e:
            logger.warning("%s is damaged (%r). The case is scored again.", self._path(case), e)
            return None
        if changes:
            logger.info("%s (%s): %s changed. The case is scored again.", case, network, " and ".join(changes))
            return None
        return record

    def save(self, case: str, network: str, content: str, record: Mapping[str, Any]) -> None:
        """Keep the record of a network on a case, beside those of other networks."""
        networks = self._read(case)
        networks[network] = {"fingerprint": self._fingerprint(network, content), "record": dict(record)}
        text = json.dumps({"case": case, "networks": networks}, indent=1, allow_nan=False)
        write_text(self._path(case), text + "\n")

    def _fingerprint(self, network: str, content: str) -> dict[str, str]:
        return {**self.depends_on[network], "data": content}

    def _path(self, case: str) -> Path:
        return self.folder / f"{case}.json"

    def _read(self, case: str) -> dict[str, Any]:
        path = self._path(case)
        if not path.is_file():
            return {}
        try:
            return dict(json.loads(path.read_text(encoding="utf-8"))["networks"])
        except (ValueError, KeyError, TypeError) as e:
            logger.warning("%s is damaged (%r). The case is scored again.", path, e)
            return {}

"""Record of the cases used for training and for model selection, in a bundle's metadata or beside a file of weights."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.bundles.integrity import WEIGHTS_FILE, hash_problems
from monai_unetpp.bundles.json_files import METADATA_FILE, read_object
from monai_unetpp.bundles.loading import read_metadata
from monai_unetpp.data.datasets.labelled import list_cases
from monai_unetpp.data.datasets.voxel_hash import has_one_value, hash_voxels, split_hash
from monai_unetpp.distributed import rank
from monai_unetpp.files import hash_file, write_json
from monai_unetpp.plain_values import from_plain

logger = logging.getLogger(__name__)

#: Key of ``metadata.json``. The record is beside the SHA-256 of the weights, and a pruned bundle inherits it.
RECORD_KEY = "training_record"
#: The record beside weights that no bundle describes, such as those of ``python -m monai.bundle run``.
RECORD_FILE = "training_record.json"
#: Where ``train.json`` and ``finetune.json`` of a bundle write by default.
_TRAININGS = ("training", "finetuning")
#: Key of that file: the SHA-256 of the weights.
_OF_WEIGHTS = "weights_sha256"

LAST_AVERAGED = "last, averaged"
"""Rule: the moving average of the weights after the last step, without model selection."""
LAST = "last"
"""Rule: the weights after the last step, without model selection."""
BEST_ON_VALIDATION = "best on validation"
"""Rule: the weights of the epoch with the best score on the selection cases."""


@dataclasses.dataclass(frozen=True)
class TrainingRecord:
    """The cases that influenced a network's weights.

    Attributes:
        training: :func:`hash_voxels` of the image of each training case, by the case's name.
        selecting: the same for the cases used for model selection; empty if there was none.
        rule: which weights were taken, such as ``"last, averaged"``, ``"best on validation"``, or one after the other
            where the second training used no cases to select weights, but the first did.
    """

    training: dict[str, str]
    selecting: dict[str, str]
    rule: str

    @classmethod
    def of(
        cls,
        training: Sequence[Mapping[str, Any]],
        selecting: Sequence[Mapping[str, Any]] = (),
        *,
        rule: str,
        started_from: str | PathLike[str] | None = None,
    ) -> TrainingRecord:
        """The record of some cases, whose images are read for it.

        Args:
            training: the training cases, as from ``load_datalist``.
            selecting: the cases used for model selection.
            rule: which weights were taken.
            started_from: the bundle or checkpoint whose weights the training started from; its cases count as well.

        Raises:
            ImageFileError: a case that cannot be read.
            ValueError: a malformed record of the weights before.
        """
        record = cls(_hash_cases(training), _hash_cases(selecting), rule)
        earlier = None if started_from is None else find_training_record(started_from)
        return record if earlier is None else record.after(earlier)

    def after(self, earlier: TrainingRecord) -> TrainingRecord:
        """The record of weights that started from others, with the cases of these as well."""
        training = _joined(self.training, earlier.training, ())
        selecting = _joined(self.selecting, earlier.selecting, training.values())
        rule = f"{earlier.rule}, then {self.rule}" if earlier.selecting and not self.selecting else self.rule
        return TrainingRecord(training, selecting, rule)

    def role_of(self, voxels: str) -> str | None:
        """The role of a case with these voxels: ``"training"``, ``"selecting"``, or None for an untouched one.

        Args:
            voxels: from :func:`hash_voxels`; axes that are reversed or exchanged make no other case.
        """
        roles = {self._roles.get(part) for part in split_hash(voxels)}
        return next((role for role in ("training", "selecting") if role in roles), None)

    def role_of_image(self, image: str | PathLike[str] | Sequence[str | PathLike[str]]) -> str | None:
        """The :meth:`role_of` an image's files; None for an image of one value, as all empty fields of view are alike.

        Raises:
            ImageFileError: a file that cannot be read.
        """
        role = self.role_of(hash_voxels(image))
        return None if role is None or has_one_value(image) else role

    @functools.cached_property
    def _roles(self) -> dict[str, str]:
        named = {"selecting": self.selecting, "training": self.training}
        return {part: role for role, cases in named.items() for each in cases.values() for part in split_hash(each)}


def write_training_record(
    bundle: str | PathLike[str],
    *,
    training: Sequence[Mapping[str, Any]],
    selecting: Sequence[Mapping[str, Any]] = (),
    rule: str,
) -> TrainingRecord:
    """Record in a bundle's ``configs/metadata.json`` which cases influenced its weights.

    Args:
        bundle: the folder of the bundle.
        training: the training cases, as from ``load_datalist``.
        selecting: the cases used for model selection.
        rule: which weights were taken.

    Raises:
        FileNotFoundError: the bundle has no metadata.
        ImageFileError: a case that cannot be read.
    """
    record = TrainingRecord.of(training, selecting, rule=rule)
    put_training_record(bundle, record)
    return record


def put_training_record(bundle: str | PathLike[str], record: TrainingRecord) -> None:
    """Write a record to a bundle's ``configs/metadata.json``; a FileNotFoundError without that."""
    content = read_metadata(bundle) | {RECORD_KEY: dataclasses.asdict(record)}
    write_json(Path(bundle) / METADATA_FILE, content, indent=4, ensure_ascii=False)


def read_training_record(bundle: str | PathLike[str]) -> TrainingRecord | None:
    """The record of :func:`write_training_record`; None if the bundle has none.

    Raises:
        FileNotFoundError: the bundle has no metadata.
        ValueError: a malformed record.
    """
    found = read_metadata(bundle).get(RECORD_KEY)
    return None if found is None else _decoded(Path(bundle) / METADATA_FILE, found)


def save_training_record(weights: str | PathLike[str], record: TrainingRecord) -> Path:
    """Write the record of a file of weights beside it, as ``training_record.json``, whose path is returned."""
    path = Path(weights).with_name(RECORD_FILE)
    content = {_OF_WEIGHTS: hash_file(weights), **dataclasses.asdict(record)}
    write_json(path, content, indent=1, ensure_ascii=False)
    return path


def find_training_record(weights: str | PathLike[str]) -> TrainingRecord | None:
    """The record of a file of weights: one beside it, or of a bundle's weights that of a training or its metadata.

    Args:
        weights: the file, or the folder of a bundle for the weights that it runs.

    Returns:
        The record; None if there is no such file, or nothing is known about these very weights.

    Raises:
        ValueError: a malformed record.
    """
    file = Path(weights)
    if file.is_dir():
        file /= WEIGHTS_FILE
    if not file.is_file():
        return None
    bundle = file.parent.parent
    runs = file == bundle / WEIGHTS_FILE
    trained = [bundle / name / RECORD_FILE for name in _TRAININGS] if runs else []
    for path in (file.with_name(RECORD_FILE), *trained):
        content = read_object(path) if path.is_file() else {}
        of_weights = content.pop(_OF_WEIGHTS, None)
        if of_weights is not None and of_weights == hash_file(file):
            return _decoded(path, content)
    if not runs or not (bundle / METADATA_FILE).is_file():
        return None
    metadata = read_metadata(bundle)
    # without the SHA-256 of other weights
    return None if RECORD_KEY not in metadata or any(hash_problems(bundle, metadata)) else read_training_record(bundle)


def warn_of_known_cases(weights: str | PathLike[str], cases: Sequence[Mapping[str, Any]]) -> None:
    """Warn where cases to score were used for training the weights, or for choosing them, as far as is recorded.

    In a process group (``torchrun``), process 0 warns.

    Args:
        weights: as for :func:`find_training_record`.
        cases: as from ``load_datalist``, with readable images.

    Raises:
        ValueError: a malformed record.
    """
    record = None if rank() else find_training_record(weights)
    if record is None:
        return
    roles = [record.role_of_image(case["image"]) for case in cases]
    for role, used in (("training", "for training"), ("selecting", "to choose the weights")):
        if known := roles.count(role):
            logger.warning(
                "%s: %d of %d cases were used %s, so their scores are optimistic. Score cases that took no part.",
                weights,
                known,
                len(roles),
                used,
            )


def _decoded(path: Path, found: Any) -> TrainingRecord:
    try:
        return from_plain(TrainingRecord, found, RECORD_KEY)
    except ValueError as e:
        raise ValueError(
            f"{path}: {RECORD_KEY} must have training and selecting, hashes by case, and a rule, got {found!r:.80}. "
            f"Copy {'the bundle' if path.name == 'metadata.json' else 'it'} again."
        ) from e


def _joined(own: Mapping[str, str], earlier: Mapping[str, str], known: Collection[str]) -> dict[str, str]:
    """Hashes by case, with those of earlier cases that are not there yet."""
    joined, parts = dict(own), {part for voxels in (*own.values(), *known) for part in split_hash(voxels)}
    for name, voxels in earlier.items():
        if parts.isdisjoint(split_hash(voxels)):
            joined[f"{name} (earlier)" if name in joined else name] = voxels
            parts.update(split_hash(voxels))
    return joined


def _hash_cases(cases: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {case.name: hash_voxels(case.image) for case in list_cases(cases)} if cases else {}

"""What the package makes of hostile and odd inputs, which are built here, beside what is known to be right."""

from __future__ import annotations

import dataclasses
import importlib
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.robustness.situations import READ, REFUSED, TOLD, WRONG, Kind, Row
from monai_unetpp.measuring.environment import Environment, describe_environment
from monai_unetpp.reporting.markdown import code, escape, format_table

__all__ = [
    "KINDS",
    "QUICK",
    "RobustnessBenchmark",
    "TriedKind",
    "format_robustness_benchmark",
    "measure_robustness",
]

KINDS = ("paths", "places", "dicom", "results", "labelled", "pictures", "integrity")
"""Modules of this package, each with the situations of one kind."""
QUICK: dict[str, Any] = {"kinds": ("labelled", "pictures")}
"""Arguments for a run that only shows that it works."""

_LONGEST_MESSAGE = 250


@dataclasses.dataclass(frozen=True)
class TriedKind:
    """What became of the situations of one kind.

    Attributes:
        title: of the table.
        rows: one for each situation.
    """

    title: str
    rows: tuple[Row, ...]


@dataclasses.dataclass(frozen=True)
class RobustnessBenchmark:
    """What became of all situations that were tried.

    Attributes:
        kinds: by kind.
        environment: device, versions, threads and date.
    """

    kinds: tuple[TriedKind, ...]
    environment: Environment

    @property
    def rows(self) -> tuple[Row, ...]:
        """All of them."""
        return tuple(row for kind in self.kinds for row in kind.rows)

    @property
    def failed(self) -> bool:
        """Whether anything is WRONG."""
        return any(row.outcome == WRONG for row in self.rows)


def measure_robustness(kinds: Sequence[str] = KINDS, device: str = "cpu") -> RobustnessBenchmark:
    """Try every situation of some kinds, in a temporary folder that is removed.

    Args:
        kinds: which of ``KINDS``.
        device: must be a CPU: what is tried does not depend on the device.

    Raises:
        ValueError: another kind or device.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"kinds must be some of {', '.join(KINDS)}, got {', '.join(unknown)}.")
    if torch.device(device).type != "cpu":
        raise ValueError(f"device must be cpu, got {device!r}. What is tried does not depend on the device.")
    tried = []
    with tempfile.TemporaryDirectory() as folder:
        for name in kinds:
            kind: Kind = importlib.import_module(f"benchmarks.robustness.{name}").KIND
            tried.append(TriedKind(kind.title, tuple(kind.try_all(Path(folder).resolve() / name))))
    return RobustnessBenchmark(tuple(tried), describe_environment(device, "fp32"))


_INTRODUCTION = """\
# Tried, refused, read right

Hostile and odd inputs, most of them after public bug reports of programs for medical images, and what this version of
the package makes of them. The table is made by

```bash
python -m benchmarks robustness --device cpu -o docs/robustness.md
```

which builds every input in a temporary folder, runs the package on it, and compares the result with what is known to be
right. If anything else comes out, the row says WRONG and the command ends with exit code 1: so it is a check as well.

- **read right**: the voxels, labels and files are exactly those that are known, places but for the rounding of headers,
  unless the row gives a tolerance; and there was nothing to tell;
- **read, with a warning**: so too, and the message tells what is doubtful or had to be assumed;
- **refused**: the input is not used, and the message names the file (or the argument) and the reason, in most rows with
  a remedy. Where a row says so, the other cases of the same run are done. `check` refuses nothing: its rows give the
  problem that it finds.

Names of temporary folders are left out of the messages, and long messages are cut (…). What stands beside *read right*
is a note, which `-v` shows.

Where images are segmented, the network is one of a few weights that finds bright voxels, within the configuration of
the hippocampus bundle: so the right label of every voxel is known, through orientation, resampling, windows and the way
back."""

_LIMITS = """\
## What is not tried here

- What is right was decided by those who wrote the package, row by row: the command shows that it stays so.
- The inputs are small and made by this command, with the libraries that also read them (pydicom, tifffile, nibabel);
  files of many scanners and programs are not among them, and every kind has variants that nobody has thought of yet.
- Running out of memory and a full disk are simulated, by errors that are raised where they would be. A process that
  the system kills for its memory can say nothing.
- It is tried on a CPU with Linux. Names and links follow the rules of its file system, and those of Windows and macOS
  are only considered (letter case, ways to write ä), not tried.
- Whether the labels of a *trained* network are good on an unusual image is another question: a scan of another
  contrast, species or body part is read right, and segmented as if it were of the kind that the bundle was trained for.
- Expressions in a bundle's own configurations run by MONAI's design. Take bundles from people whom you would also let
  run a program; `monai-unetpp check` lists the expressions."""


def format_robustness_benchmark(result: RobustnessBenchmark) -> str:
    """The document, with a table for each kind."""
    counts = Counter(row.outcome for row in result.rows)
    wrong = f", **{counts[WRONG]} WRONG**" if counts[WRONG] else ""
    versions = result.environment.versions
    summary = (
        f"{len(result.rows)} situations: {counts[READ]} read right, {counts[TOLD]} read with a warning, "
        f"{counts[REFUSED]} refused{wrong}. monai-unetpp {versions['monai-unetpp']}, Python {versions['python']}; "
        f"{result.environment.line()}."
    )
    tables = [f"## {kind.title}\n\n{_table(kind.rows)}" for kind in result.kinds]
    return "\n\n".join([_INTRODUCTION, summary, *tables, _LIMITS])


def _table(rows: Sequence[Row]) -> str:
    cells = [[_described(row.situation), _outcome(row), _message(row.message)] for row in rows]
    return format_table(["situation", "what happens", "message"], cells, [False] * 3)


def _described(situation: str) -> str:
    """The title, whose parts between backticks stay code."""
    parts = situation.split("`")
    return "".join(code(part) if index % 2 else escape(part) for index, part in enumerate(parts))


def _outcome(row: Row) -> str:
    return f"**{WRONG}**" if row.outcome == WRONG else row.outcome


def _message(text: str) -> str:
    text = re.sub(r"x{20,}", "xxx…xxx", text)
    return escape(text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE].rstrip()} …")

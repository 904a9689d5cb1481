"""How the package handles unusual and hostile inputs, which are built here, compared with the correct results."""

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

KINDS = ("paths", "places", "dicom", "results", "labelled", "pictures", "integrity")
"""Modules of this package, each with the situations of one kind."""
QUICK: dict[str, Any] = {"kinds": ("labelled", "pictures")}
"""Arguments for a run that only shows that it works."""

_LONGEST_MESSAGE = 250


@dataclasses.dataclass(frozen=True)
class TriedKind:
    """What became of the situations of one kind; ``title`` is that of their table."""

    title: str
    rows: tuple[Row, ...]


@dataclasses.dataclass(frozen=True)
class RobustnessBenchmark:
    """What became of all situations that were tried, by kind."""

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
        ValueError: another device.
    """
    if torch.device(device).type != "cpu":
        raise ValueError(f"device must be cpu, got {device!r}. Give --device cpu: what is tried needs no other.")
    tried = []
    with tempfile.TemporaryDirectory() as folder:
        for name in kinds:
            kind: Kind = importlib.import_module(f"benchmarks.robustness.{name}").KIND
            tried.append(TriedKind(kind.title, tuple(kind.try_all(Path(folder).resolve() / name))))
    return RobustnessBenchmark(tuple(tried), describe_environment(device, "fp32"))


_INTRODUCTION = """\
# Unusual and hostile inputs

How this version of the package handles unusual and hostile inputs, most of them taken from public bug reports of
medical imaging software. This page is written by

```bash
python -m benchmarks robustness --device cpu -o docs/robustness.md
```

which builds every input in a temporary folder, runs the package on it, and compares the result with the correct one. If
they differ, the row says WRONG and the command ends with exit code 1, so it also serves as a test.

- **read correctly**: voxels, labels and files are exactly right, positions up to the rounding of headers, unless the
  row gives a tolerance; there was nothing to warn about;
- **read, with a warning**: the same, but the message says what is doubtful or had to be assumed;
- **refused**: the input is not used; the message names the file (or the argument), the reason and, in most rows, a
  remedy. Where a row says so, the other cases of the same run are finished. `check` refuses nothing: its rows give the
  problem that it reports.

Names of temporary folders are left out of the messages, and long messages are cut (…). A message beside *read
correctly* is a note, which `-v` shows.

Where images are segmented, a network with a few weights labels bright voxels, in the configuration of the hippocampus
bundle. So the correct label of every voxel is known, all the way through orientation, resampling, windows and back."""

_LIMITS = """\
## What this page does not cover

- The authors of the package decided what is correct, row by row; the command shows that it stays so.
- The inputs are small, and this command makes them with the libraries that also read them (pydicom, tifffile, nibabel).
  Files of real scanners and programs vary in ways that are not among them.
- A full disk and a lack of memory are simulated by raising the errors that they cause. A process that the system kills
  for lack of memory cannot report anything.
- Only Linux on a CPU was tried. Names and links follow the rules of its file system; those of Windows and macOS (letter
  case, composed characters) are considered, but not tried there. Tests on Linux pair and find files of a data set whose
  names are in other composed characters, as a Mac writes them.
- Whether the labels of a *trained* network are good on an unusual image is another question: a scan of another
  contrast, species or body part is read correctly, and segmented as if it were of the kind that the bundle was trained
  on.
- Expressions in a bundle's own configurations are run, by MONAI's design. Take bundles only from people whose programs
  you would run; `monai-unetpp check` lists the expressions."""


def format_robustness_benchmark(result: RobustnessBenchmark) -> str:
    """The document, with a table for each kind."""
    counts = Counter(row.outcome for row in result.rows)
    wrong = f", **{counts[WRONG]} WRONG**" if counts[WRONG] else ""
    versions = result.environment.versions
    summary = (
        f"{len(result.rows)} situations: {counts[READ]} read correctly, {counts[TOLD]} read with a warning, "
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

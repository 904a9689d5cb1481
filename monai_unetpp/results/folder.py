"""Write the files beside the label maps in a folder of results."""

from __future__ import annotations

import dataclasses
import functools
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from monai_unetpp.data.formats.result_marks import RUN_FILE, read_runs
from monai_unetpp.files import MARK, exclusively, write_text
from monai_unetpp.results.colour_tables import TABLE_FILES, label_tables, read_slicer_table, slicer_table
from monai_unetpp.results.earlier import EarlierResults
from monai_unetpp.results.run_record import RecordedCase, format_runs, result_name
from monai_unetpp.results.volumes import (
    VOLUMES_FILE,
    LabelVolume,
    as_written,
    format_volumes,
    measure_file,
    read_volume_rows,
)

#: Seconds between two writes during a run, so that not every one of thousands of images writes the whole table.
_PAUSE_S = 5.0
#: Least time between two writes, in times that the last one took: with thousands of results, one takes seconds.
_WRITES_PAUSE = 20.0


@dataclasses.dataclass
class ResultFolder:
    """Writes the files beside the label maps, and keeps entries of earlier runs about other cases.

    Files are replaced as a whole, so other processes may read them at any time.

    Attributes:
        path: the folder.
        names: the labels of its maps, name by value; none if objects are numbered, and no tables of them then.
        run: the entry of the run in ``run.json``; it may be extended until :meth:`write`.
        shard: K and N, if N processes write to the folder at the same time, each for its own cases.
        totals: labels to sum, by the name of the sum.
        is_bids: whether it is a BIDS data set, with a table of labels of its own.
    """

    path: Path
    names: Mapping[int, str]
    run: dict[str, Any] = dataclasses.field(default_factory=dict)
    shard: tuple[int, int] = (1, 1)
    totals: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    is_bids: bool = False
    _cases: dict[str, RecordedCase] = dataclasses.field(default_factory=dict, init=False)
    _volumes: dict[str, tuple[Sequence[LabelVolume], Sequence[str]]] = dataclasses.field(
        default_factory=dict, init=False
    )
    _keeps_sums: set[str] = dataclasses.field(default_factory=set, init=False)
    _listed: set[str] | None = dataclasses.field(default=None, init=False)
    _outputs: dict[str, Path] = dataclasses.field(default_factory=dict, init=False)
    _written: float = dataclasses.field(default=0.0, init=False)
    _took: float = dataclasses.field(default=0.0, init=False)
    _begun: bool = dataclasses.field(default=False, init=False)

    def __post_init__(self) -> None:
        # others may start at the same time
        self.run.setdefault("id", uuid.uuid4().hex)

    @functools.cached_property
    def earlier(self) -> EarlierResults:
        """The results of earlier runs.

        Raises:
            ValueError: the record was not written by this package.
        """
        return EarlierResults(read_runs(self.path / RUN_FILE), self.run)

    def check(self) -> None:
        """Check before any work that no file of another program would be replaced.

        Raises:
            ValueError: a file was not written by this package.
        """
        read_volume_rows(self.path / VOLUMES_FILE)
        names = self.names if read_runs(self.path / RUN_FILE) else {}
        for name in TABLE_FILES.values():
            _check_table(self.path / name, names)

    def check_labels(self, replaced: Collection[str]) -> None:
        """Check before any work that the tables will name the values of all results in the folder.

        Args:
            replaced: names of the results that the run writes.

        Raises:
            ValueError: others stay whose labels have other names, or labels are to be mixed with numbered objects.
        """
        are_other = self._are_named() is False
        staying = {
            result_name(case): "numbered objects" if "instances" in case else "results with other labels"
            for run in read_runs(self.path / RUN_FILE)
            for case in run["cases"]
            if (self.names if "instances" in case else are_other)
            and result_name(case) not in replaced
            and self._has(case)
        }
        if staying:
            name = min(staying)
            raise ValueError(
                f"{self.path}: holds {staying[name]}, such as {name}; its colour tables can name only one set. "
                "Name another output folder."
            )

    def _are_named(self) -> bool | None:
        """Whether the tables in the folder name the same labels; None if there are none."""
        table = self.path / TABLE_FILES["slicer"]
        if not table.is_file():
            return None
        found = read_slicer_table(table.read_text(encoding="utf-8", errors="replace"))
        return found == read_slicer_table(slicer_table(self.names))

    def _has(self, case: Mapping[str, Any]) -> bool:
        """Whether a recorded result is still there: in the folder, or in those of its subject and session."""
        parts = Path(str(case.get("output"))).parts
        return any(self.path.joinpath(*parts[-depth:]).is_file() for depth in (1, 3, 4))

    def begin(self) -> None:
        """Record the run before it writes a result, as it may be killed before it has recorded that; at least try."""
        self._begun = True
        self.write()

    def add(self, case: RecordedCase, volumes: Sequence[LabelVolume]) -> None:
        """Add a finished case; files are written from time to time, and what fails is tried again.

        They are written at once where they tell of an earlier result, which has been replaced, as a run that is killed
        must not leave what was; but writing takes no more than a twentieth of the time.

        Args:
            case: the case.
            volumes: sizes of its labels; none if objects were numbered. They replace those of an earlier result.
        """
        self._outputs[case.case] = output = Path(case.output)
        self.take_over(case)
        self._volumes[case.case] = volumes, case.warnings
        pause = max(0.0 if self.earlier.knows(output) else _PAUSE_S, _WRITES_PAUSE * self._took)
        if time.monotonic() - self._written > pause * self.shard[1]:
            self.write()

    def add_earlier(
        self,
        case: str,
        output: Path,
        has_volume: bool,
        warnings: Sequence[str] = (),
        numbered: bool = False,
        changed: bool = False,
    ) -> None:
        """Add a case that was finished before; its volumes are measured if missing in the table or no longer right.

        Args:
            case: its name.
            output: its label map.
            has_volume: whether voxels have a size in mm.
            warnings: the warnings about it at the time.
            numbered: whether its values number objects and are no labels; it then has no volumes.
            changed: whether the label map is not as it was written.

        Raises:
            ImageFileError: the label map has to be measured, and cannot be read.
        """
        self._outputs[case] = output
        if numbered:
            self._volumes[case] = (), ()
            return
        if self._listed is None:
            self._listed = {row[0] for row in read_volume_rows(self.path / VOLUMES_FILE)}
        if changed or as_written(case) not in self._listed:
            self._volumes[case] = measure_file(output, self.names, has_volume, self.totals), tuple(warnings)
            if not self.totals:  # the label map does not tell those that it has
                self._keeps_sums.add(case)

    def take_over(self, case: RecordedCase) -> None:
        """Record a case without its volumes, such as a result that an earlier run was killed before recording."""
        # masks of earlier runs are kept
        beside = {**(self.earlier.record(Path(case.output)).get("beside_sha256") or {}), **case.beside_sha256}
        self._cases[case.case] = dataclasses.replace(case, beside_sha256=beside)

    def write(self) -> list[str]:
        """Write the record of the run, and all files for which a case is finished.

        One that cannot be written does not keep the others from it.

        Returns:
            Why files could not be written, one line each.
        """
        problems: list[str] = []
        try:
            # other processes may segment other images into the same folder, also where no shards are given
            with exclusively(self.path, by_file=self.shard[1] > 1) if self.path.is_dir() else nullcontext():
                began = time.monotonic()  # without what other processes take
                for write in (self._write_record, self._write_tables, self._write_volumes):
                    try:
                        write()
                    except (OSError, ValueError) as e:
                        problems.append(str(e))
                self._took = time.monotonic() - began
        except OSError as e:  # there was no turn for this process
            problems.append(str(e))
        self._written = time.monotonic()
        return problems

    def _write_record(self) -> None:
        if not (self._begun or self._cases):
            return
        earlier = [run for run in read_runs(self.path / RUN_FILE) if run.get("id") != self.run.get("id")]
        self._tell_apart(earlier)
        text = format_runs(self.run, list(self._cases.values()), earlier)
        if text is None:
            (self.path / RUN_FILE).unlink(missing_ok=True)
        else:
            write_text(self.path / RUN_FILE, text)

    def _tell_apart(self, runs: Sequence[Mapping[str, Any]]) -> None:
        """Name cases after their images where another process has meanwhile recorded another result of their name.

        Numbered objects have no rows that both would share.
        """
        if not self.names:
            return
        recorded = [case for run in runs for case in run["cases"] if case.get("case") in self._cases]
        for other in recorded:
            name = other["case"]
            case = self._cases.get(name)
            if case is None or result_name(other) == Path(case.output).name or not self._has(other):
                continue
            new = Path(case.image).name
            self._cases[new] = dataclasses.replace(self._cases.pop(name), case=new)
            self._outputs[new] = Path(self._cases[new].output)
            self._outputs.pop(name, None)
            if name in self._volumes:
                self._volumes[new] = self._volumes.pop(name)

    def _write_tables(self) -> None:
        if not self._outputs:
            return
        are_named = self._are_named()
        for name, table in label_tables(self.names, self.is_bids).items():
            path = self.path / name
            if not self.names:
                path.unlink(missing_ok=True)
            elif not (are_named and path.is_file()):  # colours may have been changed
                write_text(path, table)

    def _write_volumes(self) -> None:
        if not self._volumes:
            return
        path = self.path / VOLUMES_FILE
        # a result may have another name here than in an earlier run: a.png beside a.tif, a alone
        renamed = {str(self.earlier.record(output).get("case")) for output in self._outputs.values()} - {*self._outputs}
        rows = [row for row in read_volume_rows(path) if row[0] not in set(map(as_written, renamed))]
        # cases without labels may have rows of an earlier result
        if rows or any(labels for labels, _ in self._volumes.values()):
            write_text(path, format_volumes(self._volumes, rows, self._keeps_sums))


def _check_table(path: Path, names: Mapping[int, str]) -> None:
    """Refuse a table of another program, unless one has saved ours, with these names, in its own way."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError:
        text = ""
    saved_again = names and all(name in text or "_".join(name.split()) in text for name in names.values())
    if not (saved_again or text.startswith(f"# written by {MARK}")):
        raise ValueError(f"{path}: exists and was not written by monai-unetpp. Move it away, or name another folder.")

"""Find cases that earlier runs have finished."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.data.formats.dicom_seg import dicom_seg_path
from monai_unetpp.data.formats.result_marks import identify_image, is_as_marked, is_of_runner, read_identity
from monai_unetpp.files import hash_file
from monai_unetpp.results.run_record import hash_image, is_finished, result_name

#: What results depend on, of the entry of a bundle in a record.
_HASHES = ("sha256", "settings_sha256", "metadata_sha256")


class EarlierResults:
    """Finds results that can be kept.

    Args:
        runs: earlier runs in ``run.json``.
        wanted: the entries ``bundle``, ``within`` and ``options`` of this run.

    A result is kept if its mark names the same image with the same content, unless ``runs`` say that it was made with
    other weights, settings or labels of the bundle, or options, or it is the runner's, which records nothing, as the
    runner wrote it. Where another program has saved a correction without the mark, the record of its image counts; a
    result that no run has recorded counts as one of those that were killed, which must all have been like this one,
    unless it has replaced a recorded one; without any record, only a corrected one is kept. So an interrupted run
    continues, but one with another level starts again. Results are looked up by the names of their files, which are
    unique in a folder: the folder may have been renamed or moved.
    """

    def __init__(self, runs: Iterable[Mapping[str, Any]], wanted: Mapping[str, Any]) -> None:
        runs = list(runs)
        self._wanted = _compared_options(wanted)
        # a run that was killed has recorded its first results, but not its last ones
        self._killed = [_compared_options(run) for run in runs if not is_finished(run)]
        made = [(result_name(case), case, run) for run in runs for case in run["cases"]]
        self._recorded: dict[str, Mapping[str, Any]] = {name: case for name, case, _ in made}
        self._made_by = {name: _compared_options(run) for name, _, run in made}
        self._named: dict[str, set[str]] = {}
        for name, case in self._recorded.items():
            self._named.setdefault(str(case.get("case")), set()).add(name)
        self._written = {name: case.get("output_sha256") for name, case, _ in made}
        for _, case, _ in made:
            self._written.update(case.get("beside_sha256") or {})

    def knows(self, output: Path) -> bool:
        """Whether an earlier run recorded a result."""
        return output.name in self._recorded

    def record(self, output: Path) -> Mapping[str, Any]:
        """What the last run that made a result recorded of it; empty if none did."""
        return self._recorded.get(output.name, {})

    def warnings(self, output: Path) -> tuple[str, ...]:
        """The warnings about a result when it was made."""
        return tuple(self.record(output).get("warnings") or ())

    def beside(self, output: Path) -> list[Path]:
        """The masks and DICOM SEG that earlier runs may have written beside a result."""
        return [*map(output.with_name, self.record(output).get("beside_sha256") or ()), dicom_seg_path(output)]

    def namesake(self, case: str, output: Path) -> Path | None:
        """The result of another image in the folder of ``output`` whose case has the same name, if there is one."""
        others = sorted(self._named.get(case, set()) - {output.name})
        return next((path for path in map(output.with_name, others) if path.is_file()), None)

    def case_name(self, case: str, output: Path) -> str:
        """The name of the rows of a kept result: that in its record, or ``case`` if another result shares that one."""
        recorded = str(self.record(output).get("case")) if self.knows(output) else case
        return recorded if self._named.get(recorded, set()) <= {output.name} else case

    def is_changed(self, output: Path) -> bool:
        """Whether a result, or a mask beside one, is not as it was written, such as one that was corrected by hand."""
        if not os.path.isfile(output) or self._is_as_recorded(output):
            return False
        # a run that was killed has left only the mark
        as_marked = is_as_marked(output)
        return not as_marked and (as_marked is False or output.name in self._written)

    def has(self, image: str | PathLike[str] | Sequence[str | PathLike[str]], output: Path) -> bool:
        """Whether ``output`` is the finished result of ``image``, one file or several."""
        recorded_by = self._made_by.get(output.name)
        made_by = self._killed if recorded_by is None else [recorded_by]
        if not output.is_file() or any(options != self._wanted for options in made_by):
            return False
        if not made_by and is_as_marked(output) is not False:
            return False  # nothing tells what made it, and nobody has corrected it
        # of the runner, or of a run that was killed, with whatever options
        is_of_unknown = is_of_runner(output) or self._written.get(output.name) is not None
        if is_of_unknown and not self._is_as_recorded(output) and is_as_marked(output):
            return False
        files = [image] if isinstance(image, (str, PathLike)) else image
        made_of = read_identity(output)
        if made_of is None:  # another program has saved a correction without the mark
            recorded = self.record(output).get("sha256")
            return recorded is not None and recorded == hash_image(*files)
        return made_of.content is not None and made_of.content == identify_image(*files).content

    def _is_as_recorded(self, output: Path) -> bool:
        try:
            return self._written.get(output.name) == hash_file(output)
        except OSError:  # told when it would be replaced
            return True


def _compared_options(run: Mapping[str, Any]) -> dict[str, Any]:
    """What results depend on besides the image, from the entry of a run in ``run.json``."""
    hashes = {f"{key} {part}": (run.get(key) or {}).get(part) for key in ("bundle", "within") for part in _HASHES}
    return {**hashes, "options": run.get("options")}

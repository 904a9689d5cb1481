"""What became of each case of a run: segmented, or failed."""

from __future__ import annotations

import dataclasses
import os

from monai_unetpp.errors import printable


@dataclasses.dataclass(frozen=True)
class CaseResult:
    """A segmented case.

    Attributes:
        case: its name.
        file: the input.
        output: the written file; None if none was written.
        seconds: wall time from requesting the data to the written file. Loading done during the previous case is not
            counted. Writing may overlap with the next case, so the sum over the cases may exceed the time of the run.
        volumes_ml: volume of each label of a 3D segmentation; empty if the prediction is not a label map.
        voxels: voxels or pixels of each label; empty if the prediction is not a label map.
        stages: seconds by stage, if measured. Apart from the engine's own overhead they add up to ``seconds``.
        instances: number of objects, if the post-processing numbered them (``SplitInstancesd``).
        surround: ``value`` (of the first channel) and ``share`` of the constant surround that the preprocessing found
            (``LevelSurroundd``); None if it found none or did not look for one.
        depths: number of windows by the level at which they stopped, if the inferer chooses the depth of each window.
        pixels: voxels or pixels of the prediction, with the background; 0 if it is not a map of labels or objects.
        covered: voxels or pixels of numbered objects; 0 without these.
        files: all files of the input: several for a case with one per channel, and for a chosen DICOM series.
        problems: one line for each file beside ``output`` that could not be written.
    """

    case: str
    file: str
    output: str | None
    seconds: float
    volumes_ml: dict[int, float]
    stages: dict[str, float] = dataclasses.field(default_factory=dict)
    instances: int | None = None
    surround: dict[str, float] | None = None
    depths: dict[str, int] = dataclasses.field(default_factory=dict)
    voxels: dict[int, int] = dataclasses.field(default_factory=dict)
    pixels: int = 0
    covered: int = 0
    files: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class CaseFailure:
    """A case that could not be segmented, and the reason: one line that does not repeat the file."""

    case: str
    file: str
    reason: str

    @classmethod
    def of(cls, case: str, file: str, reason: str) -> CaseFailure:
        """The failure of a case, whose reason may begin with the file."""
        return cls(case, file, reason.removeprefix(f"{file}: ").removeprefix(f"{printable(file)}: "))

    def __str__(self) -> str:
        inside = self.reason.startswith(f"{self.file}{os.sep}")
        return printable(self.reason if inside else f"{self.file}: {self.reason}")

"""The plan of an evaluation: plain, frozen and checked, in groups. Importing this module does not import torch.

A bundle's ``prune.json`` builds a :class:`PruningPlan` by ``_target_``, the command line derives its options from the
fields, and :meth:`PruningPlan.of` takes them by name.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_unetpp.choices import FORMS_HELP, SUBJECT_PATTERN_HELP, SUBJECTS_HELP
from monai_unetpp.options import OUTPUT_FLAGS, option, option_names
from monai_unetpp.progress import Progress
from monai_unetpp.pruning.rules import Rules

if TYPE_CHECKING:
    import torch

    from monai_unetpp.networks import NestedUNet

_Path = str | PathLike[str]


@dataclasses.dataclass(frozen=True)
class EvaluatedNetwork:
    """The network, and how it segments an image.

    Attributes:
        network: the trained network with all its heads.
        preprocessing: MONAI ``Compose`` that loads and prepares the key ``image``.
        inferer: runs the network over a volume.
        postprocessing: MONAI ``Compose`` from logits to integer labels on the image's own grid.
        labels: value of every label by name, without the background.
        tolerance_mm: tolerance of the normalised surface Dice by label.
        window_shape: spatial shape of the inferer's window, or one size for all axes, for the cost of one window.
        extra: further checkpoints to compare with, by name, such as ``{"L2 trained alone": "alone/model.pt"}``.
        device: where to run.
        bundle: the bundle of ``network``; needed to write a pruned one.
        checkpoint: the file of the weights of ``network``, beside which their training recorded its cases.
    """

    network: NestedUNet
    preprocessing: Any
    inferer: Any
    postprocessing: Any
    labels: Mapping[str, int]
    tolerance_mm: Mapping[str, float]
    window_shape: Sequence[int]
    extra: Mapping[str, _Path] = dataclasses.field(default_factory=dict)
    device: torch.device | str = "cpu"
    bundle: _Path | None = None
    checkpoint: _Path | None = None

    @property
    def steps(self) -> dict[str, Any]:
        """Transforms and inferer, as the arguments of :func:`monai_unetpp.pruning.predict_case`."""
        return {name: getattr(self, name) for name in ("preprocessing", "inferer", "postprocessing")}


@dataclasses.dataclass(frozen=True)
class EvaluationData:
    """The labelled cases, and which of them only confirm.

    Attributes:
        dataset_dir: one or more folders with ``dataset.json``: each gets a verdict, and all together one more. The
            name of the folder is the name of the data set.
        list_key: list of ``dataset.json`` to use.
        confirm_dir: another data set that only confirms the level chosen on the others; it must share no image and no
            subject with them.
        confirm_share: share of the subjects held out to confirm the choice, such as 0.5.
        subjects: subject by case, or a CSV file with the columns ``case`` and ``subject``.
        subject_pattern: regular expression with one group that finds the subject in the case's name.
        subjects_of: the only data set whose subjects these two tell, such as that of the training; None for all.
        exclude_problems: leave out cases with problems in their data instead of stopping; not those of ``scores``.
        training_list: list of ``dataset.json`` on which the network was trained, such as ``"training"``. It is scored
            too, to show how much better each level is on cases that it knows.
        scores: tables of out-of-fold scores, one per fold, to use instead of scoring the cases of ``dataset_dir``; see
            :func:`monai_unetpp.pruning.judge`. The cases may be of any of its lists. A training with ``--folds`` writes
            them as ``training/fold_1/per_case.csv`` and so on.
        only: names of the cases of the data sets that are scored; empty for all of the list.
        unscored: which cases are not scored and why, as a sentence for the report.

    Raises:
        ValueError: no data set, two with the same name, both ways to confirm, a share out of range, or tables of
            scores for several data sets.
    """

    dataset_dir: tuple[Path, ...] = option(
        flags=("dataset_dir", "-i", "--input", "--dataset_dir"),
        action="append",
        metavar="DATASET_DIR",
        help=f"folder with {FORMS_HELP}; repeatable: gives a verdict for each and one for all",
    )
    list_key: str = option("validation", metavar="KEY", help="list of dataset.json to use")
    confirm_dir: Path | None = option(None, metavar="DIR", help="a data set that only confirms the chosen level")
    confirm_share: float | None = option(
        None,
        type=float,
        metavar="SHARE",
        help="share of the subjects, between 0 and 1, to hold out to confirm the chosen level",
    )
    subjects: Mapping[str, str] | _Path | None = option(None, metavar="FILE", help=SUBJECTS_HELP)
    subject_pattern: str | None = option(None, metavar="REGEX", help=SUBJECT_PATTERN_HELP)
    exclude_problems: bool = option(False, help="leave out cases with problems in their data")
    training_list: str | None = option(
        None, metavar="KEY", help="also score this list of training cases, to see how each level overfits"
    )
    scores: tuple[Path, ...] = option(
        (),
        action="append",
        metavar="CSV",
        help="out-of-fold scores of the cases, such as a fold's per_case.csv; repeatable, once for each fold",
    )
    only: tuple[str, ...] = ()
    unscored: str = ""
    subjects_of: Path | None = None

    def __post_init__(self) -> None:
        for name in ("dataset_dir", "scores"):
            given = getattr(self, name) or ()
            paths = [given] if isinstance(given, (str, PathLike)) else given
            object.__setattr__(self, name, tuple(map(Path, paths)))
        for name in ("confirm_dir", "subjects_of"):
            folder = getattr(self, name)
            object.__setattr__(self, name, None if folder is None else Path(folder))
        _check_names(self.names, count=len(self.dataset_dir))
        if self.confirm_dir is not None and self.confirm_share is not None:
            raise ValueError("confirm_dir and confirm_share exclude each other. Give the one you want to confirm with.")
        if self.confirm_share is not None and not 0 < self.confirm_share < 1:
            raise ValueError(f"confirm_share must lie between 0 and 1, got {self.confirm_share}. 0.5 is a good split.")
        if self.scores and len(self.dataset_dir) > 1:
            raise ValueError(
                f"scores must be of one data set, got {len(self.dataset_dir)} with dataset_dir. Judge each alone."
            )

    @property
    def folders(self) -> tuple[Path, ...]:
        """All data sets, the one that only confirms last."""
        return (*self.dataset_dir, *([] if self.confirm_dir is None else [self.confirm_dir]))

    @property
    def given_subject_rules(self) -> dict[str, Any]:
        """The rules given for subjects, as arguments of :func:`monai_unetpp.data.load_datalist`."""
        return {"subjects": self.subjects, "subject_pattern": self.subject_pattern}

    def subject_rules(self, folder: Path) -> dict[str, Any]:
        """How :func:`monai_unetpp.data.load_datalist` finds the subjects of a data set, as its arguments."""
        is_other = self.subjects_of is not None and folder.resolve() != self.subjects_of.resolve()
        return {} if is_other else self.given_subject_rules

    @property
    def names(self) -> tuple[str, ...]:
        """Names of :attr:`folders`."""
        return tuple(folder.resolve().name for folder in self.folders)


def check_runs(repeats: int, warm_up: int) -> None:
    """Refuse fewer than one measured run, or fewer than none before."""
    if repeats < 1:
        raise ValueError(f"repeats must be 1 or more, got {repeats}. Ten give a usable spread.")
    if warm_up < 0:
        raise ValueError(f"warm_up must be 0 or more, got {warm_up}. Two are usual.")


@dataclasses.dataclass(frozen=True)
class CostSettings:
    """How costs are measured, and at which further settings of the inferer.

    Attributes:
        repeats: latency runs of each level.
        warm_up: unmeasured runs before them.
        volume_share: share of the voxels of the case of median size on which time and memory are measured, about.
        settings: values of overlap, flips, precision, runtime and windows at which every level is evaluated too, in all
            combinations, such as ``{"overlap": [0.0, 0.25], "precision": ["fp32", "bf16"]}`` or ``["overlap=0,0.25",
            "precision=fp32,bf16"]``; the inferer must then be a ``NestedSlidingWindowInferer``. ``adaptive`` lists
            tolerances for choosing the depth of each window, at the inferer's own setting. The verdict does not
            change; the report also compares the operating points.
        settings_repeats: latency runs of each operating point of ``settings``.

    Raises:
        ValueError: fewer than one run, fewer than none to warm up, or a share out of range.
    """

    repeats: int = option(10, type=int, metavar="N", help="measured runs of each level, each of a whole volume")
    warm_up: int = 2
    volume_share: float = 1.0
    settings: Mapping[str, Any] | Sequence[str] | str | None = option(
        None,
        action="append",
        metavar="NAME=VALUE,...",
        help="also evaluate every level at these values of overlap (0 to below 1), flips (none, 0, 0+1, ...), "
        "precision (fp32, bf16, ...), runtime (torch, openvino, ...) or windows (own, auto), in all combinations; and "
        "adaptive=0.02,0.033: choose the depth of each window at these tolerances; repeatable, once for each name",
    )
    settings_repeats: int = option(3, type=int, metavar="N", help="measured runs of each operating point")

    def __post_init__(self) -> None:
        check_runs(self.repeats, self.warm_up)
        if not 0 < self.volume_share <= 1:
            raise ValueError(f"volume_share must lie above 0 and up to 1, got {self.volume_share}.")
        if self.settings_repeats < 1:
            raise ValueError(
                f"settings_repeats must be 1 or more, got {self.settings_repeats}. Use at least three to compare."
            )


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What is written, and where.

    Attributes:
        output_dir: folder for the report and for finished cases.
        title: name of the model in the report.
        save_uncertainty: write a map of where the levels disagree for every case, and measure how well it finds errors.
        write: folder for the pruned bundle; it is written if the verdict is to prune.
        overwrite: whether ``write`` may replace an earlier pruned bundle.
        progress: True shows bars on standard error, a function is called with a line of text after each case.
        pictures: most of the worst cases to draw.
    """

    output_dir: Path = option(flags=OUTPUT_FLAGS, metavar="DIR", help="folder for the report")
    title: str = "nested U-Net"
    save_uncertainty: bool = option(False, help="write maps of where the levels disagree")
    write: Path | None = option(None, metavar="DIR", help="write the pruned bundle there if the verdict is to prune")
    overwrite: bool = option(False, help="replace an earlier pruned bundle")
    progress: Progress = True
    pictures: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "output_dir", Path(self.output_dir))
        object.__setattr__(self, "write", None if self.write is None else Path(self.write))


_GROUPS: dict[str, type[Any]] = {
    "pipeline": EvaluatedNetwork,
    "data": EvaluationData,
    "rules": Rules,
    "costs": CostSettings,
    "outputs": Outputs,
}


@dataclasses.dataclass(frozen=True)
class PruningPlan:
    """Everything that :func:`monai_unetpp.pruning.prune` needs.

    Attributes:
        pipeline: the network and its transforms.
        data: the cases.
        outputs: what to write.
        rules: rules of the verdict, fixed before any case is scored.
        costs: how costs are measured.
    """

    pipeline: EvaluatedNetwork
    data: EvaluationData
    outputs: Outputs
    rules: Rules = dataclasses.field(default_factory=Rules)
    costs: CostSettings = dataclasses.field(default_factory=CostSettings)

    @classmethod
    def of(cls, **fields: Any) -> PruningPlan:
        """A plan from the fields of all groups by name.

        Raises:
            ValueError: no such field.
            TypeError: a missing field that has no default.
        """
        given = _by_group(fields)
        return cls(**{name: group(**given[name]) for name, group in _GROUPS.items()})

    def with_fields(self, **fields: Any) -> PruningPlan:
        """The same plan with other values of some fields.

        Raises:
            ValueError: no such field.
        """
        given = _by_group(fields)
        groups = {name: dataclasses.replace(getattr(self, name), **given[name]) for name in _GROUPS}
        return dataclasses.replace(self, **groups)

    @staticmethod
    def field_names() -> tuple[str, ...]:
        """Names of the fields of all groups."""
        return tuple(field for group in _GROUPS.values() for field in option_names(group))


def _by_group(fields: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    homes = {field: name for name, group in _GROUPS.items() for field in option_names(group)}
    given: dict[str, dict[str, Any]] = {name: {} for name in _GROUPS}
    for field, value in fields.items():
        if field not in homes:
            close = difflib.get_close_matches(field, homes, 1)
            advice = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(homes)}."
            raise ValueError(f"a pruning plan has no field {field!r}. {advice}")
        given[homes[field]][field] = value
    return given


def _check_names(names: Sequence[str], count: int) -> None:
    if not count:
        raise ValueError("dataset_dir must name one data set or more, got none.")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(
            f"data sets must have folders of different names, got {repeated!r} twice. Rename one: the folder names the "
            "data set in the report."
        )
    if len(names) > 1 and "all" in names:
        raise ValueError(
            "data sets must not be called 'all' where there are several. Rename the folder: 'all' means all of them in "
            "the report."
        )

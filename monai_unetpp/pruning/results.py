"""The results that the stages of pruning pass on: frozen, plain and easy to serialise.

Scoring gives :class:`ScoreRow`, measuring gives :class:`PointCost`, deciding gives :class:`Decision`; a
:class:`PruningResult` holds all of them, and the writers only read it.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from monai_unetpp.measuring.environment import Environment
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.metrics import METRICS, LabelScore
from monai_unetpp.pruning.rules import Rules
from monai_unetpp.reporting.html import html_paragraph, html_table

__all__ = [
    "AdaptiveDepth",
    "AdaptivePoint",
    "CaseDepth",
    "Comparison",
    "DataProblem",
    "Decision",
    "Exposure",
    "InferenceSetting",
    "OperatingGrid",
    "OperatingPoint",
    "PointCost",
    "PointOutcome",
    "PruningResult",
    "ScoreRow",
    "SelfCheck",
    "SetDifference",
    "Stability",
    "TradeOff",
    "TrainingGap",
    "Verdict",
]

Verdict = Literal["prune", "keep", "inconclusive"]


@dataclasses.dataclass(frozen=True)
class InferenceSetting:
    """How a level is run over a volume: what a user can choose besides the level.

    Attributes:
        overlap: share of a window that overlaps with the next, one number for all axes or one for each.
        flips: spatial axes of test-time flips, from 0; empty for none.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        runtime: ``"torch"``, ``"compile"`` or ``"openvino"``.
        auto_windows: whether windows are as few and as large as memory allows, instead of the inferer's own shape.
    """

    overlap: tuple[float, ...]
    flips: tuple[int, ...]
    precision: str
    runtime: str
    auto_windows: bool = False

    @property
    def windows(self) -> str:
        """``"auto"`` or ``"own"``."""
        return "auto" if self.auto_windows else "own"

    @property
    def name(self) -> str:
        """Short and unique, such as ``"overlap=0 bf16 openvino"``; without what is off."""
        overlap = "overlap=" + ",".join(f"{share:g}" for share in self.overlap)
        flips = ["flips=" + "+".join(map(str, self.flips))] if self.flips else []
        windows = ["windows=auto"] if self.auto_windows else []
        return " ".join([overlap, *flips, self.precision, self.runtime, *windows])


@dataclasses.dataclass(frozen=True)
class OperatingPoint:
    """Something a user can choose: a level cut out of the full network, or a separate network.

    Attributes:
        name: unique, such as ``"L2"``, ``"L2 trained alone"`` or ``"L2 overlap=0 bf16 openvino"``.
        level: the level it computes, such as ``"L2"``.
        kind: ``"embedded"`` for a level of the evaluated network, ``"extra"`` for a further checkpoint. Only
            embedded points are candidates for pruning; extra ones are compared.
        checkpoint: file name of the weights.
        setting: how it is run in a grid of settings; None for the given inferer.
    """

    name: str
    level: str
    kind: Literal["embedded", "extra"] = "embedded"
    checkpoint: str = ""
    setting: InferenceSetting | None = None

    @property
    def known_setting(self) -> InferenceSetting:
        """The setting of a point of a grid, which has one."""
        if self.setting is None:
            raise ValueError(f"points must have a setting, got none for {self.name!r}. See list_settings.")
        return self.setting


@dataclasses.dataclass(frozen=True)
class ScoreRow:
    """The score of one label of one case at one operating point.

    Attributes:
        dataset: name of the data set.
        case: name of the case, unique in its data set.
        subject: the subject of the case; equal to ``case`` if unknown.
        point: name of the operating point.
        label: name of the label, or ``"foreground"`` for all labels pooled.
        score: the numbers and their state.
    """

    dataset: str
    case: str
    subject: str
    point: str
    label: str
    score: LabelScore


@dataclasses.dataclass(frozen=True)
class DataProblem:
    """A case that could not be scored, and why."""

    dataset: str
    case: str
    reason: str


@dataclasses.dataclass(frozen=True)
class SelfCheck:
    """Whether the pruned network computes what was scored: largest absolute difference of the logits."""

    max_difference: float
    equal: bool


@dataclasses.dataclass(frozen=True)
class PointCost:
    """The cost of an operating point, measured on the pruned network.

    Attributes:
        point: name of the operating point.
        parameters: number of parameters.
        flops_per_window: floating-point operations for one window (a multiplication and an addition count as two).
        checkpoint_bytes: size of the pruned state dict as a file.
        window_latency_s: seconds per window.
        volume_latency_s: seconds per whole volume, including the inferer.
        peak_memory_bytes: peak memory while one volume is segmented: device memory on CUDA, on a CPU the growth of the
            resident set of a separate process.
        window_shape: spatial shape of the window.
        volume_shape: spatial shape of the volume.
        self_check: the pruned network against the scored level; None for further checkpoints.
        volume_energy_j: joules per whole volume, idle power included; None if the machine does not report it.
    """

    point: str
    parameters: int
    flops_per_window: int
    checkpoint_bytes: int
    window_latency_s: Quartiles
    volume_latency_s: Quartiles
    peak_memory_bytes: int
    window_shape: tuple[int, ...]
    volume_shape: tuple[int, ...]
    self_check: SelfCheck | None = None
    volume_energy_j: Quartiles | None = None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The comparison of a level with the deepest, for one guarded metric of one label.

    Attributes:
        point: name of the shallower operating point.
        reference: name of the deepest one.
        metric: name of the metric.
        label: name of the label.
        margin: the non-inferiority margin.
        cases: number of paired cases.
        clusters: number of subjects.
        mean_reference: mean of the metric at the reference.
        mean_point: mean of the metric at the point.
        mean_difference: mean of the paired differences, signed so that negative is worse at the point.
        sd_difference: their standard deviation (of subject means if subjects have several cases).
        lower_bound: one-sided lower confidence bound of the mean difference at ``1 - alpha``.
        upper_bound: the upper bound at the same level, for display.
        method: ``"bca"`` or ``"t"``.
        worst_difference: the most negative difference.
        worst_case: name of its case.
        state: ``"pass"``, ``"fail"`` or ``"inconclusive"``.
        subjects_needed: subjects for 80 % power if there is no true difference; None if unknown.
        reason: one sentence.
        drops: subjects in which more cases drop by more than the limit of single cases than gain as much.
        gains: subjects in which it is the other way round.
        newly_missed: subjects in which the point alone misses the label completely in more cases than the reference
            alone does.
        newly_found: subjects in which it is the other way round.
    """

    point: str
    reference: str
    metric: str
    label: str
    margin: float
    cases: int
    clusters: int
    mean_reference: float
    mean_point: float
    mean_difference: float
    sd_difference: float
    lower_bound: float
    upper_bound: float
    method: str
    worst_difference: float
    worst_case: str
    state: Literal["pass", "fail", "inconclusive"]
    subjects_needed: int | None
    reason: str
    drops: int = 0
    gains: int = 0
    newly_missed: int = 0
    newly_found: int = 0


@dataclasses.dataclass(frozen=True)
class TradeOff:
    """An operating point picked by another rule than non-inferiority.

    Attributes:
        rule: the rule, such as ``"latency_ms<=50"`` or ``"pareto accuracy/latency_ms"``.
        points: names of the points it picks: the front, a single one, or none.
        reason: why.
        on_front: for a front, the share of 1,000 resamples of the subjects in which each point is on it.
    """

    rule: str
    points: tuple[str, ...]
    reason: str
    on_front: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Decision:
    """The verdict on one data set (or on all), and its basis.

    Attributes:
        dataset: name of the data set, or ``"all"``.
        verdict: ``"prune"``, ``"keep"`` or ``"inconclusive"``.
        level: the level to use: the pruned one, or the deepest if the verdict is not to prune.
        role: what the cases were used for.
        cases: number of cases.
        subjects: number of subjects.
        comparisons: every comparison made, deepest level first.
        blockers: why the test stopped at a level (newly missed structures, large drops, failed margin), in sentences.
        subjects_needed: how many would probably settle an inconclusive verdict; None if unknown.
        optimistic: whether the same cases chose the level and give its figures.
        summary: the verdict in one sentence.
        warnings: what a reader should know before relying on it.
        tested: names of the points that were tested, in this order: down to the first that did not pass. Other
            comparisons are descriptive.
    """

    dataset: str
    verdict: Verdict
    level: str
    role: Literal["choose", "confirm", "choose and report"]
    cases: int
    subjects: int
    comparisons: tuple[Comparison, ...]
    blockers: tuple[str, ...]
    subjects_needed: int | None
    optimistic: bool
    summary: str
    warnings: tuple[str, ...] = ()
    tested: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        """The verdict in a notebook: one sentence, what stopped it, and every comparison."""
        rows = [
            (
                one.point,
                METRICS[one.metric].name,
                one.label,
                f"{one.mean_point:.4f}",
                f"{one.mean_difference:+.4f}",
                f"{one.lower_bound:+.4f}",
                f"{-one.margin:g}",
                one.state if one.point in self.tested else f"{one.state} (not tested)",
            )
            for one in self.comparisons
        ]
        header = ("level", "metric", "label", "mean", "difference", "lower bound", "must be above", "state")
        return "".join([*map(html_paragraph, (self.summary, *self.blockers)), html_table(header, rows)])


@dataclasses.dataclass(frozen=True)
class Stability:
    """The verdicts on other samples of the same subjects.

    Shares are by name of the level to use (the deepest for *keep*), or ``"inconclusive"``; verdicts that never occur
    are left out.

    Attributes:
        dataset: name of the data set.
        subjects: number of subjects.
        halves: share of 1,000 random halves of the subjects with each verdict.
        new_samples: the same with every subject of a half counted twice: such samples vary like new ones of full size
            from the same source.
        leave_one_out: share of the samples without one subject with each verdict.
        turning: the subjects without which the verdict would change.
    """

    dataset: str
    subjects: int
    halves: dict[str, float]
    new_samples: dict[str, float]
    leave_one_out: dict[str, float]
    turning: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SetDifference:
    """How a level's loss differs between two data sets.

    Attributes:
        point: name of the level.
        metric: name of the metric.
        label: name of the label.
        first: name of a data set.
        second: name of another one.
        difference: mean difference on ``first`` minus that on ``second``; negative where the level loses more on
            ``first``.
        lower: lower end of its two-sided 95 % interval.
        upper: upper end.
        depends_on_set: whether the interval excludes 0.
    """

    point: str
    metric: str
    label: str
    first: str
    second: str
    difference: float
    lower: float
    upper: float
    depends_on_set: bool


@dataclasses.dataclass(frozen=True)
class Exposure:
    """How many of the cases behind a verdict took part in the weights.

    Attributes:
        dataset: name of the data set.
        role: role of the cases, as in :class:`Decision`.
        cases: number of cases.
        training: how many were used for training.
        selecting: how many chose the weights.
        rule: how the weights were chosen; empty if the bundle does not say.
        out_of_fold: whether other networks scored the cases, none of which was trained on the subjects that it scored.
        unchecked: whether only the scores that were given imply the latter, as their networks are not known.
    """

    dataset: str
    role: str
    cases: int
    training: int
    selecting: int
    rule: str
    out_of_fold: bool = False
    unchecked: bool = False


@dataclasses.dataclass(frozen=True)
class TrainingGap:
    """Mean Dice of a label at a level on the training cases of a data set, and on its judging cases."""

    dataset: str
    point: str
    label: str
    training: float
    judging: float


@dataclasses.dataclass(frozen=True)
class PointOutcome:
    """How an operating point of a grid compares with the reference on one data set.

    Attributes:
        point: name of the operating point.
        dataset: name of the data set.
        state: ``"pass"`` if it is not worse by more than the margins, ``"fail"`` or ``"inconclusive"``.
        alpha: one-sided error level of its bounds, corrected for the number of points.
        comparisons: every guarded metric of every label.
        reasons: sentences on what did not pass.
    """

    point: str
    dataset: str
    state: Literal["pass", "fail", "inconclusive"]
    alpha: float
    comparisons: tuple[Comparison, ...]
    reasons: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class OperatingGrid:
    """All levels at all settings of a grid: accuracy, cost, and which of them are as good as the reference.

    Attributes:
        reference: name of the deepest level at the setting of the given inferer.
        points: level by setting, the given inferer's setting first, levels shallowest first.
        rows: scores of all points on the choosing cases.
        accuracy: mean Dice by name of the point, over labels and data sets.
        costs: by name of the point.
        time_ratios: by name of the point: time per volume relative to the reference in the same round.
        outcomes: by data set, of every point but the reference.
        front: names of the points that no other beats in both accuracy and time, most accurate first.
        on_front: by point, the share of 1,000 resamples of the subjects in which it is on the front.
        recommended: the fastest point that passes on every data set; None if none is faster than the reference.
        reason: why, in one sentence.
        left_out: settings that failed on a case, and why.
    """

    reference: str
    points: tuple[OperatingPoint, ...]
    rows: tuple[ScoreRow, ...]
    accuracy: dict[str, float]
    costs: dict[str, PointCost]
    time_ratios: dict[str, Quartiles]
    outcomes: tuple[PointOutcome, ...]
    front: tuple[str, ...]
    recommended: str | None
    reason: str
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    on_front: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class CaseDepth:
    """The number of windows of a case by the level at which they stopped, at a point such as ``"adaptive=0.033"``."""

    dataset: str
    case: str
    point: str
    windows: dict[str, int]


@dataclasses.dataclass(frozen=True)
class AdaptivePoint:
    """A tolerance for choosing the depth of each window, with its cost and accuracy.

    Attributes:
        name: such as ``"adaptive=0.033"``.
        tolerance: of ``1 - Dice`` between neighbouring levels.
        windows: windows of all cases by the level at which they stopped.
        operations_ratio: floating-point operations of all windows relative to the deepest level.
        time_ratio: time of the timed cases relative to the deepest level in the same round.
        outcomes: by data set, compared with the deepest level, at the full error level.
        accepted: whether this tolerance and all smaller ones pass on every data set.
        equal_cost: the level with the nearest number of operations, except the deepest.
        equal_cost_outcomes: outcomes of that level by data set.
    """

    name: str
    tolerance: float
    windows: dict[str, int]
    operations_ratio: float
    time_ratio: Quartiles
    outcomes: tuple[PointOutcome, ...]
    accepted: bool
    equal_cost: str
    equal_cost_outcomes: tuple[PointOutcome, ...]


@dataclasses.dataclass(frozen=True)
class AdaptiveDepth:
    """Whether choosing the depth per window pays.

    Attributes:
        reference: name of the deepest level.
        points: by tolerance, the smallest first.
        rows: their scores on the choosing cases.
        depths: of every case at every point.
        level_operations: operations of a window by the level at which it stops, relative to the deepest.
        timed_cases: number of cases that were timed.
        recommended: the accepted point with the fewest operations, if it is also faster; else None.
        reason: why, in one sentence.
        staging: by runtime, the time of the timed cases if the network runs in stages and no window stops, relative to
            the deepest level alone in the same round.
    """

    reference: str
    points: tuple[AdaptivePoint, ...]
    rows: tuple[ScoreRow, ...]
    depths: tuple[CaseDepth, ...]
    level_operations: dict[str, float]
    timed_cases: int
    recommended: str | None
    reason: str
    staging: dict[str, Quartiles] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class PruningResult:
    """The result of one run of the pruning evaluator.

    Attributes:
        title: name of the evaluated model.
        points: all operating points, shallowest level first, extra ones last.
        labels: names of the labels without the background, in the order of their values.
        tolerance_mm: tolerance of the normalised surface Dice by label.
        rows: all scores.
        problems: cases that were left out.
        costs: by name of the operating point.
        environment: where costs were measured.
        rules: rules of the verdict.
        decisions: one per data set and, for several, one for ``"all"``.
        trade_offs: Pareto front, budgets and utility.
        command: the command line or call.
        overlays: paths of pictures of the worst cases of the chosen level.
        error_auroc: how well disagreement between levels finds errors, mean over the cases of a data set, and over
            data sets; None if not measured.
        settings: how images were segmented and cases chosen (window, overlap, flips, list of cases, share held out,
            rules of an earlier report in the same folder, ...), as text by name, in display order.
        grid: the levels at further settings of the inferer; None if only the given one was evaluated.
        adaptive: depths chosen per window; None without tolerances.
        stability: of the verdict on each data set, with several first on all together (``"all"``).
        between_sets: how the losses of the levels differ between data sets.
        exposures: whether the cases of each decision took part in the weights; None if the bundle does not say.
        doubts: doubts about the plan or the cases, in sentences.
        training_gap: accuracy on training cases beside that on the judging ones, if requested.
        confirming: data set and name of the cases that only confirm.
    """

    title: str
    points: tuple[OperatingPoint, ...]
    labels: tuple[str, ...]
    tolerance_mm: dict[str, float]
    rows: tuple[ScoreRow, ...]
    problems: tuple[DataProblem, ...]
    costs: dict[str, PointCost]
    environment: Environment | None
    rules: Rules
    decisions: tuple[Decision, ...]
    trade_offs: tuple[TradeOff, ...]
    command: str
    overlays: tuple[str, ...] = ()
    error_auroc: float | None = None
    settings: dict[str, str] = dataclasses.field(default_factory=dict)
    grid: OperatingGrid | None = None
    adaptive: AdaptiveDepth | None = None
    stability: tuple[Stability, ...] = ()
    between_sets: tuple[SetDifference, ...] = ()
    exposures: tuple[Exposure, ...] | None = None
    doubts: tuple[str, ...] = ()
    training_gap: tuple[TrainingGap, ...] = ()
    confirming: tuple[tuple[str, str], ...] = ()

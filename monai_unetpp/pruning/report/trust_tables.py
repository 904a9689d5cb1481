"""The tables on the trust in a verdict: other samples, and other data sets."""

from __future__ import annotations

from monai_unetpp.metrics import METRICS
from monai_unetpp.pruning.report.trust_wording import verdict_in_words
from monai_unetpp.pruning.results import PruningResult
from monai_unetpp.pruning.wording import capitalised, data_set_in_words, format_difference
from monai_unetpp.reporting.numbers import rough_percent
from monai_unetpp.reporting.tables import Table, TableCell

__all__ = ["between_sets_table", "stability_table"]


def stability_table(result: PruningResult) -> Table | None:
    """How often other samples of the same subjects give each verdict; None if unknown."""
    samples = [
        (each, name, shares)
        for each in result.stability
        for name, shares in (
            ("new subjects, as many", each.new_samples),
            ("half of these subjects", each.halves),
            ("all but one subject", each.leave_one_out),
        )
    ]
    found = {verdict for _, _, shares in samples for verdict in shares}
    verdicts = [point.name for point in result.points if point.name in found]
    verdicts += sorted(found - set(verdicts))
    headings = {verdict: capitalised(verdict_in_words(result, verdict)) for verdict in verdicts}
    records = [
        {
            "Sample": name,
            **({"Data set": data_set_in_words(each.dataset)} if len(result.stability) > 1 else {}),
            "Subjects": str(each.subjects),
            **{words: rough_percent(shares.get(verdict, 0.0)) for verdict, words in headings.items()},
        }
        for each, name, shares in samples
    ]
    if not records:
        return None
    return Table.of(
        "How often other samples would give each verdict",
        records,
        words=("Sample", "Data set"),
        notes=[
            "Share of samples. New subjects are imitated by random halves in which every subject counts twice: such "
            "samples vary like new ones of full size from the same source.",
        ],
    )


def between_sets_table(result: PruningResult) -> Table | None:
    """How the loss of each level differs between data sets; None with a single one."""
    records = [
        {
            "Level": each.point,
            "Metric": METRICS[each.metric].heading,
            "Label": each.label,
            "Data sets": f"{each.first} minus {each.second}",
            "Difference of the losses": format_difference(each.metric, each.difference),
            "95 % interval": (
                f"{format_difference(each.metric, each.lower)} to {format_difference(each.metric, each.upper)}"
            ),
            "Depends on the set": TableCell("yes", "unsure") if each.depends_on_set else "not shown",
        }
        for each in result.between_sets
    ]
    if not records:
        return None
    return Table.of(
        "Does the loss depend on the data set?",
        records,
        words=("Level", "Metric", "Label", "Data sets", "Depends on the set"),
        notes=[
            "How much more a level gains (+) or loses (-) against the deepest on the first data set than "
            "on the second. The loss depends on the set if the bootstrap interval excludes 0.",
        ],
    )

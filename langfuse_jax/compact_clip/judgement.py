"""A compact CLIP's report against the limits we set ourselves, and as tables to read."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from langfuse_jax.compact_clip.concepts import AXES
from langfuse_jax.compact_clip.report import IMITATIONS

Report = Mapping[str, Any]


class Limit(NamedTuple):
    """A number of a report and what it must reach: at least `limit`, or at most where `at_most`."""

    name: str
    value: float
    limit: float
    at_most: bool = False

    @property
    def reached(self) -> bool:
        """Whether the number is within the limit."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit


def limits(report: Report) -> list[Limit]:
    """What is asked of a report of `train_clip`: of the development sets, and of all sets of unseen cameras.

    The latter are those of data.unseen and the cameras left out of a training run each; numbers of several sets are
    their means. Limits of sets that were not measured are left out.
    """
    development, unseen = (
        list(report["development"].values()),
        [*report["unseen"].values(), *report["left_out"].values()],
    )
    sentences = report["sentences"]
    found = [
        Limit("largest cosine of two of the three sentences", sentences["largest_cosine"], 0.35, at_most=True),
        Limit("negations understood", sentences["negations"], 0.9),
    ]

    def mean(name: str, numbers: Sequence[float | None], limit: float) -> None:
        measured = [number for number in numbers if number is not None]
        if measured:
            found.append(Limit(name, float(np.mean(measured)), limit))

    for sets, where in ((development, "development"), (unseen, "unseen cameras")):
        mean(f"modality AUC, {where}", [one["modality_auc"] for one in sets], 0.9)
        mean(f"goal AUC, {where}", [one["goal_auc"] for one in sets], 0.88)
        mean(f"faults named, {where}", [one["quality_accuracy"] for one in sets], 0.88)
    if unseen:
        lowest = min(one["modality_auc"] for one in unseen)
        found.append(Limit("modality AUC, lowest of unseen cameras", lowest, 0.8))
    for axis in AXES:
        mean(f"order by {axis}, unseen cameras", [one["order"].get(axis) for one in unseen], 0.8)
    mean("two claims at once, unseen cameras", [one.get("composition_auc") for one in unseen], 0.8)
    for name in IMITATIONS:
        mean(f"goal against {name}, unseen cameras", [one["goal_against"].get(name) for one in unseen], 0.75)
    return found


def format_report(report: Report) -> str:
    """The report as Markdown: limits, then a table of sets, then one of strengths."""
    lines = ["| | | limit | |", "|---|---|---|---|"]
    for limit in limits(report):
        sign = "<=" if limit.at_most else ">="
        lines.append(
            f"| {limit.name} | {limit.value:.3f} | {sign} {limit.limit} | {'' if limit.reached else '**missed**'} |"
        )
    sets = {
        **{f"{name} (development)": numbers for name, numbers in report["development"].items()},
        **report["unseen"],
        **{f"{name} (left out)": numbers for name, numbers in report["left_out"].items()},
    }
    columns = ["windows", "modality", "goal", "detailed", "salient", "faults named", "two claims", *IMITATIONS]
    lines += ["", _row(["", *columns]), _row(["---"] * (len(columns) + 1))]
    for name, numbers in sets.items():
        values = [numbers.get(f"{part}_auc") for part in ("modality", "goal", "detailed", "salient")]
        values += [numbers["quality_accuracy"], numbers.get("composition_auc")]
        values += [numbers["goal_against"].get(imitation) for imitation in IMITATIONS]
        lines.append(_row([name, str(numbers["windows"]), *map(_number, values)]))
    lines += ["", _row(["order within windows (over all)", *AXES]), _row(["---"] * (len(AXES) + 1))]
    for name, numbers in sets.items():
        both = ((numbers["order"].get(axis), numbers["order_pooled"].get(axis)) for axis in AXES)
        lines.append(_row([name, *("" if a is None else f"{_number(a)} ({_number(b)})" for a, b in both)]))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"

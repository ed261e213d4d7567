"""A compact CLIP's report against the limits we set ourselves, and as tables to read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from langfuse_jax.compact_clip.concepts import AXES
from langfuse_jax.compact_clip.report import IMITATIONS

Report = Mapping[str, Any]


class Limit(NamedTuple):
    """A number of a report and what it must reach: at least `limit`, or at most where `at_most`.

    `part` is one of PARTS; "" for what does not depend on images.
    """

    name: str
    value: float
    limit: float
    at_most: bool = False
    part: str = ""

    @property
    def reached(self) -> bool:
        """Whether the number is within the limit."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit


# Of a report's parts: the sets that recipes were chosen on, the cameras left out, which recipes were chosen on too, and
# the sets that were looked at once.
PARTS = {"development": "development", "left_out": "left out", "unseen": "unseen"}


def limits(report: Report) -> list[Limit]:
    """The limits for a report of `train_clip`: for its sentences, and for each of PARTS that was measured.

    A number of several sets is their mean, but for the lowest modality AUC.
    """
    sentences = report["sentences"]
    found = [
        Limit("largest cosine of two of the three sentences", sentences["largest_cosine"], 0.35, at_most=True),
        Limit("negations understood", sentences["negations"], 0.9),
        Limit("new sentences understood", sentences["new_sentences"], 0.8),
    ]
    for part in PARTS:
        sets = list(report[part].values())
        if sets:
            found.append(Limit("lowest modality AUC", min(one["modality_auc"] for one in sets), 0.8, part=part))
        for name, limit, numbers in _asked(sets):
            measured = [number for number in numbers if number is not None]
            if measured:
                found.append(Limit(name, float(np.mean(measured)), limit, part=part))
    return found


def _asked(sets: Sequence[Report]) -> Iterator[tuple[str, float, list[float | None]]]:
    """The name, the limit and the numbers of the sets for every limit."""
    yield "modality AUC", 0.9, [one["modality_auc"] for one in sets]
    yield "goal AUC", 0.88, [one.get("goal_auc") for one in sets]
    yield "faults named", 0.88, [one["quality_accuracy"] for one in sets]
    yield "two claims at once (AUC)", 0.8, [one.get("composition_auc") for one in sets]
    for name in IMITATIONS:
        yield f"goal against {name}", 0.75, [one["goal_against"].get(name) for one in sets]
    for axis in AXES:
        yield f"order by {axis}", 0.8, [one["order"].get(axis) for one in sets]


def format_report(report: Report) -> str:
    """The report as Markdown: limits, then a table of sets, then one of strengths."""
    found = limits(report)
    lines = [_row(["", "limit", *PARTS.values()]), _row(["---"] * (len(PARTS) + 2))]
    for name in dict.fromkeys(limit.name for limit in found):
        by_part = {limit.part: limit for limit in found if limit.name == name}
        first = next(iter(by_part.values()))
        bound = f"{'at most' if first.at_most else 'at least'} {first.limit}"
        lines.append(_row([name, bound, *(_judged(by_part.get(part, by_part.get(""))) for part in PARTS)]))
    sets = {f"{name} ({called})": numbers for part, called in PARTS.items() for name, numbers in report[part].items()}
    aucs = ("modality", "goal", "detailed", "salient", "inverted")
    columns = ["windows", *aucs, "faults named", "two claims", *IMITATIONS]
    lines += ["", _row(["", *columns]), _row(["---"] * (len(columns) + 1))]
    for name, numbers in sets.items():
        values = [numbers.get(f"{part}_auc") for part in aucs]
        values += [numbers["quality_accuracy"], numbers.get("composition_auc")]
        values += [numbers["goal_against"].get(imitation) for imitation in IMITATIONS]
        lines.append(_row([name, str(numbers["windows"]), *map(_number, values)]))
    lines += ["", _row(["order within windows (over all)", *AXES]), _row(["---"] * (len(AXES) + 1))]
    for name, numbers in sets.items():
        both = ((numbers["order"].get(axis), numbers["order_pooled"].get(axis)) for axis in AXES)
        lines.append(_row([name, *("" if a is None else f"{_number(a)} ({_number(b)})" for a, b in both)]))
    return "\n".join(lines)


def _judged(limit: Limit | None) -> str:
    if limit is None:
        return ""
    if limit.reached:
        return f"{limit.value:.2f}"
    digits = 3 if round(limit.value, 2) == limit.limit else 2  # a missed limit is not to look reached
    return f"**{limit.value:.{digits}f}**"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"

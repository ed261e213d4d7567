"""Scores of several methods as a table: mean +- standard deviation over images, ranks, and text for files."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float64

from langfuse_jax.runtime.html import Cell, Strong, html_table

_LATEX = str.maketrans({c: rf"\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": "-", "^": r"\^{}"})


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of m methods on n images in k columns.

    Attributes:
      methods: names of the methods.
      images: stems of the images.
      columns: by name, whether higher is better; None: neither, and the column is not ranked.
      values: (m, n, k) scores.

    >>> table = ScoreTable(("mine", "average"), ("7", "8"), {"EN": True}, np.array([[[7.0], [7.2]], [[6.5], [6.1]]]))
    >>> table.mean.round(3).tolist(), table.ranks.tolist(), table.headings()
    ([[7.1], [6.3]], [[1.0], [2.0]], ['EN ↑'])
    """

    methods: Sequence[str]
    images: Sequence[str]
    columns: Mapping[str, bool | None]
    values: Float64[np.ndarray, "m n k"]

    @cached_property
    def mean(self) -> Float64[np.ndarray, "m k"]:
        """Mean over the images."""
        with np.errstate(invalid="ignore"):  # of scores that are infinite both ways
            return self.values.mean(axis=1)

    @cached_property
    def std(self) -> Float64[np.ndarray, "m k"]:
        """Population standard deviation over the images (n, not n - 1): 0 for a single one."""
        with np.errstate(invalid="ignore"):
            return self.values.std(axis=1)

    @cached_property
    def ranks(self) -> Float64[np.ndarray, "m k"]:
        """1 for the method with the best mean, ties sharing the better rank; NaN in columns without a direction.

        A mean that is NaN ranks last.
        """
        ranks = np.full(self.mean.shape, np.nan)
        for k, higher_is_better in enumerate(self.columns.values()):
            if higher_is_better is not None:
                worth = self.mean[:, k] if higher_is_better else -self.mean[:, k]
                worth = np.where(np.isnan(worth), -np.inf, worth)
                ranks[:, k] = 1 + (worth[None] > worth[:, None]).sum(axis=1)
        return ranks

    @cached_property
    def mean_rank(self) -> Float64[np.ndarray, " m"]:
        """Mean of a method's ranks over the columns that have them; NaN without any."""
        ranked = ~np.isnan(self.ranks[0])
        return self.ranks[:, ranked].mean(axis=1) if ranked.any() else np.full(len(self.methods), np.nan)

    @property
    def ranked(self) -> bool:
        """Whether there is anything to compare."""
        return len(self.methods) > 1 and not np.isnan(self.mean_rank).any()

    def headings(self) -> list[str]:
        """The columns' names with an arrow towards the better values."""
        arrows = {True: " ↑", False: " ↓", None: ""}
        return [name + arrows[higher_is_better] for name, higher_is_better in self.columns.items()]

    def cells(self) -> list[list[str]]:
        """ "mean ± std" of each method and column, four digits for the column's largest mean; one image has no std."""
        texts = []
        for mean, std in zip(self.mean.T, self.std.T, strict=True):
            digits = _digits(mean)
            several = len(self.images) > 1
            texts.append([f"{m:.{digits}f}" + f" ± {s:.{digits}f}" * several for m, s in zip(mean, std, strict=True)])
        return [list(row) for row in zip(*texts, strict=True)]

    def _repr_html_(self) -> str:
        """For a notebook: a row for each method with its ranks, the best of each column bold."""
        rows: list[list[Cell]] = []
        for method, cells, ranks, mean_rank in zip(self.methods, self.cells(), self.ranks, self.mean_rank, strict=True):
            row: list[Cell] = [method]
            for cell, rank in zip(cells, ranks, strict=True):
                text = f"{cell} ({rank:.0f})" if self.ranked and rank == rank else cell
                row.append(Strong(text) if self.ranked and rank == 1 else text)
            rows.append([*row, f"{mean_rank:.2f}"] if self.ranked else row)
        return html_table(rows, headings=["", *self.headings()] + ["mean rank"] * self.ranked)


def _digits(values: Float64[np.ndarray, " n"]) -> int:
    largest = np.max(np.abs(values[np.isfinite(values)]), initial=0)
    return 3 if largest == 0 else min(max(3 - math.floor(math.log10(largest)), 0), 6)


def as_text(table: ScoreTable) -> str:
    """For a terminal: a line for each column, the methods side by side with their ranks.

    >>> table = ScoreTable(("mine", "average"), ("7", "8"), {"EN": True}, np.array([[[7.0], [7.2]], [[6.5], [6.1]]]))
    >>> print(as_text(table), end="")
               mine               average
    EN ↑       7.100 ± 0.100 (1)  6.300 ± 0.200 (2)
    mean rank  1.00               2.00
    """
    rows = [["", *table.methods]]
    for k, (heading, cells) in enumerate(zip(table.headings(), zip(*table.cells(), strict=True), strict=True)):
        ranks = [f" ({rank:.0f})" if table.ranked and rank == rank else "" for rank in table.ranks[:, k]]
        rows.append([heading, *(cell + rank for cell, rank in zip(cells, ranks, strict=True))])
    if table.ranked:
        rows.append(["mean rank", *(f"{rank:.2f}" for rank in table.mean_rank)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def as_markdown(table: ScoreTable) -> str:
    """A table of the methods, the best of each column bold, ranks in brackets; then one of all images.

    >>> table = ScoreTable(("mine", "average"), ("7", "8"), {"EN": True}, np.array([[[7.0], [7.2]], [[6.5], [6.1]]]))
    >>> print(as_markdown(table).splitlines()[2])
    | mine | **7.100 ± 0.100** (1) | 1.00 |
    """

    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    headings = table.headings()
    lines = [line(["method", *headings] + ["mean rank"] * table.ranked)]
    lines.append("|---" * (1 + len(headings) + table.ranked) + "|")
    for i, (method, cells) in enumerate(zip(table.methods, table.cells(), strict=True)):
        if table.ranked:
            pairs = zip(cells, table.ranks[i], strict=True)
            cells = [cell if rank != rank else f"{_bold(cell, rank)} ({rank:.0f})" for cell, rank in pairs]
            cells.append(f"{table.mean_rank[i]:.2f}")
        lines.append(line([method, *cells]))
    lines += ["", line(["image", "method", *headings]), "|---" * (2 + len(headings)) + "|"]
    digits = [_digits(column) for column in table.mean.T]
    for n, image in enumerate(table.images):
        for m, method in enumerate(table.methods):
            scores = (f"{value:.{d}f}" for value, d in zip(table.values[m, n], digits, strict=True))
            lines.append(line([image, method, *scores]))
    return "\n".join(lines) + "\n"


def _bold(cell: str, rank: float) -> str:
    return f"**{cell}**" if rank == 1 else cell


def as_latex(table: ScoreTable) -> str:
    r"""A `tabular` for the package booktabs: the best mean of each column bold, the second underlined.

    >>> table = ScoreTable(("mine", "average"), ("7", "8"), {"EN": True}, np.array([[[7.0], [7.2]], [[6.5], [6.1]]]))
    >>> print(as_latex(table).splitlines()[4])
    mine & \textbf{7.100} $\pm$ 0.100 & 1.00 \\
    """
    headings = [
        heading.translate(_LATEX).replace("↑", r"$\uparrow$").replace("↓", r"$\downarrow$")
        for heading in table.headings()
    ]
    lines = [
        rf"\begin{{tabular}}{{l{'c' * (len(headings) + table.ranked)}}}",
        r"\toprule",
        " & ".join(["Method", *headings] + ["Mean rank"] * table.ranked) + r" \\",
        r"\midrule",
    ]
    for i, (method, cells) in enumerate(zip(table.methods, table.cells(), strict=True)):
        cells = [
            _in_latex(cell, rank if table.ranked else 0.0) for cell, rank in zip(cells, table.ranks[i], strict=True)
        ]
        cells += [f"{table.mean_rank[i]:.2f}"] * table.ranked
        lines.append(" & ".join([method.translate(_LATEX), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _in_latex(cell: str, rank: float) -> str:
    mean, _, std = cell.partition(" ± ")
    marked: dict[float, str] = {1: rf"\textbf{{{mean}}}", 2: rf"\underline{{{mean}}}"}
    mean = marked.get(rank, mean)
    return rf"{mean} $\pm$ {std}" if std else mean


def as_csv(table: ScoreTable) -> str:
    """A row for each method and image ("kind" is image), and for each method its mean, std and rank.

    >>> table = ScoreTable(("mine", "average"), ("7", "8"), {"EN": True}, np.array([[[7.0], [7.2]], [[6.5], [6.1]]]))
    >>> print(as_csv(table).splitlines()[1])
    mine,image,7,7.0
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["method", "kind", "image", *table.columns])
    for i, method in enumerate(table.methods):
        for image, values in zip(table.images, table.values[i], strict=True):
            writer.writerow([method, "image", image, *map(float, values)])
        for kind, values in (("mean", table.mean[i]), ("std", table.std[i]), ("rank", table.ranks[i])):
            if kind != "rank" or table.ranked:
                writer.writerow([method, kind, "", *("" if value != value else float(value) for value in values)])
    return file.getvalue()


def as_json(table: ScoreTable, about: Mapping[str, Any]) -> str:
    """Everything, with `about` in front: methods by name with their mean, std, rank, mean_rank and images.

    Scores that are not finite, and ranks that there are not, are null.

    >>> table = ScoreTable(("mine", "average"), ("7", "8"), {"EN": True}, np.array([[[7.0], [7.2]], [[6.5], [6.1]]]))
    >>> json.loads(as_json(table, {"program": "mine"}))["methods"]["mine"]["mean"]
    {'EN': 7.1}
    """

    def numbers(values: Iterable[float]) -> dict[str, float | None]:
        return {name: _finite(value) for name, value in zip(table.columns, values, strict=True)}

    methods: dict[str, dict[str, Any]] = {}
    for i, method in enumerate(table.methods):
        methods[method] = {"mean": numbers(table.mean[i]), "std": numbers(table.std[i])}
        if table.ranked:
            methods[method] |= {"rank": numbers(table.ranks[i]), "mean_rank": _finite(table.mean_rank[i])}
        methods[method]["images"] = dict(zip(table.images, map(numbers, table.values[i]), strict=True))
    return json.dumps({**about, "methods": methods}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None

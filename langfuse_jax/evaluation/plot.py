"""A picture of a table of scores: a panel of bars for each column."""

import io
import math

import numpy as np

from langfuse_jax.errors import UserError
from langfuse_jax.evaluation.table import ScoreTable

FORMATS = ("png", "pdf", "svg")


def load_matplotlib() -> None:
    """Raises UserError where matplotlib is not installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UserError('--plot: needs matplotlib; run pip install "langfuse-jax[plot]"') from error


def draw(table: ScoreTable, title: str, kind: str) -> bytes:
    """Bars of the methods' means in one panel a column, whiskers of one standard deviation; as a file of `kind`.

    Each panel has its own scale, with an arrow towards the better values; the best method's value is bold. Raises
    UserError where matplotlib is not installed.

    Example::

        Path("scores.pdf").write_bytes(draw(table, "21 images", "pdf"))
    """
    load_matplotlib()
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    count, methods = len(table.columns), len(table.methods)
    across = min(count, 5 if methods <= 6 else 3)
    down = math.ceil(count / across)
    figure = Figure(figsize=(across * max(2.0, 0.5 + 0.42 * methods), 2.2 * down + 0.9), layout="constrained", dpi=150)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    colors = [colormaps["tab20" if methods > 10 else "tab10"](i % 20) for i in range(methods)]
    cells = np.array(table.cells()).T
    for k, (panel, heading) in enumerate(zip(axes, table.headings(), strict=False)):
        mean, std = (np.where(np.isfinite(values[:, k]), values[:, k], 0) for values in (table.mean, table.std))
        whiskers = {"yerr": std, "error_kw": {"elinewidth": 0.8, "ecolor": "0.35"}, "capsize": 2}
        panel.bar(range(methods), mean, color=colors, width=0.8, **(whiskers if len(table.images) > 1 else {}))
        panel.set_title(heading, fontsize=10)
        panel.set_xticks([])
        panel.tick_params(axis="y", labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
        panel.axhline(0, color="0.2", linewidth=0.6)
        panel.margins(y=0.15)
        # Beside the whisker, inside the bar: nothing else is there, whatever the sign.
        for i, cell in enumerate(cells[k]):
            best = table.ranked and table.ranks[i, k] == 1
            panel.annotate(
                cell.partition(" ")[0],
                (i, 0),
                xytext=(0, 3 if mean[i] >= 0 else -3),
                textcoords="offset points",
                ha="center",
                va="bottom" if mean[i] >= 0 else "top",
                rotation=90,
                fontsize=7,
                fontweight="bold" if best else "normal",
                bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.75, "linewidth": 0},
            )
    for panel in axes[count:]:
        panel.set_visible(False)
    handles = [axes[0].patches[i] for i in range(methods)]
    # Names are no formulas, whatever signs they have.
    legend = figure.legend(
        handles, table.methods, loc="outside lower center", ncols=min(methods, 6), frameon=False, fontsize=9
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    figure.suptitle(title, fontsize=10)
    file = io.BytesIO()
    figure.savefig(file, format=kind)
    return file.getvalue()

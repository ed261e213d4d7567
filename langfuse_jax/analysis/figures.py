"""Figures for notebooks, as Pillow images, which every notebook shows. They need matplotlib: the extra [plot]."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float32, Shaped
from PIL import Image

from langfuse_jax.analysis.explain import embed_gray, text_plane
from langfuse_jax.clip.pretrained import Clip
from langfuse_jax.clip.words import ROLES, TextEmbeddings
from langfuse_jax.inference.fuser import Explanation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Gray = Float32[np.ndarray, "h w"]
_CURVES = ("loss", "whole", "patch", "goal", "similarity", "perceptual", "guide", "anchor", "grid", "gradient_norm")
_COLORS = {"visible": "tab:blue", "infrared": "tab:red", "goal": "tab:green"}


def _figure(width: int | float, height: int | float, rows: int, columns: int) -> "tuple[Figure, Sequence[Axes]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def _picture(figure: "Figure") -> Image.Image:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return Image.open(file)


def plot_plane(
    clip: Clip, texts: TextEmbeddings, visible: Gray, infrared: Gray, candidates: Mapping[str, Gray]
) -> Image.Image:
    """The three sentences in their plane, and the images projected onto it (see `explain.text_plane`).

    On the left, arrows from each source's words to the goal's. On the right, each candidate fused image, the sources,
    and the same two arrows dashed: where the loss wants to have the fused image, seen from each source.

    Example::

        plot_plane(clip, embed(clip), luma, infrared, {"average": average(luma, infrared)}).save("plane.png")
    """
    plane = text_plane(texts)
    words = {role: plane @ getattr(texts, role) for role in ROLES}
    names = ["visible", "infrared", *candidates]
    images = dict(zip(names, embed_gray(clip, [visible, infrared, *candidates.values()]) @ plane.T, strict=True))
    figure, (left, right) = _figure(11, 5.6, 1, 2)
    for role in ROLES:
        left.plot(*words[role], "o", color=_COLORS[role], label=f"{role}: {' | '.join(texts.prompts[role])}")
    for source in ("visible", "infrared"):
        _arrow(left, words[source], words["goal"], _COLORS[source])
        # The loss knows directions alone: their length is chosen to fit the images.
        direction = words["goal"] - words[source]
        reach = 1.5 * max(np.linalg.norm(images[name] - images[source]) for name in candidates)
        end = images[source] + reach * direction / np.linalg.norm(direction)
        _arrow(right, images[source], end, _COLORS[source], "dashed")
        right.plot(*images[source], "o", color=_COLORS[source], label=source)
    for name, marker in zip(candidates, "sD^vP*X" * len(candidates), strict=False):
        right.plot(*images[name], marker, color="0.3", label=name)
    for panel, title in ((left, "sentences"), (right, "images, and where the words point from each source")):
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("visible to infrared")
        panel.set_ylabel("towards the goal")
        panel.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=1 if panel is left else 3)
        panel.margins(0.25)
        panel.set_aspect("equal", adjustable="datalim")
    return _picture(figure)


def _arrow(
    panel: "Axes", start: Float[np.ndarray, "2"], end: Float[np.ndarray, "2"], color: str, style: str = "solid"
) -> None:
    panel.annotate("", tuple(end), tuple(start), arrowprops={"arrowstyle": "->", "color": color, "linestyle": style})
    panel.update_datalim([start, end])


def plot_loss_map(
    image: Shaped[np.ndarray, "h w"] | Shaped[np.ndarray, "h w 3"],
    losses: Float[np.ndarray, "rows columns"],
    *,
    side: int = 96,
    stride: int = 32,
) -> Image.Image:
    """An image beside its `explain.loss_map`, each value at the middle of its window; filtered windows are blank.

    Example::

        plot_loss_map(fused, loss_map(clip, texts, fused, luma, infrared)).save("losses.png")
    """
    figure, (plain, covered) = _figure(11, 4.2, 1, 2)
    for panel in (plain, covered):
        panel.imshow(image, cmap="gray", vmin=0, vmax=1)
        panel.set_axis_off()
    rows, columns = losses.shape
    first = (side - stride) / 2 - 0.5
    extent = (first, first + stride * columns, first + stride * rows, first)
    shown = covered.imshow(losses, extent=extent, cmap="RdYlGn_r", vmin=0, vmax=2, alpha=0.55)
    covered.set_xlim(plain.get_xlim())
    covered.set_ylim(plain.get_ylim())
    covered.set_title(f"loss of {side}-pixel patches (0 obeys the words, 1 indifferent)", fontsize=10)
    figure.colorbar(shown, ax=covered, shrink=0.8)
    return _picture(figure)


def plot_explanation(explanation: Explanation) -> Image.Image:
    """What `Fuser.explain` found: the picture, and beside it what each source gave to it, where.

    Example::

        plot_explanation(Fuser.load().explain(luma, infrared)).save("explained.png")
    """
    figure, panels = _figure(14, 7.2, 2, 3)
    shown = (
        ("fused", explanation.fused, "gray", 0, 1),
        ("fine detail (2 pixels): from infrared", explanation.share[0], "coolwarm", 0, 1),
        ("coarse detail (16 pixels): from infrared", explanation.share[3], "coolwarm", 0, 1),
        ("shades: from infrared", explanation.base, "coolwarm", 0, 1),
        ("lifted by infrared (1), replaced by visible (-1)", explanation.lift, "coolwarm", -1, 1),
        ("fine detail: multiplied by", explanation.boost[0], "viridis", 0, 2),
    )
    for panel, (title, image, colors, low, high) in zip(panels, shown, strict=True):
        drawn = panel.imshow(image, cmap=colors, vmin=low, vmax=high)
        panel.set_title(title, fontsize=10)
        panel.set_axis_off()
        figure.colorbar(drawn, ax=panel, shrink=0.8)
    return _picture(figure)


def plot_matrix(
    values: Float[np.ndarray, "m n"], rows: Sequence[str], columns: Sequence[str], title: str
) -> Image.Image:
    """A table of numbers as colours, each number written into its cell; green is low.

    >>> plot_matrix(np.eye(2), ["a", "b"], ["left", "right"], "a title").size
    (627, 242)
    """
    figure, (panel,) = _figure(2.5 + 1.6 * len(columns), 1.2 + 0.5 * len(rows), 1, 1)
    panel.imshow(values, cmap="RdYlGn_r", aspect="auto")
    panel.set_xticks(range(len(columns)), columns, fontsize=9)
    panel.set_yticks(range(len(rows)), rows, fontsize=9)
    for (i, j), value in np.ndenumerate(values):
        panel.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=9)
    panel.set_title(title, fontsize=10)
    return _picture(figure)


def plot_training(workdir: str | Path, *others: str | Path) -> Image.Image:
    """The total and the terms of `metrics.jsonl` of one or several work directories, a panel each, over steps.

    Example::

        plot_training("runs/mine", "runs/other").save("curves.png")
    """
    folders = [Path(folder) for folder in (workdir, *others)]
    runs = [[json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in folders]
    names = [name for name in _CURVES if any(name in line for lines in runs for line in lines)]
    rows = -(-len(names) // 3)
    figure, panels = _figure(11, 2.6 * rows, rows, 3)
    for panel, name in zip(panels, names, strict=False):
        for i, (folder, lines) in enumerate(zip(folders, runs, strict=True)):
            values = [line.get(name) for line in lines]
            if any(value is not None for value in values):
                panel.plot([line["step"] for line in lines], values, color=f"C{i}", label=folder.name)
        panel.set_title(name.replace("_", " "), fontsize=10)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    for panel in panels[-3:]:
        panel.set_xlabel("step")
    panels[0].legend(fontsize=8)
    return _picture(figure)

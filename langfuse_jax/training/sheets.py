"""The sheet that shows what a training run has made of a network: fixed pairs fused before and after it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import PyTree

from langfuse_jax.images.files import write_png
from langfuse_jax.images.sheet import grid
from langfuse_jax.training.loop import Look
from langfuse_jax.training.shown import Sentence, Shown


def make_sheet(
    folder: Path,
    shown: Shown | None,
    sentences: Sequence[Sentence],
    start: PyTree,
    *,
    every: int,
    at_start: bool = True,
) -> list[Look]:
    """The look that writes `folder`/step_NNNNNN.png; none without pairs, or where `every` is 0.

    Its columns are infrared, visible, fused with the parameters `start` of the run, and fused with those of the step,
    towards the first sentence, which stands over them, and then towards each of the others.
    """
    if shown is None or not every:
        return []
    first, *others = sentences

    def draw(params: PyTree, step: int, trained_with: Mapping[str, Any]) -> Path:
        visible, infrared = shown.read()
        columns = {"infrared": infrared, "visible": visible}
        columns["before"] = shown.fuse(start, trained_with, first, visible, infrared)
        if step:
            columns["after 1 step" if step == 1 else f"after {step} steps"] = shown.fuse(
                params, trained_with, first, visible, infrared
            )
            columns |= {s.text: shown.fuse(params, trained_with, s, visible, infrared) for s in others}
        path = folder / f"step_{step:06d}.png"
        write_png(path, grid(list(zip(*columns.values(), strict=True)), tuple(columns), title=f"towards: {first.text}"))
        return path

    return [Look("sheet", every, draw, at_start=at_start)]

"""What a training run came to: the language loss of its sentences before and after it, and whether it draws a weave."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PyTree

from langfuse_jax.analysis.periodicity import SIDE, periodicity
from langfuse_jax.errors import print_warning
from langfuse_jax.evaluation.language import embed_images
from langfuse_jax.losses.language import language_driven_loss
from langfuse_jax.models.clip import VisionTower
from langfuse_jax.training.loop import Look
from langfuse_jax.training.objective import Frozen
from langfuse_jax.training.shown import Images, Sentence, Shown

WEAVE = 1.5  # times the sources' repeating patterns: beyond it, what is drawn is told as a weave

_loss = jax.jit(language_driven_loss)


class Judgement(NamedTuple):
    """Fused images, judged.

    Attributes:
        loss: the mean language-driven loss of the whole images (`losses.language_driven_loss`), in [0, 2].
        repeats: the largest ratio of a fused image's `analysis.periodicity` to that of its source that has more; NaN
            for images too small for it.
    """

    loss: float
    repeats: float


Found = Mapping[str, tuple[Judgement, Judgement]]  # of each sentence, before and after


def repeats(fused: Images, visible: Images, infrared: Images) -> float:
    """`Judgement.repeats` of images in [0, 1].

    >>> noise = np.random.default_rng(0).normal(0.5, 0.01, (1, 128, 128))
    >>> rows = noise + 0.01 * (np.arange(128) % 4 < 2)[:, None]
    >>> repeats(noise, noise, noise), repeats(rows, noise, noise) > 2, repeats(rows, noise, rows)
    (1.0, True, 1.0)
    """
    if min(fused.shape[1:]) < SIDE:
        return math.nan
    triples = zip(fused, visible, infrared, strict=True)
    return max(periodicity(f) / max(periodicity(v), periodicity(i)) for f, v, i in triples)


def judge(
    fused: Images,
    visible: Images,
    infrared: Images,
    goal: Float[np.ndarray, " d"],
    *,
    vision: VisionTower,
    frozen: Frozen,
) -> Judgement:
    """Judges images in [0, 1], rounded to 8 bits, by a goal's embedding and the words of the sources."""
    embeddings = [
        embed_images(vision, frozen.clip, np.rint(255 * np.clip(images, 0, 1)).astype(np.float32))
        for images in (fused, visible, infrared)
    ]
    loss = _loss(*embeddings, frozen.words._replace(goal=goal)).mean()
    return Judgement(float(loss), repeats(fused, visible, infrared))


def describe(found: Found) -> list[str]:
    """Lines that say what changed: the loss of each sentence, and the worst patterns of all.

    >>> print(*describe({"a bright image": (Judgement(0.913, 1.02), Judgement(0.874, 1.05))}), sep="\\n")
    language loss of the goal 'a bright image': 0.913 before, 0.874 after
    repeating patterns: up to 1.02 times those of the sources before, 1.05 times after
    """
    lines = [
        f"language loss of the goal {text!r}: {before.loss:.3f} before, {after.loss:.3f} after"
        for text, (before, after) in found.items()
    ]
    before, after = (max(judgements[i].repeats for judgements in found.values()) for i in (0, 1))
    if math.isfinite(after):
        lines.append(
            f"repeating patterns: up to {before:.2f} times those of the sources before, {after:.2f} times after"
        )
    return lines


def weave(found: Found) -> str:
    """A warning where fused images have much stronger repeating patterns than their sources; else "".

    >>> weave({"a bright image": (Judgement(0.9, 1.0), Judgement(0.8, 1.4))})
    ''
    >>> weave({"a bright image": (Judgement(0.9, 1.0), Judgement(0.8, 1.6))})[:53]
    "towards 'a bright image', repeating patterns are up t"
    """
    text = max(found, key=lambda text: found[text][1].repeats)
    before, after = (judgement.repeats for judgement in found[text])
    if not after > WEAVE:
        return ""
    return (
        f"towards {text!r}, repeating patterns are up to {after:.1f} times as strong as in the sources ({before:.1f} "
        "before): look for a weave or a grid"
    )


class Outcome:
    """The look that judges the shown pairs with the parameters of the start and the end, and what it has to say.

    Args:
        shown: the pairs; None for none, and then nothing is judged.
        sentences: each is judged.
        start: the parameters before the first step, on the host.
        vision, frozen: the CLIP's vision tower, its parameters and the words of the sources.
    """

    def __init__(
        self, shown: Shown | None, sentences: Sequence[Sentence], start: PyTree, *, vision: VisionTower, frozen: Frozen
    ):
        self._shown, self._sentences, self._start = shown, sentences, start
        self._vision, self._frozen = vision, frozen
        self._found: dict[str, tuple[Judgement, Judgement]] = {}

    @property
    def looks(self) -> list[Look]:
        """The look, at the end alone; none without pairs. Its names are such as `loss_after/a bright image`."""
        return [] if self._shown is None else [Look("outcome", 0, partial(self._judge, self._shown))]

    def _judge(self, shown: Shown, params: PyTree, step: int, trained_with: Mapping[str, Any]) -> dict[str, float]:
        sources = shown.read()

        def judged(params: PyTree, sentence: Sentence) -> Judgement:
            fused = shown.fuse(params, trained_with, sentence, *sources)
            return judge(fused, *sources, sentence.goal, vision=self._vision, frozen=self._frozen)

        self._found = {s.text: (judged(self._start, s), judged(params, s)) for s in self._sentences}
        return {
            f"{name}_{when}/{text}": value
            for text, judgements in self._found.items()
            for when, judgement in zip(("before", "after"), judgements, strict=True)
            for name, value in judgement._asdict().items()
            if math.isfinite(value)
        }

    def tell(self) -> None:
        """Prints what was found, if anything was judged, and warns of a weave."""
        if self._shown is None or not self._found:
            return
        print(f"before and after training, on {len(self._shown.scenes)} validation pairs:")
        print(*describe(self._found), sep="\n")
        if woven := weave(self._found):
            print_warning(UserWarning(woven))

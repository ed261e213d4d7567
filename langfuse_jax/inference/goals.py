"""What a sentence is to a steered network: the direction of its embedding from that of the default sentence."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float32

from langfuse_jax.clip.pretrained import Clip
from langfuse_jax.clip.words import TextEmbeddings, embed
from langfuse_jax.errors import CutPrompt, UnknownWords, UserError

MOST_STRENGTH = 4.0  # training goes up to 1; far beyond, pictures say nothing


def goal_direction(
    default: Float32[np.ndarray, " d"],
    made_by: Mapping[str, str],
    goals: Sequence[str | TextEmbeddings],
    *,
    weights: Sequence[float | int] | None = None,
    strength: float | int = 1.0,
    clip: Clip | None = None,
    report: Callable[[CutPrompt | UnknownWords], None] = warnings.warn,
) -> Float32[np.ndarray, " d"]:
    """`strength` times the step from the default goal's unit embedding to that of a blend of goals.

    Args:
        default: the default goal's unit embedding.
        made_by: "name" and "fingerprint" of the CLIP that encoded it, which the weights were trained with.
        goals: sentences, or text files of `langfuse-jax embed`; the mean of their unit embeddings is what is meant.
        weights: of the goals, positive; by default they count alike.
        strength: 0 is the default sentence, 1 the goals.
        clip: that of the weights; by default it is loaded by its name.
        report: gets a warning for each sentence that is cut or has unknown words.

    Raises UserError for no goal, weights that do not fit, another CLIP's embedding, and what `embed` refuses.
    """
    if not goals:
        raise UserError("--goal: is missing; give a sentence")
    weights = [1.0] * len(goals) if weights is None else list(weights)
    if len(weights) != len(goals) or not all(0 < weight < math.inf for weight in weights):
        raise UserError(f"--weights {weights}: give a positive number for each of {len(goals)} goals")
    if not abs(strength) <= MOST_STRENGTH:
        raise UserError(
            f"--strength {strength}: is not within {MOST_STRENGTH:g}; 0 is the default sentence, 1 the goal"
        )
    blend = np.zeros_like(default)
    for goal, weight in zip(goals, weights, strict=True):
        if isinstance(goal, TextEmbeddings):
            told = goal
        else:
            clip = clip or _loaded(made_by["name"])
            told = embed(clip, goal=[goal], report=report)
        if told.fingerprint != made_by["fingerprint"]:
            raise UserError(
                f"--goal: is the embedding of CLIP {told.model} ({told.fingerprint}), and these weights listen to "
                f"{made_by['name']} ({made_by['fingerprint']}); encode the sentence with that one"
            )
        blend += weight * told.goal
    return np.float32(strength) * (blend / max(float(np.linalg.norm(blend)), 1e-6) - default)


@lru_cache(maxsize=1)
def _loaded(name: str) -> Clip:
    return Clip.load(None if name == "compact" else name)

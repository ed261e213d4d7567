"""The goals that the steered network learns to follow: sentences, what they claim, and their embeddings."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from langfuse_jax.clip.pretrained import Clip
from langfuse_jax.clip.words import embed
from langfuse_jax.compact_clip.captions import composed, sentence_of
from langfuse_jax.compact_clip.concepts import AXES, OPPOSITE
from langfuse_jax.errors import print_warning
from langfuse_jax.steering.pictures import PICTURED

_SINGLE, _COMPOSED = 40, 400  # sentences of each concept, and of several
_LIKE_VISIBLE, _LIKE_INFRARED = {"visible", "natural"}, {"infrared", "thermal"}
_HARD = ("clear", "detailed", "natural", "hidden")  # learnt late: drawn twice as often
_VAGUE = ("slightly", "quite", "rather")  # degrees of less than all of a word


class Goals(NamedTuple):
    """Sentences that a training run draws from.

    Attributes:
        sentences: n of them.
        concepts: what each claims; () where that is not known.
        embeddings: unit vectors.
    """

    sentences: Sequence[str]
    concepts: Sequence[tuple[str, ...]]
    embeddings: Float32[np.ndarray, "n d"]

    def agree(self, first: int, second: int) -> bool:
        """Whether two sentences may be meant together: neither claims the opposite of what the other claims."""
        claims, others = set(self.concepts[first]), set(self.concepts[second])
        if any(OPPOSITE.get(concept) in others for concept in claims):
            return False
        return (
            bool(claims) == bool(others)
            and not (claims & _LIKE_VISIBLE and others & _LIKE_INFRARED)
            and not (claims & _LIKE_INFRARED and others & _LIKE_VISIBLE)
        )


def goals_of_vocabulary(clip: Clip, seed: int) -> Goals:
    """Sentences of the compact CLIP's captions, of one to three concepts that have a picture, encoded by `clip`."""
    rng = np.random.default_rng((5, seed))
    claims: list[tuple[str, ...]] = [(c,) for c in PICTURED for _ in range(_SINGLE * (2 if c in _HARD else 1))]
    axes = [axis for axis in AXES if any(concept in PICTURED for concept in AXES[axis])]
    for _ in range(_COMPOSED):
        drawn = rng.choice(axes, rng.choice([2, 3], p=[0.75, 0.25]), replace=False)
        concepts = (str(AXES[axis][rng.integers(2)]) for axis in drawn)
        claims.append(tuple(c if c in PICTURED else OPPOSITE[c] for c in concepts))
    sentences = [_sentence(concepts, rng) for concepts in claims]
    return Goals(sentences, claims, _encoded(clip, sentences))


def listed_goals(clip: Clip, sentences: Sequence[str]) -> Goals:
    """Sentences of one's own, of which no picture is known, encoded by `clip`.

    Raises UserError for one of which the CLIP knows no word that means anything, and warns of unknown words.
    """
    vectors = np.stack([embed(clip, goal=[sentence], report=print_warning).goal for sentence in sentences])
    return Goals(sentences, [()] * len(sentences), vectors)


def _sentence(concepts: tuple[str, ...], rng: np.random.Generator) -> str:
    while True:
        sentence = sentence_of(concepts[0], rng) if len(concepts) == 1 else composed(concepts, rng)
        if not set(_VAGUE) & set(sentence.split()):
            return sentence


def _encoded(clip: Clip, sentences: Sequence[str]) -> Float32[np.ndarray, "n d"]:
    """Unit vectors of sentences."""
    parts = [np.asarray(clip.encode_text(sentences[i : i + 64])) for i in range(0, len(sentences), 64)]
    vectors = np.concatenate(parts)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

"""Captions of the compact CLIP: concepts, the words for them, and sentences that claim one or several."""

import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Int8

from langfuse_jax.clip.words import GOAL, INFRARED, VISIBLE

# What can be said of an image. Each is true, false or unknown of it.
CONCEPTS = (
    "visible",
    "infrared",
    "fused",
    "goal",
    "detailed",
    "salient",
    "natural",
    "clear",
    "bright",
    "blurry",
    "noisy",
    "dark",
    "overexposed",
    "washed_out",
    "striped",
    "checkered",
    "blocky",
    "haloed",
    "harsh",
    "inverted",
)
INDEX = {concept: i for i, concept in enumerate(CONCEPTS)}

_IMAGE = ("image", "picture", "photo", "view", "frame")
_TARGET = ("objects", "targets", "people", "pedestrians", "object")
_SCENE = (
    "scene",
    "street",
    "road",
    "park",
    "car",
    "building",
    "parking lot",
    "person",
    "tree",
    "city",
    "campus",
    "yard",
)

# {i} image, {t} targets. The first phrase of a concept is how reports name it.
PHRASES = {
    "visible": (
        VISIBLE,
        "a visible {i}",
        "a gray visible light {i}",
        "a gray {i} from a visible camera",
        "a daylight camera {i}",
        "a visible band {i}",
    ),
    "infrared": (
        INFRARED,
        "a thermal {i}",
        "a thermal infrared {i}",
        "an infrared {i} from a heat camera",
        "an infrared look",
        "a heat {i}",
        "an infrared {i}",
    ),
    "fused": ("a fused image", "a fusion of infrared and visible", "a fused {i}", "an {i} fused from two cameras"),
    "goal": (
        GOAL,
        "a clear {i} with detailed background and salient {t}",
        "a sharp {i} with rich background detail and bright {t}",
        "a clear {i} with salient {t} and a detailed background",
        "a good fused {i} with clear details and salient {t}",
        "a vivid {i} with rich texture and prominent {t}",
        "a high quality {i} with detailed background and highlighted {t}",
    ),
    "detailed": (
        "an image with detailed background",
        "a {i} with rich texture",
        "a {i} with fine background detail",
        "detailed background",
        "a highly detailed {i}",
    ),
    "salient": (
        "an image with salient objects",
        "salient {t}",
        "a {i} with bright {t}",
        "a {i} with highlighted {t}",
        "prominent hot {t}",
        "a {i} in which {t} stand out",
    ),
    "natural": ("a natural visible look", "a natural looking {i}", "a {i} with natural light", "a natural photo"),
    "clear": (
        "a clear image",
        "a clear {i}",
        "a clean and sharp {i}",
        "a sharp {i}",
        "a high quality {i}",
        "a crisp {i}",
    ),
    "bright": (
        "a clear and bright image",
        "a bright and clear {i}",
        "a well lit clear {i}",
        "a bright {i}",
        "a light {i}",
    ),
    "blurry": (
        "a blurry image",
        "a blurred {i}",
        "a soft {i}",
        "a soft {i} with low detail",
        "a {i} with little detail",
        "an out of focus {i}",
        "a smooth {i} without detail",
    ),
    "noisy": ("a noisy image", "a grainy {i}", "a {i} with strong noise", "a {i} full of grain"),
    "dark": ("a dark image", "a dark {i}", "an underexposed {i}", "a {i} that is too dark", "a dim {i}", "a black {i}"),
    "overexposed": ("an overexposed image", "an overexposed {i}", "a {i} that is too bright", "a glaring white {i}"),
    "washed_out": (
        "a low contrast image",
        "a washed out {i}",
        "a flat {i} with low contrast",
        "a faded {i}",
        "a hazy {i}",
        "a dull {i}",
    ),
    "striped": ("an image with stripes", "a striped {i}", "a {i} with banding lines", "a {i} covered by stripes"),
    "checkered": (
        "an image with a checkerboard pattern",
        "a checkered {i}",
        "a {i} with a grid pattern",
        "a {i} with checkerboard artefacts",
    ),
    "blocky": ("a blocky image", "a pixelated {i}", "a {i} with block artefacts", "a {i} made of blocks"),
    "haloed": ("an image with halos", "a {i} with halos around edges", "a {i} with glowing edges", "halos around {t}"),
    "harsh": ("an oversharpened image", "a harsh {i}", "an oversharpened harsh {i}", "a {i} with harsh rough edges"),
    "inverted": ("an inverted image", "a negative {i}", "a {i} with inverted {t}", "a {i} with black {t}"),
}

_PLACES = ("", "", "", " of a {s}", " with a {s}", " of the {s}", " at night", " in daylight", " of a {s} at night")
# Words that appear in no template, so that later prompts have them as whole tokens next to words that were trained.
OTHER_WORDS = (
    "the is are very more less not no low high quality with without look looking style good bad poor cars".split()
)


class Captions(NamedTuple):
    """Sentences and what each claims: `claims[m, c]` is True where sentence m needs concept c."""

    sentences: list[str]
    claims: np.ndarray


def vocabulary() -> list[str]:
    """All words of all templates, sorted."""
    texts = [phrase for phrases in PHRASES.values() for phrase in phrases]
    texts += [*_IMAGE, *_TARGET, *_SCENE, *_PLACES, *OTHER_WORDS]
    return sorted({word for text in texts for word in text.lower().split() if word.isalpha()})


def reference_sentences() -> dict[str, str]:
    """The first sentence of every concept, by which the trained CLIP is judged."""
    return {concept: phrases[0] for concept, phrases in PHRASES.items()}


def sample_captions(rng: np.random.Generator) -> Captions:
    """Two sentences for every concept in turn; the reference sentence is often the first."""
    sentences, claimed = [], []
    for concept, phrases in PHRASES.items():
        for first in (True, False):
            phrase = phrases[0] if first and rng.random() < 0.5 else rng.choice(phrases)
            sentences.append(_fill(phrase, rng))
            claimed.append((concept,))
    claims = np.zeros((len(sentences), len(CONCEPTS)), bool)
    for row, concepts in enumerate(claimed):
        claims[row, [INDEX[concept] for concept in concepts]] = True
    return Captions(sentences, claims)


def _fill(phrase: str, rng: np.random.Generator) -> str:
    scene = rng.choice(_SCENE)
    if rng.random() < 0.15:  # an unknown word, spelt in letters, must not change what a sentence means
        scene = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(2, 6)))
    place = "" if phrase in (VISIBLE, INFRARED, GOAL) else rng.choice(_PLACES)
    sentence = (phrase + place).format(i=rng.choice(_IMAGE), t=rng.choice(_TARGET), s=scene)
    return re.sub(r"\b(a|an) (?=[aeiou])", "an ", re.sub(r"\ban (?=[^aeiou])", "a ", sentence))


def truth(claims: np.ndarray, known: Int8[np.ndarray, "b c"]) -> Int8[np.ndarray, "b m"]:
    """Whether sentence m is true (1), false (0) or undecided (-1) of image b, given its concepts.

    A sentence is true when all its concepts are, false when one of them is false.
    """
    false = (known == 0).astype(np.int8) @ claims.T.astype(np.int8) > 0
    true = ((known == 1).astype(np.int8) @ claims.T.astype(np.int8)) == claims.sum(1)
    return np.where(false, 0, np.where(true, 1, -1)).astype(np.int8)

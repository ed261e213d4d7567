"""Sentences that claim concepts: single ones, negations of their opposites, and compositions of several."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int8

from langfuse_jax.clip.vocabulary import words_of
from langfuse_jax.compact_clip.concepts import AXES, CONCEPTS, INDEX, OPPOSITE, RELATED
from langfuse_jax.compact_clip.phrases import (
    DEGREES,
    FUNCTION_WORDS,
    IMAGES,
    NEGATIONS,
    OBJECTS,
    OPENINGS,
    PHRASES,
    PLACES,
    SCENES,
    TARGETS,
)

_NEGATED = 0.25  # of the sentences of a concept whose opposite has words
_TEXT_ONLY = 12  # compositions of a batch that no image was made for


class Captions(NamedTuple):
    """Sentences and what each claims: `claims[m, c]` is True where sentence m needs concept c.

    The first are the references of all concepts in the order of CONCEPTS.
    """

    sentences: list[str]
    claims: Bool[np.ndarray, "m c"]


def vocabulary() -> list[str]:
    """All words of all sentences, sorted."""
    texts = [
        text for phrases in PHRASES.values() for part in phrases for text in ([part] if part == phrases[0] else part)
    ]
    texts += [
        *IMAGES,
        *TARGETS,
        *OBJECTS,
        *SCENES,
        *PLACES,
        *OPENINGS,
        *DEGREES,
        *NEGATIONS,
        *FUNCTION_WORDS,
    ]
    return sorted({word for text in texts for word in words_of(re.sub(r"{.}", " ", text))})


def neutral_words() -> list[str]:
    """The words of `vocabulary` that mean nothing alone, sorted."""
    return sorted({*IMAGES, *SCENES, *FUNCTION_WORDS, *DEGREES, *NEGATIONS})


def reference_sentences() -> dict[str, str]:
    """The sentence of every concept, in the order of CONCEPTS, by which the trained CLIP is judged."""
    return {concept: PHRASES[concept].reference for concept in CONCEPTS}


def related() -> Bool[np.ndarray, "c c"]:
    """Which concepts' sentences may come near to each other: every concept's to its own, and RELATED ones."""
    near = np.eye(len(CONCEPTS), dtype=bool)
    for a, b in RELATED:
        near[INDEX[a], INDEX[b]] = near[INDEX[b], INDEX[a]] = True
    return near


def sample_captions(rng: np.random.Generator, drawn: Sequence[Sequence[str]] = ()) -> Captions:
    """References, another sentence of every concept, one for each set of concepts in `drawn`, _TEXT_ONLY of others."""
    claimed: list[tuple[str, ...]] = [(concept,) for concept in CONCEPTS]
    sentences = list(reference_sentences().values())
    for concept in CONCEPTS:
        claimed.append((concept,))
        sentences.append(sentence_of(concept, rng))
    others = [[AXES[axis][rng.integers(2)] for axis in _some_axes(rng)] for _ in range(_TEXT_ONLY)]
    for concepts in (*drawn, *others):
        claimed.append(tuple(concepts))
        sentences.append(composed(concepts, rng))
    claims = np.zeros((len(sentences), len(CONCEPTS)), bool)
    for row, concepts in enumerate(claimed):
        claims[row, [INDEX[concept] for concept in concepts]] = True
    return Captions(sentences, claims)


def _some_axes(rng: np.random.Generator) -> list[str]:
    return list(rng.choice(list(AXES), rng.choice([2, 3], p=[0.7, 0.3]), replace=False))


def sentence_of(concept: str, rng: np.random.Generator) -> str:
    """A sentence that claims one concept: a whole one, one composed of its words, or its opposite negated."""
    phrases = PHRASES[concept]
    if concept in OPPOSITE and rng.random() < _NEGATED:
        choices = negations(OPPOSITE[concept], rng)
        if choices:
            return _filled(str(rng.choice(choices)), rng)
    whole = [phrases.reference, *phrases.sentences]
    if not (phrases.adjectives or phrases.features or phrases.clauses) or rng.random() < 0.4:
        return _filled(str(rng.choice(whole)), rng, places=concept not in ("visible", "infrared", "goal"))
    return composed((concept,), rng)


def negations(concept: str, rng: np.random.Generator) -> list[str]:
    """Ways to say that an image is not so: each adjective negated, perhaps with a degree, and each noun."""
    phrases = PHRASES[concept]
    choices = [f"not {_any(DEGREES[:2], rng, 0.3)}{word}" for word in phrases.adjectives]
    choices += [f"an {{i}} that is not {word}" for word in phrases.adjectives]
    for noun in phrases.nouns:
        choices += [f"{{i}} without {noun}", f"without {noun}", f"no {noun}", f"an {{i}} with no {noun}"]
    return choices


def composed(concepts: Iterable[str], rng: np.random.Generator) -> str:
    """A sentence that claims all of some concepts: adjectives, features and clauses around one word for an image."""
    adjectives: list[str] = []
    features: list[str] = []
    clauses: list[str] = []
    concepts = list(concepts)
    for place in rng.permutation(len(concepts)):
        phrases = PHRASES[concepts[place]]
        forms = [
            (words, into)
            for words, into in (
                (phrases.adjectives, adjectives),
                (phrases.features, features),
                (phrases.clauses, clauses),
            )
            if words
        ]
        words, into = forms[rng.integers(len(forms))]
        into.append(str(rng.choice(words)))
    if adjectives and rng.random() < 0.3:
        adjectives[0] = f"{rng.choice(DEGREES)} {adjectives[0]}"
    joint = str(rng.choice([" and ", ", ", " "]))
    told_after = adjectives and not features and rng.random() < 0.3
    sentence = "an {i} that is " + " and ".join(adjectives) if told_after else f"an {joint.join(adjectives)} {{i}}"
    if features:
        sentence += str(rng.choice([" with ", " with ", " of "])) + " and ".join(features)
    if clauses:
        sentence += str(rng.choice([" in which ", " where "])) + " and ".join(clauses)
    if len(concepts) == 1 and rng.random() < 0.3:
        sentence = (*adjectives, *features, *clauses)[0]
    return _filled(sentence, rng)


def _any(words: Sequence[str], rng: np.random.Generator, share: float) -> str:
    return f"{rng.choice(words)} " if rng.random() < share else ""


def _filled(phrase: str, rng: np.random.Generator, *, places: bool = True) -> str:
    """`phrase` with its gaps filled, perhaps a place and an opening that mean nothing, and the right article."""
    scene = str(rng.choice(SCENES))
    if rng.random() < 0.25:  # an unknown word, spelt in letters, must not change what a sentence means
        scene = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(2, 8)))
    place = str(rng.choice(PLACES)) if places else ""
    opening = str(rng.choice(OPENINGS)) if places else ""
    text = (opening + phrase + place).format(
        i=rng.choice(IMAGES), t=rng.choice(TARGETS), o=rng.choice(OBJECTS), s=scene
    )
    text = re.sub(r"\b(a|an) (?=[aeiou])", "an ", re.sub(r"\ban (?=[^aeiou])", "a ", re.sub(" +", " ", text)))
    return text.strip()


def truth(claims: Bool[np.ndarray, "m c"], known: Int8[np.ndarray, "b c"]) -> Int8[np.ndarray, "b m"]:
    """Whether sentence m is true (1), false (0) or undecided (-1) of image b, given its concepts.

    A sentence is true when all its concepts are, false when one of them is false.
    """
    false = (known == 0).astype(np.int8) @ claims.T.astype(np.int8) > 0
    true = ((known == 1).astype(np.int8) @ claims.T.astype(np.int8)) == claims.sum(1)
    return np.where(false, 0, np.where(true, 1, -1)).astype(np.int8)

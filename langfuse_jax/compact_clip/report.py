"""What a trained compact CLIP knows, measured on scenes of cameras it was not trained on."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from langfuse_jax.clip.pretrained import Clip
from langfuse_jax.clip.words import embed
from langfuse_jax.compact_clip.batches import cut
from langfuse_jax.compact_clip.captions import reference_sentences
from langfuse_jax.compact_clip.concepts import AXES, INDEX, OPPOSITE
from langfuse_jax.compact_clip.degradations import FAILURES, degrade
from langfuse_jax.compact_clip.facts import FAILED, GOALS, facts
from langfuse_jax.compact_clip.phrases import PHRASES
from langfuse_jax.compact_clip.scenes import VARIANTS, Scene
from langfuse_jax.compact_clip.strengths import draw_setting, drawable, with_strengths
from langfuse_jax.losses.language import normalised

WINDOWS = 8
MOST_SCENES = 48  # of a set, evenly chosen
_STRENGTHS = np.linspace(-1, 1, 7)
# What images are easily taken for good fusions.
IMITATIONS = ("visible_enhanced", "infrared_enhanced", "inverted_targets")
# Sentences that claim two concepts.
COMPOSITIONS = {
    "a dark image with people that stand out": ("dark", "salient"),
    "a bright image in which people stand out": ("bright", "salient"),
    "a blurry image in which people stand out": ("blurry", "salient"),
    "a dark image with low contrast": ("dark", "flat"),
    "a bright and sharp image": ("bright", "sharp"),
    "a sharp image with a thermal look": ("sharp", "thermal"),
    "a hazy, noisy image": ("hazy", "noisy"),
    "a high contrast image with a thermal look": ("contrasty", "thermal"),
    "a natural looking image without glare": ("natural", "exposed"),
    "a soft image with strong glare": ("blurry", "glaring"),
    "a dark image with a detailed background": ("dark", "detailed"),
    "an image with a quiet background in which people stand out": ("quiet", "salient"),
}

# Sentences that no template makes, of words that are known, and what they mean.
NEW_SENTENCES = {
    "it should be as light as possible": "bright",
    "the whole street in deep darkness": "dark",
    "blacks and whites that are far apart": "contrasty",
    "so little contrast that all is gray": "flat",
    "all edges crisp and in focus": "sharp",
    "the background and the people out of focus": "blurry",
    "surfaces free of grain and speckles": "clean",
    "grain and speckles all over it": "noisy",
    "as realistic as the eye sees the road": "natural",
    "the look of a heat camera, warm is white": "thermal",
    "please highlight every person and every car": "salient",
    "a person that is hard to see": "hidden",
    "show the texture of every wall": "detailed",
    "keep it plain, remove most of the texture": "quiet",
    "no fog and no mist on this road": "clear",
    "smoke and mist hide the building": "hazy",
    "the exposure is balanced and no light is burnt out": "exposed",
    "headlights that dazzle": "glaring",
}

Embeddings = Float[np.ndarray, "n d"]


def auc(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half."""
    order = np.sort(scores[~positive])
    below = np.searchsorted(order, scores[positive], "left") + np.searchsorted(order, scores[positive], "right")
    return float(below.mean() / (2 * len(order)))


def rank_correlation(scores: Float[np.ndarray, "n k"], strengths: Float[np.ndarray, " k"]) -> float:
    """Spearman's correlation of every row's scores with strengths, on average over the rows; 0 where all are equal."""
    return float(np.mean([_spearman(row, strengths) for row in scores]))


def _spearman(scores: Float[np.ndarray, " n"], strengths: Float[np.ndarray, " n"]) -> float:
    first, second = (_ranks(values) - (len(values) - 1) / 2 for values in (scores, strengths))
    length = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / length) if length else 0.0


def _ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """From 0; equal values share the mean of their ranks."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") - 1) / 2


def sentence_vectors(clip: Clip, sentences: Sequence[str]) -> Embeddings:
    """Unit vectors of sentences."""
    return np.asarray(normalised(clip.encode_text(list(sentences))))


def image_vectors(clip: Clip, patches: Float[np.ndarray, "n s s"]) -> Embeddings:
    """Unit vectors of gray images in [0, 1]."""
    images = patches[..., None]
    whole = -len(images) % 64  # one compiled shape
    images = np.concatenate([images, np.zeros((whole, *images.shape[1:]), images.dtype)])
    vectors = [np.asarray(clip.encode_image(images[i : i + 64])) for i in range(0, len(images), 64)]
    return np.asarray(normalised(np.concatenate(vectors)[: len(patches)]))


def evaluate_sentences(clip: Clip) -> dict[str, Any]:
    """Cosines of the three sentences of the language-driven loss, and how other sentences are understood.

    negations: the share of the sentences "not ..." and "... without ..." that are nearer to the reference of the
    opposite than to the reference of what they negate; they are worded as those that were trained. new_sentences: the
    share of NEW_SENTENCES that are nearer to the reference of what they mean than to that of any other end of an axis.
    """
    cosines = {f"{a}, {b}": cosine for (a, b), cosine in embed(clip).cosines().items()}
    ends = list(OPPOSITE)
    references = reference_sentences()
    meanings = sentence_vectors(clip, [references[end] for end in ends])
    negated: dict[str, str] = {}  # a sentence, and what it negates
    for concept in ends:
        phrases = PHRASES[concept]
        negated |= {f"not {word}": concept for word in phrases.adjectives}
        negated |= {f"an image without {noun}": concept for noun in phrases.nouns}
    scores = sentence_vectors(clip, list(negated)) @ meanings.T
    nearer = [
        row[ends.index(OPPOSITE[one])] > row[ends.index(one)] for row, one in zip(scores, negated.values(), strict=True)
    ]
    nearest = (sentence_vectors(clip, list(NEW_SENTENCES)) @ meanings.T).argmax(1)
    right = [ends[i] == meant for i, meant in zip(nearest, NEW_SENTENCES.values(), strict=True)]
    return {
        "cosines": cosines,
        "largest_cosine": max(cosines.values()),
        "negations": float(np.mean(nearer)),
        "new_sentences": float(np.mean(right)),
    }


def evaluate(clip: Clip, scenes: Sequence[Scene]) -> dict[str, Any]:
    """Numbers on WINDOWS fixed windows of at most MOST_SCENES scenes, sentences against images; nothing is fitted.

    modality_auc: "infrared" against "visible" on intact sources. goal_auc, detailed_auc, salient_auc: the sentence on
    images that fit it against those that do not. goal_against: the goal on good fusions against each of IMITATIONS, in
    windows that show something hot. quality_accuracy: the failure of a degraded patch named among all failures by the
    nearest sentence, mean over failures. directional: mean language-driven loss towards the goal, of patches of every
    kind against the whole sources. order, order_pooled: Spearman's correlation of known strengths with the cosine to
    the sentence of the axis's one end, or of the other if that is lower, within windows and over all windows.
    compositions: the AUC of a sentence of two claims on patches of both against patches of one.
    """
    rng, size = np.random.default_rng(1), clip.vision.image_size
    chosen = np.linspace(0, len(scenes) - 1, min(len(scenes), MOST_SCENES)).round().astype(int)
    scenes = [scenes[i] for i in chosen]
    windows = [
        (i, cut(scene, rng, size, smallest=112.0, largest=224.0))
        for i, scene in enumerate(scenes)
        for _ in range(WINDOWS)
    ]
    sentences = reference_sentences()
    texts = dict(zip(sentences, sentence_vectors(clip, list(sentences.values())), strict=True))
    wholes = image_vectors(clip, np.concatenate([_whole(scene, size) for scene in scenes])).reshape(len(scenes), 2, -1)
    report = {"windows": len(windows), **_of_variants(clip, windows, wholes, texts, rng)}
    return report | _of_strengths(clip, windows[::2], texts, rng) | _of_compositions(clip, windows, rng)


Windows = Sequence[tuple[int, Float[np.ndarray, "v s s"]]]


def _of_variants(
    clip: Clip,
    windows: Windows,
    wholes: Float[np.ndarray, "n 2 d"],
    texts: Mapping[str, Float[np.ndarray, " d"]],
    rng: np.random.Generator,
) -> dict[str, Any]:
    patches, labels, names_of, numbers, heat = [], [], [], [], []
    for number, window in windows:
        hot = float((window[-1] > 0.5).mean())
        examples: list[tuple] = [(variant, patch, None) for variant, patch in zip(VARIANTS, window, strict=False)]
        for failure in FAILURES:
            variant = ("visible", *GOALS)[rng.integers(1 + len(GOALS))]
            examples.append((variant, degrade(window[VARIANTS.index(variant)], failure, rng), failure))
        for variant, patch, failure in examples:
            patches.append(patch)
            labels.append(facts(variant, patch, failure=failure, targets=hot))
            names_of.append(failure or variant)
            numbers.append(number)
            heat.append(hot)
    image, known = image_vectors(clip, np.stack(patches)), np.stack(labels)
    kinds, owner, hot_share = np.array(names_of), np.array(numbers), np.array(heat)
    report: dict[str, Any] = {}

    source = np.isin(kinds, ("visible", "infrared"))
    modality = image @ (texts["infrared"] - texts["visible"])
    report["modality_auc"] = auc(modality[source], kinds[source] == "infrared")
    for concept in ("goal", "detailed", "salient", "inverted"):
        truth = known[:, INDEX[concept]]
        decided = truth >= 0
        if concept == "goal":  # that warm targets are shown dark is judged apart, as "inverted"
            decided &= ~np.isin(kinds, ("inverted", "inverted_targets"))
        if 0 < truth[decided].sum() < decided.sum():
            report[f"{concept}_auc"] = auc(image[decided] @ texts[concept], truth[decided] == 1)

    good, shown = np.isin(kinds, GOALS), hot_share >= 0.03
    report["goal_against"] = {
        name: auc(image[compared] @ texts["goal"], good[compared])
        for name in IMITATIONS
        if (compared := (good | (kinds == name)) & shown).any()
    }

    names = [name for name in FAILURES if name != "inverted"]  # which is a matter of what is shown, not of quality
    named_by = np.stack([texts[FAILED.get(name, name)] for name in names])
    choices = np.array(names)[np.argmax(image @ named_by.T, axis=1)]
    report["quality"] = {name: float((choices[kinds == name] == name).mean()) for name in names}
    report["quality_accuracy"] = float(np.mean(list(report["quality"].values())))

    loss: Any = 1.0
    for index, source_name in enumerate(("visible", "infrared")):
        towards = normalised(texts["goal"] - texts[source_name])
        loss = loss - 0.5 * np.asarray(normalised(image - wholes[owner, index]) @ towards)
    by_kind = {kind: float(loss[kinds == kind].mean()) for kind in dict.fromkeys(kinds)}
    report["directional"] = dict(sorted(by_kind.items(), key=lambda item: item[1]))
    report["directional_auc"] = auc(-loss, good)
    return report


def _of_strengths(
    clip: Clip, windows: Windows, texts: Mapping[str, Float[np.ndarray, " d"]], rng: np.random.Generator
) -> dict[str, Any]:
    order, pooled = {}, {}
    for name, axis in AXES.items():
        patches = []
        for _, window in windows:
            if name in drawable(float((window[-1] > 0.5).mean())):
                setting = draw_setting(rng)
                patches += [with_strengths(window, {name: float(strength)}, setting) for strength in _STRENGTHS]
        if patches:
            vectors = image_vectors(clip, np.stack(patches))
            both = [(vectors @ text).reshape(-1, len(_STRENGTHS)) for text in (texts[axis.plus], -texts[axis.minus])]
            order[name] = min(rank_correlation(scores, _STRENGTHS) for scores in both)
            levels = np.tile(_STRENGTHS, len(both[0]))
            pooled[name] = min(_spearman(scores.ravel(), levels) for scores in both)
    return {"order": order, "order_pooled": pooled}


def _of_compositions(clip: Clip, windows: Windows, rng: np.random.Generator) -> dict[str, Any]:
    axis_of = {concept: (name, end) for name, axis in AXES.items() for concept, end in zip(axis, (-1, 1), strict=True)}
    found = {}
    for sentence, concepts in COMPOSITIONS.items():
        (first, first_end), (second, second_end) = (axis_of[concept] for concept in concepts)
        patches = []
        for _, window in windows[::2]:
            if {first, second} <= set(drawable(float((window[-1] > 0.5).mean()))):
                setting = draw_setting(rng)
                for a, b in ((1, 1), (1, -1), (-1, 1)):
                    strengths = {first: 0.75 * a * first_end, second: 0.75 * b * second_end}
                    patches.append(with_strengths(window, strengths, setting))
        if patches:
            scores = image_vectors(clip, np.stack(patches)) @ sentence_vectors(clip, [sentence])[0]
            found[sentence] = auc(scores, np.arange(len(scores)) % 3 == 0)
    return {"compositions": found, **({"composition_auc": float(np.mean(list(found.values())))} if found else {})}


def _whole(scene: Scene, size: int) -> Float[np.ndarray, "2 s s"]:
    """The two whole sources, (2, size, size), read as any patch is."""
    height, width = scene.layers.shape[1:]
    rows = ((np.arange(size) + 0.5) * height / size).astype(int)
    columns = ((np.arange(size) + 0.5) * width / size).astype(int)
    return scene.layers[:2][:, rows][:, :, columns].astype(np.float32) / 255

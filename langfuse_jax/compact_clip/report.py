"""What a trained compact CLIP knows, measured on scenes of cameras it was not trained on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from langfuse_jax.clip.pretrained import Clip
from langfuse_jax.clip.words import embed
from langfuse_jax.compact_clip.batches import GOALS, cut, facts
from langfuse_jax.compact_clip.captions import INDEX, reference_sentences
from langfuse_jax.compact_clip.degradations import FAILURES, degrade
from langfuse_jax.compact_clip.scenes import VARIANTS, Scene

# What a compact CLIP must reach before it is shipped.
LIMITS = {"modality_auc": 0.9, "goal_auc": 0.85, "quality_accuracy": 0.8, "largest_cosine": 0.5}
WINDOWS = 8


def auc(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half."""
    order = np.sort(scores[~positive])
    below = np.searchsorted(order, scores[positive], "left") + np.searchsorted(order, scores[positive], "right")
    return float(below.mean() / (2 * len(order)))


def _normalised(x: Float[np.ndarray, "... d"]) -> Float[np.ndarray, "... d"]:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def evaluate(clip: Clip, scenes: Sequence[Scene]) -> dict[str, Any]:
    """Numbers on WINDOWS fixed windows of every scene, sentences against images; no head or threshold is fitted.

    modality_auc: "infrared" against "visible" on intact sources. goal_auc, detailed_auc, salient_auc: the sentence on
    images that fit it against those that do not. quality_accuracy: the failure of a degraded patch named among all
    failures by the nearest sentence, mean over failures. directional: mean language-driven loss towards the goal, of
    patches of every kind against the whole sources.
    """
    rng, size = np.random.default_rng(1), clip.vision.image_size
    patches, labels, names_of, numbers = [], [], [], []
    wholes = []
    for number, scene in enumerate(scenes):
        wholes.append(_whole(scene, size))
        for _ in range(WINDOWS):
            window = cut(scene, rng, size, smallest=112.0, largest=224.0)
            hot = float((window[-1] > 0.5).mean())
            examples: list[tuple] = [(variant, patch, None) for variant, patch in zip(VARIANTS, window, strict=False)]
            for failure in FAILURES:
                variant = ("visible", "goal", "goal_strong")[rng.integers(3)]
                examples.append((variant, degrade(window[VARIANTS.index(variant)], failure, rng), failure))
            for variant, patch, failure in examples:
                patches.append(patch)
                labels.append(facts(variant, patch, failure=failure, targets=hot))
                names_of.append(failure or variant)
                numbers.append(number)
    image, known = _encode(clip, np.stack(patches)), np.stack(labels)
    kinds, owner = np.array(names_of), np.array(numbers)
    sentences = reference_sentences()
    texts = dict(zip(sentences, _normalised(np.asarray(clip.encode_text(list(sentences.values())))), strict=True))
    report: dict[str, Any] = {"windows": len(scenes) * WINDOWS, "fingerprint": clip.fingerprint}

    source = np.isin(kinds, ("visible", "infrared"))
    modality = image @ (texts["infrared"] - texts["visible"])
    report["modality_auc"] = auc(modality[source], kinds[source] == "infrared")
    for concept in ("goal", "detailed", "salient", "inverted"):
        truth = known[:, INDEX[concept]]
        decided = truth >= 0
        if concept == "goal":  # that warm targets are shown dark is judged apart, as "inverted"
            decided &= ~np.isin(kinds, ("inverted", "inverted_targets"))
        report[f"{concept}_auc"] = auc(image[decided] @ texts[concept], truth[decided] == 1)

    names = list(FAILURES)
    names.remove("inverted")  # a matter of what is shown, not of quality
    choices = np.array(names)[np.argmax(image @ np.stack([texts[name] for name in names]).T, axis=1)]
    report["quality"] = {name: float((choices[kinds == name] == name).mean()) for name in names}
    report["quality_accuracy"] = float(np.mean(list(report["quality"].values())))

    default = embed(clip)
    report["cosines"] = {f"{a}, {b}": cosine for (a, b), cosine in default.cosines().items()}
    report["largest_cosine"] = max(report["cosines"].values())

    whole = _encode(clip, np.concatenate(wholes)).reshape(len(scenes), 2, -1)[owner]
    loss: Any = 1.0
    for index, text in ((0, default.visible), (1, default.infrared)):
        loss = loss - 0.5 * _normalised(image - whole[:, index] + 1e-9) @ _normalised(default.goal - text)
    by_kind = {kind: float(loss[kinds == kind].mean()) for kind in dict.fromkeys(kinds)}
    report["directional"] = dict(sorted(by_kind.items(), key=lambda item: item[1]))
    good = np.isin(kinds, GOALS)
    report["directional_auc"] = auc(-loss, good)
    report["accepted"] = all(
        report[name] <= limit if name == "largest_cosine" else report[name] >= limit for name, limit in LIMITS.items()
    )
    return report


def _whole(scene: Scene, size: int) -> Float[np.ndarray, "2 s s"]:
    """The two whole sources, (2, size, size), read as any patch is."""
    height, width = scene.layers.shape[1:]
    rows = ((np.arange(size) + 0.5) * height / size).astype(int)
    columns = ((np.arange(size) + 0.5) * width / size).astype(int)
    return scene.layers[:2][:, rows][:, :, columns].astype(np.float32) / 255


def _encode(clip: Clip, patches: Float[np.ndarray, "n s s"]) -> Float[np.ndarray, "n d"]:
    images = np.repeat(patches[..., None], 3, axis=-1)
    return _normalised(
        np.concatenate([np.asarray(clip.encode_image(images[i : i + 64])) for i in range(0, len(images), 64)])
    )


def format_report(report: dict[str, Any]) -> str:
    """The report as a few lines of text."""
    lines = [
        f"- modality AUC {report['modality_auc']:.3f} (limit {LIMITS['modality_auc']})",
        f"- goal caption AUC {report['goal_auc']:.3f} (limit {LIMITS['goal_auc']})",
        f"- quality attributes named {report['quality_accuracy']:.1%} (limit {LIMITS['quality_accuracy']:.0%})",
        f"- largest cosine of two sentences {report['largest_cosine']:.3f} (limit {LIMITS['largest_cosine']})",
        f"- detailed background AUC {report['detailed_auc']:.3f}, salient objects AUC {report['salient_auc']:.3f}, "
        f"inverted AUC {report['inverted_auc']:.3f}",
        f"- language-driven loss, fused against the rest: AUC {report['directional_auc']:.3f}",
    ]
    for title, values in (
        ("cosines", report["cosines"]),
        ("named by failure", report["quality"]),
        ("language-driven loss towards the goal", report["directional"]),
    ):
        lines.append(f"- {title}: " + "; ".join(f"{name} {value:.2f}" for name, value in values.items()))
    return "\n".join(lines)

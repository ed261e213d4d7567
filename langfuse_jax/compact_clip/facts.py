"""What is known of a patch: from how it was made, and from its mean and contrast."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int8

from langfuse_jax.compact_clip.concepts import ARTEFACTS, AXES, CONCEPTS, MODALITIES
from langfuse_jax.compact_clip.strengths import HOT

GOALS = ("goal", "goal_strong", "goal_natural")
MODALITY = {
    "visible": "visible",
    "visible_enhanced": "visible",
    "infrared": "infrared",
    "infrared_enhanced": "infrared",
}
# The concept that a failure is named by, where it is not called the same.
FAILED = {"overexposed": "glaring", "washed_out": "flat"}
_FAULTS = ("blurry", "noisy", "hazy", "glaring", *ARTEFACTS)

Patch = Float[np.ndarray, "s s"]
Known = Int8[np.ndarray, " c"]


def facts(variant: str, patch: Patch, *, failure: str | None = None, targets: float = 0.0) -> Known:
    """Which concepts are true (1), false (0) or unknown (-1) of a patch of a variant, perhaps with a failure.

    `targets` is the share of the patch that is hot. Whether it is visible or infrared stays unknown, though it may well
    be told: a network would tell it by the camera (`modality_alone`).
    """
    known = dict.fromkeys(CONCEPTS, -1) | dict.fromkeys(ARTEFACTS, 0) | _measured(patch)
    modality = MODALITY.get(variant, "fused")
    known |= {"fused": int(modality == "fused"), "goal": 0, "hazy": 0, "detailed": 0}
    if variant in GOALS:
        known |= dict.fromkeys(("detailed", "clear", "sharp", "goal"), 1)
        known |= dict.fromkeys(("blurry", "noisy", "glaring", "flat", "quiet"), 0)
    elif modality == "infrared":
        known |= {"natural": 0, "thermal": 1}
    elif variant == "visible":
        known |= {"natural": 1, "thermal": 0}
    elif variant == "visible_enhanced":
        known |= dict.fromkeys(("detailed", "clear", "sharp"), 1) | dict.fromkeys(("blurry", "quiet", "thermal"), 0)
    elif variant == "inverted_targets":
        known |= {"natural": 0, "detailed": -1, "inverted": 1 if targets > 0.03 else -1}
    if HOT[0] < targets < HOT[1]:
        shown = {"infrared": -1, "infrared_enhanced": -1, "maximum": 1, **dict.fromkeys(GOALS, 1)}.get(variant, 0)
        known |= {"salient": shown, "hidden": 0 if shown == 1 else -1}
    if failure:
        known |= dict.fromkeys(_FAULTS, 0) | dict.fromkeys(("goal", "clear", "natural", "detailed"), 0)
        known |= {"fused": -1, "thermal": -1, "exposed": -1}  # ruined images of all kinds look alike
        known |= {"sharp": 0 if failure in ("blurry", "blocky") else -1, "quiet": -1, "hidden": -1, "hazy": -1}
        known["clean"] = 0 if failure in ("noisy", "striped", "checkered", "blocky") else -1
        if failure in ("blurry", "dark", "washed_out", "overexposed", "inverted"):
            known["salient"] = min(known["salient"], 0)
        if failure == "overexposed":
            known["exposed"] = 0
        known[FAILED.get(failure, failure)] = 1
    if targets < 0.03 and (failure or variant) in ("visible_enhanced", "inverted_targets", "inverted"):
        # Where nothing is hot, an enhanced visible image shows all there is to show, and there is nothing to invert.
        known["goal"] = -1
    return _in_order(known)


def _measured(patch: Patch) -> dict[str, int]:
    """What the mean and the contrast of a patch say."""
    mean, contrast = float(patch.mean()), float(patch.std())
    return {
        "dark": _between(-mean, -0.38, -0.2),
        "bright": _between(mean, 0.45, 0.62),
        "flat": _between(-contrast, -0.1, -0.05),
        "contrasty": _between(contrast, 0.13, 0.22),
        "glaring": _between(mean, 0.66, 0.85),
    }


def _between(value: float, no: float, yes: float) -> int:
    return 1 if value >= yes else 0 if value <= no else -1


def facts_of_strengths(strengths: Mapping[str, float], patch: Patch) -> Known:
    """What is known of a patch with known strengths: its axes' concepts, and that a faulty one is no good fusion."""
    known = dict.fromkeys(CONCEPTS, -1) | dict.fromkeys(("striped", "checkered", "blocky", "inverted"), 0)
    measured = _measured(patch)
    known |= {name: measured[name] for name in ("dark", "bright", "flat", "contrasty")}
    for axis, strength in strengths.items():
        for concept, value in zip(AXES[axis], (-strength, strength), strict=True):
            known[concept] = _between(value, -0.25, 0.5)
    if any(known[concept] == 1 for concept in ("dark", "flat", "blurry", "noisy", "hidden", "hazy", "glaring")):
        known["goal"] = 0
    return _in_order(known)


def modality_alone(modality: str) -> Known:
    """What is known of a source by another camera: that it is `modality`, "visible" or "infrared", and looks so."""
    known = dict.fromkeys(CONCEPTS, -1) | dict.fromkeys((*MODALITIES, *AXES["look"], "fused", "goal"), 0)
    return _in_order(known | {modality: 1, AXES["look"][MODALITIES.index(modality)]: 1})


def _in_order(known: Mapping[str, int]) -> Known:
    return np.array([known[concept] for concept in CONCEPTS], np.int8)

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
_SHARP = 0.02  # mean difference of neighbours, above which a patch shows detail
_CLEAN = 0.02  # noise level, below which a patch may be called clean

Patch = Float[np.ndarray, "s s"]
Known = Int8[np.ndarray, " c"]


def facts(variant: str, patch: Patch, *, failure: str | None = None, targets: float = 0.0) -> Known:
    """Which concepts are true (1), false (0) or unknown (-1) of a patch of a variant, perhaps with a failure.

    `targets` is the share of the patch that is hot. Whether it is visible or infrared stays unknown even where it is
    known: a network would learn to recognise the camera instead (`modality_alone`).
    """
    known = dict.fromkeys(CONCEPTS, -1) | dict.fromkeys(ARTEFACTS, 0) | _measured(patch)
    modality = MODALITY.get(variant, "fused")
    known |= {"fused": int(modality == "fused"), "goal": 0}
    if variant in GOALS or variant == "visible_enhanced":
        known |= {"goal": int(variant in GOALS), "clear": 1, "hazy": 0, "blurry": 0}
        if _detail(patch) > _SHARP:
            known |= {"detailed": 1, "sharp": 1, "quiet": 0}
    if variant in GOALS:
        known["noisy"] = 0
    elif modality == "infrared":
        known |= {"natural": 0, "thermal": 1, "detailed": 0}
    elif variant == "visible":
        known |= {"natural": 1, "thermal": 0, "detailed": 0}
    elif variant == "visible_enhanced":
        known["thermal"] = 0
    elif variant == "inverted_targets":
        known |= {"natural": 0, "inverted": 1 if targets > 0.03 else -1}
    else:
        known["detailed"] = 0
    if HOT[0] < targets < HOT[1]:
        unsure = ("infrared", "infrared_enhanced", "maximum")
        shown = -1 if variant in unsure else int(variant in GOALS)
        known |= {"salient": shown, "hidden": 0 if shown == 1 else -1}
    if failure:
        known = _ruined(known, failure)
    if targets < 0.03 and (failure or variant) in ("visible_enhanced", "inverted_targets", "inverted"):
        # Where nothing is hot, an enhanced visible image shows all there is to show, and there is nothing to invert.
        known["goal"] = -1
    return _in_order(known)


def _ruined(known: dict[str, int], failure: str) -> dict[str, int]:
    """What is known of a patch once it has a failure."""
    known = known | dict.fromkeys(("blurry", "noisy", *ARTEFACTS), 0) | {"goal": 0, "clear": 0, "detailed": 0}
    # Ruined images of all kinds look alike.
    known |= dict.fromkeys(("fused", "natural", "thermal", "sharp", "quiet", "hidden", "hazy"), -1)
    if failure in ("noisy", "striped", "checkered", "blocky"):
        known["clean"] = 0
    if failure in ("noisy", "striped", "checkered", "haloed", "harsh"):
        known["contrasty"] = -1  # what was added has contrast too
    if failure in ("blurry", "blocky"):
        known["sharp"] = 0
    if failure in ("blurry", "dark", "washed_out"):
        known["salient"] = -1  # people may stand out in such images
    elif failure in ("overexposed", "inverted"):
        known["salient"] = min(known["salient"], 0)
    if failure == "inverted":
        known |= {"clear": -1, "detailed": -1}
    if failure == "overexposed":
        known["exposed"] = 0
    return known | {FAILED.get(failure, failure): 1}


def _measured(patch: Patch) -> dict[str, int]:
    """What the mean, the contrast and the whitest and blackest pixels of a patch say."""
    mean, contrast = float(patch.mean()), float(patch.std())
    white, black = float((patch > 0.95).mean()), float((patch < 0.03).mean())
    even = 0.25 < mean < 0.65 and white < 0.003 and black < 0.02
    return {
        "dark": _between(-mean, -0.38, -0.2),
        "bright": _between(mean, 0.45, 0.62),
        "flat": _between(-contrast, -0.1, -0.05),
        "contrasty": _between(contrast, 0.13, 0.22),
        "glaring": 1 if mean > 0.85 else 0 if white < 0.005 and mean < 0.66 else -1,
        "exposed": 1 if even else 0 if white > 0.08 or mean < 0.1 else -1,
    }


def _detail(patch: Patch) -> float:
    return float(np.abs(np.diff(patch, axis=0)).mean() + np.abs(np.diff(patch, axis=1)).mean()) / 2


def _noise(patch: Patch) -> float:
    """The standard deviation of noise, by the median of a second difference (in the manner of Immerkaer, 1996)."""
    rows = patch[2:] - 2 * patch[1:-1] + patch[:-2]
    return float(np.median(np.abs(rows[:, 2:] - 2 * rows[:, 1:-1] + rows[:, :-2]))) / (6 * 0.6745)


def _between(value: float, no: float, yes: float) -> int:
    return 1 if value >= yes else 0 if value <= no else -1


def facts_of_strengths(strengths: Mapping[str, float], patch: Patch, base: str) -> Known:
    """What is known of a patch of a variant `base` with known strengths: its axes' concepts, and no more than is seen.

    A faulty one is no good fusion. That nothing was added does not make a patch clear, clean or well exposed: its
    scene may be hazy, noisy or full of glare.
    """
    known = dict.fromkeys(CONCEPTS, -1) | dict.fromkeys(("striped", "checkered", "blocky", "inverted"), 0)
    measured = _measured(patch)
    known |= {name: measured[name] for name in ("dark", "bright", "flat", "contrasty")}
    for axis, strength in strengths.items():
        for concept, value in zip(AXES[axis], (-strength, strength), strict=True):
            known[concept] = _between(value, -0.25, 0.5)
    if known["clear"] == 1 and (base == "infrared" or patch.std() < 0.1):
        known["clear"] = -1
    if known["clean"] == 1 and _noise(patch) > _CLEAN:
        known["clean"] = -1
    if known["exposed"] == 1:
        known["exposed"] = measured["exposed"]
    if any(known[concept] == 1 for concept in ("dark", "flat", "blurry", "noisy", "hidden", "hazy", "glaring")):
        known["goal"] = 0
    return _in_order(known)


def modality_alone(modality: str) -> Known:
    """What is known of a source by another camera: that it is `modality`, "visible" or "infrared", and looks so."""
    known = dict.fromkeys(CONCEPTS, -1) | dict.fromkeys((*MODALITIES, *AXES["look"], "fused", "goal"), 0)
    return _in_order(known | {modality: 1, AXES["look"][MODALITIES.index(modality)]: 1})


def _in_order(known: Mapping[str, int]) -> Known:
    return np.array([known[concept] for concept in CONCEPTS], np.int8)

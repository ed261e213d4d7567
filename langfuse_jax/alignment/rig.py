"""Aligning a rig: which of its pairs belong together, and whether what was found is to be trusted."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from langfuse_jax.alignment import MODELS
from langfuse_jax.alignment.estimate import Estimate, estimate
from langfuse_jax.alignment.geometry import Image, Matrix, Size, local_scale
from langfuse_jax.alignment.opencv import opencv
from langfuse_jax.alignment.transform import Alignment, impossible
from langfuse_jax.errors import UserError, WrongType

_LEAST_INLIERS = 50  # of one pair
_LEAST_INLIERS_MORE = 10  # of each further pair
_RIVAL = 0.6  # of the inliers, that another transform may have
_HALVES = 8.0  # pixels, where the infrared image is 640 wide, by which the halves of the matches may disagree
_BELONGS = 0.5  # share of a pair's matches that agree with the rig's transform
_LEAST_OF_PAIR = 12  # inliers of a pair that belongs to a rig


def align(
    visible: Shaped[np.ndarray, "..."] | Sequence[Shaped[np.ndarray, "..."]],
    infrared: Shaped[np.ndarray, "..."] | Sequence[Shaped[np.ndarray, "..."]],
    *,
    model: str = "homography",
    start: Matrix | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Alignment:
    """The transform from infrared to visible pixels of one pair, or of several pairs of one rig.

    Each image is (h, w) or (h, w, 3), of any type and range; all visible images have one size, and all infrared ones.
    Edges are compared by where they run, whichever side is brighter, in a search over shifts, rotations within 6
    degrees and fields of view (an infrared image as wide as 0.27 to 1.6 of the visible one), first near `start`, if a
    matrix is known in advance. With several pairs one transform is fitted to the matches of all, and pairs that
    disagree with it are left out. `progress` is called after each step.

    The result is accepted if at least 50 matched patches agree with it (10 more for each further pair), no other
    transform has more than 0.6 of them, and the fits to two halves of the matches lie within 8 pixels at the corners of
    an infrared image 640 wide. `Alignment.reason` says what is missing. Raises UserError if the images
    cannot belong to one rig.

    Example::

        rig = align(visible, infrared)
        fused = Fuser.load()(*rig.apply(visible_in_unit_range, infrared_in_unit_range))
    """
    if model not in MODELS:
        raise UserError(f"--model {model}: is none of {', '.join(MODELS)}")
    seen, thermal = _gray_images(visible, "visible"), _gray_images(infrared, "infrared")
    if len(seen) != len(thermal):
        raise UserError(f"{len(seen)} visible and {len(thermal)} infrared images: give as many of each")
    sizes = _size(seen[0]), _size(thermal[0])
    for role, images in (("visible", seen), ("infrared", thermal)):
        if not any(np.ptp(image) for image in images):
            raise UserError(f"the {role} image is constant; align a pair that shows something")
    # Without the frames of a closed shutter, with which thermal videos begin.
    pairs = [pair for pair in zip(seen, thermal, strict=True) if np.ptp(pair[0]) and np.ptp(pair[1])]
    if not pairs:
        raise UserError("one image of each pair is constant; align a pair that shows something")
    found, problem = _first_accepted(pairs, sizes[1], model, start, progress)
    used = len(pairs)
    if found is not None and not problem and len(pairs) > 1:
        members = [pair for pair, belongs in zip(pairs, _members(found), strict=True) if belongs]
        used = len(members)
        if not members:
            problem = "no pair agrees with the transform of all of them"
        elif used < len(pairs):
            again = estimate(*_apart(members), model=model, start=found.matrix)
            found, problem = again or found, _problem(again, sizes[1], used)
    if found is None:
        return Alignment(np.eye(3), *sizes, model, used, 0, float("inf"), False, problem)
    scale = abs(local_scale(found.matrix, *sizes[1])) * sizes[1][0] / 640
    return Alignment(found.matrix, *sizes, model, used, found.inliers, found.residual * scale, not problem, problem)


def _first_accepted(
    pairs: Sequence[tuple[Image, Image]],
    infrared_size: Size,
    model: str,
    start: Matrix | None,
    progress: Callable[[], object],
) -> tuple[Estimate | None, str]:
    """The first estimate with which nothing is wrong: near a known start, near at hand, far; else the second one."""
    attempts: list[dict[str, Any]] = [{"start": start}] if start is not None else []
    kept: tuple[Estimate | None, str] = None, ""
    for attempt in (*attempts, {}, {"wide": True}):
        found = estimate(*_apart(pairs), model=model, progress=progress, **attempt)
        problem = _problem(found, infrared_size, len(pairs))
        if not problem:
            return found, problem
        if "wide" not in attempt:
            kept = found, problem
    return kept


def _apart(pairs: Sequence[tuple[Image, Image]]) -> tuple[list[Image], list[Image]]:
    return [visible for visible, _ in pairs], [infrared for _, infrared in pairs]


def _problem(found: Estimate | None, infrared_size: Size, pairs: int) -> str:
    """Why an estimate is not to be trusted; empty if it is."""
    least = _LEAST_INLIERS + _LEAST_INLIERS_MORE * (pairs - 1)
    count = 0 if found is None else found.inliers
    if found is None or count < least:
        return (
            f"{count} patches of the images agree on one transform and {least} are needed: they have too little "
            "structure in common"
        )
    if found.rival > _RIVAL * count:
        return f"another transform fits nearly as well ({found.rival} patches against {count}): the pattern may repeat"
    if found.halves > _HALVES:
        return f"two halves of the matched patches disagree by {found.halves:.0f} pixels"
    return impossible(found.matrix, infrared_size)


def _members(found: Estimate) -> list[bool]:
    """Which pairs of a rig agree with its transform."""
    return [
        inliers >= _LEAST_OF_PAIR and inliers >= _BELONGS * matches
        for inliers, matches in zip(found.pair_inliers, found.pair_matches, strict=True)
    ]


def _gray_images(given: Any, role: str) -> list[Image]:
    images = list(given) if isinstance(given, (list, tuple)) else [given]
    if not images:
        raise UserError(f"no {role} image is given; give at least one")
    gray = [_gray(image, role) for image in images]
    for image in gray:
        if image.shape != gray[0].shape:
            (w, h), (w2, h2) = _size(gray[0]), _size(image)
            raise UserError(f"a {role} image is {w2}x{h2} and another {w}x{h} pixels: those of one rig have one size")
    return gray


def _gray(image: Any, role: str) -> Image:
    values = np.asarray(image)
    if (
        values.ndim not in (2, 3)
        or (values.ndim == 3 and values.shape[2] not in (1, 3))
        or values.dtype.kind not in "uif"
    ):
        raise WrongType(f"{role}: {values.dtype} of shape {values.shape} is no image; give (h, w) or (h, w, 3) numbers")
    if min(values.shape[:2]) < 2:
        raise UserError(f"{role}: is {values.shape[1]}x{values.shape[0]} pixels; nothing can be matched in it")
    if values.ndim == 3:
        cv2 = opencv()
        values = (
            np.asarray(cv2.cvtColor(values.astype(np.float32), cv2.COLOR_RGB2GRAY))
            if values.shape[2] == 3
            else values[..., 0]
        )
    plain = values.astype(np.float32)
    known = np.isfinite(plain)
    return plain if known.all() else np.where(known, plain, plain[known].mean() if known.any() else np.float32(0))


def _size(image: Image) -> Size:
    return image.shape[1], image.shape[0]

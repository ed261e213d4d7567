"""The alignment of a rig from what its two cameras took: pairs of files, of folders, or of videos."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from langfuse_jax.alignment.geometry import stretching
from langfuse_jax.alignment.rig import align
from langfuse_jax.alignment.transform import Alignment
from langfuse_jax.errors import UserError
from langfuse_jax.images.files import EXTENSIONS, MAX_SIDE, header_size
from langfuse_jax.images.naming import Convention
from langfuse_jax.images.pairs import Pair, match_pairs, read_sources
from langfuse_jax.images.reading import Reading
from langfuse_jax.inference.video import some_frames

PAIRS = 5  # of a rig: more are seldom better


class RigPair(NamedTuple):
    """One pair of a rig, as its cameras took it: visible luma and infrared, in [0, 1].

    Attributes:
        stem: what it is called.
        visible, infrared: of any sizes.
        cut: the visible image is a camera's own photo, cut to what the thermal frame shows.
    """

    stem: str
    visible: Float32[np.ndarray, "_ _"]
    infrared: Float32[np.ndarray, "_ _"]
    cut: bool = False


def list_rig(
    visible: str | os.PathLike | None, infrared: str | os.PathLike, pair_by: Convention | None = None
) -> list[Pair]:
    """The pairs of two image files, or of two folders of them; `visible` is None for cameras that keep a photo.

    Raises UserError where there is no pair.

    Example::

        pairs = list_rig("VIS", "IR")
    """
    if not os.path.isdir(infrared):
        seen = Path(infrared if visible is None else visible)
        return [Pair(seen.stem, seen, Path(infrared))]
    return match_pairs(visible, infrared, pair_by).pairs


def read_rig_pair(pair: Pair, max_side: int | None = MAX_SIDE) -> RigPair:
    """A pair as its cameras took it. Raises UserError, naming the file, where one cannot be read.

    Example::

        rig_pair = read_rig_pair(list_rig("VIS", "IR")[0])
    """
    luma, _, infrared = read_sources(pair, Reading(max_side=max_side, any_infrared_size=True))
    return RigPair(pair.stem, luma, infrared, pair.visible == pair.infrared)


def align_rig(
    visible: str | os.PathLike | None,
    infrared: str | os.PathLike,
    *,
    count: int = PAIRS,
    model: str = "homography",
    pair_by: Convention | None = None,
    max_side: int | None = MAX_SIDE,
    progress: Callable[[], object] = lambda: None,
) -> tuple[Alignment, RigPair]:
    """The one alignment of a rig, from up to `count` of its pairs, and the first of them.

    Of folders, pairs spread evenly are taken; of videos, frames a second or so apart, from the first on. Raises
    UserError, with the reason, where the alignment cannot be trusted (see `alignment.rig.align`).

    Example::

        alignment, _ = align_rig("VIS", "IR")
        fuse_folders("VIS", "IR", "FUSED", alignment=alignment)
    """
    if visible is not None and (is_video(visible) or is_video(infrared)):
        reading = Reading(max_side=max_side, any_infrared_size=True)
        frames = some_frames(Path(visible), Path(infrared), reading, count)
        pairs = [RigPair(f"frame {number} of {visible}", luma, thermal) for number, (luma, _, thermal) in frames]
    else:
        listed = list_rig(visible, infrared, pair_by)
        spread = np.linspace(0, len(listed) - 1, min(count, len(listed))).round().astype(int)
        pairs = [read_rig_pair(listed[at], max_side) for at in spread]
    return align_pairs(pairs, model=model, progress=progress), pairs[0]


def align_pairs(
    pairs: Sequence[RigPair], *, model: str = "homography", progress: Callable[[], object] = lambda: None
) -> Alignment:
    """As `align_rig`, of pairs that are read. Errors name the first pair, or the one whose size differs.

    Example::

        alignment = align_pairs([read_rig_pair(pair) for pair in list_rig("VIS", "IR")])
    """
    first = pairs[0]
    for pair in pairs[1:]:
        for role, one, other in (
            ("visible", pair.visible, first.visible),
            ("infrared", pair.infrared, first.infrared),
        ):
            if one.shape != other.shape:
                raise UserError(
                    f"{pair.stem}: its {role} image is {one.shape[1]}x{one.shape[0]} pixels and that of {first.stem} "
                    f"{other.shape[1]}x{other.shape[0]}: one transform holds for one size; align each pair separately "
                    "(`langfuse-jax align --each`)"
                )
    start = None
    if all(pair.cut for pair in pairs):
        start = stretching(first.infrared.shape[::-1], first.visible.shape[::-1])
    more = f" and {len(pairs) - 1} more" if len(pairs) > 1 else ""
    try:
        found = align(
            [pair.visible for pair in pairs],
            [pair.infrared for pair in pairs],
            model=model,
            start=start,
            progress=progress,
        )
    except UserError as error:
        raise UserError(f"{first.stem}{more}: {error}") from error
    if not found.accepted:
        raise UserError(f"{first.stem}{more}: cannot be aligned ({found.reason}); choose pairs with more in common")
    return found


def is_video(path: str | os.PathLike) -> bool:
    """Whether a source is read as a video: a file that no reader of images knows.

    >>> is_video(".")
    False
    """
    return os.path.isfile(path) and Path(path).suffix.lower() not in EXTENSIONS and header_size(path) is None

"""The transform of a rig from one pair of its images or several: a search on a grid, then patches, then a verdict."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from langfuse_jax.alignment.coarse import Start, find_similarities
from langfuse_jax.alignment.fit import Fit, fit
from langfuse_jax.alignment.geometry import Image, Matrix, corners, local_scale, moved, resized
from langfuse_jax.alignment.patches import Matches, match_patches

_COARSE = 192  # pixels across the infrared image in the search on a grid
_FINE = 320  # and where patches are matched
_UNIT = 640 / _FINE  # what is said in pixels is so for an infrared image 640 wide
_NEAR = (0.75, 1.34)  # how wide the infrared image may be in the visible one, at first
_WIDE = ((0.27, 0.52), (0.5, 0.78), (1.3, 1.6))  # and after that
_LARGEST = 640  # pixels across the visible image in the search on a grid
_CANDIDATES = 8  # of the search on a grid, whose patches are matched
_KEPT = 3  # of these, whose patches are matched again

# How patches are matched, of all candidates, of those kept and of the best: within so many pixels, so many apart.
_SEARCHES = ((16, 24), (12, 16), (8, 16))
_RIVAL = 12.0  # pixels at the corners from which a candidate is another one
_BLOCK = 64  # pixels a side of the checkerboard whose halves are fitted apart


class Estimate(NamedTuple):
    """The best transform found, and what speaks for it.

    Attributes:
        matrix: from infrared to visible pixels.
        inliers: matches that agree with it, over all pairs.
        matches: all that were found.
        pair_inliers: inliers of each pair.
        pair_matches: matches of each pair.
        residual: median distance of the inliers, in pixels where the infrared image is 640 wide.
        halves: how far the fits of either half of the matches are apart at the corners, in the same pixels.
        rival: inliers of the best other transform.
    """

    matrix: Matrix
    inliers: int
    matches: int
    pair_inliers: tuple[int, ...]
    pair_matches: tuple[int, ...]
    residual: float
    halves: float
    rival: int


def estimate(
    visible: Sequence[Image],
    infrared: Sequence[Image],
    *,
    model: str = "homography",
    start: Matrix | None = None,
    wide: bool = False,
    progress: Callable[[], object] = lambda: None,
) -> Estimate | None:
    """The most likely transform from infrared to visible pixels, over pairs of one rig; None where nothing matches.

    All visible images have one size, and all infrared ones too; gray, in any range. Without a `start` (a matrix known
    in advance), similarities are tried that show the infrared image in 0.75 to 1.34 of the visible one's width, or
    with `wide`, in the rest of 0.27 to 1.6. `progress` is called after each step.

    Example::

        found = estimate([visible], [infrared])
        found.matrix, found.inliers
    """
    scenes = _Scenes(visible, infrared)
    starts = [Start(start, 1.0)] if start is not None else []
    for scales in () if start is not None else _WIDE if wide else (_NEAR,):
        starts += _search(scenes, scales)
        progress()
    candidates = [found for one in starts if (found := _matched(scenes, one.matrix, "similarity", _SEARCHES[0]))]
    progress()
    kept = sorted(candidates, key=_count, reverse=True)[:_KEPT]
    again = [found for one in kept if (found := _matched(scenes, one.matrix, model, _SEARCHES[1]))]
    progress()
    if not again:
        return None
    best, *others = sorted(again, key=_count, reverse=True)
    rivals = [other for other in others if _apart(scenes, best, other) > _RIVAL]
    best = _matched(scenes, best.matrix, model, _SEARCHES[2]) or best
    inside = best.fit.inliers
    counts = [len(matches.infrared) for matches in best.matches]
    ends = np.cumsum(counts)
    return Estimate(
        best.matrix,
        int(inside.sum()),
        len(inside),
        tuple(int(inside[end - count : end].sum()) for end, count in zip(ends, counts, strict=True)),
        tuple(counts),
        _UNIT * float(np.median(best.fit.errors[inside])) if inside.any() else np.inf,
        _halves(scenes, best, model),
        max(map(_count, rivals), default=0),
    )


class _Candidate(NamedTuple):
    matrix: Matrix  # between pixels of the images as they were given
    fit: Fit  # between those in which they were matched
    matches: list[Matches]  # of each pair, in the pixels of the fit


class _Scenes:
    """The images of a rig, in the sizes in which they are compared."""

    def __init__(self, visible: Sequence[Image], infrared: Sequence[Image]):
        self.visible, self.infrared = visible, infrared
        self.size = infrared[0].shape[1], infrared[0].shape[0]
        self.fine, matrices = zip(*(resized(image, _FINE) for image in infrared), strict=True)
        self.to_fine: Matrix = matrices[0]
        self.fine_size = self.fine[0].shape[1], self.fine[0].shape[0]

    def visible_for(self, matrix: Matrix) -> tuple[list[Image], Matrix]:
        """The visible images with pixels as large as the fine infrared ones, and the matrix to these pixels."""
        height, width = self.visible[0].shape
        across = self.to_fine[0, 0] / abs(local_scale(matrix, *self.size))
        whole = np.sqrt(width * height / 0.75)  # width of an image of 4:3 with as many pixels
        images, matrices = zip(
            *(resized(image, round(whole * min(1.0, max(across, 32 / whole)))) for image in self.visible), strict=True
        )
        return list(images), matrices[0]


def _search(scenes: _Scenes, scales: tuple[float, float]) -> list[Start]:
    """The best similarities of a range of scales, between the pixels of the images as they were given."""
    width = min(_LARGEST, round(_COARSE / np.sqrt(scales[0] * scales[1])))
    visible, to_visible = zip(*(resized(image, width) for image in scenes.visible), strict=True)
    infrared, to_infrared = zip(*(resized(image, _COARSE) for image in scenes.infrared), strict=True)
    low, high = (scale * width / _COARSE for scale in scales)
    found = find_similarities(visible, infrared, scales=(low, high), count=_CANDIDATES)
    back = np.linalg.inv(to_visible[0])
    return [Start(back @ start.matrix @ to_infrared[0], start.score) for start in found]


def _count(candidate: _Candidate) -> int:
    return int(candidate.fit.inliers.sum())


def _matched(scenes: _Scenes, matrix: Matrix, model: str, how: tuple[int, int]) -> _Candidate | None:
    """The fit to patches of all pairs found near where `matrix` expects them; `how` is one of _SEARCHES."""
    if not 0 < local_scale(matrix, *scenes.size) < np.inf:
        return None
    visible, to_visible = scenes.visible_for(matrix)
    expected = to_visible @ matrix @ np.linalg.inv(scenes.to_fine)
    matches = [
        match_patches(v, i, expected, search=how[0], spacing=how[1]) for v, i in zip(visible, scenes.fine, strict=True)
    ]
    pooled = Matches(*(np.concatenate(places) for places in zip(*matches, strict=True)))
    found = fit(pooled, model, scenes.fine_size)
    if found is None:
        return None
    whole = np.linalg.inv(to_visible) @ found.matrix @ scenes.to_fine
    return _Candidate(whole / whole[2, 2], found, matches)


def _apart(scenes: _Scenes, one: _Candidate, other: _Candidate) -> float:
    """The largest distance of the corners, in fine pixels."""
    places = [moved(candidate.matrix, corners(*scenes.size)) for candidate in (one, other)]
    scale = scenes.to_fine[0, 0] / abs(local_scale(one.matrix, *scenes.size))
    return float(np.linalg.norm(places[0] - places[1], axis=1).max()) * scale


def _halves(scenes: _Scenes, best: _Candidate, model: str) -> float:
    places = np.concatenate([matches.infrared for matches in best.matches])
    there = np.concatenate([matches.visible for matches in best.matches])
    odd = (places // _BLOCK).sum(1) % 2 == 1
    found = [fit(Matches(places[half], there[half]), model, scenes.fine_size) for half in (odd, ~odd)]
    if found[0] is None or found[1] is None:
        return np.inf
    one, other = (moved(half.matrix, corners(*scenes.fine_size)) for half in found if half is not None)
    scale = abs(local_scale(found[0].matrix, *scenes.fine_size))
    return _UNIT * float(np.linalg.norm(one - other, axis=1).mean()) / scale

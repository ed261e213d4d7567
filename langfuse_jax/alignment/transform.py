"""The transform of a rig: kept in a JSON file, and applied to pairs of images."""

import json
import math
import os
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64

from langfuse_jax.alignment.geometry import Matrix, Size, corners, local_scale, moved, resized_to, stretching, turned
from langfuse_jax.alignment.opencv import opencv
from langfuse_jax.errors import UserError, WrongType, reason
from langfuse_jax.runtime.atomic import atomic_write
from langfuse_jax.runtime.html import Cell, Strong, html_table

Grid = Literal["visible", "infrared"]
Outside = Literal["crop", "visible"]
Window = tuple[int, int, int, int]  # left, top, width, height

VERSION = 1
_FORMAT = "langfuse_jax alignment"
_LEAST_SIDE = 32  # of an overlap: the fusion network's smallest height and width
_COLUMNS = 257  # looked at for the largest rectangle of an overlap
_SHRINK = 0.75  # scale below which an image is averaged before it is warped
_EDGE = 1e-3  # pixels beyond an image's edge that rounding may take a point


@dataclass(frozen=True, eq=False)  # `==` of arrays is an array
class Alignment:
    """Where the infrared pixels of a rig lie in its visible images.

    Attributes:
        matrix: 3x3, from an infrared pixel (x, y, 1) to a visible one; the centre of the first pixel is (0, 0).
        visible_size, infrared_size: (width, height) of the images that it holds for.
        model: "similarity", "affine" or "homography".
        pairs: pairs of images that it was found in.
        inliers: matched patches that agree with it, over all pairs.
        residual_px: median distance of the inliers from it, in visible pixels.
        accepted: whether it can be trusted, see `align`.
        reason: why not; empty if it can.

    >>> shifted = Alignment(np.array([[2.0, 0, 8], [0, 2.0, 0], [0, 0, 1]]), (160, 96), (64, 48))
    >>> visible, infrared = shifted.apply(np.zeros((96, 160), np.float32), np.ones((48, 64), np.float32))
    >>> visible.shape, infrared.shape, infrared.min().item()
    ((95, 127), (95, 127), 1.0)
    """

    matrix: Matrix
    visible_size: Size
    infrared_size: Size
    model: str = "homography"
    pairs: int = 1
    inliers: int = 0
    residual_px: float = 0.0
    accepted: bool = True
    reason: str = ""

    def apply(
        self,
        visible: Float32[np.ndarray, "h w *c"],
        infrared: Float32[np.ndarray, "h2 w2"],
        *,
        to: Grid = "visible",
        outside: Outside = "crop",
    ) -> tuple[Float32[np.ndarray, "h3 w3 *c"], Float32[np.ndarray, "h3 w3"]]:
        """A visible image (gray or colour) and an infrared one, laid over each other on the grid of one of them.

        The other one is resampled bicubically, and averaged before that where it gets smaller. With `outside="crop"`
        both are cut to the largest upright rectangle that both show; with "visible" (on the visible grid alone) the
        visible image stays whole, and infrared is NaN where it has no value. NaN in `infrared` stays NaN.

        Raises UserError for images of other sizes, an overlap under 32 pixels a side, and an alignment that was
        refused; WrongType for images that are no floats.
        """
        for role, image in (("visible", visible), ("infrared", infrared)):
            if image.dtype.kind != "f":
                raise WrongType(f"{role}: is {image.dtype}; give floats, such as images.files.to_unit gives")
        if infrared.ndim != 2:
            raise WrongType(f"infrared: is of shape {infrared.shape}; give a gray image, (h, w)")
        self.check(visible.shape[:2], infrared.shape)
        left, top, width, height = self.window(to, outside)
        shift = np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]])
        if to == "visible":
            laid = _warped(infrared, shift @ self.matrix, (width, height), whole=outside == "crop")
            return visible[top : top + height, left : left + width], laid
        laid = _warped(visible, shift @ np.linalg.inv(self.matrix), (width, height), whole=True)
        return laid, infrared[top : top + height, left : left + width]

    def window(self, to: Grid = "visible", outside: Outside = "crop") -> Window:
        """(left, top, width, height) of what `apply` gives, in the pixels of the grid. Raises UserError as it does.

        >>> Alignment(np.array([[2.0, 0, 8], [0, 2.0, 0], [0, 0, 1]]), (160, 96), (64, 48)).window()
        (8, 0, 127, 95)
        """
        if to not in ("visible", "infrared") or outside not in ("crop", "visible"):
            raise UserError(f"to={to!r}, outside={outside!r}: use visible or infrared, and crop or visible")
        if to == "infrared":
            if outside == "visible":
                raise UserError(
                    "--outside visible: keeps the whole visible image, and --to infrared gives the infrared grid; "
                    "leave one out"
                )
            return self._overlap_on_infrared
        return (
            self._overlap_on_visible if outside == "crop" else (self._overlap_on_visible and (0, 0, *self.visible_size))
        )

    @cached_property
    def _overlap_on_visible(self) -> Window:
        return _overlap(self.visible_size, self.matrix, self.infrared_size)

    @cached_property
    def _overlap_on_infrared(self) -> Window:
        return _overlap(self.infrared_size, np.linalg.inv(self.matrix), self.visible_size)

    def check(self, visible: tuple[int, ...], infrared: tuple[int, ...]) -> None:
        """Raises UserError unless images of these shapes (height, width) are those that the alignment holds for."""
        if not self.accepted:
            raise UserError(f"the alignment was refused ({self.reason}); align other pairs of this rig")
        for role, shape, size in (("visible", visible, self.visible_size), ("infrared", infrared, self.infrared_size)):
            if shape[::-1] != size:
                raise UserError(
                    f"the {role} image is {shape[1]}x{shape[0]} pixels, and the alignment is for {size[0]}x{size[1]}; "
                    "run `langfuse-jax align` on images of these sizes"
                )

    def describe(self) -> str:
        """Two lines: what the alignment rests on, and what it does. Raises UserError where it leaves no overlap.

        >>> print(Alignment(np.eye(3), (64, 48), (64, 48), inliers=99, residual_px=0.51).describe())
        accepted: 99 patches of 1 pair agree; median residual 0.5 visible pixels
        infrared 64x48 in visible 64x48: scale 1.000, turned by 0.0 degrees; overlap 64x48 at (0, 0), 100%
        """
        (width, height), (w, h) = self.infrared_size, self.visible_size
        left, top, across, down = self.window()
        verdict = "accepted" if self.accepted else f"refused ({self.reason})"
        scale, angle = local_scale(self.matrix, width, height), round(turned(self.matrix, width, height), 1) + 0.0
        return (
            f"{verdict}: {self.inliers} patches of {self.pairs} pair{'s' * (self.pairs > 1)} agree; median residual "
            f"{self.residual_px:.1f} visible pixels\n"
            f"infrared {width}x{height} in visible {w}x{h}: scale {scale:.3f}, turned by {angle} degrees; overlap "
            f"{across}x{down} at ({left}, {top}), {100 * across * down / (w * h):.0f}%"
        )

    def _repr_html_(self) -> str:
        """For a notebook: the verdict, what it rests on, and what the transform does."""
        (width, height), (w, h) = self.infrared_size, self.visible_size
        rows: list[list[Cell]] = [
            ["verdict", Strong("accepted") if self.accepted else f"refused: {self.reason}"],
            ["model", self.model],
            ["rests on", f"{self.inliers} patches of {self.pairs} pair{'s' * (self.pairs > 1)}"],
            ["median residual", f"{self.residual_px:.1f} visible pixels"],
            ["infrared image", f"{width}x{height}"],
            ["visible image", f"{w}x{h}"],
        ]
        if self.accepted and not impossible(self.matrix, self.infrared_size):
            angle = round(turned(self.matrix, width, height), 1) + 0.0
            rows += [
                ["scale", f"{local_scale(self.matrix, width, height):.3f}"],
                ["turned by", f"{angle} degrees"],
                ["matrix", np.array2string(self.matrix, precision=4, suppress_small=True)],
            ]
        return html_table(rows, title="Alignment")

    def as_dict(self) -> dict[str, Any]:
        """What `save` writes."""
        residual = self.residual_px if math.isfinite(self.residual_px) else None
        values = {**asdict(self), "matrix": self.matrix.tolist(), "residual_px": residual}
        return {"format": _FORMAT, "version": VERSION, **values}

    def save(self, path: str | os.PathLike) -> None:
        """Writes a JSON file, whole or not at all."""
        with atomic_write(path) as file:
            file.write(json.dumps(self.as_dict(), indent=1).encode() + b"\n")

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Alignment":
        """An alignment of a JSON file that `save` wrote. Raises UserError, naming the file, for any other.

        >>> Alignment(np.eye(3), (64, 48), (64, 48), inliers=99).save("rig.json")
        >>> Alignment.load("rig.json").inliers
        99
        """
        remedy = "give a file that `langfuse-jax align` wrote"
        try:
            found = json.loads(Path(path).read_bytes())
        except FileNotFoundError as error:
            raise UserError(f"--alignment {path}: no such file; {remedy}") from error
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"--alignment {path}: cannot be read ({reason(error)}); {remedy}") from error
        try:
            if found.get("version", VERSION) != VERSION:
                raise ValueError(f"its version is {found['version']}, and this one reads {VERSION}")
            residual = found.get("residual_px", 0.0)
            alignment = cls(
                np.array(found["matrix"], np.float64).reshape(3, 3),
                _size(found["visible_size"]),
                _size(found["infrared_size"]),
                str(found.get("model", "homography")),
                int(found.get("pairs", 1)),
                int(found.get("inliers", 0)),
                math.inf if residual is None else float(residual),
                bool(found.get("accepted", True)),
                str(found.get("reason", "")),
            )
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else reason(error)
            raise UserError(f"--alignment {path}: is no alignment ({what}); {remedy}") from error
        if problem := impossible(alignment.matrix, alignment.infrared_size):
            raise UserError(f"--alignment {path}: {problem}; {remedy}")
        return alignment


def impossible(matrix: Matrix, infrared_size: Size) -> str:
    """Why a matrix cannot belong to two cameras; empty if it can.

    >>> impossible(np.diag([-1.0, 1, 1]), (64, 48))
    'its matrix mirrors the image'
    """
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9 * max(1.0, abs(matrix[2, 2])) ** 3:
        return "its matrix has no inverse"
    width, height = infrared_size
    depths = corners(width, height) @ matrix[2, :2] + matrix[2, 2]
    if depths.min() <= 0 < depths.max():
        return "its matrix folds the image"
    if local_scale(matrix, width, height) < 0:
        return "its matrix mirrors the image"
    return ""


def _size(given: Any) -> Size:
    width, height = given
    if width != int(width) or height != int(height) or min(width, height) < 1:
        raise ValueError(f"{given} is no size")
    return int(width), int(height)


def _overlap(grid: Size, matrix: Matrix, other: Size) -> Window:
    """The largest upright rectangle of a grid in which `matrix` lays the other image throughout."""
    outline = moved(matrix, corners(*other))
    first, last = max(0.0, outline[:, 0].min()), min(grid[0] - 1.0, outline[:, 0].max())
    columns = np.arange(math.ceil(first - _EDGE), math.floor(last + _EDGE) + 1)
    if len(columns) > _COLUMNS:
        columns = columns[np.linspace(0, len(columns) - 1, _COLUMNS).astype(int)]
    top, bottom = _column_bounds(outline, columns.astype(np.float64))
    top, bottom = np.ceil(np.maximum(top, 0) - _EDGE), np.floor(np.minimum(bottom, grid[1] - 1) + _EDGE)
    # The outline is convex, so that between two columns nothing is narrower than at both.
    heights = np.minimum.outer(bottom, bottom) - np.maximum.outer(top, top) + 1
    widths = columns[None] - columns[:, None] + 1
    areas = np.where((heights > 0) & (widths > 0), heights * widths, 0)
    if not areas.size or not areas.max():
        raise UserError("the alignment leaves no overlap of the two images; align other pairs of this rig")
    a, b = np.unravel_index(areas.argmax(), areas.shape)
    width, height = int(widths[a, b]), int(heights[a, b])
    if min(width, height) < _LEAST_SIDE:
        raise UserError(
            f"the alignment leaves an overlap of {width}x{height} pixels, and {_LEAST_SIDE} a side are needed; align "
            "other pairs of this rig"
        )
    return int(columns[a]), int(max(top[a], top[b])), width, height


def _column_bounds(
    outline: Float64[np.ndarray, "4 2"], columns: Float64[np.ndarray, " n"]
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Where a convex outline begins and ends in each column."""
    top, bottom = np.full(len(columns), np.inf), np.full(len(columns), -np.inf)
    for (x, y), (x2, y2) in zip(outline, np.roll(outline, -1, 0), strict=True):
        low, high = min(x, x2), max(x, x2)
        inside = (columns >= low - _EDGE) & (columns <= high + _EDGE)
        steep = high - low < _EDGE
        for end in (y, y2):
            at = end if steep else y + (y2 - y) * ((columns.clip(low, high) - x) / (x2 - x))
            top = np.where(inside, np.minimum(top, at), top)
            bottom = np.where(inside, np.maximum(bottom, at), bottom)
    return top, bottom


def _warped(
    image: Float32[np.ndarray, "h w *c"], matrix: Matrix, size: Size, *, whole: bool
) -> Float32[np.ndarray, "h2 w2 *c"]:
    """An image on another grid, which it fills if it is `whole`; else NaN beyond its edges. NaN stays."""
    cv2 = opencv()
    channels = image[..., None] if image.ndim == 2 else image
    finite = np.isfinite(channels)
    known = None if finite.all() else finite.all(-1).astype(np.float32)
    if known is not None:
        channels = np.where(finite, channels, channels[finite].mean() if finite.any() else np.float32(0))
    low, high = channels.min((0, 1)), channels.max((0, 1))  # bicubic weights overshoot
    source = image.shape[1], image.shape[0]
    scale = abs(local_scale(matrix, *source))
    if scale < _SHRINK:
        smaller = max(1, round(source[0] * scale)), max(1, round(source[1] * scale))
        channels = cv2.resize(channels, smaller, interpolation=cv2.INTER_AREA)
        known = None if known is None else resized_to(known, smaller)
        matrix = matrix @ np.linalg.inv(stretching(source, smaller))
    laid = cv2.warpPerspective(channels, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    laid = laid.reshape(size[1], size[0], -1).clip(low, high)
    if known is not None:
        share = cv2.warpPerspective(known, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        laid[share <= 0.5] = np.nan
    if not whole:
        laid[~_inside(matrix, (channels.shape[1], channels.shape[0]), size)] = np.nan
    return np.ascontiguousarray(laid.reshape(size[1], size[0], *image.shape[2:]))


def _inside(matrix: Matrix, source: Size, size: Size) -> Bool[np.ndarray, "h w"]:
    """Which pixels of a grid `matrix` fills with an image of `source`'s size, whose pixels reach half a pixel out."""
    outline = moved(matrix, corners(source[0] + 1, source[1] + 1) - 0.5)
    x, y = np.arange(size[0], dtype=np.float64)[None], np.arange(size[1], dtype=np.float64)[:, None]
    inside = np.ones((size[1], size[0]), bool)
    for (x1, y1), (x2, y2) in zip(outline, np.roll(outline, -1, 0), strict=True):
        inside &= (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) >= -_EDGE * max(abs(x2 - x1), abs(y2 - y1))
    return inside

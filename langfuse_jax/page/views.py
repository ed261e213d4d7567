"""What the viewer shows on either side of its wipe: a source, the fused image, or a map of what decided it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8

from langfuse_jax.inference.fuser import Explanation

VISIBLE, INFRARED, FUSED = "Visible", "Infrared", "Fused"
_SOURCES = "blue is from the visible image, red from the infrared, white from both alike"
_FACTOR = "blue is weakened, white as it was, red strengthened up to twice"
_BLUE, _WHITE, _RED = (38, 70, 160), (240, 240, 240), (178, 30, 40)


class Map(NamedTuple):
    """A map of coefficients.

    Attributes:
        values: of an explanation, with 0 as the middle and -1 and 1 as the ends.
        legend: what its colours mean.
    """

    values: Callable[[Explanation], Float32[np.ndarray, "h w"]]
    legend: str


MAPS = {
    "Infrared share, fine detail (2 pixels)": Map(lambda found: 2 * found.share[0] - 1, _SOURCES),
    "Infrared share, middle detail (8 pixels)": Map(lambda found: 2 * found.share[2] - 1, _SOURCES),
    "Infrared share, coarse detail (16 pixels)": Map(lambda found: 2 * found.share[3] - 1, _SOURCES),
    "Infrared share, brightness without detail": Map(lambda found: 2 * found.base - 1, _SOURCES),
    "Strength of fine detail": Map(lambda found: found.boost[0] - 1, _FACTOR),
    "Brightened by heat": Map(
        lambda found: found.lift, "red is brightened by the infrared image, blue replaced by the visible one"
    ),
}


def legend(*views: str) -> str:
    """What the colours of the maps among `views` mean; empty where there is no map.

    >>> legend("Visible", "Brightened by heat")
    'Brightened by heat: red is brightened by the infrared image, blue replaced by the visible one.'
    """
    return " ".join(f"{view}: {MAPS[view].legend}." for view in dict.fromkeys(views) if view in MAPS)


def draw_map(view: str, found: Explanation) -> UInt8[np.ndarray, "h w 3"]:
    """A map in colours from blue over white to red.

    >>> flat = np.zeros((2, 2), np.float32)
    >>> draw_map("Brightened by heat", Explanation(flat, flat[None], flat[None], flat, flat, flat + 1))[0, 0].tolist()
    [178, 30, 40]
    """
    return diverging(MAPS[view].values(found))


def diverging(values: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Blue at -1 and below, white at 0, red at 1 and above.

    >>> diverging(np.float32([[-2, 0]])).tolist()
    [[[38, 70, 160], [240, 240, 240]]]
    """
    ends = zip(_BLUE, _WHITE, _RED, strict=True)
    return np.stack([np.interp(values, (-1, 0, 1), levels) for levels in ends], -1).round().astype(np.uint8)

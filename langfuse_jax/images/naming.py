"""How the two files of a scene are told apart by their names: the conventions of cameras and datasets."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from langfuse_jax.errors import UserError

# What stands before or after a scene's own name, in small letters: of either role, with what separates it.
_VISIBLE = ("vi", "vis", "visible", "visual", "rgb", "color", "colour", "co", "v", "w", "wide")
_INFRARED = ("ir", "inf", "infrared", "thermal", "th", "t", "lwir", "fir", "previewdata")


class Convention(NamedTuple):
    """Patterns of file stems, with one * for the scene's name: "*_vi" and "*_ir", or "*" twice."""

    visible: str
    infrared: str

    def scene(self, stem: str, role: str) -> str | None:
        """The scene that a stem of a role ("visible", "infrared") names; None where the stem does not fit.

        >>> Convention("*_W", "*_T").scene("DJI_0007_T", "infrared")
        'DJI_0007'
        """
        before, after = getattr(self, role).split("*")
        fits = stem.lower().startswith(before.lower()) and stem.lower().endswith(after.lower())
        scene = stem[len(before) : len(stem) - len(after)]
        return scene if fits and scene else None

    def __str__(self) -> str:
        return f"{self.visible},{self.infrared}"


SAME = Convention("*", "*")


def parse_convention(text: str) -> Convention:
    """The convention that --pair-by gives, "*_vi,*_ir". Raises UserError for anything else.

    >>> parse_convention("*_vi,*_ir").infrared
    '*_ir'
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or any(part.count("*") != 1 for part in parts):
        raise UserError(
            f"--pair-by {text}: give how visible and infrared files are named, a * for the scene in each, as *_vi,*_ir"
        )
    return Convention(*parts)


def find_convention(visible: Sequence[str], infrared: Sequence[str], *, one_folder: bool = False) -> Convention | None:
    """The convention by which most stems of the two sides belong together; None where none pairs any.

    Equal stems come first where half of them are equal, unless both roles are in `one_folder`. Raises UserError, with
    the two readings, where two conventions pair as many, and not the same files.

    >>> str(find_convention(["a_RGB", "b_RGB"], ["a_PreviewData", "b_PreviewData"]))
    '*_RGB,*_PreviewData'
    """
    same = set() if one_folder else set(visible) & set(infrared)
    if same and 2 * len(same) >= min(len(visible), len(infrared)):
        return SAME
    sides = (_patterns(visible, _VISIBLE), _patterns(infrared, _INFRARED))
    found = {}
    for first in sides[0]:
        for second in sides[1]:
            convention = Convention(first, second)
            scenes = [
                {scene: stem for stem in stems if (scene := convention.scene(stem, role)) is not None}
                for stems, role in ((visible, "visible"), (infrared, "infrared"))
            ]
            pairs = {(scenes[0][scene], scenes[1][scene]) for scene in scenes[0].keys() & scenes[1].keys()}
            if one_folder:
                pairs = {(one, other) for one, other in pairs if one != other}
            if pairs:
                found[convention] = pairs
    if same:
        found[SAME] = {(stem, stem) for stem in same}
    if not found:
        return None
    best, *others = sorted(found, key=lambda convention: (-len(found[convention]), convention))
    rival = next((o for o in others if len(found[o]) == len(found[best]) and found[o] != found[best]), None)
    if rival is not None:
        readings = " or ".join(f"{a} with {b} (--pair-by {c})" for c in (best, rival) for a, b in [min(found[c])])
        raise UserError(f"names can be read in two ways, {readings}; say which")
    return best


def _patterns(stems: Iterable[str], words: Sequence[str]) -> list[str]:
    """The patterns with one of the words that occur among the stems, as they are written; "*" is one of them."""
    found = {"*"}
    for stem in stems:
        if (match := re.match(r"([A-Za-z]+)[_-]", stem)) and match[1].lower() in words:
            found.add(f"{stem[: match.end()]}*")
        if (match := re.search(r"[_-]([A-Za-z]+)$", stem)) and match[1].lower() in words:
            found.add(f"*{stem[match.start() :]}")
    return sorted(found)

"""The two uploaded files of a pair, read, aligned if requested, and ready to be fused again and again."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from langfuse_jax.errors import InputRemark, UserError
from langfuse_jax.images.files import header_size, ycbcr_to_rgb
from langfuse_jax.images.pairs import Pair, read_pair
from langfuse_jax.images.reading import Reading
from langfuse_jax.images.remarks import Remarks
from langfuse_jax.inference.rigs import align_pairs, read_rig_pair
from langfuse_jax.page.mistakes import Field, Mistake, on_the_page

MAX_BYTES = 32 * 2**20  # of an uploaded file
MAX_PIXELS = 4_000_000  # of an image: a few seconds and gigabytes on a CPU


class Loaded(NamedTuple):
    """A pair in memory.

    Attributes:
        pair: its files.
        reading: how they were read: with which alignment.
        luma, chroma, infrared: as `images.pairs.read_pair` gives them; chroma is None for a gray visible image.
        verdict: what the alignment rests on; empty without one.
        remarks: what is probably not meant with these files.
    """

    pair: Pair
    reading: Reading
    luma: Float32[np.ndarray, "h w"]
    chroma: Float32[np.ndarray, "h w 2"] | None
    infrared: Float32[np.ndarray, "h w"]
    verdict: str
    remarks: tuple[str, ...]

    def in_colour(self, luma: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w *c"]:
        """A luma with the chroma of the visible image; gray where that has none."""
        return luma if self.chroma is None else ycbcr_to_rgb(luma, self.chroma)


def load_pair(visible: str | None, infrared: str | None, *, align: bool = False) -> Loaded:
    """Two uploaded files as a pair; None stands for an empty field.

    With `align`, the transform between the two is found first, and both are cut to what both show. Raises `Mistake` for
    an empty field, a missing, unreadable or too large image, for what cannot be aligned and, unless it is, for sizes
    that differ.

    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("scenes", 1, 48, 64)
    >>> load_pair("scenes/visible/0.png", "scenes/infrared/0.png").luma.shape
    (48, 64)
    """
    if not visible:
        raise Mistake("visible", "Give a visible image: this field is empty.")
    if not infrared:
        raise Mistake("infrared", "Give an infrared image: this field is empty.")
    given: tuple[tuple[Field, str], ...] = (("visible", visible), ("infrared", infrared))
    for field, path in given:
        if not os.path.isfile(path):
            raise Mistake(field, f"{Path(path).name}: has expired; upload it again.")
    pair = Pair(Path(visible).stem, Path(visible), Path(infrared))
    if os.path.samefile(visible, infrared):
        raise Mistake("infrared", "The visible and the infrared image are one file; choose another one here.")
    try:
        return _load(pair, align)
    except UserError as error:
        folders = [path.parent for path in pair[1:]]
        raise Mistake(_blamed(str(error), pair, align), on_the_page(error, folders)) from error


def _load(pair: Pair, align: bool) -> Loaded:
    for path in pair[1:]:
        height, width = header_size(path) or (0, 0)
        if height * width > MAX_PIXELS:
            raise UserError(
                f"{path}: is {width}x{height}, over {MAX_PIXELS / 1e6:.0f} megapixels; make it smaller, or fuse it "
                "with the command `langfuse-jax fuse`"
            )
    alignment = align_pairs([read_rig_pair(pair)]) if align else None
    said: list[InputRemark] = []
    remarks = Remarks(said.append, check=[] if align else [pair.stem])
    luma, chroma, infrared = read_pair(pair, Reading(alignment=alignment, remarks=remarks))
    remarks.finish()
    verdict = "" if alignment is None else f"Alignment {alignment.describe()}"
    lines = tuple(on_the_page(remark, [path.parent for path in pair[1:]]) for remark in said)
    return Loaded(pair, Reading(alignment=alignment), luma, chroma, infrared, verdict, lines)


def _blamed(message: str, pair: Pair, align: bool) -> Field:
    """The field that an error is about, by the files that it names."""
    seen, heat = (str(path) in message for path in pair[1:])
    if seen != heat:
        return "visible" if seen else "infrared"
    return "align" if align else "infrared"

"""How pairs of files are read: what a command's flags decide for all of them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from langfuse_jax.errors import UserError
from langfuse_jax.images.files import MAX_SIDE, MIN_SIDE, Limits
from langfuse_jax.images.remarks import Remarks

if TYPE_CHECKING:
    from langfuse_jax.alignment.transform import Alignment


class Reading(NamedTuple):
    """How pairs of files are read.

    Attributes:
        limits: raw values of infrared files that become black and white (`images.files.read_infrared`).
        found: the limits are of other files' counts, and do not hold for files of 8 bits.
        max_side: pixels a side over which images are refused; None for any size.
        invert: the infrared images are negatives, in which hot is black.
        resize: "visible" or "infrared", to whose size the other image of a pair is brought; None where they must agree.
        remarks: hears of what is probably not meant.
        alignment: that of the rig, or of each pair by its stem; None where the pairs are registered.
        to: the grid that aligned pairs are laid on.
        outside: whether they are cut to what both show, or keep the visible image where there is no infrared.
        any_infrared_size: infrared images may be smaller than the network takes, for they are enlarged later.
    """

    limits: Limits | None = None
    max_side: int | None = MAX_SIDE
    found: bool = False
    invert: bool = False
    resize: str | None = None
    remarks: Remarks | None = None
    alignment: "Alignment | Mapping[str, Alignment] | None" = None
    to: Literal["visible", "infrared"] = "visible"
    outside: Literal["crop", "visible"] = "crop"
    any_infrared_size: bool = False

    def alignment_of(self, stem: str) -> "Alignment | None":
        """That of one pair. Raises UserError where pairs have alignments of their own and this one has none."""
        if not isinstance(self.alignment, Mapping):
            return self.alignment
        if stem not in self.alignment:
            raise UserError(f"{stem}: has no alignment; align it, or give one alignment for all pairs")
        return self.alignment[stem]

    @property
    def min_infrared_side(self) -> int:
        """Pixels a side that infrared images must have."""
        enlarged = self.any_infrared_size or self.resize == "visible" or self.alignment is not None
        return 1 if enlarged else MIN_SIDE


AS_THEY_ARE = Reading()

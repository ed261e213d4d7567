"""Remarks on inputs that are probably not meant as they are: one line of each kind in a run."""

import threading
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageFilter

from langfuse_jax.errors import InputRemark

_LOOKED_AT = 16  # images, by which the polarity of a run is judged
CHECKED_PAIRS = 3  # whose images are compared
_APART = 3.0  # pixels from which that is remarked
_DARK = -1.0  # skewness of local contrast, the median of several images, below which what stands out is dark
_DARK_ALONE = -1.75  # that of a single image


class Remarks:
    """What is said about the inputs of one run, each kind once, from any thread.

    Call it with a kind and a line; `saw_infrared`, `saw_pair` and `finish` find what only shows over several files.
    `check` are the stems of the pairs whose images are compared, of which the first few count.

    >>> said = []
    >>> remarks = Remarks(said.append)
    >>> remarks("swapped", "1.png: is colour")
    >>> remarks("swapped", "2.png: is colour")
    >>> [str(remark) for remark in said]
    ['1.png: is colour']
    """

    def __init__(self, report: Callable[[InputRemark], None], *, check: Collection[str] = ()):
        self._report, self._lock = report, threading.Lock()
        self._kinds: set[str] = set()
        self.coloured: set[str] = set()  # infrared files in colours of no palette
        self._depths: dict[str, list[Path]] = {"8 bits": [], "counts": []}
        self._skews: list[float] = []
        self._unknown: list[float] = []
        self._to_check, self._left_to_check = check, CHECKED_PAIRS
        self._apart: list[float] = []

    def __call__(self, kind: str, line: str) -> None:
        """Reports `line`, unless one of its kind has been."""
        with self._lock:
            if kind in self._kinds:
                return
            self._kinds.add(kind)
        self._report(InputRemark(line))

    def saw_infrared(self, path: Path, image: Float32[np.ndarray, "h w"], *, counts: bool) -> None:
        """Notes an infrared image in [0, 1], NaN where it has none; `counts`, that its file holds more than 8 bits."""
        unknown = float(np.isnan(image).mean())
        with self._lock:
            self._depths["counts" if counts else "8 bits"].append(path)
            self._unknown.append(unknown)
            looked_at = len(self._skews)
        if looked_at < _LOOKED_AT and unknown == 0 and min(image.shape) >= 32:
            skew = local_skewness(image)
            with self._lock:
                self._skews.append(skew)

    def saw_pair(self, stem: str, luma: Float32[np.ndarray, "h w"], infrared: Float32[np.ndarray, "h w"]) -> None:
        """Notes how far the two images of a pair to check, in [0, 1] and of one size, are out of register."""
        if stem not in self._to_check or min(luma.shape) < 32 or np.isnan(infrared).any():
            return
        with self._lock:
            if not self._left_to_check:
                return
            self._left_to_check -= 1
        from langfuse_jax.alignment.check import displacement  # SciPy takes a tenth of a second

        apart = displacement(luma, infrared)
        with self._lock:
            self._apart.append(apart)

    def finish(self, *, inverted: bool = False) -> None:
        """Reports what shows over all files: depths, the share without infrared and, unless `inverted`, polarity."""
        few, many = sorted(self._depths.values(), key=len)
        if few and len(few) <= len(many) // 4:
            is_8_bit = few is self._depths["8 bits"]
            kind, others = ("8-bit", "are not") if is_8_bit else ("more than 8 bits deep", "are 8-bit")
            self("depth", f"{few[0]}: is {kind}, the {len(many)} others {others}: its grays do not compare with theirs")
        if self._skews and not inverted and np.median(self._skews) < (_DARK if len(self._skews) > 2 else _DARK_ALONE):
            self(
                "polarity",
                "the infrared looks black-hot; if it is, add --invert-infrared",
            )
        if self._apart and (apart := float(np.median(self._apart))) > _APART:
            self(
                "apart",
                f"the images of a pair appear to be out of register by about {apart:.0f} pixels; align them "
                "(`langfuse-jax align`, or --align), or give --no-check",
            )
        if unknown := [share for share in self._unknown if share]:
            what = f"{100 * np.mean(unknown):.1f}% of the pixels"
            where = "has" if len(self._unknown) == 1 else f"{len(unknown)} of {len(self._unknown)} infrared images have"
            subject = "the infrared image has" if where == "has" else where
            self("unknown", f"{subject} no value in {what}; the visible image is kept there")


def local_skewness(image: Float32[np.ndarray, "h w"]) -> float:
    """The skewness of local contrast: well below 0 where small things are darker than what surrounds them.

    >>> people = np.zeros((160, 160), np.float32)
    >>> people[70:90, 75:85] = 1
    >>> local_skewness(people) > 1, local_skewness(1 - people) < -1
    (True, True)
    """
    low, high = np.percentile(image, [0.5, 99.5])
    shown = Image.fromarray((255 * np.clip((image - low) / max(high - low, 1e-3), 0, 1)).astype(np.uint8))
    sigma = max(2.0, min(image.shape) / 160)
    fine, coarse = (np.asarray(shown.filter(ImageFilter.GaussianBlur(s)), np.float64) for s in (sigma, 10 * sigma))
    edge = int(4 * sigma)  # where registered images often end in black
    inner = (fine - coarse)[edge:-edge, edge:-edge]
    return float(((inner - inner.mean()) ** 3).mean() / max(inner.std(), 1e-6) ** 3)

"""What the page does with a pair: fuse it as its fields say, write what the viewer shows, and count its metrics."""

import shutil
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from langfuse_jax.images.files import to_uint8
from langfuse_jax.images.pairs import Pair
from langfuse_jax.images.reading import Reading
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.page.load import Loaded, load_pair
from langfuse_jax.page.sentences import Sentences
from langfuse_jax.page.views import FUSED, INFRARED, MAPS, VISIBLE, draw_map, legend

LOADED = 4  # pairs kept in memory
RESULTS = 64  # folders of pictures kept; the server has copies of those that a page still shows
_LEVEL = 1  # of zlib: a picture that is looked at for a moment must be written quickly


class Wish(NamedTuple):
    """What the fields of the page say."""

    visible: str | None
    infrared: str | None
    align: bool = False
    goal: str = ""
    strength: float | int = 1.0
    colour: bool = True
    left: str = VISIBLE
    right: str = FUSED


class Result(NamedTuple):
    """What came of a wish.

    Attributes:
        left, right: files of the two sides of the viewer.
        fused: the file to download.
        pair, reading: what it was made of, and how that was read.
        verdict: what the alignment rests on; empty without one.
        goal_remarks, pair_remarks: what is probably not meant.
        legend: what the colours of maps mean.
    """

    left: str
    right: str
    fused: str
    pair: Pair
    reading: Reading
    verdict: str
    goal_remarks: tuple[str, ...]
    pair_remarks: tuple[str, ...]
    legend: str


class Studio:
    """One model, the pairs that were shown to it last, and a folder for its pictures; it does one job at a time.

    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("scenes", 1, 48, 64)
    >>> studio = Studio(Fuser.load(), Path("pictures"))
    >>> result = studio.fuse(Wish("scenes/visible/0.png", "scenes/infrared/0.png", goal="a bright image"))
    >>> Path(result.fused).name
    '0_fused.png'
    """

    def __init__(self, fuser: Fuser, folder: Path) -> None:
        self.sentences = Sentences(fuser)
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._loaded: OrderedDict[tuple[str | None, str | None, bool], tuple[Loaded, Path]] = OrderedDict()
        self._results: list[Path] = []

    def fuse(self, wish: Wish) -> Result:
        """Fuses as the fields say. Raises `Mistake`, which knows its field, for what they cannot mean."""
        loaded, sources = self._load(wish.visible, wish.infrared, wish.align)
        fuser, goal_remarks = self.sentences.towards(wish.goal, wish.strength)
        gray = fuser(loaded.luma, loaded.infrared)
        made = self._new_folder()
        files = {FUSED: made / f"{loaded.pair.stem}_fused.png"}
        _write(files[FUSED], loaded.in_colour(gray) if wish.colour else gray)
        found = None
        for view in {wish.left, wish.right} - {FUSED}:
            if view in (VISIBLE, INFRARED):
                files[view] = sources / f"{loaded.pair.stem}_{view.lower()}.png"
                if not files[view].exists():
                    _write(files[view], loaded.infrared if view == INFRARED else loaded.in_colour(loaded.luma))
            else:
                found = found or fuser.explain(loaded.luma, loaded.infrared)
                files[view] = (
                    made / f"{loaded.pair.stem}_{''.join(c if c.isalnum() else '_' for c in view.lower())}.png"
                )
                _write(files[view], draw_map(view, found))
        return Result(
            str(files[wish.left]),
            str(files[wish.right]),
            str(files[FUSED]),
            loaded.pair,
            loaded.reading,
            loaded.verdict,
            goal_remarks,
            loaded.remarks,
            legend(wish.left, wish.right),
        )

    def views(self) -> list[str]:
        """What either side of the viewer can show: maps where the network has coefficients."""
        return [VISIBLE, INFRARED, FUSED, *(MAPS if self.sentences.followed else ())]

    def _load(self, visible: str | None, infrared: str | None, align: bool) -> tuple[Loaded, Path]:
        """As `load_pair`, which is asked once for the pairs of late, and a folder for pictures of the sources."""
        key = visible, infrared, align
        if key not in self._loaded:
            loaded = load_pair(visible, infrared, align=align)
            self._loaded[key] = loaded, Path(tempfile.mkdtemp(prefix="sources_", dir=self.folder))
            if len(self._loaded) > LOADED:
                _, (_, folder) = self._loaded.popitem(last=False)
                shutil.rmtree(folder, ignore_errors=True)
        self._loaded.move_to_end(key)
        return self._loaded[key]

    def _new_folder(self) -> Path:
        self._results.append(Path(tempfile.mkdtemp(prefix="result_", dir=self.folder)))
        while len(self._results) > RESULTS:
            shutil.rmtree(self._results.pop(0), ignore_errors=True)
        return self._results[-1]


def _write(path: Path, image: Float[np.ndarray, "h w *c"] | UInt8[np.ndarray, "h w *c"]) -> None:
    Image.fromarray(to_uint8(image)).save(path, compress_level=_LEVEL)

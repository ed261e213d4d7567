"""A pair fused towards a sentence that can be changed: a widget in a live notebook, a still picture elsewhere."""

import base64
import io
from html import escape
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped
from PIL import Image

from langfuse_jax.clip.words import EXAMPLE_GOALS
from langfuse_jax.errors import UserError
from langfuse_jax.images.sheet import grid, side_by_side
from langfuse_jax.inference.fuser import Fuser

_STRONGEST = 2.0  # of the slider; training goes up to 1
_WIDEST = 1400  # pixels, of the still
_STILLS = (EXAMPLE_GOALS[0], EXAMPLE_GOALS[4], EXAMPLE_GOALS[5])


class GoalPicker:
    """A pair and a fuser that follows words. As the last value of a notebook's cell it is a sentence, a list of
    example goals, a slider for the strength and the picture, which follows them.

    Where ipywidgets is missing, or a page shows the notebook without its kernel, it is a picture of a few goals.

    >>> from langfuse_jax.examples.night_scene import night_scene
    >>> picker = GoalPicker(Fuser.load(), *night_scene(48, 64))
    >>> picker.fuse("a bright image").mean() > picker.fuse("a bright image", strength=0).mean()
    np.True_
    """

    def __init__(
        self,
        fuser: Fuser,
        visible: Shaped[np.ndarray, "h w *c"],
        infrared: Shaped[np.ndarray, "h w *c2"],
        goals: tuple[str, ...] = EXAMPLE_GOALS,
    ) -> None:
        self.fuser, self.goals = fuser, goals
        self._pair = visible, infrared
        self._encoded: dict[str, tuple[Float32[np.ndarray, " d"], tuple[str, ...]]] = {}

    def fuse(self, goal: str, strength: float | int = 1.0) -> Float32[np.ndarray, "..."]:
        """The picture towards a goal, which is encoded once; raises UserError as `Fuser.towards` does."""
        direction, _ = self._towards(goal)
        return Fuser(self.fuser.params, self.fuser.metadata, np.float32(strength) * direction)(*self._pair)

    def remarks(self, goal: str) -> tuple[str, ...]:
        """What there is to say of a sentence, as of unknown words in it."""
        return self._towards(goal)[1]

    def _towards(self, goal: str) -> tuple[Float32[np.ndarray, " d"], tuple[str, ...]]:
        if goal not in self._encoded:
            said: list[str] = []
            direction = self.fuser.towards(goal, report=lambda remark: said.append(_plain(remark))).direction
            assert direction is not None
            self._encoded[goal] = direction, tuple(said)
        return self._encoded[goal]

    def still(self) -> Image.Image:
        """The sources, the default picture, and those of three goals."""
        visible, infrared = self._pair
        rows = [(infrared, visible, self.fuser(visible, infrared)), tuple(map(self.fuse, _STILLS))]
        above, below = ("infrared", "visible", "default"), _STILLS
        parts = [Image.fromarray(grid([row], labels)) for row, labels in zip(rows, (above, below), strict=True)]
        sheet = Image.new("RGB", (parts[0].width, sum(part.height for part in parts)), "white")
        sheet.paste(parts[0], (0, 0))
        sheet.paste(parts[1], (0, parts[0].height))
        sheet.thumbnail((_WIDEST, _WIDEST))
        return sheet

    def widget(self) -> Any:
        """The fields and the picture as an ipywidgets.VBox, whose `goal`, `strength` and `picture` can be reached.

        Raises UserError where ipywidgets is missing.
        """
        if not find_spec("ipywidgets"):
            raise UserError('the widget needs ipywidgets: pip install "langfuse-jax[notebook]"')
        import ipywidgets

        wide = ipywidgets.Layout(width="100%")
        goal = ipywidgets.Text(self.goals[0], description="goal", continuous_update=False, layout=wide)
        examples = ipywidgets.Dropdown(options=self.goals, description="examples", layout=wide)
        strength = ipywidgets.FloatSlider(1.0, min=0.0, max=_STRONGEST, step=0.05, description="strength", layout=wide)
        picture, said = ipywidgets.Image(format="jpeg", layout=wide), ipywidgets.HTML()

        def follow(_: object = None) -> None:
            try:
                fused = self.fuse(goal.value, strength.value)
                said.value = "<br>".join(map(escape, self.remarks(goal.value)))
            except UserError as error:
                said.value = escape(_plain(error))  # the last picture stays
            else:
                infrared, visible = self._pair[::-1]
                picture.value = _encoded(Image.fromarray(side_by_side([infrared, visible, fused])))

        examples.observe(lambda change: setattr(goal, "value", change["new"]), "value")
        goal.observe(follow, "value")
        strength.observe(follow, "value")
        follow()
        box = ipywidgets.VBox([examples, goal, strength, said, picture])
        box.goal, box.strength, box.examples, box.said, box.picture = goal, strength, examples, said, picture
        return box

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        """A picture for all pages, and beside it the widget for those that have a kernel."""
        live = self.widget()._repr_mimebundle_() if find_spec("ipywidgets") else {}
        still = base64.b64encode(_encoded(self.still())).decode()
        return {**live, "image/jpeg": still, "text/plain": f"<GoalPicker of {len(self.goals)} goals>"}


def _plain(problem: Exception | Warning) -> str:
    """What is wrong with a sentence, without the dashes of the command line's flag."""
    return str(problem).removeprefix("--")


def _encoded(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()

"""The last few goal sentences, encoded once each: another strength costs nothing."""

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from langfuse_jax.errors import CutPrompt, UnknownWords
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.models.steered import SteeredNet
from langfuse_jax.page.mistakes import beside, on_the_page

KEPT = 8  # sentences
MOST_STRENGTH = 2.0  # of the slider; training goes up to 1


class _Encoded(NamedTuple):
    direction: Float32[np.ndarray, " d"]  # at strength 1
    remarks: tuple[str, ...]


class Sentences:
    """Fusers with the weights of one, towards sentences.

    >>> fuser, remarks = Sentences(Fuser.load()).towards("a bright image", 0.5)
    >>> fuser.direction.shape, remarks
    ((96,), ())
    """

    def __init__(self, fuser: Fuser) -> None:
        self.fuser = fuser
        self._known: OrderedDict[str, _Encoded] = OrderedDict()

    @property
    def followed(self) -> bool:
        """Whether the weights follow words at all."""
        return isinstance(self.fuser.net, SteeredNet)

    def towards(self, goal: str | None, strength: float | int = 1.0) -> tuple[Fuser, tuple[str, ...]]:
        """A fuser towards `goal`, and what there is to say of its words; the default one without a goal.

        Raises `Mistake` beside the goal for a sentence without a known word, and for weights that follow no words.
        """
        goal = " ".join((goal or "").split())
        if not goal:
            return self.fuser, ()
        if goal not in self._known:
            said: list[CutPrompt | UnknownWords] = []
            with beside("goal"):
                direction = self.fuser.towards(goal, report=said.append).direction
            assert direction is not None
            self._known[goal] = _Encoded(direction, tuple(map(on_the_page, said)))
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(goal)
        direction, remarks = self._known[goal]
        return Fuser(self.fuser.params, self.fuser.metadata, np.float32(strength) * direction), remarks

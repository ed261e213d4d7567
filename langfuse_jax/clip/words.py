"""Prompts -> text embeddings: sentences that steer fusing and training, encoded once and kept in a file."""

import json
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from langfuse_jax.errors import CutPrompt, UnknownWords, UserError
from langfuse_jax.losses.language import Words
from langfuse_jax.runtime.atomic import atomic_write
from langfuse_jax.runtime.html import html_table

if TYPE_CHECKING:
    from langfuse_jax.clip.pretrained import Clip

# The sentences of the published method (arXiv 2402.16267).
VISIBLE = "a visible gray image"
INFRARED = "an infrared image"
GOAL = "a clear image with detailed background and salient objects"
ROLES = ("visible", "infrared", "goal")
# Goals to try: one for each way that the default model obeys reliably.
EXAMPLE_GOALS = (
    "a bright image",
    "a dark image",
    "a high contrast image",
    "a sharp image",
    "a natural looking image",
    "a thermal looking image",
    "an image with salient objects",
    "a dark image with salient objects",
)


@dataclass(frozen=True, eq=False)
class TextEmbeddings:
    """Unit text vectors of the three roles, and where they come from.

    Attributes:
      model: name of the CLIP that made them.
      fingerprint: `Clip.fingerprint` of it.
      prompts: the prompts of each role, `{"visible": (...), "infrared": (...), "goal": (...)}`.
      visible, infrared, goal: unit vectors (d,), float32.

    >>> prompts = {"visible": ("a photo",), "infrared": ("heat",), "goal": ("both",)}
    >>> text = TextEmbeddings("mine", "0123456789ab", prompts, *np.eye(2, dtype=np.float32), np.float32([0.6, 0.8]))
    >>> {roles: round(cosine, 3) for roles, cosine in text.cosines().items()}
    {('visible', 'infrared'): 0.0, ('visible', 'goal'): 0.6, ('infrared', 'goal'): 0.8}
    >>> text.save("text.npz")
    >>> TextEmbeddings.load("text.npz").prompts["goal"]
    ('both',)
    """

    model: str
    fingerprint: str
    prompts: dict[str, tuple[str, ...]]
    visible: Float[np.ndarray, " d"]
    infrared: Float[np.ndarray, " d"]
    goal: Float[np.ndarray, " d"]

    @property
    def words(self) -> Words:
        """The three vectors, as losses and scores take them."""
        return Words(self.goal, self.visible, self.infrared)

    def save(self, path: str | Path) -> None:
        """Write an .npz file (no pickles), complete or not at all. Raises UserError where it cannot be written."""
        path = Path(path)
        if path.suffix != ".npz":
            raise UserError(f"--out {path}: text embeddings are kept in a .npz file; give a name that ends so")
        about = json.dumps({"model": self.model, "fingerprint": self.fingerprint, "prompts": self.prompts})
        with atomic_write(path) as file:
            np.savez(file, about=np.array(about), **{role: getattr(self, role) for role in ROLES})

    @classmethod
    def load(cls, path: str | Path) -> "TextEmbeddings":
        """Read what `save` wrote. Raises UserError for a missing file or one that is no text file."""
        if not Path(path).is_file():
            raise UserError(f"{path}: no such text file; make one with `langfuse-jax embed --out {path}`")
        try:
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                vectors = {role: np.asarray(file[role], np.float32) for role in ROLES}
            prompts = {role: tuple(about["prompts"][role]) for role in ROLES}
            model, fingerprint = about["model"], about["fingerprint"]
        except (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: not a text file of `langfuse-jax embed`; make it again") from error
        return cls(model=model, fingerprint=fingerprint, prompts=prompts, **vectors)

    def check(self, clip: "Clip") -> None:
        """Raises UserError, naming both, unless these vectors were made with `clip`."""
        if self.fingerprint != clip.fingerprint:
            raise UserError(
                f"text embeddings were made with CLIP {self.model} ({self.fingerprint}), here it is {clip.name} "
                f"({clip.fingerprint}); run `langfuse-jax embed` with the CLIP that is used here"
            )

    def cosines(self) -> dict[tuple[str, str], float]:
        """Cosine of every two roles. Near 1, two sentences mean the same to this CLIP and cannot steer."""
        pairs = (("visible", "infrared"), ("visible", "goal"), ("infrared", "goal"))
        return {(a, b): float(getattr(self, a) @ getattr(self, b)) for a, b in pairs}

    def _repr_html_(self) -> str:
        """For a notebook: the sentences of each role, and how near every two roles are."""
        sentences = [[role, " | ".join(self.prompts[role])] for role in ROLES]
        cosines = [[f"{a}, {b}", f"{cosine:.2f}"] for (a, b), cosine in self.cosines().items()]
        title = f"Sentences, by the CLIP {self.model} ({self.fingerprint})"
        return html_table(sentences, title=title) + html_table(cosines, title="cosines (near 1: the same meaning)")


def embed(
    clip: "Clip",
    *,
    visible: Sequence[str] = (VISIBLE,),
    infrared: Sequence[str] = (INFRARED,),
    goal: Sequence[str] = (GOAL,),
    report: Callable[[CutPrompt | UnknownWords], None] = warnings.warn,
) -> TextEmbeddings:
    """Encode prompts: per role, the mean of the raw text features, then normalised (arXiv 2402.16267).

    A prompt longer than the CLIP reads is cut, and `report` gets a CutPrompt; for one with words that the CLIP was
    never taught it gets UnknownWords. Raises UserError for a role without a prompt, for an empty prompt and for one of
    which the CLIP knows no word that means anything.

    >>> from langfuse_jax import Clip
    >>> text = embed(Clip.load(), goal=["a sharp image", "bright people"])
    >>> text.prompts["goal"], round(float(np.linalg.norm(text.goal)), 4)
    (('a sharp image', 'bright people'), 1.0)
    """
    prompts = {"visible": tuple(visible), "infrared": tuple(infrared), "goal": tuple(goal)}
    vectors = {}
    for role, texts in prompts.items():
        if not texts or not all(text.strip() for text in texts):
            raise UserError(f"--{role}: an empty prompt means nothing; give a sentence")
        for text in texts:
            _check_words(clip, role, text, report)
        mean = np.asarray(clip.encode_text(list(texts), report)).mean(axis=0)
        vectors[role] = mean / np.linalg.norm(mean)
    return TextEmbeddings(model=clip.name, fingerprint=clip.fingerprint, prompts=prompts, **vectors)


def _check_words(clip: "Clip", role: str, text: str, report: Callable[[CutPrompt | UnknownWords], None]) -> None:
    if clip.vocabulary is None:
        return
    unknown = ", ".join(clip.vocabulary.unknown(text))
    if clip.vocabulary.says_nothing(text):
        why = f"was never taught {unknown}" if unknown else "knows no word in it that means anything"
        raise UserError(
            f"--{role} {text!r}: the CLIP {clip.name} {why}; say it in words that docs/clip.md lists, or give a CLIP "
            "that knows more"
        )
    if unknown:
        taken = " and ".join(map(repr, nearest_phrases(clip, text)))
        report(
            UnknownWords(
                f"--{role} {text!r}: the CLIP {clip.name} was never taught {unknown}; nearest to it are {taken}"
            )
        )


def nearest_phrases(clip: "Clip", text: str, count: int = 2) -> list[str]:
    """The phrases of a CLIP's vocabulary that a sentence comes nearest to, the nearest first.

    >>> from langfuse_jax import Clip
    >>> nearest_phrases(Clip.load(), "as bright as day", 1)
    ['a bright image']
    """
    phrases = [] if clip.vocabulary is None else list(clip.vocabulary.phrases)
    if not phrases:
        return []
    sentence, *others = np.asarray(clip.encode_text([text, *phrases], lambda cut: None))  # `embed` reports it
    cosines = [other @ sentence / np.linalg.norm(other) for other in others]
    return [phrases[i] for i in np.argsort(cosines)[::-1][:count]]

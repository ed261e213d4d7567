"""What a user of the page did wrong, and beside which field it is said."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from langfuse_jax.errors import UserError, one_line

Field = Literal["visible", "infrared", "align", "goal", "metrics", "many"]

# What the package says of flags and commands, and what there is on the page instead.
_ON_THE_PAGE = (
    (r"--goal (?=['\"])", ""),
    (r"--(visible|infrared|goal|out) ", ""),
    (
        r"say it in words that docs/clip\.md lists, or give a CLIP that knows more",
        "use words like those of the examples",
    ),
    (r"the CLIP \S+ (?=was never taught|knows no word)", "the model "),
    (r"\(`langfuse-jax align`, or --align\), or give --no-check", "(the box below)"),
    (
        r"crop them to one field of view; `langfuse-jax fuse` brings them to one size with --resize",
        "crop them to one field of view, or tick the box that aligns them",
    ),
    (r" \(an infrared image with a larger visible one: --resize visible\)", ""),
    (r"make it smaller, or give `langfuse-jax fuse` the flag --allow-large", "make it smaller"),
    (r"add --invert-infrared", "invert its grays"),
    (r", or give --pair-by", ""),
    (r"; give --pair-by, as \*_vi,\*_ir", "; put them in two folders"),
    (r"change --pair-by", "rename them"),
    (r" \(--pair-by [^)]*\)", ""),
)


class Mistake(UserError):
    """A UserError in the page's own words, and the `field` beside which it is shown."""

    def __init__(self, field: Field, message: str) -> None:
        super().__init__(message)
        self.field: Field = field


@contextmanager
def beside(field: Field, folders: Sequence[str | Path] = ()) -> Iterator[None]:
    """Turns a UserError within into a `Mistake` beside `field`; a `Mistake` passes as it is.

    >>> with beside("align"):
    ...     raise UserError("a.png: cannot be aligned")
    Traceback (most recent call last):
        ...
    langfuse_jax.page.mistakes.Mistake: a.png: cannot be aligned
    """
    try:
        yield
    except Mistake:
        raise
    except UserError as error:
        raise Mistake(field, on_the_page(error, folders)) from error


def on_the_page(message: object, folders: Sequence[str | Path] = ()) -> str:
    """One line without the server's `folders`, and without flags and commands, for which the page has fields.

    >>> on_the_page("/tmp/x/a.png: looks black-hot; if it is, add --invert-infrared", ["/tmp/x"])
    'a.png: looks black-hot; if it is, invert its grays'
    """
    text = one_line(message)
    for folder in sorted(map(str, folders), key=len, reverse=True):
        text = text.replace(f"{folder}/", "").replace(folder, Path(folder).name)
    for pattern, said in _ON_THE_PAGE:
        text = re.sub(pattern, said, text)
    return text

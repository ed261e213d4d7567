"""Errors that a user can cause and correct, and warnings."""

import sys


class UserError(Exception):
    """One clear line that names the file or flag and the remedy.

    The command line prints it without a traceback and exits with status 2; Python callers can catch it.
    """


class Preempted(Exception):
    """The machine is taken back (SIGTERM); all is saved. The command line exits with status 75, to be run again."""


class BadPixels(UserError):
    """Values that cannot be those of an image: NaN, infinite, out of range or of an unsupported type."""


class WrongType(UserError, TypeError):
    """A Python argument of an unsupported type."""


class CutPrompt(UserWarning):
    """A prompt is longer than the CLIP reads. The command line prints it as one line on stderr."""


class UnknownWords(UserWarning):
    """A prompt has words that the CLIP was never taught. The command line prints it as one line on stderr."""


class InputRemark(UserWarning):
    """An input that is probably a mistake. The command line prints it as one line on stderr."""


def one_line(text: object) -> str:
    """`text` with its control characters, as names may have them, written as Python writes them.

    >>> print(one_line("a\\nb.png"))
    a\\nb.png
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(text))


def reason(error: BaseException) -> str:
    """What an error of a library says, in one line of at most 200 characters; its type where it says nothing.

    >>> reason(ValueError("cut\\n at 7")), reason(EOFError())
    ('cut at 7', 'EOFError')
    """
    said = getattr(error, "strerror", None) or str(error)
    return " ".join(said.split())[:200] or type(error).__name__


def print_warning(warning: Warning) -> None:
    """One line on stderr, as the command line warns."""
    print(f"langfuse-jax: warning: {one_line(warning)}", file=sys.stderr)

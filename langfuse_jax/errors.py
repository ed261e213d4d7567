"""The error that a user can cause and mend, and the warning that a result is not all of what was asked for."""

import sys


class UserError(Exception):
    """One clear line that names the file or flag and the remedy.

    The command line prints it without a traceback and exits with status 2; Python callers can catch it.
    """


class Preempted(Exception):
    """The machine is taken back (SIGTERM); all is saved. The command line exits with status 75, to be run again."""


class BadPixels(UserError):
    """An image file whose numbers are no image: NaN, infinite, out of range or of a strange type."""


class CutPrompt(UserWarning):
    """A prompt is longer than a CLIP reads. The command line prints it as one line on stderr."""


class UnknownWords(UserWarning):
    """A prompt has words that a CLIP was never taught. The command line prints it as one line on stderr."""


def print_warning(warning: Warning) -> None:
    """One line on stderr, as the command line warns."""
    print(f"langfuse-jax: warning: {warning}", file=sys.stderr)

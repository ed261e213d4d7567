"""The error that a user can cause and mend."""


class UserError(Exception):
    """One clear line that names the file or flag and the remedy.

    The command line prints it without a traceback and exits with status 2; Python callers can catch it.
    """

"""The one progress bar: text that fits a terminal, a widget in a notebook that has ipywidgets, nothing in a file."""

import shutil
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from tqdm import tqdm

_WIDEST = 80  # characters of text in a notebook, whose cells tell no width
_GROWS = 6  # characters that a rate and the time left may grow by


def progress_bar(
    total: int | None, *, unit: str, initial: int = 0, desc: str | None = None, leave: bool = True
) -> tqdm:
    """A bar on stderr of `total` units (None: unknown), of which `initial` are done; used as tqdm's own.

    In a terminal it follows the width of the window. In a notebook it is a widget as wide as the cell, or text where
    ipywidgets is missing. Where stderr is a file or a pipe there is none.

    >>> with progress_bar(2, unit="pair") as bar:
    ...     _ = bar.update(2)
    """
    common: dict[str, Any] = {"total": total, "unit": unit, "initial": initial, "desc": desc, "leave": leave}
    if not in_notebook():
        return tqdm(file=sys.stderr, disable=None, dynamic_ncols=True, **common)
    if find_spec("ipywidgets"):
        from tqdm.notebook import tqdm as widget  # which displays itself, as wide as its cell with dynamic_ncols

        return widget(dynamic_ncols=True, **common)
    return tqdm(file=sys.stderr, ncols=_WIDEST, **common)


def write_beside(line: str, *, on_stdout: bool = False) -> None:
    """Prints a line, on stderr by default, without tearing a bar that is there.

    >>> write_beside("7.png is done", on_stdout=True)
    7.png is done
    """
    tqdm.write(line, file=sys.stdout if on_stdout else sys.stderr)


def show_numbers(bar: tqdm, values: Mapping[str, float]) -> None:
    """Puts numbers behind a bar at its next update: the "loss", and of the others those that fit into its width.

    Example::

        show_numbers(bar, {"whole": 1.0, "loss": 3.5})
    """
    if bar.disable:
        return
    about = bar.format_dict
    width = about["ncols"] if isinstance(about["ncols"], int) else min(_WIDEST, shutil.get_terminal_size().columns)
    bare = len(tqdm.format_meter(**{**about, "postfix": None, "ncols": None, "colour": None}))
    bar.set_postfix_str(fitting(values, width - bare - _GROWS), refresh=False)


def fitting(values: Mapping[str, float], width: int) -> str:
    """As many numbers with their names as `width` characters hold, the loss before the others.

    >>> fitting({"guide": 0.25, "loss": 3.5, "whole": 1.0}, 25)
    'loss=3.500, guide=0.250'
    """
    text = ""
    for name in sorted(values, key=lambda name: name != "loss"):
        longer = f"{text}{', ' * bool(text)}{name}={values[name]:.3f}"
        if len(longer) > width:
            break
        text = longer
    return text


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook.

    >>> in_notebook()
    False
    """
    ipython = sys.modules.get("IPython")  # not imported, it runs nothing
    shell = ipython.get_ipython() if ipython else None
    return type(shell).__name__ == "ZMQInteractiveShell"

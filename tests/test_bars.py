"""The one progress bar: as wide as its terminal, with the loss, and text or a widget in a notebook."""

import io
import os
import re
import sys
import termios
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

import langfuse_jax
from langfuse_jax.runtime import bars

VALUES = {"anchor": 0.25, "fused_std": 0.5, "loss": 3.5, "whole": 1.0, "patch": 2.0, "gradient_norm": 9.0}


def shown(monkeypatch, columns):
    """What a bar of 120 steps writes to a terminal of so many columns."""
    terminal, end = os.openpty()
    termios.tcsetwinsize(end, (25, columns))
    with open(end, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with bars.progress_bar(120, unit="step", desc="compiling") as bar:
            for _ in range(3):
                bars.show_numbers(bar, VALUES)
                bar.update(40)
                bar.refresh()
    written = b""
    with suppress(OSError):  # the end
        while more := os.read(terminal, 4096):
            written += more
    os.close(terminal)
    return [line.rstrip() for line in re.split(r"[\r\n]", written.decode()) if line.strip()]


@pytest.mark.parametrize("columns", [64, 100, 160])
def test_nothing_is_cut_where_the_terminal_ends(columns, monkeypatch):
    lines = shown(monkeypatch, columns)
    assert "120/120" in lines[-1]
    for line in lines[1:]:
        assert len(line) < columns and line.endswith("]"), line
        assert ("loss=3.500" in line) == (columns > 64) and ("gradient_norm" in line) == (columns > 150), line


def test_there_is_no_bar_in_a_file(tmp_path, monkeypatch):
    with open(tmp_path / "log", "w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        with bars.progress_bar(2, unit="pair") as bar:
            bar.update(2)
            bars.show_numbers(bar, VALUES)
            bars.write_beside("one line")
    assert (tmp_path / "log").read_text() == "one line\n"


def test_a_notebook_without_ipywidgets_has_text(monkeypatch):
    class ZMQInteractiveShell:
        pass

    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=ZMQInteractiveShell))
    monkeypatch.setattr(bars, "find_spec", lambda name: None)
    stream = io.StringIO()  # a kernel's stderr is no terminal
    monkeypatch.setattr(sys, "stderr", stream)
    with bars.progress_bar(2, unit="pair") as bar:
        bars.show_numbers(bar, VALUES)
        bar.update(2)
    last = [line for line in re.split(r"[\r\n]", stream.getvalue()) if line.strip()][-1]
    assert "2/2" in last and "loss=3.500" in last and len(last) <= 80


def test_nothing_else_draws_bars():
    root = Path(langfuse_jax.__file__).parent
    drawers = {path for path in root.rglob("*.py") if "tqdm" in path.read_text(encoding="utf-8")}
    assert {os.fspath(path.relative_to(root)) for path in drawers} == {"runtime/bars.py"}

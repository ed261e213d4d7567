"""Tables for notebooks: HTML whose text is escaped, so that a file's or a method's name stays text."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

_STYLE = "text-align:left;vertical-align:top"


class Strong(NamedTuple):
    """The text of a cell that stands out."""

    text: str


Cell = str | Strong


def html_table(rows: Sequence[Sequence[Cell]], *, headings: Sequence[str] = (), title: str = "") -> str:
    """A table of text; the first cell of a row is its heading.

    >>> html_table([["a < b", Strong("1")]], title="R&D").replace(f' style="{_STYLE}"', "")
    '<table><caption>R&amp;D</caption><tr><th>a &lt; b</th><td><b>1</b></td></tr></table>'
    """
    caption = f'<caption style="{_STYLE}">{escape(title)}</caption>' if title else ""
    head = "".join(f'<th style="{_STYLE}">{escape(heading)}</th>' for heading in headings)
    body = "".join(f"<tr>{''.join(_cell(i, cell) for i, cell in enumerate(row))}</tr>" for row in rows)
    return f"<table>{caption}{f'<tr>{head}</tr>' if head else ''}{body}</table>"


def _cell(column: int, cell: Cell) -> str:
    text = f"<b>{escape(cell.text)}</b>" if isinstance(cell, Strong) else escape(cell)
    tag = "td" if column else "th"
    return f'<{tag} style="{_STYLE}">{text}</{tag}>'

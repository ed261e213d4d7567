"""Extension of griffe: makes docstrings Markdown. Code is fenced, and names that share a description get a row each."""

import re
from textwrap import dedent
from typing import Any

import griffe

_DOCTEST = re.compile(r"(?m)^( *)>>> .*(?:\n\1.*\S.*)*")
_EXAMPLE = re.compile(r"(?m)^( *)Example::\n\n((?:\1    .*\n|\n)*\1    .*)")
_TABLE = re.compile(r"(?m)^()=+(?:  +=+)+\n(?:.*\S.*(?:\n|$))+")
_NAMES = re.compile(r"(?m)^    (\w+(?:, \w+)+): (.*(?:\n {8}.*)*)")


class MarkdownDocstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrites the docstring of one object."""
        if obj.docstring:
            text = _EXAMPLE.sub(lambda found: _fenced(found[2], found[1], "python"), obj.docstring.value)
            text = _TABLE.sub(lambda found: _fenced(found[0], found[1], "text"), text)
            text = _DOCTEST.sub(lambda found: _fenced(found[0], found[1], "pycon"), text)
            obj.docstring.value = _NAMES.sub(_one_by_one, text)


def _fenced(code: str, indent: str, language: str) -> str:
    lines = ["", f"```{language}", *dedent(code).splitlines(), "```", ""]
    return "\n".join(indent + line if line else line for line in lines)


def _one_by_one(found: re.Match[str]) -> str:
    return "\n".join(f"    {name}: {found[2]}" for name in found[1].split(", "))

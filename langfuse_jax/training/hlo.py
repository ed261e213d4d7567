"""What a compiled program says of itself: its collectives, their bytes, and where in the code they come from."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# %name = SHAPE kind(...) or kind-start(...); the matching -done moves nothing more.
_COLLECTIVE = re.compile(rf"= (?P<shape>.*?) (?P<kind>{'|'.join(_KINDS)})(?P<start>-start)?\(")
_ARRAY = re.compile(r"\b(pred|[suf]\d+|bf16|c64|c128|f8\w*)\[([\d,]*)\]")
_LEVELS = 3  # of a name, from the innermost
_SOURCE = re.compile(r'source_file="([^"]*)"(?: source_line=(\d+))?')
_NAME = re.compile(r'op_name="([^"]*)"')


class Collective(NamedTuple):
    """One exchange between devices.

    Attributes:
        kind: "all-reduce", "all-gather", "reduce-scatter", "all-to-all" or "collective-permute".
        bytes: of its result on one device.
        origin: the operation in the code, as JAX names it, and the line.
    """

    kind: str
    bytes: int
    origin: str


def collectives(text: str) -> list[Collective]:
    """The collectives of a compiled program, in order, from its text.

    >>> line = '%r = f32[4,2]{1,0} all-reduce(%p), metadata={op_name="jit(f)/add" source_file="a.py" source_line=7}'
    >>> collectives(line)
    [Collective(kind='all-reduce', bytes=32, origin='jit(f)/add (a.py:7)')]
    """
    return list(_collectives(text))


def _collectives(text: str) -> Iterator[Collective]:
    for line in text.splitlines():
        found = _COLLECTIVE.search(line)
        if found is None:
            continue
        sizes = [_bytes(kind, shape) for kind, shape in _ARRAY.findall(found["shape"])]
        # What starts an asynchronous one also names its operands.
        total = sum(sizes[len(sizes) // 2 :]) if found["start"] and len(sizes) > 1 else sum(sizes)
        yield Collective(found["kind"], total, _origin(line))


def _bytes(kind: str, shape: str) -> int:
    bits = 8 if kind == "pred" or kind.startswith("f8") else int(re.sub(r"\D", "", kind))
    return bits // 8 * int(np.prod([int(side) for side in shape.split(",") if side], dtype=np.int64))


def _origin(line: str) -> str:
    name, source = _NAME.search(line), _SOURCE.search(line)
    parts = ["/".join(name[1].split("/")[-_LEVELS:])] if name else []
    if source:
        file = source[1].rpartition("/")[2]
        parts.append(f"({file}:{source[2]})" if source[2] else f"({file})")
    return " ".join(parts) or "unknown"

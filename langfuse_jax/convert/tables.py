"""Weight conversion as a table: source names, target paths and the transform between them, in both directions."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from langfuse_jax.errors import UserError


class Transform(NamedTuple):
    """How a source tensor becomes a Flax parameter, and back."""

    to_flax: Callable[[np.ndarray], np.ndarray]
    to_source: Callable[[np.ndarray], np.ndarray]


def _axes(*order):
    inverse = tuple(int(axis) for axis in np.argsort(order))
    return Transform(lambda x: np.transpose(x, order), lambda x: np.transpose(x, inverse))


SAME = Transform(lambda x: x, lambda x: x)
LINEAR = _axes(1, 0)  # (out, in) -> (in, out)
CONV = _axes(2, 3, 1, 0)  # (out, in, h, w) -> (h, w, in, out)


class Rule(NamedTuple):
    """One line of a table. `{}` in both templates stands for the same layer number."""

    source: str
    target: str
    transform: Transform = SAME


def _pattern(template):
    return re.compile(re.escape(template).replace(r"\{\}", r"(\d+)") + r"\Z")


def _rename(name, templates):
    """The one renaming of `name` by (from, to, function) triples, or None."""
    for pattern, template, function in templates:
        match = pattern.match(name)
        if match:
            return template.format(*match.groups()), function
    return None


def to_flax(
    tensors: Mapping[str, np.ndarray],
    table: Sequence[Rule],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    origin: str,
    ignored: Iterable[str] = (),
) -> dict[str, np.ndarray]:
    """Flat `{"a/b/kernel": array}` in float32 from source tensors.

    Args:
      tensors: source tensors by name.
      table: the rules; the first that matches is used.
      shapes: every parameter of the model, flat, with its shape.
      origin: the file, for error messages.
      ignored: regular expressions of source names that carry no weights.

    Raises:
      UserError: a tensor that no parameter takes, a parameter that nothing fills, or a wrong shape; names the keys.
    """
    ignored = [re.compile(pattern) for pattern in ignored]
    rules = [(_pattern(rule.source), rule.target, rule.transform.to_flax) for rule in table]
    flat, unused, wrong = {}, [], []
    for name, tensor in tensors.items():
        if any(pattern.fullmatch(name) for pattern in ignored):
            continue
        renamed = _rename(name, rules)
        if renamed is None or renamed[0] not in shapes:
            unused.append(name)
            continue
        target, function = renamed
        if tensor.ndim != len(shapes[target]) or function(tensor).shape != tuple(shapes[target]):
            wrong.append(f"{name} {tensor.shape}")
            continue
        flat[target] = np.array(function(tensor), np.float32, order="C")
    sources = [(_pattern(rule.target), rule.source, None) for rule in table]
    missing = [_rename(path, sources)[0] for path in shapes if path not in flat]
    missing = [name for name in missing if not any(name == entry.split(" ")[0] for entry in wrong)]
    problems = [
        f"{what}: {_listed(names)}"
        for what, names in (("unknown tensors", unused), ("missing tensors", missing), ("wrong shapes", wrong))
        if names
    ]
    if problems:
        raise UserError(f"{origin}: does not fit the model; {'; '.join(problems)}")
    return flat


def to_source(flat: Mapping[str, np.ndarray], table: Sequence[Rule]) -> dict[str, np.ndarray]:
    """The inverse of `to_flax`: source names and layouts of flat Flax parameters. KeyError for an unknown path."""
    rules = [(_pattern(rule.target), rule.source, rule.transform.to_source) for rule in table]
    tensors = {}
    for path, value in flat.items():
        renamed = _rename(path, rules)
        if renamed is None:
            raise KeyError(path)
        name, function = renamed
        tensors[name] = np.array(function(np.asarray(value)), order="C")
    return tensors


def _listed(names, limit=8):
    names = sorted(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more

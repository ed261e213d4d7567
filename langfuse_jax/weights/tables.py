"""Weight conversion as a table: source names, target paths and the transform between them, in both directions."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from langfuse_jax.errors import UserError


class Transform(NamedTuple):
    """How a source tensor becomes a Flax parameter, and back."""

    to_flax: Callable[[np.ndarray], np.ndarray]
    to_source: Callable[[np.ndarray], np.ndarray]


def _axes(*order: int) -> Transform:
    inverse = tuple(int(axis) for axis in np.argsort(order))
    return Transform(lambda x: np.transpose(x, order), lambda x: np.transpose(x, inverse))


SAME = Transform(lambda x: x, lambda x: x)
LINEAR = _axes(1, 0)  # (out, in) -> (in, out)
CONV = _axes(2, 3, 1, 0)  # (out, in, h, w) -> (h, w, in, out)
CONV_TRANSPOSE = _axes(2, 3, 0, 1)  # (in, out, h, w) -> (h, w, in, out)


class Rule(NamedTuple):
    """One line of a table. `{}` in its templates stands for the same layer number.

    A rule with several targets says that the source holds them one after another along its first axis, in equal parts.
    """

    source: str
    target: str | tuple[str, ...]
    transform: Transform = SAME

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.target,) if isinstance(self.target, str) else self.target

    def split(self, tensor: np.ndarray) -> list[np.ndarray]:
        """The source tensor as one array per target."""
        parts = [tensor] if len(self.targets) == 1 else np.split(tensor, len(self.targets))
        return [self.transform.to_flax(part) for part in parts]

    def join(self, arrays: Sequence[np.ndarray | Array]) -> np.ndarray:
        """The inverse of `split`."""
        parts = [self.transform.to_source(np.asarray(array)) for array in arrays]
        return np.array(parts[0] if len(parts) == 1 else np.concatenate(parts), order="C")


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
      tensors: source tensors by name, of any floating-point type.
      table: the rules; the first that matches is used.
      shapes: every parameter of the model, flat, with its shape.
      origin: the file, for error messages.
      ignored: regular expressions of source names that carry nothing the model needs.

    Raises:
      UserError: a tensor that no parameter takes, a parameter that nothing fills, a wrong shape, or values that are not
        finite floating-point numbers; names the keys.
    """
    wanted = _sources(table, shapes)
    useless = [re.compile(pattern) for pattern in ignored]
    flat: dict[str, np.ndarray] = {}
    unknown, wrong, bad = [], [], []
    for name, tensor in tensors.items():
        if any(pattern.fullmatch(name) for pattern in useless):
            continue
        if name not in wanted:
            unknown.append(name)
            continue
        rule, paths = wanted[name]
        shape = rule.join([np.broadcast_to(np.int8(0), shapes[path]) for path in paths]).shape
        if tensor.shape != shape:
            wrong.append(f"{name} is {tensor.shape}, not {shape}")
        elif not jnp.issubdtype(tensor.dtype, jnp.floating):  # numpy does not count bfloat16 among them
            bad.append(f"{name} is {tensor.dtype}")
        else:
            parts = rule.split(np.asarray(tensor, np.float32))
            flat |= {path: np.array(part, order="C") for path, part in zip(paths, parts, strict=True)}
            if not np.isfinite(tensor).all():
                bad.append(f"{name} has NaN or infinity")
    missing = [f"{name} (for {', '.join(paths)})" for name, (_, paths) in wanted.items() if name not in tensors]
    problems = {
        "unknown tensors": unknown,
        "missing tensors": missing,
        "wrong shapes": wrong,
        "not finite floating-point numbers": bad,
    }
    if any(problems.values()):
        report = "; ".join(f"{what}: {listed(names, 8)}" for what, names in problems.items() if names)
        raise UserError(f"{origin}: does not fit the model; {report}")
    return flat


def to_source(flat: Mapping[str, np.ndarray | Array], table: Sequence[Rule]) -> dict[str, np.ndarray]:
    """The inverse of `to_flax`: source names and layouts of flat Flax parameters. KeyError for an unknown path."""
    return {name: rule.join([flat[path] for path in paths]) for name, (rule, paths) in _sources(table, flat).items()}


def _sources(table: Sequence[Rule], paths: Iterable[str]) -> dict[str, tuple[Rule, list[str]]]:
    """{source name: (rule, target paths)} that fill the parameters `paths`. KeyError for one that no rule fills."""
    patterns = [
        (re.compile(re.escape(target).replace(r"\{\}", r"(\d+)")), rule) for rule in table for target in rule.targets
    ]
    sources = {}
    for path in paths:
        for pattern, rule in patterns:
            if match := pattern.fullmatch(path):
                place = match.groups()
                sources[rule.source.format(*place)] = rule, [target.format(*place) for target in rule.targets]
                break
        else:
            raise KeyError(path)
    return sources


def listed(names: Collection[str], limit: int) -> str:
    """The first `limit` names, sorted, and how many more there are.

    >>> listed({"c", "a", "b"}, 2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(sorted(names)[:limit]) + more

"""Configs: Python files with `get_config()`, and overrides given as flags."""

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from langfuse_jax.errors import UserError

_LEAST = {
    1: (
        "batch_size",
        "log_every",
        "checkpoint_every",
        "max_skipped",
        "max_dead",
        "patches.count",
        "data.repeats",
        "sheet.every",
    ),
    0: (
        "seed",
        "steps",
        "epochs",
        "warmup_steps",
        "validation_pairs",
        "scores.every",
        "learning_rate",
        "gradient_clip",
    ),
}
# A key that only the configs of a command have, and a config to start from.
_COMMANDS = {
    "train": ("patches", "configs/default.py"),
    "distill": ("teacher", "configs/student.py"),
    "train-clip": ("train_folders", "configs/compact_clip.py"),
}


def load_config(path: str, overrides: Sequence[str] = (), *, command: str | None = None) -> ConfigDict:
    """The locked ConfigDict of `path`, with overrides such as `--config.batch_size=4` applied.

    Args:
        path: of the Python file.
        overrides: flags. For a tuple, text that is no Python literal counts as one string.
        command: "train", "distill" or "train-clip": what the config must be for.

    Raises UserError for a missing file, a config of another command, an unknown key, a value of the wrong type and any
    other flag.
    """
    if not Path(path).is_file():
        raise UserError(f"--config {path}: no such file; give a config such as configs/default.py")
    values = flags.FlagValues()
    arguments = ["langfuse-jax", f"--config={path}", *overrides]
    # The flag library reads overrides from the process's own command line unless it is handed one.
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
    try:
        values(arguments[:2])
        if command is not None:
            _check_command(path, values.config, command)
        left = values([arguments[0], *(_quoted(override, values) for override in overrides)])
    except UserError:
        raise
    except (KeyError, AttributeError) as error:
        key = (re.findall(r"\w+", str(error.args[0] if error.args else error)) or [""])[0]
        culprit = next((o for o in overrides if key in o.split("=")[0].split(".")), None)
        if culprit is None:
            raise UserError(f"--config {path}: {type(error).__name__}: {_one_line(error)}") from error
        raise UserError(f"{culprit}: the config {path} has no key {key!r}; open it to see the keys it has") from error
    except Exception as error:  # a bad value, or whatever the user's own config file raises while it runs
        raise UserError(f"--config {path}: {_one_line(error)}") from error
    if left[1:]:
        raise UserError(f"unrecognized arguments: {' '.join(left[1:])}")
    if not isinstance(values.config, ConfigDict):
        raise UserError(f"--config {path}: it defines no get_config() that returns an ml_collections ConfigDict")
    return values.config


def _check_command(path, config, command):
    if not isinstance(config, ConfigDict) or _COMMANDS[command][0] in config:
        return
    others = [f"is for `langfuse-jax {other}`" for other, (key, _) in _COMMANDS.items() if key in config]
    problem = others[0] if others else f"lacks the key {_COMMANDS[command][0]!r}"
    raise UserError(
        f"--config {path}: {problem}; give `langfuse-jax {command}` a config such as {_COMMANDS[command][1]}"
    )


def _quoted(override, values):
    """An override of a tuple by plain text, which the flag's parser refuses, as a Python literal."""
    flag, equals, text = override.partition("=")
    name = flag.lstrip("-")
    if not equals or name not in values or values[name].parser.flag_type() != "tuple" or text[:1] in tuple("([{\"'"):
        return override
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return f"{flag}={(text,)!r}"
    return override


def texts(value: str | Sequence[str]) -> tuple[str, ...]:
    """The strings of a config's value, where a plain string counts as one.

    >>> texts("a bright image"), texts(("one", "two"))
    (('a bright image',), ('one', 'two'))
    """
    return (value,) if isinstance(value, str) else tuple(value)


def check_values(config: ConfigDict) -> None:
    """Raises UserError for a number of a training's config that is too small, and for lists of the wrong kind."""
    check_least(config, _LEAST)
    if not (config.steps or config.epochs):
        raise UserError("config.steps: 0, and config.epochs is 0 too; set one of them")
    for name in ("data.train", *(f"prompts.{role}" for role in ("visible", "infrared", "goal"))):
        value = _value(config, name)
        if isinstance(value, str):
            continue
        if not isinstance(value, Sequence) or not all(isinstance(text, str) for text in value):
            raise UserError(f"config.{name}: {value!r} are no strings; write ('one',) or ('one', 'two')")
    fraction = config.patches.fraction
    if len(fraction) != 2 or not 0 < fraction[0] <= fraction[1] <= 1:
        raise UserError(f"config.patches.fraction: {fraction!r} is no range of fractions, such as (0.5, 0.8)")


def check_least(config: ConfigDict, least: Mapping[int, Sequence[str]]) -> None:
    """Raises UserError for a number of `config` that is smaller than the one its name is listed under."""
    for limit, names in least.items():
        for name in names:
            if (value := _value(config, name)) < limit:
                raise UserError(f"config.{name}: {value} is too small; use {limit} or more")


def _value(config, name):
    value = config
    for part in name.split("."):
        if part not in value:
            raise UserError(f"config.{name}: is missing from the config; start it from one in configs/")
        value = value[part]
    return value


def _one_line(error):
    return " ".join(str(error.args[0] if error.args else error).split())

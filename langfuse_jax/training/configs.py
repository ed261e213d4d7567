"""Configs: Python files with `get_config()`, and overrides given as flags."""

import ast
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from langfuse_jax.errors import UserError

PACKAGE = "langfuse_jax.configs"
# A key that only the configs of a command have, and a config to start from.
_COMMANDS = {
    "train": ("patches", "default"),
    "train-clip": ("model", "compact_clip"),
}
_GROUPS = {
    "augment": ("zoom", "fading", "noise"),
    "optimizer": ("learning_rate", "matrix_learning_rate", "weight_decay", "warmup_steps", "gradient_clip", "ema"),
    "memory": ("accumulate", "clip_chunk", "remat"),
    "guard": ("max_skipped", "max_dead"),
}
# What keys were called before version 0.2, and what they are now.
_RENAMED = {
    **{name: f"{group}.{name}" for group, names in _GROUPS.items() for name in names},
    "trainable": "optimizer.trainable",
    "spare_only": "optimizer.trainable ('spare' for True)",
    "peak_tflops": "log.peak_tflops",
    "log_every": "log.every",
    "checkpoint_every": "checkpoint.every",
    "scores_every": "scores.every",
    "validation_pairs": "validation.pairs",
    "batches": "steps",
    "warmup_batches": "optimizer.warmup_steps",
    "train_folders": "data.train (below data.root)",
    "validation_folder": "data.validation (below data.root)",
    "weights": "loss",
}


def load_config(name: str, overrides: Sequence[str] = (), *, command: str | None = None) -> ConfigDict:
    """The locked ConfigDict of a config, with overrides such as `--config.batch_size=4` applied.

    Args:
        name: of a config that comes with the package, such as "cpu", or the path of a Python file.
        overrides: flags. For a tuple, text that is no Python literal counts as one string.
        command: "train" or "train-clip": what the config must be for.

    Raises UserError for a missing file, a config of another command, an unknown key, a value of the wrong type and any
    other flag.

    >>> load_config("smoke", ["--config.batch_size=4"]).batch_size
    4
    """
    for override in overrides:
        _refuse_renamed(override.removeprefix("--config.").split("=")[0].split(".")[0], f"{override}: ")
    values = flags.FlagValues()
    # The flag library reads overrides from the process's own command line unless it is handed one.
    arguments = ["langfuse-jax", *overrides]
    try:
        config = _read(name)
        if not isinstance(config, ConfigDict):
            raise UserError(f"--config {name}: it defines no get_config() that returns an ml_collections ConfigDict")
        for key in config:
            _refuse_renamed(key, f"--config {name}: ")
        if command is not None:
            _check_command(name, config, command)
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=arguments)
        values(arguments[:1])
        left = values([arguments[0], *(_quoted(override, values) for override in overrides)])
    except UserError:
        raise
    except (KeyError, AttributeError) as error:
        key = (re.findall(r"\w+", str(error.args[0] if error.args else error)) or [""])[0]
        culprit = next((o for o in overrides if key in o.split("=")[0].split(".")), None)
        if culprit is None:
            raise UserError(f"--config {name}: {type(error).__name__}: {_one_line(error)}") from error
        raise UserError(f"{culprit}: the config {name} has no key {key!r}; open it to see the keys it has") from error
    except Exception as error:  # a bad value, or whatever the user's own config file raises while it runs
        raise UserError(f"--config {name}: {_one_line(error)}") from error
    if left[1:]:
        raise UserError(f"unrecognized arguments: {' '.join(left[1:])}")
    return values.config


def _read(name: str) -> object:
    """What `get_config()` gives of a config of the package or of a user's file."""
    if Path(name).is_file():
        loader = SourceFileLoader("config", name)
        module = ModuleType("config")
        loader.exec_module(module)
        return getattr(module, "get_config", lambda: None)()
    known = sorted(Path(file.name).stem for file in files(PACKAGE).iterdir() if file.name.endswith(".py"))
    known.remove("__init__")
    if name in known:
        return import_module(f"{PACKAGE}.{name}").get_config()
    raise UserError(f"--config {name}: no such file, and none of the package's configs {', '.join(known)}")


def _refuse_renamed(key: str, culprit: str) -> None:
    if key in _RENAMED:
        raise UserError(f"{culprit}config.{key} is called config.{_RENAMED[key]} now")


def _check_command(name: str, config: ConfigDict, command: str) -> None:
    if _COMMANDS[command][0] in config:
        return
    others = [f"is for `langfuse-jax {other}`" for other, (key, _) in _COMMANDS.items() if key in config]
    problem = others[0] if others else f"lacks the key {_COMMANDS[command][0]!r}"
    raise UserError(
        f"--config {name}: {problem}; give `langfuse-jax {command}` a config such as {_COMMANDS[command][1]}"
    )


def _quoted(override: str, values: flags.FlagValues) -> str:
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


def check_least(config: ConfigDict, least: Mapping[int, Sequence[str]]) -> None:
    """Raises UserError for a number of `config` that is smaller than the one its name is listed under."""
    for limit, names in least.items():
        for name in names:
            if (value := _value(config, name)) < limit:
                raise UserError(f"config.{name}: {value} is too small; use {limit} or more")


def check_choice(config: ConfigDict, name: str, choices: Sequence[str]) -> None:
    """Raises UserError unless the value of that name is one of `choices`."""
    if (value := _value(config, name)) not in choices:
        *others, last = map(repr, choices)
        raise UserError(f"config.{name}: {value!r} is unknown; use {', '.join(others)} or {last}")


def check_below_one(config: ConfigDict, name: str, example: float) -> None:
    """Raises UserError unless the number of that name is in [0, 1)."""
    if not 0 <= (value := _value(config, name)) < 1:
        raise UserError(
            f"config.{name}: {value} is out of range; use 0 for none, or a number below 1 such as {example}"
        )


def check_fractions(config: ConfigDict, name: str, example: tuple[float, float]) -> None:
    """Raises UserError unless the value of that name is a range of fractions, 0 < low <= high <= 1."""
    value = _value(config, name)
    if len(value) != 2 or not 0 < value[0] <= value[1] <= 1:
        raise UserError(f"config.{name}: {value!r} is no range of fractions, such as {example}")


def check_texts(config: ConfigDict, name: str) -> None:
    """Raises UserError unless the value of that name is a string or a list of them."""
    value = _value(config, name)
    if isinstance(value, str):
        return
    if not isinstance(value, Sequence) or not all(isinstance(text, str) for text in value):
        raise UserError(f"config.{name}: {value!r} are no strings; write ('one',) or ('one', 'two')")


def _value(config: ConfigDict, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        if not isinstance(value, ConfigDict) or part not in value:
            raise UserError(f"config.{name}: is missing from the config; start it from one of the package's")
        value = value[part]
    return value


def _one_line(error: Exception) -> str:
    return " ".join(str(error.args[0] if error.args else error).split())

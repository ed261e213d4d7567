"""Configs: Python files with `get_config()`, and overrides given as flags."""

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


def load_config(path: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """The locked ConfigDict of `path`, with overrides such as `--config.batch_size=4` applied.

    Raises UserError for a missing file, an unknown key, a value of the wrong type and any other flag.
    """
    if not Path(path).is_file():
        raise UserError(f"--config {path}: no such file; give a config such as configs/default.py")
    values = flags.FlagValues()
    arguments = ["langfuse-jax", f"--config={path}", *overrides]
    # The flag library reads overrides from the process's own command line unless it is handed one.
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
    try:
        left = values(arguments)
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


def check_values(config: ConfigDict) -> None:
    """Raises UserError for a number of a training's config that is too small, and for lists of the wrong kind."""
    check_least(config, _LEAST)
    if not (config.steps or config.epochs):
        raise UserError("config.steps: 0, and config.epochs is 0 too; set one of them")
    for name in ("data.train", *(f"prompts.{role}" for role in ("visible", "infrared", "goal"))):
        value = _value(config, name)
        if not all(isinstance(text, str) for text in value):
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
    for part in name.split("."):
        config = config[part]
    return config


def _one_line(error):
    return " ".join(str(error.args[0] if error.args else error).split())

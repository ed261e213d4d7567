"""Configs: Python files with `get_config()`, and overrides given as flags."""

from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from langfuse_jax.errors import UserError


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
        key = str(error.args[0] if error.args else error).strip("'\"")
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


def _one_line(error):
    return " ".join(str(error.args[0] if error.args else error).split())

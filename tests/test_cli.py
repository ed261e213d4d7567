"""The command itself: quick to answer, and clear about what it does not know."""

import subprocess
import sys

import pytest

import langfuse_jax
from langfuse_jax.cli import main

_HELP = """
import sys
from langfuse_jax.cli import main
try:
    main([{flag!r}])
except SystemExit as end:
    assert not end.code
heavy = {{"jax", "numpy", "flax", "transformers", "PIL", "orbax"}} & sys.modules.keys()
assert not heavy, heavy
"""


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(flag):
    done = subprocess.run([sys.executable, "-c", _HELP.format(flag=flag)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "langfuse-jax" in done.stdout


def test_version_is_the_packages(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == f"langfuse-jax {langfuse_jax.__version__}"


def test_public_names_exist():
    for name in langfuse_jax.__all__:
        assert getattr(langfuse_jax, name) is not None
    with pytest.raises(AttributeError, match="nosuch"):
        _ = langfuse_jax.nosuch


def test_unknown_flags_end_with_status_2(capsys):
    with pytest.raises(SystemExit) as end:
        main(["fuse", "--out", "x", "--strange"])
    assert end.value.code == 2 and "--strange" in capsys.readouterr().err

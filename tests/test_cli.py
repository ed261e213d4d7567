"""The command itself: quick to answer, and clear about what it does not know."""

import subprocess
import sys

import pytest

import langfuse_jax
from langfuse_jax.cli import main
from langfuse_jax.examples.night_scene import write_night_scenes

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


_WORK = """
import sys
from langfuse_jax.cli import main
assert main(sys.argv[1:]) == 0
assert "jax" in sys.modules
heavy = {"tensorflow", "tensorflow_datasets", "grain", "orbax", "tensorboard", "tensorboardX", "ml_collections"}
heavy |= {"transformers", "optax", "imagecodecs", "tifffile", "av", "matplotlib"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""


@pytest.mark.parametrize("command", ["fuse", "fuse folders", "evaluate"])
def test_fusing_and_evaluating_import_nothing_of_training(command, tmp_path):
    write_night_scenes(tmp_path / "scenes", 1, 48, 64)
    roles = {role: tmp_path / "scenes" / role for role in ("visible", "infrared")}
    if command == "fuse":
        roles = {role: folder / "0.png" for role, folder in roles.items()}
    sources = [f"--{role}={path}" for role, path in roles.items()]
    if command == "evaluate":
        argv = [command, *sources, f"--fused={roles['visible']}", "--metrics=SD"]
    else:
        argv = ["fuse", *sources, f"--out={tmp_path / 'out'}"]
    done = subprocess.run([sys.executable, "-c", _WORK, *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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

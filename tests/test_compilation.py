"""Programs are kept between runs: where, and what a run without, or with a damaged, cache does."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from langfuse_jax.cli import main
from langfuse_jax.images.files import write_png


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    rng = np.random.default_rng(0)
    for role in ("vi", "ir"):
        write_png(folder / role / "a.png", rng.random((32, 32)))
    return folder


@pytest.fixture
def fuse(pair, tmp_path):
    """Runs the command in a process of its own: (status, programs compiled, programs loaded, stderr)."""

    def run(*flags, **environment):
        argv = ["--visible", pair / "vi", "--infrared", pair / "ir", "--out", tmp_path / "out", "--overwrite"]
        told = ("COMPILATION_CACHE", "PERSISTENT_CACHE")
        clean = {name: value for name, value in os.environ.items() if not any(part in name for part in told)}
        done = subprocess.run(
            [sys.executable, "-m", "langfuse_jax", "fuse", *argv, "--verbose", *flags],
            capture_output=True,
            text=True,
            env={**clean, "XDG_CACHE_HOME": str(tmp_path / "home"), **environment},
        )
        counts = re.search(r"programs: (\d+) compiled, (\d+) loaded", done.stdout)
        return done.returncode, *(map(int, counts.groups()) if counts else (None, None)), done.stderr

    return run


def test_a_second_run_compiles_nothing_and_damage_is_mended(fuse, tmp_path):
    assert fuse() == (0, 1, 0, "")
    (entry,) = (tmp_path / "home" / "langfuse_jax").rglob("*-cache")
    # The same folder by the flag, which the environment does not overrule.
    folder = str(tmp_path / "home" / "langfuse_jax")
    assert fuse("--compilation-cache", folder, LANGFUSE_JAX_COMPILATION_CACHE="off") == (0, 0, 1, "")
    entry.write_bytes(entry.read_bytes()[:1000])
    assert fuse() == (0, 1, 0, "")
    assert fuse() == (0, 0, 1, "")


@pytest.mark.parametrize("damage", [lambda data: data[:1000], lambda data: b"", lambda data: data[:-1] + b"\0"])
def test_one_damaged_entry_is_replaced_and_the_others_stay(tmp_path, damage):
    """In a process that makes two programs; nothing is said of it."""
    program = """if True:
        import sys
        import jax
        import numpy
        from langfuse_jax.runtime.compilation import count_programs, keep_programs
        keep_programs(sys.argv[1])
        counts = count_programs()
        for side in (3, 4):
            jax.jit(lambda x: x * x + 1)(numpy.ones(side, "f"))
        print(counts["programs"] - counts["loaded"])
    """
    clean = {name: value for name, value in os.environ.items() if "CACHE" not in name}

    def compiled():
        command = [sys.executable, "-c", program, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=clean)
        assert done.stderr == ""
        return int(done.stdout)

    assert compiled() == 2
    damaged, other = sorted(tmp_path.rglob("*-cache"))
    whole, kept = damaged.read_bytes(), other.stat().st_mtime_ns
    damaged.write_bytes(damage(whole))
    assert compiled() == 1
    assert len(damaged.read_bytes()) > len(whole) / 2 and other.stat().st_mtime_ns == kept
    assert compiled() == 0


@pytest.mark.slow
def test_off_and_jax_own_folder(fuse, tmp_path):
    own = tmp_path / "own"
    assert fuse(JAX_COMPILATION_CACHE_DIR=str(own)) == (0, 1, 0, "")
    assert len(list(own.glob("*-cache"))) == 1 and not (tmp_path / "home").exists()
    off = {"JAX_COMPILATION_CACHE_DIR": str(own), "LANGFUSE_JAX_COMPILATION_CACHE": "off"}
    assert fuse(**off) == (0, 1, 0, "")


def test_a_folder_that_cannot_be_written(pair, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()
    argv = ["fuse", "--visible", str(pair / "vi"), "--infrared", str(pair / "ir"), "--out", str(tmp_path / "out")]
    assert main([*argv, "--compilation-cache", str(tmp_path / "file" / "x")]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"--compilation-cache {tmp_path / 'file' / 'x'}: cannot be written (Not a directory)" in told
    monkeypatch.setenv("LANGFUSE_JAX_COMPILATION_CACHE", str(tmp_path / "file"))
    assert main(argv) == 2
    assert f"LANGFUSE_JAX_COMPILATION_CACHE {tmp_path / 'file'}: cannot be written" in capsys.readouterr().err

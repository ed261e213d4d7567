"""The lock of a work directory: one holder, named to others; gone with its process, however that ends."""

import os
import subprocess
import sys

import pytest

from langfuse_jax import UserError
from langfuse_jax.runtime import workdir_lock
from langfuse_jax.runtime.workdir_lock import locked

# As the package does it, without the seconds that its import takes.
_HOLDER = """
import runpy, sys, types
errors = types.ModuleType("langfuse_jax.errors"); errors.UserError = Exception
sys.modules |= {"langfuse_jax": types.ModuleType("langfuse_jax"), "langfuse_jax.errors": errors}
with runpy.run_path(sys.argv[1])["locked"](sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_holder_leaves_nothing_stale(tmp_path):
    command = [sys.executable, "-c", _HOLDER, workdir_lock.__file__, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        told = rf"{tmp_path}: is in use by process {holder.pid} on .+; wait until it ends, or choose another folder"
        with pytest.raises(UserError, match=told), locked(tmp_path):
            pass
        holder.kill()
        holder.wait()
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
        with locked(tmp_path):
            assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
    assert not list(tmp_path.iterdir())


def test_an_error_releases_it(tmp_path):
    for _ in range(2):
        with pytest.raises(ValueError), locked(tmp_path):
            raise ValueError
    assert not list(tmp_path.iterdir())


def test_where_there_are_no_locks_nothing_is_held(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError("no locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with locked(tmp_path), locked(tmp_path):
        pass
    monkeypatch.setattr(workdir_lock, "fcntl", None)  # Windows
    with locked(tmp_path), locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_writable_is_told(tmp_path):
    with pytest.raises(UserError, match=r"none/\.lock: cannot be written"), locked(tmp_path / "none"):
        pass

"""Fixtures shared by the tests, and what is skipped where a heavier tool is missing."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Spinning OpenMP threads of a second framework can slow a small machine tenfold; set before anything imports them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import jax
import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# Every shape annotation of the package is checked while the tests run.
install_import_hook("langfuse_jax", "beartype.beartype")

# A program that takes some time is compiled once in the whole session: pytest-xdist's workers and the processes that
# tests start inherit the folder and what is kept in it. The user's own cache stays as it is.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _programs = tempfile.TemporaryDirectory()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _programs.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
os.environ.pop("LANGFUSE_JAX_COMPILATION_CACHE", None)

# The same examples every time, however long a busy machine takes for them.
settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# What needs more than README's test command installs.
HEAVY = ("shared", "torch", "slow", "plan", "browser", "notebook")
SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_configure(config):
    """Programs that run once or twice are compiled in a quarter of the time; marked tests run those that users run."""
    if config.getoption("-m"):
        return
    if "PYTEST_XDIST_WORKER" not in os.environ and "XLA_FLAGS" not in os.environ:
        flags = {"XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false"}
        program = "from jaxlib import xla_client; xla_client.CompileOptions()"  # which ends over a flag that is unknown
        if not subprocess.run([sys.executable, "-c", program], env=os.environ | flags, capture_output=True).returncode:
            os.environ |= flags
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # in the processes that tests start
    jax.config.update("jax_disable_most_optimizations", True)


def pytest_collection_modifyitems(config, items):
    """Deselect (never skip) the marked tests unless `-m` asks for them."""
    if config.getoption("-m"):
        return
    heavy = [item for item in items if any(map(item.get_closest_marker, HEAVY))]
    if heavy:
        config.hook.pytest_deselected(items=heavy)
        items[:] = [item for item in items if item not in heavy]


@pytest.fixture(scope="session")
def shared():
    """The folder with real pairs and numeric fixtures; a test that asks for it is marked `shared`."""
    assert SHARED.is_dir(), f"{SHARED} is missing: run these tests where the shared data is"
    return SHARED


@pytest.fixture(scope="session")
def data_folder():
    """The tests' own numbers."""
    return Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def torch_models():
    """The module of independent models in torch, which only tests marked `torch` may need."""
    from reference import torch_models

    return torch_models

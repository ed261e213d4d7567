"""Fixtures shared by the tests, and what is skipped where a heavier tool is missing."""

import os
import tempfile
from pathlib import Path

# Spinning OpenMP threads of a second framework can slow a small machine tenfold; set before anything imports them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import jax
import pytest
from jaxtyping import install_import_hook

# Every shape annotation of the package is checked while the tests run.
install_import_hook("langfuse_jax", "beartype.beartype")

# Tests that build the same step again, as a resumed training does, need not compile it again. Nor do pytest-xdist's
# workers and the processes that tests start, which inherit the folder; the user's own cache stays as it is.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _programs = tempfile.TemporaryDirectory()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _programs.name
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
os.environ.pop("LANGFUSE_JAX_COMPILATION_CACHE", None)

# What needs more than README's test command installs.
HEAVY = ("shared", "torch", "slow", "browser", "notebook")
SHARED = Path(__file__).resolve().parents[2] / "shared"


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
    import torch_models

    return torch_models

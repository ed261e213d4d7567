"""Programs are traced once on a machine: what is kept, what makes it another program, what damage costs."""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import pytest

from langfuse_jax.inference import fuser as fuser_module
from langfuse_jax.inference import traces
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.inference.traces import compile_traced

traced = []


class Factor(NamedTuple):
    """As if it were a network of the package."""

    value: int


Factor.__module__ = "langfuse_jax.models.factor"


@partial(jax.jit, static_argnums=0)
def scaled(factor, x, y):
    traced.append(factor)
    value = getattr(factor, "value", factor)
    return value * x["a"] + (0 if y is None else y)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of the cache, empty at first; `traced` counts from here on."""
    monkeypatch.setattr(traces, "programs_folder", lambda: tmp_path)
    traced.clear()
    jax.clear_caches()
    return tmp_path


def call(factor=3, dtype=np.float32, shape=(2,), y=None, foreign=False):
    """A new process, as far as tracing is concerned."""
    jax.clear_caches()
    x = {"a": np.arange(np.prod(shape), dtype=dtype).reshape(shape)}
    got = compile_traced(scaled, factor if foreign else Factor(factor), x, y)(x, y)
    np.testing.assert_array_equal(got, factor * x["a"] + (0 if y is None else y))
    return got


def test_a_second_process_traces_nothing(folder):
    call()
    call()
    assert len(traced) == 1 and [path.suffix for path in folder.iterdir()] == [".traced"]


@pytest.mark.parametrize(
    "change", [{"factor": 4}, {"dtype": np.int32}, {"shape": (3,)}, {"shape": (1, 2)}, {"y": np.float32(2)}]
)
def test_another_program_is_traced(folder, change):
    call()
    call(**change)
    assert len(traced) == 2 and len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("what", ["module of the networks", "file of the function", "jax"])
def test_other_code_is_traced(folder, monkeypatch, tmp_path_factory, what):
    call()
    if what == "jax":
        monkeypatch.setattr(jax, "__version__", "0.0.1")
    elif what == "file of the function":
        monkeypatch.setattr(traces.inspect, "getsourcefile", lambda function: traces.__file__)
    else:
        copy = tmp_path_factory.mktemp("models")
        (copy / "__init__.py").write_text("changed = True\n")
        monkeypatch.setattr(traces.models, "__file__", str(copy / "__init__.py"))
        traces._code.cache_clear()
    call()
    traces._code.cache_clear()
    assert len(traced) == 2


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:20], lambda data: b"", lambda data: data[:-1] + b"\0\0"]
)
def test_a_damaged_file_is_replaced(folder, damage):
    call()
    (path,) = folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    call()
    call()
    assert len(traced) == 2 and list(folder.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_costs_the_tracing(folder, monkeypatch):
    monkeypatch.setattr(traces, "programs_folder", lambda: folder / "file" / "below")
    (folder / "file").write_text("no folder")
    call()
    call()
    assert len(traced) == 2


def test_a_network_of_somebody_else_is_traced_each_time(folder):
    """Its code may be another one tomorrow."""
    call(foreign=True)
    call(foreign=True)
    assert len(traced) == 2 and not list(folder.iterdir())


def test_without_a_cache_nothing_is_kept(folder, monkeypatch):
    monkeypatch.setattr(traces, "programs_folder", lambda: None)
    call()
    assert traced and not list(folder.iterdir())


def test_a_kept_program_fuses_to_the_last_bit_what_a_traced_one_does(folder):
    fuser = Fuser.load()
    rng = np.random.default_rng(0)
    arguments = (*rng.random((2, 2, 40, 48, 1), np.float32), np.int32([[33, 48], [40, 41]]))
    fused = []
    for _ in range(2):
        jax.clear_caches()
        fused.append(np.asarray(fuser.program((40, 48), 2)(*arguments)))
    np.testing.assert_array_equal(fused[0], fused[1])
    want = fuser_module._fuse(fuser.net, fuser.params, fuser._words(), *arguments)
    np.testing.assert_allclose(fused[0], want, atol=5e-5)  # two programs, which round differently
    assert len(list(folder.iterdir())) == 1 and np.std(want) > 0.02

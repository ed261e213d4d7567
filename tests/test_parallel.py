"""Training on several devices and in several processes equals one device; a process that dies ends the others."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import quick_training

from langfuse_jax import UserError
from langfuse_jax.errors import Preempted
from langfuse_jax.runtime.distributed import end_together, join_cluster
from langfuse_jax.training.configs import load_config
from langfuse_jax.training.parallel import check_division, check_parallel, compile_step, data_mesh
from langfuse_jax.weights.checkpoint import finished_steps

STEPS = Path(__file__).with_name("parallel_steps.py")


def _environment(devices):
    """Of a process with so many emulated CPU devices; without jaxtyping's checks, as users run it."""
    return os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(STEPS.parent), *sys.path]),
    }


def _start(*arguments, devices):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=_environment(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def _finish(*processes):
    """What they printed; none of them stays, whatever happens."""
    try:
        ends = [process.communicate(timeout=550) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(process.returncode for process in processes), ends
    return ends


@pytest.fixture
def root(tmp_path):
    quick_training.draw_scenes(tmp_path / "data", range(8))
    return tmp_path / "data"


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The small network's steps on one device."""
    out = tmp_path_factory.mktemp("one") / "steps.npz"
    _finish(_start(STEPS, out, "one", "small", 6, devices=1))
    return np.load(out)


def _assert_same(found, mode, one):
    np.testing.assert_allclose(found[f"{mode}/losses"], one["one/losses"], rtol=1e-4)
    names = [name for name in one.files if name.startswith("one/gradients")]
    pairs = [(found[name.replace("one", mode, 1)], one[name]) for name in names]
    norm = np.sqrt(sum(np.square(want).sum() for _, want in pairs))
    error = np.sqrt(sum(np.square(got - want).sum() for got, want in pairs))
    assert norm > 0.1 and error <= 1e-5 * norm, error / norm


def test_two_devices_equal_one(tmp_path):
    """The gradients of a step, and the losses of three, of a small network and a quick loss."""
    _finish(_start(STEPS, tmp_path / "steps.npz", "one,jit,pmap", "quick", 3, devices=2))
    found = np.load(tmp_path / "steps.npz")
    for mode in ("jit", "pmap"):
        _assert_same(found, mode, found)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "steps"), [("whole", 5), ("steered", 3)])
def test_eight_devices_equal_one(tmp_path, network, steps):
    _finish(_start(STEPS, tmp_path / "steps.npz", "one,jit,pmap", network, steps, devices=8))
    found = np.load(tmp_path / "steps.npz")
    for mode in ("jit", "pmap"):
        _assert_same(found, mode, found)


_DIVIDED = """
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from langfuse_jax.models.convolution import conv_transpose
from langfuse_jax.training.configs import load_config
from langfuse_jax.training.parallel import data_mesh

blocks, everywhere = (NamedSharding(data_mesh(), PartitionSpec(*axes)) for axes in (("data",), ()))
x, kernel = jnp.ones((16, 9, 9, 8), device=blocks), jnp.ones((5, 5, 8, 8), device=everywhere)
gradient = jax.jit(jax.grad(lambda x, kernel: jnp.square(conv_transpose(x, kernel)).sum(), (0, 1)))
text = gradient.lower(x, kernel).compile().as_text()
assert "all-reduce" in text and "all-gather" not in text, text
"""


_VALIDATED = """
import sys
import jax, numpy as np, parallel_steps, quick_training
from jax.sharding import Mesh
from langfuse_jax.losses import Words
from langfuse_jax.losses.total import PUBLISHED_WEIGHTS
from langfuse_jax.training.configs import load_config
from langfuse_jax.training.objective import Frozen, Recipe
from langfuse_jax.training.configs import load_config
from langfuse_jax.training.parallel import replicate
from langfuse_jax.training.validation import make_validation

net, params = parallel_steps.networks("small")
vision, clip = parallel_steps.small_clip()
words = Words(*np.float32(np.eye(3, 16)))
recipe, frozen = Recipe(PUBLISHED_WEIGHTS, patches=4, entropy_threshold=3.5), Frozen(clip, words, None)
values = {"data.validation": "night", "validation.pairs": 5, "batch_size": 4}
config = load_config(str(quick_training.CONFIG), quick_training.overrides(sys.argv[1], **values))
found = []
for devices in (1, 2):
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    validate = make_validation(config, net, vision, recipe, mesh)
    found.append(validate(replicate(params, mesh), replicate(frozen, mesh)))
one, two = found
assert one.keys() == two.keys() and one["loss"] > 0.1, one
for name in one:
    np.testing.assert_allclose(two[name], one[name], rtol=1e-5)
"""


@pytest.mark.slow
def test_a_divided_optimizer_equals_one_device(one, tmp_path):
    """Gradients, losses and parameters, where each of eight devices keeps an eighth of the moments."""
    _finish(_start(STEPS, tmp_path / "steps.npz", "sharded", "small", 6, devices=8))
    found = np.load(tmp_path / "steps.npz")
    _assert_same(found, "sharded", one)
    # Adam's steps are as long as its rate where there is only the rounding of a gradient: biases before a norm.
    names = [name for name in one.files if name.startswith("one/gradients") and np.abs(one[name]).max() > 1e-2]
    assert len(names) > 8
    for name in (name.replace("gradients", "parameters") for name in names):
        np.testing.assert_allclose(found[name.replace("one", "sharded", 1)], one[name], rtol=0, atol=1e-7)


@pytest.mark.slow
def test_validation_on_two_devices_equals_one(root):
    """Five crops, of which neither has a whole share."""
    _finish(_start("-c", _VALIDATED, root, devices=2))


@pytest.mark.slow
def test_transposed_gradients_are_divided():
    """No device gathers the samples of the others."""
    _finish(_start("-c", _DIVIDED, devices=8))


@pytest.mark.slow
def test_two_processes_of_four_devices_equal_one(one, tmp_path):
    told = ("jit,pmap", "small", 6, _address(), 2)
    _finish(*(_start(STEPS, tmp_path / "steps.npz", *told, i, devices=4) for i in range(2)))
    found = np.load(tmp_path / "steps.npz")
    for mode in ("jit", "pmap"):
        _assert_same(found, mode, one)


def _train(root, workdir, address, index, program=(quick_training.__file__,), **values):
    cluster = ("--coordinator", address, "--num-processes", 2, "--process-id", index)
    flags = quick_training.overrides(root, batch_size=8, **values)
    return _start(*program, "--workdir", workdir, *cluster, *flags, devices=4)


def _endless_pair(root, workdir):
    """Two processes of a training run without end, after its third step."""
    address, metrics = _address(), workdir / "metrics.jsonl"
    pair = [_train(root, workdir, address, index, steps=100000) for index in range(2)]
    end = time.monotonic() + 200
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 3:
        if time.monotonic() > end or any(process.poll() is not None for process in pair):
            for process in pair:
                process.kill()
            pytest.fail(str([process.communicate() for process in pair]))
        time.sleep(0.1)
    return pair


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_killing_a_process_ends_the_other(root, tmp_path, victim):
    pair = _endless_pair(root, tmp_path / "w")
    pair[victim].kill()
    start = time.monotonic()
    (_, error), _ = (pair[i].communicate(timeout=60) for i in (1 - victim, victim))
    assert time.monotonic() - start < 60 and pair[1 - victim].returncode not in (0, None)
    # Either a collective fails, at a step or in a save, which Python reports, or JAX's runtime ends the process first.
    ours = [line for line in error.splitlines() if line.startswith("langfuse-jax: error: ")]
    by_runtime = "JAX distributed service detected fatal errors" in error
    assert by_runtime or (len(ours) == 1 and "this process lost the others" in ours[0]), error
    assert "checkpoint cannot be saved" not in error and "Traceback" not in error, error


_BROKEN = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # as the command does before it imports JAX
import jax, quick_training
from langfuse_jax.cli import main
from langfuse_jax.training import loop

take = loop.Guard.watch
def watch(self, step, count):
    take(self, step, count)
    if step == 3 and jax.process_index() == int(sys.argv[1]):
        raise ValueError("a bug")

loop.Guard.watch = watch
quick_training.patch()
sys.exit(main(["train", "--config", str(quick_training.CONFIG), *sys.argv[2:]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_bug_in_a_process_ends_the_other(root, tmp_path, victim):
    address = _address()
    pair = [_train(root, tmp_path / "w", address, index, ("-c", _BROKEN, victim), steps=100000) for index in range(2)]
    _, error = pair[victim].communicate(timeout=300)
    assert pair[victim].returncode == 1
    *traceback, line = error.splitlines()
    assert traceback[0].startswith("Traceback") and traceback[-1] == "ValueError: a bug"
    assert f"this process, {victim} of 2, ends with ValueError: a bug, and so the others end; start all" in line
    _, error = pair[1 - victim].communicate(timeout=60)
    assert pair[1 - victim].returncode not in (0, None)
    assert "this process lost the others" in error or "JAX distributed service detected fatal errors" in error, error


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (KeyError("crop"), 1, "w: this process, 1 of 2, ends with KeyError: 'crop', and so the others end"),
        (MemoryError(), 1, "w: this process, 1 of 2, ends with MemoryError, and so the others end; start all of"),
        (KeyboardInterrupt(), 130, "w: this process, 1 of 2, ends with KeyboardInterrupt, and so"),
        (SystemExit(3), 1, "w: this process, 1 of 2, ends with SystemExit: 3, and so"),
        (UserError("x.png: is damaged"), 2, "x.png: is damaged"),
        (jax.errors.JaxRuntimeError("reset"), 2, "w: this process lost the others (JaxRuntimeError: reset); start"),
    ],
)
def test_whatever_is_raised_ends_a_process_among_others(error, status, line, monkeypatch, capsys):
    class Ended(BaseException):
        pass

    def end(status):
        raise Ended(status)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with pytest.raises(Ended) as ended, end_together("w"):
        raise error
    assert ended.value.args == (status,)
    *traceback, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"langfuse-jax: error: {line}")
    assert bool(traceback) == isinstance(error, (KeyError, MemoryError))


@pytest.mark.parametrize(("error", "processes"), [(KeyError("crop"), 1), (Preempted("saved"), 2)])
def test_a_process_alone_and_a_common_stop_end_as_ever(error, processes, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    with pytest.raises(type(error)), end_together("w"):
        raise error


@pytest.mark.slow
def test_sigterm_to_one_process_saves_and_ends_both_with_75(root, tmp_path):
    pair = _endless_pair(root, tmp_path / "w")
    pair[1].send_signal(signal.SIGTERM)
    ends = [process.communicate(timeout=100) for process in pair]
    assert [process.returncode for process in pair] == [75, 75], ends
    step = finished_steps(tmp_path / "w" / "checkpoints")[-1]
    assert all(f"stopped by SIGTERM before step {step}, which is saved" in error for _, error in ends)


@pytest.mark.slow
def test_only_process_0_writes_and_both_end_well(root, tmp_path):
    address = _address()
    values = {"steps": 4, "checkpoint.every": 2, "data.validation": "night", "validation.pairs": 5, "scores.every": 2}
    pair = [_train(root, tmp_path / "w", address, index, **values) for index in range(2)]
    ends = _finish(*pair)
    flags = quick_training.overrides(root, batch_size=8, **values)
    _finish(_start(quick_training.__file__, "--workdir", tmp_path / "one", *flags, devices=1))
    for name in ("validation.jsonl", "scores.jsonl", "outcome.jsonl"):
        found, expected = (
            [json.loads(x) for x in (tmp_path / w / name).read_text().splitlines()] for w in ("w", "one")
        )
        for line, alone in zip(found, expected, strict=True):
            assert line == pytest.approx(alone, rel=1e-4)
    assert "trained model" in ends[0][0] and not ends[1][0].replace("[Gloo]", "").count("trained model")
    assert [line["step"] for line in quick_training.metrics(tmp_path / "w")] == [0, 1, 2, 3]
    assert (tmp_path / "w" / "fusion.safetensors").exists()
    assert len(list((tmp_path / "w").glob("events.*"))) == 1


def test_what_does_not_divide_is_refused():
    with pytest.raises(UserError, match=r"config\.batch_size: 7 in 2 parts .* use a multiple of 2"):
        check_division(7, 2)
    with pytest.raises(UserError, match=r"config\.memory\.accumulate: 0"):
        check_division(8, 0)
    config = load_config("smoke", ["--config.parallel.shard_optimizer=True", "--config.parallel.mode=pmap"])
    with pytest.raises(UserError, match=r"config\.parallel\.shard_optimizer: requires config\.parallel\.mode 'jit'"):
        check_parallel(config)
    with pytest.raises(UserError, match=r"config\.parallel\.mode: 'tpu' is unknown; use one of jit, pmap"):
        compile_step(lambda **_: None, "tpu", data_mesh())


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (("localhost", 2, 0), "--coordinator localhost: has no port"),
        (("localhost:1234", 2, 2), "--process-id 2: is none of 2 processes"),
        (("localhost:1234", 0, 0), "--num-processes 0: is no number of processes"),
        (("localhost:1234", None, None), "--coordinator localhost:1234: .*give --num-processes, --process-id too"),
        ((None, 2, None), "^--num-processes 2: .*give --coordinator, --process-id too"),
    ],
)
def test_half_told_clusters_are_refused(told, message):
    with pytest.raises(UserError, match=message):
        join_cluster(*told)

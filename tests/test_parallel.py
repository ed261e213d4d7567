"""Training on several devices and in several processes equals one device; a process that dies ends the others."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import quick_training

from langfuse_jax import UserError
from langfuse_jax.distributed import join_cluster
from langfuse_jax.training import checkpoints
from langfuse_jax.training.parallel import check_division, compile_step, data_mesh

STEPS = Path(__file__).with_name("parallel_steps.py")


def _environment(devices):
    """Of a process with so many emulated CPU devices; without jaxtyping's checks, as users run it."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


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


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The small network's steps on one device."""
    out = tmp_path_factory.mktemp("one") / "steps.npz"
    _finish(_start(STEPS, out, "one", "small", 20, devices=1))
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
def test_eight_devices_equal_one(tmp_path):
    _finish(_start(STEPS, tmp_path / "steps.npz", "one,jit,pmap", "whole", 20, devices=8))
    found = np.load(tmp_path / "steps.npz")
    for mode in ("jit", "pmap"):
        _assert_same(found, mode, found)


_DIVIDED = """
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from langfuse_jax.models.convolution import conv_transpose
from langfuse_jax.training import checkpoints
from langfuse_jax.training.parallel import data_mesh

blocks, everywhere = (NamedSharding(data_mesh(), PartitionSpec(*axes)) for axes in (("data",), ()))
x, kernel = (jax.ShapeDtypeStruct(shape, "float32") for shape in ((16, 9, 9, 8), (5, 5, 8, 8)))
gradient = jax.grad(lambda x, kernel: jnp.square(conv_transpose(x, kernel)).sum(), (0, 1))
compiled = jax.jit(gradient, in_shardings=(blocks, everywhere), out_shardings=(blocks, everywhere)).lower(x, kernel)
text = compiled.compile().as_text()
assert "all-reduce" in text and "all-gather" not in text, text
"""


@pytest.mark.slow
def test_transposed_gradients_are_divided():
    """No device gathers the samples of the others."""
    _finish(_start("-c", _DIVIDED, devices=8))


@pytest.mark.slow
def test_two_processes_of_four_devices_equal_one(one, tmp_path):
    told = ("jit,pmap", "small", 20, _address(), 2)
    _finish(*(_start(STEPS, tmp_path / "steps.npz", *told, i, devices=4) for i in range(2)))
    found = np.load(tmp_path / "steps.npz")
    for mode in ("jit", "pmap"):
        _assert_same(found, mode, one)


@pytest.fixture
def root(tmp_path):
    quick_training.draw_scenes(tmp_path / "data", range(8))
    return tmp_path / "data"


def _train(root, workdir, address, index, **values):
    cluster = ("--coordinator", address, "--num-processes", 2, "--process-id", index)
    flags = quick_training.overrides(root, batch_size=8, **values)
    return _start(quick_training.__file__, "--workdir", workdir, *cluster, *flags, devices=4)


def _endless_pair(root, workdir):
    """Two processes of a training without end, after its third step."""
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
    # Either a collective fails, which Python tells, or JAX's runtime hears of it first and ends the process.
    assert len(error.splitlines()) == 1, error
    assert f"process {victim} is gone" in error or "this process lost the others" in error
    assert "from the last checkpoint" in error or "from its last checkpoint" in error


@pytest.mark.slow
def test_sigterm_to_one_process_saves_and_ends_both_with_75(root, tmp_path):
    pair = _endless_pair(root, tmp_path / "w")
    pair[1].send_signal(signal.SIGTERM)
    ends = [process.communicate(timeout=100) for process in pair]
    assert [process.returncode for process in pair] == [75, 75], ends
    step = checkpoints.finished_steps(tmp_path / "w" / "checkpoints")[-1]
    assert all(f"stopped by SIGTERM before step {step}, which is saved" in error for _, error in ends)


@pytest.mark.slow
def test_only_process_0_writes_and_both_end_well(root, tmp_path):
    address = _address()
    pair = [_train(root, tmp_path / "w", address, index, steps=4, checkpoint_every=2) for index in range(2)]
    ends = _finish(*pair)
    assert "trained model" in ends[0][0] and not ends[1][0].replace("[Gloo]", "").count("trained model")
    assert [line["step"] for line in quick_training.metrics(tmp_path / "w")] == [0, 1, 2, 3]
    assert (tmp_path / "w" / "fusion.safetensors").exists()
    assert len(list((tmp_path / "w" / "tensorboard").iterdir())) == 1


def test_what_does_not_divide_is_refused():
    with pytest.raises(UserError, match=r"config\.batch_size: 7 in 2 parts .* use a multiple of 2"):
        check_division(7, 2)
    with pytest.raises(UserError, match=r"config\.accumulate: 0"):
        check_division(8, 0)
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


def test_the_runtimes_last_words_become_one_line(tmp_path):
    report = (
        "F1123 14:04:46 8555 client.h:80] Terminating process because the JAX distributed service detected fatal "
        "errors. absl::Status: UNAVAILABLE: The following tasks are unhealthy:\n1\nThe tasks have crashed.\n\n"
        "*** Check failure stack trace: ***\n    @     0x7fe5 absl::LogMessage()\n"
    )
    script = "import os, sys; from langfuse_jax import last_words as words; words.shorten(); "
    script += "os.write(2, sys.argv[1].encode()); print('Python', file=sys.stderr)"
    command = [sys.executable, "-c", script]
    errors = [
        subprocess.run([*command, text], capture_output=True, text=True).stderr.splitlines()
        for text in ("a warning\n", report, report.replace("\n1\n", "leader task\n"))
    ]
    assert sorted(errors[0]) == ["Python", "a warning"]
    for lines, gone in zip(errors[1:], (1, 0), strict=True):
        (line,) = set(lines) - {"Python"}
        assert line.startswith(f"langfuse-jax: error: process {gone} is gone") and "start all of them again" in line

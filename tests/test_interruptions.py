"""Trainings that are killed, stopped, refused, run out of disk or diverge; of a tiny network with a cheap loss."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quick_training
from PIL import Image
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

from langfuse_jax import Fuser, UserError
from langfuse_jax.cli import main
from langfuse_jax.clip.words import GOAL
from langfuse_jax.runtime.workdir_lock import locked
from langfuse_jax.training.configs import load_config
from langfuse_jax.training.fusion import train_fusion
from langfuse_jax.training.guard import Guard
from langfuse_jax.training.log import TrainingLog
from langfuse_jax.training.step import TrainState, init_state, make_train_step
from langfuse_jax.weights.checkpoint import finished_steps, restore_params
from langfuse_jax.weights.fusion import load_fusion


@pytest.fixture
def quick(monkeypatch):
    quick_training.patch(monkeypatch.setattr)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    quick_training.draw_scenes(root)
    return root


def _checkpoints(workdir):
    return [workdir / "checkpoints" / str(step) for step in finished_steps(workdir / "checkpoints")]


def _config(root, **values):
    return load_config(str(quick_training.CONFIG), quick_training.overrides(root, **values))


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """A training run of twelve steps in one go."""
    with pytest.MonkeyPatch.context() as patch:
        quick_training.patch(patch.setattr)
        workdir = tmp_path_factory.mktemp("whole") / "w"
        return workdir, train_fusion(_config(root), workdir)


def _start(root, workdir, **values):
    command = [sys.executable, quick_training.__file__, "--workdir", str(workdir)]
    return subprocess.Popen(
        [*command, *quick_training.overrides(root, **values)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _wait_for(process, happened, seconds=300):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end and process.poll() is None, process.communicate()
        time.sleep(0.002)


def _finish(process):
    output, error = process.communicate(timeout=300)
    assert process.returncode == 0, (output, error)


def _assert_same(workdir, whole):
    assert (workdir / "fusion.safetensors").read_bytes() == (whole[0] / "fusion.safetensors").read_bytes()
    assert quick_training.metrics(workdir) == quick_training.metrics(whole[0])


# A training run that is killed before its n-th call that makes, opens, renames or removes a file of a name like this.
_KILLED = """
import os, re, runpy, sys
count, name, script = int(sys.argv[1]), re.compile(sys.argv[2]), sys.argv[3]
events = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}
def watch(event, arguments):
    global count
    if event in events and name.search(f"{arguments[0]} {arguments[1]}"):
        count -= 1
        if count == 0:
            os.kill(os.getpid(), 9)
sys.argv[:] = sys.argv[3:]
sys.path.insert(0, os.path.dirname(script))
sys.addaudithook(watch)
runpy.run_path(script, run_name="__main__")
"""


def _killed(root, workdir, count, name):
    """The status of a training run that is to be killed."""
    command = [sys.executable, "-c", _KILLED, str(count), name, quick_training.__file__, "--workdir", str(workdir)]
    return subprocess.run([*command, *quick_training.overrides(root)], capture_output=True).returncode


@pytest.mark.slow
def test_killed_during_a_save(root, whole, tmp_path):
    """SIGKILL before a checkpoint gets its name: the one before it serves, and the end is the same to the bit."""
    folder = tmp_path / "w" / "checkpoints"
    assert _killed(root, tmp_path / "w", 1, r"checkpoints/6\S*tmp\S* \S*checkpoints/6$") == -signal.SIGKILL
    assert finished_steps(folder) == [2, 4] and any("tmp" in path.name for path in folder.iterdir())
    _finish(_start(root, tmp_path / "w"))
    _assert_same(tmp_path / "w", whole)
    assert not [path for path in folder.iterdir() if "tmp" in path.name]


@pytest.mark.slow
def test_killed_at_any_moment(root, whole, tmp_path):
    """Ever later, by the files that it touches, until it is done before."""
    moments, kills = random.Random(0), 0
    while (status := _killed(root, tmp_path / "w", moments.randint(1, 20 + 20 * kills), "/w/")) == -signal.SIGKILL:
        kills += 1
    assert status == 0 and kills >= 3
    _assert_same(tmp_path / "w", whole)


def test_sigterm_saves_and_ends_with_75(root, tmp_path, quick, monkeypatch, capsys):
    """And with the handler that was there before."""

    def write(log, step, *arguments, **options):
        written(log, step, *arguments, **options)
        if step == 3:
            signal.raise_signal(signal.SIGTERM)

    written = TrainingLog.write
    monkeypatch.setattr(TrainingLog, "write", write)
    handler = signal.getsignal(signal.SIGTERM)
    command = ["train", "--config", str(quick_training.CONFIG), "--workdir", str(tmp_path / "w")]
    assert main([*command, *quick_training.overrides(root, checkpoint__every=100)]) == 75
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert finished_steps(tmp_path / "w" / "checkpoints") == [4]
    assert "stopped by SIGTERM before step 4, which is saved" in error
    assert Fuser.load(tmp_path / "w").params.keys() == {"params"}
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.slow
def test_sigterm_to_a_process_saves_and_ends_it_with_75(root, tmp_path, quick):
    metrics = tmp_path / "w" / "metrics.jsonl"
    # Long enough that it cannot end by itself; then a checkpoint of its own place is what goes on.
    process = _start(root, tmp_path / "w", steps=100000, checkpoint__every=100000)
    _wait_for(process, lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= 3)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=100)
    assert process.returncode == 75, error
    (step,) = finished_steps(tmp_path / "w" / "checkpoints")
    assert step >= 3 and f"stopped by SIGTERM before step {step}, which is saved" in error.splitlines()[-1]
    assert Fuser.load(tmp_path / "w").params.keys() == {"params"}


def test_resuming_repeats_the_training_exactly(root, whole, tmp_path, quick):
    shutil.copytree(whole[0], tmp_path / "w")
    shutil.rmtree(tmp_path / "w" / "checkpoints" / "12")
    again = train_fusion(_config(root), tmp_path / "w")
    jax.tree.map(np.testing.assert_array_equal, again.params, whole[1].params)
    _assert_same(tmp_path / "w", whole)
    # Started when all is done, it does nothing.
    jax.tree.map(np.testing.assert_array_equal, train_fusion(_config(root), tmp_path / "w").params, again.params)


def test_the_average_is_kept_resumed_and_used(root, whole, tmp_path, quick):
    config = _config(root, optimizer__ema=0.75)
    state = train_fusion(config, tmp_path / "a")
    looking_on = partial(np.testing.assert_allclose, atol=1e-6)  # changes nothing, but is another program
    jax.tree.map(looking_on, state.params, whole[1].params)
    shutil.rmtree(tmp_path / "a" / "checkpoints" / "12")
    resumed = train_fusion(config, tmp_path / "a")
    jax.tree.map(np.testing.assert_array_equal, state.average, resumed.average)
    jax.tree.map(np.testing.assert_array_equal, restore_params(tmp_path / "a"), state.average)
    jax.tree.map(np.testing.assert_array_equal, load_fusion(tmp_path / "a")[0], state.average)
    gap = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (state.params, state.average)), strict=True)]
    assert max(gap) > 1e-5


def test_another_config_is_refused_but_for_override(root, whole, tmp_path, capsys, quick):
    shutil.copytree(whole[0], tmp_path / "w")
    command = ["train", "--config", str(quick_training.CONFIG), "--workdir", str(tmp_path / "w")]
    same = quick_training.overrides(root, crop=36)
    assert main([*command, "--override", *same]) == 0  # nothing is left to train: the model sees as it was trained
    assert load_fusion(tmp_path / "w")[1]["pad_multiple"] == 8
    changed = quick_training.overrides(root, steps=14, crop=36, **{"loss.patch": 3.0, "seed": 4})
    capsys.readouterr()
    assert main([*command, *changed]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and "checkpoints/12" in error[0] and "--override" in error[0]
    assert "config.loss.patch 10.0 -> 3.0, config.seed 0 -> 4, config.steps 12 -> 14" in error[0]
    assert main([*command, "--override", *changed]) == 0
    assert len((tmp_path / "w" / "metrics.jsonl").read_text().splitlines()) == 14
    assert json.loads((tmp_path / "w" / "config.json").read_text())["seed"] == 4
    assert "w: resuming from step 12\n" in capsys.readouterr().err
    told = [Fuser.load(place).metadata["pad_multiple"] for place in [tmp_path / "w", *_checkpoints(tmp_path / "w")]]
    assert told == [1, 8, 1]  # of the model and the checkpoints of steps 12 and 14


def test_the_best_checkpoint_is_kept_beside_the_latest(root, tmp_path, quick, monkeypatch):
    losses = {0: 4.0, 2: 3.0, 4: 1.0, 6: 2.0, 8: float("nan"), 10: 2.5, 12: 2.0}
    monkeypatch.setattr(
        "langfuse_jax.training.fusion.make_validation", lambda *_: lambda params, frozen: {"loss": losses[taken.pop(0)]}
    )
    taken = list(losses)
    train_fusion(_config(root), tmp_path / "w")
    assert finished_steps(tmp_path / "w" / "checkpoints") == [4, 10, 12]
    best, last = Fuser.load(tmp_path / "w" / "checkpoints" / "4"), Fuser.load(tmp_path / "w")
    gap = [float(abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (best.params, last.params)), strict=True)]
    assert max(gap) > 1e-4
    with pytest.raises(UserError, match="no checkpoint of step 6"):
        restore_params(tmp_path / "w", 6)


def test_validation_and_outcome_are_written_and_repeat(root, tmp_path, quick, capsys):
    """What a resumed run calls "before" is the start of the whole run."""
    values = {"data.validation": "night", "validation.pairs": 3, "steps": 4, "sheet.every": 0, "sheet.pairs": 3}
    values["optimizer.learning_rate"] = 0.02  # so that it shows in 8 bits

    def trained():
        train_fusion(_config(root, **values), tmp_path / "a")
        (outcome,) = quick_training.lines(tmp_path / "a" / "outcome.jsonl")
        return quick_training.lines(tmp_path / "a" / "validation.jsonl"), outcome, capsys.readouterr().out

    lines, outcome, told = trained()
    assert [line["step"] for line in lines] == [0, 2, 4] and len({line["loss"] for line in lines}) == 3
    assert outcome.keys() == {"step", f"loss_before/{GOAL}", f"loss_after/{GOAL}"}  # too small for periodicity
    before, after = (outcome[f"loss_{when}/{GOAL}"] for when in ("before", "after"))
    assert abs(before - after) > 0.002 and f"{GOAL!r}: {before:.3f} before, {after:.3f} after" in told
    assert "on 3 validation pairs" in told and not (tmp_path / "a" / "sheets").exists()
    shutil.rmtree(tmp_path / "a" / "checkpoints" / "4")
    assert trained() == (lines, outcome, told)


def test_tensorboard_calls_a_run_by_its_work_directory(whole):
    """And draws its curves through every step of a run of less than fifty."""
    runs = EventMultiplexer().AddRunsFromDirectory(str(whole[0].parent)).Reload()
    assert list(runs.Runs()) == ["w"]
    assert [event.step for event in runs.Scalars("w", "train/loss")] == list(range(12))


def test_a_full_disk_leaves_the_checkpoint_before(root, tmp_path, quick, monkeypatch, capfd):
    def validate(params, frozen):
        saves.append(1)
        if len(saves) == 3:
            monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5 << 10))
        return {"loss": 1.0}

    saves = []  # and what is judged before the first step
    monkeypatch.setattr("langfuse_jax.training.fusion.make_validation", lambda *_: validate)
    command = ["train", "--config", str(quick_training.CONFIG), "--workdir", str(tmp_path / "w")]
    assert main([*command, *quick_training.overrides(root)]) == 2
    (error,) = capfd.readouterr().err.strip().splitlines()
    assert "a checkpoint cannot be saved" in error and "0 MiB needed, 0 free" in error
    assert "the one of step 2 stays usable" in error
    assert Fuser.load(tmp_path / "w").params


# From the fourth save on, perhaps with the third under way, a limit on the size of files fails writes as a full disk.
_FULL = """
import resource, signal, sys
import quick_training
from langfuse_jax.cli import main
from langfuse_jax.training import fusion

def validate(params, frozen):
    saves.append(1)
    if len(saves) == 4:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
    return {"loss": 1.0}

saves = []
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
quick_training.patch()
fusion.make_validation = lambda *_: validate
sys.exit(main(["train", *sys.argv[1:]]))
"""


@pytest.mark.slow
def test_a_disk_that_fills_while_a_checkpoint_is_written_is_one_line(root, tmp_path):
    command = [sys.executable, "-c", _FULL, "--config", str(quick_training.CONFIG), "--workdir", str(tmp_path / "w")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [*command, *quick_training.overrides(root)], capture_output=True, text=True, env=environment, timeout=300
    )
    (error,) = done.stderr.strip().splitlines()
    assert done.returncode == 2 and "a checkpoint cannot be saved" in error and "stays usable" in error
    assert Fuser.load(tmp_path / "w").params.keys() == {"params"}


def test_a_full_disk_is_told_before_anything_is_compiled(root, tmp_path, quick, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5 << 10))
    monkeypatch.setattr("langfuse_jax.training.loop.compile_step", lambda *_: pytest.fail("compiles"))
    command = ["train", "--config", str(quick_training.CONFIG), "--workdir", str(tmp_path / "w")]
    assert main([*command, *quick_training.overrides(root)]) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert "w: cannot hold a checkpoint" in error and "0 MiB needed, 0 free" in error and "use another" in error
    assert not (tmp_path / "w").exists()


def test_a_workdir_is_for_one_training_at_a_time(root, tmp_path, quick, capsys):
    command = ["train", "--config", str(quick_training.CONFIG), "--workdir", str(tmp_path)]
    with locked(tmp_path):
        before = sorted(tmp_path.iterdir())
        assert main([*command, *quick_training.overrides(root)]) == 2
        assert sorted(tmp_path.iterdir()) == before
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert f"{tmp_path}: is in use by process {os.getpid()} on " in error and "choose another folder" in error


def test_black_scenes_are_skipped_by_name_and_end_the_training(tmp_path, capsys, quick):
    quick_training.draw_scenes(tmp_path, seeds=(0, 1, 2))
    config = _config(tmp_path, steps=6, batch_size=1, optimizer__ema=0.5)
    for role in ("visible", "infrared"):
        Image.new("L", (64, 48)).save(tmp_path / "night" / role / "1.png")
    state = train_fusion(config, tmp_path / "w")
    assert int(state.skipped) == 2 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    warnings = [line for line in capsys.readouterr().err.splitlines() if "is not finite" in line]
    assert len(warnings) == 2 and all("night/visible/1" in line and "(1 in a row" in line for line in warnings)
    lines = quick_training.metrics(tmp_path / "w")
    assert lines[-1]["skipped"] == 2 and sum(line["loss"] is None for line in lines) == 2
    for role in ("visible", "infrared"):
        for seed in (0, 2):
            Image.new("L", (64, 48)).save(tmp_path / "night" / role / f"{seed}.png")
    config.guard.max_skipped, config.steps = 3, 20
    with pytest.raises(UserError, match=r"step 7: .*3 steps in a row.*night/visible/\d; last good.*checkpoints/8\."):
        train_fusion(config, tmp_path / "w", override=True)


def test_a_step_that_is_not_finite_changes_only_the_counts():
    optimizer = optax.adam(0.1)
    params = {"w": jnp.ones(3)}
    state = init_state(params, optimizer, average=True)
    step = jax.jit(make_train_step(quick_training.loss, optimizer, average_decay=0.5))
    good, black = ({role: jnp.full((1, 4, 4, 1), level) for role in ("visible", "infrared")} for level in (0.5, 0))
    counts, states = [], [state]
    for batch in (good, black, black, good, black):
        state, metrics = step(state, batch, jax.random.key(0), None)
        counts.append((int(state.step), int(metrics["skipped"]), int(metrics["skipped_in_a_row"])))
        states.append(state)
    assert counts == [(1, 0, 0), (2, 1, 1), (3, 2, 2), (4, 2, 0), (5, 3, 1)]

    def kept(state):
        return jax.tree.leaves((state.params, state.opt_state, state.average))

    for a, b in zip(kept(states[1]), kept(states[3]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(states[3].params["w"], states[4].params["w"])


def _guard(max_skipped=10, max_dead=10):
    return Guard(max_skipped, max_dead, names=lambda step: [f"scene{step}"], last_checkpoint=lambda: None)


def _reported(skipped_in_a_row=0, gradient_norm=1.0, fused_std=0.1):
    return {
        "skipped_in_a_row": jnp.int32(skipped_in_a_row),
        "gradient_norm": jnp.float32(gradient_norm),
        "fused_std": jnp.float32(fused_std),
    }


def test_the_guard_counts_skipped_steps_to_its_limit():
    guard = _guard(max_skipped=2)
    for step, count in enumerate((0, 1, 0, 1)):
        guard.watch(step, _reported(count, gradient_norm=np.nan, fused_std=np.nan))
    guard.watch(4, _reported(2, gradient_norm=np.nan, fused_std=np.nan))
    with pytest.raises(UserError, match=r"step 4: .*scene4; last good checkpoint: there is none"):
        guard.look()


@pytest.mark.parametrize(
    ("dead", "words"),
    [({"gradient_norm": 0.0}, "the gradient is exactly zero"), ({"fused_std": 1e-4}, "the fused images are constant")],
)
def test_the_guard_ends_a_run_that_learns_nothing(dead, words):
    guard = _guard(max_dead=3)
    for step, values in enumerate((dead, dead, {}, dead, dead)):
        guard.watch(step, _reported(**values))
    guard.watch(5, _reported(**dead))
    with pytest.raises(
        UserError, match=rf"^step 5: {words}, for 3 steps in a row \(config.guard.max_dead\).*none\. .*"
    ):
        guard.look()


def test_a_training_run_whose_gradient_vanishes_ends_in_one_line(tmp_path, capsys, quick, monkeypatch):
    quick_training.draw_scenes(tmp_path)

    def flat(*arguments, **settings):
        total, terms = quick_training.loss(*arguments, **settings)
        return jax.lax.stop_gradient(total), terms

    monkeypatch.setattr("langfuse_jax.training.fusion.fusion_loss", flat)
    flags = quick_training.overrides(tmp_path, steps=9, guard__max_dead=4)
    status = main(["train", "--config", str(quick_training.CONFIG), "--workdir", str(tmp_path / "w"), *flags])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 2 and "step 3: the gradient is exactly zero, for 4 steps in a row" in error
    assert "checkpoints/4" in error and not (tmp_path / "w" / "fusion.safetensors").exists()


_EIGHT = """
import sys
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from ml_collections import ConfigDict
from langfuse_jax.training import checkpoints
from test_interruptions import small_state

devices = int(sys.argv[2])
assert len(jax.devices()) == devices
mesh = Mesh(np.array(jax.devices()), ("data",))
value = float(sys.argv[3])
place = NamedSharding(mesh, P("data"))
state = jax.tree.map(lambda x: jax.device_put(x, place if x.ndim else NamedSharding(mesh, P())), small_state(value))
manager = checkpoints.open_checkpoints(sys.argv[1])
with checkpoints.closing(manager):
    state, key, _ = checkpoints.restore(manager, state, key=jax.random.key(7), config=ConfigDict({"a": 1}))
    print(int(state.step), float(state.params["w"][5]), len(state.params["w"].sharding.device_set))
    state = state.replace(step=state.step + 1)
    checkpoints.save(manager, state, key=key, config=ConfigDict({"a": 1}))
"""


def small_state(value):
    params = {"w": jnp.arange(16.0) + value}
    return TrainState(jnp.int32(3), params, optax.adam(0.1).init(params), None, jnp.int32(0), jnp.int32(0))


@pytest.mark.slow
def test_restored_on_other_numbers_of_devices(tmp_path):
    """Saved on eight devices, restored and saved on one, then on two: the shardings are those of the new run."""
    printed = []
    for devices, value in ((8, 10.0), (1, 0.0), (2, 0.0)):
        done = subprocess.run(
            [sys.executable, "-c", _EIGHT, str(tmp_path), str(devices), str(value)],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
                "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
            },
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout.split())
    assert printed == [["3", "15.0", "8"], ["4", "15.0", "1"], ["5", "15.0", "2"]]
    assert restore_params(tmp_path)["w"][5] == 15.0

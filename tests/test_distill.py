"""Distillation: the command, what it leaves, going on after a stop, and its errors."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from quick_training import draw_scenes

from langfuse_jax.cli import main
from langfuse_jax.data.pipeline import TrainingData
from langfuse_jax.data.scenes import Scenes, list_scenes
from langfuse_jax.distillation.faded import FadedScenes
from langfuse_jax.distillation.loss import imitation_loss
from langfuse_jax.distillation.taught import TaughtScenes, fingerprint
from langfuse_jax.distillation.train import turned
from langfuse_jax.errors import UserError
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.losses.ssim import ssim
from langfuse_jax.models.fusion import fresh_params
from langfuse_jax.models.student import StudentNet
from langfuse_jax.runtime.workdir_lock import locked
from langfuse_jax.weights.fusion import load_fusion, save_fusion

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "student.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    draw_scenes(folder)
    return folder


def _flags(data, workdir, **values):
    values = {
        "data.root": data,
        "data.train": "('night',)",
        "data.validation": "night",
        "augment.faded_copies": 1,
        "crop": 32,
        "batch_size": 2,
        "steps": 30,
        "optimizer.warmup_steps": 2,
        "optimizer.learning_rate": 4e-3,
        "checkpoint.every": 10,
        "scores.every": 10,
        "log.every": 10,
        **values,
    }
    overrides = [f"--config.{key}={value}" for key, value in values.items()]
    return ["distill", "--config", str(CONFIG), "--workdir", str(workdir), *overrides]


@pytest.fixture(scope="module")
def student(data, tmp_path_factory):
    """The workdir of a short distillation."""
    workdir = tmp_path_factory.mktemp("runs") / "student"
    assert main(_flags(data, workdir)) == 0
    return workdir


def test_it_learns_and_leaves_a_student(student, data, tmp_path):
    losses = [json.loads(line)["loss"] for line in (student / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 4 and losses[-1] < losses[0]
    scores = [json.loads(line) for line in (student / "scores.jsonl").read_text().splitlines()]
    assert [score["step"] for score in scores] == [10, 20, 30] and scores[-1]["ssim"] > scores[0]["ssim"]
    params, metadata = load_fusion(student)
    assert metadata["ssim_to_teacher"] == round(scores[-1]["ssim"], 4) and metadata["data"]["pairs"] == 3
    assert isinstance(Fuser(params).net, StudentNet)
    assert (student / "sheet.png").stat().st_size > 1000
    sources = [str(data / "night" / role / "0.png") for role in ("visible", "infrared")]
    out = tmp_path / "fused.png"
    fuse = ["fuse", "--visible", sources[0], "--infrared", sources[1], "--checkpoint", str(student), "--out", str(out)]
    assert main(fuse) == 0 and out.exists()


def test_the_teacher_sees_whole_scenes_once(student, data):
    scenes = FadedScenes(Scenes(list_scenes(data / "night")), copies=1, most=0.7, seed=0)
    (folder,) = (student / "taught").iterdir()
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(before) == 6  # the validation scenes are among those of the training
    taught = TaughtScenes(scenes, Fuser.load(), student / "taught")
    taught.teach()
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    for i in (1, 4):
        visible, infrared, fused = taught[i]
        np.testing.assert_allclose(fused, Fuser.load()(visible, infrared), atol=1e-3)
    assert infrared.std() < 0.6 * taught[1][1].std()  # scene 4 is scene 1, faded
    path = taught.path(2)
    kept = path.read_bytes()
    np.save(path, np.zeros((4, 4), np.float16))
    with pytest.raises(UserError, match=f"{path.name}: is of another size than its scene; remove it"):
        taught[2]
    path.write_bytes(kept[:50])
    with pytest.raises(UserError, match=f"{path.name}: cannot be read .*; remove it"):
        taught[2]
    path.write_bytes(kept)


class Average(Fuser):
    """A teacher that compiles nothing, and counts what it fuses."""

    def __init__(self, **seen):
        super().__init__({}, seen)
        self.fused = set()

    def program(self, canvas, batch):
        def average(visible, infrared, sizes):
            self.fused |= {image.tobytes() for image in visible}
            return (visible + infrared) / 2

        return average


def _images(folder, number, level):
    """A pair of flat images, of the same size as all others."""
    for role, pixel in (("visible", level), ("infrared", level + 20)):
        (folder / role).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 45), pixel, np.uint8)).save(folder / role / f"{number}.png")


def test_targets_follow_their_sources(tmp_path):
    """A pair that sorts first is added, another is changed: every target is its own scene's, and two images are new."""
    teacher = Average()
    numbered = tmp_path / "kept" / f"teacher_{fingerprint({})}" / "000000.npy"
    numbered.parent.mkdir(parents=True)
    np.save(numbered, np.zeros((40, 45), np.float16))  # as older versions kept them

    def teach():
        teacher.fused.clear()
        taught = TaughtScenes(Scenes(list_scenes(tmp_path / "data")), teacher, tmp_path / "kept")
        taught.teach()
        for visible, infrared, fused in taught:
            np.testing.assert_allclose(fused, (visible + infrared) / 2, atol=1e-3)
        return len(teacher.fused)

    for number in (2, 3, 4):
        _images(tmp_path / "data", number, 50 * number)
    assert teach() == 3 and teach() == 0
    _images(tmp_path / "data", 1, 30)
    _images(tmp_path / "data", 3, 31)
    assert teach() == 2


def test_a_teacher_that_sees_otherwise_teaches_anew(tmp_path):
    _images(tmp_path / "data", 1, 30)
    scenes = Scenes(list_scenes(tmp_path / "data"))
    for seen in ({}, {"pad_multiple": 8}):
        teacher = Average(**seen)
        TaughtScenes(scenes, teacher, tmp_path / "kept").teach()
        assert len(teacher.fused) == 1


def test_copies_fade_by_the_seed_and_without_jax(tmp_path, monkeypatch):
    """Threads that read must not wait for the device, nor reserve its memory in processes of their own."""

    def refused(*arguments, **settings):
        raise AssertionError("JAX computes")

    for number in (1, 2):
        _images(tmp_path, number, 40 * number)
    scenes = Scenes(list_scenes(tmp_path))
    monkeypatch.setattr(jax.extend.core.Primitive, "bind", refused)

    def copies(seed):
        faded = FadedScenes(scenes, copies=2, most=0.7, seed=seed)
        data = TrainingData(faded, crop=32, batch_size=2, seed=seed)
        assert next(data.batches())["visible"].shape == (2, 32, 32, 1)
        return np.stack([faded[i] for i in range(2, 6)])

    first = copies(0)
    assert first.dtype == np.float32 and len(np.unique(first)) == 8  # two flat sources of two copies of two scenes
    np.testing.assert_array_equal(copies(0), first)
    assert not np.isin(copies(1), first).any()


@pytest.mark.slow
def test_it_goes_on_where_it_was_stopped(student, data, tmp_path):
    """SIGTERM saves, and the same command gives the same student in the end."""
    argv = _flags(data, tmp_path / "again")
    code = (
        "import os, signal, sys, langfuse_jax.training.loop as d\n"
        "write = d.TrainingLog.write\n"
        "def stop(self, step, *args, **kwargs):\n"
        "    write(self, step, *args, **kwargs)\n"
        "    if step == 14: os.kill(os.getpid(), signal.SIGTERM)\n"
        "d.TrainingLog.write = stop\n"
        "from langfuse_jax.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, env=environment)
    assert done.returncode == 75 and "before step 15" in done.stderr, done.stderr
    assert not (tmp_path / "again" / "fusion.safetensors").exists()
    assert main(argv) == 0
    for a, b in zip(*(jax.tree.leaves(load_fusion(f)[0]) for f in (student, tmp_path / "again")), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_workdir_is_for_one_training_run_at_a_time(data, tmp_path, capsys):
    with locked(tmp_path):
        before = sorted(tmp_path.iterdir())
        assert main(_flags(data, tmp_path)) == 2
        assert sorted(tmp_path.iterdir()) == before
    assert f"{tmp_path}: is in use by process" in capsys.readouterr().err


@pytest.mark.slow
def test_an_unfinished_student_fuses(student, tmp_path):
    """From its checkpoints alone."""
    (tmp_path / "checkpoints").symlink_to(student / "checkpoints")
    visible, infrared = np.random.default_rng(0).uniform(size=(2, 40, 50)).astype(np.float32)
    np.testing.assert_allclose(
        Fuser.load(tmp_path)(visible, infrared), Fuser.load(student)(visible, infrared), atol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "config.steps: 0 is too small; use 1 or more"),
        ({"crop": 16}, "config.crop: 16 is too small; use 32 or more"),
        ({"optimizer.ema": 1.0}, "config.optimizer.ema: 1.0 is out of range"),
        ({"teacher": "{student}"}, "config.teacher: {student}: holds a student"),
        ({"teacher": "nowhere"}, "nowhere: no such folder"),
        ({"data.validation": "nowhere"}, "nowhere: no such folder"),
        ({"augment.fading": 1.0}, "config.augment.fading: 1.0 is out of range"),
        ({"seed": -1}, "config.seed: -1 is too small"),
        ({"augment.faded_copies": -1}, "config.augment.faded_copies: -1 is too small"),
        ({"batch_size": 4, "augment.faded_copies": 0}, "config.batch_size: 4 is more than the 3 pairs"),
        (
            {"optimizer.learning_rate": 0.5},
            "was saved with another config: config.optimizer.learning_rate 0.004 -> 0.5",
        ),
    ],
)
def test_users_errors_are_one_line(student, data, capsys, tmp_path, values, message, monkeypatch):
    monkeypatch.setattr(TaughtScenes, "teach", lambda _: pytest.fail("the teacher, who takes minutes, is asked first"))
    workdir = student if "optimizer.learning_rate" in values else tmp_path / "out"
    values = {key: str(value).format(student=student) for key, value in values.items()}
    assert main(_flags(data, workdir, **values)) == 2
    error = capsys.readouterr().err
    assert message.format(student=student) in error and error.count("\n") == 1, error


@pytest.mark.slow
def test_training_and_conversion_refuse_a_student(student, data, capsys, tmp_path):
    smoke = str(CONFIG.with_name("smoke.py"))
    argv = ["train", "--config", smoke, "--workdir", str(tmp_path / "w"), f"--config.data.root={data}"]
    argv += ["--config.data.train=('night',)", "--config.data.validation=", f"--config.init_from={student}"]
    assert main(argv) == 2
    assert "holds a student" in capsys.readouterr().err
    outputs = ["--out-encoder", str(tmp_path / "e.pt"), "--out-decoder", str(tmp_path / "d.pt")]
    assert main(["convert", "fusion", "--to-torch", str(student), *outputs]) == 2
    assert "holds a student" in capsys.readouterr().err
    assert not (tmp_path / "e.pt").exists()


def test_loss_by_hand():
    """A difference of 0.1 everywhere, and a step of 0.2 in the left half of four columns."""
    taught = jnp.full((1, 32, 32, 1), 0.5)
    total, terms = imitation_loss(taught + 0.1, taught)
    assert terms["pixels"] == pytest.approx(0.1, rel=2e-4) and abs(terms["differences"]) < 1e-6
    c1 = (0.01 * 255) ** 2
    ssim = (2 * 127.5 * 153 + c1) / (127.5**2 + 153**2 + c1)  # no variance: the luminance term alone
    assert terms["ssim"] == pytest.approx(ssim, rel=1e-4)
    assert total == pytest.approx(0.1 + 1 - ssim, rel=1e-4)
    stepped = taught.at[:, :, :16].add(0.2)
    assert imitation_loss(stepped, taught)[1]["differences"] == pytest.approx(0.2 / 31, rel=1e-4)


@pytest.mark.slow
def test_loss_has_finite_gradients_at_its_minimum():
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 24, 24, 1)), jnp.float32)
    grads = jax.jit(jax.grad(lambda x: imitation_loss(x, image)[0]))(image)
    assert np.isfinite(grads).all()
    flat = jnp.full((1, 24, 24, 1), 0.3)
    assert np.isfinite(jax.grad(lambda x: imitation_loss(x, flat)[0])(flat)).all()


def test_ssim_is_that_of_torchmetrics_definition():
    """Against a direct computation of Wang's SSIM with a Gaussian window, written with loops."""
    rng = np.random.default_rng(1)
    a, b = rng.uniform(size=(2, 14, 13))
    t = np.arange(11) - 5
    window = np.exp(-(t**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    values = []
    for i in range(4):
        for j in range(3):
            x, y = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * x * x).sum() - mx**2, (window * y * y).sum() - my**2
            cov = (window * x * y).sum() - mx * my
            values.append((2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    got = ssim(jnp.asarray(a[None], jnp.float32), jnp.asarray(b[None], jnp.float32))
    assert got.item() == pytest.approx(np.mean(values), rel=1e-4)


def test_three_images_turn_alike():
    batch = jnp.asarray(np.random.default_rng(0).uniform(size=(16, 6, 6, 1)), jnp.float32)
    key = jax.random.key(5)
    both = turned(key, batch), turned(key, 2 * batch)
    np.testing.assert_allclose(2 * both[0], both[1], rtol=1e-6)
    positions = {
        tuple(np.argwhere(np.asarray(x[..., 0]) == float(o.max()))[0]) for x, o in zip(both[0], batch, strict=True)
    }
    assert len(positions) > 4
    changed = [not np.array_equal(x, o) for x, o in zip(both[0], batch, strict=True)]
    assert 8 <= sum(changed) <= 16


def test_saved_students_come_back(tmp_path):
    params = fresh_params(StudentNet(), jax.random.key(0))
    save_fusion(tmp_path, params, metadata={})
    assert isinstance(Fuser.load(tmp_path).net, StudentNet)
    with pytest.raises(UserError, match="--model student: is for weights of the package"):
        Fuser.load(tmp_path, model="student")
    with pytest.raises(UserError, match="model 'teacher': is none of fusion, student"):
        Fuser.load(model="teacher")

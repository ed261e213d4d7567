"""Training end to end on pairs drawn by the package: it learns, resumes exactly and refuses what it must."""

import io
import json
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick_training
from absl import logging as absl_logging
from flax.traverse_util import flatten_dict
from PIL import Image
from reference import procedural_weights
from safetensors.numpy import save_file

import langfuse_jax
from langfuse_jax import Clip, Fuser, TextEmbeddings, UserError
from langfuse_jax.analysis.periodicity import periodicity
from langfuse_jax.cli import main
from langfuse_jax.clip.words import GOAL, embed
from langfuse_jax.data.scenes import list_scenes, read_scene
from langfuse_jax.evaluation.language import score_language
from langfuse_jax.examples.night_scene import night_scene
from langfuse_jax.images.canvas import border_rule
from langfuse_jax.losses import grid_loss
from langfuse_jax.metrics import evaluate
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.models.lossless import lossless_init
from langfuse_jax.training.configs import load_config
from langfuse_jax.training.fusion import train_fusion
from langfuse_jax.training.log import TrainingLog, write_line
from langfuse_jax.training.step import moving_average
from langfuse_jax.training.validation import make_scores
from langfuse_jax.weights.checkpoint import restore_params
from langfuse_jax.weights.fusion import load_fusion

SMOKE = Path(__file__).resolve().parents[1] / "configs" / "smoke.py"
ASSETS = Path(langfuse_jax.__file__).with_name("assets")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root with one small set of three drawn pairs."""
    root = tmp_path_factory.mktemp("data")
    for role in ("visible", "infrared"):
        (root / "night" / role).mkdir(parents=True)
    for seed in range(3):
        for role, pixels in zip(("visible", "infrared"), night_scene(96, 128, seed=seed), strict=True):
            Image.fromarray(pixels).save(root / "night" / role / f"{seed}.png")
    return root


def _overrides(root, **values):
    values = {"data.root": root, "data.train": "('night',)", "data.validation": "night", "crop": 48, **values}
    return [f"--config.{key.replace('__', '.')}={value}" for key, value in values.items()]


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """A work directory of six steps with a checkpoint before the fourth, and the final state."""
    workdir = tmp_path_factory.mktemp("work") / "a"
    values = {"sheet.every": 3, "validation.pairs": 0}  # validation has a test of its own, in test_interruptions.py
    overrides = _overrides(root, steps=6, optimizer__warmup_steps=1, checkpoint__every=3, **values)
    config = load_config(str(SMOKE), overrides)
    return workdir, config, train_fusion(config, workdir, command="langfuse-jax train ...")


def test_a_training_leaves_what_it_promises(trained):
    workdir, config, state = trained
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(6))
    assert all(np.isfinite(list(line.values())).all() for line in lines)
    names = ("whole", "patch", "similarity", "perceptual")
    for line in lines:
        np.testing.assert_allclose(line["loss"], sum(config.loss[n] * line[n] for n in names), rtol=1e-4)
    assert [path.name for path in sorted((workdir / "sheets").iterdir())] == [
        "step_000000.png",
        "step_000003.png",
        "step_000006.png",
    ]
    # Infrared, visible and before; then after, too.
    assert [Image.open(path).width for path in sorted((workdir / "sheets").iterdir())] == [392, 524, 524]
    about = json.loads((workdir / "fusion.json").read_text())
    assert about["command"] == "langfuse-jax train ..." and about["steps"] == 6 and about["config"]["crop"] == 48
    assert (about["pad_multiple"], about["worn_edge"]) == (8, 2)
    visible, infrared = (np.asarray(Image.open(f"{config.data.root}/night/{r}/0.png")) for r in ("visible", "infrared"))
    fused = Fuser.load(workdir)(visible, infrared)
    assert fused.shape == visible.shape
    np.testing.assert_array_equal(Fuser.load(workdir / "checkpoints" / "6")(visible, infrared), fused)
    assert int(state.step) == 6


def test_the_outcome_is_that_of_the_images_that_the_fuser_makes(trained):
    workdir, config, _ = trained
    (outcome,) = quick_training.lines(workdir / "outcome.jsonl")
    pairs = [read_scene(scene) for scene in list_scenes(Path(config.data.root) / "night")][::2]  # two of three
    fused = [Fuser.load(workdir)(*pair) for pair in pairs]
    clip = Clip.load()
    images = (255 * np.stack([np.rint(255 * x) / 255 for x in role]) for role in (fused, *zip(*pairs, strict=True)))
    losses = score_language(clip, embed(clip))(*images, np.int32(2 * [(96, 128)]))["LDL"]
    assert outcome[f"loss_after/{GOAL}"] == pytest.approx(float(losses.mean()), abs=1e-4)
    ratios = [periodicity(f) / max(map(periodicity, pair)) for f, pair in zip(fused, pairs, strict=True)]
    assert outcome[f"repeats_after/{GOAL}"] == pytest.approx(max(ratios), rel=1e-3)
    assert outcome["step"] == 6 and outcome[f"repeats_before/{GOAL}"] != outcome[f"repeats_after/{GOAL}"]


def test_a_checkpoint_sees_as_it_was_trained(trained, tmp_path, caplog):
    """Whatever config.json says by now; and Orbax has nothing to warn of."""
    (tmp_path / "checkpoints").symlink_to(trained[0] / "checkpoints")
    (tmp_path / "config.json").write_text('{"crop": 60}')
    absl_logging.set_verbosity(absl_logging.INFO)
    with caplog.at_level("WARNING"):
        for folder in (tmp_path, tmp_path / "checkpoints" / "3"):
            assert Fuser.load(folder).metadata == border_rule(48) != border_rule(60)
    assert not caplog.records


def test_every_parameter_learns(trained):
    workdir, _, state = trained
    early = flatten_dict(restore_params(workdir, 3))
    for path, late in flatten_dict(state.params).items():
        assert not np.array_equal(late, early[path]), path


@pytest.mark.slow
def test_resuming_repeats_the_training_exactly(trained):
    workdir, config, state = trained
    resumed = workdir.parent / "resumed"
    shutil.copytree(workdir, resumed)
    shutil.rmtree(resumed / "checkpoints" / "6")
    again = train_fusion(config, resumed)
    jax.tree.map(np.testing.assert_array_equal, again.params, state.params)
    lines = quick_training.metrics(workdir)
    assert quick_training.metrics(resumed) == lines
    # Two dead networks would be alike too.
    assert min(line["gradient_norm"] for line in lines) > 1 and min(line["fused_std"] for line in lines) > 0.01
    # Without the exported model the latest checkpoint serves.
    jax.tree.map(np.testing.assert_array_equal, restore_params(resumed), state.params)
    restarted = train_fusion(config, resumed)
    jax.tree.map(np.testing.assert_array_equal, restarted.params, state.params)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_fresh_weights_stay_alive_and_improve(root, tmp_path, seed):
    """The published recipe, scaled down: 150 steps, each with a gradient, and a lower validation loss."""
    values = {"crop": 64, "batch_size": 2, "patches.count": 4, "steps": 150, "seed": seed, "log.every": 1}
    values |= {"checkpoint.every": 150, "sheet.every": 150, "scores.every": 0, "validation.pairs": 3}
    train_fusion(load_config(str(SMOKE.with_name("default.py")), _overrides(root, **values)), tmp_path / "w")
    lines = quick_training.metrics(tmp_path / "w")
    assert len(lines) == 150
    assert min(line["gradient_norm"] for line in lines) > 0.1 and min(line["fused_std"] for line in lines) > 0.01
    losses = [json.loads(line)["loss"] for line in (tmp_path / "w" / "validation.jsonl").read_text().splitlines()]
    assert len(losses) == 2 and losses[1] < 0.6 * losses[0]


@pytest.mark.slow
def test_a_short_run_from_weights_that_fuse_keeps_the_picture(root, tmp_path):
    """Steps towards "bright" draw no grid, take no contrast away, and brighten."""
    values = {"crop": 96, "steps": 40, "patches.count": 4, "data.validation": "", "checkpoint.every": 40}
    values |= {"init_from": ASSETS / "ldfusion", "prompts.goal": "('a clear and bright image',)"}
    train_fusion(load_config(str(SMOKE.with_name("steer.py")), _overrides(root, **values)), tmp_path / "w")
    visible, infrared = (np.asarray(Image.fromarray(x).convert("L")) / 255 for x in night_scene(240, 320, seed=100))
    sources = [jnp.asarray(x[None, ..., None], jnp.float32) for x in (visible, infrared)]
    before, after = (fuser(visible, infrared) for fuser in (Fuser.load(model="ldfusion"), Fuser.load(tmp_path / "w")))
    grids = [float(grid_loss(jnp.asarray(fused[None, ..., None]), *sources)) for fused in (before, after)]
    assert grids[1] < grids[0] + 0.5 / 255
    assert after.mean() > 1.1 * before.mean() and after.std() > 0.7 * before.std()


def test_the_average_moves_as_said():
    average = {"bias": jnp.zeros(1)}
    # By hand: decays 1/10, 2/11 and 0.2, the limit, as 3/12 would be more.
    for step, (value, expected) in enumerate(((1.0, 0.9), (2.0, 1.8), (3.0, 2.76))):
        average = jax.jit(moving_average, static_argnames="decay")(
            average, {"bias": jnp.full(1, value)}, jnp.int32(step), decay=0.2
        )
        np.testing.assert_allclose(average["bias"], expected, rtol=1e-6)


def test_scores_are_those_of_the_images_that_the_fuser_makes(trained, tmp_path):
    for role in ("visible", "infrared"):
        (tmp_path / "ragged" / role).mkdir(parents=True)
    pairs = [night_scene(*size, seed=seed) for seed, size in enumerate(((45, 61), (43, 59)))]
    for number, pair in enumerate(pairs):
        for role, pixels in zip(("visible", "infrared"), pair, strict=True):
            Image.fromarray(pixels).convert("L").save(tmp_path / "ragged" / role / f"{number}.png")
    values = {"data.validation": "ragged", "scores.every": 1, "scores.metrics": "('EN', 'AG')"}
    config = load_config(str(SMOKE), _overrides(tmp_path, **values))
    scores = make_scores(config, FusionNet())[0].take(load_fusion(trained[0])[0], 6, {"crop": config.crop})
    fuser, expected = Fuser.load(trained[0]), []
    for visible, infrared in pairs:
        gray = [np.asarray(Image.fromarray(pixels).convert("L")) for pixels in (visible, infrared)]
        fused = 255 * fuser(*gray)
        expected.append(evaluate(np.round(fused), *(x.astype(np.float32) for x in gray), metrics=("EN", "AG")))
    for name, value in scores.items():
        np.testing.assert_allclose(value, np.mean([values[name] for values in expected]), rtol=1e-3)


@pytest.mark.slow
def test_it_starts_from_a_training_that_has_only_checkpoints(root, trained, tmp_path):
    """With a learning rate of zero it ends with the parameters of the last checkpoint."""
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "checkpoints").symlink_to(trained[0] / "checkpoints")
    overrides = _overrides(root, steps=1, optimizer__learning_rate=0.0, init_from=unfinished)
    train_fusion(load_config(str(SMOKE), overrides), tmp_path / "out")
    ours, theirs = (jax.tree.leaves(load_fusion(folder)[0]) for folder in (tmp_path / "out", trained[0]))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_vgg19_and_half_precision_through_the_config(root, trained, tmp_path):
    """The same first step with VGG19's features: another perceptual term, the same other terms but for bfloat16."""
    save_file(procedural_weights.vgg19("timm"), tmp_path / "all.safetensors")
    vgg = tmp_path / "vgg19.safetensors"
    assert main(["convert", "vgg19", "--weights", str(tmp_path / "all.safetensors"), "--out", str(vgg)]) == 0
    overrides = _overrides(root, steps=1, vgg=vgg, clip_dtype="bfloat16", **{"sheet.every": 3, "data.validation": ""})
    train_fusion(load_config(str(SMOKE), overrides), tmp_path / "w")
    line = json.loads((tmp_path / "w" / "metrics.jsonl").read_text())
    before = json.loads((trained[0] / "metrics.jsonl").read_text().splitlines()[0])
    assert abs(line["perceptual"] / before["perceptual"] - 1) > 0.1
    for name in ("whole", "similarity"):
        assert line[name] == pytest.approx(before[name], rel=0.05) and line[name] != before[name]


@pytest.mark.parametrize(("name", "value"), [("init", "zeros"), ("augment.fading", 1.0)])
def test_a_start_that_is_unknown(root, tmp_path, name, value):
    with pytest.raises(UserError, match=f"config.{name}: '?{value}"):
        train_fusion(load_config(str(SMOKE), _overrides(root, **{name: value})), tmp_path / "w")
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_a_training_run_from_a_lossless_start_keeps_its_code(root, tmp_path, monkeypatch):
    quick_training.patch_loss(monkeypatch.setattr)
    overrides = _overrides(root, steps=3, optimizer__warmup_steps=1, init="lossless", **{"data.validation": ""})
    config = load_config(str(SMOKE), overrides)
    params = flatten_dict(jax.device_get(train_fusion(config, tmp_path / "w").params)["params"], sep=".")
    _, _, lossless_key = jax.random.split(jax.random.key(config.seed), 3)  # neither of steps nor of what it replaces
    start = flatten_dict(jax.device_get(lossless_init(lossless_key))["params"], sep=".")
    changed = {name: params[name] != start[name] for name in params}
    for name, places in changed.items():
        if name.startswith(("decoder.block_1", "decoder.head", "decoder.mlp.dense_2")):
            assert places.mean() > 0.99, name
        elif name.startswith("decoder.up"):
            # Of 128, 64 and 32 channels, 64, 16 and 4 put the pixels back.
            code = places.shape[-1] ** 2 // 256
            assert not places[..., :code].any() and places[..., code:].mean() > 0.99, name
        else:
            assert not places.any(), name
    # Adam moves all of them by the rate in its first steps; the styles' part has a fifth of it.
    free, styles = (
        np.abs(params[f"decoder.{name}"] - start[f"decoder.{name}"]).max()
        for name in ("block_1.conv_0.kernel", "mlp.dense_2.kernel")
    )
    assert styles == pytest.approx(free / 5, rel=0.15)


@pytest.mark.parametrize("key", ["clip_dtype", "network_dtype"])
@pytest.mark.parametrize("name", ["float16", "half"])
def test_unknown_dtype(root, tmp_path, key, name):
    with pytest.raises(UserError, match=f"config.{key}: '{name}'"):
        train_fusion(load_config(str(SMOKE), _overrides(root, **{key: name})), tmp_path / "w")


def test_text_of_another_clip_is_refused(root, tmp_path):
    text = embed(Clip.load())
    vectors = {role: getattr(text, role) for role in ("visible", "infrared", "goal")}
    other = TextEmbeddings(model="somebody/else", fingerprint="0" * 12, prompts=text.prompts, **vectors)
    other.save(tmp_path / "t.npz")
    config = load_config(str(SMOKE), _overrides(root, text=tmp_path / "t.npz"))
    with pytest.raises(UserError, match=r"somebody/else.*compact"):
        train_fusion(config, tmp_path / "w")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.nosuch=1", "--config.nosuch=1: the config"),
        ("--config.batchsize=4", "--config.batchsize=4: the config"),
        ("--config.memory.remat=perhaps", "--config.memory.remat=perhaps"),
        ("--config.seed=-1", "config.seed: -1 is too small; use 0 or more"),
        ("--config.sheet.every=-1", "config.sheet.every: -1 is too small; use 0 or more"),
        ("--config.log.every=0", "config.log.every: 0 is too small; use 1 or more"),
        ("--config.data.train=3", "config.data.train: ('night', 3) are no strings"),
        ("--config.patches.fraction=0.5", "config.patches.fraction: (0.5,)"),
        ("--config.epochs=-1", "config.epochs: -1"),
        ("--config.steps=0", "config.steps: 0, and config.epochs is 0 too"),
        ("--config.crop=many", "crop"),
        ("--config.crop=16", "config.crop: 16"),
        (
            "--config.crop=5000",
            "config.crop: 5000 is larger than every image of config.data.train, of which",
        ),
        ("--config.data.train=('absent',)", "absent"),
        ("--config.batch_size=40", "config.batch_size: 40"),
        ("--config.clip=./no/such/clip", "no/such/clip"),
        ("--config.vgg=no.safetensors", "no.safetensors"),
        ("--config.augment.zoom=0.5", "config.augment.zoom: 0.5 is too small"),
        ("--config.optimizer.trainable=some", "config.optimizer.trainable: 'some' is unknown"),
        (
            "--config.optimizer.trainable=spare",
            "config.optimizer.trainable: 'spare' needs a start that draws losslessly",
        ),
        ("--config.init_from=nowhere", "nowhere"),
        ("--config.text=no.npz", "no.npz"),
        ("--strange=1", "strange"),
    ],
)
def test_bad_configs_end_in_one_line(root, tmp_path, capsys, override, message):
    overrides = [*_overrides(root, batch_size=2), override]
    status = main(["train", "--config", str(SMOKE), "--workdir", str(tmp_path / "w"), *overrides])
    error = capsys.readouterr().err.strip().splitlines()
    assert status == 2 and len(error) == 1 and message in error[0]
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("command", "name", "told"),
    [
        ("train", "compact_clip", "is for `langfuse-jax train-clip`; give"),
        ("train-clip", "smoke", "is for `langfuse-jax train`; give `langfuse-jax train-clip` a config such as"),
    ],
)
def test_a_config_of_another_command_ends_in_one_line(tmp_path, capsys, command, name, told):
    folder = "--out" if command == "train-clip" else "--workdir"
    status = main([command, "--config", str(SMOKE.with_name(f"{name}.py")), folder, str(tmp_path / "w")])
    error = capsys.readouterr().err.strip().splitlines()
    assert status == 2 and len(error) == 1 and f"{name}.py: {told}" in error[0]
    assert not (tmp_path / "w").exists()


def test_the_bar_says_compiling_until_the_first_step_is_done(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with TrainingLog(tmp_path, 3, 9) as log:
        first, _ = sys.stderr.getvalue().split("\n", 1)
        assert first == f"langfuse-jax: {tmp_path}: resuming from step 3"
        for step in (3, 4):
            log.write(step, {"loss": jnp.zeros(())}, 0.1, keep=False)
        before, after = log._bar, sys.stderr.getvalue()
        assert "compiling:  33%" in after and not before.desc


def test_lines_are_strict_json_and_half_ones_are_dropped(tmp_path):
    path = tmp_path / "scores.jsonl"
    for step in (1, 2, 3):
        write_line(path, step, {"EN": 1 / 3, "SD": float("nan"), "AG": float("inf"), "rate": 5e-7})
    with open(path, "a") as file:
        file.write('{"step": 4, "E')  # a process killed meanwhile
    write_line(path, 3, {"EN": 2.0})
    expected = '{"step": %d, "EN": 0.33333333, "SD": null, "AG": null, "rate": 5e-07}\n'
    assert path.read_text() == expected % 1 + expected % 2 + '{"step": 3, "EN": 2.0}\n'


def test_missing_config_ends_in_one_line(tmp_path, capsys):
    assert main(["train", "--config", str(tmp_path / "no.py"), "--workdir", str(tmp_path / "w")]) == 2
    assert "no.py: no such file" in capsys.readouterr().err


def test_a_workdir_that_cannot_be_made_ends_in_one_line(root, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    workdir = str(tmp_path / "file" / "w")
    status = main(["train", "--config", str(SMOKE), "--workdir", workdir, *_overrides(root, batch_size=2)])
    error = capsys.readouterr().err.strip().splitlines()
    assert status == 2 and len(error) == 1 and f"{workdir}: cannot be made" in error[0]

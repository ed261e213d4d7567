"""The configs in configs/: they load, agree in their keys, and say what they take and give."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from transformers import CLIPConfig

from langfuse_jax import Clip, UserError
from langfuse_jax.losses import Words
from langfuse_jax.models.clip import towers
from langfuse_jax.models.fusion import FusionNet, fresh_params
from langfuse_jax.training.configs import _RENAMED, load_config, texts
from langfuse_jax.training.fusion import check_config, embed_prompts, make_recipe
from langfuse_jax.training.objective import Frozen, fusion_loss
from langfuse_jax.training.step import init_state, make_train_step

FOLDER = Path(__file__).resolve().parents[1] / "configs"
OTHERS = ("__init__", "compact_clip", "words", "words_alone")  # which train no LDFusion network
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in OTHERS)


def _load(name):
    return load_config(str(FOLDER / f"{name}.py"))


def _forms(config):
    """Dotted keys and the types of their values."""
    return {
        name: type(value)
        for key in config
        for name, value in (
            [(f"{key}.{inner}", value) for inner, value in config[key].items()]
            if hasattr(config[key], "items")
            else [(key, config[key])]
        )
    }


@pytest.mark.parametrize("name", NAMES)
def test_config(name):
    config = _load(name)
    check_config(config)
    make_recipe(config)
    assert _forms(config) == _forms(_load("default"))
    header = (FOLDER / f"{name}.py").read_text().split('"""')[1]
    assert f"langfuse-jax train --config {name} --workdir " in header
    for word in ("Hardware:", "Expected time", "Expected result"):
        assert word in header
    assert "measured" in header or "ESTIMATE" in header


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("a bright image", ("a bright image",)),
        ("the car's lights, bright", ("the car's lights, bright",)),
        ("bright", ("bright",)),
        ("'a bright image'", ("a bright image",)),
        ("('one image','two')", ("one image", "two")),
    ],
)
def test_a_sentence_needs_no_quotes(text, goal):
    config = load_config(str(FOLDER / "smoke.py"), [f"--config.prompts.goal={text}"])
    check_config(config)
    assert texts(config.prompts.goal) == goal


def test_a_sentence_of_a_config_may_be_a_plain_string(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from langfuse_jax.configs import smoke\ndef get_config():\n    c = smoke.get_config()\n"
        "    c.prompts.goal = 'a bright image'\n    return c\n"
    )
    config = load_config(str(path))
    check_config(config)
    given = embed_prompts(config, Clip.load()).goal
    config.prompts.goal = ("a bright image",)
    np.testing.assert_array_equal(given, embed_prompts(config, Clip.load()).goal)


def test_a_config_that_lacks_a_key_is_told():
    config = load_config(str(FOLDER / "smoke.py"))
    with config.unlocked():
        del config.guard.max_skipped
    with pytest.raises(UserError, match=r"config\.guard\.max_skipped: is missing from the config"):
        check_config(config)


def test_a_config_of_the_package_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (*NAMES, "words", "words_alone", "compact_clip"):
        assert load_config(name) == _load(name)
    with pytest.raises(
        UserError, match=r"--config cpus: no such file, and none of .* configs compact_clip, cpu, cpu_w"
    ):
        load_config("cpus")


def test_no_config_names_a_place_of_one_machine():
    for path in FOLDER.glob("*.py"):
        assert "../" not in path.read_text()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("cpu", "learning_rate=1", "optimizer.learning_rate"),
        ("words", "log_every=1", "log.every"),
        ("compact_clip", "train_folders=a", "data.train"),
    ],
)
def test_an_old_name_is_refused_with_the_new_one(name, old, new, tmp_path):
    with pytest.raises(UserError, match=rf"^--config\.{old}: config\.{old.split('=')[0]} is called config\.{new}"):
        load_config(name, [f"--config.{old}"])
    key, value = old.split("=")
    (tmp_path / "mine.py").write_text(
        f"from langfuse_jax.configs import {name}\n"
        f"def get_config():\n    c = {name}.get_config()\n    c.{key} = {value!r}\n    return c\n"
    )
    with pytest.raises(UserError, match=rf"mine\.py: config\.{key} is called config\.{new}"):
        load_config(str(tmp_path / "mine.py"))


def test_every_new_name_of_an_old_key_exists():
    keys = {key for name in ("default", "words", "compact_clip") for key in _forms(load_config(name))}
    for old, new in _RENAMED.items():
        assert new.split(" ")[0] in keys or new in load_config("compact_clip"), old


def test_batches_divide_over_the_devices_they_are_for():
    for name, devices in (("gpu8", 8), ("tpu_pod", 32)):
        config = _load(name)
        assert config.batch_size % (config.memory.accumulate * devices) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_step_of_a_config_can_be_built(name):
    """Traced with its own shapes: the compact CLIP on CPUs, else ViT-B/32."""
    config = _load(name)
    vision = Clip.load().vision if "cpu" in name or name == "smoke" else towers(CLIPConfig(projection_dim=512))[0]
    net, optimizer = FusionNet(), optax.adam(1e-3)
    image = jax.ShapeDtypeStruct((1, vision.image_size, vision.image_size, 3), "float32")
    clip = jax.eval_shape(vision.init, jax.random.key(0), image)["params"]
    words = Words(*3 * [jnp.zeros(vision.embedding)])
    state = jax.eval_shape(lambda key: init_state(fresh_params(net, key), optimizer), jax.random.key(0))
    crops = jax.ShapeDtypeStruct((config.batch_size, config.crop, config.crop, 1), "float32")
    loss = partial(fusion_loss, net=net, vision=vision, recipe=make_recipe(config))
    step = make_train_step(loss, optimizer, accumulate=config.memory.accumulate)
    batch = {"visible": crops, "infrared": crops, "place": jax.ShapeDtypeStruct((config.batch_size,), "int32")}
    new, metrics = jax.eval_shape(step, state, batch, jax.random.key(0), Frozen(clip, words, None))
    assert metrics["loss"].shape == ()
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)

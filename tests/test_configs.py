"""The configs in configs/: they load, agree in their keys, and say what they take and give."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from transformers import CLIPConfig

from langfuse_jax import Clip, UserError
from langfuse_jax.models.clip import towers
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.training.configs import check_values, load_config, texts
from langfuse_jax.training.loop import _sentences, make_recipe
from langfuse_jax.training.step import Frozen, init_state, make_train_step

FOLDER = Path(__file__).resolve().parents[1] / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("compact_clip", "student"))


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
    check_values(config)
    make_recipe(config)
    assert _forms(config) == _forms(_load("default"))
    header = (FOLDER / f"{name}.py").read_text().split('"""')[1]
    assert f"langfuse-jax train --config configs/{name}.py --workdir " in header
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
    check_values(config)
    assert texts(config.prompts.goal) == goal


def test_a_sentence_of_a_config_may_be_a_plain_string(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        f"import runpy\ndef get_config():\n    c = runpy.run_path({str(FOLDER / 'smoke.py')!r})['get_config']()\n"
        "    c.prompts.goal = 'a bright image'\n    return c\n"
    )
    config = load_config(str(path))
    check_values(config)
    given = _sentences(config, Clip.load()).goal
    config.prompts.goal = ("a bright image",)
    np.testing.assert_array_equal(given, _sentences(config, Clip.load()).goal)


def test_a_config_that_lacks_a_key_is_told():
    config = load_config(str(FOLDER / "smoke.py"))
    with config.unlocked():
        del config.max_skipped
    with pytest.raises(UserError, match=r"config\.max_skipped: is missing from the config"):
        check_values(config)


def test_batches_divide_over_the_devices_they_are_for():
    for name, devices in (("gpu8", 8), ("tpu_pod", 32)):
        config = _load(name)
        assert config.batch_size % (config.accumulate * devices) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_step_of_a_config_can_be_built(name):
    """Traced with its own shapes: the compact CLIP on CPUs, else ViT-B/32."""
    config = _load(name)
    vision = Clip.load().vision if "cpu" in name or name == "smoke" else towers(CLIPConfig(projection_dim=512))[0]
    net, optimizer = FusionNet(), optax.adam(1e-3)
    image = jax.ShapeDtypeStruct((1, vision.image_size, vision.image_size, 3), "float32")
    clip = jax.eval_shape(vision.init, jax.random.key(0), image)["params"]
    texts = {f"text_{role}": jnp.zeros(vision.embedding) for role in ("goal", "visible", "infrared")}
    state = jax.eval_shape(lambda key: init_state(key, net, optimizer), jax.random.key(0))
    crops = jax.ShapeDtypeStruct((config.batch_size, config.crop, config.crop, 1), "float32")
    step = make_train_step(net, vision, optimizer, make_recipe(config), accumulate=config.accumulate)
    batch = {"visible": crops, "infrared": crops}
    new, metrics = jax.eval_shape(step, state, batch, jax.random.key(0), Frozen(clip, texts, None))
    assert metrics["loss"].shape == ()
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)

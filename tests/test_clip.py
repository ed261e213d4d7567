"""The CLIP towers and the loading of their weights."""

import json
import shutil
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import CLIPConfig

from langfuse_jax import Clip, CutPrompt, UserError
from langfuse_jax.cli import main
from langfuse_jax.clip.tensors import tensors_from_params
from langfuse_jax.compact_clip.tokenizer import make_tokenizer, save_tokenizer
from langfuse_jax.models.clip import MEAN, STD, init_params, stack_blocks, towers

WORDS = ["a", "visible", "infrared", "image", "clear", "gray", "an"]


def tiny_config(*, vocabulary=700, activation="quick_gelu", end_of_text=699):
    part = {"hidden_act": activation, "num_hidden_layers": 2, "projection_dim": 12}
    return CLIPConfig(
        projection_dim=12,
        vision_config=dict(
            part, hidden_size=24, intermediate_size=40, num_attention_heads=3, image_size=20, patch_size=8
        ),
        text_config=dict(
            part,
            hidden_size=16,
            intermediate_size=32,
            num_attention_heads=2,
            vocab_size=vocabulary,
            max_position_embeddings=20,
            bos_token_id=0,
            eos_token_id=end_of_text,
        ),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random CLIP in Hugging Face format, float16."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = make_tokenizer(WORDS)
    config = tiny_config(vocabulary=len(tokenizer), end_of_text=tokenizer.eos_token_id)
    params = jax.jit(lambda key: init_params(*towers(config), key))(jax.random.key(3))
    save_file(
        tensors_from_params(jax.tree.map(lambda x: np.asarray(x, np.float16), params)), folder / "model.safetensors"
    )
    config.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


@pytest.fixture
def own(folder, tmp_path):
    """A copy of the tiny CLIP that a test may damage."""
    return shutil.copytree(folder, tmp_path / "clip")


def test_shapes_and_pure_use(folder):
    clip = Clip.load(folder)
    images = np.random.default_rng(0).random((3, 33, 47, 3), np.float32)
    embeddings = clip.encode_image(images)
    assert embeddings.shape == (3, 12) and embeddings.dtype == jnp.float32
    pure = jax.jit(lambda params, x: clip.vision.apply({"params": params}, x))(clip.params["vision"], images)
    np.testing.assert_allclose(embeddings, pure, rtol=1e-5, atol=1e-6)
    assert clip.encode_text(["a clear image", "an infrared image"]).shape == (2, 12)


def test_text_depends_on_words_and_not_on_its_neighbours(folder):
    clip = Clip.load(folder)
    alone = clip.encode_text(["a clear image"])
    together = clip.encode_text(["an infrared image", "a clear image", "A  CLEAR image"])
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)
    np.testing.assert_allclose(together[2], alone[0], atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_any_text_is_read_and_known_words_are_whole(folder):
    clip = Clip.load(folder)
    assert len(clip.tokenizer("visible infrared")["input_ids"]) == 4
    assert np.isfinite(clip.encode_text(["", "naïve 雪 🙂", "zq-7!"])).all()


def test_fingerprint_follows_the_weights(folder, own):
    tensors = load_file(own / "model.safetensors")
    tensors["visual_projection.weight"][0, 0] += 1
    save_file(tensors, own / "model.safetensors")
    assert Clip.load(folder).fingerprint == Clip.load(folder).fingerprint != Clip.load(own).fingerprint


def test_position_ids_and_float32_and_shards(folder, own):
    tensors = {name: value.astype(np.float32) for name, value in load_file(own / "model.safetensors").items()}
    (own / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for shard, keys in shards.items():
        extra = {"text_model.embeddings.position_ids": np.arange(20)[None]} if shard == "one.safetensors" else {}
        save_file({key: tensors[key] for key in keys} | extra, own / shard)
    index = {"weight_map": {key: shard for shard, keys in shards.items() for key in keys}}
    (own / "model.safetensors.index.json").write_text(json.dumps(index))
    assert Clip.load(own).fingerprint == Clip.load(folder).fingerprint


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (
            lambda t: t.pop("text_model.encoder.layers.1.mlp.fc2.bias"),
            r"missing.*text_model.encoder.layers.1.mlp.fc2.bias",
        ),
        (lambda t: t.update({"vision_model.extra": np.zeros(2, np.float16)}), r"unknown.*vision_model.extra"),
        (lambda t: t.update({"logit_scale": np.zeros((1,), np.float16)}), r"wrong shapes: logit_scale"),
        (lambda t: t.pop("logit_scale"), r"missing tensors: logit_scale"),
    ],
)
def test_every_tensor_used_and_every_parameter_filled(own, damage, named):
    tensors = load_file(own / "model.safetensors")
    damage(tensors)
    save_file(tensors, own / "model.safetensors")
    with pytest.raises(UserError, match=named):
        Clip.load(own)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "vocab.json"])
@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_bad_files_are_named(own, file, harm):
    if harm == "missing":
        (own / file).unlink()
    else:
        (own / file).write_text("{")
    with pytest.raises(UserError, match=file) as error:
        Clip.load(own)
    assert "\n" not in str(error.value)


def test_unknown_activation(own):
    config = json.loads((own / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "tanh"
    (own / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="tanh"):
        Clip.load(own)


def test_embeddings_without_a_length(own):
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(config | {"projection_dim": None}))
    with pytest.raises(UserError, match="projection_dim is null"):
        Clip.load(own)


def test_no_such_folder_and_offline_hub(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        Clip.load(tmp_path / "nothing")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"someone/some-clip.*download.*model.safetensors"):
        Clip.load("someone/some-clip")


def test_params_round_trip(folder):
    clip = Clip.load(folder)
    tensors = tensors_from_params(clip.params)
    assert tensors.keys() == load_file(folder / "model.safetensors").keys()
    # One entry by hand: a torch kernel is (out, in, h, w).
    kernel = clip.params["vision"]["patch_embedding"]
    value = tensors["vision_model.embeddings.patch_embedding.weight"][5, 2, 1, 7]
    assert kernel.shape == (8, 8, 3, 24) and kernel[1, 7, 2, 5] == value


def test_resizing_does_not_antialias(folder):
    """Twice the size, each pixel repeated: bilinear sampling at pixel centres gives the image back."""
    clip = Clip.load(folder)
    image = np.random.default_rng(1).random((1, 20, 20, 3), np.float32)
    small, large = clip.encode_image(image), clip.encode_image(image.repeat(2, 1).repeat(2, 2))
    np.testing.assert_allclose(small, large, atol=1e-5)
    # Three times the size: only the middle pixel of nine is read.
    sparse = np.zeros((1, 60, 60, 3), np.float32)
    sparse[:, 1::3, 1::3] = image
    np.testing.assert_allclose(small, clip.encode_image(sparse), atol=1e-5)


def _open_clip_tensors(tensors):
    """Hugging Face's tensors under open_clip's names, written out by hand."""
    renamed = {
        "logit_scale": tensors["logit_scale"],
        "visual.class_embedding": tensors["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": tensors["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": tensors["vision_model.embeddings.position_embedding.weight"],
        "visual.proj": tensors["visual_projection.weight"].T,
        "token_embedding.weight": tensors["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": tensors["text_model.embeddings.position_embedding.weight"],
        "text_projection": tensors["text_projection.weight"].T,
        "attn_mask": np.zeros((20, 20), np.float32),
    }
    for kind in ("weight", "bias"):
        renamed[f"visual.ln_pre.{kind}"] = tensors[f"vision_model.pre_layrnorm.{kind}"]
        renamed[f"visual.ln_post.{kind}"] = tensors[f"vision_model.post_layernorm.{kind}"]
        renamed[f"ln_final.{kind}"] = tensors[f"text_model.final_layer_norm.{kind}"]
        for tower, prefix in (("vision_model", "visual."), ("text_model", "")):
            for n in range(2):
                theirs, block = f"{prefix}transformer.resblocks.{n}", f"{tower}.encoder.layers.{n}"
                attention = f"{block}.self_attn"
                renamed[f"{theirs}.attn.in_proj_{kind}"] = np.concatenate(
                    [tensors[f"{attention}.{part}_proj.{kind}"] for part in "qkv"]
                )
                renamed[f"{theirs}.attn.out_proj.{kind}"] = tensors[f"{attention}.out_proj.{kind}"]
                for old, new in (
                    ("layer_norm1", "ln_1"),
                    ("layer_norm2", "ln_2"),
                    ("mlp.fc1", "mlp.c_fc"),
                    ("mlp.fc2", "mlp.c_proj"),
                ):
                    renamed[f"{theirs}.{new}.{kind}"] = tensors[f"{block}.{old}.{kind}"]
    return {name: np.array(value, order="C") for name, value in renamed.items()}


@pytest.fixture
def open_clip(own):
    """The tiny CLIP in open_clip's format."""
    tensors = load_file(own / "model.safetensors")
    for file in ("model.safetensors", "config.json"):
        (own / file).unlink()
    save_file(_open_clip_tensors(tensors), own / "open_clip_model.safetensors")
    vision = {"image_size": 20, "layers": 2, "width": 24, "head_width": 8, "patch_size": 8, "mlp_ratio": 1.67}
    text = {"context_length": 20, "vocab_size": None, "width": 16, "heads": 2, "layers": 2, "mlp_ratio": 2.0}
    text["vocab_size"] = len(tensors["text_model.embeddings.token_embedding.weight"])
    model = {"embed_dim": 12, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    (own / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {"std": [0.5] * 3}}))
    return own


def test_open_clip_naming(folder, open_clip):
    theirs, ours = Clip.load(folder), Clip.load(open_clip)
    assert ours.fingerprint == theirs.fingerprint
    assert ours.vision.mean == MEAN and ours.vision.std == (0.5, 0.5, 0.5)
    assert ours.vision.clone(std=STD, parent=None) == theirs.vision
    np.testing.assert_array_equal(ours.encode_text(["a clear image"]), theirs.encode_text(["a clear image"]))
    # Beside Hugging Face's description the tensors are the same too.
    shutil.copy(folder / "config.json", open_clip)
    (open_clip / "open_clip_config.json").unlink()
    assert Clip.load(open_clip).fingerprint == theirs.fingerprint


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            lambda c: c["model_cfg"]["vision_cfg"].update(timm_model_name="vit_base"),
            "vision_cfg requires timm_model_name",
        ),
        (lambda c: c["model_cfg"]["text_cfg"].update(hf_model_name="roberta"), "text_cfg requires hf_model_name"),
        (lambda c: c["model_cfg"]["text_cfg"].pop("width"), "describes no CLIP"),
        (lambda c: c.pop("model_cfg"), "describes no CLIP"),
        (lambda c: c["model_cfg"]["text_cfg"].update(width=8), "wrong shapes"),
    ],
)
def test_open_clip_of_another_kind(open_clip, change, named):
    config = json.loads((open_clip / "open_clip_config.json").read_text())
    change(config)
    (open_clip / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=named) as error:
        Clip.load(open_clip)
    assert "\n" not in str(error.value)


def test_a_config_that_is_not_clip(own, tmp_path, capsys):
    for text in ('{"model_type": "bert", "hidden_size": 8}', '{"hidden_size": 8}', "[1]"):
        (own / "config.json").write_text(text)
        out = tmp_path / "text.npz"
        assert main(["embed", "--clip", str(own), "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and str(own / "config.json") in error
        assert not out.exists()


def test_tensors_of_the_wrong_type(own):
    tensors = load_file(own / "model.safetensors")
    tensors["text_projection.weight"] = tensors["text_projection.weight"].astype(np.int8)
    tensors["logit_scale"] = np.array(np.nan, np.float32)
    save_file(tensors, own / "model.safetensors")
    with pytest.raises(UserError, match=r"logit_scale has NaN or infinity, text_projection.weight is int8"):
        Clip.load(own)


def test_bfloat16_changes_little_and_keeps_float32(folder):
    images = np.random.default_rng(0).random((3, 33, 47, 3), np.float32)
    full, half = Clip.load(folder), Clip.load(folder, dtype=jnp.bfloat16)
    assert full.fingerprint == half.fingerprint and half.params["text"]["token_embedding"].dtype == jnp.float32
    for ours, exact in (
        (half.encode_image(images), full.encode_image(images)),
        (half.encode_text(["a clear image"]), full.encode_text(["a clear image"])),
    ):
        assert ours.dtype == jnp.float32 and np.abs(ours - exact).max() > 0
        cosine = np.sum(ours * exact, -1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(exact, axis=-1)
        assert cosine.min() > 0.999


def test_a_long_prompt_is_cut_as_clip_does(folder, tmp_path, capsys):
    """The tower reads 20 tokens: the start token, 18 of the words and the end token."""
    clip = Clip.load(folder)
    with pytest.warns(CutPrompt, match=f"27 tokens is cut to the 20 .*: '{'clear image ' * 8}clear image'"):
        cut = clip.encode_text(["clear image " * 12 + "gray"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(cut, clip.encode_text(["clear image " * 9]), atol=1e-6)
    out = tmp_path / "text.npz"
    command = ["embed", "--clip", str(folder), "--visible", "a visible image", "--infrared", "an infrared image"]
    assert main([*command, "--goal", "clear " * 19, "--goal", "gray " * 20, "--out", str(out)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("langfuse-jax: warning: a prompt of 2") for line in lines)
    assert "'" + " ".join(["clear"] * 18) + "'" in lines[0] and "'" + " ".join(["gray"] * 18) + "'" in lines[1]


def test_mean_and_std_of_the_folder_are_used(folder, own):
    (own / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}))
    image = np.random.default_rng(1).random((1, 20, 20, 3), np.float32)
    standardised = (image - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    np.testing.assert_allclose(
        Clip.load(own).encode_image(standardised), Clip.load(folder).encode_image(image), atol=1e-5
    )


def test_a_hub_id_in_the_cache_needs_no_network(folder, monkeypatch, tmp_path):
    """The layout that huggingface_hub keeps: a branch that names a snapshot, and its files."""
    repository = tmp_path / "models--someone--some-clip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123abcd")
    shutil.copytree(folder, repository / "snapshots" / "0123abcd")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    clip = Clip.load("someone/some-clip")
    assert clip.name == "someone/some-clip" and clip.fingerprint == Clip.load(folder).fingerprint


def test_stacked_blocks_give_the_same_embeddings_and_gradients():
    """One compiled block in a loop, with and without recomputing, against all in a row."""
    vision, text = towers(tiny_config(), dtype=jnp.float32)
    params = init_params(vision, text, jax.random.key(0))["vision"]
    images = jax.random.uniform(jax.random.key(1), (2, vision.image_size, vision.image_size, 3))

    def loss(images, tower, params):
        return jnp.square(tower.apply({"params": params}, images)).sum()

    expected = jax.value_and_grad(loss)(images, vision, params)
    for remat in (False, True):
        tower = vision.clone(stacked=True, remat=remat)
        found = jax.jit(jax.value_and_grad(loss), static_argnums=1)(images, tower, stack_blocks(params))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


def test_a_gray_image_is_taken_as_three_equal_channels():
    """Embeddings and gradients, of the tower's own size and resized to it."""
    vision, text = towers(tiny_config(), dtype=jnp.float32)
    params = init_params(vision, text, jax.random.key(0))["vision"]

    @partial(jax.jit, static_argnums=1)
    @jax.value_and_grad
    def loss(gray, repeats):
        return jnp.square(vision.apply({"params": params}, jnp.repeat(gray, repeats, -1))).sum()

    for side in (vision.image_size, 20):
        gray = jax.random.uniform(jax.random.key(1), (2, side, side, 1))
        (found, gradient), (expected, wanted) = (loss(gray, repeats) for repeats in (1, 3))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())

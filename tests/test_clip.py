"""The CLIP towers and the loading of their weights."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file
from transformers import CLIPConfig

from langfuse_jax import Clip, UserError
from langfuse_jax.convert.clip import tensors_from_params
from langfuse_jax.models.clip import MEAN, STD, init_params, towers
from langfuse_jax.training.clip_vocabulary import make_tokenizer, save_tokenizer

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
    params = init_params(*towers(config), jax.random.key(3))
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
    np.testing.assert_allclose(together[1], alone[0], atol=1e-6)
    np.testing.assert_allclose(together[2], alone[0], atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_any_text_is_read_and_known_words_are_whole(folder):
    clip = Clip.load(folder)
    assert len(clip.tokenizer("visible infrared")["input_ids"]) == 4
    assert np.isfinite(clip.encode_text(["", "naïve 雪 🙂", "zq-7!"])).all()
    with pytest.raises(UserError, match="shorten"):
        clip.encode_text(["zq " * 30])


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


def _parity(config, tmp_path, size):
    torch = pytest.importorskip("torch")
    from transformers import CLIPModel

    torch.manual_seed(0)
    theirs = CLIPModel(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if parameter.ndim == 1:  # biases start at 0 and scales at 1: a mix-up would not show
                parameter.add_(0.1 * torch.randn_like(parameter))
            assert parameter.dtype == torch.float32, name
    theirs.save_pretrained(tmp_path)
    tokenizer = make_tokenizer(WORDS)
    save_tokenizer(tokenizer, tmp_path)
    clip = Clip.load(tmp_path)
    rng = np.random.default_rng(0)
    images = rng.random((2, *size, 3), np.float32)
    text = config.text_config
    end = text.vocab_size - 1 if text.eos_token_id == 2 else text.eos_token_id
    ids = rng.integers(3, text.vocab_size - 2, (3, 16)).astype(np.int32)
    for row, length in enumerate((4, 9, 15)):
        ids[row, length:] = end
    side = config.vision_config.image_size
    with torch.no_grad():
        pixels = torch.nn.functional.interpolate(
            torch.tensor(images).permute(0, 3, 1, 2), (side, side), mode="bilinear", align_corners=False
        )
        pixels = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        image = theirs.visual_projection(theirs.vision_model(pixels).pooler_output).numpy()
        sentence = theirs.text_projection(theirs.text_model(torch.tensor(ids)).pooler_output).numpy()
    apply = jax.jit(lambda params, ids: clip.text.apply({"params": params}, ids))
    for ours, reference in ((clip.encode_image(images), image), (apply(clip.params["text"], ids), sentence)):
        assert np.abs(ours - reference).max() < 2e-4 * np.abs(reference).max()
    assert len(flatten_dict(clip.params)) == len(list(theirs.parameters()))
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert Clip.load(tmp_path).fingerprint == clip.fingerprint


@pytest.mark.torch
@pytest.mark.parametrize(
    ("activation", "end_of_text", "size"), [("quick_gelu", 2, (31, 50)), ("gelu", 699, (20, 20)), ("gelu", 2, (9, 14))]
)
def test_equals_transformers(activation, end_of_text, size, tmp_path):
    _parity(tiny_config(activation=activation, end_of_text=end_of_text), tmp_path, size)


@pytest.mark.torch
def test_equals_transformers_at_the_size_of_vit_b_32(tmp_path):
    _parity(CLIPConfig(), tmp_path, (300, 260))


def test_mean_and_std_of_the_folder_are_used(folder, own):
    (own / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}))
    image = np.random.default_rng(1).random((1, 20, 20, 3), np.float32)
    standardised = (image - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    np.testing.assert_allclose(
        Clip.load(own).encode_image(standardised), Clip.load(folder).encode_image(image), atol=1e-5
    )

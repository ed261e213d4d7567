"""CLIP against transformers' torch CLIPModel, with random weights of the size and kind of the published ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from transformers import CLIPConfig

from langfuse_jax import Clip
from langfuse_jax.clip.pretrained import COMPACT
from langfuse_jax.clip.tensors import OPEN_CLIP_TABLE
from langfuse_jax.compact_clip.tokenizer import make_tokenizer, save_tokenizer
from langfuse_jax.models.clip import MEAN, STD, Attention
from langfuse_jax.weights.tables import to_flax, to_source

pytestmark = pytest.mark.torch


def token_ids(config, rows=3, length=77):
    """Random ids that end at different places; after the end comes padding, which no model may see."""
    rng = np.random.default_rng(0)
    text = config.text_config
    end = text.vocab_size - 1 if text.eos_token_id == 2 else text.eos_token_id
    ids = rng.integers(3, text.vocab_size - 2, (rows, length)).astype(np.int32)
    for row, last in zip(ids, (4, 30, length - 1), strict=True):
        row[last] = end
        row[last + 1 :] = 0 if text.eos_token_id != 2 else end
    return ids


def torch_features(model, images, ids, cotangent):
    """Image and text features, and the gradient of sum(image features * cotangent) for the images."""
    import torch

    side = model.config.vision_config.image_size
    pixels = torch.tensor(images, requires_grad=True)
    resized = torch.nn.functional.interpolate(pixels.permute(0, 3, 1, 2), (side, side), mode="bilinear")
    standard = (resized - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    image = model.visual_projection(model.vision_model(standard).pooler_output)
    (image * torch.tensor(cotangent)).sum().backward()
    with torch.no_grad():
        text = model.text_projection(model.text_model(torch.tensor(ids)).pooler_output)
    return image.detach().numpy(), text.numpy(), pixels.grad.numpy()


def jax_features(clip, images, ids, cotangent):
    def encode(params, images):
        image = clip.vision.apply({"params": params}, images)
        return jnp.sum(image * cotangent), image

    gradient = jax.jit(jax.grad(encode, argnums=1, has_aux=True))
    grad, image = gradient(clip.params["vision"], images)
    text = jax.jit(lambda params, ids: clip.text.apply({"params": params}, ids))(clip.params["text"], ids)
    return np.asarray(image), np.asarray(text), np.asarray(grad)


def assert_parity(clip, model, size):
    rng = np.random.default_rng(1)
    images = rng.random((3, *size, 3), np.float32)
    images[1] *= 0.3
    ids = token_ids(model.config)
    cotangent = rng.standard_normal((3, model.config.projection_dim)).astype(np.float32)
    want, got = torch_features(model, images, ids, cotangent), jax_features(clip, images, ids, cotangent)
    for ours, theirs in zip(got[:2], want[:2], strict=True):
        scale = np.abs(theirs).max()
        assert np.abs(ours - theirs).max() < 2e-4 * scale
        # The inputs make a difference that is far above that error.
        assert np.abs(theirs - theirs.mean(0)).max() > 0.05 * scale
    error = np.linalg.norm(got[2] - want[2]) / np.linalg.norm(want[2])
    assert np.linalg.norm(want[2]) > 1e-3 and error < 1e-3
    return images, ids, got


@pytest.fixture(scope="module")
def vit_b_32(tmp_path_factory, torch_models):
    """A folder in Hugging Face format with a model of the size of OpenAI's ViT-B/32, and the torch model itself."""
    config = CLIPConfig()
    assert (config.vision_config.patch_size, config.vision_config.hidden_size, config.projection_dim) == (32, 768, 512)
    folder = tmp_path_factory.mktemp("vit_b_32")
    model = torch_models.draw_clip(config)
    model.save_pretrained(folder)
    save_tokenizer(make_tokenizer(["a"]), folder)
    return folder, model


def test_vit_b_32(vit_b_32):
    folder, model = vit_b_32
    clip = Clip.load(folder)
    assert sum(leaf.size for leaf in jax.tree.leaves(clip.params)) == 151_277_313
    assert_parity(clip, model, (300, 260))


def test_vit_b_32_in_bfloat16(vit_b_32):
    folder, model = vit_b_32
    images = np.random.default_rng(1).random((4, 224, 224, 3), np.float32)
    ids, cotangent = token_ids(model.config), np.ones((4, 512), np.float32)
    full = jax_features(Clip.load(folder), images, ids, cotangent)
    clip = Clip.load(folder, dtype=jnp.bfloat16)
    half = jax_features(clip, images, ids, cotangent)
    assert {leaf.dtype for leaf in jax.tree.leaves(clip.params)} == {jnp.float32.dtype}
    for ours, exact in zip(half[:2], full[:2], strict=True):
        assert ours.dtype == np.float32 and np.abs(ours - exact).max() > 1e-5 * np.abs(exact).max()
        cosine = np.sum(ours * exact, -1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(exact, axis=-1)
        assert cosine.min() >= 0.999
    cosine = np.sum(half[2] * full[2]) / np.linalg.norm(half[2]) / np.linalg.norm(full[2])
    assert cosine > 0.98


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("end_of_text", [2, 698])
@pytest.mark.parametrize(("image_size", "patch_size"), [(224, 32), (224, 16), (336, 14)])
def test_kinds_of_clip(activation, end_of_text, image_size, patch_size, tmp_path, torch_models):
    config = torch_models.small_clip_config(
        activation=activation, end_of_text=end_of_text, image_size=image_size, patch_size=patch_size
    )
    model = torch_models.draw_clip(config)
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    save_tokenizer(make_tokenizer(["a"]), tmp_path)
    assert_parity(Clip.load(tmp_path), model, (image_size, image_size - 40))


def test_half_precision_files(tmp_path, torch_models):
    """float16 and bfloat16 files are read as what they hold."""
    import torch

    save_tokenizer(make_tokenizer(["a"]), tmp_path)
    for dtype in (torch.float16, torch.bfloat16):
        model = torch_models.draw_clip(torch_models.small_clip_config()).to(dtype)
        model.save_pretrained(tmp_path)
        assert_parity(Clip.load(tmp_path), model.to(torch.float32), (40, 40))
        torch.save(model.to(dtype).state_dict(), tmp_path / "pytorch_model.bin")
        one = Clip.load(tmp_path).fingerprint
        (tmp_path / "model.safetensors").unlink()
        assert Clip.load(tmp_path).fingerprint == one


def test_fused_attention_weights_are_split_as_torch_reads_them():
    """open_clip's attention is torch's own, whose in_proj_weight holds query, key and value one after another."""
    import torch

    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(24, 3, batch_first=True)
    torch.nn.init.normal_(theirs.in_proj_bias)
    tokens = torch.randn(2, 5, 24)
    want = theirs(tokens, tokens, tokens, need_weights=False)[0].detach().numpy()
    name = "transformer.resblocks.0.attn"
    tensors = {f"{name}.{key}": value.numpy() for key, value in theirs.state_dict().items()}
    attention = Attention(3, False, jnp.float32)
    tree = flatten_dict(jax.eval_shape(attention.init, jax.random.key(0), jnp.zeros((2, 5, 24)))["params"], sep="/")
    prefix = "text/block_0/attention/"
    shapes = {prefix + path: leaf.shape for path, leaf in tree.items()}
    flat = to_flax(tensors, OPEN_CLIP_TABLE, shapes, origin="test")
    params = unflatten_dict({path.removeprefix(prefix): value for path, value in flat.items()}, sep="/")
    np.testing.assert_allclose(attention.apply({"params": params}, jnp.asarray(tokens.numpy())), want, atol=1e-5)
    assert all((to_source(flat, OPEN_CLIP_TABLE)[key] == value).all() for key, value in tensors.items())


def test_the_compact_clip_loads_in_transformers():
    """The folder in the package is one of transformers' own: the same embeddings of images and of sentences."""
    import torch
    from transformers import CLIPModel

    clip, model = Clip.load(), CLIPModel.from_pretrained(COMPACT, dtype=torch.float32).eval()
    sentences = ["a dark image with people that stand out", "an infrared image", "zebra"]
    images = np.random.default_rng(0).random((3, 70, 90, 3), np.float32)
    padded = clip.tokenizer(sentences, padding=True, return_tensors="np")["input_ids"]
    want = torch_features(model, images, padded, np.ones((3, clip.vision.embedding), np.float32))[:2]
    got = np.asarray(clip.encode_image(images)), np.asarray(clip.encode_text(sentences))
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())

"""Fuser on arrays, and fusion weights on disk."""

import json
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

import langfuse_jax
from langfuse_jax.errors import UserError
from langfuse_jax.images.files import rgb_to_ycbcr
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.weights.fusion import load_fusion, save_fusion
from langfuse_jax.weights.packaged import MODELS

ASSETS = Path(langfuse_jax.__file__).parent / "assets"


@pytest.fixture(scope="module")
def params():
    image, rng = jnp.zeros((1, 32, 32, 1)), np.random.default_rng(3)
    tree = jax.eval_shape(FusionNet().init, jax.random.key(0), image, image)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.05, leaf.shape), jnp.float32), tree)


@pytest.fixture(scope="module")
def fuser():
    """Of the network that is compiled quickly, as arrays are handled alike."""
    return Fuser.load()


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (48, 64, 3), np.uint8), rng.integers(0, 256, (48, 64), np.uint8)


@pytest.fixture(scope="module")
def luma_fused(fuser, pair):
    """What the network itself makes of the pair's luma."""
    visible = (pair[0] / 255) @ [0.299, 0.587, 0.114]
    inputs = [jnp.asarray(image, jnp.float32)[None, ..., None] for image in (visible, pair[1] / 255)]
    return np.asarray(jax.jit(fuser.net.apply)(fuser.params, *inputs))[0, ..., 0]


def test_colour_keeps_its_chroma(fuser, pair, luma_fused):
    visible, infrared = pair[0] // 8 + 112, pair[1]  # near gray: no clipping
    fused = fuser(visible, infrared)
    assert fused.shape == visible.shape and fused.dtype == np.float32
    assert 0 <= fused.min() and fused.max() <= 1
    _, chroma = rgb_to_ycbcr(np.float32(visible) / 255)
    luma, kept = rgb_to_ycbcr(fused)
    inside = (fused > 0).all(-1) & (fused < 1).all(-1)
    assert inside.mean() > 0.2
    np.testing.assert_allclose(kept[inside], chroma[inside], atol=1e-5)
    gray = fuser(rgb_to_ycbcr(np.float32(visible) / 255)[0], infrared)
    np.testing.assert_allclose(luma[inside], gray[inside], atol=1e-5)


@pytest.mark.parametrize("form", ["uint8", "float64", "jax", "bfloat16", "uint16", "(h,w,1)", "infrared rgb"])
def test_forms_of_one_pair_agree(fuser, pair, luma_fused, form):
    visible, infrared = (pair[0] / 255) @ [0.299, 0.587, 0.114], pair[1]
    tolerance = 1e-4
    if form == "float64":
        infrared = infrared / 255
    elif form == "jax":
        visible, infrared = jnp.asarray(visible, jnp.float32), jnp.asarray(infrared)
    elif form == "bfloat16":
        infrared, tolerance = jnp.asarray(infrared / 255, jnp.bfloat16), 0.05
    elif form == "uint16":
        infrared = infrared.astype(np.uint16) * 257
    elif form == "(h,w,1)":
        visible, infrared = visible[..., None], infrared[..., None]
    elif form == "infrared rgb":
        infrared = np.dstack([infrared] * 3)
    fused = fuser(visible, infrared)
    assert fused.shape == visible.shape
    difference = np.abs(fused.reshape(48, 64) - luma_fused)
    # Of random pixels some are at a choice between the sources, which rounding turns.
    assert np.quantile(difference, 0.99 if form == "bfloat16" else 1) <= tolerance


def test_batch_equals_one_by_one(fuser, pair):
    visible, infrared = np.stack([pair[0], pair[0][::-1]]), np.stack([pair[1], pair[1][::-1]])[..., None]
    fused = fuser(visible, infrared)
    assert fused.shape == visible.shape
    for i in range(2):
        np.testing.assert_allclose(fused[i], fuser(visible[i], infrared[i]), atol=1e-4)


@pytest.mark.parametrize(
    ("visible", "infrared", "message"),
    [
        (np.zeros((32, 40)), np.zeros((32, 41)), "visible is 1x32x40 and infrared 1x32x41"),
        (np.zeros((2, 32, 32, 1)), np.zeros((32, 32)), "visible is 2x32x32 and infrared 1x32x32"),
        (np.zeros((31, 40)), np.zeros((31, 40)), "sides must be at least 32"),
        (np.zeros((4, 32, 40)), np.zeros((4, 32, 40)), r"visible: is of shape \(4, 32, 40\)"),
        (np.zeros(32), np.zeros((32, 40)), r"visible: is of shape \(32,\)"),
        (np.zeros((0, 32, 32, 1)), np.zeros((0, 32, 32, 1)), "visible: is of shape"),
        (np.zeros((32, 40)), np.full((32, 40), np.nan), "infrared: has values that are not finite"),
        (np.full((32, 40), 255.0), np.zeros((32, 40)), "visible: floats run from 255 to 255; scale them"),
        (np.zeros((32, 40)), np.full((32, 40), -0.5), "infrared: floats run from -0.5"),
        (np.zeros((32, 40), np.int32), np.zeros((32, 40)), "visible: pixels are int32"),
    ],
)
def test_bad_arrays(fuser, visible, infrared, message):
    with pytest.raises(UserError, match=message):
        fuser(visible, infrared)


@pytest.mark.parametrize("dtype", [np.float16, jnp.float32])
def test_weights_round_trip(tmp_path, params, dtype):
    folder = tmp_path / "new" / "model"
    save_fusion(folder, params, dtype=dtype, metadata={"config": "configs/cpu.py", "steps": 3})
    loaded, metadata = load_fusion(folder)
    assert metadata == {"config": "configs/cpu.py", "steps": 3, "format": "langfuse_jax.fusion", "version": 1}
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(params), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, np.asarray(b).astype(dtype))
    assert sorted(path.name for path in folder.iterdir()) == ["fusion.json", "fusion.safetensors"]
    assert Fuser.load(folder).metadata["steps"] == 3


def test_weights_that_do_not_fit_are_named(tmp_path, params):
    flat = {key: np.asarray(value) for key, value in traverse_util.flatten_dict(params, sep="/").items()}
    save_fusion(tmp_path, params, dtype=np.float16, metadata={})
    tensors, key = tmp_path / "fusion.safetensors", "params/decoder/mlp/dense_0/bias"

    def complaint(changes):
        safetensors.numpy.save_file({k: v for k, v in {**flat, **changes}.items() if v is not None}, tensors)
        with pytest.raises(UserError, match=r"fusion\.safetensors: does not fit the fusion network") as error:
            load_fusion(tmp_path)
        return str(error.value)

    assert f"lacks {key}" in complaint({key: None})
    assert "has the unknown params/other" in complaint({"params/other": np.zeros(1, np.float32)})
    assert f"{key} is (3,), not (256,)" in complaint({key: np.zeros(3, np.float32)})
    assert f"{key} has values that are no finite" in complaint({key: np.full(256, np.nan, np.float32)})
    assert "more" in complaint({name: None for name in list(flat)[:20]})

    huge = traverse_util.unflatten_dict({**flat, key: np.full(256, 1e6, np.float32)}, sep="/")
    with pytest.raises(UserError, match="no finite float16"):
        save_fusion(tmp_path / "half", huge, dtype=np.float16, metadata={})
    assert not (tmp_path / "half").exists()
    with pytest.raises(UserError, match="float16 or float32"):
        save_fusion(tmp_path / "half", params, dtype=np.float64, metadata={})


@pytest.mark.parametrize("model", MODELS)
def test_weights_of_the_package_fit_their_network(model):
    """Which is not checked when they are loaded."""
    checked, _ = load_fusion(ASSETS / model)
    jax.tree.map(np.testing.assert_array_equal, checked, Fuser.load(model=model).params)


def test_damaged_checkpoint_files(tmp_path, params):
    save_fusion(tmp_path, params, dtype=np.float16, metadata={})
    tensors, description = tmp_path / "fusion.safetensors", tmp_path / "fusion.json"
    whole = tensors.read_bytes()
    for part in (b"", whole[:1000], whole[:-1]):
        tensors.write_bytes(part)
        with pytest.raises(UserError, match=r"fusion\.safetensors: cannot be read"):
            Fuser.load(tmp_path)
    tensors.write_bytes(whole)
    for text in ("{", "[]", json.dumps({"format": "langfuse_jax.fusion", "version": 2})):
        description.write_text(text)
        with pytest.raises(UserError, match=r"fusion\.json: (cannot be read as JSON|is not version 1)"):
            Fuser.load(tmp_path)
    description.unlink()
    with pytest.raises(UserError, match=r"fusion\.json: no such file"):
        Fuser.load(tmp_path)
    tensors.unlink()
    with pytest.raises(UserError, match=r"has neither fusion\.safetensors nor checkpoints/"):
        Fuser.load(tmp_path)
    with pytest.raises(UserError, match="none: no such folder"):
        Fuser.load(tmp_path / "none")


def test_workdir_that_has_only_checkpoints(tmp_path, params, monkeypatch):
    asked = []
    checkpoint = types.SimpleNamespace(
        restore_params=lambda folder, step: asked.append(folder) or params,
        saved_config=lambda folder, step: {"crop": crops.pop()},
    )
    crops = [60, 48]
    monkeypatch.setattr("langfuse_jax.weights.checkpoint", checkpoint, raising=False)
    (tmp_path / "checkpoints").mkdir()
    fuser = Fuser.load(str(tmp_path))
    assert asked == [tmp_path]
    np.testing.assert_array_equal(jax.tree.leaves(fuser.params)[0], jax.tree.leaves(params)[0])
    # It sees images as the finished model is to.
    assert fuser.metadata == {"pad_multiple": 8, "worn_edge": 2}
    assert Fuser.load(str(tmp_path)).metadata == {"pad_multiple": 1, "worn_edge": 2}


def test_images_are_reflected_to_the_multiple_that_the_weights_ask_for(params, pair):
    visible, infrared = pair[0][:, :61, 0] / np.float32(255), pair[1][:, :61] / np.float32(255)
    # Columns 61, 62, 63 mirror 59, 58, 57.
    reflected = [np.concatenate([image, image[:, 59:56:-1]], axis=1) for image in (visible, infrared)]
    expected = Fuser(params)(*reflected)[:, :61]
    np.testing.assert_array_equal(Fuser(params, {"pad_multiple": 8})(visible, infrared), expected)
    assert not np.array_equal(Fuser(params)(visible, infrared), expected)


def test_worn_edge_is_replaced_by_what_is_inside(params, pair):
    visible, infrared = pair[0][:, :61, 0] / np.float32(255), pair[1][:, :61] / np.float32(255)
    last = len(visible) - 3
    rows, columns = [2, 2, *range(2, last), last, last, last], [2, 2, *range(2, 58), 58, 58, 58, 58, 58, 57]
    seen = [image[rows][:, columns] for image in (visible, infrared)]
    fuser = Fuser(params, {"pad_multiple": 8, "worn_edge": 2})
    fused = fuser(visible, infrared)
    np.testing.assert_array_equal(fused, Fuser(params)(*seen)[:, :61])
    infrared[:2] = infrared[:, -2:] = 0  # black lines at the top and at the right
    np.testing.assert_array_equal(fused, fuser(visible, infrared))

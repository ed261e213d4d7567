"""VGG19's features against torch, and its weights under the names of torchvision and timm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import procedural_weights
from safetensors.numpy import load_file, save_file

from langfuse_jax import UserError
from langfuse_jax.cli import main
from langfuse_jax.models.vgg import VGG19
from langfuse_jax.weights.vgg import load_vgg19


@pytest.mark.parametrize("naming", procedural_weights.VGG19_HEADS)
def test_conversion_keeps_what_the_loss_reads(naming, tmp_path, capsys):
    tensors = procedural_weights.vgg19(naming)
    save_file(tensors, tmp_path / "all.safetensors")
    out = tmp_path / "new" / "vgg19.safetensors"
    assert main(["convert", "vgg19", "--weights", str(tmp_path / "all.safetensors"), "--out", str(out)]) == 0
    assert f"--config.vgg={out}" in capsys.readouterr().out
    kept = load_file(out)
    assert sorted({int(name.split(".")[1]) for name in kept}) == [0, 2, 5, 7, 10, 12, 14, 16, 19, 21]
    assert all(np.array_equal(kept[name], tensors[name]) for name in kept)
    again, whole = load_vgg19(out), load_vgg19(tmp_path / "all.safetensors")
    assert jax.tree.all(jax.tree.map(np.array_equal, again, whole))
    assert np.array_equal(again["conv4_2"]["kernel"][2, 1, 7, 9], tensors["features.21.weight"][9, 7, 2, 1])


def test_features_worked_by_hand():
    """Where every kernel copies its first channel, features are the poolings of the image; black stays black."""
    shapes = jax.eval_shape(VGG19().init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))["params"]
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    for layer in params.values():
        layer["kernel"] = layer["kernel"].at[1, 1, 0, 0].set(1.0)
    image = np.random.default_rng(0).uniform(size=(2, 17, 24, 1)).astype(np.float32)
    features = jax.jit(VGG19().apply)({"params": params}, image)
    assert [f.shape for f in features] == [(2, 8, 12, 128), (2, 4, 6, 256), (2, 2, 3, 512)]
    for feature, size in zip(features, (2, 4, 8), strict=True):
        h, w = feature.shape[1:3]
        pooled = image[:, : h * size, : w * size, 0].reshape(2, h, size, w, size).max((2, 4))
        np.testing.assert_allclose(feature[..., 0], pooled, rtol=1e-4)  # Winograd rounds more than a copy
        assert not feature[..., 1:].any()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda t: t.pop("features.5.bias"), r"missing tensors: features.5.bias \(for conv2_1/bias\)"),
        (lambda t: t.update({"features.1.running_mean": t["features.0.bias"]}), "unknown tensors: features.1.running"),
        (
            lambda t: t.update({"features.2.weight": np.zeros((64, 64, 5, 5), np.float32)}),
            r"wrong shapes: features.2.weight is \(64, 64, 5, 5\), not \(64, 64, 3, 3\)",
        ),
        (
            lambda t: t.update({"features.2.weight": np.zeros((64, 64, 3, 3), np.int8)}),
            "not finite floating-point numbers: features.2.weight is int8",
        ),
    ],
)
def test_other_weights_are_refused(damage, named, tmp_path, capsys):
    tensors = procedural_weights.vgg19()
    damage(tensors)
    save_file(tensors, tmp_path / "other.safetensors")
    out = tmp_path / "vgg19.safetensors"
    with pytest.raises(UserError, match=named):
        load_vgg19(tmp_path / "other.safetensors")
    assert main(["convert", "vgg19", "--weights", str(tmp_path / "other.safetensors"), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(tmp_path / "other.safetensors") in error
    assert not out.exists()


def test_bad_files(tmp_path, capsys):
    whole = tmp_path / "whole.safetensors"
    save_file(procedural_weights.vgg19(), whole)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-100])
    before = sorted(tmp_path.iterdir())
    for weights, out in (
        ("none.safetensors", "vgg19.safetensors"),
        ("cut.safetensors", "vgg19.safetensors"),
        ("whole.safetensors", "vgg19.pth"),
    ):
        assert main(["convert", "vgg19", "--weights", str(tmp_path / weights), "--out", str(tmp_path / out)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and (out if out.endswith(".pth") else weights) in error
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.torch
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_torch(channels, tmp_path, torch_models):
    import torch

    tensors = {name: torch.tensor(value) for name, value in procedural_weights.vgg19("torchvision").items()}
    torch.save(tensors, tmp_path / "vgg19-dcbb9e9d.pth", _use_new_zipfile_serialization=False)  # as torchvision's is
    params = load_vgg19(tmp_path / "vgg19-dcbb9e9d.pth")
    images = np.random.default_rng(0).random((2, 75, 91, channels), np.float32)
    want = torch_models.vgg19_features(tensors, torch.tensor(images).permute(0, 3, 1, 2))
    got = jax.jit(VGG19().apply)({"params": params}, images)
    for feature, reference in zip(got, want, strict=True):
        assert reference.max() > 1
        np.testing.assert_allclose(feature, reference.permute(0, 2, 3, 1), atol=1e-4)

"""One whole published training loss, from the fusion network's parameters to the total, against torch in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import procedural_weights
from safetensors.numpy import save_file

from langfuse_jax import Clip, FusionNet
from langfuse_jax.compact_clip.tokenizer import make_tokenizer, save_tokenizer
from langfuse_jax.losses import Words
from langfuse_jax.losses.total import PUBLISHED_WEIGHTS
from langfuse_jax.models.clip import MEAN, STD
from langfuse_jax.training.augmentation.windows import random_windows
from langfuse_jax.training.objective import Frozen, Recipe, objective
from langfuse_jax.weights.ldfusion import fusion_from_torch, fusion_to_torch
from langfuse_jax.weights.vgg import load_vgg19

BATCH, CROP, PATCHES, CLIP_SIZE = 2, 48, 12, 32


def _crops():
    """Visible and infrared crops, (2, b, s, s, 1): rich on the right, nearly flat on the left to differing extents."""
    rng = np.random.default_rng(5)
    crops = rng.uniform(0.05, 0.95, (2, BATCH, CROP, CROP, 1)).astype(np.float32)
    crops = (crops + np.roll(crops, 1, 2) + np.roll(crops, 1, 3)) / 3
    for image, extent in zip(crops.reshape(-1, CROP, CROP, 1), (16, 5, 10, 24), strict=True):
        image[:, :extent] = 0.4 + 0.008 * image[:, :extent]
    return crops


def _torch_patches(images, windows, size):
    """Patch p of image b as row p * b_total + b: bilinear at the window's affine places, black outside the window."""
    import torch

    side = float(windows.side)
    place = (torch.arange(size, dtype=torch.float64) + 0.5) / size - 0.5
    y, x = torch.meshgrid(place, place, indexing="ij")
    patches = []
    for matrix, centre in zip(
        np.asarray(windows.matrices, np.float64), np.asarray(windows.centre, np.float64), strict=True
    ):
        v = matrix[0, 0] * y + matrix[0, 1] * x + matrix[0, 2]
        u = matrix[1, 0] * y + matrix[1, 1] * x + matrix[1, 2]
        grid = torch.stack([(centre[1] + side * u) * 2 / CROP - 1, (centre[0] + side * v) * 2 / CROP - 1], -1)
        view = torch.nn.functional.grid_sample(
            images, grid.expand(len(images), -1, -1, -1), "bilinear", "border", align_corners=False
        )
        patches.append(view * ((u.abs() <= 0.5) & (v.abs() <= 0.5)))
    return torch.cat(patches)


def _margin(torch_models, monkeypatch, *arguments):
    """How near to zero any input of the fusion network's ReLUs comes."""
    import torch

    nearest, relu = [], torch.nn.functional.relu
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(torch.nn.functional, "relu", lambda x: nearest.append(x.abs().min().item()) or relu(x))
        torch_models.fusion(*arguments)
    return min(nearest)


def _torch_entropy(image):
    import torch

    counts = torch.histc(image.detach(), 256, 0, 1)
    p = counts[counts > 0] / counts.sum()
    return float(-(p * p.log2()).sum())


def _torch_loss(torch_models, encoder, decoder, clip, vgg, texts, crops, noise, windows):
    """Total, terms, patches that count with their entropies, and the fused images, as the method's paper has them."""
    import torch
    from torch.nn import functional as F

    def embed(images):
        pixels = F.interpolate(images.expand(-1, 3, -1, -1), (CLIP_SIZE, CLIP_SIZE), mode="bilinear")
        pixels = (pixels - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(STD).reshape(3, 1, 1)
        return F.normalize(clip.visual_projection(clip.vision_model(pixels).pooler_output), dim=-1)

    def distance(a, b):
        return (1 - F.cosine_similarity(a, b, dim=-1)) / 2

    def directional(e_fused):
        repeats = len(e_fused) // BATCH
        e_visible, e_infrared = (e.repeat(repeats, 1) for e in (whole_visible, whole_infrared))
        return distance(e_fused - e_visible, texts["goal"] - texts["visible"]) + distance(
            e_fused - e_infrared, texts["goal"] - texts["infrared"]
        )

    visible, infrared = crops
    fused = torch_models.fusion(encoder, decoder, visible + noise[0], infrared + noise[1])
    whole, whole_visible, whole_infrared = embed(fused), embed(visible), embed(infrared)
    entropies = np.array(
        [
            [_torch_entropy(patch) for patch in _torch_patches(source, windows, CLIP_SIZE)]
            for source in (visible, infrared)
        ]
    )
    counts = torch.tensor((entropies > 6).all(0), dtype=torch.float64)
    features = [torch_models.vgg19_features(vgg, images) for images in (fused, visible, infrared)]
    terms = {
        "whole": directional(whole).mean(),
        "patch": (directional(embed(_torch_patches(fused, windows, CLIP_SIZE))) * counts).mean(),
        "similarity": (distance(whole, whole_visible) + distance(whole, whole_infrared)).mean(),
        "perceptual": sum(F.mse_loss(f, torch.maximum(v, i)) for f, v, i in zip(*features, strict=True)),
    }
    total = 2 * terms["whole"] + 10 * terms["patch"] + 6 * terms["similarity"] + 10 * terms["perceptual"]
    return total, terms, counts, entropies, fused


@pytest.mark.torch
@pytest.mark.parametrize(("noise_level", "seed"), [(0.0, 12), (0.03, 11)])
def test_the_whole_loss_and_its_gradient(noise_level, seed, tmp_path, torch_models, monkeypatch):
    import torch

    # Outside [0, 1] our gradient is another one on purpose (models.clamp): the published clip stands for it here.
    monkeypatch.setattr("langfuse_jax.models.fusion.clamp_to_unit", lambda x: jnp.clip(x, 0, 1))
    state = procedural_weights.encoder_decoder(seed)
    # A fifth of the fused pixels is clipped. With half, the poolings of VGG see black areas: ties that go either way.
    state[1]["model_up.10.weight"] *= 0.5
    vgg = procedural_weights.vgg19()
    save_file(vgg, tmp_path / "vgg19.safetensors")
    model = torch_models.draw_clip(torch_models.small_clip_config(image_size=CLIP_SIZE))
    model.save_pretrained(tmp_path)
    save_tokenizer(make_tokenizer(["a"]), tmp_path)
    rng = np.random.default_rng(1)
    texts = {
        role: vector / np.linalg.norm(vector)
        for role, vector in zip(("visible", "infrared", "goal"), rng.normal(size=(3, 24)), strict=True)
    }
    crops = _crops()
    noise = noise_level * rng.standard_normal(crops.shape).astype(np.float32)
    windows = random_windows(jax.random.key(3), PATCHES, CROP)

    clip = Clip.load(tmp_path)
    frozen = Frozen(
        clip=clip.params["vision"],
        words=Words(**{role: jnp.asarray(vector, jnp.float32) for role, vector in texts.items()}),
        vgg=load_vgg19(tmp_path / "vgg19.safetensors"),
    )

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def ours(params, crops, noise, windows, frozen):
        recipe = Recipe(weights=PUBLISHED_WEIGHTS, patches=PATCHES)
        return objective(params, *crops, noise, windows, frozen, net=FusionNet(), vision=clip.vision, recipe=recipe)

    params = jax.tree.map(jnp.asarray, fusion_from_torch(*state))
    (total, terms), gradient = ours(params, jnp.asarray(crops), jnp.asarray(noise), windows, frozen)

    def double(array):
        return torch.tensor(np.asarray(array, np.float64))

    encoder, decoder = ({k: double(v).requires_grad_("running" not in k) for k, v in part.items()} for part in state)
    pair, pair_noise = (double(images.transpose(0, 1, 4, 2, 3)) for images in (crops, noise))
    want, want_terms, counts, entropies, fused = _torch_loss(
        torch_models,
        encoder,
        decoder,
        model.double(),
        {name: double(value) for name, value in vgg.items()},
        {role: double(vector) for role, vector in texts.items()},
        pair,
        pair_noise,
        windows,
    )
    want.backward()

    # What is compared has patches of both kinds, none on the edge between them, and fused pixels that are clipped.
    assert 0.2 <= counts.mean() <= 0.8 and np.abs(entropies - 6).min() > 0.01
    assert 0.1 < (fused == 0).double().mean() < 0.5
    # No ReLU is so near to its kink that float32 could fall on the other side and take another gradient.
    assert _margin(torch_models, monkeypatch, encoder, decoder, *(pair + pair_noise)) > 1e-6
    assert all(term > 0.01 for term in want_terms.values())

    assert terms["selected"] == pytest.approx(float(counts.mean()), abs=1e-6)
    for name, term in want_terms.items():
        assert float(terms[name]) == pytest.approx(term.item(), abs=1e-4), name
    assert float(total) == pytest.approx(want.item(), abs=1e-4)
    theirs = {k: v.grad.numpy() for part in (encoder, decoder) for k, v in part.items() if v.requires_grad}
    mine = {k: v for part in fusion_to_torch(gradient) for k, v in part.items() if "running" not in k}
    norm = np.sqrt(sum(np.square(value).sum() for value in theirs.values()))
    assert mine.keys() == theirs.keys() and norm > 0.1
    for name, reference in theirs.items():
        # A bias before an instance norm has no gradient but rounding, hence the share of the whole.
        error = np.linalg.norm(mine[name] - reference)
        assert error <= 1e-3 * np.linalg.norm(reference) + 1e-7 * norm, name

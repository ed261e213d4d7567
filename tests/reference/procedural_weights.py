"""Weights drawn from a seed, as torch-style state dicts of numpy arrays: the published fusion network and VGG19.

The reference outputs in tests/data/fusion_reference.npz were computed with the pair drawn from seed 2024.
"""

import json
from pathlib import Path

import numpy as np

SHAPES = json.loads((Path(__file__).parents[1] / "data" / "fusion_state_shapes.json").read_text())
TRANSPOSED = ("model_up.0.", "model_up.3.", "model_up.6.")

# torchvision's configuration E: channels of the convolutions, "M" a pooling.
VGG19_LAYOUT = [64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"]
VGG19_HEADS = {
    "torchvision": ("classifier.0", "classifier.3", "classifier.6"),
    "timm": ("pre_logits.fc1", "pre_logits.fc2", "head.fc"),
    "none": (),
}


def encoder_decoder(seed):
    """`(encoder, decoder)`: {torch name: float32 array}; the tensor at place i is drawn from default_rng([seed, i])."""
    encoder = _draw(SHAPES["encoder"], seed)
    decoder = _draw(SHAPES["decoder"], seed + 1000)
    # Outputs then lie inside (0, 1) and at both ends.
    decoder["model_up.10.bias"][:] = 0.5
    return encoder, decoder


def _draw(shapes, seed):
    return {
        name: _tensor(name, shape, np.random.default_rng([seed, place])).astype(np.float32)
        for place, (name, shape) in enumerate(shapes.items())
    }


def _tensor(name, shape, rng):
    match name.rsplit(".", 1)[1]:
        case "running_mean":
            return np.zeros(shape)
        case "running_var":
            return np.ones(shape)
        case "gamma":
            return rng.uniform(0.5, 1.5, shape)
        case "beta" | "bias":
            return rng.normal(0, 0.1, shape)
    # A stride-2 transposed kernel reaches each output with a quarter of its taps.
    fan_in = shape[0] * shape[2] * shape[3] / 4 if name.startswith(TRANSPOSED) else np.prod(shape[1:])
    return rng.normal(0, 1, shape) / np.sqrt(fan_in)


def vgg19(naming="none", seed=0):
    """Random tensors of the whole network up to conv4_4 (the layers after that, which nothing reads, in miniature)."""
    rng = np.random.default_rng(seed)
    tensors, place, channels = {}, 0, 3
    for step in VGG19_LAYOUT:
        if step == "M":
            place += 1
            continue
        shape = (step, channels, 3, 3) if place <= 25 else (1, 1, 3, 3)
        tensors[f"features.{place}.weight"] = rng.normal(0, (2 / (9 * channels)) ** 0.5, shape).astype(np.float32)
        tensors[f"features.{place}.bias"] = rng.normal(0, 0.05, shape[:1]).astype(np.float32)
        place, channels = place + 2, step
    for layer in VGG19_HEADS[naming]:
        tensors |= {f"{layer}.weight": np.zeros((2, 2), np.float32), f"{layer}.bias": np.zeros(2, np.float32)}
    return tensors

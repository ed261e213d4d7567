"""VGG19 up to conv4_2 (Simonyan & Zisserman, arXiv 1409.1556): the published perceptual features."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float
from safetensors.numpy import load_file

from langfuse_jax.errors import UserError

# Place in torchvision's `features` -> (input channels, output channels, what happens to the output).
_LAYERS = {
    0: (3, 64, ""),
    2: (64, 64, "pool"),
    5: (64, 128, "keep"),  # conv2_1
    7: (128, 128, "pool"),
    10: (128, 256, "keep"),  # conv3_1
    12: (256, 256, ""),
    14: (256, 256, ""),
    16: (256, 256, "pool"),
    19: (256, 512, ""),
    21: (512, 512, "keep"),  # conv4_2
}


def load_vgg19(path: str) -> dict[str, Array]:
    """VGG19's parameters from a .safetensors file in torchvision's naming (`features.0.weight`, OIHW).

    Returns:
        {"0.kernel": HWIO, "0.bias": ...} for the layers up to conv4_2; later layers of the file are not needed.

    Raises:
        UserError: the file is missing, unreadable, or lacks one of those layers in its true shape.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; give VGG19 weights as .safetensors in torchvision's naming")
    try:
        source = load_file(path)
    except Exception as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from error
    params, wrong = {}, []
    for place, (c_in, c_out, _) in _LAYERS.items():
        weight, bias = (source.get(f"features.{place}.{kind}") for kind in ("weight", "bias"))
        if weight is None or bias is None or weight.shape != (c_out, c_in, 3, 3) or bias.shape != (c_out,):
            wrong.append(f"features.{place}")
            continue
        params[f"{place}.kernel"] = jnp.asarray(np.transpose(weight, (2, 3, 1, 0)), jnp.float32)
        params[f"{place}.bias"] = jnp.asarray(bias, jnp.float32)
    if wrong:
        raise UserError(f"{path}: not VGG19 in torchvision's naming; missing or misshapen: {', '.join(wrong)}")
    return params


def vgg19_features(params: dict[str, Array], images: Float[Array, "b h w 1"]) -> tuple[Array, Array, Array]:
    """Post-ReLU conv2_1, conv3_1 and conv4_2 of gray images repeated to three channels.

    Args:
        params: from `load_vgg19`.
        images: (b, h, w, 1) in [0, 1], WITHOUT ImageNet mean and std, as LDFusion has it; at least 8 pixels a side.

    Returns:
        (b, h/2, w/2, 128), (b, h/4, w/4, 256) and (b, h/8, w/8, 512) features.
    """
    x = jnp.repeat(images, 3, axis=-1)
    kept = []
    for place, (_, _, then) in _LAYERS.items():
        dimensions = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(x, params[f"{place}.kernel"], (1, 1), "SAME", dimension_numbers=dimensions)
        x = jax.nn.relu(x + params[f"{place}.bias"])
        if then == "keep":
            kept.append(x)
        elif then == "pool":
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return tuple(kept)

"""VGG19 up to conv4_2 (Simonyan & Zisserman, arXiv 1409.1556): the published perceptual features."""

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.initializers import he_normal
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from langfuse_jax.models.convolution import conv
from langfuse_jax.models.layers import Conv

# Convolutions of each block: (layer, channels, whether its output is a feature). A 2x2 pooling ends every block.
_BLOCKS = (
    (("conv1_1", 64, False), ("conv1_2", 64, False)),
    (("conv2_1", 128, True), ("conv2_2", 128, False)),
    (("conv3_1", 256, True), ("conv3_2", 256, False), ("conv3_3", 256, False), ("conv3_4", 256, False)),
    (("conv4_1", 512, False), ("conv4_2", 512, True)),
)


class VGG19(nn.Module):
    """`VGG19().apply({"params": params}, images)`: post-ReLU conv2_1, conv3_1 and conv4_2.

    Images are (b, h, w, c) in [0, 1], at least 8 pixels a side, WITHOUT ImageNet's mean and std, as LDFusion has it;
    a gray image is taken as RGB with three equal channels. The features are (b, h/2, w/2, 128), (b, h/4, w/4, 256) and
    (b, h/8, w/8, 512), sides rounded down, in `dtype`, as is all arithmetic. Parameters come from
    `weights.vgg.load_vgg19`.

    >>> import jax
    >>> image = jax.ShapeDtypeStruct((1, 32, 48, 1), jnp.float32)
    >>> [x.shape for x in jax.eval_shape(VGG19().init_with_output, jax.random.key(0), image)[0]]
    [(1, 16, 24, 128), (1, 8, 12, 256), (1, 4, 6, 512)]
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b h2 w2 128"], Float[Array, "b h4 w4 256"], Float[Array, "b h8 w8 512"]]:
        x = images.astype(self.dtype)
        features = []
        for i, block in enumerate(_BLOCKS):
            x = nn.max_pool(x, (2, 2), (2, 2)) if i else x
            for layer, channels, keep in block:
                layer_conv = Conv(channels, 3, zeros=1, dtype=self.dtype, kernel_init=he_normal(), name=layer)
                x = nn.relu(layer_conv(x) if x.shape[-1] > 1 else _of_gray(layer_conv, x))
                if keep:
                    features.append(x)
        conv2_1, conv3_1, conv4_2 = features
        return conv2_1, conv3_1, conv4_2


def _of_gray(form: Conv, x: Float[Array, "b h w 1"]) -> Float[Array, "b h w d"]:
    """What `form`, of three channels, makes of three equal ones: one kernel for all."""
    kernel, bias = form.weights(3)
    return conv(x, kernel.astype(jnp.float32).sum(2, keepdims=True).astype(x.dtype), padding=form.zeros) + bias

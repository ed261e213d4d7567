"""Convolutions of the fusion network, with the lowering of each direction chosen for the platform.

GPU takes the library's convolutions and their gradients. So does TPU, but its compiler takes minutes for those of one
channel (`models.one_channel`) and for strides, which are rewritten.
XLA's CPU backend has a fast path for some convolutions only; the others (few outputs, strided input gradients,
everything transposed) fall to a loop up to a hundred times slower. There each direction is rewritten as a matrix
product or as a convolution of the fast kind, and what is not differentiated takes Winograd's forms
(benchmarks/RESULTS.md has the times). The choice is made when a program is lowered, for gradients too: one trace, or
one export, serves several platforms.

The library's convolutions require the highest precision, without which GPU and TPU round float32 to 8 to 11 bits
(TF32, bfloat16). Half precision is what it was, and a CPU knows no other.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from langfuse_jax.models.one_channel import (
    from_one_channel,
    kernel_gradient_from_one,
    kernel_gradient_to_one,
    to_one_channel,
)
from langfuse_jax.models.winograd import winograd_conv, winograd_conv_transpose

Input = Float[Array, "b h w c"]
Kernel = Float[Array, "k k c d"]
Output = Float[Array, "b h2 w2 d"]
_Operands = tuple[Input, Kernel]  # or their gradients


def conv(x: Input, kernel: Kernel, stride: int = 1, padding: int = 0) -> Output:
    """Convolution without bias, stride 1 or 2, of `x` zero-padded by `padding` on every side."""
    return _conv(x, _vary_like(x, kernel), stride, padding)


def conv_transpose(x: Input, kernel: Kernel) -> Output:
    """Transposed convolution, stride 2, no bias: out[2i + p, 2j + q] sums x[i, j] @ kernel[p, q]; h2 = 2h + k - 2."""
    return _conv_transpose(x, _vary_like(x, kernel))


def zero_pad(x: Input, width: int) -> Float[Array, "b h2 w2 c"]:
    """`width` zeros on every side."""
    return jnp.pad(x, ((0, 0), (width, width), (width, width), (0, 0))) if width else x


_library = partial(lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest")


def library_conv(x: Input, kernel: Kernel, stride: int = 1, padding: int = 0) -> Output:
    """`conv` of XLA's library."""
    return _library(x, kernel, (stride, stride), [(padding, padding)] * 2)


def library_conv_transpose(x: Input, kernel: Kernel) -> Output:
    """`conv_transpose` of XLA's library."""
    border = [(kernel.shape[0] - 1,) * 2] * 2
    return _library(x, kernel[::-1, ::-1], (1, 1), border, lhs_dilation=(2, 2))


def _vary_like(x: Input, kernel: Kernel) -> Kernel:
    """`kernel`, typed as varying over the devices that x varies over, inside `jax.shard_map`.

    A custom gradient must have the type of its argument; this cast's own gradient is the sum over the devices.
    """
    missing = jax.typeof(x).manual_axis_type.varying - jax.typeof(kernel).manual_axis_type.varying
    return lax.pcast(kernel, tuple(missing), to="varying")


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: Input, kernel: Kernel, stride: int, padding: int) -> Output:
    forms = (_cpu_conv, _tpu_conv, library_conv)
    cpu, tpu, library = (partial(form, stride=stride, padding=padding) for form in forms)
    return lax.platform_dependent(x, kernel, cpu=cpu, tpu=tpu, default=library)


def _conv_forward(x: Input, kernel: Kernel, stride: int, padding: int) -> tuple[Output, _Operands]:
    return _conv(x, kernel, stride, padding), (x, kernel)


def _conv_backward(stride: int, padding: int, operands: _Operands, g: Output) -> _Operands:
    def cpu(x: Array, kernel: Array, g: Array) -> _Operands:
        dx = _conv_input_gradient(x, kernel, stride, padding, g)
        return dx, _conv_kernel_gradient(zero_pad(x, padding), kernel, stride, g)

    library = partial(_library_gradients, partial(library_conv, stride=stride, padding=padding))
    tpu = partial(_tpu_gradients, stride=stride, padding=padding)
    return lax.platform_dependent(*operands, g, cpu=cpu, tpu=tpu, default=library)


def _tpu_conv(x: Input, kernel: Kernel, stride: int, padding: int) -> Output:
    """Strides and single channels are what TPU's compiler takes minutes for: there are none."""
    if stride == 2 and len(kernel) % 2 == 0:
        return _space_to_depth(zero_pad(x, padding), kernel)
    if stride == 1 and kernel.shape[2] == 1:
        return from_one_channel(zero_pad(x, padding), kernel)
    if stride == 1 and kernel.shape[3] == 1:
        return to_one_channel(zero_pad(x, padding), kernel)
    return library_conv(x, kernel, stride, padding)


def _tpu_gradients(x: Input, kernel: Kernel, g: Output, *, stride: int, padding: int) -> _Operands:
    size, _, c, d = kernel.shape
    if stride > 1 or 1 not in (c, d):
        return _library_gradients(partial(_tpu_conv, stride=stride, padding=padding), x, kernel, g)
    dx = _tpu_conv(g, kernel.swapaxes(2, 3)[::-1, ::-1], 1, size - 1 - padding)
    kernel_gradient = kernel_gradient_from_one if c == 1 else kernel_gradient_to_one
    return dx, kernel_gradient(zero_pad(x, padding), g)


def _space_to_depth(x: Input, kernel: Kernel) -> Output:
    """Stride 2 as stride 1: blocks of 2x2 pixels become 4 c channels, and an even kernel has half its size."""
    b, *sides, c = x.shape  # symbols in an export
    h, w = ((n - len(kernel)) // 2 + len(kernel) // 2 for n in sides)
    x = x[:, : 2 * h, : 2 * w].reshape(b, h, 2, w, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, h, w, 4 * c)
    return library_conv(x, from_blocks(kernel))


def from_blocks(kernel: Kernel) -> Float[Array, "k2 k2 c4 d"]:
    """A kernel of even size, for inputs in blocks of 2x2 pixels, at stride 2."""
    size, _, c, d = kernel.shape
    kernel = kernel.reshape(size // 2, 2, size // 2, 2, c, d).transpose(0, 2, 1, 3, 4, 5)
    return kernel.reshape(size // 2, size // 2, 4 * c, d)


def _library_gradients(function: Callable[..., Array], x: Input, kernel: Kernel, g: Output) -> _Operands:
    return jax.vjp(function, x, kernel)[1](g)


_conv.defvjp(_conv_forward, _conv_backward)


def _cpu_conv(x: Input, kernel: Kernel, stride: int, padding: int) -> Output:
    if kernel.shape[-1] == 1 and stride == 1:
        return to_one_channel(zero_pad(x, padding), kernel)
    if _winograd_pays(x, kernel, stride):
        return winograd_conv(zero_pad(x, padding), kernel)
    if padding:
        return library_conv(x, kernel, stride, padding)
    return _padded_library_conv(x, kernel, stride)


def _winograd_pays(x: Input, kernel: Kernel, stride: int) -> bool:
    """3x3 with enough channels for the products to outweigh the transforms, not so many that the weights' do.

    Its sums and differences would cost half precision its digits.
    """
    size, _, c, d = kernel.shape
    return size == 3 and stride == 1 and x.dtype == jnp.float32 and 64 * 128 <= c * d <= 256 * 512


def _conv_input_gradient(x: Input, kernel: Kernel, stride: int, padding: int, g: Output) -> Input:
    """The adjoint: a convolution with the flipped kernel, or a transposed convolution for stride 2."""
    swapped = kernel.swapaxes(2, 3)
    if stride == 1:
        return _cpu_conv(g, swapped[::-1, ::-1], 1, kernel.shape[0] - 1 - padding)
    dx = _depth_to_space(g, swapped)
    # Rows and columns that no window reached.
    dx = jnp.pad(
        dx, [(0, 0), *((0, n + 2 * padding - got) for n, got in zip(x.shape[1:3], dx.shape[1:3], strict=True)), (0, 0)]
    )
    h, w = x.shape[1:3]
    return dx[:, padding : padding + h, padding : padding + w]


def _conv_kernel_gradient(x: Input, kernel: Kernel, stride: int, g: Output) -> Kernel:
    if kernel.shape[3] == 1 and stride == 1:
        return kernel_gradient_to_one(x, g)
    _, pullback = jax.vjp(lambda kernel: library_conv(x, kernel, stride), kernel)
    return pullback(g)[0]


def _padded_library_conv(x: Input, kernel: Kernel, stride: int) -> Output:
    """`library_conv`, with a row and a column of zeros that no kept output sees.

    XLA:CPU is measured two to four times slower on a convolution without padding than on one with any.
    """
    size = kernel.shape[0]
    h, w = ((n - size) // stride + 1 for n in x.shape[1:3])
    y = _library(x, kernel, (stride, stride), [(0, stride)] * 2)
    return y[:, :h, :w]


@jax.custom_vjp
def _conv_transpose(x: Input, kernel: Kernel) -> Output:
    def cpu(x: Array, kernel: Array) -> Array:
        if kernel.shape[:2] == (5, 5) and x.dtype == jnp.float32:
            return winograd_conv_transpose(x, kernel)
        return _depth_to_space(x, kernel)

    return lax.platform_dependent(x, kernel, cpu=cpu, tpu=_depth_to_space, default=library_conv_transpose)


def _depth_to_space(x: Input, kernel: Kernel) -> Output:
    """One stride-1 convolution to 4 d channels (the four parities of the output), then depth to space."""
    size, d = kernel.shape[0], kernel.shape[3]
    b, h, w, _ = x.shape
    taps = (size + 1) // 2
    odd = 2 * taps - size
    kernel = to_blocks(jnp.pad(kernel, ((0, odd), (0, odd), (0, 0), (0, 0))))
    y = library_conv(zero_pad(x, taps - 1), kernel).reshape(b, h + taps - 1, w + taps - 1, 2, 2, d)
    y = y.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * (h + taps - 1), 2 * (w + taps - 1), d)
    return y[:, : 2 * h + size - 2, : 2 * w + size - 2]


def to_blocks(kernel: Kernel) -> Float[Array, "k2 k2 c d4"]:
    """A transposed convolution's kernel of even size, for outputs in blocks of 2x2 pixels, as one of stride 1."""
    size, _, c, d = kernel.shape
    kernel = kernel.reshape(size // 2, 2, size // 2, 2, c, d)[::-1, :, ::-1]
    return kernel.transpose(0, 2, 4, 1, 3, 5).reshape(size // 2, size // 2, c, 4 * d)


def _conv_transpose_forward(x: Input, kernel: Kernel) -> tuple[Output, _Operands]:
    y = lax.platform_dependent(x, kernel, cpu=_depth_to_space, tpu=_depth_to_space, default=library_conv_transpose)
    return y, (x, kernel)


def _conv_transpose_backward(operands: _Operands, g: Output) -> _Operands:
    library, tpu = (partial(_library_gradients, form) for form in (library_conv_transpose, _depth_to_space))
    return lax.platform_dependent(*operands, g, cpu=_cpu_conv_transpose_gradients, tpu=tpu, default=library)


def _cpu_conv_transpose_gradients(x: Input, kernel: Kernel, g: Output) -> _Operands:
    """Two matrix products with the same windows of `g`; one sample at a time on each device keeps them in the cache."""
    size, _, c, d = kernel.shape
    matrix = kernel.transpose(0, 1, 3, 2).reshape(-1, c)

    def one_sample(sample: tuple[Array, Array]) -> tuple[Array, Array]:
        x, g = sample
        windows = _windows(g[None], size, 2).reshape(-1, size * size * d)
        return windows.T @ x.reshape(-1, c), (windows @ matrix).reshape(x.shape)

    devices = math.gcd(len(x), _dividing_devices(x))
    if devices == 1:
        kernel_gradient, dx = lax.map(one_sample, (x, g))
    else:
        # A loop over a divided batch would run whole on every device: each turn of this one has a sample for each.
        rounds = [a.reshape(devices, -1, *a.shape[1:]).swapaxes(0, 1) for a in (x, g)]
        kernel_gradient, dx = lax.map(jax.vmap(one_sample), rounds)
        kernel_gradient, dx = kernel_gradient.sum(0), dx.swapaxes(0, 1).reshape(x.shape)
    return dx, kernel_gradient.sum(0).reshape(size, size, d, c).swapaxes(2, 3)


def _dividing_devices(x: Input) -> int:
    """Devices that the compiler may divide x over. Inside `jax.shard_map` or `jax.pmap` it is divided already."""
    mesh = jax.typeof(x).sharding.mesh
    return math.prod(mesh.shape[axis] for axis in mesh.axis_names if axis not in mesh.manual_axes)


_conv_transpose.defvjp(_conv_transpose_forward, _conv_transpose_backward)


def _windows(x: Input, size: int, stride: int) -> Float[Array, "b h2 w2 size size c"]:
    """Every size x size window of x: (b, h', w', size, size, c). A gather, which XLA:CPU runs on all cores."""
    rows, columns = (stride * jnp.arange((n - size) // stride + 1)[:, None] + jnp.arange(size) for n in x.shape[1:3])
    return x[:, rows[:, None, :, None], columns[None, :, None, :]]

"""Fuser: a checkpoint and the jitted network, on arrays."""

import importlib.resources
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import jax
import numpy as np
from jaxtyping import Array, Float, Float32, Int32, Shaped

from langfuse_jax.errors import UserError
from langfuse_jax.images.canvas import Size, border_rule, extend, extended_size, fit_network, place
from langfuse_jax.images.files import MIN_SIDE, rgb_to_ycbcr, to_unit, ycbcr_to_rgb
from langfuse_jax.inference.tiles import canvas_side, fuse_tiles
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.models.student import StudentNet
from langfuse_jax.weights.fusion import TENSORS, load_fusion, network

GrayBatch = Float32[np.ndarray, "b h w"]

MODELS = ("fusion", "student")  # whose weights come with the package


class Fuser:
    """Fuses visible and infrared arrays with trained weights: `fused = Fuser.load()(visible, infrared)`.

    `metadata` tells where the weights come from, and how the network is to see an image (`extend`): its "pad_multiple"
    requires sides that are multiples of it, and its "worn_edge" outermost pixels are skipped. The network
    is compiled once for each size, rounded up to multiples of 8, and batch.

    >>> from langfuse_jax.examples.night_scene import night_scene
    >>> visible, infrared = night_scene(48, 64)
    >>> fused = Fuser.load()(visible, infrared)
    >>> fused.shape, fused.dtype.name, bool(fused.max() <= 1)
    ((48, 64, 3), 'float32', True)
    """

    def __init__(self, params: dict, metadata: dict | None = None) -> None:
        self.params = jax.device_put(params)
        self.net = network(params)
        self.metadata = metadata or {}

    @classmethod
    def load(cls, path: str | os.PathLike | None = None, *, model: str | None = None) -> "Fuser":
        """The weights of the package, of `model` "fusion" (the default) or "student", or those of a folder.

        A folder holds `fusion.safetensors` and `fusion.json`; or it is the work directory of a training run that has
        only checkpoints yet (its latest one is taken), or one of its checkpoints (`checkpoints/STEP` in it). Raises
        UserError for any other folder or model, and for both at once.

        Example::

            Fuser.load()  # the fusion network of the package
            Fuser.load(model="student")  # its small, fast imitation
            Fuser.load("runs/mine")  # what `langfuse-jax train --workdir runs/mine` has made so far
        """
        if path is None:
            if model not in (None, *MODELS):
                raise UserError(f"model {model!r}: is none of {', '.join(MODELS)}")
            folder = Path(str(importlib.resources.files("langfuse_jax"))) / "assets" / (model or MODELS[0])
            if not (folder / TENSORS).is_file():
                raise UserError(f"{folder}: this installation has no default weights; give --checkpoint DIR")
            return cls(*load_fusion(folder, check=False))  # a test of the package does
        if model is not None:
            raise UserError(f"--model {model}: is for weights of the package; leave it out with --checkpoint {path}")
        folder = Path(path)
        if not folder.is_dir():
            problem = "is not a folder" if folder.exists() else "no such folder"
            raise UserError(
                f"{folder}: {problem}; a checkpoint is a folder with {TENSORS}, or the workdir of a training run"
            )
        if (folder / TENSORS).is_file():
            return cls(*load_fusion(folder))
        if (folder / "checkpoints").is_dir():
            return cls(*_restore(folder))
        if folder.parent.name == "checkpoints" and folder.name.isdigit():
            return cls(*_restore(folder.parent.parent, int(folder.name)))
        raise UserError(f"{folder}: has neither {TENSORS} nor checkpoints/; give the --workdir of a training run")

    def __call__(
        self,
        visible: Shaped[np.ndarray | Array, "..."],
        infrared: Shaped[np.ndarray | Array, "..."],
        *,
        tile: int | None = None,
    ) -> Float32[np.ndarray, "..."]:
        """The fused image, float32 in [0, 1], in the shape of `visible`.

        Each is (h, w), (h, w, c) or (b, h, w, c) with c = 1 or 3, in uint8, uint16 or floats in [0, 1], of the same h,
        w and b. The network sees luma (BT.601); a colour visible image keeps its chroma, clipped to RGB. uint16 counts
        as /65535, raw thermal counts must be mapped first (`images.files.thermal_to_unit`). Raises UserError for other
        shapes, types and values, and for sides under 32 pixels.

        With `tile`, a multiple of 16, a student fuses tiles of so many pixels a side, one after the other, with the
        memory of one and one program for any size; the result is the same. The fusion network, whose norms see the
        whole image, cannot: UserError.
        """
        if tile is not None and not isinstance(self.net, StudentNet):
            raise UserError(f"tile: {tile}, but the fusion network needs the whole image; use a student, or no tiles")
        shape = np.shape(visible)
        visible, infrared = _batched(visible, "visible"), _batched(infrared, "infrared")
        if visible.shape[:3] != infrared.shape[:3]:
            raise UserError(
                f"visible is {_size(visible)} and infrared {_size(infrared)} (batch x height x width): "
                "they must be of one size; register and crop or resize one of them"
            )
        if min(visible.shape[1:3]) < MIN_SIDE:
            raise UserError(f"visible is {_size(visible)} (batch x height x width): sides must be at least {MIN_SIDE}")
        luma, chroma = rgb_to_ycbcr(visible) if visible.shape[3] == 3 else (visible[..., 0], None)
        thermal = rgb_to_ycbcr(infrared)[0] if infrared.shape[3] == 3 else infrared[..., 0]
        fused = self._fuse_gray(luma, thermal) if tile is None else self._fuse_tiles(luma, thermal, tile)
        return (fused if chroma is None else ycbcr_to_rgb(fused, chroma)).reshape(shape)

    def _fuse_gray(self, visible: GrayBatch, infrared: GrayBatch) -> GrayBatch:
        h, w = visible.shape[1:]
        extended = [[self.extend(image) for image in batch] for batch in (visible, infrared)]
        size = extended[0][0].shape
        canvas = fit_network(size)
        # An image that fills its canvas needs no masks, which take a little time.
        sizes = None if canvas == size else np.full((len(visible), 2), size, np.int32)
        fused = _fuse(self.net, self.params, *(place(images, canvas) for images in extended), sizes)
        return np.array(fused)[:, :h, :w, 0]

    def _fuse_tiles(self, visible: GrayBatch, infrared: GrayBatch, tile: int) -> GrayBatch:
        program = self.program((canvas_side(tile),) * 2, 1)
        return np.stack([fuse_tiles(program, v, i, tile) for v, i in zip(visible, infrared, strict=True)])

    def extend(self, image: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h2 w2"]:
        """The image as the network is to see it, by "pad_multiple" and "worn_edge" of the metadata: `canvas.extend`."""
        worn = self.metadata.get("worn_edge", 0)
        return extend(image, pad_multiple=self.metadata.get("pad_multiple", 1), worn_edge=worn)

    def extended_size(self, size: Size) -> Size:
        """The size that `extend` gives an image of `size`.

        >>> Fuser({}, {"pad_multiple": 16}).extended_size((30, 33))
        (32, 48)
        """
        return extended_size(size, self.metadata.get("pad_multiple", 1))

    def program(self, canvas: Size, batch: int) -> Callable:
        """The compiled network for a batch of canvases: a function of visible and infrared (b, h, w, 1), sizes (b, 2).

        It gives fused luma (b, h, w, 1) on the device, before it is computed; `FusionNet` says what `sizes` are.

        Example::

            program = Fuser.load().program((480, 640), 1)
            fused = program(visible, infrared, np.int32([[471, 633]]))
        """
        image = jax.ShapeDtypeStruct((batch, *canvas, 1), np.float32)
        sizes = jax.ShapeDtypeStruct((batch, 2), np.int32)
        return partial(_fuse.lower(self.net, self.params, image, image, sizes).compile(), self.params)


@partial(jax.jit, static_argnums=0)
def _fuse(
    net: FusionNet | StudentNet,
    params: dict,
    visible: Float[Array, "b h w 1"],
    infrared: Float[Array, "b h w 1"],
    sizes: Int32[Array, "b 2"] | None,
) -> Float[Array, "b h w 1"]:
    return cast(Array, net.apply(params, visible, infrared, sizes))


def _restore(workdir: Path, step: int | None = None) -> tuple[dict, dict]:
    """Parameters of a checkpoint, and the metadata that the finished model is to have, as far as it says how to see."""
    from langfuse_jax.weights import checkpoint  # Orbax takes a second to import

    params = checkpoint.restore_params(workdir, step)
    if isinstance(network(params), StudentNet):
        return params, {}
    return params, border_rule(checkpoint.saved_config(workdir, step)["crop"])


def _batched(image: Shaped[np.ndarray | Array, "..."], name: str) -> Float32[np.ndarray, "b h w c"]:
    """Any accepted form as float32 (b, h, w, c) in [0, 1]."""
    image = np.asarray(image)
    shape = image.shape
    if len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) == 3:
        shape = (1, *shape)
    if len(shape) != 4 or shape[3] not in (1, 3) or not image.size:
        raise UserError(f"{name}: is of shape {image.shape}; give (h, w), (h, w, c) or (b, h, w, c) with c = 1 or 3")
    return to_unit(image.reshape(shape), name)


def _size(image: Float32[np.ndarray, "b h w c"]) -> str:
    return "x".join(map(str, image.shape[:3]))

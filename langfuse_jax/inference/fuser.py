"""Fuser: a checkpoint and the jitted network, on arrays."""

import io
import os
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float, Float32, Int32, Shaped
from PIL import Image

from langfuse_jax.errors import InputRemark, UserError, WrongType, one_line
from langfuse_jax.images.canvas import Size, border_rule, extend, extended_size, fit_network, place
from langfuse_jax.images.files import MIN_SIDE, rgb_to_ycbcr, to_unit, ycbcr_to_rgb
from langfuse_jax.images.sheet import side_by_side
from langfuse_jax.inference.tiles import canvas_side, fuse_tiles
from langfuse_jax.inference.traces import COMPILER_OPTIONS, compile_traced
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.models.statistics import pair_statistics
from langfuse_jax.models.steered import TILE_MULTIPLE, Coefficients, SteeredNet
from langfuse_jax.runtime.html import html_table
from langfuse_jax.weights.fingerprint import fingerprint
from langfuse_jax.weights.fusion import TENSORS, load_fusion, network
from langfuse_jax.weights.packaged import packaged_folder

if TYPE_CHECKING:  # and with them transformers
    from langfuse_jax.clip.pretrained import Clip
    from langfuse_jax.clip.words import TextEmbeddings
    from langfuse_jax.errors import CutPrompt, UnknownWords

_COUNTS = 8192  # levels of 65536 that raw thermal counts seldom pass, and pictures do
GrayBatch = Float32[np.ndarray, "b h w"]


class Explanation(NamedTuple):
    """What a steered network decided for a pair, at each of its pixels.

    Attributes:
        fused: the picture, [0, 1].
        share: how much of each band comes from the infrared, 0 to 1; bands have details of about 2, 4, 8 and 16 pixels.
        boost: the factor by which each band is multiplied.
        base: how much of the brightness without detail comes from the infrared, 0 to 1.
        shade: what is added to it, in gray levels of [0, 1].
        lift: where the infrared brightens the picture (to 1) or the visible light replaces it (to -1).
    """

    fused: Float32[np.ndarray, "h w"]
    share: Float32[np.ndarray, "4 h w"]
    boost: Float32[np.ndarray, "4 h w"]
    base: Float32[np.ndarray, "h w"]
    shade: Float32[np.ndarray, "h w"]
    lift: Float32[np.ndarray, "h w"]

    def _repr_png_(self) -> bytes:
        """For a notebook: the picture, and from black to white what of it came from the infrared, where."""
        shown = {
            "fused": self.fused,
            "infrared: details of 2 pixels": self.share[0],
            "infrared: details of 16 pixels": self.share[3],
            "infrared: shades": self.base,
        }
        file = io.BytesIO()
        Image.fromarray(side_by_side(list(shown.values()), list(shown))).save(file, "PNG")
        return file.getvalue()


class Fuser:
    """Fuses visible and infrared arrays with trained weights: `fused = Fuser.load()(visible, infrared)`.

    `metadata` says where the weights come from, and how images are prepared for the network (`extend`): sides are
    extended to multiples of its "pad_multiple", and its "worn_edge" outermost pixels are replaced. The network is
    compiled once for each size, rounded up to multiples of 8, and each batch size.

    >>> from langfuse_jax.examples.night_scene import night_scene
    >>> visible, infrared = night_scene(48, 64)
    >>> fused = Fuser.load()(visible, infrared)
    >>> fused.shape, fused.dtype.name, bool(fused.max() <= 1)
    ((48, 64, 3), 'float32', True)
    """

    def __init__(
        self,
        params: dict,
        metadata: dict | None = None,
        direction: Float32[np.ndarray, " d"] | None = None,
        *,
        told: str = "",
    ) -> None:
        self.params = jax.device_put(params)
        self.net = network(params)
        self.metadata = metadata or {}
        self.direction = direction
        self._told = told  # the words of the direction, for people

    def __repr__(self) -> str:
        return f"<Fuser: {self._about()['network']}>"

    def _repr_html_(self) -> str:
        """For a notebook: what the network is, the words that it follows, what it takes and gives."""
        return html_table([[name, text] for name, text in self._about().items()], title="Fuser")

    def _about(self) -> dict[str, str]:
        """What there is to say of it, by what it is about."""
        leaves = jax.tree.leaves(self.params)
        steered = isinstance(self.net, SteeredNet)
        clip = self.metadata.get("clip", {})
        follows = self._told or ("the default sentence" if self.direction is None else "another direction")
        listens = f"yes, by the CLIP {clip['name']} ({clip['fingerprint']})" if clip else "yes"
        return {
            "network": "steered" if steered else "LDFusion's",
            "parameters": f"{sum(leaf.size for leaf in leaves):,}",
            "precision": ", ".join(sorted({str(leaf.dtype) for leaf in leaves})),
            "follows words": listens if steered else "no",
            **({"towards": follows} if steered else {}),
            "takes": f"visible and infrared of one size, {MIN_SIDE} pixels a side or more: (h, w), (h, w, c) or "
            "(b, h, w, c), c = 1 or 3; uint8, uint16 or floats in [0, 1]",
            "gives": "float32 in [0, 1], in the shape of visible",
        }

    @classmethod
    def load(cls, path: str | os.PathLike | None = None, *, model: str | None = None) -> "Fuser":
        """The weights of the package, of `model` "steered" (the default) or "ldfusion", or those of a folder.

        A folder holds `fusion.safetensors` and `fusion.json`; or it is the work directory of a training run that has
        only checkpoints yet (its latest one is taken), or one of its checkpoints (`checkpoints/STEP` in it). Raises
        UserError for any other folder or model, and for both at once.

        Example::

            Fuser.load()  # the network of the package that follows words
            Fuser.load(model="ldfusion")  # the published architecture, trained by this project
            Fuser.load("runs/mine")  # what `langfuse-jax train --workdir runs/mine` has made so far
        """
        if path is None:
            folder = packaged_folder(model)
            if not (folder / TENSORS).is_file():
                raise UserError(f"{folder}: this installation has no default weights; give --checkpoint DIR")
            return cls(*load_fusion(folder, check=False))  # a test of the package does
        if model is not None:
            raise UserError(f"--model {model}: is for weights of the package; leave it out with --checkpoint {path}")
        if not isinstance(path, (str, os.PathLike)):
            raise WrongType(f"{path!r}: is no path of a folder; give a str or a pathlib.Path")
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
        if folder.parent.name == "checkpoints" and folder.name.isascii() and folder.name.isdecimal():
            return cls(*_restore(folder.parent.parent, int(folder.name)))
        raise UserError(f"{folder}: has neither {TENSORS} nor checkpoints/; give the --workdir of a training run")

    def towards(
        self,
        *goals: "str | TextEmbeddings",
        strength: float | int = 1.0,
        weights: Sequence[float | int] | None = None,
        clip: "Clip | None" = None,
        report: "Callable[[CutPrompt | UnknownWords], None]" = warnings.warn,
    ) -> "Fuser":
        """A fuser with the same weights that follows other sentences, which are encoded once and cost nothing later.

        The arguments are those of `inference.goals.goal_direction`. Raises UserError for weights that follow no words.

        Example::

            bright = Fuser.load().towards("a bright image in which people stand out", strength=0.7)
            fused = bright(visible, infrared)
        """
        from langfuse_jax.inference.goals import goal_direction  # and with it transformers

        if not isinstance(self.net, SteeredNet):
            raise UserError("--goal: these weights follow no words at run time; leave it out, or use the default model")
        default, made_by = self.default_goal, self.metadata["clip"]
        direction = goal_direction(
            default, made_by, goals, strength=strength, weights=weights, clip=clip, report=report
        )
        names = [goal if isinstance(goal, str) else " | ".join(goal.prompts["goal"]) for goal in goals]
        return Fuser(self.params, self.metadata, direction, told=f"{' + '.join(names)} (strength {strength:g})")

    def __call__(
        self,
        visible: Shaped[np.ndarray | Array, "..."],
        infrared: Shaped[np.ndarray | Array, "..."],
        *,
        goal: str | None = None,
        strength: float | int = 1.0,
        tile: int | None = None,
    ) -> Float32[np.ndarray, "..."]:
        """The fused image, float32 in [0, 1], in the shape of `visible`.

        Each is (h, w), (h, w, c) or (b, h, w, c) with c = 1 or 3, in uint8, uint16 or floats in [0, 1], of the same h,
        w and b. The network sees luma (BT.601); a colour visible image keeps its chroma, clipped to RGB. uint16 counts
        as /65535, raw thermal counts must be mapped first (`images.files.thermal_to_unit`). Raises UserError for other
        shapes, types and values, and for sides under 32 pixels.

        `goal` and `strength` are those of `towards`, which encodes a sentence once for many images.

        With `tile`, a multiple of 16, the steered network fuses tiles of that many pixels a side, one after the other.
        This takes the memory of one tile and, except for the statistics, one program for any size; the result is the
        same. Raises UserError for LDFusion's network, which normalises over the whole image.
        """
        if goal is not None:
            return self.towards(goal, strength=strength)(visible, infrared, tile=tile)
        if strength != 1:
            raise UserError(f"strength: {strength}, but there is no goal; give one")
        if tile is not None:
            self.check_tile(tile)
        visible, infrared = _as_array(visible, "visible"), _as_array(infrared, "infrared")
        shape = visible.shape
        luma, chroma, thermal = _sources(visible, infrared)
        fused = self._fuse_gray(luma, thermal) if tile is None else self._fuse_tiles(luma, thermal, tile)
        return (fused if chroma is None else ycbcr_to_rgb(fused, chroma)).reshape(shape)

    def check_tile(self, tile: Any) -> None:
        """Raises UserError for an impossible tile size, and for weights that cannot fuse in tiles."""
        if isinstance(tile, bool) or not isinstance(tile, (int, np.integer)):
            raise WrongType(f"--tile {tile!r}: is no whole number of pixels; give an int, such as 512")
        canvas_side(int(tile))
        if not isinstance(self.net, SteeredNet):
            raise UserError(
                f"--tile {tile}: LDFusion's network needs the whole image; use the default model, or no tiles"
            )

    @cached_property
    def fingerprint(self) -> str:
        """Identifies these weights and the words that they follow: `weights.fingerprint.fingerprint`."""
        tensors = flatten_dict(jax.device_get(self.params), sep="/")
        return fingerprint(tensors if self.direction is None else {**tensors, "direction": self.direction})

    def explain(
        self, visible: Shaped[np.ndarray | Array, "..."], infrared: Shaped[np.ndarray | Array, "..."]
    ) -> Explanation:
        """What the steered network takes from each source of one pair, and where; takes images as `__call__` does.

        Raises UserError as `__call__` does, for several pairs, and for weights of another network.

        >>> from langfuse_jax.examples.night_scene import night_scene
        >>> visible, infrared = night_scene(48, 64)
        >>> found = Fuser.load().explain(visible, infrared)
        >>> found.share.shape, bool(found.share.min() >= 0)
        ((4, 48, 64), True)
        """
        if not isinstance(self.net, SteeredNet):
            raise UserError("these weights decide no coefficients that could be shown; use the default model")
        luma, _, thermal = _sources(_as_array(visible, "visible"), _as_array(infrared, "infrared"))
        if len(luma) != 1:
            raise UserError(f"visible holds {len(luma)} images; explain one pair at a time")
        fused, found = _explain(self.net, self.params, self._words(), luma[..., None], thermal[..., None])
        height, width = luma.shape[1:]

        def at_pixels(x: Float[Array, "1 _ _ c"], scale: int) -> Float32[np.ndarray, "c h w"]:
            large = np.repeat(np.repeat(np.asarray(x[0]), scale, 0), scale, 1)
            return np.moveaxis(large[:height, :width], -1, 0)

        return Explanation(
            np.asarray(fused)[0, ..., 0],
            share=np.concatenate([at_pixels(band, 2**level) for level, band in enumerate(found.share)]),
            boost=at_pixels(found.boost, 4),
            base=at_pixels(found.base, TILE_MULTIPLE)[0],
            shade=at_pixels(found.shade, TILE_MULTIPLE)[0],
            lift=at_pixels(found.lift, 4)[0],
        )

    def _fuse_gray(self, visible: GrayBatch, infrared: GrayBatch) -> GrayBatch:
        h, w = visible.shape[1:]
        extended = [[self.extend(image) for image in batch] for batch in (visible, infrared)]
        size = extended[0][0].shape
        canvas = fit_network(size)
        # An image that fills its canvas needs no masks, which take a little time.
        sizes = None if canvas == size else np.full((len(visible), 2), size, np.int32)
        placed = (place(images, canvas) for images in extended)
        fused = _fuse(self.net, self.params, self._words(), *placed, sizes)
        return np.array(fused)[:, :h, :w, 0]

    def _fuse_tiles(self, visible: GrayBatch, infrared: GrayBatch, tile: int) -> GrayBatch:
        fused = []
        for pair in zip(visible, infrared, strict=True):
            statistics = _statistics(*(image[None, ..., None] for image in pair))
            program = partial(_fuse, self.net, self.params, self._words(), statistics=statistics)
            fused.append(fuse_tiles(program, *pair, tile))
        return np.stack(fused)

    def extend(self, image: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h2 w2"]:
        """The image as the network receives it, by "pad_multiple" and "worn_edge" of the metadata: `canvas.extend`."""
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

        It returns fused luma (b, h, w, 1) on the device, without waiting for it; `FusionNet` explains `sizes`.

        Example::

            program = Fuser.load().program((480, 640), 1)
            fused = program(visible, infrared, np.int32([[471, 633]]))
        """
        image = jax.ShapeDtypeStruct((batch, *canvas, 1), np.float32)
        sizes = jax.ShapeDtypeStruct((batch, 2), np.int32)
        words = self._words()
        return partial(compile_traced(_fuse, self.net, self.params, words, image, image, sizes), self.params, words)

    @property
    def default_goal(self) -> Float32[np.ndarray, " d"]:
        """The unit embedding of the sentence that a steered network follows by default.

        Raises UserError if the weights do not record it, as those of an unfinished training run.
        """
        if "goal" not in self.metadata or "clip" not in self.metadata:
            raise UserError(
                "these weights do not say which sentence and CLIP they were trained with; finish the training run"
            )
        return np.asarray(self.metadata["goal"], np.float32)

    def _words(self) -> Float32[np.ndarray, "1 d"] | None:
        """The direction as the network takes it; a direction of no length is the default sentence."""
        if not isinstance(self.net, SteeredNet):
            return None
        return (np.zeros(self.net.embedding, np.float32) if self.direction is None else self.direction)[None]


@partial(jax.jit, static_argnums=0, compiler_options=COMPILER_OPTIONS)
def _fuse(
    net: FusionNet | SteeredNet,
    params: dict,
    words: Float[Array, "1 d"] | Float[np.ndarray, "1 d"] | None,
    visible: Float[Array, "b h w 1"],
    infrared: Float[Array, "b h w 1"],
    sizes: Int32[Array, "b 2"] | None,
    statistics: Float[Array, "b 18"] | None = None,
) -> Float[Array, "b h w 1"]:
    if words is None:
        if isinstance(net, FusionNet) and jax.default_backend() == "tpu":
            net = net.clone(blocked=True)
        return cast(Array, net.apply(params, visible, infrared, sizes))
    batch = jnp.broadcast_to(words, (len(visible), words.shape[1]))
    return cast(Array, net.apply(params, visible, infrared, sizes, batch, statistics))


_statistics = jax.jit(pair_statistics)


@partial(jax.jit, static_argnums=0)
def _explain(
    net: SteeredNet,
    params: dict,
    words: Float[Array, "1 d"] | Float[np.ndarray, "1 d"],
    visible: Float[Array, "1 h w 1"],
    infrared: Float[Array, "1 h w 1"],
) -> tuple[Float[Array, "1 h w 1"], Coefficients]:
    return cast(tuple[Array, Coefficients], net.apply(params, visible, infrared, None, words, method="explain"))


def _restore(workdir: Path, step: int | None = None) -> tuple[dict, dict]:
    """Parameters of a checkpoint, and the metadata that the finished model is to have, as far as it says how to see."""
    from langfuse_jax.weights import checkpoint  # Orbax takes a second to import

    params = checkpoint.restore_params(workdir, step)
    if isinstance(network(params), SteeredNet):
        return params, {}
    return params, border_rule(checkpoint.saved_config(workdir, step)["crop"])


def _as_array(image: Any, name: str) -> Shaped[np.ndarray, "..."]:
    try:
        return np.asarray(image)
    except Exception as error:  # what is no array: ragged lists, tensors that need a conversion of their own
        raise WrongType(f"{name}: is no array ({one_line(error)}); give a numpy array") from error


def _sources(
    visible: Shaped[np.ndarray, "..."], infrared: Shaped[np.ndarray, "..."]
) -> tuple[GrayBatch, Float32[np.ndarray, "b h w 2"] | None, GrayBatch]:
    """Luma, chroma (None for gray) and infrared of images in any accepted form."""
    if infrared.dtype == np.uint16 and infrared.size and np.ptp(infrared) < _COUNTS:
        warnings.warn(
            InputRemark(
                f"infrared: uint16 from {infrared.min()} to {infrared.max()} counts as /65535, nearly flat; map raw "
                "counts first with images.files.thermal_to_unit"
            ),
            stacklevel=3,
        )
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
    return luma, chroma, thermal


def _batched(image: Shaped[np.ndarray, "..."], name: str) -> Float32[np.ndarray, "b h w c"]:
    """Any accepted form as float32 (b, h, w, c) in [0, 1]."""
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

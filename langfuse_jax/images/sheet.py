"""Contact sheets: the images of a pair side by side, one row per pair."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageDraw, ImageFont

from langfuse_jax.images.files import to_uint8

LABELS = ("infrared", "visible", "fused")
_GAP = 4
_PAPER, _INK = 255, 40

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Picture = Shaped[np.ndarray, "h w"] | Shaped[np.ndarray, "h w 3"]


def side_by_side(images: Sequence, labels: Sequence[str] | None = LABELS) -> UInt8[np.ndarray, "height width 3"]:
    """The images of one pair in a row; see `grid`.

    >>> from langfuse_jax.examples.night_scene import night_scene
    >>> visible, infrared = night_scene(48, 64)
    >>> side_by_side([infrared, visible], labels=None).shape
    (48, 132, 3)
    """
    return grid([images], labels)


def grid(
    rows: Sequence[Sequence], labels: Sequence[str] | None = LABELS, *, title: str = ""
) -> UInt8[np.ndarray, "height width 3"]:
    """Rows of images, (h, w) or (h, w, 3), uint8 or floats in [0, 1], on white with thin gaps between them.

    Every image sits in the middle of a tile as large as the largest one. `labels`, if any, stand over the columns, and
    `title` over all, in as many lines as it takes.

    >>> grid([[np.zeros((10, 20))] * 2] * 3, labels=None).shape
    (38, 44, 3)
    """
    columns = max(len(row) for row in rows)
    tile_h = max(image.shape[0] for row in rows for image in row)
    tile_w = max(image.shape[1] for row in rows for image in row)
    font_size = min(max(tile_w // 24, 10), 20)
    font, line = ImageFont.load_default(font_size), font_size + font_size // 2
    width = columns * (tile_w + _GAP) - _GAP
    heading = _lines(title, font, width - 4)
    top = line * (len(heading) + bool(labels))
    sheet = Image.new("RGB", (width, top + len(rows) * (tile_h + _GAP) - _GAP), (_PAPER,) * 3)
    for i, text in enumerate(heading):
        ImageDraw.Draw(sheet).text((2, i * line), text, fill=(_INK,) * 3, font=font)
    for column, label in enumerate(labels or ()):
        caption = Image.new("L", (tile_w, line), _PAPER)
        ImageDraw.Draw(caption).text((2, 0), label, fill=_INK, font=font)
        sheet.paste(caption, (column * (tile_w + _GAP), top - line))
    for i, row in enumerate(rows):
        for column, image in enumerate(row):
            left = column * (tile_w + _GAP) + (tile_w - image.shape[1]) // 2
            sheet.paste(_picture(image), (left, top + i * (tile_h + _GAP) + (tile_h - image.shape[0]) // 2))
    return np.asarray(sheet)


def _lines(text: str, font: Font, width: int) -> list[str]:
    """The words of a text in lines that fit into a width, as far as single words do."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _picture(image: Picture) -> Image.Image:
    return Image.fromarray(to_uint8(image)).convert("RGB")

"""What the compact CLIP knows of an image: concepts, and the axes that many of them are the two ends of."""

from typing import NamedTuple


class Axis(NamedTuple):
    """Two opposite concepts: `minus` holds at strength -1, `plus` at strength 1."""

    minus: str
    plus: str


AXES = {
    "brightness": Axis("dark", "bright"),
    "contrast": Axis("flat", "contrasty"),
    "sharpness": Axis("blurry", "sharp"),
    "noise": Axis("clean", "noisy"),
    "look": Axis("natural", "thermal"),
    "targets": Axis("hidden", "salient"),
    "background": Axis("quiet", "detailed"),
    "haze": Axis("clear", "hazy"),
    "exposure": Axis("exposed", "glaring"),
}
MODALITIES = ("visible", "infrared")
ARTEFACTS = ("striped", "checkered", "blocky", "haloed", "harsh", "inverted")

# What can be said of an image. Each is true, false or unknown of it.
CONCEPTS = (*MODALITIES, "fused", "goal", *(concept for axis in AXES.values() for concept in axis), *ARTEFACTS)
INDEX = {concept: i for i, concept in enumerate(CONCEPTS)}
OPPOSITE = {a: b for axis in AXES.values() for a, b in (axis, axis[::-1])}

# Concepts whose sentences may come as near to each other as they like.
RELATED = (
    ("goal", "clear"),
    ("goal", "detailed"),
    ("goal", "salient"),
    ("goal", "sharp"),
    ("goal", "contrasty"),
    ("goal", "fused"),
    ("visible", "natural"),
    ("infrared", "thermal"),
    ("clear", "sharp"),
    ("clear", "clean"),
    ("detailed", "sharp"),
    ("quiet", "blurry"),
    ("hazy", "flat"),
    ("glaring", "bright"),
)

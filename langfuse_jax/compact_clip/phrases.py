"""The words for each concept, by the place in a sentence that they can take."""

from typing import NamedTuple

from langfuse_jax.clip.words import GOAL, INFRARED, VISIBLE

IMAGES = ("image", "picture", "photo", "view", "frame", "scene")
TARGETS = (
    "objects",
    "targets",
    "people",
    "pedestrians",
    "persons",
    "cars",
    "vehicles",
    "animals",
    "figures",
    "bodies",
)
OBJECTS = ("object", "target", "person", "pedestrian", "car", "vehicle", "animal", "figure", "man", "woman")
SCENES = (
    "street road park building parking lot tree city campus yard forest field sky lake house wall window bicycle bus "
    "truck dog crowd path highway roof panel bridge"
).split()


class Phrases(NamedTuple):
    """The words for a concept. {i} stands for one of IMAGES, {t} of TARGETS, {o} of OBJECTS.

    Attributes:
      reference: the sentence that reports judge the concept by.
      adjectives: before an image, and after "is" and "very".
      features: after "with".
      clauses: after "in which".
      nouns: after "without" and "no", where they say the opposite.
      sentences: whole ones, and those that fit nowhere else.
    """

    reference: str
    adjectives: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    clauses: tuple[str, ...] = ()
    nouns: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()


PHRASES = {
    "visible": Phrases(
        VISIBLE,
        sentences=(
            "a visible {i}",
            "a gray visible light {i}",
            "a gray {i} from a visible camera",
            "a daylight camera {i}",
            "a visible band {i}",
            "a color camera {i}",
            "a colour camera {i}",
        ),
    ),
    "infrared": Phrases(
        INFRARED,
        sentences=(
            "a thermal infrared {i}",
            "an infrared {i} from a heat camera",
            "a heat {i}",
            "an infrared {i}",
            "a thermal camera {i}",
        ),
    ),
    "fused": Phrases(
        "a fused image",
        sentences=("a fusion of infrared and visible", "a fused {i}", "an {i} fused from two cameras"),
    ),
    "goal": Phrases(
        GOAL,
        sentences=(
            "a clear {i} with detailed background and salient {t}",
            "a sharp {i} with rich background detail and bright {t}",
            "a clear {i} with salient {t} and a detailed background",
            "a good fused {i} with clear details and salient {t}",
            "a vivid {i} with rich texture and prominent {t}",
            "a high quality {i} with detailed background and highlighted {t}",
        ),
    ),
    "bright": Phrases(
        "a bright image",
        ("bright", "light", "well lit", "luminous"),
        ("high brightness", "a lot of light", "bright tones", "more brightness", "more light"),
        ("everything is bright", "the scene is bright"),
        ("brightness", "light"),
        (
            "brighter",
            "a brighter {i}",
            "make it brighter",
            "increase the brightness",
            "a {i} as bright as day",
            "brighten the {i}",
            "lighter",
        ),
    ),
    "dark": Phrases(
        "a dark image",
        ("dark", "underexposed", "dim", "black"),
        ("low brightness", "little light", "dark tones", "less light", "less brightness"),
        ("everything is dark", "the scene is dark"),
        ("darkness", "shadows"),
        (
            "darker",
            "a darker {i}",
            "make it darker",
            "reduce the brightness",
            "a {i} as dark as night",
            "darken the {i}",
        ),
    ),
    "contrasty": Phrases(
        "a high contrast image",
        ("high contrast", "contrasty", "vivid", "punchy"),
        ("high contrast", "strong contrast", "deep blacks and bright whites", "more contrast"),
        ("the contrast is high", "light and dark are far apart"),
        ("contrast",),
        ("more contrast", "strong contrast", "increase the contrast", "a {i} of high contrast", "raise the contrast"),
    ),
    "flat": Phrases(
        "a low contrast image",
        ("low contrast", "flat", "washed out", "faded", "dull"),
        ("low contrast", "little contrast", "weak contrast", "less contrast", "flat tones"),
        ("the contrast is low", "everything is gray", "all is grey"),
        ("flatness",),
        ("less contrast", "weak contrast", "reduce the contrast", "a {i} of low contrast", "lower the contrast"),
    ),
    "sharp": Phrases(
        "a sharp image",
        ("sharp", "crisp", "in focus"),
        ("sharp edges", "crisp edges", "fine sharp lines", "sharp detail"),
        ("edges are sharp", "everything is in focus"),
        ("sharpness",),
        ("sharper", "a sharper {i}", "make it sharper", "more sharpness", "sharpen the {i}"),
    ),
    "blurry": Phrases(
        "a blurry image",
        ("blurry", "blurred", "soft", "out of focus", "unsharp"),
        ("soft edges", "blurred edges", "blur", "strong blur"),
        ("edges are soft", "everything is blurred", "nothing is in focus"),
        ("blur", "softness"),
        (
            "softer",
            "a softer {i}",
            "make it softer",
            "a soft {i} with low detail",
            "more blur",
            "less sharpness",
            "blur the {i}",
        ),
    ),
    "clean": Phrases(
        "a clean image",
        ("clean", "noise free", "smooth and clean"),
        ("little noise", "low noise", "less noise", "clean tones"),
        ("there is no noise", "surfaces are clean"),
        (),
        (
            "cleaner",
            "a cleaner {i}",
            "reduce the noise",
            "without artefacts",
            "less grain",
            "no artefacts",
            "no artifacts",
            "remove the noise",
            "denoise the {i}",
        ),
    ),
    "noisy": Phrases(
        "a noisy image",
        ("noisy", "grainy", "speckled"),
        ("strong noise", "noise", "grain", "a lot of noise", "more noise"),
        ("there is much noise", "everything is grainy"),
        ("noise", "grain", "speckles"),
        ("noisier", "a noisier {i}", "a {i} full of grain", "more grain", "add noise"),
    ),
    "natural": Phrases(
        "a natural looking image",
        ("natural", "natural looking", "realistic"),
        ("a natural look", "natural light", "a visible look", "natural tones", "a more natural look"),
        ("everything looks natural", "it looks as the eye sees it"),
        (),
        (
            "a natural visible look",
            "a natural look",
            "natural",
            "more natural",
            "more like the visible image",
            "less thermal",
            "keep the natural look",
            "less infrared",
        ),
    ),
    "thermal": Phrases(
        "a thermal looking image",
        ("thermal looking", "thermal", "infrared looking"),
        ("a thermal look", "an infrared look", "a heat camera look", "a more thermal look"),
        ("everything looks thermal", "heat is bright", "warm is white and cold is black"),
        ("thermal look", "infrared look"),
        (
            "an infrared look",
            "a thermal look",
            "more thermal",
            "more infrared",
            "more like the infrared image",
            "less natural",
            "show the heat",
            "a {i} like that of a heat camera",
        ),
    ),
    "salient": Phrases(
        "an image with salient objects",
        (),
        (
            "salient {t}",
            "bright {t}",
            "highlighted {t}",
            "prominent hot {t}",
            "{t} that stand out",
            "glowing {t}",
            "warm {t} that stand out",
            "clearly visible {t}",
            "a {o} that stands out",
            "a bright {o}",
        ),
        (
            "{t} stand out",
            "warm {t} stand out",
            "hot {t} are bright",
            "{t} glow",
            "a {o} stands out",
            "{t} are highlighted",
        ),
        (),
        (
            "salient {t}",
            "prominent hot {t}",
            "{t} stand out",
            "{t} that stand out",
            "highlight the {t}",
            "make the {t} stand out",
        ),
    ),
    "hidden": Phrases(
        "an image in which targets blend in",
        (),
        (
            "hidden {t}",
            "{t} that blend in",
            "faint {t}",
            "{t} that are hard to see",
            "inconspicuous {t}",
            "a hidden {o}",
            "a {o} that blends in",
            "{t} that do not stand out",
        ),
        ("{t} blend in", "{t} are hidden", "{t} are hard to see", "{t} do not stand out", "{t} are not highlighted"),
        (),
        (
            "hidden {t}",
            "{t} blend in",
            "{t} that blend in",
            "{t} do not stand out",
            "hide the {t}",
            "make {t} blend in",
        ),
    ),
    "detailed": Phrases(
        "an image with detailed background",
        ("detailed", "highly detailed", "textured"),
        (
            "a detailed background",
            "detailed background",
            "rich texture",
            "fine background detail",
            "rich detail",
            "more detail",
            "more texture",
        ),
        ("the background is detailed", "the background is full of detail", "every detail shows"),
        ("detail", "texture", "details"),
        (
            "detailed background",
            "more detail",
            "more background detail",
            "more texture",
            "a more detailed {i}",
            "show the details",
            "enhance the details",
        ),
    ),
    "quiet": Phrases(
        "an image with a quiet background",
        ("plain", "quiet"),
        (
            "a quiet background",
            "a plain background",
            "a smooth background",
            "little detail",
            "low detail",
            "less detail",
            "a calm background",
        ),
        ("the background is quiet", "the background is smooth", "the background is plain"),
        (),
        (
            "quiet background",
            "less detail",
            "less background detail",
            "less texture",
            "a {i} of little detail",
            "smooth the background",
            "remove the details",
        ),
    ),
    "clear": Phrases(
        "a clear image",
        ("clear", "haze free"),
        ("clear air", "clear view", "good visibility", "less haze"),
        ("the air is clear", "the view is clear"),
        (),
        ("clearer", "a clearer {i}", "remove the haze", "less fog", "a {i} on a clear day", "remove the fog"),
    ),
    "hazy": Phrases(
        "a hazy image",
        ("hazy", "foggy", "misty", "veiled"),
        ("haze", "fog", "mist", "a gray veil", "a grey veil", "strong haze", "more haze"),
        ("fog hides the scene", "everything is hazy"),
        ("haze", "fog", "mist", "veil", "smoke"),
        ("hazier", "a hazier {i}", "a {i} seen through fog", "more fog", "add fog"),
    ),
    "exposed": Phrases(
        "a well exposed image",
        ("well exposed", "balanced", "evenly lit"),
        ("good exposure", "balanced exposure", "less glare", "even light"),
        ("the exposure is good", "no light dazzles"),
        (),
        ("better exposed", "a well balanced {i}", "reduce the glare", "good exposure"),
    ),
    "glaring": Phrases(
        "a glaring image",
        ("glaring", "overexposed", "too bright", "dazzling"),
        ("glare", "strong glare", "dazzling lights", "burnt out lights", "more glare"),
        ("headlights dazzle", "a light dazzles", "lights are burnt out"),
        ("glare", "overexposure", "dazzling lights"),
        ("a glaring white {i}", "more glare", "too much light", "a {i} full of glare", "add glare"),
    ),
    "striped": Phrases(
        "an image with stripes",
        ("striped",),
        ("stripes", "banding lines"),
        sentences=("a {i} covered by stripes",),
    ),
    "checkered": Phrases(
        "an image with a checkerboard pattern",
        ("checkered",),
        ("a grid pattern", "checkerboard artefacts", "a checkerboard pattern"),
    ),
    "blocky": Phrases(
        "a blocky image", ("blocky", "pixelated"), ("block artefacts",), sentences=("a {i} made of blocks",)
    ),
    "haloed": Phrases(
        "an image with halos",
        (),
        ("halos", "halos around edges", "glowing edges"),
        sentences=("halos around {t}",),
    ),
    "harsh": Phrases(
        "an oversharpened image", ("harsh", "oversharpened", "oversharpened harsh"), ("harsh rough edges",)
    ),
    "inverted": Phrases(
        "an inverted image",
        ("inverted", "negative"),
        ("inverted {t}", "black {t}", "dark {t}"),
        ("{t} are black", "{t} are dark"),
        sentences=("a negative {i}",),
    ),
}
# What a sentence may open with, and say of a place, without meaning anything else.
OPENINGS = (
    "",
    "",
    "",
    "",
    "show ",
    "make it ",
    "give me ",
    "i want ",
    "please make ",
    "this is ",
    "it is ",
    "the result is ",
)
PLACES = (
    "",
    "",
    "",
    "",
    " of a {s}",
    " with a {s}",
    " of the {s}",
    " at night",
    " in daylight",
    " of a {s} at night",
    " by day",
)
DEGREES = ("very", "really", "quite", "more", "slightly", "strongly", "rather", "extremely")
NEGATIONS = ("not", "no", "without", "less")
# Words that mean nothing by themselves, besides IMAGES and SCENES.
FUNCTION_WORDS = (
    "a all an and any are as at be by day daylight do every everything for from full give i in is it its like look "
    "looking looks lot made make me most night nothing of on or please result see seen sees show shows so than that "
    "the there this through to two want where which while with"
).split()

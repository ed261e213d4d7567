"""The example pair: a street at night as a camera and a thermal camera would see it, drawn with numpy alone.

Everything is placed in metres (X to the right, Y up from the ground, Z ahead of the camera) and painted from far to
near, twice in one go: what it reflects and emits for the visible image, and how warm it looks for the infrared one.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from langfuse_jax.examples.drawing import Grid, Scalar, box, convex, cover, fractal_noise, limb, soften
from langfuse_jax.images.files import write_png

EYE, FOCAL, HORIZON = 2.2, 0.95, 0.47  # camera height in metres; the others in image heights
LEFT_WALL, RIGHT_WALL, KERB, CROSSING = -8.5, 13.0, 4.2, (11.0, 13.6)
SODIUM, WHITE, AMBIENT = (1.0, 0.74, 0.45), (0.92, 0.96, 1.0), (0.010, 0.013, 0.022)


def night_scene(
    height: int = 480, width: int = 640, seed: int = 0
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """A registered pair, visible RGB (h, w, 3) and infrared gray (h, w), both uint8 in 0-255.

    People and cars are warm in the infrared image and hardly there in the dark visible one, which alone shows road
    markings, lit windows and lamps. The same size and seed always give the same pair.

    >>> visible, infrared = night_scene(48, 64)
    >>> visible.shape, infrared.shape, infrared.dtype.name
    ((48, 64, 3), (48, 64), 'uint8')
    """
    scene = _Scene(2 * height, 2 * width, np.random.default_rng(seed))  # twice as fine: the edges come out smooth
    scene.sky()
    scene.ground()
    scene.wall(LEFT_WALL, 5.0, 75.0, 13.0)
    scene.wall(RIGHT_WALL, 19.0, 75.0, 7.5)
    people = [(-5.2, 10.4, 0.94, False, 0.8), (-6.0, 10.8, 1.0, False, 0.75), (0.9, 7.6, 1.0, True, 1.4)]
    people += [(6.2, 14.0, 1.03, False, 0.5), (0.5, 16.5, 0.96, True, 0.6), (5.4, 24.0, 1.0, False, 0.4)]
    things: list[tuple[float, Callable, tuple]] = [(person[1], scene.person, person) for person in people]
    things += [(z, scene.lamp, (x, z)) for x, z in ((-4.9, 15.0), (4.9, 20.0), (-4.9, 29.0), (4.9, 40.0), (-4.9, 52.0))]
    things += [(z, scene.tree, (x, z)) for x, z in ((7.6, 10.8), (7.8, 16.0), (7.6, 24.0), (7.8, 34.0))]
    things += [(21.0, scene.car, (-2.0, 21.0, True)), (10.0, scene.car, (3.2, 8.6, False))]
    things += [(47.0, scene.car, (-2.0, 47.0, True)), (30.0, scene.car, (1.9, 30.0, False))]
    for _, paint, place in sorted(things, key=lambda thing: -thing[0]):
        paint(*place)
    return scene.visible(), scene.infrared()


def write_night_scenes(folder: str | Path, count: int, height: int = 240, width: int = 320) -> None:
    """Writes `count` drawn scenes as `folder`/visible/N.png and `folder`/infrared/N.png, a dataset to try training on.

    Raises UserError where the folder cannot be written.

    >>> write_night_scenes("scenes", 2, 48, 64)
    >>> sorted(str(path) for path in Path("scenes").glob("*/*.png"))
    ['scenes/infrared/0.png', 'scenes/infrared/1.png', 'scenes/visible/0.png', 'scenes/visible/1.png']
    """
    for seed in range(count):
        for role, image in zip(("visible", "infrared"), night_scene(height, width, seed), strict=True):
            write_png(Path(folder) / role / f"{seed}.png", image)


_Paint = Grid | float | tuple[float, ...] | None  # None leaves a layer as it is
_View = tuple[slice, slice]
_Colour = tuple[float, float, float]


class _Scene:
    def __init__(self, height: int, width: int, rng: np.random.Generator) -> None:
        self.height, self.width, self.rng = height, width, rng
        self.noise = partial(fractal_noise, rng.random((256, 256), np.float32))
        y, x = np.mgrid[:height, :width].astype(np.float32) / height
        self.x, self.y = x - 0.5 * width / height, y - HORIZON
        self.albedo = np.zeros((height, width, 3), np.float32)
        self.emission = np.zeros_like(self.albedo)
        self.world = np.zeros_like(self.albedo)
        self.thermal = np.zeros((height, width), np.float32)
        self.wet = np.zeros_like(self.thermal)  # where the road mirrors lights
        self.lights: list[tuple[float, float, float, _Colour, float]] = []  # (X, Y, Z, colour, power)

    def window(
        self, x: float, z: float, left: Scalar, right: Scalar, low: Scalar, high: Scalar
    ) -> tuple[_View, Grid, Grid, float]:
        """A view on an upright plane at depth z: slices, metres right of x and above ground, and metres per pixel."""
        scale = z / FOCAL
        columns = np.clip(((np.array([x + left, x + right]) / scale - self.x[0, 0]) * self.height).astype(int), 0, None)
        rows = np.clip((((EYE - np.array([high, low])) / scale - self.y[0, 0]) * self.height).astype(int), 0, None)
        where = np.s_[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1]
        return where, self.x[where] * scale - x, EYE - self.y[where] * scale, scale / self.height

    def paint(
        self, where: _View, mask: Grid, albedo: _Paint, thermal: Grid | float, world: _Paint = None, glow: _Paint = 0.0
    ) -> None:
        """Covers what is there, as far as mask (0 to 1) says."""
        for layer, value in ((self.thermal, thermal), (self.wet, 0.0)):
            layer[where] += mask * (value - layer[where])
        mask = mask[..., None]
        for surface, paint in ((self.albedo, albedo), (self.emission, glow), (self.world, world)):
            if paint is not None:
                surface[where] += mask * (np.asarray(paint, np.float32) - surface[where])

    # The street

    def sky(self) -> None:
        everywhere, up = np.s_[:, :], np.clip(-self.y / HORIZON, 0, 1)
        cloud = self.noise(self.x * 3, self.y * 9 + 40)
        haze = np.exp(-5 * up)[..., None] * np.array((0.05, 0.033, 0.022))
        colour = haze + np.array((0.004, 0.006, 0.014)) * (0.5 + cloud[..., None])
        self.paint(everywhere, np.ones_like(up), 0.0, 0.05 + 0.13 * np.exp(-4 * up) + 0.05 * cloud, 1e3, colour)
        for centre in np.arange(-0.5, 0.5, 0.055):  # the town far ahead
            tall, wide = self.rng.uniform(4, 17), self.rng.uniform(2.5, 6)
            where, u, v, px = self.window(centre * 110, 100.0, -wide, wide, 0, tall)
            lit = (self.noise(np.floor(u / 1.3) * 7.7 + tall, np.floor(v / 1.6) * 5.3, 1) > 0.38) & (v % 1.6 > 0.7)
            glow = lit[..., None] * np.array((0.16, 0.11, 0.05)) + 0.004
            self.paint(where, cover(box(u, v, 0, 0, wide, tall, 0.1), px), 0.05, 0.22 + 0.04 * lit, None, glow)

    def ground(self) -> None:
        where = np.s_[int((HORIZON + 0.004) * self.height) :, :]
        z = EYE * FOCAL / self.y[where]
        x, px = self.x[where] * z / FOCAL, z / FOCAL / self.height
        grain = self.noise(x * 9, z * 9) * np.clip(12 / z, 0, 1) + 0.5 * (1 - np.clip(12 / z, 0, 1))
        patchy = self.noise(x * 0.5, z * 0.25 + 9)
        road, lawn = cover(abs(x) - KERB, px), cover(7.0 - x, px)
        shade = 0.10 + 0.10 * grain + 0.06 * patchy
        pavement = 0.24 + 0.10 * grain - 0.10 * ((abs(x % 0.8) < 0.05) | (z % 0.8 < 0.05)) * np.clip(1 - z / 25, 0, 1)
        tone = road * shade + (1 - road) * pavement
        tone += 0.22 * cover(abs(abs(x) - KERB - 0.12) - 0.13, px)
        dash = cover(abs(x) - 0.07, px) * (z % 5 < 2.4) * ((z < CROSSING[0] - 1) | (z > CROSSING[1] + 1))
        zebra = (z > CROSSING[0]) & (z < CROSSING[1]) & (abs(x) < 3.9)
        stripes = zebra * cover(abs(x % 1.1 - 0.55) - 0.26, px)
        marks = np.maximum(np.maximum(dash, stripes), cover(abs(abs(x) - 3.95) - 0.06, px) * (z > CROSSING[1] + 1))
        tone += marks * (0.55 * (0.55 + grain) - 0.6 * tone)
        colour = tone[..., None] * np.array((1.0, 0.98, 0.95))
        grass = (0.05 + 0.16 * grain)[..., None] * np.array((0.55, 1.0, 0.35))
        colour = colour * (1 - lawn[..., None]) + grass * lawn[..., None]
        warm = 0.22 + 0.07 * road + 0.07 * patchy + 0.03 * grain - 0.02 * marks - 0.07 * lawn
        warm += 0.04 * cover(abs(abs(x) - KERB - 0.12) - 0.13, px)
        self.paint(where, np.ones_like(x), colour, warm, np.stack([x, 0 * x, z], -1))
        ripples = self.noise(x * 2.5, 60 / z + 3, 3)
        self.wet[where] = (1.6 * patchy * ripples) * road + 0.15 * (1 - road) * (1 - lawn)

    def wall(self, x: float, near: float, far: float, tall: float) -> None:
        """A row of houses along the street, in the plane X = x."""
        side = np.s_[:, : self.width // 2] if x < 0 else np.s_[:, self.width // 2 :]
        z = FOCAL * x / np.where(abs(self.x[side]) < 1e-3, np.copysign(1e-3, x), self.x[side])
        y = EYE - self.y[side] * z / FOCAL
        house = np.floor(z / 11)
        chance = self.noise(house * 3.7 + x, house * 1.9, 1) * 2
        roof = tall - 3 * chance
        mask = ((z > near) & (z < far) & (y > 0) & (y < roof)).astype(np.float32)
        column, floor = np.floor(z / 2.75), np.floor(y / 3.1)
        a, b = z % 2.75 - 1.375, y % 3.1
        luck = self.noise(column * 5.31 + x, floor * 7.77 + 3, 1) * 2
        pane = (abs(a) < 0.62) & (b > 0.95) & (b < 2.45)
        frame = (abs(a) < 0.78) & (b > 0.8) & (b < 2.6) & ~pane
        bars = (abs(a) < 0.05) | (abs(b - 1.9) < 0.05)
        lit = pane & ~bars & (luck > 0.63)
        ledge = (b < 0.16) | (y > roof - 0.35)
        bricks = self.noise(z * 2.2, y * 7.0) * np.clip(30 / z, 0, 1)
        tone = 0.10 + 0.16 * chance + 0.16 * bricks + 0.12 * ledge + 0.16 * frame
        tone = np.where(pane, 0.03, tone)[..., None] * np.stack([1.05 + 0 * z, 0.90 + 0 * z, 0.72 + 0.3 * chance], -1)
        curtain = 0.6 + 0.3 * np.cos(9 * a) * (luck > 0.8) - 0.2 * (b < 1.5)
        glow = (lit * curtain)[..., None] * np.stack([0.62 + 0 * z, 0.42 + 0 * z, 0.14 + 0.3 * (luck > 0.74)], -1)
        warm = 0.30 + 0.06 * chance + 0.05 * bricks + 0.05 * ledge + 0.05 * frame - 0.04 * y / tall
        warm = np.where(pane, np.where(lit, 0.50 + 0.1 * luck, 0.20), warm)
        self.paint(side, mask, tone, warm, np.stack([x + 0 * z, y, z], -1), glow)

    # The things on it

    def lamp(self, x: float, z: float) -> None:
        toward = -np.sign(x)
        where, u, v, px = self.window(x, z, -2.2, 2.2, -0.1, 6.6)
        at = np.array((x, 2.0, z))
        pole = np.minimum(limb(u, v, (0, 0), (0, 5.9), 0.10, 0.06), limb(u, v, (0, 5.9), (toward * 1.5, 6.2), 0.05))
        self.paint(where, cover(pole, px), 0.16, 0.30 + 0.02 * v, at)
        head = cover(box(u, v, toward * 1.5, 6.15, 0.34, 0.09, 0.06), px)
        self.paint(where, head, 0.1, 0.72, at, 1.6 * np.array(SODIUM))
        self.lights.append((x + toward * 1.5, 6.1, z, SODIUM, 5.0))

    def tree(self, x: float, z: float) -> None:
        where, u, v, px = self.window(x, z, -3.2, 3.2, -0.1, 8.6)
        grow = self.rng.uniform(0.85, 1.1)
        trunk = limb(u, v, (0, 0), (0.1, 3.2), 0.22, 0.14)
        for tip in ((-1.3, 4.6), (1.2, 4.9), (0.2, 5.6)):
            trunk = np.minimum(trunk, limb(u, v, (0.05, 2.6), tip, 0.11, 0.04))
        bark = self.noise(u * 14 + x, v * 3)
        at = np.stack([x + u, v, z + 0 * u], -1)
        self.paint(where, cover(trunk, px), (0.07 + 0.12 * bark)[..., None] * (1.0, 0.85, 0.7), 0.31 + 0.08 * bark, at)
        shape = 1 - (u / (2.7 * grow)) ** 2 - ((v - 5.2) / (2.7 * grow)) ** 2
        leaves = self.noise(u * 1.4 + 3 * z, v * 1.4 + x, 6)
        crown = np.clip((shape + 2.6 * (leaves - 0.50)) * 7, 0, 1)
        light = self.noise(u * 5.5 + z, v * 5.5, 4)
        green = (0.015 + 0.22 * light**2)[..., None] * np.array((0.62, 1.0, 0.34))
        self.paint(where, crown, green, 0.21 + 0.15 * light + 0.02 * shape, at)

    def car(self, x: float, z: float, oncoming: bool) -> None:
        """Its front with the headlamps on, or the back of a car that has just been parked."""
        where, u, v, px = self.window(x, z, -2.6, 2.6, -0.4, 1.9)
        at = np.array((x, 0.6, z), np.float32)
        shadow = np.clip(1.25 - np.hypot(u / 1.15, (v - 0.02) / 0.22), 0, 1)
        self.albedo[where] *= 1 - 0.85 * shadow[..., None]
        self.thermal[where] += 0.22 * shadow
        paint, warm = np.array((0.12, 0.07, 0.07)) if oncoming else np.array((0.06, 0.09, 0.15)), 0.41
        hull = [(-0.9, 0.3), (-0.9, 0.95), (0.9, 0.95), (0.9, 0.3)]
        cabin = [(-0.80, 0.93), (-0.60, 1.43), (0.60, 1.43), (0.80, 0.93)]
        glass = [(-0.68, 0.99), (-0.53, 1.36), (0.53, 1.36), (0.68, 0.99)]
        near_side = slice(0, 2) if x > 0 else slice(2, 4)
        for outline, edge, long, tone, hot in (
            (hull, near_side, 3.9, 0.6 * paint, 0.0),
            (hull, slice(1, 3), 3.9, 1.1 * paint, 0.0),
            (cabin, near_side, 3.0, 0.6 * paint, -0.03),
            (cabin, slice(1, 3), 3.0, 1.1 * paint, -0.03),
            (glass, near_side, 2.7, 0.01, -0.2),
        ):  # the flank and the top, drawn out from their near edge towards the vanishing point
            shrink = z / (z + long)
            far = [((x + a) * shrink - x, EYE - (EYE - b) * shrink) for a, b in outline[edge]]
            self.paint(where, cover(convex(u, v, outline[edge] + far[::-1]), px), tone, warm + hot, at)
        shrink = z / (z + 3.1)
        hub = (x - np.sign(x) * 0.9) * shrink - x, EYE - (EYE - 0.3) * shrink
        self.paint(where, cover(box(u, v, *hub, 0.09, 0.29 * shrink, 0.09), px), 0.02, 0.60, at)
        for s in (-1, 1):
            self.paint(where, cover(box(u, v, 0.72 * s, 0.22, 0.13, 0.22, 0.05), px), 0.02, 0.66, at)
        shine = 0.06 * np.clip(v - 0.6, 0, 1)[..., None]
        engine = 0.34 * np.exp(-(((v - 0.80) / 0.17) ** 2) - (u / 0.75) ** 2) if oncoming else 0.03 * v
        self.paint(where, cover(box(u, v, 0, 0.63, 0.9, 0.34, 0.16), px), paint + shine, warm + engine, at)
        self.paint(where, cover(convex(u, v, cabin), px), paint, warm - 0.05, at)
        self.paint(where, cover(convex(u, v, glass), px), 0.02, 0.20 + 0.10 * (1.3 - v), at)
        self.paint(where, cover(box(u, v, 0, 0.44, 0.27, 0.06, 0.02), px), 0.45, warm + 0.02, at)
        if oncoming:
            self.paint(where, cover(box(u, v, 0, 0.62, 0.42, 0.07, 0.03), px), 0.01, 0.82, at)
        else:
            pipe = np.exp(-(((u - 0.55) / 0.13) ** 2) - ((v - 0.27) / 0.10) ** 2)
            self.thermal[where] += 0.55 * pipe
        for s in (-1, 1):
            lens = cover(box(u, v, 0.68 * s, 0.68, 0.15, 0.08, 0.07), px)
            if oncoming:
                self.paint(where, lens, 0.5, 0.62, at, 3.0 * np.array(WHITE))
                self.lights.append((x + 0.68 * s, 0.68, z, WHITE, 1.6))
            else:
                self.paint(where, lens, (0.30, 0.02, 0.02), warm + 0.06, at)

    def person(self, x: float, z: float, size: float, striding: bool, bright: float) -> None:
        """Dark clothes for the camera; for the thermal one a head and hands of skin, a jacket and trousers."""
        where, u, v, px = self.window(x, z, -0.8, 0.8, -0.1, 1.95)
        u, v = u / size, v / size
        at = np.array((x, 1.0, z), np.float32)
        for start, end, r, s, warm, tone in _STRIDING if striding else _STANDING:
            edge = limb(u, v, start, end, r, s)
            body = warm * (0.80 + 0.20 * np.clip(-edge / max(r, s), 0, 1)) + 0.12 * (self.noise(u * 9 + x, v * 9) - 0.5)
            self.paint(where, cover(edge, px), bright * tone * np.array((1.0, 0.92, 0.9)), body, at)

    # What the two cameras make of it

    def visible(self) -> UInt8[np.ndarray, "h w 3"]:
        light = np.zeros_like(self.albedo) + np.array(AMBIENT, np.float32)
        glare = np.zeros_like(light)
        for x, y, z, rgb, power in self.lights:
            colour, low = np.array(rgb, np.float32), y < 1
            offset = self.world - np.array((x, y, z), np.float32)
            square = (offset**2).sum(-1)
            reach = power / (1.5 + square)
            if not low:  # street lamps shine down
                reach *= 4.2 * np.clip(0.12 - offset[..., 1] / np.sqrt(square + 1), 0, 1) ** 2
            else:  # headlamps shine towards the camera
                ahead = np.clip(-offset[..., 2] / 2, 0, 1)
                reach *= ahead * 5 * np.exp(-((offset[..., 0] / (0.8 - 0.22 * np.minimum(offset[..., 2], 0))) ** 2))
            light += reach[..., None] * colour
            u, v = self.x - x * FOCAL / z, self.y - (EYE - y) * FOCAL / z
            near = 0.010 + 0.14 / z
            glare += (0.22 * power / 3 / (1 + (u**2 + v**2) / near**2) ** 1.25)[..., None] * colour
            depth = (EYE + y) * FOCAL / z  # the mirror image in the wet road, drawn out by its ripples
            streak = np.exp(-((u / (0.32 / z + 0.004)) ** 2) - ((self.y - depth) / (0.35 * depth)) ** 2)
            glare += (0.30 * self.wet * streak)[..., None] * colour
        image = self._shrink(1 - np.exp(-(self.albedo * light + self.emission + glare)))
        image = np.clip(image, 0, 1) ** (1 / 2.2)
        noise = 0.6 * self.rng.normal(size=image.shape[:2])[..., None] + 0.5 * self.rng.normal(size=image.shape)
        image = image + soften(noise, 0.6) * (0.026 - 0.012 * image)
        return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)

    def infrared(self) -> UInt8[np.ndarray, "h w"]:
        image = soften(self._shrink(self.thermal), 0.0016 * self.height / 2)
        columns = self.rng.normal(size=image.shape[1]) * 0.004
        image = image + columns + 0.010 * self.rng.normal(size=image.shape)
        return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)

    def _shrink(self, image: Float[np.ndarray, "h w *c"]) -> Float[np.ndarray, "h2 w2 *c"]:
        return image.reshape(self.height // 2, 2, self.width // 2, 2, *image.shape[2:]).mean((1, 3))


# Limbs as (from, to, radius there, radius here, warmth, reflectance), in metres for a height of 1.8 m; far ones first.
_SKIN, _COAT, _LEGS = 0.97, 0.80, 0.72
_STANDING = (
    *(((0.09 * s, 0.92), (0.11 * s, 0.50), 0.095, 0.070, _LEGS, 0.17) for s in (-1, 1)),
    *(((0.11 * s, 0.50), (0.12 * s, 0.10), 0.070, 0.050, _LEGS, 0.17) for s in (-1, 1)),
    *(((0.12 * s, 0.06), (0.16 * s, 0.04), 0.060, 0.050, 0.55, 0.10) for s in (-1, 1)),
    *(((0.20 * s, 1.40), (0.27 * s, 1.13), 0.070, 0.055, _COAT, 0.20) for s in (-1, 1)),
    *(((0.27 * s, 1.13), (0.25 * s, 0.90), 0.055, 0.045, _COAT, 0.20) for s in (-1, 1)),
    *(((0.25 * s, 0.86), (0.245 * s, 0.82), 0.045, 0.040, _SKIN, 0.26) for s in (-1, 1)),
    ((0.0, 0.92), (0.0, 1.34), 0.150, 0.195, _COAT, 0.20),
    ((0.0, 1.46), (0.0, 1.54), 0.060, 0.055, _SKIN, 0.26),
    ((0.0, 1.63), (0.0, 1.70), 0.090, 0.105, _SKIN, 0.24),
)
_STRIDING = (
    ((0.00, 1.40), (0.20, 1.15), 0.065, 0.055, _COAT - 0.05, 0.19),
    ((0.20, 1.15), (0.34, 0.98), 0.052, 0.042, _COAT - 0.05, 0.19),
    ((0.00, 0.92), (-0.14, 0.50), 0.100, 0.072, _LEGS - 0.05, 0.16),
    ((-0.14, 0.50), (-0.40, 0.16), 0.068, 0.050, _LEGS - 0.05, 0.16),
    ((-0.41, 0.13), (-0.30, 0.05), 0.052, 0.045, 0.52, 0.10),
    ((0.00, 0.92), (0.20, 0.52), 0.105, 0.075, _LEGS, 0.17),
    ((0.20, 0.52), (0.30, 0.10), 0.070, 0.050, _LEGS, 0.17),
    ((0.30, 0.06), (0.44, 0.07), 0.055, 0.045, 0.55, 0.10),
    ((0.00, 0.95), (0.03, 1.36), 0.140, 0.165, _COAT, 0.20),
    ((0.02, 1.38), (-0.17, 1.12), 0.070, 0.056, _COAT + 0.05, 0.21),
    ((-0.17, 1.12), (-0.10, 0.90), 0.055, 0.045, _COAT + 0.05, 0.21),
    ((-0.10, 0.88), (-0.08, 0.84), 0.045, 0.040, _SKIN, 0.26),
    ((0.04, 1.46), (0.05, 1.54), 0.060, 0.055, _SKIN, 0.26),
    ((0.06, 1.63), (0.07, 1.70), 0.092, 0.105, _SKIN, 0.24),
)

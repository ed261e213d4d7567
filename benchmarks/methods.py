"""The ways to fuse that the benchmarks compare: each takes a visible and an infrared image (h, w) in [0, 1]."""

from collections.abc import Callable, Sequence

import jax

from langfuse_jax import Fuser
from langfuse_jax.classical.baselines import BASELINES
from langfuse_jax.classical.pyramid import guide_fuse
from langfuse_jax.classical.target import target_fuse
from langfuse_jax.models.lossless import lossless_init
from langfuse_jax.steering.glare import glare_opened

DEFAULT = (*BASELINES, "steered", "ldfusion")
HELP = (
    f"names: {', '.join(DEFAULT)}, target and guide (what steered and ldfusion are trained towards), "
    "untrained (LDFusion's network from its lossless start), or LABEL=DIR of a trained model"
)

_OTHERS: dict[str, Callable[[], Callable]] = {
    "steered": Fuser.load,
    "ldfusion": lambda: Fuser.load(model="ldfusion"),
    "target": lambda: lambda visible, infrared: target_fuse(glare_opened(visible, infrared), infrared),
    "guide": lambda: guide_fuse,
    "untrained": lambda: Fuser(lossless_init(jax.random.key(0)), {"pad_multiple": 8, "worn_edge": 2}),
}


def find_methods(names: Sequence[str]) -> dict[str, Callable]:
    """The methods by label, in order; see HELP. Ends the program where a name is none."""
    methods = {}
    for name in names:
        label, _, folder = name.partition("=")
        if folder:
            methods[label] = Fuser.load(folder)
        elif name in BASELINES:
            methods[name] = BASELINES[name]
        elif name in _OTHERS:
            methods[name] = _OTHERS[name]()
        else:
            raise SystemExit(f"--methods: {name!r} is unknown; use {HELP}")
    return methods

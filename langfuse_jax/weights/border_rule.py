"""How a network takes the borders of images, beside weights in files of another project, which have no place for it."""

import json
from pathlib import Path

from langfuse_jax.errors import UserError
from langfuse_jax.models.fusion import MIN_SIDE

# Each value's least and largest: no image of MIN_SIDE is padded by more than its own pixels, nor worn to its middle.
LIMITS = {"pad_multiple": (1, MIN_SIDE), "worn_edge": (0, MIN_SIDE // 2 - 1)}


def sidecar(encoder: str | Path) -> Path:
    """The file that belongs to an encoder's.

    >>> sidecar("weights/Enc_final.pt").name
    'Enc_final.pt.json'
    """
    return Path(f"{encoder}.json")


def sidecar_content(metadata: dict) -> bytes:
    """The arguments of `canvas.extend` among a model's metadata, as JSON.

    >>> sidecar_content({"pad_multiple": 8, "steps": 250})
    b'{"pad_multiple": 8, "worn_edge": 0}\\n'
    """
    return json.dumps({name: metadata.get(name, least) for name, (least, _) in LIMITS.items()}).encode() + b"\n"


def read_border_rule(encoder: str | Path, flags: dict[str, str | None]) -> dict[str, int]:
    """The rule by `flags`, and else by the sidecar of `encoder`; empty without either: borders as they are.

    Raises UserError, naming flag or file, for what is no such number.

    >>> read_border_rule("Enc_final.pt", {"pad_multiple": "8", "worn_edge": None})
    {'pad_multiple': 8, 'worn_edge': 0}
    """
    given = {
        name: _number(text, name, f"--{name.replace('_', '-')} {text}")
        for name, text in flags.items()
        if text is not None
    }
    path = sidecar(encoder)
    if given.keys() == LIMITS.keys():
        return given
    kept = _read_sidecar(path) if path.exists() else {}
    if not given and not kept:
        return {}
    return {name: least for name, (least, _) in LIMITS.items()} | kept | given


def _read_sidecar(path: Path) -> dict[str, int]:
    remedy = "write both again by `convert fusion --to-torch`, or give --pad-multiple and --worn-edge"
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({type(error).__name__}); {remedy}") from error
    if not isinstance(values, dict) or values.keys() != LIMITS.keys():
        raise UserError(f"{path}: has not just {' and '.join(LIMITS)}; {remedy}")
    return {
        name: _number(json.dumps(value), name, f"{path}: {name} {repr(value)[:40]}") for name, value in values.items()
    }


def _number(text: str, name: str, origin: str) -> int:
    least, largest = LIMITS[name]
    if not (text.isascii() and text.isdigit() and len(text) < 4 and least <= int(text) <= largest):
        raise UserError(f"{origin}: is no whole number from {least} to {largest}; give one")
    return int(text)

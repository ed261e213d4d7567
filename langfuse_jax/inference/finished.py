"""What of a folder is fused already: by a record of what fused it, and by opening what is there."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langfuse_jax.errors import UserError
from langfuse_jax.images.files import header_size, opens_whole
from langfuse_jax.images.pairs import Pair, pair_size
from langfuse_jax.images.reading import Reading
from langfuse_jax.runtime.atomic import atomic_write
from langfuse_jax.runtime.threads import default_threads, pool

RECORD = ".langfuse_jax.json"  # in a folder of fused images


def check_record(out: Path, made_by: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raises UserError where `out` holds images of these names that were not `made_by` the same.

    Args:
        out: the folder of fused images; it may not be there yet.
        made_by: weights, words and flags, as JSON can hold them.
        names: of the files that are to be written.
    """
    remedy = "give --overwrite to fuse all of them again, or another folder"
    try:
        record = json.loads((out / RECORD).read_bytes().decode(errors="surrogateescape"))
    except (OSError, ValueError):
        if there := [name for name in names if _holds_something(out / name)]:
            more = f" and {len(there) - 1} more" if len(there) > 1 else ""
            raise UserError(
                f"--out {out}: has {there[0]}{more}, and no record that this command made them; {remedy}"
            ) from None
        return
    if not isinstance(record, dict):
        raise UserError(f"{out / RECORD}: is no record of this command; {remedy}")
    asked = json.loads(json.dumps(made_by))
    if other := [name for name in sorted({*record, *asked}) if record.get(name) != asked.get(name)]:
        was = ", ".join(f"{name} {_shown(record.get(name))}, now {_shown(asked.get(name))}" for name in other)
        raise UserError(f"--out {out}: was fused with other settings ({was}); {remedy}")


def _holds_something(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False


def _shown(value: Any) -> str:
    return "not given" if value is None else json.dumps(value, ensure_ascii=False).strip('"')


def write_record(out: Path, made_by: Mapping[str, Any], *, anew: bool = False) -> None:
    """Writes RECORD into `out`, unless it is there; `anew` too, so that what is older than it is redone."""
    content = json.dumps(made_by, indent=1, ensure_ascii=False).encode(errors="surrogateescape") + b"\n"
    if anew or not (out / RECORD).is_file() or (out / RECORD).read_bytes() != content:
        with atomic_write(out / RECORD) as file:
            file.write(content)


def finished_pairs(pairs: Sequence[Pair], out: Path, ending: str, sheets: Path | None, reading: Reading) -> set[str]:
    """The stems of the pairs whose outputs open whole, the fused image in the size that the pair is read in.

    Outputs that are older than the record are those of other settings, which an interrupted --overwrite left.

    Args:
        ending: of the fused images, such as ".png".
        sheets: the folder of their sheets, if there are to be any.
        reading: how the pairs are read, on which their size depends.
    """

    since = (out / RECORD).stat().st_mtime_ns if (out / RECORD).is_file() else 0

    def whole(pair: Pair) -> bool:
        fused = out / f"{pair.stem}{ending}"
        if not os.path.isfile(fused) or fused.stat().st_mtime_ns < since:
            return False
        if header_size(fused) != pair_size(pair, reading) or not opens_whole(fused):
            return False
        sheet = None if sheets is None else sheets / f"{pair.stem}.png"
        return sheet is None or (sheet.is_file() and sheet.stat().st_mtime_ns >= since and opens_whole(sheet))

    with pool(default_threads()) as workers:
        return {pair.stem for pair, done in zip(pairs, workers.map(whole, pairs), strict=True) if done}

"""Many pairs at once: files of both cameras, or a ZIP of two folders, become a ZIP of fused images."""

import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from langfuse_jax.data.layouts import find_parts
from langfuse_jax.errors import UserError, one_line, reason
from langfuse_jax.images.files import EXTENSIONS, write_png
from langfuse_jax.images.pairs import match_pairs
from langfuse_jax.page.load import MAX_BYTES, load_pair
from langfuse_jax.page.mistakes import Mistake, beside, on_the_page
from langfuse_jax.page.sentences import Sentences

MAX_PAIRS = 50
MAX_UNPACKED = 2**29  # bytes of all files in a ZIP
FAILED = "failed.txt"
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Fused(NamedTuple):
    """A ZIP of fused images.

    Attributes:
        path: of the ZIP; FAILED in it has the lines of `failed`, if there are any.
        fused: pairs in it.
        pairs: pairs that there were.
        failed: a line for each pair that could not be fused, and for each image without a partner.
    """

    path: Path
    fused: int
    pairs: int
    failed: tuple[str, ...]


def fuse_many(
    sentences: Sentences,
    visible: Sequence[str],
    infrared: Sequence[str],
    folder: Path,
    *,
    goal: str = "",
    strength: float | int = 1.0,
    colour: bool = True,
    align: bool = False,
    progress: Callable[[int, int], object] = lambda done, of: None,
) -> Fused:
    """Fuses the pairs among uploaded files, which match by name as `images.pairs.match_pairs` has it.

    A ZIP, alone in either field, stands for both: it holds two folders, or one in which names tell the two roles apart.
    With `align`, each pair is aligned by itself. `folder` gets a new folder with the ZIP. Raises `Mistake` for files
    that are no pairs, more than MAX_PAIRS, and a goal that is not understood.

    Example::

        done = fuse_many(Sentences(Fuser.load()), ["a_vi.png"], ["a_ir.png"], Path("out"), goal="a bright image")
    """
    fuser, _ = sentences.towards(goal, strength)
    made = Path(tempfile.mkdtemp(prefix="many_", dir=folder))
    work = made / "work"
    try:
        with beside("many", [work / "visible", work / "infrared", work / "zip", work]):
            matching = match_pairs(*_gather(visible, infrared, work))
            pairs = matching.pairs
            if len(pairs) > MAX_PAIRS:
                raise UserError(f"{len(pairs)} pairs: at most {MAX_PAIRS} are fused at once; give fewer")
            sources = {path.parent for pair in pairs for path in pair[1:]}
            failed = [on_the_page(line, [*sources]) for line in matching.why_alone(sources)]
        fused = 0
        path = made / "fused.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # PNGs are compressed
            for done, pair in enumerate(pairs):
                progress(done, len(pairs))
                try:
                    loaded = load_pair(str(pair.visible), str(pair.infrared), align=align)
                    gray = fuser(loaded.luma, loaded.infrared)
                    write_png(work / "fused.png", loaded.in_colour(gray) if colour else gray)
                except UserError as error:
                    failed.append(on_the_page(f"{pair.stem}: {error}", [*sources]))
                else:
                    archive.write(work / "fused.png", f"{one_line(pair.stem).replace(chr(92), '_')}.png")
                    fused += 1
            if failed:
                archive.writestr(FAILED, "".join(f"{line}\n" for line in failed))
    except BaseException:
        shutil.rmtree(made)
        raise
    shutil.rmtree(work)
    return Fused(path, fused, len(pairs), tuple(failed))


def _gather(visible: Sequence[str], infrared: Sequence[str], work: Path) -> tuple[Path, Path]:
    """The folders of visible and infrared images."""
    both = [*visible, *infrared]
    if len(both) == 1 and zipfile.is_zipfile(both[0]):
        return _unpack(Path(both[0]), work / "zip")
    if not both:
        raise Mistake("many", "Give visible and infrared images, or one ZIP with a folder of each.")
    for role, paths in (("visible", visible), ("infrared", infrared)):
        if not paths:
            raise UserError(f"there are no {role} images; give them too, or one ZIP with a folder of each")
        if len(paths) > MAX_PAIRS:
            raise UserError(f"{len(paths)} {role} images: at most {MAX_PAIRS} pairs are fused at once; give fewer")
        (work / role).mkdir(parents=True)
        for path in map(Path, paths):
            if path.suffix.lower() == ".zip":
                raise UserError(f"{path.name}: is a ZIP beside other files; give it alone")
            link = work / role / path.name
            if link.exists():
                raise UserError(f"{path.name}: two {role} images of that name; rename or remove one of them")
            os.symlink(path.absolute(), link)
    return work / "visible", work / "infrared"


def _unpack(path: Path, folder: Path) -> tuple[Path, Path]:
    """The images of a ZIP in `folder`; those of visible and infrared. Nothing else of it is unpacked."""
    folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if _is_image(entry)]
            if len(entries) > 2 * MAX_PAIRS:
                raise UserError(
                    f"{path.name}: has {len(entries)} images; at most {MAX_PAIRS} pairs are fused at once; give fewer"
                )
            if any(entry.compress_type not in _COMPRESSIONS for entry in entries):  # others unpack without a limit
                raise UserError(f"{path.name}: is compressed in an unusual way; make it again as an ordinary ZIP")
            if max((entry.file_size for entry in entries), default=0) > MAX_BYTES:
                raise UserError(f"{path.name}: has a file over {MAX_BYTES // 2**20} MiB; leave it out")
            if sum(entry.file_size for entry in entries) > MAX_UNPACKED:
                raise UserError(f"{path.name}: unpacks to over {MAX_UNPACKED // 2**20} MiB; give fewer pairs at once")
            for entry in entries:
                archive.extract(entry, folder)  # which keeps every name below the folder
    except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error, ValueError, EOFError) as error:
        raise UserError(
            f"{path.name}: cannot be unpacked ({reason(error)}); make it again, without a password"
        ) from error
    while len(inside := [*folder.iterdir()]) == 1 and inside[0].is_dir():
        folder = inside[0]
    try:
        parts = find_parts(folder)
    except UserError as error:
        raise UserError(
            f"{path.name}: needs a folder named visible and one named infrared, with the images of either"
        ) from error
    if len(parts) > 1:
        raise UserError(f"{path.name}: has the parts {' and '.join(parts)} of a dataset; give one at a time")
    return next(iter(parts.values()))


def _is_image(entry: zipfile.ZipInfo) -> bool:
    name = PurePosixPath(entry.filename.replace("\\", "/"))
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts)
    return not entry.is_dir() and not hidden and name.suffix.lower() in EXTENSIONS

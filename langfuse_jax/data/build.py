"""`langfuse-jax data build`: a downloaded dataset to ArrayRecord, without tensorflow."""

import io
import os
import re
import shutil
from contextlib import redirect_stdout
from pathlib import Path

from langfuse_jax.errors import UserError
from langfuse_jax.images.pairs import Pair, read_pair
from langfuse_jax.runtime.atomic import check_writable, make_folder
from langfuse_jax.runtime.bars import progress_bar
from langfuse_jax.runtime.threads import ahead, default_threads, pool


def build_dataset(
    dataset: str, source: Path, out: Path, *, name: str | None = None, overwrite: bool = False
) -> tuple[Path, dict[str, int] | None]:
    """Checks every pair of `source`, then writes the dataset, which appears whole or not at all.

    Args:
        dataset: a name of `builders.BUILDERS`.
        source: the folder as it was downloaded.
        out: root of the prepared datasets.
        name: of the prepared dataset, in `out`; that of `dataset` by default.
        overwrite: prepare again what is there already.

    Returns:
        Where the dataset is, and the number of pairs by part; None where it was there already. Raises UserError, naming
        the file, for a source without pairs, an image without a partner and one that cannot be read, and where the
        dataset cannot be written.
    """
    import tensorflow_datasets as tfds

    from langfuse_jax.data.builders import BUILDERS

    builder_class = BUILDERS[dataset]
    name = name or dataset
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"--name {name}: use small letters, digits and _, beginning with a letter")
    place = out / name / str(builder_class.VERSION)
    if place.exists() and not overwrite:
        return place, None
    if not source.is_dir():
        problem = "is not a folder" if source.exists() else "no such folder"
        raise UserError(f"--source {source}: {problem}. {builder_class.MANUAL_DOWNLOAD_INSTRUCTIONS}")
    check_writable(place.parent)
    tfds.disable_progress_bar()
    # Built beside its place: a run that is killed leaves nothing that looks like a dataset, and the next clears it up.
    building = out / f".building_{name}"
    shutil.rmtree(building, ignore_errors=True)
    try:
        parts = builder_class.pairs(source)
        pairs = [pair for each in parts.values() for pair in each]
        _check_images(pairs)
        make_folder(place.parent)
        config = tfds.download.DownloadConfig(manual_dir=source)
        with progress_bar(len(pairs), unit="pair", desc="writing") as progress:
            values = {"name": name, "written": staticmethod(progress.update)}
            named = type(builder_class.__name__, (builder_class,), values, skip_registration=True)
            builder = named(data_dir=building, file_format="array_record")
            with redirect_stdout(io.StringIO()):
                builder.download_and_prepare(download_dir=building / "downloads", download_config=config)
        shutil.rmtree(place, ignore_errors=True)
        os.replace(builder.data_dir, place)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{place}: cannot be written ({reason}); choose a place with free space") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return place, {part: len(pairs) for part, pairs in parts.items()}


def _check_images(pairs: list[Pair]) -> None:
    """Raises UserError for the first pair that cannot be read or whose images differ in size."""
    with pool(default_threads()) as workers, progress_bar(len(pairs), unit="pair", desc="checking") as progress:
        for _, future in ahead(workers, read_pair, pairs, 2 * default_threads()):
            future.result()
            progress.update()

"""Datasets prepared by `langfuse-jax data build`: found, checked and read record by record."""

import functools
import io
import json
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from langfuse_jax.errors import UserError, reason
from langfuse_jax.images.canvas import Size
from langfuse_jax.images.files import header_size, read_infrared, read_visible
from langfuse_jax.images.pairs import check_sizes

VERSION = "1.0.0"  # of the records; one for all builders
_INFO = "dataset_info.json"


class Record(NamedTuple):
    """One pair of a prepared dataset: the `index`-th record of a part."""

    stem: str
    folder: Path
    part: str
    index: int  # type: ignore[assignment]  # hides the method of tuples


def is_prepared(folder: Path) -> bool:
    """Whether a folder is one that `data build` made: it holds `VERSION/dataset_info.json`, of whatever version."""
    return folder.is_dir() and next(folder.glob(f"*/{_INFO}"), None) is not None


def prepared_records(folder: Path, part: str) -> list[Record]:
    """The records of one part of a prepared dataset; those of its first part where it has no such part.

    Raises UserError for a dataset prepared by another version, one without records, and one that is not whole.
    """
    place = folder / VERSION
    again = "prepare it again with `langfuse-jax data build`"
    if not (place / _INFO).is_file():
        found = ", ".join(sorted(path.parent.name for path in folder.glob(f"*/{_INFO}")))
        raise UserError(f"{folder}: is prepared in version {found}, and this package reads {VERSION}; {again}")
    try:
        names = json.loads((place / "metadata.json").read_bytes())["names"]
        part = part if part in names else next(iter(names))
        stems = names[part]
        length = len(_source(place, part))
    except Exception as error:  # files that are missing, cut or another builder's: many readers, many errors
        raise UserError(f"{place}: is not a whole dataset of pairs ({reason(error)}); {again}") from error
    if not stems or len(stems) != length:
        raise UserError(f"{place}: has {length} records and {len(stems)} names in its part {part}; {again}")
    return [Record(stem, place, part, index) for index, stem in enumerate(stems)]


def read_record(record: Record) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Visible luma and infrared in [0, 1], as `pairs.read_pair` reads files.

    Raises UserError, naming the pair and its record, where the record is damaged or its images cannot be read.
    """
    name = f"{record.folder.parent.name} {record.part} {record.stem} (record {record.index})"
    try:
        fields = _source(record.folder, record.part)[record.index]
        visible, infrared = (_NamedBytes(fields[role], f"{name}: {role}") for role in ("visible", "infrared"))
    except Exception as error:  # checksums and protocol buffers fail in many ways
        raise UserError(f"{name}: is damaged ({reason(error)}); prepare {record.folder} again") from error
    luma, thermal = read_visible(visible)[0], read_infrared(infrared)
    check_sizes({Path(str(visible)): luma.shape, Path(str(infrared)): thermal.shape})
    return luma, thermal


def record_size(record: Record) -> Size | None:
    """(height, width) by the header of the visible image; None where it cannot be had."""
    try:
        return header_size(io.BytesIO(_source(record.folder, record.part)[record.index]["visible"]))
    except Exception:  # `read_record` says what is wrong
        return None


class _NamedBytes(io.BytesIO):
    """The bytes of an image file; errors name it as they would the file."""

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self._name = name

    def __str__(self) -> str:
        return self._name


# Two threads that import tensorflow-datasets at once can wait for each other for ever: its lazy modules have locks.
_opening = threading.Lock()


def _source(folder: Path, part: str) -> Any:
    with _opening:
        return _open_source(folder, part)


@functools.cache  # opened once in each process that reads
def _open_source(folder: Path, part: str) -> Any:
    import tensorflow_datasets as tfds  # takes a second, which a training run on plain folders does not need

    undecoded = {role: tfds.decode.SkipDecoding() for role in ("visible", "infrared")}
    return tfds.builder_from_directory(folder).as_data_source(split=part, decoders=undecoded)

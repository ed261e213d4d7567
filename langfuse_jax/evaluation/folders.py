"""Folders of fused images scored against their sources: a table, and what it leaves out."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float64, Int32, UInt8

from langfuse_jax._version import __version__
from langfuse_jax.errors import BadPixels, UserError, one_line
from langfuse_jax.evaluation.outputs import check_outputs, write_outputs
from langfuse_jax.evaluation.table import ScoreTable
from langfuse_jax.images.canvas import Size
from langfuse_jax.images.naming import Convention
from langfuse_jax.images.pairs import FusedPair, match_fused, scan_sizes
from langfuse_jax.images.reading import Reading
from langfuse_jax.runtime.bars import progress_bar, write_beside
from langfuse_jax.runtime.html import html_table

Levels = UInt8[np.ndarray, "b h w"]
Sizes = Int32[np.ndarray, "b 2"]

if TYPE_CHECKING:  # JAX: not before the folders are known to be right
    from langfuse_jax.alignment.transform import Alignment
    from langfuse_jax.clip.pretrained import Clip
    from langfuse_jax.clip.words import TextEmbeddings
    from langfuse_jax.evaluation.language import LanguageScore
    from langfuse_jax.evaluation.scoring import Failed, Score
    from langfuse_jax.metrics.table import Metric

    Column = Metric | LanguageScore
    Language = tuple[Clip, TextEmbeddings]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate_folders` found.

    Attributes:
      table: the scores.
      left_out: a line for each scene that is not in the table.
      about: what a JSON file says beside the scores.
    """

    table: ScoreTable
    left_out: list[str]
    about: dict[str, Any]

    @property
    def title(self) -> str:
        """How many images were scored, and by which convention."""
        count = len(self.table.images)
        return f"{count} image{'s' * (count > 1)}, convention {self.about['convention']}"

    def _repr_html_(self) -> str:
        """For a notebook: the table under its title, and what it leaves out."""
        left_out = html_table([[line] for line in self.left_out], title="left out") if self.left_out else ""
        return f"<p>{escape(self.title)}</p>{self.table._repr_html_()}{left_out}"


def evaluate_folders(
    fused: Mapping[str, str | os.PathLike],
    visible: str | os.PathLike,
    infrared: str | os.PathLike,
    *,
    metrics: Sequence[str] | Literal["all"] | None = None,
    convention: str = "cddfuse",
    load_language: "Callable[[], Language | None] | None" = None,
    outputs: Mapping[str, str | os.PathLike] | None = None,
    strict: bool = False,
    pair_by: Convention | None = None,
    alignment: "Alignment | Mapping[str, Alignment] | None" = None,
    to: Literal["visible", "infrared"] = "visible",
    outside: Literal["crop", "visible"] = "crop",
) -> Evaluation:
    """Scores the fused images of one or several methods, whose files match those of the sources by stem.

    A scene that one folder lacks, or that cannot be read, is reported in a line on stderr and left out for all methods.

    Args:
        fused: by method, the folder of its images; or a file, where `visible` and `infrared` are files too.
        metrics: names out of `metrics.METRICS`, or "all"; by default the nine `metrics.USUAL`.
        convention: see `metrics.evaluate`.
        load_language: gives the CLIP and the sentences of language scores; called once all else is known to be right.
        outputs: files to write, by their kinds "csv", "json", "markdown", "latex" and "plot".
        strict: raise UserError for the first scene to be left out.
        pair_by: how the files of the sources are named; by default it is found out, see `images.pairs.match_pairs`.

        alignment, to, outside: those with which the images were fused, see `inference.folders.fuse_folders`.

    Raises:
        UserError: for paths, metrics or outputs that are wrong, and where no scene can be scored; BadPixels, one of its
            kind, for images that hold NaN or values out of range.

    Example::

        result = evaluate_folders({"mine": "FUSED", "other": "OTHER"}, "VIS", "IR", convention="corrected")
        print(as_text(result.table))
    """
    scenes, problems = _scenes(fused, visible, infrared, pair_by)
    files = {kind: Path(path) for kind, path in (outputs or {}).items()}
    check_outputs(files, scenes, [Path(path) for path in (*fused.values(), visible, infrared)])
    left_out: list[str] = []

    def leave_out(problem: str) -> None:
        if strict:
            raise UserError(f"{problem} (--strict)")
        write_beside(f"langfuse-jax: {one_line(problem)}")
        left_out.append(problem)

    def failed(scene: FusedPair, error: UserError) -> None:
        if isinstance(error, BadPixels) or len(scenes) == 1:  # a method that writes such pixels has no honest mean
            raise error
        leave_out(f"{error}; {scene.stem} is left out")

    for problem in problems:
        leave_out(problem)
    reading = Reading(alignment=alignment, to=to, outside=outside)
    sizes = scan_sizes(scenes, failed, reading)
    names = _metric_names(metrics)
    language = load_language() if load_language else None
    columns, score = _columns(names, convention, language)
    sizes = _large_enough(sizes, names, failed)
    stems, values = _score_all(sizes, score, tuple(columns), failed, reading)
    directions = {name: column.higher_is_better for name, column in columns.items()}
    about: dict[str, Any] = {}
    if language:
        text = language[1]
        about["clip"] = {"name": text.model, "fingerprint": text.fingerprint, "prompts": text.prompts}
    described = {
        name: {"title": column.title, "unit": column.unit, "higher_is_better": column.higher_is_better}
        for name, column in columns.items()
    }
    about |= {"program": f"langfuse-jax {__version__}", "convention": convention, "metrics": described}
    about |= {"images": len(stems), "left_out": left_out}
    result = Evaluation(ScoreTable(tuple(fused), stems, directions, values), left_out, about)
    write_outputs(files, result.table, about, result.title)
    return result


def _scenes(
    fused: Mapping[str, str | os.PathLike],
    visible: str | os.PathLike,
    infrared: str | os.PathLike,
    pair_by: Convention | None,
) -> tuple[list[FusedPair], list[str]]:
    """The scenes to score, and a line for each that is not in all folders."""
    given = {f"--fused {path}": path for path in fused.values()}
    given |= {f"--visible {visible}": visible, f"--infrared {infrared}": infrared}
    for flag, path in given.items():
        if not os.path.exists(path):
            raise UserError(f"{flag}: no such file or folder; check the path")
    kinds = {flag: os.path.isdir(path) for flag, path in given.items()}
    if len(set(kinds.values())) > 1:
        folder = next(flag for flag, is_folder in kinds.items() if is_folder)
        file = next(flag for flag, is_folder in kinds.items() if not is_folder)
        raise UserError(f"{file}: is a file and {folder} a folder; give files or folders throughout")
    if all(kinds.values()):
        return match_fused(fused, visible, infrared, pair_by)
    if pair_by:
        raise UserError("--pair-by: is for folders of images; leave it out with single images")
    if os.path.samefile(visible, infrared):
        raise UserError(f"{visible}: is given as both the visible and the infrared image; they must differ")
    stem = Path(visible).stem
    return [FusedPair(stem, Path(visible), Path(infrared), tuple(map(Path, fused.values())))], []


def _metric_names(metrics: Sequence[str] | None) -> tuple[str, ...]:
    from langfuse_jax.metrics import METRICS, USUAL

    if not metrics:
        return USUAL
    if metrics == "all":
        return tuple(METRICS)
    for name in metrics:
        if name not in METRICS:
            raise UserError(f"--metrics {name}: is none of {', '.join(METRICS)}; or give all")
    return tuple(dict.fromkeys(metrics))


def _columns(names: tuple[str, ...], convention: str, language: "Language | None") -> "tuple[dict[str, Column], Score]":
    """What each column of the table is, by its name, and the function that computes them all."""
    from langfuse_jax.metrics import METRICS, evaluate

    columns: dict[str, Column] = {name: METRICS[name] for name in names}
    language_score = None
    if language:
        from langfuse_jax.evaluation.language import LANGUAGE_SCORES, score_language

        columns |= LANGUAGE_SCORES
        language_score = score_language(*language)

    def score(fused: Levels, visible: Levels, infrared: Levels, sizes: Sizes) -> dict[str, Any]:
        scores = evaluate(fused, visible, infrared, sizes=sizes, metrics=names, convention=convention)
        return {**scores, **(language_score(fused, visible, infrared, sizes) if language_score else {})}

    return columns, score


def _large_enough(
    sizes: Mapping[FusedPair, Size | None], names: Sequence[str], failed: "Failed"
) -> dict[FusedPair, Size | None]:
    """The scenes, by their sizes, on which every metric is defined; the others go to `failed`."""
    from langfuse_jax.metrics import METRICS

    min_side, name = max((METRICS[name].min_side, name) for name in names)
    kept = {}
    for scene, size in sizes.items():
        if size and min(size) < min_side:
            side = f"{size[1]}x{size[0]} pixels, and {name} needs {min_side} a side"
            failed(scene, UserError(f"{scene.visible}: is {side}; choose other --metrics"))
        else:
            kept[scene] = size
    return kept


def _score_all(
    sizes: Mapping[FusedPair, Size | None],
    score: "Score",
    columns: Sequence[str],
    failed: "Failed",
    reading: Reading,
) -> tuple[list[str], Float64[np.ndarray, "methods images columns"]]:
    """Stems, sorted, and their scores."""
    from langfuse_jax.evaluation.scoring import score_scenes

    scored = {}
    with progress_bar(len(sizes), unit="image") as progress:

        def failed_to_read(scene: FusedPair, error: UserError) -> None:
            failed(scene, error)
            progress.update()

        for scene, results in score_scenes(sizes, score, failed_to_read, reading):
            scored[scene.stem] = [[result[name] for name in columns] for result in results]
            progress.update()
    if not scored:
        raise UserError("no image could be scored, see above; mend or choose others")
    stems = sorted(scored)
    return stems, np.array([scored[stem] for stem in stems], np.float64).swapaxes(0, 1)

"""`langfuse-jax evaluate`: fused images of one or several methods scored against their sources."""

import argparse
import os
import sys
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from langfuse_jax._version import __version__
from langfuse_jax.commands.flags import add_compilation_cache
from langfuse_jax.errors import BadPixels, UserError
from langfuse_jax.evaluation.plot import FORMATS, draw, load_matplotlib
from langfuse_jax.evaluation.table import ScoreTable, as_csv, as_json, as_latex, as_markdown, as_text
from langfuse_jax.images.pairs import FusedPair, match_fused, scan_sizes
from langfuse_jax.runtime.atomic import atomic_write, check_writable

_OUTPUTS = ("csv", "json", "markdown", "latex", "plot")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the sub-command."""
    parser.description = (
        "Scores of fused images, each and as mean +- standard deviation (population); several methods side "
        "by side with ranks. Images match by file stem, whatever their endings. Colour images are compared on Y (luma, "
        "BT.601), and all are rounded to 8 bits. A scene that one folder lacks or that cannot be read is named and "
        "left out for all methods, and the exit status is 1."
    )
    parser.add_argument(
        "--fused",
        metavar="[NAME=]F",
        required=True,
        action="append",
        help="fused image, or a folder of them; once for each method (its name: that of the folder)",
    )
    parser.add_argument("--visible", metavar="A", required=True, help="visible image, or a folder of them")
    parser.add_argument("--infrared", metavar="B", required=True, help="infrared image, or a folder of them")
    parser.add_argument(
        "--metrics", metavar="M,M", help="names such as EN,SD,VIF, or all (default: EN,SD,SF,AG,MI,SCD,VIF,Qabf,SSIM)"
    )
    parser.add_argument(
        "--convention",
        choices=("cddfuse", "tang", "vifb", "corrected"),
        default="cddfuse",
        help="which published script the numbers equal (cddfuse), or corrected: without their bugs, for new work",
    )
    for kind, what in (
        ("csv", "a row for each method and image, then mean, std and rank"),
        ("json", "everything"),
        ("markdown", "tables of the means and of all images"),
        ("latex", "a tabular of the means for booktabs"),
    ):
        parser.add_argument(f"--{kind}", metavar="FILE", help=f"write {what}")
    parser.add_argument(
        "--plot", metavar="FILE.png", help="draw bars of the means, as .png, .pdf or .svg (needs the extra [plot])"
    )
    parser.add_argument("--strict", action="store_true", help="end with status 2 at the first scene to be left out")
    parser.add_argument(
        "--language",
        action="store_true",
        help="also score towards sentences in CLIP space; each of the next five flags implies it",
    )
    parser.add_argument("--clip", metavar="C", help="CLIP folder or hub id (default: the compact CLIP)")
    parser.add_argument("--text", metavar="FILE.npz", help="sentences encoded by `langfuse-jax embed`")
    for role in ("goal", "visible-text", "infrared-text"):
        name = role.removesuffix("-text")
        parser.add_argument(
            f"--{role}", metavar="TEXT", action="append", help=f"{name} sentence instead of the usual one; repeatable"
        )
    add_compilation_cache(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the sub-command: 0 when all images are scored, 1 when some are left out; else raises UserError."""
    methods = _methods(args.fused)
    scenes, problems = _scenes(methods, args)
    outputs = _outputs(args, scenes)
    left_out = []

    def leave_out(problem):
        if args.strict:
            raise UserError(f"{problem} (--strict)")
        tqdm.write(f"langfuse-jax: {problem}", file=sys.stderr)
        left_out.append(problem)

    def failed(scene, error):
        if isinstance(error, BadPixels) or len(scenes) == 1:  # a method that writes such pixels has no honest mean
            raise error
        leave_out(f"{error}; {scene.stem} is left out")

    for problem in problems:
        leave_out(problem)
    sizes = scan_sizes(scenes, failed)
    columns, score, about = _scores(args)
    sizes = _large_enough(sizes, columns, failed)
    stems, values = _score_all(sizes, score, columns, failed)
    directions = {name: record.higher_is_better for name, record in columns.items()}
    table = ScoreTable(tuple(methods), stems, directions, values)
    title = f"{len(stems)} image{'s' * (len(stems) > 1)}, convention {args.convention}"
    about |= {"images": len(stems), "left_out": left_out}
    for kind, path in outputs.items():
        content = _FILES[kind](table, about, title, path)
        with atomic_write(path) as file:
            file.write(content if kind == "plot" else content.encode(errors="surrogateescape"))
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every terminal has arrows
    print(f"{title}\n\n{as_text(table)}", end="")
    if outputs:
        print(f"\nwrote {', '.join(map(str, outputs.values()))}")
    if left_out:
        print(f"langfuse-jax: {len(left_out)} left out, see above; exit status 1", file=sys.stderr)
    return 1 if left_out else 0


def _large_enough(sizes, columns, failed):
    """The scenes, by their sizes, on which every column is defined; the others go to `failed`."""
    least, name = max((getattr(record, "least", 0), name) for name, record in columns.items())
    kept = {}
    for scene, size in sizes.items():
        if size and min(size) < least:
            side = f"{size[1]}x{size[0]} pixels, and {name} needs {least} a side"
            failed(scene, UserError(f"{scene.visible}: is {side}; choose other --metrics"))
        else:
            kept[scene] = size
    return kept


def _score_all(sizes, score, columns, failed):
    """Stems, sorted, and their scores, (methods, images, columns)."""
    from langfuse_jax.evaluation.scoring import score_scenes

    scored = {}
    with tqdm(total=len(sizes), disable=None, unit="image") as progress:

        def failed_to_read(scene, error):
            failed(scene, error)
            progress.update()

        for scene, results in score_scenes(sizes, score, failed_to_read):
            scored[scene.stem] = [[result[name] for name in columns] for result in results]
            progress.update()
    if not scored:
        raise UserError("no image could be scored, see above; mend or choose others")
    stems = sorted(scored)
    return stems, np.array([scored[stem] for stem in stems], np.float64).swapaxes(0, 1)


_FILES: dict[str, Callable] = {
    "csv": lambda table, about, title, path: as_csv(table),
    "json": lambda table, about, title, path: as_json(table, about),
    "markdown": lambda table, about, title, path: as_markdown(table),
    "latex": lambda table, about, title, path: f"% {title}, mean and standard deviation\n{as_latex(table)}",
    "plot": lambda table, about, title, path: draw(table, title, path.suffix[1:].lower()),
}


def _methods(arguments):
    """The paths of --fused by the names of the methods: of NAME=PATH, else of the folder (or the file's stem)."""
    methods: dict[str, str] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals or not name or os.sep in name or os.path.exists(argument):
            path, folder = argument, Path(argument).resolve()
            name = folder.name if folder.is_dir() else folder.stem
        if not os.path.exists(path):
            raise UserError(f"--fused {path}: no such file or folder; check the path")
        if name in methods:
            raise UserError(f"--fused {methods[name]} and {path}: are both named {name}; give --fused NAME={path}")
        methods[name] = path
    return methods


def _scenes(methods, args):
    """The scenes to score, and a line for each that is not in all folders."""
    flags = {f"--fused {path}": path for path in methods.values()}
    sources = {f"--visible {args.visible}": args.visible, f"--infrared {args.infrared}": args.infrared}
    for flag, path in sources.items():
        if not os.path.exists(path):
            raise UserError(f"{flag}: no such file or folder; check the path")
    kinds = {flag: os.path.isdir(path) for flag, path in (flags | sources).items()}
    if len(set(kinds.values())) > 1:
        folder = next(flag for flag, is_folder in kinds.items() if is_folder)
        file = next(flag for flag, is_folder in kinds.items() if not is_folder)
        raise UserError(f"{file}: is a file and {folder} a folder; give files or folders throughout")
    if all(kinds.values()):
        return match_fused(methods, args.visible, args.infrared)
    if os.path.samefile(args.visible, args.infrared):
        raise UserError(f"{args.visible}: is given as both the visible and the infrared image; they must differ")
    visible, infrared = Path(args.visible), Path(args.infrared)
    return [FusedPair(visible.stem, visible, infrared, tuple(map(Path, methods.values())))], []


def _outputs(args, scenes):
    """The files to write by their kinds; refused now rather than after the work, as far as can be seen."""
    outputs = {kind: Path(path) for kind in _OUTPUTS if (path := getattr(args, kind))}
    taken = {os.path.realpath(path) for scene in scenes for path in (scene.visible, scene.infrared, *scene.fused)}
    for kind, path in outputs.items():
        if path.is_dir():
            raise UserError(f"--{kind} {path}: is a folder; give a file's name")
        if os.path.realpath(path) in taken:
            raise UserError(f"--{kind} {path}: is another file of this command; choose another name")
        taken.add(os.path.realpath(path))
        check_writable(path.parent, f"--{kind}")
    if plot := outputs.get("plot"):
        if plot.suffix[1:].lower() not in FORMATS:
            raise UserError(f"--plot {plot}: is of no known kind; end it in .{', .'.join(FORMATS)}")
        load_matplotlib()
    return outputs


def _scores(args):
    """Records of the columns by name, the function that computes them, and what the JSON file is to say of them."""
    # JAX: not before the flags are known to be right.
    from langfuse_jax.metrics import METRICS, USUAL, evaluate
    from langfuse_jax.runtime.compilation import keep_programs

    names = tuple(METRICS) if args.metrics == "all" else USUAL
    if args.metrics and args.metrics != "all":
        names = tuple(dict.fromkeys(name.strip() for name in args.metrics.split(",")))
        if unknown := [name for name in names if name not in METRICS]:
            raise UserError(f"--metrics {unknown[0]}: is none of {', '.join(METRICS)}; or give all")
    keep_programs(args.compilation_cache)
    columns: dict[str, Any] = {name: METRICS[name] for name in names}
    embed, about = _language(args)

    def score(fused, visible, infrared, sizes):
        scores = evaluate(fused, visible, infrared, sizes=sizes, metrics=names, convention=args.convention)
        return {**scores, **(embed(fused, visible, infrared, sizes) if embed else {})}

    if embed:
        from langfuse_jax.evaluation.language import LANGUAGE_SCORES

        columns |= LANGUAGE_SCORES
    told = {
        name: {"title": c.title, "unit": c.unit, "higher_is_better": c.higher_is_better} for name, c in columns.items()
    }
    about |= {"program": f"langfuse-jax {__version__}", "convention": args.convention, "metrics": told}
    return columns, score, about


def _language(args):
    """The function that computes language scores, if they are asked for, and what is to be told of them."""
    sentences = {"goal": args.goal, "visible": args.visible_text, "infrared": args.infrared_text}
    if not (args.language or args.clip or args.text or any(sentences.values())):
        return None, {}
    if args.text and any(sentences.values()):
        raise UserError(
            f"--text {args.text}: holds the sentences already; leave out --goal, --visible-text, --infrared-text"
        )
    import jax

    from langfuse_jax.clip.pretrained import Clip
    from langfuse_jax.clip.words import TextEmbeddings, embed
    from langfuse_jax.evaluation.language import embed_images, language_scores

    text = TextEmbeddings.load(args.text) if args.text else None
    clip = Clip.load(args.clip)
    if text:
        text.check(clip)
    else:
        text = embed(clip, **{role: given for role, given in sentences.items() if given})
    compiled = jax.jit(language_scores)

    def scores(fused, visible, infrared, sizes):
        images, rows = np.concatenate([fused, visible, infrared]), np.concatenate([sizes] * 3)
        embeddings = embed_images(clip.vision, clip.params["vision"], images, rows)
        return compiled(*embeddings.reshape(3, len(fused), -1), text.words)

    return scores, {"clip": {"name": text.model, "fingerprint": text.fingerprint, "prompts": text.prompts}}

"""`langfuse-jax demo`: a page to upload a pair on, see it fused, compare, read the metrics and download the result.

It fuses towards the default sentence: there is no field for another one.
"""

import argparse
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langfuse_jax.commands.flags import add_compilation_cache, add_model
from langfuse_jax.errors import UserError

if TYPE_CHECKING:
    from langfuse_jax.images.pairs import Pair
    from langfuse_jax.inference.fuser import Fuser

MAX_BYTES = 32 * 2**20  # of an uploaded file
MAX_PIXELS = 4_000_000  # of an image: a few seconds and gigabytes on a CPU
WAITING = 16  # jobs; one more is refused for now
_TABLE_HEAD = "| metric | | fused | average |\n|---|---|--:|--:|\n"
_NO_VISIBLE = "Give a visible image: the upper left field is empty."
_NO_INFRARED = "Give an infrared image: the upper right field is empty."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the sub-command."""
    parser.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="address to serve on (127.0.0.1)")
    parser.add_argument("--port", metavar="N", type=int, help="port to serve on (the first free one from 7860)")
    parser.add_argument("--checkpoint", metavar="DIR", help="trained model (default: the weights in the package)")
    add_model(parser)
    add_compilation_cache(parser)


def run(args: argparse.Namespace) -> int:
    """`langfuse-jax demo`: serves the page until it is interrupted. Raises UserError for what keeps it from starting.

    What is uploaded and fused lies in a temporary folder that is removed at the end. The page speaks to its own server
    alone: no usage statistics, no fonts or scripts of others, no public link.
    """
    if args.port is not None and not 1 <= args.port <= 65535:
        raise UserError(f"--port {args.port}: is no port; choose one from 1024 to 65535")
    with tempfile.TemporaryDirectory(prefix="langfuse_jax_demo_") as folder:
        # Gradio reads these when it is imported.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
        try:
            import gradio  # noqa: F401
        except ImportError as error:
            raise UserError('demo: needs gradio; run pip install "langfuse-jax[demo]"') from error
        from langfuse_jax.inference.fuser import Fuser
        from langfuse_jax.runtime.compilation import keep_programs

        keep_programs(args.compilation_cache)
        page = build_page(Fuser.load(args.checkpoint, model=args.model), Path(folder))
        try:
            page.launch(
                server_name=args.host,
                server_port=args.port,
                share=False,
                max_file_size=MAX_BYTES,
                footer_links=[],
                run_history=False,
                show_error=True,
                ssr_mode=False,
                css="#metrics :is(th, td) { overflow-wrap: normal; word-break: normal; }",
                quiet=True,
                prevent_thread_lock=True,
            )
        except OSError as error:
            raise UserError(
                f"--host {args.host} --port {args.port or '7860 to 7959'}: cannot be served (the port is taken, or the "
                "address is none of this machine); choose another"
            ) from error
        print(f"{page.local_url} shows the page; Ctrl-C ends it", flush=True)
        if args.host not in ("127.0.0.1", "localhost", "::1"):
            print(f"--host {args.host}: whoever reaches this machine can use it; there is no password", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the folder is removed then too
        try:
            page.block_thread()
        finally:
            page.close(verbose=False)
    return 0


def build_page(fuser: "Fuser", folder: Path) -> Any:
    """The page as a `gradio.Blocks`; `fuser` (a `Fuser`) does one job at a time, and files are kept in `folder`."""
    import gradio as gr

    def run(visible: str | None, infrared: str | None) -> Iterator[tuple[tuple[str, str], Any, str]]:
        try:
            for result, after, table in fuse_upload(fuser, visible, infrared, folder):
                yield result, gr.DownloadButton(value=after, interactive=True), table
        except UserError as error:
            raise gr.Error(_without_folders(error, visible, infrared), duration=30, print_exception=False) from error

    example = _write_example(folder)
    with gr.Blocks(title="langfuse_jax", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(
            "# Infrared-visible image fusion\n"
            "A visible and an infrared image of the same scene, registered and of one size, become one. "
            f"At most {MAX_BYTES // 2**20} MiB a file and {MAX_PIXELS / 1e6:.0f} megapixels an image. "
            "The first pair of a size takes some seconds longer: its program is compiled."
        )
        with gr.Row():
            options = {"sources": ["upload", "clipboard"], "type": "filepath", "height": 260}
            visible = gr.Image(label="Visible", elem_id="visible", **options)
            infrared = gr.Image(label="Infrared", elem_id="infrared", **options)
        for source in (visible, infrared):
            # The file reaches this package unread: its readers know 16 bits, and say better what is wrong.
            source.preprocess = lambda payload: payload and payload.path
        gr.Examples([example], [visible, infrared], label="An example, drawn by the package", cache_examples=False)
        button = gr.Button("Fuse", variant="primary", elem_id="fuse")
        with gr.Row():
            with gr.Column(scale=3):
                slider = gr.ImageSlider(label="Visible | fused", type="filepath", interactive=False, elem_id="result")
                download = gr.DownloadButton("Download the fused image (PNG)", interactive=False, elem_id="download")
            with gr.Column(scale=2):
                gr.Markdown(
                    "Metrics, as `langfuse-jax evaluate` has them: on luma, 8 bits, convention cddfuse; "
                    "and those of the plain average of the two, to compare with"
                )
                table = gr.Markdown(elem_id="metrics")
        button.click(run, [visible, infrared], [slider, download, table], concurrency_limit=1)
    page.queue(default_concurrency_limit=1, max_size=WAITING, api_open=False)
    return page


def fuse_upload(
    fuser: "Fuser", visible: str | None, infrared: str | None, folder: Path
) -> Iterator[tuple[tuple[str, str], str, str]]:
    """What the page shows of two uploaded files, twice: before its metrics are computed and with them.

    Args:
        fuser: a `Fuser`.
        visible, infrared: paths; None where nothing was uploaded.
        folder: where the pictures are written, in a new folder.

    Yields:
        The PNGs of visible and fused image, the latter's path again, and the table of metrics as Markdown.
        Raises UserError for a missing, unreadable or too large image, and for sizes that differ.
    """
    from langfuse_jax.images.files import header_size, write_png, ycbcr_to_rgb
    from langfuse_jax.images.pairs import Pair, read_pair

    if not visible:
        raise UserError(_NO_VISIBLE)
    if not infrared:
        raise UserError(_NO_INFRARED)
    if os.path.samefile(visible, infrared):
        raise UserError("the visible and the infrared image are one file; choose two")
    pair = Pair(Path(visible).stem, Path(visible), Path(infrared))
    for path in pair[1:]:
        height, width = header_size(path) or (0, 0)
        if height * width > MAX_PIXELS:
            raise UserError(
                f"{path}: is {width}x{height}, over {MAX_PIXELS / 1e6:.0f} megapixels; make it smaller, or fuse it "
                "with the command `langfuse-jax fuse`"
            )
    luma, chroma, thermal = read_pair(pair)
    gray = fuser(luma, thermal)
    made = Path(tempfile.mkdtemp(dir=folder))
    before, after = made / f"{pair.stem}.png", made / f"{pair.stem}_fused.png"
    for path, image in ((before, luma), (after, gray)):
        write_png(path, image if chroma is None else ycbcr_to_rgb(image, chroma))
    shown = (str(before), str(after)), str(after)
    yield *shown, "computing ..."
    yield *shown, metric_table(pair, after)


def metric_table(pair: "Pair", fused: Path) -> str:
    """The usual metrics of a fused file and of the plain average as a Markdown table.

    The numbers are those of `langfuse-jax evaluate`.
    """
    import numpy as np

    from langfuse_jax.evaluation.scoring import read_gray_scene
    from langfuse_jax.images.files import to_uint8
    from langfuse_jax.images.pairs import FusedPair
    from langfuse_jax.metrics import METRICS, USUAL, evaluate

    visible, infrared, image = read_gray_scene(FusedPair(pair.stem, pair.visible, pair.infrared, (fused,)))
    average = to_uint8((visible / 510 + infrared / 510).astype(np.float32))
    scores = evaluate(*(np.stack(images) for images in ((image, average), (visible,) * 2, (infrared,) * 2)))
    rows = []
    for name in USUAL:
        arrow = "↑" if METRICS[name].higher_is_better else "↓"
        ours, theirs = (f"{float(value):.3f}" for value in np.asarray(scores[name]))
        rows.append(f"| {name} {arrow} | {METRICS[name].title} | {ours} | {theirs} |\n")
    return _TABLE_HEAD + "".join(rows)


def _write_example(folder: Path) -> list[str]:
    from langfuse_jax.examples.night_scene import night_scene
    from langfuse_jax.images.files import write_png

    paths = []
    for role, image in zip(("visible", "infrared"), night_scene(), strict=True):
        paths.append(str(folder / f"example_{role}.png"))
        write_png(paths[-1], image)
    return paths


def _without_folders(error: UserError, *paths: str | None) -> str:
    """An error's line with the names that the user's files had, not the server's folders."""
    message = str(error)
    for path in filter(None, paths):
        message = message.replace(str(path), Path(path).name)
    return message

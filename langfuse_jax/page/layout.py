"""The page itself: its fields, and which of them asks the studio for what."""

import os
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from langfuse_jax.clip.words import EXAMPLE_GOALS
from langfuse_jax.examples.night_scene import night_scene
from langfuse_jax.images.files import write_png
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.page.load import MAX_BYTES, MAX_PIXELS
from langfuse_jax.page.many import MAX_PAIRS, fuse_many
from langfuse_jax.page.mistakes import Mistake
from langfuse_jax.page.sentences import MOST_STRENGTH
from langfuse_jax.page.studio import Result, Studio, Wish
from langfuse_jax.page.table import as_html, scores
from langfuse_jax.page.views import FUSED, VISIBLE

WAITING = 16  # jobs; one more is refused for now
_NOTES = ("visible", "infrared", "align", "goal", "metrics", "many")
_DEFAULT_GOAL = "a clear image with detailed background and salient objects"


def build_page(fuser: Fuser, folder: Path) -> Any:
    """The page as a `gradio.Blocks`; `fuser` does one job at a time, and files are kept in `folder`."""
    import gradio as gr

    studio = Studio(fuser, folder)
    steered = studio.sentences.followed
    with gr.Blocks(title="langfuse_jax", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(
            "# Infrared-visible image fusion\n"
            "A visible and an infrared image of the same scene become one"
            + (", as a sentence says. " if steered else ". ")
            + f"At most {MAX_BYTES // 2**20} MiB a file and {MAX_PIXELS / 1e6:.0f} megapixels an image. "
            "The first pair of a size takes some seconds longer: its program is compiled."
        )
        notes = {}

        def note(name: str) -> None:
            notes[name] = gr.HTML(elem_id=f"{name}_note", elem_classes="note", padding=False)

        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                with gr.Row():
                    fields = []
                    for name in ("visible", "infrared"):
                        with gr.Column(min_width=150):
                            fields.append(_image_field(gr, name))
                            note(name)
                visible, infrared = fields
                example = gr.Button("Take the example pair", size="sm", elem_id="example")
                align = gr.Checkbox(
                    label="Align the two first",
                    info="they differ in size, or do not lie over each other",
                    elem_id="align",
                )
                note("align")
                goal = gr.Textbox(
                    label="Goal: what the picture should be like",
                    placeholder=_DEFAULT_GOAL,
                    max_lines=1,
                    max_length=400,
                    visible=steered,
                    elem_id="goal",
                )
                note("goal")
                goals = gr.Dataset(
                    label="Goals to click",
                    components=[goal],
                    samples=[[sentence] for sentence in EXAMPLE_GOALS],
                    visible=steered,
                    elem_id="goals",
                )
                button = gr.Button("Fuse", variant="primary", elem_id="fuse")
                strength = gr.Slider(
                    0,
                    MOST_STRENGTH,
                    1,
                    step=0.05,
                    label="Strength of the goal",
                    info="0: the default picture, 1: the goal, beyond: exaggerated",
                    visible=steered,
                    elem_id="strength",
                )
                colour = gr.Checkbox(True, label="Keep the colours of the visible image", elem_id="colour")
            with gr.Column(scale=3, min_width=320):
                viewer = gr.ImageSlider(label="Wipe", type="filepath", interactive=False, elem_id="result")
                with gr.Row():
                    sides = {"label": "Left of the wipe", "value": VISIBLE}, {"label": "Right of it", "value": FUSED}
                    left, right = (
                        gr.Dropdown(studio.views(), filterable=False, min_width=200, elem_id=name, **options)
                        for name, options in zip(("left", "right"), sides, strict=True)
                    )
                legend = gr.HTML(elem_id="legend", elem_classes="note", padding=False)
                download = gr.DownloadButton("Download the fused image (PNG)", interactive=False, elem_id="download")
                ask = gr.Button("Compute its metrics", interactive=False, elem_id="ask")
                note("metrics")
                table = gr.HTML(elem_id="metrics", padding=False)
        with gr.Accordion(f"Many pairs at once: up to {MAX_PAIRS}, a ZIP back", open=False, elem_id="many"):
            gr.Markdown(
                "Files of a pair are named alike: `7.jpg` and `7.png`, or `7_vi.jpg` and `7_ir.png`. Or give one ZIP "
                "with the folders `visible` and `infrared`. The choices above "
                + ("(goal, strength, colours, alignment) hold." if steered else "(colours, alignment) hold.")
            )
            with gr.Row():
                many = [
                    gr.Files(label=label, height=140, elem_id=f"many_{name}")
                    for name, label in (("visible", "Visible images, or a ZIP"), ("infrared", "Infrared images"))
                ]
            many_button = gr.Button("Fuse them all", elem_id="many_fuse")
            note("many")
            many_download = gr.DownloadButton("Download the ZIP", interactive=False, elem_id="many_download")

        kept = gr.State()
        wishes = [visible, infrared, align, goal, strength, colour, left, right]
        pair_notes = [name for name in _NOTES if name != "many"]  # what is said of many pairs stays beside their ZIP
        shown = [viewer, legend, download, ask, table, kept, *(notes[name] for name in pair_notes)]

        def outcome(result: Result | None, said: dict[str, str]) -> list[Any]:
            """The values of `shown`: whatever is not of this result is emptied."""
            there = result is not None
            return [
                (result.left, result.right) if result else None,
                _note([result.legend], "plain") if result else "",
                gr.DownloadButton(value=result.fused if result else None, interactive=there),
                gr.Button(interactive=there),
                "",
                result,
                *(said.get(name, "") for name in pair_notes),
            ]

        def fuse(*values: Any) -> list[Any]:
            try:
                result = studio.fuse(Wish(*values))
            except Mistake as mistake:
                return outcome(None, {mistake.field: _note([str(mistake)], "mistake")})
            return outcome(result, _remarks(result, Wish(*values)))

        def live(*values: Any) -> list[Any]:
            """As `fuse`, where there is a pair."""
            return fuse(*values) if values[0] and values[1] else [gr.skip()] * len(shown)

        def click_goal(sample: Sequence[str], *values: Any) -> list[Any]:
            wish = Wish(*values)._replace(goal=sample[0])
            return [sample[0], *live(*wish)]

        def clear() -> list[Any]:
            return outcome(None, {})

        def count(result: Result | None) -> tuple[str, str]:
            if result is None:
                return "", ""
            try:
                return as_html(scores(result)), ""
            except Mistake as mistake:
                return "", _note([str(mistake)], "mistake")

        def fuse_all(
            first: list[str] | None,
            second: list[str] | None,
            *values: Any,
            progress: Any = gr.Progress(),  # noqa: B008
        ) -> tuple[Any, str]:
            wish = Wish(None, None, *values)
            chosen: dict[str, Any] = wish._asdict()
            chosen = {name: chosen[name] for name in ("goal", "strength", "colour", "align")}

            def advance(done: int, of: int) -> None:
                progress((done, of), unit="pairs")

            try:
                done = fuse_many(studio.sentences, first or [], second or [], folder, **chosen, progress=advance)
            except Mistake as mistake:
                return gr.DownloadButton(value=None, interactive=False), _note([str(mistake)], "mistake")
            said = _note([f"{done.fused} of {done.pairs} pairs fused."], "verdict") + _note(done.failed, "mistake")
            return gr.DownloadButton(value=str(done.path), interactive=True), said

        one = {"concurrency_id": "fuser", "concurrency_limit": 1}
        button.click(fuse, wishes, shown, **one)
        quick: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", **one}
        for event in (strength.input, colour.input, left.input, right.input, goal.submit):
            event(live, wishes, shown, **quick)
        align.input(live, wishes, shown, **one)
        goals.click(click_goal, [goals, *wishes], [goal, *shown], **quick)
        for source in (visible, infrared):
            source.change(clear, None, shown, queue=False, show_progress="hidden")
        example.click(_example(folder), None, [visible, infrared], queue=False)
        ask.click(count, kept, [table, notes["metrics"]], **one)
        many_button.click(fuse_all, [*many, *wishes[2:]], [many_download, notes["many"]], **one)
    page.queue(default_concurrency_limit=1, max_size=WAITING, api_open=False)
    return page


def _image_field(gr: Any, name: str) -> Any:
    """A field for an image, whose file reaches this package unread: its readers know 16 bits, and say what is wrong."""
    field = gr.Image(
        label=name.capitalize(), elem_id=name, sources=["upload", "clipboard"], type="filepath", height=190
    )
    field.preprocess = lambda payload: payload and payload.path
    return field


def _example(folder: Path) -> Callable[[], list[str]]:
    """What gives the paths of the drawn pair."""
    paths = [str(folder / f"example_{role}.png") for role in ("visible", "infrared")]
    scene = night_scene()

    def write() -> list[str]:
        for path, image in zip(paths, scene, strict=True):
            if not os.path.exists(path):  # the server removes old files
                write_png(path, image)
        return paths

    return write


def _remarks(result: Result, wish: Wish) -> dict[str, str]:
    """What is said beside the fields of a pair that was fused."""
    said = {
        "infrared": _note(result.pair_remarks, "remark"),
        "align": _note(result.verdict.splitlines(), "verdict"),
        "goal": _note(result.goal_remarks, "remark"),
    }
    if not (wish.goal or "").strip() and wish.strength != 1:
        said["goal"] = _note(["The strength acts on a goal: without one this is the default picture."], "remark")
    return said


def _note(lines: Sequence[str], kind: str) -> str:
    """Lines beside a field, as HTML; `kind` is a class of the style sheet."""
    role = "alert" if kind == "mistake" else "status"
    return "".join(f'<p class="{kind}" role="{role}">{escape(line)}</p>' for line in lines if line)

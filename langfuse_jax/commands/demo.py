"""`langfuse-jax demo`: a page to upload pairs on, lead their fusion by words, compare, and download the results."""

import argparse
import os
import signal
import tempfile
from pathlib import Path

from langfuse_jax.commands.flags import add_compilation_cache, add_model
from langfuse_jax.errors import UserError


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
        raise UserError(f"--port {args.port}: is not a valid port; choose one from 1024 to 65535")
    with tempfile.TemporaryDirectory(prefix="langfuse_jax_demo_") as root:
        # Gradio copies what it shows into a folder of its own, so that a page keeps it when ours is tidied.
        served, folder = os.path.join(root, "served"), Path(root, "made")
        folder.mkdir()
        # Gradio reads these when it is imported.
        os.environ |= {"GRADIO_TEMP_DIR": served, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
        try:
            import gradio  # noqa: F401
        except ImportError as error:
            raise UserError('demo: needs gradio; run pip install "langfuse-jax[demo]"') from error
        from langfuse_jax.inference.fuser import Fuser
        from langfuse_jax.page.layout import build_page
        from langfuse_jax.page.load import MAX_BYTES
        from langfuse_jax.page.style import CSS, SCRIPT
        from langfuse_jax.runtime.compilation import keep_programs

        keep_programs(args.compilation_cache)
        page = build_page(Fuser.load(args.checkpoint, model=args.model), folder)
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
                css=CSS,
                js=SCRIPT,
                quiet=True,
                prevent_thread_lock=True,
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"--host {args.host} --port {args.port or '7860 to 7959'}: cannot listen there (the port is in "
                "use, or the address does not belong to this machine); choose another"
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

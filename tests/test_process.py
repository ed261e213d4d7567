"""Streams that are closed or full, signals, and what else a machine does to a command."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from langfuse_jax.cli import _joined, main
from langfuse_jax.errors import one_line
from langfuse_jax.images.files import write_png
from langfuse_jax.runtime import process
from langfuse_jax.runtime.atomic import atomic_write

_MAIN = [sys.executable, "-m", "langfuse_jax"]


@pytest.fixture
def evaluate(tmp_path):
    """Arguments that score two images."""
    rng = np.random.default_rng(0)
    for role in ("vi", "ir", "fused"):
        for name in ("1", "2"):
            write_png(tmp_path / role / f"{name}.png", rng.random((32, 32)))
    folders = {"visible": "vi", "infrared": "ir", "fused": "fused"}
    return ["evaluate", *(f"--{flag}={tmp_path / name}" for flag, name in folders.items()), "--metrics=SD"]


def test_libtpu_keeps_what_it_is_given_and_hears_of_no_chips(monkeypatch):
    monkeypatch.setattr(process, "_GOOGLE", "no maker")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "mine")
    monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "")
    monkeypatch.delenv("TPU_ACCELERATOR_TYPE")
    process.quiet_libtpu()
    assert os.environ["TPU_WORKER_HOSTNAMES"] == "mine" and os.environ["TPU_ACCELERATOR_TYPE"]


@pytest.mark.parametrize("redirection", ["> /dev/full", "| true", "1>&-", "2>&-", "1>&- 2>&- 0<&-"])
def test_nobody_listens_and_the_work_is_done(evaluate, tmp_path, redirection):
    out = tmp_path / "scores.csv"
    script = f"set -o pipefail; {' '.join([*_MAIN, *evaluate])} --csv {out} {redirection}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert out.read_text().startswith("method,kind,image,SD")


def test_streams_are_written_to_and_not_replaced(evaluate, tmp_path):
    fifo, link = tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to("/dev/stdout")
    script = f"cat {fifo} & {' '.join([*_MAIN, *evaluate])} --csv {fifo} --json {link} && wait"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "method,kind,image,SD" in done.stdout and '"convention": "cddfuse"' in done.stdout
    assert fifo.is_fifo() and link.is_symlink()
    assert main([*evaluate, "--csv", "/dev/full"]) == 2


def test_a_link_is_replaced_and_not_what_it_leads_to(tmp_path):
    source, link = tmp_path / "source", tmp_path / "link"
    source.write_bytes(b"old")
    link.symlink_to(source)
    with atomic_write(link) as file:
        file.write(b"new")
    assert source.read_bytes() == b"old" and link.read_bytes() == b"new" and not link.is_symlink()


@pytest.mark.parametrize("kind", ["png", "jpg", "bmp", "tiff", "webp", "csv", "npz"])
def test_nothing_is_half_written_where_the_disk_ends(tmp_path, kind):
    """A file may have four kilobytes."""
    writers = {
        "csv": "with atomic_write(path) as file: file.write(bytes(9000))",
        "npz": "with atomic_write(path) as file: np.savez(file, a=np.zeros(9000))",
    }
    write = writers.get(kind, "write_image(path, np.random.default_rng(0).random((200, 200)))")
    program = f"""if True:
        import resource, sys
        import numpy as np
        from langfuse_jax.errors import UserError
        from langfuse_jax.images.encoding import write_image
        from langfuse_jax.runtime.atomic import atomic_write
        path = sys.argv[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            {write}
        except UserError as error:
            sys.exit(f"{{error}}")
    """
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / f"a.{kind}")], capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    assert f"a.{kind}: cannot be written (File too large)" in done.stderr and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_no_command_leaves_half_an_output(tmp_path):
    """Sheets, plots, videos and exported models too, where a file may have four kilobytes."""
    program = """if True:
        import resource, sys
        from langfuse_jax.cli import main
        from langfuse_jax.examples.night_scene import write_night_scenes
        write_night_scenes("s", 2, 64, 96)
        folders = ["--visible", "s/visible", "--infrared", "s/infrared"]
        scores = ["evaluate", *folders, "--fused", "s/visible", "--metrics", "SD"]
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        for argv in (
            [*scores, "--plot", "p.png"],
            [*scores, "--plot", "p.pdf"],
            ["fuse", *folders, "--sheet", "--out", "fused"],
            ["fuse", *folders, "--video", "--crf", "0", "--out", "v.mp4"],
            ["fuse", *folders, "--video", "--codec", "ffv1", "--out", "v.mkv"],
            ["export", "--out", "e.stablehlo"],
            ["fuse", "--example", "--out", "example"],
        ):
            print(main(argv), flush=True)
    """
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["2"] * 7, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 7 and all("cannot be written (File too large)" in line for line in lines), done.stderr
    left = {path.name for path in tmp_path.rglob("*") if path.is_file() and "s" not in path.relative_to(tmp_path).parts}
    assert left <= {".langfuse_jax.json"}


def test_sigterm_removes_what_is_half_written(tmp_path):
    program = """if True:
        import os, signal, sys, time
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which the shell's background jobs ignore
        from langfuse_jax import cli
        from langfuse_jax.runtime.atomic import atomic_write

        def run(args):
            with atomic_write(args.out) as file:
                file.write(b"half")
                os.kill(os.getpid(), getattr(signal, sys.argv[2]))
                while True:  # another thread may be the one that is interrupted
                    time.sleep(0.1)

        import langfuse_jax.commands.embed as embed
        embed.run = run
        sys.exit(cli.main(["embed", "--out", sys.argv[1]]))
    """
    for name, status in (("SIGTERM", 143), ("SIGINT", 130)):
        argv = [sys.executable, "-c", program, str(tmp_path / "a.npz"), name]
        done = subprocess.run(argv, capture_output=True, text=True)
        assert done.returncode == status and "Traceback" not in done.stderr
        assert (done.stderr == "langfuse-jax: interrupted\n") == (name == "SIGINT")
        assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    program = """if True:
        import os, sys
        from langfuse_jax.runtime.atomic import atomic_write
        with atomic_write(sys.argv[1]) as file:
            os.kill(os.getpid(), 9)
    """
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "a")], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with atomic_write(tmp_path / "b") as file:
        file.write(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("name", ["JAX_PLATFORMS=potato", "JAX_ENABLE_X64=perhaps"])
def test_settings_of_jax_that_do_not_work(evaluate, name):
    variable, value = name.split("=")
    done = subprocess.run([*_MAIN, *evaluate], capture_output=True, text=True, env={**os.environ, variable: value})
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert f"{name}: JAX cannot start with it" in done.stderr


def test_negative_values_are_no_flags():
    assert _joined(["--infrared-range", "-20,40", "--gray"]) == ["--infrared-range=-20,40", "--gray"]
    assert _joined(["--out", "-x", "--bits=8", "-9"]) == ["--out", "-x", "--bits=8", "-9"]


def test_control_characters_are_shown(capsys):
    assert one_line("a\nb\t\x1b[31m é") == "a\\nb\\t\\x1b[31m é"
    assert main(["fuse", "--visible", "a\nb", "--infrared", "c", "--out", "d"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    for flag in ("--out", "--visible"):
        assert main(["fuse", "--visible=a", "--infrared=b", "--out=c", f"{flag}="]) == 2
        assert f"{flag}: is empty" in capsys.readouterr().err


def test_names_beyond_what_a_disk_holds(capsys):
    for argv in (["--visible", "v" * 300, "--infrared", "i", "--out", "o"],):
        assert main(["fuse", *argv]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_handlers_are_those_of_before():
    before = signal.getsignal(signal.SIGTERM)
    main(["fuse", "--visible", "none", "--infrared", "none", "--out", "o"])
    assert signal.getsignal(signal.SIGTERM) is before

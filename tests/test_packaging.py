"""Packages: nothing of the clone is forgotten in the sdist, the version is the same everywhere, README's links."""

import re
import runpy
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest

import langfuse_jax

ROOT = Path(__file__).resolve().parents[1]
# What setuptools takes by itself.
PACKAGED = {"langfuse_jax", "README.md", "pyproject.toml", "setup.cfg", "setup.py"}
# What lies in a folder and is not the repository's: what git ignores, git's own, and what an sdist adds.
LEFT_OUT = [*(ROOT / ".gitignore").read_text().replace("/", "").split(), ".git", "PKG-INFO"]


def top_of_the_repository():
    """What git knows; of a copy without git, what lies there."""
    try:
        known = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    except OSError:
        known = []
    names = {name.split("/")[0] for name in known} or {path.name for path in ROOT.iterdir()}
    return {name for name in names if not any(fnmatch(name, left) for left in LEFT_OUT)}


def manifest():
    lines = [line.split() for line in (ROOT / "MANIFEST.in").read_text().splitlines() if not line.startswith("#")]
    return {command: {name for first, *names in lines if first == command for name in names} for command, *_ in lines}


def test_manifest_names_all_of_the_clone():
    found = top_of_the_repository() - PACKAGED
    assert {name for name in found if (ROOT / name).is_dir()} == manifest()["graft"]
    assert {name for name in found if (ROOT / name).is_file()} == manifest()["include"]


def test_image_is_built_from_what_the_wheel_needs():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == PACKAGED | {"configs", "LICENSE"}


def test_version_is_the_same_everywhere():
    version, title = langfuse_jax.__version__, re.search(r"^## (\S+) ?(.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert title[1] == version.removesuffix(".dev0")
    assert (title[2] == "(unreleased)") == version.endswith(".dev0")
    assert title[2] == "(unreleased)" or re.fullmatch(r"\(\d{4}-\d\d-\d\d\)", title[2])


@pytest.mark.parametrize("address", ["", "https://example.org/me/langfuse_jax"])
def test_links_of_readme_are_absolute_once_there_is_an_address(address, tmp_path, monkeypatch):
    given = {}
    fake = SimpleNamespace(find_packages=lambda **_: [], setup=lambda **arguments: given.update(arguments))
    monkeypatch.setitem(sys.modules, "setuptools", fake)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (tmp_path / "README.md").write_text(readme, encoding="utf-8")
    (tmp_path / "setup.py").write_text((ROOT / "setup.py").read_text())
    (tmp_path / "setup.cfg").write_text(f"[metadata]\nurl = {address}\n")
    runpy.run_path(str(tmp_path / "setup.py"))
    links = re.findall(r"\]\(([^)]+)\)", given["long_description"])
    assert len(links) > 10
    if address:
        assert all(link.startswith("https://") for link in links)
        assert f"{address}/raw/main/docs/goals.jpg" in links and f"{address}/blob/main/docs/fusing.md" in links
    else:
        assert given["long_description"] == readme

"""Hook of mkdocs: documents outside docs/ are pages of the site too, and links of the repository work there."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# Files of the repository, and where the site has them. Those in docs/ keep their names.
ADDED = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "langfuse_jax/assets/compact_clip/README.md": "weights/compact_clip.md",
    "langfuse_jax/assets/ldfusion/README.md": "weights/ldfusion.md",
    "langfuse_jax/assets/steered/README.md": "weights/steered.md",
    **{
        path.relative_to(ROOT).as_posix(): path.relative_to(ROOT).as_posix()
        for ending in ("md", "png", "jpg")
        for path in sorted((ROOT / "benchmarks").glob(f"*.{ending}"))
    },
}
_ORIGIN = {uri: path for path, uri in ADDED.items()}
_LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the documents outside docs/."""
    for path, uri in ADDED.items():
        files.append(File.generated(config, uri, content=(ROOT / path).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrites relative links of the repository as those of the site; a file that is on neither is an error there."""
    uri = page.file.src_uri
    folder = posixpath.dirname(_ORIGIN.get(uri, f"docs/{uri}"))

    def on_site(match: re.Match[str]) -> str:
        text, (path, hash_, anchor) = match[1], match[2].partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return match[0]
        target = posixpath.normpath(posixpath.join(folder, path))
        there = target.removeprefix("docs/") if target.startswith("docs/") else ADDED.get(target)
        if there is not None:
            return f"{text}({posixpath.relpath(there, posixpath.dirname(uri) or '.')}{hash_}{anchor})"
        if not (ROOT / target).exists():
            return match[0]
        if config.repo_url:
            return f"{text}({config.repo_url.rstrip('/')}/blob/main/{target})"
        return text.lstrip("!")[1:-1]  # source files are not on the site, and the repository has no address yet

    return _LINK.sub(on_site, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Docstrings end the line before an indented block in two colons."""
    return html.replace("::</p>", ":</p>")

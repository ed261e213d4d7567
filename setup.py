"""What setup.cfg cannot say: a package that lies elsewhere, and README with links that work on a package index too."""

import configparser
import re
from pathlib import Path

from setuptools import find_packages, setup

FOLDER = Path(__file__).resolve().parent


def readme() -> str:
    """README.md; its relative links become absolute once setup.cfg has the repository's address as `url`."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    settings = configparser.ConfigParser()
    settings.read(FOLDER / "setup.cfg", encoding="utf-8")
    address = settings["metadata"].get("url", "").rstrip("/")
    if not address:
        return text
    text = re.sub(r"(!\[[^\]]*\]\()(?![a-z]+:|#)", rf"\1{address}/raw/main/", text)
    return re.sub(r"(\]\()(?![a-z]+:|#)", rf"\1{address}/blob/main/", text)


setup(
    long_description=readme(),
    packages=[*find_packages(include=["langfuse_jax*"]), "langfuse_jax.configs"],
    package_dir={"langfuse_jax.configs": "configs"},
)

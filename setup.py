"""Everything else is in setup.cfg, which cannot add a package to those that it finds."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["langfuse_jax*"]), "langfuse_jax.configs"],
    package_dir={"langfuse_jax.configs": "configs"},
)

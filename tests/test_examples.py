"""The examples in docstrings print what they say, and what users import has one."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import langfuse_jax

ROOT = Path(langfuse_jax.__file__).parent
MODULES = [
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for path in sorted(ROOT.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
PACKAGES = ("langfuse_jax", "langfuse_jax.metrics", "langfuse_jax.losses")
ENTRY_POINTS = (
    "alignment.rig",
    "alignment.transform",
    "analysis.explain",
    "analysis.figures",
    "analysis.picker",
    "classical.baselines",
    "clip.pretrained",
    "clip.words",
    "data.layouts",
    "data.scenes",
    "evaluation.folders",
    "evaluation.language",
    "evaluation.outputs",
    "evaluation.table",
    "examples.night_scene",
    "images.canvas",
    "images.encoding",
    "images.files",
    "images.pairs",
    "images.ragged",
    "images.sheet",
    "inference.fuser",
    "inference.rigs",
    "inference.video",
    "inference.stream",
    "inference.tiles",
    "models.fusion",
    "training.augmentation.affine",
    "training.augmentation.windows",
    "runtime.bars",
    "runtime.html",
    "weights.files",
    "weights.fusion",
    "weights.ldfusion",
    "weights.vgg",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # examples write files
    module = importlib.import_module(name)
    failed, attempted = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert attempted and not failed


@pytest.mark.parametrize("name", PACKAGES)
def test_everything_a_package_names_has_an_example(name):
    package = importlib.import_module(name)
    public = {each: getattr(package, each) for each in package.__all__}
    assert not [each for each, value in public.items() if _lacks_example(value)]


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_public_function_has_an_example(name):
    module = importlib.import_module(f"langfuse_jax.{name}")
    public = {each: value for each, value in vars(module).items() if not each.startswith("_")}
    own = {each: value for each, value in public.items() if getattr(value, "__module__", None) == module.__name__}
    functions = {each: value for each, value in own.items() if not inspect.isclass(value)}
    assert not [each for each, value in functions.items() if _lacks_example(value) and "command" not in each]


def _lacks_example(value):
    if not callable(value) or (inspect.isclass(value) and issubclass(value, Exception)):
        return False
    return not any(mark in (value.__doc__ or "") for mark in (">>> ", "Example::"))

"""The layering of the package: models, losses and metrics are the ground, commands the roof, and imports run down."""

import ast
from pathlib import Path

import langfuse_jax

PACKAGE = Path(langfuse_jax.__file__).parent
# A room may import from those before it.
ROOMS = (
    *("_version", "errors", "runtime", "alignment", "images", "examples", "metrics", "models", "classical"),
    *("losses", "weights", "clip", "evaluation", "data", "inference", "analysis", "training", "compact_clip"),
    *("steering", "page", "commands", "cli", "__init__", "__main__"),
)


def _room(parts):
    """The first part of a module's name below the package."""
    return parts[0] if parts else "__init__"


def _imports():
    for path in sorted(PACKAGE.rglob("*.py")):
        importer = path.relative_to(PACKAGE).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "langfuse_jax":
                module = node.module.split(".")[1:]
                for name in [module] if module else [[alias.name] for alias in node.names]:
                    yield "/".join(importer), _room(importer), _room(name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == "langfuse_jax":
                        yield "/".join(importer), _room(importer), _room(alias.name.split(".")[1:])


def test_every_room_has_its_place():
    assert {_room(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py")} == set(ROOMS)


def test_no_import_runs_upwards():
    found = list(_imports())
    assert len(found) > 200
    assert [(file, room) for file, own, room in found if ROOMS.index(room) > ROOMS.index(own)] == []


def test_only_commands_parse():
    parsers = [path for path in PACKAGE.rglob("*.py") if "argparse" in path.read_text()]
    assert {_room(path.relative_to(PACKAGE).with_suffix("").parts) for path in parsers} == {"commands", "cli"}

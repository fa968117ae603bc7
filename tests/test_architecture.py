"""The house stands: imports go strictly downward, and rooms on one floor do not know each other."""

import ast
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import neocog
from neocog import explain
from neocog.models import catalog

SOURCE = Path(neocog.__file__).parent
# Errors lie below the ground floor, whose rooms all raise them.
FLOORS = [
    {"errors"},
    {
        *("config", "records", "settings", "measures"),
        *("chance", "files", "geometry", "host", "lock", "text", "waiting"),
    },
    {
        *(
            "layers",
            "pooling",
            "rewriting",
            "smallmaps",
            "kernels",
            "data",
            "analysis",
            "explain",
            "metrics",
            "machine",
            "html",
        ),
        *("plots", "weights", "described"),
    },
    {"models", "tasks", "engine"},
    {"bundle", "runtime", "run"},
    {"report", "recipes", "usual", "ladder", "planning", "export", "serve"},
    {"verbs", "facade", "argv"},
    {"cli", "__init__", "__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS, start=-1) for room in rooms}
# Two rooms of one floor that are one step of one flow; each pair is a decision, not a habit.
STAIRS = {
    *{
        ("run", "bundle"),
        ("run", "runtime"),
        ("runtime", "bundle"),
        ("planning", "report"),
        ("facade", "verbs"),
        ("__main__", "cli"),
    },
    ("rewriting", "pooling"),  # the ways that it knows
    ("rewriting", "smallmaps"),
    ("explain", "analysis"),  # explanations read the graph of what ran
    ("waiting", "host"),  # threads wait by what the system says of others
}
STANDARD_ONLY = FLOORS[0] | FLOORS[1]
FILES = sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return parts[0]


def imports(path: Path) -> set[str]:
    """Every module that a file imports at run time, wherever in the file it does."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_strictly_downward(path: Path) -> None:
    room = room_of(path)
    assert room in FLOOR, f"{room} has no floor: give it one here and in CONTRIBUTING.md"
    for name in imports(path):
        if not name.startswith("neocog."):
            continue
        target = name.split(".")[1]
        if target == "__version__" or target == room:
            continue
        down = FLOOR[target] < FLOOR[room] or (room, target) in STAIRS
        assert down, f"{room} (floor {FLOOR[room]}) imports {target} (floor {FLOOR[target]})"


@pytest.mark.parametrize("room", sorted(STANDARD_ONLY))
def test_the_ground_floor_uses_the_standard_library_only(room: str) -> None:
    for name in imports(SOURCE / f"{room}.py"):
        top = name.split(".")[0]
        assert top in sys.stdlib_module_names or top == "neocog"


def test_the_floor_test_can_fail(tmp_path: Path) -> None:
    wrong = tmp_path / "layers.py"
    wrong.write_text("from typing import TYPE_CHECKING\nimport neocog.engine.loop\n")
    assert "neocog.engine.loop" in imports(wrong)
    hidden = tmp_path / "hidden.py"
    hidden.write_text("if TYPE_CHECKING:\n    import torch\ndef f():\n    import numpy\n")
    assert imports(hidden) == {"numpy"}


@pytest.mark.parametrize(
    "code",
    [
        "import neocog",
        "import neocog.cli",
        "import neocog.models.catalog",
        "import neocog.data.decode",
        "from click.testing import CliRunner; from neocog.cli import cli; "
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0; "
        "assert CliRunner().invoke(cli, ['train', '--help']).exit_code == 0",
    ],
)
def test_starting_loads_no_torch(code: str) -> None:
    script = f"import sys\n{code}\nheavy = {{'torch', 'sklearn', 'matplotlib', 'scipy'}}\n"
    script += "print(sorted(heavy & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_every_lazy_name_resolves() -> None:
    for name in neocog.__all__:
        assert getattr(neocog, name) is not None
    assert set(neocog._LAZY) | {"__version__"} == set(neocog.__all__)
    for name in explain.__all__:
        assert getattr(explain, name) is not None
    assert set(explain._LAZY) == set(explain.__all__)
    for module in (neocog, explain):
        with pytest.raises(AttributeError, match="no attribute 'zebra'"):
            _ = module.zebra


def test_every_catalogue_entry_resolves() -> None:
    for name, entry in catalog.CATALOG.items():
        module, _, attribute = entry.factory.partition(":")
        factory = getattr(importlib.import_module(f"neocog.{module}"), attribute)
        assert callable(factory), name


def test_at_most_ten_direct_dependencies_and_one_version() -> None:
    root = SOURCE.parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert len(project["dependencies"]) <= 10
    assert project["version"] == neocog.__version__
    pinned = (root / "constraints.txt").read_text(encoding="utf-8").lower()
    for dependency in project["dependencies"]:
        name = dependency.split(">=")[0]
        assert f"\n{name}==" in f"\n{pinned}", f"{name} has no exact version in constraints.txt"

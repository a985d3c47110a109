"""The walls of the house: imports go where the drawing in docs/design.md lets them, and nowhere in a circle.

Every import counts: at the top of a module, inside a function, under TYPE_CHECKING, and modules that are named in a string to be imported later.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src"
DRAWING = ROOT / "docs" / "design.md"
FACE = "octrim"
"""The package itself, whose names are the Python interface: it knows everybody by name, and nobody inside imports it."""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted((SOURCES / "octrim").rglob("*.py")):
        parts = path.relative_to(SOURCES).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, text: str, is_package: bool, known: set[str]) -> Iterator[tuple[str, int]]:
    """(module, line) for every module of `known` that the source text of module `name` imports, or names in a string."""
    package = name if is_package else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        candidates: list[str] = []
        if isinstance(node, ast.Import):
            candidates = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")
                base = ".".join([*above[: len(above) - node.level + 1], *([base] if base else [])])
            # `from package import name` is an arrow to the module `package.name` where there is one, else to the package.
            candidates = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            candidates = [node.value]  # import_module("octrim.targets.onnx"), and tables of such names
        for candidate in candidates:
            if candidate in known and candidate != name:
                yield candidate, getattr(node, "lineno", 0)


@functools.cache
def arrows() -> dict[str, dict[str, int]]:
    """Who imports whom, and in which line: module -> imported module -> line."""
    paths = modules()
    return {
        name: dict(imported(name, path.read_text("utf-8"), path.name == "__init__.py", set(paths))) for name, path in paths.items() if name != FACE
    }


def drawn_layers() -> list[list[str]]:
    """The layers as docs/design.md draws them, from the top down; each is a list of rooms (packages or modules, without `octrim.`)."""
    section = DRAWING.read_text("utf-8").partition("## Who imports whom")[2].partition("\n## ")[0]
    block = re.search(r"```text\n(.*?)```", section, re.DOTALL)
    assert block is not None, "docs/design.md has no drawing of the layers"
    layers = []
    for line in block[1].splitlines():
        rooms = line.partition("|")[0].split()
        if rooms:
            layers.append(rooms)
    return layers


def room_of(module: str, rooms: list[str]) -> str | None:
    """The room that a module is in: the longest drawn name that is the module's own or that of a package around it."""
    parts = module.removeprefix("octrim.").split(".")
    names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((name for name in names if name in rooms), None)


def circles(graph: dict[str, dict[str, int]]) -> list[list[str]]:
    """Sets of modules that reach each other (Tarjan's strongly connected components with more than one member)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, {}):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def test_no_module_is_in_a_circle() -> None:
    assert circles(arrows()) == []


def test_every_module_is_drawn_and_every_room_exists() -> None:
    rooms = [room for layer in drawn_layers() for room in layer]
    assert len(rooms) == len(set(rooms)), "a room is drawn twice"
    names = [name for name in modules() if name != FACE]
    assert [name for name in names if room_of(name, rooms) is None] == []
    assert [room for room in rooms if f"octrim.{room}" not in names] == []


def test_imports_point_down() -> None:
    """A module imports its own room and the layers below, not the rooms beside it or above."""
    layers = drawn_layers()
    level = {room: number for number, layer in enumerate(layers) for room in layer}
    wrong = []
    for name, targets in arrows().items():
        own = room_of(name, list(level))
        for target, line in targets.items():
            other = room_of(target, list(level))
            if own is not None and other is not None and own != other and level[other] <= level[own]:
                wrong.append(f"{name}:{line} ({own}) imports {target} ({other})")
            if target == FACE:
                wrong.append(f"{name}:{line} imports the package's face")
    assert wrong == []


def test_only_the_command_line_knows_commands() -> None:
    wrong = [
        f"{name}:{line} imports {target}"
        for name, targets in arrows().items()
        for target, line in targets.items()
        if re.match(r"octrim\.commands\b", target) and not re.match(r"octrim\.(commands\b|cli$)", name)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "text",
    [
        "from octrim.commands import prune",
        "from octrim import commands",
        "import octrim.commands",
        "def f():\n    from octrim.commands.prune import Prune",
        "if TYPE_CHECKING:\n    from octrim.commands import Prune",
        "from ..commands import Prune",
        "from .. import commands",
        "import_module('octrim.commands')",
    ],
)
def test_every_way_of_importing_is_seen(text: str) -> None:
    known = {"octrim", "octrim.commands", "octrim.commands.prune", "octrim.pruning.plan"}
    found = [module for module, _ in imported("octrim.pruning.plan", text, False, known)]
    assert any(module.startswith("octrim.commands") for module in found)


def test_a_circle_is_found() -> None:
    graph = {"a": {"b": 1}, "b": {"c": 1}, "c": {"a": 1, "d": 1}, "d": {}, "e": {"a": 1}}
    assert circles(graph) == [["a", "b", "c"]]

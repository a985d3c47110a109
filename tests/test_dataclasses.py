"""Dataclasses that hold arrays compare by identity: the comparison that `dataclass` makes would raise."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import octrim
from octrim.network.initialize import fresh_model

SOURCES = Path(octrim.__file__).parent


def dataclasses_with_arrays() -> Iterator[tuple[str, ast.ClassDef, ast.expr]]:
    """File, class and decorator of every dataclass that has a field of arrays."""
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.ClassDef):
                continue
            fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
            for decorator in node.decorator_list:
                if "dataclass" in ast.unparse(decorator) and any("ndarray" in ast.unparse(part.annotation) for part in fields):
                    yield path.relative_to(SOURCES).as_posix(), node, decorator


def test_every_dataclass_with_arrays_has_a_comparison_that_works() -> None:
    found = list(dataclasses_with_arrays())
    assert {"Model", "Dataset", "Plan", "Detections"} <= {node.name for _, node, _ in found}
    for path, node, decorator in found:
        own = any(isinstance(part, ast.FunctionDef) and part.name == "__eq__" for part in node.body)
        assert own or "eq=False" in ast.unparse(decorator), f"{path}: {node.name} compares arrays"


def test_models_are_equal_only_to_themselves() -> None:
    one, other = fresh_model("yolov5n", classes=1), fresh_model("yolov5n", classes=1)
    assert one != other and one in [other, one]
    assert len({one, other}) == 2

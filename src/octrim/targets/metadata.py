"""Metadata of a deployable: class names, stride and table. Every target writes it; a session reads it when it opens a file."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path

from octrim.errors import InputError, shown
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.targets.session import SessionInfo


def export_metadata(model: Model) -> dict[str, str]:
    """Metadata for every deployable. names: a Python dict as text, which is how YOLOv5's own exports spell it."""
    return {
        "names": str(dict(enumerate(model.names))),
        "stride": str(model.network.stride),
        "task": "detect",
        "octrim": json.dumps({"lineage": model.lineage, "anchors": model.network.anchors, "table": model.network.to_json()}, sort_keys=True),
    }


def file_info(
    path: Path, metadata: dict[str, str], dimensions: Sequence[int | None], output: Sequence[int | None], runtime: str, version: str, precision: str
) -> SessionInfo:
    """Description of a deployable, from its metadata and its input and output shapes (None: open).

    Raises InputError when it is not a detector of the YOLOv5 contract.
    """
    network = _table(path, metadata)
    names, stride = _names_and_stride(metadata)
    boxes, last = output[1:] if len(output) == 3 else (None, None)
    classes = network.classes if network is not None else None if names is None else len(names)
    if len(dimensions) != 4 or dimensions[1] != 3 or last is None or last < 6 or _newer(boxes, last, classes):
        raise InputError(f"{path}: expected input [batch, 3, height, width] and output [batch, boxes, 5 + classes]")
    if names is None:
        names, stride = tuple(f"class{index}" for index in range(last - 5)), 32
    if len(names) != last - 5 or (network is not None and network.classes != last - 5):
        raise InputError(f"{path}: {len(names)} names for {last - 5} classes")
    if not all(name.isprintable() for name in names):
        raise InputError(f"{path}: class names have unprintable characters")
    if not 1 <= stride <= 1024 or any(side is not None and not 1 <= side <= 16384 for side in dimensions[2:]):
        raise InputError(f"{path}: a stride of {shown(stride)} or a size of {shown(list(dimensions))} makes no sense")
    batch, _, height, width = dimensions
    size = (height, width) if height and width else None
    return SessionInfo(runtime, version, precision, names, stride, max(size) if size else 640, size, batch, network)


def _newer(boxes: int | None, last: int, classes: int | None) -> bool:
    """Whether an output `[batch, boxes, last]` is that of a newer YOLO, `[batch, 4 + classes, boxes]`.

    Where the file does not say how many classes it has: whether it has more columns than rows, as theirs have.
    """
    if boxes is None or last - 5 == classes:
        return False
    return boxes == 4 + classes if classes is not None else last > boxes


def _table(path: Path, metadata: dict[str, str]) -> Network | None:
    """The network's table, which OcTrim's own files carry. Raises InputError where it is damaged."""
    if "octrim" not in metadata:
        return None
    try:
        described = json.loads(metadata["octrim"])
        return Network.from_json(described["table"], described["anchors"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: its octrim metadata is damaged: {shown(str(error))}") from None


def _names_and_stride(metadata: dict[str, str]) -> tuple[tuple[str, ...] | None, int]:
    """Class names and stride from the metadata of YOLOv5's exports and ours; (None, 32) where they do not say, or nonsense."""
    try:
        names = ast.literal_eval(metadata["names"])
        return tuple(str(names[index]) for index in range(len(names))), int(float(metadata["stride"]))
    except (KeyError, ValueError, SyntaxError, TypeError, IndexError, OverflowError, RecursionError, MemoryError):
        return None, 32

"""Metadata of a deployable: class names, stride and table. Every target writes it; a session reads it when it opens a file."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from octrim.errors import InputError, counted, shown
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.targets.session import SessionInfo

Dimensions = Sequence[int | None]

_CONTRACT = "expected input [batch, 3, height, width] and output [batch, boxes, 5 + classes]"

_SUPPRESSED = {"num_dets", "num_detections", "det_boxes", "det_scores", "det_classes", "detection_boxes", "detection_scores", "selected_indices"}
"""Names that exporters give to outputs of graphs that contain suppression."""

BLANK = 256
"""Side in pixels of the blank picture by which an open output shape is measured: a multiple of every stride that is in use."""


def export_metadata(model: Model) -> dict[str, str]:
    """Metadata for every deployable. names: a Python dict as text, which is how YOLOv5's own exports spell it."""
    return {
        "names": str(dict(enumerate(model.names))),
        "stride": str(model.network.stride),
        "task": "detect",
        "octrim": json.dumps({"lineage": model.lineage, "anchors": model.network.anchors, "table": model.network.to_json()}, sort_keys=True),
    }


def read_header(header: Path, contents: Mapping[str, bytes]) -> dict[str, Any]:
    """The JSON header that lies beside a deployable's files; its `names`, `stride` and `octrim` are text, as `file_info` takes them.

    contents: what these files hold, by name; the header has their sha256. Raises InputError for a header that is missing or damaged, and for files
    that are not those it describes.
    """
    if not header.is_file():
        raise InputError(f"{header}: no such file; it says what lies beside it, and OcTrim opens nothing of this kind without")
    try:
        described = json.loads(header.read_bytes())
        digests = {name: described["sha256"][name] for name in contents}
        described |= {name: str(described[name]) for name in ("names", "stride", "octrim")}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{header}: it is damaged: {shown(str(error))}") from None
    for name, content in contents.items():
        if sha256(content).hexdigest() != digests[name]:
            raise InputError(f"{header.with_name(name)}: it is not what its {header.name} describes: changed, cut off, or of another export")
    return described


def values_per_box(metadata: dict[str, str]) -> int | None:
    """Numbers per box by the class names in a file's metadata; None where it has none."""
    names, _ = _names_and_stride(metadata)
    return None if names is None else 5 + len(names)


def detector_output(path: Path, outputs: Sequence[tuple[str, Dimensions | None]]) -> int:
    """Index of the output that has the boxes, among the outputs of a file by name and shape (None: any number of dimensions).

    YOLOv5's exports of 2021 also output the maps of every level. Raises InputError for a file that is no plain detector, and says what it is.
    """
    ranks = [None if shape is None else len(shape) for _, shape in outputs]
    suppressed = {name.lower() for name, _ in outputs} & _SUPPRESSED or any(shape is not None and list(shape)[1:] == [7] for _, shape in outputs)
    if suppressed:
        raise InputError(f"{path}: suppresses boxes within the graph (exported with --nms or end2end); export it without, OcTrim does that itself")
    found = next((number for number, rank in enumerate(ranks) if rank in (3, None)), None)
    if found is None and ranks and all(rank == 5 for rank in ranks):
        raise InputError(f"{path}: gives the raw maps of every level, as YOLOv5 exported before v5.0; export it anew, with boxes as one output")
    if found is None:
        raise InputError(f"{path}: {_CONTRACT}")
    if 4 in ranks:
        raise InputError(f"{path}: a segmentation network (it gives masks besides boxes); OcTrim runs detectors")
    return found


def file_info(
    path: Path,
    metadata: dict[str, str],
    dimensions: Dimensions,
    output: Dimensions | None,
    runtime: str,
    version: str,
    precision: str,
    measured: Callable[[], Dimensions] | None = None,
) -> SessionInfo:
    """Description of a deployable, from its metadata and its input and output shapes (None: open).

    measured: function that returns the output's shape for a blank picture; it is called where the output's last dimension is open, as exports with
    dynamic axes may have it. Raises InputError when the file is not a detector of the YOLOv5 contract.
    """
    network = _table(path, metadata)
    names, stride = _names_and_stride(metadata)
    if (output is None or (len(output) == 3 and output[2] is None)) and len(dimensions) == 4 and measured is not None:
        output = measured()
    boxes, last = output[1:] if output is not None and len(output) == 3 else (None, None)
    classes = None if names is None else len(names)
    if network is not None:
        classes = network.classes
    if len(dimensions) != 4 or dimensions[1] not in (3, None) or last is None or last < 6:
        raise InputError(f"{path}: {_CONTRACT}")
    if _newer(boxes, last, classes):
        raise InputError(f"{path}: {_CONTRACT}; a newer YOLO gives [batch, 4 + classes, boxes]")
    if names is None:
        names, stride = tuple(f"class{index}" for index in range(last - 5)), 32
    if len(names) != last - 5 or (network is not None and network.classes != last - 5):
        raise InputError(f"{path}: {counted(len(names), 'name')} for {counted(last - 5, 'class', 'classes')}")
    if not all(name.isprintable() for name in names):
        raise InputError(f"{path}: class names have unprintable characters")
    if not 1 <= stride <= 1024 or any(side is not None and not 1 <= side <= 16384 for side in dimensions[2:]):
        raise InputError(f"{path}: a stride of {shown(stride)} or a size of {shown(list(dimensions))} makes no sense")
    batch, _, height, width = dimensions
    size = (height, width) if height and width else None
    usual = 1280 if stride >= 64 else 640
    return SessionInfo(runtime, version, precision, names, stride, max(size) if size else usual, size, batch, network)


def _newer(boxes: int | None, last: int, classes: int | None) -> bool:
    """Whether an output `[batch, boxes, last]` is that of a newer YOLO, `[batch, 4 + classes, boxes]`.

    Where the file does not tell its number of classes, an output with more columns than rows is taken for one.
    """
    if boxes is None or last - 5 == classes:
        return False
    return boxes == 4 + classes if classes is not None else last > boxes


def _table(path: Path, metadata: dict[str, str]) -> Network | None:
    """The network's table from the metadata of OcTrim's own files; None in others. Raises InputError where it is damaged."""
    if "octrim" not in metadata:
        return None
    try:
        described = json.loads(metadata["octrim"])
        return Network.from_json(described["table"], described["anchors"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: its octrim metadata is damaged: {shown(str(error))}") from None


def _names_and_stride(metadata: dict[str, str]) -> tuple[tuple[str, ...] | None, int]:
    """Class names and stride from the metadata of YOLOv5's and OcTrim's exports; None and 32 where they are missing or invalid."""
    try:
        names = ast.literal_eval(metadata["names"])
        return tuple(str(names[index]) for index in range(len(names))), int(float(metadata["stride"]))
    except (KeyError, ValueError, SyntaxError, TypeError, IndexError, OverflowError, RecursionError, MemoryError):
        return None, 32

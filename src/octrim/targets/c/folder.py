"""The folder `c/` of an export: detector.h, detector.c, weights.bin for larger networks, example.c, Makefile, README.md."""

from __future__ import annotations

import json
import struct
from hashlib import sha256
from pathlib import Path

import numpy as np

from octrim.errors import InputError
from octrim.network.cost import network_cost
from octrim.network.model import Model
from octrim.targets.c.program import Program, program
from octrim.targets.c.source import WEIGHTS_IN_C, assembled, bits, comment, filled, step_activations, step_kinds, tables, template
from octrim.targets.metadata import export_metadata

HEADER = "detector.json"

_MOST_BYTES = 64_000_000  # most bytes of a C file that is read


def write_folder(model: Model, folder: Path, height: int, width: int) -> None:
    """Write the files into `folder`, which must be there. The same model gives the same bytes."""
    made = program(model, height, width)
    cost = network_cost(model.network, height, width)
    checksum = weights_checksum(made.weights)
    title = (
        f"A YOLOv5 detector for {width} x {height} pixels: {cost.parameters:,} parameters, {cost.macs / 1e6:.1f} M multiply-adds. Written by OcTrim."
    )
    in_file = made.weights.nbytes > WEIGHTS_IN_C
    values = {
        "title": title,
        "width": width,
        "height": height,
        "boxes": made.boxes,
        "values": made.values,
        "kinds": bits(step_kinds(made)),
        "activations": bits(step_activations(made)),
        "tables": tables(made, model.names, checksum),
        "classes": made.values - 5,
        "names": comment(", ".join(model.names)).replace("|", " ").replace("`", " "),
        "memory": -(-made.map_bytes // 1000),
        "scratch": -(-made.scratch * 4 // 1000),
        "weights": -(-made.weights.nbytes // 1000),
        "weights_row": "| `weights.bin` | the weights, read by open |\n" if in_file else "",
    }
    files = {
        "detector.h": filled(template("detector.h"), values),
        "detector.c": filled(assembled("detector.c", {"tables.h": "@tables@"}), values),
        "example.c": template("example.c"),
        "Makefile": template("Makefile"),
        "README.md": filled(template("README.md"), values),
    }
    files[HEADER] = json.dumps(described(model, files), indent=1, ensure_ascii=True) + "\n"
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    if in_file:
        (folder / "weights.bin").write_bytes(weights_file(made, checksum))


def described(model: Model, files: dict[str, str]) -> dict[str, object]:
    """The content of detector.json, which OcTrim reads when it opens the folder. files: contents of the other files by name."""
    digests = {name: sha256(files[name].encode()).hexdigest() for name in ("detector.c", "detector.h")}
    return {"sha256": digests, **export_metadata(model)}


def weights_checksum(weights: np.ndarray) -> int:
    """Checksum of weights: the sum of word i times 2 i + 1 in 64 bits. It notices weights that are cut off, exchanged, or of another export."""
    words = weights.view(np.uint32).astype(np.uint64)
    with np.errstate(over="ignore"):
        return int((words * (2 * np.arange(len(words), dtype=np.uint64) + 1)).sum(dtype=np.uint64))


def weights_file(made: Program, checksum: int) -> bytes:
    """Contents of weights.bin: magic, checksum, count, little-endian floats."""
    return struct.pack("<8sQQ", b"OCTRIMW1", checksum, made.weights.size) + made.weights.astype("<f4").tobytes()


def read_source(path: Path) -> str:
    """The text of a C file of an exported folder. Raises InputError where it is missing, too large or no text."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: {path.stat().st_size:,} bytes, larger than any export ({_MOST_BYTES:,})")
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; a folder of C has detector.c, detector.h and {HEADER}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: it is not text") from None

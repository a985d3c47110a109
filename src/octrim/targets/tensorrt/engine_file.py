"""An engine and the header file beside it: `model.engine`, `model.engine.json`.

TensorRT's engines say nothing of class names, anchors, or what they were built from and for; the header does. Both are needed to run one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octrim.atomic import write_bytes, write_text
from octrim.errors import InputError, shown
from octrim.network.rows import Network
from octrim.targets.tensorrt.build import ENGINE_FORMAT
from octrim.targets.tensorrt.cuda import Gpu


@dataclass(frozen=True)
class EngineHeader:
    """What the header says that running needs.

    size: height and width of the pictures, pixels. batch: fewest, most usual and most pictures per batch. tensorrt, gpu, capability: what it
    was built with and on. network: the table.
    """

    precision: str
    names: tuple[str, ...]
    stride: int
    image_size: int
    size: tuple[int, int]
    batch: tuple[int, int, int]
    tensorrt: str
    gpu: str
    capability: str
    network: Network


def header_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def write_engine(path: Path, engine: bytes, header: Mapping[str, Any]) -> None:
    """Write engine and header, the header last: an engine without its header is refused, one with another's header too."""
    header_path(path).unlink(missing_ok=True)
    write_bytes(path, engine)
    write_text(header_path(path), json.dumps(header, indent=1, sort_keys=True, ensure_ascii=False))


def read_engine(path: Path) -> tuple[EngineHeader, bytes]:
    """Header and engine, which belong together by the engine's sha256. Raises InputError for whatever is missing, damaged or newer."""
    where = header_path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not where.is_file():
        raise InputError(f"{path}: its header file {where.name} is missing; copy it along, both are written by octrim export --format tensorrt")
    try:
        content = json.loads(where.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {shown(str(error))}") from None
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise InputError(f"{where}: has no format number")
    if content["format"] > ENGINE_FORMAT:
        raise InputError(f"{where}: written by a newer OcTrim (format {content['format']}, this one reads up to {ENGINE_FORMAT}); upgrade octrim")
    try:
        header = _header(content)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    engine = path.read_bytes()
    digests = content.get("sha256")
    if not isinstance(digests, dict) or hashlib.sha256(engine).hexdigest() != digests.get("engine"):
        raise InputError(f"{path}: {len(engine):,} bytes that are not those of its header (sha256 differs): truncated, or files of two exports mixed")
    return header, engine


def _header(content: dict[str, Any]) -> EngineHeader:
    """Raises InputError for what `octrim.targets.tensorrt.build.engine_header` would not have written; does not name the file."""
    try:
        (height, width), (low, usual, high) = content["size"], content["batch"]
        gpu, names = content["gpu"], content["names"]
        numbers = (height, width, low, usual, high, content["stride"], content["image_size"])
        texts = (content["precision"], content["tensorrt"], gpu["name"], gpu["capability"], *names)
        if not all(type(number) is int and 1 <= number <= 65536 for number in numbers) or not low <= usual <= high:
            raise InputError(f"size, batch, stride and image_size are {shown(list(numbers))}")
        if not isinstance(names, list) or not all(isinstance(text, str) and text.isprintable() for text in texts):
            raise InputError("precision, versions and class names must be printable text")
        if content["decode"] is not True:
            raise InputError("the engine was built without decoding; it gives logits, no boxes")
        network = Network.from_json(content["table"], content["anchors"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the header is damaged: {type(error).__name__} {shown(str(error))}") from None
    if len(names) != network.classes or network.stride != content["stride"]:
        raise InputError(f"{len(names)} names and stride {content['stride']} for a table of {network.classes} classes and stride {network.stride}")
    return EngineHeader(
        precision=content["precision"],
        names=tuple(names),
        stride=content["stride"],
        image_size=content["image_size"],
        size=(height, width),
        batch=(low, usual, high),
        tensorrt=content["tensorrt"],
        gpu=gpu["name"],
        capability=gpu["capability"],
        network=network,
    )


def check_origin(path: Path, header: EngineHeader, tensorrt: str, gpu: Gpu) -> None:
    """Raise InputError where this is not the TensorRT or the GPU that the engine was built with."""
    again = "build it here: octrim export --format tensorrt"
    if tensorrt != header.tensorrt:  # to the last digit: engines run in the very version that built them
        raise InputError(f"{path}: this is TensorRT {tensorrt}, the engine was built with {header.tensorrt}; {again}")
    if (gpu.name, gpu.capability) != (header.gpu, header.capability):
        built, here = f"{header.gpu} (compute capability {header.capability})", f"{gpu.name} ({gpu.capability})"
        raise InputError(f"{path}: this GPU is {here}, the engine was built for {built}; {again}")

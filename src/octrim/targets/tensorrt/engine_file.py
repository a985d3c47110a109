"""An engine and the header file beside it: `model.engine`, `model.engine.json`.

TensorRT's engines contain no class names and anchors, and not what they were built from and for; the header does. Both files are needed to run.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from octrim.atomic import write_bytes, write_text
from octrim.errors import InputError, shown
from octrim.targets.tensorrt.cuda import Gpu
from octrim.targets.tensorrt.header import EngineHeader


def header_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def write_engine(path: Path, engine: bytes, header: EngineHeader) -> None:
    """Write engine and header, the header last: an engine without its header is refused, one with another's header too."""
    header_path(path).unlink(missing_ok=True)
    write_bytes(path, engine)
    write_text(header_path(path), json.dumps(header.to_json(), indent=1, sort_keys=True, ensure_ascii=False))


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
    try:
        header = EngineHeader.from_json(content)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    engine = path.read_bytes()
    if hashlib.sha256(engine).hexdigest() != header.engine_sha256:
        raise InputError(f"{path}: {len(engine):,} bytes that are not those of its header (sha256 differs): truncated, or files of two exports mixed")
    return header, engine


def check_origin(path: Path, header: EngineHeader, tensorrt: str, gpu: Gpu) -> None:
    """Raise InputError where this is not the TensorRT or the GPU that the engine was built with."""
    again = "build it here: octrim export --format tensorrt"
    if tensorrt != header.tensorrt:  # all digits must agree: engines run only in the version that built them
        raise InputError(f"{path}: this is TensorRT {tensorrt}, the engine was built with {header.tensorrt}; {again}")
    built_on = header.gpu
    if built_on is None or (gpu.name, gpu.capability) != (built_on.name, built_on.capability):
        built = "an unknown one" if built_on is None else f"{built_on.name} (compute capability {built_on.capability})"
        here = f"{gpu.name} ({gpu.capability})"
        raise InputError(f"{path}: this GPU is {here}, the engine was built for {built}; {again}")

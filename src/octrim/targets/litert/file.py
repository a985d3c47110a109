"""The `.tflite` file of a model, and what its metadata says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from octrim.errors import InputError
from octrim.network.model import Model
from octrim.network.rows import walk
from octrim.network.scales import require_scales
from octrim.targets.integers import Quantization
from octrim.targets.litert.builder import metadata_of
from octrim.targets.litert.graph import LitertOps
from octrim.targets.litert.int8 import Int8LitertOps
from octrim.targets.metadata import export_metadata
from octrim.targets.raw_heads import write_description

PRECISIONS = ("fp32", "fp16", "int8")


def litert_file(model: Model, height: int, width: int, precision: str = "fp32", decode: bool = True) -> bytes:
    """The file for pictures of height x width pixels, multiples of the stride, one at a time. The same model gives the same bytes.

    precision: "fp32"; "fp16" for float16 weights; "int8" for a model with scales (`octrim quantize`), in integers from the picture to the logits.
    decode: False gives the logits of the levels, `head0`, `head1`, .., instead of boxes; int8 always gives logits. Raises InputError for int8 without
    scales for every map, and with Mish.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r} for LiteRT; expected one of {', '.join(PRECISIONS)}")
    if precision == "int8":
        require_scales(model.scales)
    decode = decode and precision != "int8"
    ops = Int8LitertOps(model, height, width) if precision == "int8" else LitertOps(model, height, width, precision == "fp16", decode)
    image = ops.image()
    found = walk(model.network, ops, image)
    outputs = {"output0": found[0]} if decode else {f"head{level}": tensor for level, tensor in enumerate(found)}
    for name, tensor in outputs.items():
        ops.builder.tensors[tensor].name = name
    described = {name: _described(ops, tensor) for name, tensor in {"images": image, **outputs}.items()}
    metadata = {"precision": precision, "decoded": decode, "tensors": described, "values": 5 + model.network.classes, **export_metadata(model)}
    return ops.builder.file({"images": image}, outputs, "YOLOv5 detector, written by OcTrim", metadata)


def write_file(model: Model, path: Path, height: int, width: int, precision: str, raw_heads: bool) -> None:
    """Write the file; with raw_heads it gives logits, and the JSON file that describes them lies beside it."""
    content = litert_file(model, height, width, precision, decode=not raw_heads)
    path.write_bytes(content)
    if raw_heads:
        tensors = metadata_of(content)["tensors"]
        meaning = "RGB, bytes less 128" if precision == "int8" else "RGB, 0 to 1"
        write_description(path, model, "NHWC", {**tensors.pop("images"), "values": meaning}, tensors, precision)


def _described(ops: LitertOps, tensor: int) -> dict[str, Any]:
    quantization: Quantization | None = ops.builder.quantizations[tensor]
    described: dict[str, Any] = {"shape": list(ops.builder.shape(tensor)), "type": ops.kind}
    if quantization is not None:
        described |= {"scale": quantization.step, "zero_point": quantization.zero_point}
    return described

"""Writes `.tflite` files: tensors, constants and operators are added one by one, and `Builder.file` gives the bytes.

The file is a flatbuffer of TensorFlow Lite's schema, whose Python classes come with the package `ai-edge-litert`; TensorFlow is not needed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated

from octrim.targets.integers import Quantization

schema: Any = schema_py_generated
"""The classes of the schema. Their annotations know lists where they also take arrays."""

_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int32": schema.TensorType.INT32,
    "int8": schema.TensorType.INT8,
}

METADATA = "octrim"
"""Name of the metadata buffer with OcTrim's JSON."""

_BLANK = b"0" * 64

_DIGEST = re.compile(rb'"sha256": "([0-9a-f]{64})"')


class _Aligned(flatbuffers.Builder):
    """Builder whose vectors of bytes, which are the tensors' contents, start at multiples of 16, as the schema demands."""

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:  # noqa: N802 (the base class's name)
        return super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)


class Builder:
    """A graph that grows. Tensors are numbers, as in the file."""

    def __init__(self) -> None:
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [schema.BufferT()]  # the first one is empty, and belongs to all tensors that are computed
        self.operators: list[Any] = []
        self.codes: dict[int, int] = {}
        self.quantizations: list[Quantization | None] = []

    def tensor(self, name: str, shape: Sequence[int], kind: str = "float32", quantization: Quantization | None = None) -> int:
        """A new tensor that an operator will compute."""
        number = self._tensor(name, shape, kind)
        if quantization is not None:
            made = self.tensors[number].quantization
            made.scale, made.zeroPoint = np.asarray([quantization.step], np.float32), np.asarray([quantization.zero_point], np.int64)
        self.quantizations[number] = quantization
        return number

    def _tensor(self, name: str, shape: Sequence[int], kind: str) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type = name, np.asarray(shape, np.int32), _TYPES[kind]
        made.quantization = schema.QuantizationParametersT()
        self.tensors.append(made)
        self.quantizations.append(None)
        return len(self.tensors) - 1

    def constant(self, name: str, values: np.ndarray, scale: np.ndarray | None = None, axis: int = 0) -> int:
        """A new tensor with these values. scale: what integers are multiplied with, one number, or one for each channel along `axis`."""
        number = self._tensor(name, values.shape, values.dtype.name)
        if scale is not None:
            made = self.tensors[number].quantization
            made.scale, made.zeroPoint, made.quantizedDimension = scale.astype(np.float32), np.zeros(len(scale), np.int64), axis
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes(), np.uint8)
        self.buffers.append(buffer)
        self.tensors[number].buffer = len(self.buffers) - 1
        return number

    def shape(self, tensor: int) -> tuple[int, ...]:
        return tuple(int(side) for side in self.tensors[tensor].shape)

    def operator(self, name: str, inputs: Sequence[int], outputs: Sequence[int], version: int = 1, **options: Any) -> None:
        """Append an operator. name: as in the schema, such as CONV_2D. options: fields of the operator's options, by the schema's names."""
        code = getattr(schema.BuiltinOperator, name)
        made = schema.OperatorT()
        made.opcodeIndex = list(self.codes).index(code) if code in self.codes else len(self.codes)
        self.codes[code] = max(version, self.codes.get(code, 1))
        made.inputs, made.outputs = np.asarray(inputs, np.int32), np.asarray(outputs, np.int32)
        kind = _OPTIONS.get(name)
        if kind is not None:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            made.builtinOptions = getattr(schema, f"{kind}T")()
            for field, value in options.items():
                setattr(made.builtinOptions, field, value)
        self.operators.append(made)

    def file(self, inputs: Mapping[str, int], outputs: Mapping[str, int], description: str, metadata: Mapping[str, Any]) -> bytes:
        """The bytes of the file. inputs, outputs: tensors by their names in the signature. metadata: JSON; a sha256 of all bytes is added."""
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.name = self.tensors, self.operators, "main"
        graph.inputs, graph.outputs = (np.asarray(list(one.values()), np.int32) for one in (inputs, outputs))
        model = schema.ModelT()
        model.version, model.subgraphs, model.description = 3, [graph], description
        model.operatorCodes = [_code(code, version) for code, version in self.codes.items()]
        model.signatureDefs = [_signature(inputs, outputs)]
        text = json.dumps({"sha256": _BLANK.decode(), **metadata})
        stored, entry = schema.BufferT(), schema.MetadataT()
        stored.data = np.frombuffer(text.encode(), np.uint8)
        entry.name, entry.buffer = METADATA, len(self.buffers)
        model.metadata, model.buffers = [entry], [*self.buffers, stored]
        builder = _Aligned(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        blank = bytes(builder.Output())
        return blank.replace(_BLANK, hashlib.sha256(blank).hexdigest().encode(), 1)


def sound(content: bytes) -> bool | None:
    """Whether the bytes are those that `Builder.file` gave; None for a file without OcTrim's sha256."""
    found = _DIGEST.search(content)
    if found is None:
        return None
    blank = content[: found.start(1)] + _BLANK + content[found.end(1) :]
    return hashlib.sha256(blank).hexdigest().encode() == found[1]


def metadata_of(content: bytes) -> dict[str, Any]:
    """OcTrim's JSON in a file that is `sound`."""
    model = schema.Model.GetRootAs(content, 0)
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == METADATA.encode():
            return json.loads(bytes(model.Buffers(entry.Buffer()).DataAsNumpy()))
    return {}


def _code(code: int, version: int) -> Any:
    made = schema.OperatorCodeT()
    made.builtinCode, made.deprecatedBuiltinCode, made.version = code, min(code, 127), version
    return made


def _signature(inputs: Mapping[str, int], outputs: Mapping[str, int]) -> Any:
    made = schema.SignatureDefT()
    made.signatureKey = "serving_default"
    made.inputs, made.outputs = (_signature_tensors(one) for one in (inputs, outputs))
    return made


def _signature_tensors(tensors: Mapping[str, int]) -> list[Any]:
    found = []
    for name, number in tensors.items():
        made = schema.TensorMapT()
        made.name, made.tensorIndex = name, number
        found.append(made)
    return found


_OPTIONS = {
    "ABS": "AbsOptions",
    "ADD": "AddOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "EXP": "ExpOptions",
    "HARD_SWISH": "HardSwishOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MUL": "MulOptions",
    "NEG": "NegOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "QUANTIZE": "QuantizeOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "SPLIT": "SplitOptions",
    "SPLIT_V": "SplitVOptions",
    "TRANSPOSE": "TransposeOptions",
}
"""Class of the options of the operators that have some."""

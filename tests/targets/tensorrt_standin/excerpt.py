"""Writes `tests/targets/tensorrt_api.json`: what the stand-in knows of the Python API of TensorRT, version by version.

    python tests/targets/tensorrt_standin/excerpt.py api_facts.json

The argument holds `{version: {"classes": {name: {"bases", "methods", "properties"}}, "enums": {name: {member: value}}}}`. Of a method it has the
overloads, of an overload the parameters as `[name, type]` or `[name, type, default]`; of a property the types that are read and written, null
where it cannot be. The excerpt keeps the classes and enums that a builder and a runtime touch, a line each, so that a change of API shows in a diff.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "tensorrt_api.json"

CLASSES = (
    "Builder Dims EngineInspector IActivationLayer IBuilderConfig ICastLayer IConcatenationLayer IConstantLayer IConvolutionLayer ICudaEngine "
    "IDequantizeLayer IElementWiseLayer IErrorRecorder IExecutionContext IHostMemory IIdentityLayer ILayer ILogger INetworkDefinition "
    "IOptimizationProfile IPoolingLayer IProgressMonitor IQuantizeLayer IResizeLayer IShuffleLayer ISliceLayer ITensor ITimingCache IUnaryLayer "
    "Logger Permutation Runtime Weights "
)

ENUMS = (
    "ActivationType BuilderFlag DataType DeviceType ElementWiseOperation EngineCapability EngineStat ErrorCodeTRT "
    "ExecutionContextAllocationStrategy HardwareCompatibilityLevel InterpolationMode LayerInformationFormat LayerType MemoryPoolType "
    "NetworkDefinitionCreationFlag PaddingMode PoolingType PreviewFeature ProfilingVerbosity ResizeCoordinateTransformation ResizeRoundMode "
    "ResizeSelector RuntimePlatform SampleMode TacticSource TensorFormat TensorIOMode TensorLocation TilingOptimizationLevel UnaryOperation "
)


def plain(value: Any) -> Any:
    """C++ spellings of types that slipped into the signatures, as Python spells them."""
    if isinstance(value, str):
        return re.sub(r"nvinfer1::(v_1_0::)?", "trt.", value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def excerpt(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        version: {
            "classes": {name: plain(known["classes"][name]) for name in CLASSES.split()},
            "enums": {name: known["enums"][name] for name in ENUMS.split() if name in known["enums"]},
        }
        for version, known in facts.items()
    }


def text(facts: dict[str, Any]) -> str:
    def lines(table: dict[str, Any]) -> str:
        return "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(entry, separators=(',', ':'))}" for name, entry in table.items()) + "\n}"

    versions = [f'"{version}": {{\n"classes": {lines(known["classes"])},\n"enums": {lines(known["enums"])}\n}}' for version, known in facts.items()]
    return "{\n" + ",\n".join(versions) + "\n}\n"


if __name__ == "__main__":
    TARGET.write_text(text(excerpt(json.loads(Path(sys.argv[1]).read_text()))))

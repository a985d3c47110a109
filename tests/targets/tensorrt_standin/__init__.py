"""A strict stand-in for the Python modules of TensorRT 10 and 11 and of CUDA, for machines that have neither.

    with installed("11.4.0.106") as fake:
        import tensorrt as trt  # fake.trt
        from cuda.bindings import runtime  # fake.cudart, one device whose memory is the host's
        ...
        outputs = execute(network, {"images": array})  # a network, or the bytes or the engine that were built of it
        assert not fake.errors and not fake.device.live

What is called is checked against the API of that version (`tensorrt_api.json`) and against the rules of a strongly typed network; what was recorded
runs in NumPy. Wrong calls raise; a wrong network makes `build_serialized_network` return None, with the reason in `fake.errors` and in the log.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.targets.tensorrt_standin import builder, network, runtime, values
from tests.targets.tensorrt_standin.api import FACTS, VERSIONS, ClassFacts, Guarded, Space, enum
from tests.targets.tensorrt_standin.cudart import Device, fake_cudart
from tests.targets.tensorrt_standin.executor import run
from tests.targets.tensorrt_standin.layers import LAYERS, Tensor
from tests.targets.tensorrt_standin.program import Program

__all__ = ["VERSIONS", "Device", "Installed", "execute", "fake_cudart", "installed", "program", "standin"]

CLASSES: dict[str, type[Guarded]] = {
    "Dims": values.Dims,
    "Permutation": values.Permutation,
    "Weights": values.Weights,
    "ILogger": builder.BaseLogger,
    "Logger": builder.Logger,
    "IErrorRecorder": builder.ErrorRecorder,
    "IProgressMonitor": builder.ProgressMonitor,
    "IHostMemory": builder.HostMemory,
    "IOptimizationProfile": builder.Profile,
    "ITimingCache": builder.TimingCache,
    "IBuilderConfig": builder.Config,
    "Builder": builder.Builder,
    "INetworkDefinition": network.Network,
    "ITensor": Tensor,
    **LAYERS,
    "Runtime": runtime.Runtime,
    "ICudaEngine": runtime.Engine,
    "IExecutionContext": runtime.Context,
    "EngineInspector": runtime.Inspector,
}

# Names that `tensorrt/__init__.py` gives to the members of DataType.
_TYPES = {"float32": "FLOAT", "float16": "HALF", "int8": "INT8", "int32": "INT32", "uint8": "UINT8", "bool": "BOOL", "int64": "INT64"}


class Module(types.ModuleType):
    _space: Space

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        known = name in FACTS[self._space.version]["classes"] or name in FACTS[self._space.version]["enums"]
        what = "exists, but the stand-in does not model it" if known else "does not exist, or the stand-in does not know it"
        raise AttributeError(f"TensorRT {self._space.version}: {name} {what}")


def standin(version: str, device: Device | None = None) -> Module:
    """The module `tensorrt` of one of VERSIONS. device: where its engines run; see `fake_cudart`."""
    space = Space(version, device or Device())
    for name, members in FACTS[version]["enums"].items():
        space.names[name] = enum(version, name, members)
    severity = space.names["Severity"] = enum(version, "Severity", builder.SEVERITIES)
    for name, implementation in CLASSES.items():
        space.names[name] = type(name, (implementation,), {"_space": space, "_facts": ClassFacts.of(version, name)})
    for name in ("ILogger", "Logger"):
        type.__setattr__(space.names[name], "Severity", severity)
        for member, value in severity.__members__.items():
            type.__setattr__(space.names[name], member, value)
    module = Module("tensorrt")
    module._space = space
    module.__dict__.update({name: value for name, value in space.names.items() if name != "Severity"})
    module.__dict__.update({alias: space.names["DataType"].__members__[member] for alias, member in _TYPES.items()})
    module.__dict__.update(__version__=version, volume=lambda shape: int(np.prod(list(shape))), nptype=lambda kind: values.DTYPES[kind.name])
    return module


@dataclass
class Installed:
    trt: Module
    cudart: types.ModuleType
    device: Device

    @property
    def errors(self) -> list[str]:
        """Of the builds, the deserialisations and the executions that failed."""
        return self.trt._space.errors


@contextmanager
def installed(version: str) -> Iterator[Installed]:
    """Puts the modules where `import tensorrt` and `from cuda.bindings import runtime` find them, for as long as the context lasts."""
    device = Device()
    trt, cudart = standin(version, device), fake_cudart(device)
    cuda, bindings = types.ModuleType("cuda"), types.ModuleType("cuda.bindings")
    cuda.bindings, bindings.runtime = bindings, cudart  # type: ignore[attr-defined]
    modules = {"tensorrt": trt, "cuda": cuda, "cuda.bindings": bindings, "cuda.bindings.runtime": cudart}
    before = {name: sys.modules[name] for name in modules if name in sys.modules}  # None is there to hide a module
    sys.modules.update(modules)
    try:
        yield Installed(trt, cudart, device)
    finally:
        for name in modules:
            del sys.modules[name]
        sys.modules.update(before)


def program(recorded: Any) -> Program:
    """Of a network, an engine, or the bytes of one. Raises RefusedError for a network that TensorRT would not build."""
    if isinstance(recorded, Program):
        return recorded
    if isinstance(recorded, network.Network):
        return builder.program_of(recorded)
    if isinstance(recorded, runtime.Engine):
        return recorded._program
    return Program.from_bytes(bytes(memoryview(recorded)))


def execute(recorded: Any, feeds: Mapping[str, np.ndarray], tap: bool = False) -> dict[str, np.ndarray]:
    """Outputs by name. recorded: as `program` takes it. tap: adds the output of every layer, by the layer's name."""
    return run(program(recorded), feeds, tap)

"""Runtime, ICudaEngine, IExecutionContext and EngineInspector over a recorded program."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tests.targets.tensorrt_standin.api import Enum, Guarded
from tests.targets.tensorrt_standin.builder import BaseLogger, HostMemory, fits, report
from tests.targets.tensorrt_standin.executor import run
from tests.targets.tensorrt_standin.program import Port, Program, Shape
from tests.targets.tensorrt_standin.shapes import Spec, infer_all
from tests.targets.tensorrt_standin.values import DTYPES, Dims


class Runtime(Guarded):
    def _setup(self, logger: BaseLogger) -> None:
        self._values = {"logger": logger, "error_recorder": None, "max_threads": 1, "engine_host_code_allowed": False, "DLA_core": -1}

    def _do_deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
        try:
            program = Program.from_bytes(serialized_engine)
        except ValueError as error:
            report(self, str(error))
            return None
        if program.version != self._space.version:
            message = f"the engine was built by TensorRT {program.version}, this is {self._space.version}"
            report(self, message)
            return None
        return self._space.new("ICudaEngine", program=program, runtime=self)


class Engine(Guarded):
    def _setup(self, program: Program, runtime: Runtime) -> None:
        self._program, self._runtime = program, runtime
        self._values = {"name": program.name, "error_recorder": None}
        self._ports = {port.name: port for port in (*program.inputs, *program.outputs)}

    def _port(self, method: str, name: str) -> Port:
        if name not in self._ports:
            raise ValueError(f"{self._where(method)}: no tensor {name!r}; there are {', '.join(self._ports)}")
        return self._ports[name]

    def _is_input(self, name: str) -> bool:
        return any(port.name == name for port in self._program.inputs)

    def _get_num_io_tensors(self) -> int:
        return len(self._ports)

    def _get_num_layers(self) -> int:
        return len(self._program.nodes)

    def _get_num_optimization_profiles(self) -> int:
        return max(1, *(len(port.profiles) for port in self._program.inputs))

    def _get_profiling_verbosity(self) -> Enum:
        return self._space.names["ProfilingVerbosity"].__members__[self._program.settings["profiling_verbosity"]]

    def _do_get_tensor_name(self, index: int) -> str:
        return list(self._ports)[index]

    def _do_get_tensor_mode(self, name: str) -> Enum:
        modes = self._space.names["TensorIOMode"]
        self._port("get_tensor_mode", name)
        return modes.INPUT if self._is_input(name) else modes.OUTPUT

    def _do_get_tensor_dtype(self, name: str) -> Enum:
        return self._space.names["DataType"].__members__[self._port("get_tensor_dtype", name).dtype]

    def _do_get_tensor_shape(self, name: str) -> Dims:
        return self._space.names["Dims"](self._port("get_tensor_shape", name).shape)

    def _do_get_tensor_location(self, name: str) -> Enum:
        self._port("get_tensor_location", name)
        return self._space.names["TensorLocation"].DEVICE

    def _do_get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        port = self._port("get_tensor_profile_shape", name)
        if not self._is_input(name) or not 0 <= profile_index < self._get_num_optimization_profiles():
            raise ValueError(f"{self._where('get_tensor_profile_shape')}: {name} is no input, or there is no profile {profile_index}")
        return [self._space.names["Dims"](shape) for shape in (port.profiles[profile_index] if port.profiles else (port.shape,) * 3)]

    def _do_create_execution_context(self, strategy: Enum | None = None, runtime_config: object = None) -> Context:
        return self._space.new("IExecutionContext", engine=self)

    def _do_serialize(self) -> HostMemory:
        return self._space.names["IHostMemory"]._of(self._program.to_bytes())

    def _do_create_engine_inspector(self) -> Guarded:
        return self._space.new("EngineInspector", engine=self)


class Inspector(Guarded):
    def _setup(self, engine: Engine) -> None:
        self._engine = engine

    def _do_get_engine_information(self, format: Enum) -> str:
        names = [node.name for node in self._engine._program.nodes]
        return json.dumps({"Layers": names}) if format.name == "JSON" else "\n".join(names)


class Context(Guarded):
    """`_shapes`: of the inputs, as they are set. `_plain`: addresses and shapes with which a plain run took place, as a capture needs before it."""

    def _setup(self, engine: Engine) -> None:
        self._engine = engine
        self._values = {"name": "", "error_recorder": None, "active_optimization_profile": 0}
        self._shapes: dict[str, Shape] = {port.name: port.shape for port in engine._program.inputs if -1 not in port.shape}
        self._addresses: dict[str, int] = {}
        self._plain: set[tuple[Any, ...]] = set()

    @property
    def _program(self) -> Program:
        return self._engine._program

    def _failed(self, message: str) -> bool:
        """What the API does where it returns False: an error in the log."""
        report(self._engine._runtime, f"IExecutionContext: {message}")
        return False

    def _get_engine(self) -> Engine:
        return self._engine

    def _get_all_binding_shapes_specified(self) -> bool:
        return not self._do_infer_shapes()

    def _do_set_input_shape(self, name: str, shape: Any) -> bool:
        port = self._engine._port("set_input_shape", name)
        if not self._engine._is_input(name):
            return self._failed(f"{name} is an output, its shape follows from the inputs")
        wanted = tuple(shape)
        if not all(isinstance(side, int) for side in wanted):
            raise TypeError(f"{self._where('set_input_shape')}: {wanted} are no integers")
        least, _, most = port.profiles[self._values["active_optimization_profile"]] if port.profiles else (port.shape,) * 3
        if not fits(wanted, port.shape) or not all(a <= b <= c for a, b, c in zip(least, wanted, most, strict=True)):
            return self._failed(f"input {name} {list(wanted)} is outside of its profile, {list(least)} to {list(most)}")
        self._shapes[name] = wanted
        return True

    def _do_infer_shapes(self) -> list[str]:
        """Inputs whose shape or address is missing."""
        return [port.name for port in self._program.inputs if port.name not in self._shapes]

    def _all_shapes(self) -> dict[str, Shape]:
        specs = infer_all(self._program.nodes, {port.id: Spec(self._shapes[port.name], port.dtype) for port in self._program.inputs})
        return {name: specs[port.id].shape for name, port in self._engine._ports.items()}

    def _do_get_tensor_shape(self, name: str) -> Dims:
        port = self._engine._port("get_tensor_shape", name)
        return self._space.names["Dims"](port.shape if self._do_infer_shapes() else self._all_shapes()[name])

    def _do_set_tensor_address(self, name: str, memory: int) -> bool:
        self._engine._port("set_tensor_address", name)
        self._addresses[name] = memory
        return True

    def _do_get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def _do_set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if not 0 <= profile_index < self._engine._get_num_optimization_profiles():
            return self._failed(f"there is no profile {profile_index}")
        self._values["active_optimization_profile"] = profile_index
        self._shapes = {port.name: port.shape for port in self._program.inputs if -1 not in port.shape}
        return True

    def _do_execute_async_v3(self, stream_handle: int) -> bool:
        device = self._space.device
        stream = device.streams.get(stream_handle)
        if stream is None:
            return self._failed(f"{stream_handle} is no stream")
        if self._do_infer_shapes():
            return self._failed(f"no shape was set for {', '.join(self._do_infer_shapes())}")
        missing = [name for name in self._engine._ports if name not in self._addresses]
        if missing:
            return self._failed(f"no address was set for {', '.join(missing)}")
        buffers = {}
        for name, shape in self._all_shapes().items():
            dtype = np.dtype(DTYPES[self._engine._ports[name].dtype])
            memory = device.find(self._addresses[name], int(np.prod(shape)) * dtype.itemsize, "device")
            if memory is None:
                return self._failed(f"the address of {name} is not that of {list(shape)} {dtype} in device memory")
            buffers[name] = memory.view(dtype).reshape(shape)
        inputs = [port.name for port in self._program.inputs]
        program = self._program

        def execute() -> None:
            for name, value in run(program, {name: buffers[name].copy() for name in inputs}).items():
                buffers[name][...] = value

        state = tuple(sorted(self._shapes.items()))
        if stream.captured is not None and state not in self._plain:
            stream.broken = True
            return self._failed("captured before a plain execution with these shapes")
        if not stream.add(execute):
            return self._failed("the capture of the stream was invalidated")
        self._plain.add(state)
        return True

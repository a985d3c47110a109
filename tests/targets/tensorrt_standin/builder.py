"""Logger, Builder, IBuilderConfig, IOptimizationProfile, ITimingCache and IHostMemory."""

from __future__ import annotations

import json
import weakref
from typing import Any, ClassVar

from tests.targets.tensorrt_standin.api import Enum, Guarded
from tests.targets.tensorrt_standin.network import Network
from tests.targets.tensorrt_standin.program import Port, Program, Shape
from tests.targets.tensorrt_standin.shapes import RefusedError, Spec, infer_all, need
from tests.targets.tensorrt_standin.values import Dims

SEVERITIES = {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3, "VERBOSE": 4}

# Of a weakly typed network; TensorRT 10 refuses them in a strongly typed one, 11 has none of them.
PRECISION_FLAGS = ("FP16", "INT8", "BF16", "FP8", "INT4", "FP4", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS")


class BaseLogger(Guarded):
    """What users derive their own from, with a method `log(severity, msg)`."""

    def _do_log(self, severity: Enum, msg: str) -> None:
        raise NotImplementedError(f"{self._where('log')}: pure virtual, a subclass must define it")


class Logger(BaseLogger):
    """`_messages`: all that was logged, whatever the severity."""

    def _setup(self, min_severity: Enum) -> None:
        self._values = {"min_severity": min_severity}
        self._messages: list[str] = []

    def _do_log(self, severity: Enum, msg: str) -> None:
        self._messages.append(f"[{severity.name}] {msg}")


class ErrorRecorder(Guarded):
    pass


class ProgressMonitor(Guarded):
    """Users derive their own, with phase_start, step_complete (False stops the build) and phase_finish."""


class HostMemory(Guarded, bytes):
    """A buffer and nothing else: no length, no indexing; wrap it in bytes() or memoryview(), or write it to a file."""

    @classmethod
    def _of(cls, data: bytes) -> HostMemory:
        return bytes.__new__(cls, data)

    def __getattribute__(self, name: str) -> Any:
        return Guarded.__getattr__(self, name) if not name.startswith("_") else object.__getattribute__(self, name)

    def _get_nbytes(self) -> int:
        return memoryview(self).nbytes

    def _get_dtype(self) -> Enum:
        return self._space.names["DataType"].INT8

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        raise TypeError(f"{self._where()} has no len(); it has nbytes")

    def __getitem__(self, index: Any) -> Any:
        raise TypeError(f"{self._where()} cannot be indexed; wrap it in bytes() or memoryview()")

    def __iter__(self) -> Any:
        raise TypeError(f"{self._where()} cannot be iterated")


class Profile(Guarded):
    """`_shapes`: of each input (least, best, largest)."""

    def _setup(self) -> None:
        self._shapes: dict[str, tuple[Dims, Dims, Dims]] = {}

    def _do_set_shape(self, input: str, min: Dims, opt: Dims, max: Dims) -> None:
        if len({len(min), len(opt), len(max)}) != 1 or not all(1 <= a <= b <= c for a, b, c in zip(min, opt, max, strict=True)):
            raise ValueError(f"{self._where('set_shape')}: {input} from {min} by {opt} to {max} is inconsistent")
        self._shapes[input] = (min, opt, max)

    def _do_get_shape(self, input: str) -> list[Dims]:
        return list(self._shapes[input])

    def __bool__(self) -> bool:
        return bool(self._shapes)


class TimingCache(Guarded):
    def _setup(self, content: dict[str, Any]) -> None:
        self._content = content

    def _do_serialize(self) -> HostMemory:
        return self._space.names["IHostMemory"]._of(json.dumps(self._content).encode())

    def _do_reset(self) -> bool:
        self._content["entries"] = []
        return True

    def _do_combine(self, input_cache: TimingCache, ignore_mismatch: bool) -> bool:
        if input_cache._content["version"] != self._content["version"] and not ignore_mismatch:
            return False
        self._content["entries"] = sorted({*self._content["entries"], *input_cache._content["entries"]})
        return True


class Config(Guarded):
    _defaults: ClassVar[dict[str, Any]] = {"builder_optimization_level": 3, "avg_timing_iterations": 1, "max_num_tactics": -1, "DLA_core": -1}

    def _setup(self) -> None:
        self._values = dict(self._defaults)
        self._flags = {"TF32"}  # on by default
        self._profiles: list[Profile] = []
        self._limits: dict[str, int] = {}
        self._cache: weakref.ref[TimingCache] | None = None

    def _set_builder_optimization_level(self, value: int) -> None:
        if not 0 <= value <= 5:
            raise ValueError(f"{self._where('builder_optimization_level')} is {value}, expected 0 to 5")
        self._values["builder_optimization_level"] = value

    def _get_flags(self) -> int:
        members = self._space.names["BuilderFlag"].__members__
        return sum(1 << members[name].value for name in self._flags)

    def _set_flags(self, value: int) -> None:
        members = self._space.names["BuilderFlag"].__members__
        self._flags = {name for name, member in members.items() if value >> member.value & 1}

    def _get_num_optimization_profiles(self) -> int:
        return len(self._profiles)

    def _do_set_flag(self, flag: Enum) -> None:
        self._flags.add(flag.name)

    def _do_clear_flag(self, flag: Enum) -> None:
        self._flags.discard(flag.name)

    def _do_get_flag(self, flag: Enum) -> bool:
        return flag.name in self._flags

    def _do_set_memory_pool_limit(self, pool: Enum, pool_size: int) -> None:
        if pool_size < 0:
            raise ValueError(f"{self._where('set_memory_pool_limit')}: {pool_size} bytes")
        self._limits[pool.name] = pool_size

    def _do_get_memory_pool_limit(self, pool: Enum) -> int:
        return self._limits.get(pool.name, 1 << 34)

    def _do_add_optimization_profile(self, profile: Profile) -> int:
        if not profile:
            raise RuntimeError(f"{self._where('add_optimization_profile')}: the profile sets no shape")
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def _do_create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache | None:
        content: Any = {"version": self._space.version, "entries": []}
        if serialized_timing_cache:
            try:
                content = json.loads(serialized_timing_cache)
                _ = content["version"], content["entries"]
            except (ValueError, TypeError, KeyError):
                return None
        return self._space.new("ITimingCache", content=content)

    def _do_set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        if cache._content["version"] != self._space.version and not ignore_mismatch:
            return False
        self._cache = weakref.ref(cache)
        return True

    def _do_get_timing_cache(self) -> TimingCache | None:
        return self._cache() if self._cache else None

    def _do_reset(self) -> None:
        self._setup()


class Builder(Guarded):
    def _setup(self, logger: BaseLogger) -> None:
        self._values = {"logger": logger, "error_recorder": None, "max_threads": 1}

    def _do_create_builder_config(self) -> Config:
        return self._space.new("IBuilderConfig")

    def _do_create_optimization_profile(self) -> Profile:
        return self._space.new("IOptimizationProfile")

    def _do_create_network(self, flags: int) -> Network:
        known = self._space.names["NetworkDefinitionCreationFlag"].__members__
        if flags >> (max(member.value for member in known.values()) + 1):
            raise ValueError(f"{self._where('create_network')}: flags {flags:#x} beyond {', '.join(known)}")
        # TensorRT 11 has no other networks and ignores the flag.
        if self._space.version.startswith("10.") and not flags >> known["STRONGLY_TYPED"].value & 1:
            given = [name for name, member in known.items() if flags >> member.value & 1]
            message = f"flags {flags:#x} ({', '.join(given) or 'none'}) make a weakly typed network, expected 1 << int(STRONGLY_TYPED)"
            raise ValueError(f"{self._where('create_network')}: {message}")
        return self._space.new("INetworkDefinition", builder=self, flags=flags)

    def _do_is_network_supported(self, network: Network, config: Config) -> bool:
        return True

    def _do_build_serialized_network(self, network: Network, config: Config, kernel_text: object = None) -> HostMemory | None:
        if kernel_text is not None:
            raise NotImplementedError(f"{self._where('build_serialized_network')}: kernel_text")
        monitor = config.progress_monitor
        try:
            if monitor is not None:
                _show(monitor, len(network))
            program = program_of(network, config)
        except RefusedError as error:
            report(self, str(error))
            return None
        cache = config.get_timing_cache()
        if cache is not None:
            cache._content["entries"] = sorted({*cache._content["entries"], *(node.kind for node in program.nodes)})
        return self._space.names["IHostMemory"]._of(program.to_bytes())


def _show(monitor: Any, layers: int) -> None:
    """Two nested phases, as TensorRT has them. Raises RefusedError where the monitor stops the build."""
    monitor.phase_start("Building Engine", None, 1)
    monitor.phase_start("Tactic Selection", "Building Engine", layers)
    stopped = not all(monitor.step_complete("Tactic Selection", step) for step in range(layers))
    monitor.phase_finish("Tactic Selection")
    stopped = not monitor.step_complete("Building Engine", 0) or stopped
    monitor.phase_finish("Building Engine")
    need(not stopped, "the build was stopped by the progress monitor")


def report(owner: Guarded, message: str) -> None:
    """An error where TensorRT would put it: in the log and the error recorder. Tests find it in the space, too."""
    space = owner._space
    space.errors.append(message)
    owner.logger.log(space.names["Severity"].ERROR, message)
    recorder = owner.error_recorder
    if recorder is not None:
        recorder.report_error(space.names["ErrorCodeTRT"].INVALID_ARGUMENT, message)


def program_of(network: Network, config: Config | None = None) -> Program:
    """Raises RefusedError for what TensorRT would not build. Without config, nothing outside the network is checked."""
    nodes = network._nodes()
    settings: dict[str, Any] = {}
    if config is not None:
        wrong = [name for name in PRECISION_FLAGS if name in config._flags]
        need(not wrong, f"builder flags {', '.join(wrong)} are not for a strongly typed network")
        need(config._cache is None or config._cache() is not None, "the timing cache was freed before the build; keep a reference to it")
        settings = {
            "flags": sorted(config._flags),
            "memory": config._limits,
            "builder_optimization_level": config._values["builder_optimization_level"],
            "profiling_verbosity": config.profiling_verbosity.name,
        }
    profiles = config._profiles if config is not None else []
    inputs = tuple(network._port(tensor, profiles) for tensor in network._inputs)
    if config is not None:
        for port in inputs:
            _check_profiles(port, len(profiles))
    for index in range(len(profiles)):
        for side in (0, 1, 2):
            infer_all(nodes, {port.id: Spec(port.profiles[index][side] if port.profiles else port.shape, port.dtype) for port in inputs})
    outputs = tuple(network._port(tensor) for tensor in network._outputs)
    return Program(network._space.version, network.name, inputs, outputs, tuple(nodes), settings)


def _check_profiles(port: Port, count: int) -> None:
    if -1 in port.shape:
        need(count > 0, f"input {port.name} has dynamic dimensions {list(port.shape)}, but no optimization profile was added")
        need(len(port.profiles) == count, f"input {port.name} {list(port.shape)} is missing from an optimization profile")
    need(len(port.profiles) in (0, count), f"input {port.name} {list(port.shape)} is in {len(port.profiles)} of {count} optimization profiles")
    for shapes in port.profiles:
        for shape in shapes:
            need(fits(shape, port.shape), f"profile shape {list(shape)} does not match input {port.name} {list(port.shape)}")


def fits(shape: Shape, declared: Shape) -> bool:
    return len(shape) == len(declared) and all(wanted in (-1, side) for side, wanted in zip(shape, declared, strict=True))

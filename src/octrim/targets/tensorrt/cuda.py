"""The few calls of the CUDA runtime that running an engine needs, through `cuda.bindings` (cuda-python 12.9 and 13), and facts about the GPU.

CUDA's bindings are imported only when `cuda_runtime` is called: the rest of OcTrim works without them.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

import numpy as np

from octrim.errors import InputError, shown

INSTALL = "pip install 'octrim[tensorrt]' on the machine with the GPU (on a Jetson TensorRT comes with JetPack: see docs/deploy.md)"


class CudaError(InputError):
    """Error for a failed call of the CUDA runtime. name: name of the error, as CUDA spells it."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True)
class Gpu:
    """Properties of a GPU that engines depend on.

    capability: compute capability, "8.7". cuda, driver: versions of the runtime, and the newest that the driver knows.
    """

    name: str
    capability: str
    cuda: str
    driver: str


class Cuda:
    """Calls of the CUDA runtime whose errors are exceptions."""

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the CUDA runtime and return its result, None where it has none. Raises CudaError where it fails."""
        error, *results = getattr(self.runtime, function)(*arguments)
        if error != self.runtime.cudaError_t.cudaSuccess:
            _, text = self.runtime.cudaGetErrorString(error)
            words = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
            raise CudaError(f"{function}: {words} ({error.name})", error.name)
        return results[0] if results else None

    def gpu(self) -> Gpu:
        """The current device: the first that CUDA_VISIBLE_DEVICES lets through. Raises InputError where there is none."""
        try:
            self.call("cudaGetDeviceCount")
            properties = self.call("cudaGetDeviceProperties", self.call("cudaGetDevice"))
            versions = [_version(self.call(function)) for function in ("cudaRuntimeGetVersion", "cudaDriverGetVersion")]
        except CudaError as error:
            if error.name == "cudaErrorInsufficientDriver":
                major = _version(self.call("cudaRuntimeGetVersion"))
                raise InputError(
                    f"no NVIDIA driver here, or one older than CUDA {major} ({error.name}); run this on the machine with the GPU, "
                    f"update its driver, or for a driver of CUDA 12 pip install 'octrim[tensorrt-cu12]' in a new environment"
                ) from None
            if error.name == "cudaErrorNoDevice":
                raise InputError(f"no NVIDIA GPU is visible ({error.name}); is CUDA_VISIBLE_DEVICES right?") from None
            raise
        name = properties.name.decode("utf-8", "replace") if isinstance(properties.name, bytes) else str(properties.name)
        return Gpu(name.rstrip("\0"), f"{properties.major}.{properties.minor}", *versions)

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> tuple[np.ndarray, int]:
        """An array in page-locked host memory, which the GPU copies from without a detour, and its address for `cudaFreeHost`."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        pointer = int(self.call("cudaHostAlloc", size, self.runtime.cudaHostAllocDefault))
        memory = (ctypes.c_uint8 * size).from_address(pointer)
        return np.ctypeslib.as_array(memory).view(dtype).reshape(shape), pointer


def cuda_runtime() -> Cuda:
    """The CUDA runtime through cuda-python. Raises InputError, telling what to install, where that is missing."""
    try:
        from cuda.bindings import runtime  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(f"the CUDA bindings cannot be imported ({shown(str(error))}); {INSTALL}") from None
    return Cuda(runtime)


def _version(number: int) -> str:
    """Version from CUDA's number for it: 12090 is 12.9."""
    return f"{number // 1000}.{number % 1000 // 10}"


# Names in reports, and the fields for which nvidia-smi is asked. Clocks are the current ones and the highest possible ones.
_QUERY = {
    "name": "name",
    "driver": "driver_version",
    "sm_clock": "clocks.sm",
    "sm_clock_max": "clocks.max.sm",
    "memory_clock": "clocks.mem",
    "memory_clock_max": "clocks.max.mem",
    "power_limit": "power.limit",
}


def nvidia_smi() -> dict[str, str]:
    """Answers of `nvidia-smi` about the first GPU; empty where there is no such program, as on a Jetson, or it does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    command = [program, f"--query-gpu={','.join(_QUERY.values())}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in answer.partition("\n")[0].split(",")]
    if len(values) != len(_QUERY):
        return {}
    return {key: value for key, value in zip(_QUERY, values, strict=True) if value and not value.startswith("[")}

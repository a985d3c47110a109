"""Opens whatever can run: a model, a model file, a checkpoint or a deployable."""

from __future__ import annotations

from pathlib import Path

from octrim.errors import InputError
from octrim.network.model import Model, load
from octrim.targets.reference import NumpySession, PaddleSession
from octrim.targets.session import Session

RUNTIMES = ("openvino", "onnxruntime", "paddle", "numpy")


def open_session(weights: str | Path | Model, runtime: str | None = None, precision: str = "fp32", threads: int | None = None) -> Session:
    """A session over a model, a model file, a checkpoint, or a deployable: an `.onnx` file, OpenVINO IR (`.xml`, or the folder that holds it), a
    TensorRT `.engine` with its header file, or a folder for Paddle Inference.

    runtime: one of RUNTIMES; by default OpenVINO, and ONNX Runtime for an `.onnx` file that OpenVINO is not asked to run. Other deployables run
    in their own runtime only. precision: "fp32" is float32 whatever the runtime would choose; OpenVINO also offers "bf16" and "fp16", ONNX
    Runtime "fp16", both "int8" for models with scales. An ONNX file in ONNX Runtime, and an engine, run as they were exported.
    threads: of a processor's runtime, all usable cores by default. Raises InputError for what cannot be read or does not go together.
    """
    if runtime == "tensorrt" and not str(weights).endswith(".engine"):
        raise InputError("TensorRT runs engine files: octrim export --format tensorrt writes one")
    if runtime not in (None, "tensorrt", *RUNTIMES):
        raise InputError(f"unknown runtime {runtime!r}; expected one of {', '.join(RUNTIMES)}")
    if threads is not None and not 1 <= threads <= 1024:
        raise InputError(f"threads is {threads}, expected 1 to 1024")
    if isinstance(weights, Model):
        return _model_session(weights, runtime or "openvino", precision, threads)
    path = Path(weights)
    if path.is_dir() and (files := sorted(path.glob("*.xml"))):
        path = files[0]
    elif path.is_dir() and (path / "model.json").is_file():
        _only("a folder for Paddle Inference runs", path, runtime, "paddle")
        from octrim.targets.paddle_inference.session import PaddleInferenceSession

        return PaddleInferenceSession(path, precision, threads)
    if path.suffix == ".engine":
        _only("an engine runs", path, runtime, "tensorrt")
        from octrim.targets.tensorrt.session import TensorrtFileSession

        return TensorrtFileSession(path, precision)
    if path.suffix not in (".onnx", ".xml"):
        return _model_session(load(path), runtime or "openvino", precision, threads)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".xml" or runtime == "openvino":
        _only("OpenVINO IR runs", path, runtime, "openvino")
        from octrim.targets.openvino.session import OpenvinoFileSession

        return OpenvinoFileSession(path, precision, threads)
    if runtime not in (None, "onnxruntime"):
        raise InputError(f"{path}: an ONNX file runs in onnxruntime or openvino, not in {runtime}")
    from octrim.targets.onnx.session import OnnxruntimeFileSession

    return OnnxruntimeFileSession(path, precision, threads)


def _only(what: str, path: Path, runtime: str | None, own: str) -> None:
    if runtime not in (None, own):
        raise InputError(f"{path}: {what} in {own}, not in {runtime}")


def _model_session(model: Model, runtime: str, precision: str, threads: int | None) -> Session:
    offered = {"openvino": ("fp32", "bf16", "fp16", "int8"), "onnxruntime": ("fp32", "fp16", "int8")}.get(runtime, ("fp32",))
    if precision not in offered:
        raise InputError(f"{runtime} runs in {', '.join(offered)}; {precision} was asked for")
    if precision == "int8" and not model.scales:
        raise InputError("int8 needs a model with scales, and this one has none: octrim quantize makes them")
    if threads is not None and runtime == "numpy":
        raise InputError("numpy's threads are set by the environment (OMP_NUM_THREADS), not by --threads")
    if runtime == "openvino":
        from octrim.targets.openvino.session import OpenvinoSession as Kind
    elif runtime == "onnxruntime":
        from octrim.targets.onnx.session import OnnxruntimeSession as Kind
    else:
        Kind = PaddleSession if runtime == "paddle" else NumpySession
    return Kind(model, precision, threads)

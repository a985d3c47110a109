"""OcTrim makes a YOLOv5 detector small enough for the edge.

model = octrim.load("yolov5n.pt")
small = octrim.prune(model, octrim.plan(model, keep="1/2", align=8))
small.save("small.safetensors")
for detections in octrim.Detector(small).predict("bus.jpg"):
    print(detections.summary())
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# ONNX Runtime's newer wheels send events to Microsoft, unless told otherwise before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from octrim.compression.pipeline import Compressed, compress
    from octrim.deploy.export import export
    from octrim.detector import Detector
    from octrim.errors import InputError
    from octrim.evaluate.detections import Detection, Detections
    from octrim.network.initialize import fresh_model
    from octrim.network.loading import load
    from octrim.network.model import Model
    from octrim.pruning.cut import prune
    from octrim.pruning.plan import Plan, plan
    from octrim.quantization.calibration import quantize
    from octrim.training.finetune import finetune
    from octrim.training.gradients import batch_gradients
    from octrim.training.sensitivity import sensitivity
    from octrim.training.sensitivity_curves import SensitivityCurves
    from octrim.training.sparsify import sparsify
    from octrim.training.train import Trained, train

__all__ = [
    "Compressed",
    "Detection",
    "Detections",
    "Detector",
    "InputError",
    "Model",
    "Plan",
    "SensitivityCurves",
    "Trained",
    "batch_gradients",
    "compress",
    "export",
    "finetune",
    "fresh_model",
    "load",
    "plan",
    "prune",
    "quantize",
    "sensitivity",
    "sparsify",
    "train",
]

# Names are imported when they are first used: `octrim --help` must not wait for OpenCV and the runtimes.
_HOMES = {
    "Detection": "octrim.evaluate.detections",
    "Detections": "octrim.evaluate.detections",
    "Detector": "octrim.detector",
    "Compressed": "octrim.compression.pipeline",
    "InputError": "octrim.errors",
    "Model": "octrim.network.model",
    "Plan": "octrim.pruning.plan",
    "SensitivityCurves": "octrim.training.sensitivity_curves",
    "Trained": "octrim.training.train",
    "batch_gradients": "octrim.training.gradients",
    "compress": "octrim.compression.pipeline",
    "export": "octrim.deploy.export",
    "finetune": "octrim.training.finetune",
    "fresh_model": "octrim.network.initialize",
    "load": "octrim.network.loading",
    "plan": "octrim.pruning.plan",
    "prune": "octrim.pruning.cut",
    "quantize": "octrim.quantization.calibration",
    "sensitivity": "octrim.training.sensitivity",
    "sparsify": "octrim.training.sparsify",
    "train": "octrim.training.train",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'octrim' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

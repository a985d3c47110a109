"""OcTrim makes a YOLOv5 detector small enough for the edge.

model = octrim.load("yolov5n.pt")
small = octrim.prune(model, octrim.plan(model, keep="1/2", align=8))
small.save("small.safetensors")
for detections in small.predict("bus.jpg"):
    print(detections.summary())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octrim.deploy.export import export
    from octrim.detector import Detector
    from octrim.errors import InputError
    from octrim.evaluate.detections import Detection, Detections
    from octrim.network.initialize import fresh_model
    from octrim.network.model import Model, load
    from octrim.pruning.cut import prune
    from octrim.pruning.plan import Plan, plan
    from octrim.training.train import Trained, train

__all__ = ["Detection", "Detections", "Detector", "InputError", "Model", "Plan", "Trained", "export", "fresh_model", "load", "plan", "prune", "train"]

# Names are imported when they are first used: `octrim --help` must not wait for OpenCV and the runtimes.
_HOMES = {
    "Detection": "octrim.evaluate.detections",
    "Detections": "octrim.evaluate.detections",
    "Detector": "octrim.detector",
    "InputError": "octrim.errors",
    "Model": "octrim.network.model",
    "Plan": "octrim.pruning.plan",
    "Trained": "octrim.training.train",
    "export": "octrim.deploy.export",
    "fresh_model": "octrim.network.initialize",
    "load": "octrim.network.model",
    "plan": "octrim.pruning.plan",
    "prune": "octrim.pruning.cut",
    "train": "octrim.training.train",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'octrim' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

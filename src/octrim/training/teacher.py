"""The network that a student learns from. Only its forward pass is needed, and its weights stay, so it runs faster than a network that is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octrim.backends.onednn.inference import Inference, Precision
from octrim.backends.onednn.library import RefusedError, has_bfloat16
from octrim.backends.paddle import PaddleNetwork, memory_of, paddle
from octrim.errors import InputError
from octrim.network.folding import folded
from octrim.network.model import Model
from octrim.options import TeacherPrecision

_FORMATS: Mapping[str, Precision] = {"fp32": "float32", "bf16": "bfloat16"}
_NOT_HERE = "--teacher-precision {} cannot be had here ({}): begin a run without it, whose teacher then runs in fp32"


class Teacher:
    """A network without gradients.

        heads, features = Teacher(model)(images, features=True)

    On a processor oneDNN runs it with its weights prepared once and its activations within the convolutions; on a GPU, or where oneDNN refuses it,
    Paddle does. In fp32 either computes what `PaddleNetwork` does. Raises InputError for bf16 where only Paddle can run it, or where the processor
    does not multiply in bfloat16.
    """

    def __init__(self, model: Model, precision: TeacherPrecision = "fp32") -> None:
        self.model, self.precision = folded(model), precision
        require_precision(precision)
        self._inference: Inference | None = None
        self._network: PaddleNetwork | None = None
        try:
            if not _on_processor():
                raise RefusedError("not on a processor")
            self._inference = Inference(self.model, _FORMATS[precision])
        except RefusedError as error:
            self._fall_back(error)

    def __call__(self, images: Any, features: bool = False) -> tuple[list[Any], list[Any]]:
        """Logits per level, and with `features` per level the map that Detect's convolution reads, as `PaddleNetwork.with_features` gives them.

        images: float32 tensor `[batch, 3, height, width]`, 0..1.
        """
        if self._inference is not None:
            try:
                images = images.contiguous()
                made = [paddle.empty(shape, "float32") for shape in self._inference.outputs(tuple(images.shape), features)]
                self._inference.run(memory_of(images), [memory_of(one) for one in made], features)
            except RefusedError as error:
                self._fall_back(error)
            else:
                levels = len(self.model.network.heads)
                return made[:levels], made[levels:]
        assert self._network is not None
        with paddle.no_grad():
            return self._network.with_features(images) if features else (self._network(images), [])

    def _fall_back(self, reason: object) -> None:
        """Let Paddle run the network from now on."""
        if self.precision != "fp32":
            raise InputError(_NOT_HERE.format(self.precision, reason))
        self._inference, self._network = None, PaddleNetwork(self.model)
        for parameter in self._network.parameters():
            parameter.stop_gradient = True


def require_precision(precision: TeacherPrecision) -> None:
    """Raise InputError where a teacher cannot run in this precision on the device that Paddle uses."""
    if precision == "fp32":
        return
    if not _on_processor():
        raise InputError(_NOT_HERE.format(precision, "only on processors, and the training runs on a GPU"))
    if not has_bfloat16():
        raise InputError(_NOT_HERE.format(precision, "oneDNN has no instructions of this processor for it: AVX-512 BF16, AMX"))


def _on_processor() -> bool:
    return paddle.device.get_device() == "cpu"

"""Sessions that belong to no target: the trainable network in Paddle, and the NumPy reference."""

from __future__ import annotations

import numpy as np

from octrim.network.model import Model
from octrim.network.rows import walk
from octrim.targets.session import Session, float_batch, model_info


class PaddleSession(Session):
    """Session that runs the trainable Paddle network in evaluation mode, with batch norm unfolded.

    device: "cpu", "gpu" or "auto", which is the GPU where Paddle has one. It becomes the device of everything that Paddle does in the process.
    """

    def __init__(self, model: Model, precision: str, threads: int | None, device: str = "auto") -> None:
        from octrim.backends import paddle as backend

        backend.use_device(device)
        super().__init__(model_info(model, "paddle", str(backend.paddle.__version__), precision))
        self.backend, self.model, self.threads = backend, model, threads
        self.network = backend.PaddleNetwork(model)

    def run(self, batch: np.ndarray) -> np.ndarray:
        with self.backend.paddle.no_grad(), self.backend.processor_threads(self.threads):
            heads = self.network(self.backend.paddle.to_tensor(float_batch(batch)))
            return self.backend.decode(self.model.network, heads).numpy()


class NumpySession(Session):
    """Session that runs the NumPy reference."""

    def __init__(self, model: Model, precision: str) -> None:
        from octrim.backends import numpy as backend

        super().__init__(model_info(model, "numpy", np.__version__, precision))
        self.backend, self.model = backend, model
        self.ops = backend.NumpyOps(model)

    def run(self, batch: np.ndarray) -> np.ndarray:
        return self.backend.decode(self.model.network, walk(self.model.network, self.ops, float_batch(batch)))

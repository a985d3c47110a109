"""Session that runs a folder for Paddle Inference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from octrim.backends.paddle import paddle, processor_threads
from octrim.errors import InputError, said, shown
from octrim.machine import quiet_stderr, usable_cores
from octrim.targets.metadata import file_info
from octrim.targets.paddle_inference.graph import FILES
from octrim.targets.session import Session, float_batch


class PaddleInferenceSession(Session):
    """Session that runs a folder written by the target `paddle` in Paddle Inference on a processor, by oneDNN."""

    def __init__(self, folder: Path, precision: str = "fp32", threads: int | None = None) -> None:
        from paddle import inference

        if precision != "fp32":
            raise InputError(f"{folder}: Paddle Inference runs it in fp32; {precision} was asked for")
        program, weights, description = (folder / name for name in FILES)
        for file in (program, weights, description):
            if not file.is_file():
                raise InputError(f"{folder}: {file.name} is missing; a Paddle Inference folder has {', '.join(FILES)}")
        try:
            content = json.loads(description.read_text("utf-8"))
            (height, width), batch, classes = content["size"], content["batch"], content["classes"]
            metadata = {key: str(content[key]) for key in ("names", "stride", "octrim")}
            numbers = (height, width, classes, *([] if batch is None else [batch]))
            if not all(type(number) is int and number >= 1 for number in numbers):  # JSON's true is an int for isinstance
                raise ValueError("size, batch and classes must be whole numbers from 1 up")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{description}: is damaged: {shown(str(error))}") from None
        self.folder = folder
        version = str(paddle.__version__)
        super().__init__(file_info(folder, metadata, [batch, 3, height, width], [batch, None, 5 + classes], "paddle-inference", version, "fp32"))
        config = inference.Config(str(program), str(weights))
        config.disable_gpu()
        config.disable_glog_info()
        config.enable_mkldnn()  # oneDNN takes half the time of Paddle's own kernels
        self.threads = threads or usable_cores()
        config.set_cpu_math_library_num_threads(self.threads)
        try:
            with quiet_stderr(), processor_threads(self.threads):
                self.predictor = inference.create_predictor(config)
            self.images, self.output = (
                self.predictor.get_input_handle(self.predictor.get_input_names()[0]),
                self.predictor.get_output_handle(self.predictor.get_output_names()[0]),
            )
        except Exception as error:  # Paddle raises its own classes for programs that it cannot read
            raise InputError(f"{folder}: Paddle Inference cannot read it: {said(error)}") from None

    def run(self, batch: np.ndarray) -> np.ndarray:
        try:
            self.images.reshape([len(batch), 3, *batch.shape[1:3]])
            self.images.copy_from_cpu(float_batch(batch))
            with processor_threads(self.threads):
                self.predictor.run()
            return self.output.copy_to_cpu()
        except Exception as error:  # Paddle raises its own classes
            raise InputError(f"{self.folder}: Paddle Inference cannot run it on {list(batch.shape)}: {said(error)}") from None

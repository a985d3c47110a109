"""How fast are the runtimes beside PyTorch eager, and what do pre-processing and suppression add?

    pip install torch==2.13.0
    python benchmarks/runtimes.py --weights yolov5n.pt --picture bus.jpg [--side 640 --rounds 50]

All run the same table, batch 1, one picture, all cores. PyTorch walks it too (`torch_walk`): batch norm folded, as YOLOv5 does before
inference, decoding left out in its favour.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import cv2
import numpy as np
import torch

from interleave import interleaved, table
from octrim.data.pictures import letterbox, read_picture
from octrim.evaluate.nms import non_max_suppression
from octrim.machine import usable_cores
from octrim.network.loading import load
from octrim.network.rows import walk
from octrim.targets.opening import open_session
from octrim.targets.session import float_batch
from torch_walk import FoldedOps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--picture", required=True)
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(usable_cores())
    model, image = load(options.weights), read_picture(options.picture)

    def prepare():
        return cv2.cvtColor(letterbox(image, options.side, options.side)[0], cv2.COLOR_BGR2RGB)[None]

    batch = prepare()
    images = torch.from_numpy(float_batch(batch))
    ops, wide_ops = FoldedOps(model), FoldedOps(model, layout=torch.channels_last)
    wide = images.contiguous(memory_format=torch.channels_last)

    def eager(ops, images):
        with torch.inference_mode():
            return walk(model.network, ops, images)

    kinds = (("openvino", "fp32"), ("openvino", "bf16"), ("onnxruntime", "fp32"))
    sessions = {f"{runtime} {precision}": open_session(model, runtime, precision) for runtime, precision in kinds}
    predictions = sessions["openvino fp32"](batch)
    expected = walk(model.network, ops, images)
    versions = f"PyTorch {torch.__version__}, OpenVINO {sessions['openvino fp32'].info.version}"
    print(f"{options.weights}, {options.side} px, batch 1, {usable_cores()} cores, {versions}")
    print(f"PyTorch agrees with NumPy: largest logit difference {_difference(model, images.numpy(), expected):.1e}\n")
    candidates: dict[str, Callable[[], object]] = {
        "torch eager": lambda: eager(ops, images),
        "torch eager, channels last": lambda: eager(wide_ops, wide),
    }
    candidates |= {name: (lambda session=session: session(batch)) for name, session in sessions.items()}
    candidates |= {"pre-process": prepare, "suppression": lambda: non_max_suppression(predictions[0])}
    times = interleaved(candidates, options.rounds)
    table(times, "torch eager")
    share = np.median((times["pre-process"] + times["suppression"]) / times["openvino fp32"])
    print(f"\npre-process and suppression together: {share:.3f} of OpenVINO's float32 network time")


def _difference(model, images, expected) -> float:
    from octrim.backends.numpy import NumpyOps

    return max(float(np.abs(a - b.numpy()).max()) for a, b in zip(walk(model.network, NumpyOps(model), images), expected, strict=True))


if __name__ == "__main__":
    main()

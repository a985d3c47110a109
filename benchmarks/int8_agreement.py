"""How many integers of an int8 engine are ONNX Runtime's, row by row on equal inputs, and how far apart are the logits of the whole?

    python -m benchmarks.int8_agreement --weights yolov5n.pt --calibrate-on coco128 --source bus.jpg zidane.jpg --side 640

The engine runs in NumPy, in the stand-in of the tests, with float16 and with float32 between; ONNX Runtime without optimisations. A line per picture
and precision: share of equal integers, that of the row with the lowest, most steps apart, and the median relative difference of the logits; behind it
what int8 itself changes, ONNX in int8 against ONNX in float32.
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np

from octrim.data.picture_paths import picture_paths
from octrim.data.pictures import letterbox, read_picture
from octrim.network.loading import load
from octrim.network.scales import Scales, quantized
from octrim.quantization.calibration import quantize
from octrim.targets.onnx.graph import onnx_model
from octrim.targets.session import float_batch
from octrim.targets.tensorrt.build import build_engine
from tests.targets.int8_reference import onnx_rows, run_onnx
from tests.targets.tensorrt_standin import VERSIONS, execute, installed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--calibrate-on", required=True)
    parser.add_argument("--source", nargs="+", required=True)
    parser.add_argument("--side", type=int, default=640)
    options = parser.parse_args()
    side = options.side
    model = quantize(load(options.weights), picture_paths(options.calibrate_on, 200, 0), imgsz=side)
    scales = Scales(model.network, model.scales)
    rows = [row.name for row in model.network.rows[1:-1]]
    for source in options.source:
        batch = cv2.cvtColor(letterbox(read_picture(source), side, side)[0], cv2.COLOR_BGR2RGB)[None]
        exact = run_onnx(onnx_model(model, side, side, decode=False), {"images": float_batch(batch)})
        for high in ("fp16", "fp32"):
            with installed(VERSIONS[-1]):
                maps = execute(build_engine(model, side, side, "int8", decode=False, high_precision=high), {"images": batch}, tap=True)
            values = {name: maps[name].astype(np.float32) for name in rows} | {"images": float_batch(batch)}
            expected = onnx_rows(model, values)
            apart = [
                np.abs(quantized(values[name], scale).astype(int) - quantized(expected[name], scale)).ravel()
                for name in rows
                if (scale := scales.map(name)) is not None
            ]
            steps = np.concatenate(apart)
            equal, lowest = steps.size - np.count_nonzero(steps), min((one == 0).mean() for one in apart)
            shares = f"{equal:,} of {steps.size:,} equal ({equal / steps.size:.7f}), lowest row {lowest:.5f}, at most {steps.max()} apart"
            print(f"{source} {high}: {shares}; logits {median(maps, expected):.4f}, int8 itself {median(expected, exact):.4f}", flush=True)


def median(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    heads = [name for name in expected if name.startswith("head")]
    return float(np.median(np.concatenate([np.abs(found[name] / expected[name] - 1).ravel() for name in heads])))


if __name__ == "__main__":
    main()

"""What does int8 cost in accuracy, by how the scales were calibrated?

    python benchmarks/quantization.py --weights yolov5n.pt --data coco128 --calibrate-on coco128 other-pictures --out runs/quantization

Calibrates once per set of pictures, and evaluates the float32 network and an int8 network per method, as ONNX graphs in ONNX Runtime, and the
last method in OpenVINO too. Every picture is letterboxed to the side. Prints a line per network and appends it to OUT/results.jsonl; networks
that stand in there are not run again.

    python -m benchmarks.quantization .. --engines

also evaluates TensorRT engines, in fp32, fp16, and int8 with float16 and float32 between, built and run in NumPy by the stand-in of the tests: what
the recorded layers compute, half a second a picture, not what a GPU makes of them.
"""

from __future__ import annotations

import argparse
import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import openvino as ov

from octrim.data.open import open_dataset
from octrim.data.picture_paths import picture_paths
from octrim.evaluate.val import evaluate
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.quantization.calibration import Calibration, calibrate
from octrim.quantization.errors import logit_error
from octrim.targets.onnx.graph import onnx_model
from octrim.targets.opening import open_session
from octrim.targets.openvino.int8 import openvino_int8_model
from octrim.targets.table import TARGETS
from octrim.targets.target import Order
from octrim.targets.tensorrt.options import EngineOptions

METHODS = ("percentile:99.9", "percentile:99.99", "percentile:99.999", "histogram", "max")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--calibrate-on", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--skip", nargs="*", default=[])
    parser.add_argument("--engines", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.jsonl"
    model = load(options.weights)
    side = options.side
    dataset = open_dataset(options.data, "val", model.names)
    done = {tuple(line["key"]) for line in map(json.loads, results.read_text().splitlines())} if results.exists() else set()

    def measured(key: tuple[str, ...], network: Model, precision: str, runtime: str = "onnxruntime", high_precision: str = "fp16") -> None:
        if key in done:
            return
        path = options.out / {"onnxruntime": "graph.onnx", "openvino": "graph.xml", "tensorrt": "graph.engine"}[runtime]
        with gpu() if runtime == "tensorrt" else nullcontext():
            if runtime == "onnxruntime":
                path.write_bytes(onnx_model(network, side, side, precision=precision).SerializeToString())
            elif runtime == "openvino":
                ov.save_model(openvino_int8_model(network, side, side), path, compress_to_fp16=False)
            else:
                TARGETS["tensorrt"].write(network, path, Order(precision, side, side, 1, EngineOptions(high_precision=high_precision)))
            found = evaluate(open_session(path, runtime), dataset, batch=1, bootstrap=0)
        line = {"key": key, "mAP50-95": found.map, "mAP50": found.map50}
        if precision == "int8" and runtime == "onnxruntime":
            error = logit_error(network, dataset.paths[:16], side, side)
            line |= {"sqnr": error.sqnr, "median_relative": error.median_relative}
        with results.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(*key, *(f"{name} {value:.4f}" for name, value in line.items() if name != "key"), flush=True)

    measured(("float32", str(side)), model, "fp32")
    if options.engines:
        for precision in ("fp32", "fp16"):
            measured((precision, str(side), "engine"), model, precision, "tensorrt")
    for folder in options.calibrate_on:
        calibration: Calibration | None = None
        for name in options.methods:
            method, _, percentile = name.partition(":")
            key = (name, folder, " ".join(options.skip), str(side))
            keys = [key, (*key, "openvino")] if name == options.methods[-1] else [key]
            engines = {high: (*key, f"engine, {high} between") for high in ("fp16", "fp32")} if options.engines else {}
            if all(one in done for one in (*keys, *engines.values())):
                continue
            calibration = calibration or calibrate(model, picture_paths(folder, 200, 0), options.skip, side)
            network = calibration.quantized(method, float(percentile or 100))
            measured(key, network, "int8")
            if len(keys) > 1:
                measured(keys[1], network, "int8", "openvino")
            for high, engine in engines.items():
                measured(engine, network, "int8", "tensorrt", high)


def gpu() -> AbstractContextManager[Any]:
    """TensorRT and CUDA, as far as they are here."""
    from tests.targets.tensorrt_standin import VERSIONS, installed

    return installed(VERSIONS[-1])


if __name__ == "__main__":
    main()

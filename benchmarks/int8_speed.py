"""Milliseconds of float and int8 networks, with SiLU and with ReLU, in every runtime, all in turns in one process.

    python -m benchmarks.int8_speed --keep 1/8 --imgsz 320 [--threads 1 --rounds 200]

yolov5n for 3 classes with random weights, cut in multiples of --align and calibrated on drawn pictures: weights do not change the time. The times
include decoding, batch 1.
"""

from __future__ import annotations

import argparse

from benchmarks.interleave import interleaved, table
from octrim.data.scenes import drawn_scene
from octrim.errors import InputError
from octrim.network.adapt import with_activation
from octrim.network.initialize import fresh_model
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.quantization.calibration import quantize
from octrim.targets.opening import open_session


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", default="1/8")
    parser.add_argument("--align", type=int, default=8)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--runtimes", nargs="+", default=["openvino", "onnxruntime", "c"])
    parser.add_argument("--activations", nargs="+", default=["silu", "relu"])
    options = parser.parse_args()
    side = options.imgsz
    whole = fresh_model("yolov5n", classes=3)
    small = whole if options.keep == "1" else prune(whole, plan(whole, options.keep, options.align, "random"))
    pictures = [drawn_scene(seed, side, side) for seed in range(8)]
    batch = pictures[0][None, :, :, ::-1].copy()
    candidates = {}
    for activation in options.activations:
        model = small if activation == "silu" else with_activation(small, activation)
        model = quantize(model, pictures, imgsz=side)
        for runtime in options.runtimes:
            for precision in ("fp32", "int8"):
                try:
                    session = open_session(model, runtime, precision, threads=options.threads)
                except InputError as error:
                    print(f"{runtime} {precision}: {error}")
                    continue
                candidates[f"{activation} {runtime} {precision}"] = lambda session=session: session(batch)
    print(f"yolov5n cut to {options.keep} in multiples of {options.align}, {side} px, batch 1, {options.threads} threads")
    times = interleaved(candidates, options.rounds)
    table(times, next(iter(times)))


if __name__ == "__main__":
    main()

"""Milliseconds of float and int8 networks, with SiLU and with ReLU, in every runtime, all in turns in one process.

    python -m benchmarks.int8_speed --keep 1 1/8 --imgsz 320 [--threads 1 --rounds 200]
    python -m benchmarks.int8_speed --weights whole.safetensors whole.safetensors:relu small.safetensors small-relu.safetensors

Without --weights: yolov5n for 3 classes with random weights, cut in multiples of --align, with each of --activations. With --weights: the files,
each as it is, or with `:relu` behind it with that activation in place of its own. Networks without scales are calibrated on drawn pictures, because
neither weights nor scales change the time. The times include decoding, batch 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from benchmarks.interleave import interleaved, table
from octrim.data.scenes import drawn_scene
from octrim.errors import InputError
from octrim.network.adapt import with_activation
from octrim.network.initialize import fresh_model
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.quantization.calibration import quantize
from octrim.targets.opening import open_session


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="+", default=[], metavar="FILE[:ACTIVATION]")
    parser.add_argument("--keep", nargs="+", default=["1/8"])
    parser.add_argument("--align", type=int, default=8)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--runtimes", nargs="+", default=["openvino", "onnxruntime", "c"])
    parser.add_argument("--activations", nargs="+", default=["silu", "relu"])
    options = parser.parse_args()
    side = options.imgsz
    pictures = [drawn_scene(seed, side, side) for seed in range(8)]
    batch = pictures[0][None, :, :, ::-1].copy()
    candidates = {}
    for name, model in given(options.weights) if options.weights else random(options.keep, options.align, options.activations):
        scaled = model if model.scales else quantize(model, pictures, imgsz=side)
        for runtime in options.runtimes:
            for precision in ("fp32", "int8"):
                try:
                    session = open_session(scaled, runtime, precision, threads=options.threads)
                except InputError as error:
                    print(f"{runtime} {precision}: {error}")
                    continue
                candidates[f"{name} {runtime} {precision}"] = lambda session=session: session(batch)
    print(f"{side} px, batch 1, {options.threads} threads, {options.rounds} rounds")
    times = interleaved(candidates, options.rounds)
    table(times, next(iter(times)))


def given(weights: list[str]) -> Iterator[tuple[str, Model]]:
    """Networks of files, each with a name for the table: its place, parameters and activation."""
    for one in weights:
        path, _, activation = one.partition(":")
        model = load(path)
        if activation:
            model = with_activation(model, activation)
        own = {row.activation for row in model.network.convs if row.activation}
        parts = Path(path).parts[-2:]
        yield f"{'/'.join(parts)} {'+'.join(sorted(own))}", model


def random(keeps: list[str], align: int, activations: list[str]) -> Iterator[tuple[str, Model]]:
    """yolov5n with random weights, cut to each share of its channels, with each activation."""
    whole = fresh_model("yolov5n", classes=3)
    for keep in keeps:
        small = whole if keep == "1" else prune(whole, plan(whole, keep, align, "random"))
        for activation in activations:
            yield f"{keep} {activation}", small if activation == "silu" else with_activation(small, activation)


if __name__ == "__main__":
    main()

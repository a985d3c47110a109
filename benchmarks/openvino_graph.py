"""What the way in and the way out of the OpenVINO graph cost: uint8 input and decoding, each as built now and as one would first write it.

python benchmarks/openvino_graph.py --weights yolov5n.pt [--side 640 --precision fp32 --rounds 100]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import openvino as ov
from openvino import opset13 as op

from interleave import interleaved, table
from octrim.network.loading import load
from octrim.targets.decoding import level_constants
from octrim.targets.openvino import graph as backend
from octrim.targets.session import float_batch


class PlainDecoding(backend.OpenvinoOps):
    """One convolution per level, split into boxes and scores, computed, joined, transposed."""

    def conv(self, row, x):
        decode, self.decode = self.decode, False
        y = super().conv(row, x)
        self.decode = decode
        return y

    def level(self, row, level, x):
        network = self.model.network
        channels, height, width = (x.get_output_partial_shape(0)[axis].get_length() for axis in (1, 2, 3))
        anchors = len(network.anchors[level])
        scale, offset, size = level_constants(network, level, height, width)
        s = op.reshape(op.sigmoid(x), op.constant(np.asarray([0, anchors, channels // anchors, height * width])), True)
        xy, wh, scores = op.variadic_split(s, op.constant(np.int64(2)), op.constant(np.asarray([2, 2, -1]))).outputs()
        centre = op.add(op.multiply(xy, op.constant(scale)), op.constant(offset))
        extent = op.multiply(op.multiply(wh, wh), op.constant(size))
        rows = op.transpose(op.concat([centre, extent, scores], 2), op.constant(np.asarray([0, 1, 3, 2])))
        return [op.reshape(rows, op.constant(np.asarray([0, anchors * height * width, channels // anchors])), True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    model, side = load(options.weights), options.side
    config = {"INFERENCE_PRECISION_HINT": {"fp32": "f32"}.get(options.precision, options.precision), "PERFORMANCE_HINT": "LATENCY"}
    now = backend.OpenvinoOps

    def graph(ops, **arguments):
        backend.OpenvinoOps = ops
        try:
            return backend.openvino_model(model, side, side, 1, **arguments)
        finally:
            backend.OpenvinoOps = now

    def runner(built):
        request = ov.Core().compile_model(built, "CPU", config).create_infer_request()

        def run(batch):
            request.infer([batch], share_inputs=True)
            return request.get_output_tensor(0).data

        return run

    batch = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    built_now = runner(graph(now, pixels=True))
    plain = runner(graph(PlainDecoding, pixels=True))
    preprocessor = runner(backend.with_uint8_input(graph(now)))
    outside = runner(graph(now))
    logits = runner(graph(now, pixels=True, decode=False))
    found = built_now(batch).copy()
    for other in (plain(batch), preprocessor(batch), outside(float_batch(batch))):
        print(f"largest difference {np.abs(other - found).max():.1e}")
    print(f"{options.weights}, {side} px, {options.precision}")
    candidates: dict[str, Callable[[], object]] = {
        "as built now": lambda: built_now(batch),
        "plain decoding": lambda: plain(batch),
        "input by PrePostProcessor": lambda: preprocessor(batch),
        "input converted in NumPy": lambda: outside(float_batch(batch)),
        "logits, no decoding": lambda: logits(batch),
    }
    table(interleaved(candidates, options.rounds), "as built now")


if __name__ == "__main__":
    main()

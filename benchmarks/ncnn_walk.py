"""A network for ncnn, written from the table: `.param` is text, `.bin` raw weights, batch norm folded."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import ncnn
import numpy as np

from octrim.network.folding import folded_conv
from octrim.network.model import Model
from octrim.network.rows import Row, walk


class NcnnOps:
    """`Ops` over names of blobs. For SiLU and no activation, which is what YOLOv5 has."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.layers: list[tuple[str, str, list[str], str, str]] = []
        self.weights: list[bytes] = []

    def conv(self, row: Row, x: str) -> str:
        if row.activation not in (None, "silu") or row.groups > 1:
            raise ValueError(f"{row.name}: only plain convolutions with SiLU or nothing behind them are written for ncnn")
        weight, bias = (part.astype(np.float32) for part in folded_conv(self.model, row))
        plain = f"{row.name}_plain" if row.activation else row.name
        options = f"0={row.channels} 1={row.kernel} 3={row.stride} 4={row.padding} 5=1 6={weight.size}"
        self.layers.append(("Convolution", row.name, [x], plain, options))
        self.weights.append(struct.pack("<I", 0) + weight.tobytes() + bias.tobytes())
        if row.activation:
            self.layers.append(("Swish", f"{row.name}_silu", [plain], row.name, ""))
        return row.name

    def add(self, row: Row, a: str, b: str) -> str:
        return self._layer("BinaryOp", row, [a, b], "0=0")

    def concat(self, row: Row, xs: Sequence[str]) -> str:
        return self._layer("Concat", row, list(xs), "0=0")

    def maxpool(self, row: Row, x: str) -> str:
        return self._layer("Pooling", row, [x], f"0=0 1={row.kernel} 2={row.stride} 3={row.padding} 5=1")

    def upsample(self, row: Row, x: str) -> str:
        return self._layer("Interp", row, [x], f"0=1 1={row.stride}.0 2={row.stride}.0")

    def detect(self, row: Row, heads: Sequence[str]) -> list[str]:
        return list(heads)

    def _layer(self, kind: str, row: Row, inputs: list[str], options: str) -> str:
        self.layers.append((kind, row.name, inputs, row.name, options))
        return row.name


def write_ncnn(model: Model, path: Path) -> list[str]:
    """Write `path`.param and `path`.bin; returns the names of the levels. A blob that several layers read goes through ncnn's Split."""
    ops = NcnnOps(model)
    heads = walk(model.network, ops, "images")
    readers = Counter(name for _, _, inputs, _, _ in ops.layers for name in inputs)
    lines, read = [], Counter[str]()

    def line(kind: str, name: str, inputs: list[str], outputs: list[str], options: str) -> None:
        lines.append((f"{kind} {name} {len(inputs)} {len(outputs)} {' '.join(inputs + outputs)} {options}", outputs))
        for output in outputs:
            if readers[output] > 1:
                copies = [f"{output}_{number}" for number in range(readers[output])]
                lines.append((f"Split {output}_split 1 {len(copies)} {output} {' '.join(copies)}", copies))

    line("Input", "images", [], ["images"], "")
    for kind, name, inputs, output, options in ops.layers:
        own = []
        for blob in inputs:
            own.append(f"{blob}_{read[blob]}" if readers[blob] > 1 else blob)
            read[blob] += 1
        line(kind, name, own, [output], options)
    blobs = {blob for _, outputs in lines for blob in outputs}
    path.with_suffix(".param").write_text(f"7767517\n{len(lines)} {len(blobs)}\n" + "".join(f"{text}\n" for text, _ in lines))
    path.with_suffix(".bin").write_bytes(b"".join(ops.weights))
    return heads


class Ncnn:
    """Logits of the levels: decoding, which the others do, is left out in ncnn's favour; bytes to floats is in."""

    def __init__(self, model: Model, folder: Path, threads: int) -> None:
        self.heads = write_ncnn(model, folder / "ncnn")
        self.net = ncnn.Net()
        self.net.opt.num_threads = threads
        self.net.opt.use_fp16_packed = self.net.opt.use_fp16_storage = self.net.opt.use_fp16_arithmetic = False
        self.net.load_param(str(folder / "ncnn.param"))
        self.net.load_model(str(folder / "ncnn.bin"))

    def __call__(self, batch: np.ndarray) -> list[np.ndarray]:
        height, width = batch.shape[1:3]
        pixels = ncnn.Mat.from_pixels(batch[0], ncnn.Mat.PixelType.PIXEL_RGB, width, height)
        pixels.substract_mean_normalize([], [1 / 255] * 3)
        run = self.net.create_extractor()
        run.input("images", pixels)
        return [np.array(run.extract(name)[1]) for name in self.heads]

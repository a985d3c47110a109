"""Sessions that run the C files of int8: of a model, and of an exported folder. Logits are decoded in float, by compiled code, too."""

from __future__ import annotations

import ctypes
import json
import re
from pathlib import Path

import numpy as np

from octrim.backends.numpy import sigmoid
from octrim.errors import InputError
from octrim.network.cost import shapes
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.targets.c.compiler import built, compiler
from octrim.targets.c.folder import HEADER, read_source
from octrim.targets.c.integers.folder import integer_files
from octrim.targets.metadata import file_info, read_header, values_per_box
from octrim.targets.session import PerShape, Session, model_info

_DECODING = """
/* A level's logits, [height][width][anchors][values], as boxes, [anchors][height][width][values]: cx, cy, w, h in pixels, and scores. */
void octrim_decode(const int8_t *logits, const float *sigmoid, const float *box_sigmoid, const float *sides, int height, int width, int count,
                   int numbers, int stride, float *boxes)
{
    for (int row = 0; row < height; row++)
        for (int column = 0; column < width; column++)
            for (int a = 0; a < count; a++, logits += numbers) {
                float *box = boxes + (((long)a * height + row) * width + column) * numbers;
                for (int i = 0; i < 4; i++) box[i] = box_sigmoid[logits[i] + 128];
                for (int i = 4; i < numbers; i++) box[i] = sigmoid[logits[i] + 128];
                box[0] = (2 * box[0] - 0.5f + (float)column) * (float)stride;
                box[1] = (2 * box[1] - 0.5f + (float)row) * (float)stride;
                for (int i = 2; i < 4; i++) box[i] = 4 * box[i] * box[i] * sides[2 * a + i - 2];
            }
}
"""


class IntegerSession(Session):
    """Session that writes and compiles the C files of a model, once per size (a few seconds; compiled files are kept). It has one thread."""

    def __init__(self, model: Model) -> None:
        super().__init__(model_info(model, "c", _version(), "int8"))

        def build(_batch: int, height: int, width: int) -> CompiledDetector:
            files = integer_files(model, height, width)
            return CompiledDetector(files["detector.c"], files["detector.h"], model.network)

        self.detectors = PerShape(build)

    def ready(self, batch: int, height: int, width: int) -> None:
        self.detectors(1, height, width)

    def run(self, batch: np.ndarray) -> np.ndarray:
        return self.detectors(1, *batch.shape[1:3])(batch)


class IntegerFolderSession(Session):
    """Session that compiles the detector.c of an exported folder and runs it. This executes code that stands in the folder."""

    def __init__(self, path: Path) -> None:
        source, header = (read_source(path / name) for name in ("detector.c", "detector.h"))
        described = read_header(path / HEADER, {"detector.c": source.encode(), "detector.h": header.encode()})
        size = [number(header, name) for name in ("height", "width")]
        super().__init__(file_info(path, described, (None, 3, *size), (None, None, values_per_box(described)), "c", _version(), "int8"))
        assert self.info.network is not None
        self.detector = CompiledDetector(source, header, self.info.network)

    def run(self, batch: np.ndarray) -> np.ndarray:
        return self.detector(batch)


class CompiledDetector:
    """The compiled C files: `detector(batch) -> predictions`."""

    def __init__(self, source: str, header: str, network: Network) -> None:
        self.network = network
        found = shapes(network, number(header, "height"), number(header, "width"))
        levels = [found[name] for name in network.rows[-1].inputs]
        self.shapes = [(height, width, channels) for channels, height, width in levels]
        self.calls = ctypes.CDLL(str(built(source + _DECODING, (("detector.h", header),))))
        self.calls.detector_logits.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        self.calls.octrim_decode.argtypes = (*[ctypes.c_void_p] * 4, *[ctypes.c_int] * 5, ctypes.c_void_p)
        self.memory = np.zeros(number(header, "memory"), np.uint8)
        steps = (number(header, name, before) for name, before in (("logit_steps", 16), ("box_logit_steps", 16)))
        self.sigmoids, self.box_sigmoids = (sigmoid(np.arange(-128, 128) / np.float64(one)).astype(np.float32) for one in steps)
        self.anchors = [np.asarray(level, np.float32) for level in network.anchors]

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """uint8 RGB `[n, height, width, 3]` to float32 `[n, boxes, 5 + classes]`."""
        values = 5 + self.network.classes
        boxes = [height * width * channels // values for height, width, channels in self.shapes]
        found = np.empty((len(batch), sum(boxes), values), np.float32)
        for picture, result in zip(np.ascontiguousarray(batch), found, strict=True):
            starts = np.cumsum([0, *boxes[:-1]]).tolist()
            for start, logits, anchors, stride in zip(starts, self.logits(picture), self.anchors, self.network.strides, strict=True):
                sizes = (*logits.shape[:2], len(anchors), values, stride)
                tables = (one.ctypes.data for one in (logits, self.sigmoids, self.box_sigmoids, anchors))
                self.calls.octrim_decode(*tables, *sizes, result[start:].ctypes.data)
        return found

    def logits(self, picture: np.ndarray) -> list[np.ndarray]:
        """Logits of the levels, int8 `[h, w, anchors x (5 + classes)]`, of a picture, uint8 `[height, width, 3]`."""
        counts = [int(np.prod(shape)) for shape in self.shapes]
        found = np.empty(sum(counts), np.int8)
        self.calls.detector_logits(self.memory.ctypes.data, picture.ctypes.data, found.ctypes.data)
        parts = np.split(found, np.cumsum(counts)[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]


def is_integers(path: Path) -> bool:
    """Whether a folder of C was exported in int8."""
    try:
        described = json.loads((path / HEADER).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False  # the session that opens it says what is wrong
    return isinstance(described, dict) and described.get("precision") == "int8"


def number(header: str, name: str, before: int | None = None) -> int:
    """The constant `detector_name` of detector.h; `before` in files of before there was one. Raises InputError where it must be there."""
    found = re.search(rf"\b(?:detector_{name}|OCTRIM_\({name}\)) = (\d+)", header)  # older files have no other name than detector
    if found is None and before is not None:
        return before
    if found is None:
        raise InputError(f"detector.h has no detector_{name}: it is not as octrim export wrote it")
    return int(found[1])


def _version() -> str:
    return f"{Path(compiler()[0]).name}, integers"

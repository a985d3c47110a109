"""Deployables without decoding: the JSON file beside one says what its outputs are and how they become boxes.

Compilers for NPUs (RKNN, Hailo, Edge TPU, Ethos-U) want networks that end in convolutions; decoding then runs on the processor beside the NPU.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from octrim.network.model import Model

DECODING = (
    "Per level, cell (row, column) and anchor a: v values, v = 5 + number of classes; value i is channel a v + i of the output.",
    "t[i] is the value: for a float output as it is, for an integer output (integer - zero_point) scale.",
    "s[i] = 1 / (1 + exp(-t[i])).",
    "centre x = (2 s[0] - 0.5 + column) stride; centre y = (2 s[1] - 0.5 + row) stride, in pixels of the input.",
    "width = (2 s[2])^2 anchors[a][0]; height = (2 s[3])^2 anchors[a][1], in pixels of the input.",
    "objectness = s[4]; score of class c = s[4] s[5 + c].",
    "Boxes with a score below the threshold (usually 0.25) are dropped.",
    "Of boxes of one class that overlap (IoU above 0.45, usually) the one with the best score stays.",
)
"""How outputs become boxes, a sentence each."""


def write_description(
    path: Path, model: Model, layout: str, image: Mapping[str, Any], outputs: Mapping[str, Mapping[str, Any]], precision: str
) -> None:
    """Write the JSON file beside the deployable `path`.

    layout: order of the dimensions of input and outputs, "NCHW" or "NHWC". image: shape and type of the input and what its values mean. outputs: the
    same for every level, by the output's name.
    """
    network = model.network
    levels: Sequence[dict[str, Any]] = [
        {"name": name, **about, "stride": stride, "anchors": anchors}
        for (name, about), stride, anchors in zip(outputs.items(), network.strides, network.anchors, strict=True)
    ]
    described = {
        "names": list(model.names),
        "precision": precision,
        "layout": layout,
        "input": {"name": network.rows[0].name, **image},
        "outputs": levels,
        "decoding": list(DECODING),
        "letterbox": "The picture is scaled to fit, its sides in proportion, and stands in the middle of grey 114.",
    }
    path.with_name(f"{path.name}.json").write_text(json.dumps(described, indent=1, ensure_ascii=True) + "\n", "utf-8")

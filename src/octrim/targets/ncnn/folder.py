"""The folder `ncnn/` of an export: model.param, model.bin, and ncnn.json, which says what the two are."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from octrim.network.cost import shapes
from octrim.network.model import Model
from octrim.targets.metadata import export_metadata
from octrim.targets.ncnn.graph import OUTPUT, blob_name, ncnn_files, output_shape

PARAM, BIN, HEADER = "model.param", "model.bin", "ncnn.json"


def write_folder(model: Model, folder: Path, height: int, width: int, precision: str) -> None:
    """Write the files into `folder`, which must be there. The same model gives the same bytes."""
    text, weights = ncnn_files(model, height, width, half=precision == "fp16")
    files = {PARAM: text.encode(), BIN: weights}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    described = {"sha256": {name: sha256(content).hexdigest() for name, content in files.items()}}
    described |= _contract(model, height, width, precision)
    (folder / HEADER).write_text(json.dumps(described | export_metadata(model), indent=1) + "\n", "utf-8")


def _contract(model: Model, height: int, width: int, precision: str) -> dict[str, object]:
    """Names and shapes of the blobs, for people and for programs; shapes are [h, w] or [c, h, w]."""
    network = model.network
    found = shapes(network, height, width)
    levels = [
        {"blob": blob_name(model, name), "shape": list(found[name]), "stride": stride, "anchors": anchors}
        for name, stride, anchors in zip(network.rows[-1].inputs, network.strides, network.anchors, strict=True)
    ]
    return {
        "precision": precision,
        "input": {"blob": "images", "shape": [3, height, width], "values": "RGB, 0 to 1"},
        "output": {
            "blob": OUTPUT,
            "shape": list(output_shape(network, height, width)),
            "values": "per box: centre x, centre y, width, height in pixels of the input; objectness, class scores in 0 to 1",
        },
        "logits": levels,
    }

"""Which maps share a scale, and scales in the model file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from octrim.errors import InputError
from octrim.network.initialize import fresh_model
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.scales import Scales, quantized, scale_groups


def test_groups_of_yolov5n() -> None:
    groups = scale_groups(fresh_model("yolov5n").network)
    # C3: the concat joins cv2 and the last add of the bottlenecks (backbone) or their last convolution (neck).
    assert groups["model.2.cv1"] == "model.2.cv1" and groups["model.2.m.0.cv2"] == "model.2.m.0.cv2"
    assert groups["model.2.m.0.add"] == groups["model.2.cv2"] == groups["model.2.concat"] == "model.2.m.0.add"
    # SPPF's pools share with what they read; the neck's upsampling and concat tie P4 of the backbone to model.10.
    assert {groups[name] for name in ("model.9.m.0", "model.9.m.1", "model.9.m.2", "model.9.concat")} == {"model.9.cv1"}
    assert groups["model.10"] == groups["model.6.cv3"] and groups["model.4.cv3"] == groups["model.14"]
    assert groups["images"] == "images"


def quantized_model(model: Model) -> Model:
    rng = np.random.default_rng(0)
    network = model.network
    groups = scale_groups(network)
    scales = {f"{groups[row.inputs[0]]}.scale": np.asarray([rng.uniform(0.01, 0.1)], np.float32) for row in network.convs}
    scales |= {f"{row.name}.weight_scale": np.full(row.channels, 0.01, np.float32) for row in network.convs if row.name not in network.heads}
    return replace(model, scales=scales)


def test_scales_travel_in_the_model_file(tmp_path: Path) -> None:
    model = quantized_model(fresh_model("yolov5n"))
    model.save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert again.scales.keys() == model.scales.keys() and all(np.array_equal(again.scales[name], scale) for name, scale in model.scales.items())
    scales = Scales(again.network, again.scales)
    assert scales.map("model.10") == scales.map("model.6.cv3") == model.scales["model.6.cv3.scale"][0]
    assert scales.map("model.24.m.0") is None


def test_scales_that_do_not_fit() -> None:
    model = quantized_model(fresh_model("yolov5n"))
    for change, told in [
        ({"model.10.scale": np.ones(1, np.float32)}, "the scale of nothing"),  # shared: it stands under another name
        ({"model.24.m.0.weight_scale": np.ones(255, np.float32)}, "the scale of nothing"),
        ({"model.0.weight_scale": np.ones(3, np.float32)}, "expected float32"),
        ({"model.0.weight_scale": np.zeros(16, np.float32)}, "expected at least"),
        ({"images.scale": np.asarray([np.nan], np.float32)}, "expected at least"),
    ]:
        with pytest.raises(InputError, match=told):
            replace(model, scales={**model.scales, **change})
    with pytest.raises(InputError, match="has no scale"):
        replace(model, scales={name: scale for name, scale in model.scales.items() if name != "images.scale"})


def test_rounding_is_half_to_even_and_saturates() -> None:
    x = np.asarray([0.5, 1.5, 2.5, -0.5, -1.5, 1e6, -1e6], np.float32)
    assert quantized(x, np.float32(1)).tolist() == [0, 2, 2, 0, -2, 127, -128]

"""What is quantized, and scales against the maps that NumPy computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings

import octrim
from octrim.backends.numpy import NumpyOps
from octrim.data.pictures import letterbox
from octrim.data.scenes import drawn_scene
from octrim.doctor.trials import small_model
from octrim.errors import InputError
from octrim.network.folding import folded_conv
from octrim.network.initialize import fresh_model
from octrim.network.loading import load
from octrim.network.rows import Network, Row, walk
from octrim.network.scales import LEAST_SCALE, LEVELS, Scales, scale_groups
from octrim.quantization.calibration import calibrate, quantize
from octrim.quantization.errors import layer_errors, layers, logit_error
from octrim.quantization.placement import placement
from octrim.targets.session import float_batch
from tests.networks import lively_model, random_networks, variant


class Recording(NumpyOps):
    """Keeps every map by its row's name."""

    def __init__(self, model: octrim.Model) -> None:
        super().__init__(model)
        self.maps: dict[str, np.ndarray] = {}

    def __getattribute__(self, name: str):
        method = super().__getattribute__(name)
        if name not in ("conv", "add", "concat", "maxpool", "upsample"):
            return method

        def kept(row: Row, *inputs):
            self.maps[row.name] = method(row, *inputs)
            return self.maps[row.name]

        return kept


def pictures(count: int) -> list[np.ndarray]:
    return [drawn_scene(seed, 40 + 8 * seed, 90) for seed in range(count)]


def maps_of(model: octrim.Model, height: int, width: int, scenes: list[np.ndarray]) -> dict[str, np.ndarray]:
    fitted = np.stack([cv2.cvtColor(letterbox(scene, height, width)[0], cv2.COLOR_BGR2RGB) for scene in scenes])
    ops, images = Recording(model), float_batch(fitted)
    walk(model.network, ops, images)
    return {"images": images, **ops.maps}


def test_scales_are_those_of_the_maps() -> None:
    """Max over all maps of a group, concatenations and pools included, and over all pictures; weights per output channel."""
    model = variant("yolov5n")
    scenes = pictures(3)
    found = quantize(model, iter(scenes), "max", imgsz=(64, 96))
    maps = maps_of(model, 64, 96, scenes)
    groups = scale_groups(model.network)
    for name, scale in found.scales.items():
        row, _, kind = name.rpartition(".")
        if kind == "scale":
            largest = max(np.abs(maps[member]).max() for member, root in groups.items() if root == row and member in maps)
            assert scale[0] == pytest.approx(largest / LEVELS, rel=2**-11 + 1e-4), name
        else:
            weight = folded_conv(model, next(conv for conv in model.network.convs if conv.name == row))[0]
            np.testing.assert_allclose(scale, np.maximum(np.abs(weight).max((1, 2, 3)) / LEVELS, LEAST_SCALE), rtol=2**-11 + 1e-6)
    assert found.lineage[-1] == {"action": "quantize", "method": "max", "pictures": 3, "imgsz": [64, 96], "skip": []}
    assert found.tensors is model.tensors


def test_histograms_count_every_computed_value_once() -> None:
    model = variant("yolov5n")
    scenes = pictures(2)
    calibration = calibrate(model, scenes, imgsz=64)
    maps = maps_of(model, 64, 64, scenes)
    for group, members in calibration.placement.groups.items():
        assert calibration.histograms[group].counts.sum() == sum(maps[name].size for name in members)
    assert calibration.placement.groups["model.9.cv1"] == ("model.9.cv1",)  # its pools hold the same values
    # Two passes over halves are one pass over the whole.
    again = calibrate(model, scenes[::-1], imgsz=64)
    for group, histogram in calibration.histograms.items():
        np.testing.assert_array_equal(histogram.counts, again.histograms[group].counts)


def test_what_is_quantized_of_yolov5n() -> None:
    network = fresh_model("yolov5n").network
    placed = placement(network)
    assert {row.name for row in placed.convs} == {row.name for row in network.convs} - network.heads
    assert sum(row.op == "add" for row in placed.rows) == sum(row.op == "add" for row in network.rows)
    # What only Detect reads has a scale for deployables that are all integers; it is not made where rows are skipped, for then there can be none.
    assert "model.23.cv3" in placed.groups and "model.17.cv3" in placed.groups
    assert "model.23.cv3" not in placement(network, ["model.0"]).groups
    assert placed.groups["model.2.m.0.add"] == ("model.2.m.0.add", "model.2.cv2")


def test_skip() -> None:
    network = fresh_model("yolov5n").network
    placed = placement(network, ["model.0", "model.2.m.0.add", "model.2?.cv1"])
    names = {row.name for row in placed.rows}
    assert not names & {"model.0", "model.2.m.0.add", "model.20.cv1", "model.23.cv1"} and "model.2.cv1" in names
    assert "images" not in placed.groups and "model.2.m.0.cv2" not in placed.groups
    assert {row.name.split(".")[1] for row in placement(network, ["model.2"]).rows} & {"2", "20"} == {"20"}
    for pattern in ("model.99", "model.2.concat", ""):
        with pytest.raises(InputError, match="matches no convolution and no addition"):
            placement(network, [pattern])
    with pytest.raises(InputError, match="leaves no convolution"):
        placement(network, ["*"])
    assert placement(network, ["model.24"]) == placement(network)  # Detect's own are skipped anyway


def test_an_addition_that_others_force_into_int8() -> None:
    rows = [Row("images", "image", channels=3), Row("a", "conv", ("images",), 4, bias=True), Row("b", "conv", ("images",), 4, bias=True)]
    rows += [Row("sum", "add", ("a", "b")), Row("c", "conv", ("a",), 4, bias=True), Row("d", "conv", ("b",), 4, bias=True)]
    rows += [Row("all", "concat", ("sum", "c", "d")), Row("head", "conv", ("all",), 14, bias=True), Row("detect", "detect", ("head",))]
    network = Network(tuple(rows), (((4.0, 5.0), (9.0, 7.5)),))
    with pytest.raises(InputError, match="sum cannot stay in high precision while c, d read"):
        placement(network, ["sum"])
    assert [row.name for row in placement(network, ["sum", "d"]).rows] == ["a", "b", "c"]


@settings(max_examples=20)
@given(network=random_networks())
def test_scales_of_random_networks_belong_together(network: Network) -> None:
    """`Scales`, which every backend asks, says of every row what the placement says."""
    model = lively_model(network)
    try:
        found = quantize(model, pictures(1), "max", imgsz=(32, 64))
    except InputError as error:
        assert "no convolution" in str(error)  # only Detect's
        return
    scales = Scales(network, found.scales)
    expected = {row.name for row in placement(network).rows}
    assert {row.name for row in network.rows if row.op in ("conv", "add") and scales.reads(row)} == expected
    for row in network.rows:
        if row.op == "concat":
            assert len({scales.map(name) for name in (*row.inputs, row.name)}) == 1


def test_model_file(tmp_path: Path) -> None:
    model = quantize(variant("yolov5n"), pictures(1), imgsz=64)
    model.save(tmp_path / "a.safetensors")
    again = load(tmp_path / "a.safetensors")
    assert again.lineage == model.lineage and again.scales.keys() == model.scales.keys()
    assert all(np.array_equal(again.scales[name], scale) for name, scale in model.scales.items())
    again.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_scales_are_replaced() -> None:
    first = quantize(variant("yolov5n"), pictures(1), imgsz=64)
    second = quantize(first, pictures(1), skip=["model.0"], imgsz=64)
    assert "images.scale" in first.scales and "images.scale" not in second.scales
    assert [step["action"] for step in second.lineage] == ["made up", "quantize", "quantize"]


def test_dead_and_damaged_networks() -> None:
    model = variant("yolov5n")
    dead = {name: np.zeros_like(tensor) if name.startswith("model.0.") else tensor for name, tensor in model.tensors.items()}
    found = quantize(replace(model, tensors=dead), pictures(1), imgsz=64)
    assert found.scales["model.0.scale"] == np.float32(LEAST_SCALE)
    assert (found.scales["model.0.weight_scale"] == np.float32(LEAST_SCALE)).all()
    broken = dict(model.tensors) | {"model.3.bn.bias": np.full_like(model.tensors["model.3.bn.bias"], np.nan)}
    with pytest.raises(InputError, match=r"model\.3: the network computes values that are not finite"):
        quantize(replace(model, tensors=broken), pictures(1), imgsz=64)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_have_no_error(bad: float) -> None:
    """Damage in Detect's own convolution, whose output no calibration sees."""
    scenes = pictures(1)
    model = quantize(small_model(), scenes, imgsz=64)
    (name,) = model.network.heads
    head = f"{name}.bias"
    damaged = replace(model, tensors={**model.tensors, head: model.tensors[head] + np.float32(bad)})
    with pytest.raises(InputError, match="logits that are not finite"):
        logit_error(damaged, scenes, 64, 64)


def test_bad_input(tmp_path: Path) -> None:
    model = variant("yolov5n")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    grey = np.zeros((8, 8), np.uint8)
    for given_pictures, told in (
        ([], "no pictures"),
        ([grey.astype(np.float32)], "uint8"),
        ([tmp_path / "broken.jpg"], "broken.jpg"),
        ("pictures", "expected a list"),
    ):
        with pytest.raises(InputError, match=told):
            quantize(model, given_pictures, imgsz=64)
    with pytest.raises(InputError, match="method is 'entropy'"):
        quantize(model, pictures(1), "entropy")


@pytest.mark.slow
def test_errors_of_layers() -> None:
    """Each alone errs less than all together; where the weights of one are ruined, it is the worst."""
    model = quantize(variant("yolov5n"), pictures(1), imgsz=64)
    whole = logit_error(model, pictures(1), 64, 64)
    assert 10 < whole.sqnr < 60 and 0 < whole.median_relative < 0.5
    ruined = replace(model, scales={**model.scales, "model.5.weight_scale": model.scales["model.5.weight_scale"] * 60})
    found = layer_errors(ruined, pictures(1), 64, 64)
    assert {layer.row for layer in found} == {row.name for row in layers(model)} and len(found) == 64
    assert [layer.sqnr for layer in found] == sorted(layer.sqnr for layer in found)
    assert found[0].row == "model.5" and found[0].inputs == ("model.4.cv3",)
    assert found[0].sqnr < whole.sqnr < found[1].sqnr

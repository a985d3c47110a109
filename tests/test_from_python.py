"""What Python may be given: one value where several are taken, and an InputError for every value of another type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import octrim
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.network.yolov5 import yolov5_network
from octrim.pruning.plan import Plan
from octrim.runs import check_name
from octrim.targets.opening import open_session
from tests.networks import lively_model


@pytest.fixture(scope="module")
def model() -> Model:
    return lively_model(yolov5_network("yolov5n", 2))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"classes": [0.9]}, "class '0.9' was asked for"),
        ({"classes": [True]}, "classes is True, expected a whole number or text"),
        ({"classes": "person"}, "class 'person' was asked for; this network has none of that name"),
        ({"conf": "0.3"}, "conf is '0.3', expected a number, 0 to 1"),
        ({"conf": float("nan")}, "conf is nan, expected 0 to 1"),
        ({"iou": 2}, "iou is 2.0, expected 0 to 1"),
        ({"agnostic": "no"}, "agnostic is 'no', expected True or False"),
        ({"max_det": 1.5}, "max_det is 1.5, expected a whole number, 1 or more"),
        ({"max_det": 0}, "max_det is 0, expected 1 or more"),
        ({"imgsz": 64.0}, "imgsz is 64.0, expected a whole number, 1 to 16384"),
        ({"imgsz": (64, 64, 64)}, "imgsz is 64 64 64, expected a side, or height and width"),
        ({"threads": "2"}, "threads is '2', expected a whole number, 1 to 1024"),
        ({"threads": 0}, "threads is 0, expected 1 to 1024"),
        ({"runtime": ["numpy"]}, r"runtime is \['numpy'\], expected text"),
        ({"precision": None}, "precision is None, expected text"),
        ({"device": 0}, "device is '0', expected auto, cpu or gpu"),
        ({"weights": None}, "weights is None, expected a path"),
        ({"weights": ""}, "weights is '', expected a path"),
        ({"weights": 7}, "weights is 7, expected a path"),
    ],
)
def test_detector_refuses(model: Model, options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=f"^{told}"):
        octrim.Detector(**{"weights": model, "runtime": "numpy", **options})


def test_detector_takes_numbers_of_numpy_and_sets(model: Model) -> None:
    detector = octrim.Detector(model, np.int64(64), np.float32(0.5), classes={1, 0}, max_det=np.int32(7), runtime="numpy")  # type: ignore[arg-type]
    assert detector.options == {"conf": 0.5, "iou": 0.45, "classes": [0, 1], "agnostic": False, "max_det": 7, "score_voting": False}
    assert (detector.height, detector.width) == (64, 64)


def test_a_batch_that_is_no_array(model: Model) -> None:
    with pytest.raises(InputError, match="a batch is a uint8 array .*; found list"):
        open_session(model, "numpy")([[[[0, 0, 0]]]])  # type: ignore[arg-type]


@pytest.mark.parametrize("path", [None, 7, "", ["a.pt"]])
def test_load_refuses(path: Any) -> None:
    with pytest.raises(InputError, match="^weights is .*, expected a path"):
        octrim.load(path)


def test_names_that_no_file_can_have(model: Model) -> None:
    for name in ("a" * 300, "a\0b.pt"):
        with pytest.raises(InputError, match="no such file"):
            octrim.load(name)
        with pytest.raises(InputError, match="no such file or folder"):
            octrim.Detector(model, runtime="numpy").predict(name)
    for name in ("..", ".", "", "a/b", "a\0b"):
        with pytest.raises(InputError, match="expected the name of a folder"):
            check_name(name)


def test_prune_refuses_what_is_no_plan(model: Model) -> None:
    with pytest.raises(InputError, match="plan is 'x', expected what octrim.plan returns"):
        octrim.prune(model, "x")  # type: ignore[arg-type]


def test_all_names_are_listed() -> None:
    assert set(octrim.__all__) <= set(dir(octrim))


@pytest.mark.parametrize("imgsz", [64.0, "64", (64.5, 64), (True, 64), {"height": 64}])
def test_export_refuses_sizes(model: Model, imgsz: Any) -> None:
    with pytest.raises(InputError, match="^imgsz is .*, expected a side, or height and width, of 1 to 16384 pixels"):
        octrim.export(model, "a.onnx", imgsz=imgsz)


@pytest.mark.parametrize(
    ("one", "several"),
    [
        ({"exclude": "model.0"}, {"exclude": ["model.0"]}),
        ({"drop": "model.8.m.0"}, {"drop": ("model.8.m.0",)}),
        ({"levels": 8}, {"levels": [8]}),
        ({"levels": np.int64(8)}, {"levels": np.array([8])}),
        ({"image_size": 320}, {"image_size": (320, 320)}),
    ],
)
def test_one_value_stands_for_itself(model: Model, one: dict[str, Any], several: dict[str, Any]) -> None:
    def planned(options: dict[str, Any]) -> Plan:
        return octrim.plan(model, "1/2", criterion="l1", **options)

    assert planned(one).to_json() == planned(several).to_json() != planned({}).to_json()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"exclude": None}, "exclude is None, expected text"),
        ({"exclude": [["model.0"]]}, r"exclude is \['model.0'\], expected text"),
        ({"levels": ["8"]}, "levels is '8', expected a whole number"),
        ({"levels": 8.0}, "levels is 8.0, expected a whole number"),
        ({"drop": b"model.0"}, "drop is b'model.0', expected text"),
        ({"image_size": 320.0}, "image_size is 320.0, expected a whole number, 1 or more"),
        ({"image_size": (0, 0)}, "image_size is 0, expected 1 or more"),
        ({"image_size": (32, 32, 32)}, r"image_size is \(32, 32, 32\), expected a side, or height and width"),
        ({"seed": "1"}, "seed is '1', expected a whole number"),
        ({"seed": -1}, "seed is -1, expected 0 to"),
        ({"budget": ["macs=0.5"]}, r"budget is \['macs=0.5'\], expected text"),
        ({"nearest": "yes"}, "nearest is 'yes', expected True or False"),
    ],
)
def test_plan_refuses(model: Model, options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=f"^{told}"):
        octrim.plan(model, **options)

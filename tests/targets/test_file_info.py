"""Which files are taken for detectors of the YOLOv5 contract: by what they say of themselves, and only without that by their shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from octrim.deploy.export import export
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.network.rows import Network, Row
from octrim.targets.metadata import file_info
from octrim.targets.opening import open_session
from tests.networks import lively_model


@pytest.fixture(scope="module")
def model() -> Model:
    """80 classes on one level of stride 16: at 32 px 12 boxes of 85 columns."""
    conv = Row("a", "conv", ("images",), 8, 3, 4, 1, norm=True, activation="silu")
    rows = (Row("images", "image", channels=3), conv, Row("b", "conv", ("a",), 8, 3, 4, 1, norm=True, activation="silu"))
    head = Row("head", "conv", ("b",), 3 * 85, bias=True)
    return lively_model(Network((*rows, head, Row("detect", "detect", ("head",))), (((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "format", "runtimes"), [("m.onnx", "onnx", ("onnxruntime", "openvino")), ("ir", "openvino", (None,)), ("p", "paddle", (None,))]
)
def test_more_columns_than_boxes(model: Model, tmp_path: Path, name: str, format: str, runtimes: tuple[str | None, ...]) -> None:
    if format == "paddle":
        pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    batch = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    expected = open_session(model, "numpy")(batch)
    assert expected.shape == (1, 12, 85)
    assert export(model, tmp_path / name, format, imgsz=32).path
    for runtime in runtimes:
        np.testing.assert_allclose(open_session(tmp_path / name, runtime)(batch), expected, rtol=1e-4, atol=1e-4)


def test_a_file_without_a_table_is_told_by_its_names(model: Model, tmp_path: Path) -> None:
    """As YOLOv5 exports it: names and stride, no table."""
    export(model, tmp_path / "m.onnx", imgsz=32)
    stored = onnx.load(str(tmp_path / "m.onnx"))
    kept = {item.key: item.value for item in stored.metadata_props if item.key in ("names", "stride")}
    del stored.metadata_props[:]
    helper.set_model_props(stored, kept)
    onnx.save(stored, str(tmp_path / "m.onnx"))
    assert open_session(tmp_path / "m.onnx").info.names == model.names


NAMES = {"names": str(dict(enumerate("abc"))), "stride": "32"}


@pytest.mark.parametrize(
    ("metadata", "output", "taken"),
    [
        ({}, [1, 252, 8], True),
        ({}, [1, None, 8], True),
        ({}, [1, 7, 252], False),  # a newer YOLO of 3 classes
        ({}, [1, 84, 8400], False),
        (NAMES, [1, 252, 8], True),
        (NAMES, [1, 6, 8], True),  # fewer boxes than columns
        (NAMES, [1, 7, 8], True),  # could be either; its columns fit YOLOv5
        (NAMES, [1, 7, 252], False),
        (NAMES, [1, 7, None], False),
        ({"names": "nonsense", "stride": "32"}, [1, 7, 252], False),
    ],
)
def test_newer_yolos(metadata: dict[str, str], output: list[int | None], taken: bool) -> None:
    def read() -> object:
        return file_info(Path("m.onnx"), metadata, [1, 3, 64, 64], output, "onnxruntime", "1", "fp32")

    if taken:
        assert read()
        return
    with pytest.raises(InputError, match=r"expected input \[batch, 3, height, width\] and output \[batch, boxes, 5 \+ classes\]"):
        read()


def test_a_table_of_other_classes_than_the_output(model: Model, tmp_path: Path) -> None:
    export(model, tmp_path / "m.onnx", imgsz=32)
    metadata = {item.key: item.value for item in onnx.load(str(tmp_path / "m.onnx")).metadata_props}
    with pytest.raises(InputError, match="80 names for 79 classes"):
        file_info(Path("m.onnx"), metadata, [1, 3, 32, 32], [1, 12, 84], "onnxruntime", "1", "fp32")

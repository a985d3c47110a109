"""ONNX files as YOLOv5's export.py writes them: float16, open axes, several outputs; and others, named for what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from octrim.cli import main
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.targets.onnx.graph import onnx_model
from octrim.targets.opening import open_session
from tests.data.test_pictures import write
from tests.networks import lively_model, three_levels

RUNTIMES = ["onnxruntime", "openvino"]


@pytest.fixture(scope="module")
def model() -> Model:
    return lively_model(three_levels(3))


def shaped(
    model: Model, inputs: list[int | str], output: list[int | str | None] | None, half: bool = False, named: bool = True, more: int = 0
) -> bytes:
    """The model's graph with the shapes, the type and the outputs that an export may state."""
    made = onnx_model(model, 64, 64, None if isinstance(inputs[0], str) else 1)
    graph = made.graph
    kept = {"names": str(dict(enumerate(model.names))), "stride": "32"} if named else {}
    del made.metadata_props[:]
    helper.set_model_props(made, kept)
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    if half:  # as .half() makes them: float16 in, float16 out
        for node in graph.node:
            node.input[:] = ["images32" if name == "images" else name for name in node.input]
            node.output[:] = ["output32" if name == "output0" else name for name in node.output]
        graph.node.insert(0, helper.make_node("Cast", ["images"], ["images32"], to=TensorProto.FLOAT))
        graph.node.append(helper.make_node("Cast", ["output32"], ["output0"], to=TensorProto.FLOAT16))
    outputs = [helper.make_tensor_value_info("output0", kind, output)]
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.append(helper.make_tensor_value_info("images", kind, inputs))
    graph.output.extend(outputs)
    return made.SerializeToString()


FIXED, OPEN = [1, 3, 64, 64], ["batch", 3, 64, 64]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("inputs", "output", "half"),
    [
        (FIXED, [1, 252, 8], True),
        (OPEN, ["batch", "anchors", 8], False),
        (OPEN, ["batch", "anchors", "values"], False),
        (OPEN, ["batch", None, None], True),
        (OPEN, None, False),
    ],
)
def test_shapes_that_exports_state(
    model: Model, tmp_path: Path, inputs: list[int | str], output: list[int | str | None] | None, half: bool, named: bool, runtime: str
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(shaped(model, inputs, output, half, named))
    session = open_session(path, runtime)
    assert session.info.names == (model.names if named else ("class0", "class1", "class2"))
    assert (session.info.size, session.info.batch) == ((64, 64), None if inputs is OPEN else 1)
    batch = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    found = session(batch)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, open_session(model, "numpy")(batch), rtol=1e-2 if half else 1e-4, atol=0.5 if half else 1e-3)
    if inputs is OPEN:
        assert session(np.concatenate([batch] * 3)).shape == (3, 252, 8)


@pytest.mark.slow
def test_predict_val_and_bench_run_it(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(shaped(model, OPEN, ["batch", "anchors", "values"], half=True))
    for split in ("train", "val"):
        Path(f"images/{split}").mkdir(parents=True)
        Path(f"labels/{split}").mkdir(parents=True)
        write(Path(f"images/{split}/a.png"), np.full((64, 64, 3), 90, np.uint8))
        Path(f"labels/{split}/a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    Path("data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {list(model.names)}\n")
    assert main(["predict", "--weights", "m.onnx", "--source", "images/val"]) == 0
    assert main(["val", "--weights", "m.onnx", "--data", "data.yaml", "--bootstrap", "0"]) == 0
    assert main(["bench", "--weights", "m.onnx", "--iterations", "2", "--warmup", "1"]) == 0
    assert main(["predict", "--weights", "m.onnx", "--source", "images/val", "--half"]) == 0  # it is float16 already


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        ({"num_dets": [1, 1], "det_boxes": [1, 100, 4], "det_scores": [1, 100], "det_classes": [1, 100]}, "suppresses boxes within the graph"),
        ({"output": ["n", 7]}, "suppresses boxes within the graph"),
        ({"output0": [1, 3, 8, 8, 8], "output1": [1, 3, 4, 4, 8]}, "raw maps of every level, as YOLOv5 exported before v5.0"),
        ({"output0": [1, 25200, 40], "output1": [1, 32, 160, 160]}, "a segmentation network"),
        ({"output0": [1, 84, 8400]}, "a newer YOLO gives"),
        ({"output0": [1, 1000]}, "expected input"),
    ],
)
def test_what_else_there_is(tmp_path: Path, outputs: dict[str, list[int | str]], told: str, runtime: str) -> None:
    nodes, infos = [], []
    for name, shape in outputs.items():
        sizes = [1 if isinstance(size, str) else size for size in shape]
        nodes.append(helper.make_node("ConstantOfShape", [f"{name}/shape"], [name]))
        infos.append((helper.make_tensor(f"{name}/shape", TensorProto.INT64, [len(sizes)], sizes), helper.make_tensor_value_info(name, 1, shape)))
    picture = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 640, 640])
    graph = helper.make_graph(nodes, "g", [picture], [info for _, info in infos], [shape for shape, _ in infos])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(tmp_path / "m.onnx"))
    with pytest.raises(InputError, match=told):
        open_session(tmp_path / "m.onnx", runtime)


@pytest.mark.parametrize("name", ["m.onnx", "m.safetensors", "m.xml", "m.pt"])
@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3872\n", "run git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"", "the file is empty"),
        (bytes(100), "zeros only"),
    ],
)
def test_what_stands_in_place_of_a_file(tmp_path: Path, name: str, data: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=told):
        open_session(tmp_path / name)


def test_suppression_by_a_layer_of_tensorrt(tmp_path: Path) -> None:
    node = helper.make_node("EfficientNMS_TRT", ["images"], ["num_dets"], domain="TRT")
    picture = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])
    graph = helper.make_graph([node], "g", [picture], [helper.make_tensor_value_info("num_dets", TensorProto.INT32, [1, 1])])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13), helper.make_opsetid("TRT", 1)], ir_version=8), str(tmp_path / "m.onnx")
    )
    for runtime in RUNTIMES:
        with pytest.raises(InputError, match="suppresses boxes within the graph|OpenVINO cannot read it"):
            open_session(tmp_path / "m.onnx", runtime)

"""The commands as users type them: what they leave, and what they say of bad input."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from octrim.cli import main, parse
from octrim.commands import COMMANDS
from octrim.commands.pong import PONG
from octrim.data import streams
from octrim.data.scenes import drawn_scene
from octrim.deploy.export import export
from octrim.errors import InputError
from octrim.network.cost import network_cost
from octrim.network.initialize import fresh_model
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.yolov5 import yolov5_network
from octrim.targets.opening import open_session
from tests.data.test_pictures import make_video, write
from tests.data.test_sources import dropping, server
from tests.networks import lively_model


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh yolov5n for three classes that finds boxes."""
    model = fresh_model("yolov5n", classes=3)
    tensors = dict(model.tensors)
    for level in range(3):  # enough confidence for boxes to appear
        bias = tensors[f"model.24.m.{level}.bias"].copy()
        bias.reshape(3, 8)[:, 4:] += 4.5
        tensors[f"model.24.m.{level}.bias"] = bias
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    type(model)(model.network, tensors, ("a", "b/c", "ü"), 64).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a small model and three pictures."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(small, tmp_path)
    (tmp_path / "pictures").mkdir()
    for index in range(3):
        write(tmp_path / "pictures" / f"{index}.png", drawn_scene(index, 60, 90))
    return tmp_path


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a refused command leaves on standard error."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert "Traceback" not in error
    return error


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["--help"], *([name, "--help"] for name in COMMANDS), *(["pong", name, "--help"] for name in PONG), ["--version"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys; from octrim.cli import main; code = main(sys.argv[1:]); "
        "print('HEAVY', [m for m in ('numpy', 'cv2', 'paddle', 'openvino', 'onnx', 'onnxruntime', 'matplotlib') if m in sys.modules]); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    assert "octrim" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["prune", "--bogus"], "there is no option --bogus"),
        (["predict", "--conf", "high"], "conf"),
        (["fly"], "fly"),
        (["pong"], "a command is missing; there are play, data, match"),
        (["pong", "play", "speed=fast"], "speed"),
        ([], "predict"),
        (["export", "--format", "tflite"], "tflite"),
        (["prune"], "give either --weights"),
        (["prune", "--weights", "a.pt", "--cfg", "yolov5n"], "give either --weights"),
        (["prune", "--cfg", "yolov5q"], "yolov5q: no such YAML file"),
        (["bench"], "give --weights"),
    ],
)
def test_arguments_that_make_no_sense(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    assert told in failed(capsys, *arguments)


def test_assignments() -> None:
    config = parse(
        ["predict", "weights=a.pt", "conf-thres=0.5", "classes=0,2", "save_txt=True", "agnostic=0", "imgsz=[480, 640]", "--source", "conf=1.jpg"]
    )
    assert (config.weights, config.conf, config.classes, config.imgsz) == ("a.pt", 0.5, (0, 2), (480, 640))
    assert (config.save_txt, config.agnostic) == (True, False)
    assert config.source == "conf=1.jpg"  # a value stands here, whatever it looks like
    assert parse(["prune", "--cfg", "yolov5n", "--exclude", "model.0", "model.1", "keep=1/2"]).exclude == ("model.0", "model.1")
    config = parse(["predict", "--img", "480", "640", "--conf-thres", "0.1", "--iou-thres", "0.2", "--save-txt", "source=x.jpg", "--exist-ok"])
    assert (config.imgsz, config.conf, config.iou, config.source) == ((480, 640), 0.1, 0.2, "x.jpg")
    with pytest.raises(InputError):
        parse(["predict", "speed=3"])
    with pytest.raises(InputError, match="save_txt is 'maybe', expected True or False"):
        parse(["predict", "save_txt=maybe"])
    # text is taken as it is: patterns and paths have brackets, commas and spaces
    assert parse(["prune", "--cfg", "yolov5n", "exclude=model.[02]"]).exclude == ("model.[02]",)
    assert parse(["bench", "weights=my files/a,b.pt"]).weights == ("my files/a,b.pt",)
    assert parse(["prune", "--budget", "macs=0.1"]).budget == "macs=0.1"
    assert parse(["prune", "budget=macs=0.1"]).budget == "macs=0.1"


@pytest.mark.slow
def test_prune(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "map.json").write_text('{"model.0": 1}')
    assert main(["prune", "--weights", "small.safetensors", "--keep", "1/2", "--align", "8", "--keep-map", "map.json", "--exclude", "model.1"]) == 0
    run = folder / "runs/prune/exp"
    assert {path.name for path in run.iterdir()} == {"model.safetensors", "plan.json", "plan.txt", "channels.png", "config.yaml", "log.txt"}
    convs = {row.name: row.channels for row in load(run / "model.safetensors").network.convs}
    assert (convs["model.0"], convs["model.1"], convs["model.3"]) == (16, 32, 32)
    assert json.loads((run / "plan.json").read_text())["convs"]["model.3"]["after"] == 32
    assert cv2.imread(str(run / "channels.png")).shape[1] > 800
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["keep"], config["align"], config["exclude"]) == ("1/2", 8, ["model.1"])
    assert "model.safetensors" in capsys.readouterr().out
    assert "model.safetensors" in (run / "log.txt").read_text()
    # names are numbered; a dry run leaves the plan only
    assert main(["prune", "--weights", "small.safetensors", "--dry-run"]) == 0
    assert {path.name for path in (folder / "runs/prune/exp2").iterdir()} == {"plan.json", "plan.txt", "channels.png", "config.yaml", "log.txt"}
    assert main(["prune", "--cfg", "yolov5n", "--project", "here", "--name", "there"]) == 0
    assert (folder / "here/there/model.safetensors").is_file()


@pytest.mark.slow
def test_results_do_not_depend_on_the_run(folder: Path) -> None:
    for _ in range(2):
        assert main(["prune", "--weights", "small.safetensors", "--criterion", "random", "--seed", "3"]) == 0
    for name in ("model.safetensors", "plan.json", "plan.txt", "channels.png"):
        assert (folder / "runs/prune/exp" / name).read_bytes() == (folder / "runs/prune/exp2" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--keep", "0"], "keep is 0, expected more than 0 and at most 1"),
        (["--keep", "2"], "keep is 2"),
        (["--align", "0"], "align is 0"),
        (["--exclude", "nothing"], "'nothing' matches no convolution"),
        (["--keep-map", "none.json"], "none.json: no such file"),
        (["--keep-map", "pictures/0.png"], "pictures/0.png: not a UTF-8 text file"),
        (["--keep-map", "odd.yaml"], "odd.yaml: expected patterns and fractions"),
        (["--imgsz", "0"], "imgsz is 0"),
        (["--imgsz", "1", "2", "3"], "imgsz is 1 2 3"),
        (["--weights", "none.pt"], "none.pt: no such file"),
        (["--weights", "pictures"], "pictures: is a folder"),
        (["--project", "small.safetensors"], "cannot make the run folder"),
        (["--name", ""], "name is ''"),
        (["--seed", "-1"], "seed is -1"),
        (["--budget", "macs=0.001"], "budget macs=0.001 cannot be met: the least possible is macs=0."),
        (["--reconstruct", "nowhere"], "nowhere"),
    ],
)
def test_prune_refuses(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    (folder / "odd.yaml").write_text('"model.0\\n": 1', "utf-8")
    weights = [] if "--weights" in arguments else ["--weights", "small.safetensors"]
    assert told in failed(capsys, "prune", *weights, *arguments)
    assert not (folder / "runs").exists()


@pytest.mark.slow
def test_predict_on_pictures(folder: Path) -> None:
    assert main(["predict", "--weights", "small.safetensors", "--source", "pictures", "--save-txt", "--save-conf", "--save-json", "--save-crop"]) == 0
    run = folder / "runs/predict/exp"
    results = json.loads((run / "predictions.json").read_text())
    for index in range(3):
        assert cv2.imread(str(run / f"{index}.png")).shape == (60, 90, 3)
        lines = [line.split() for line in (run / f"labels/{index}.txt").read_text().splitlines()]
        mine = [entry for entry in results if entry["image_id"] == str(index)]
        assert len(lines) == len(mine) > 0
        for (label, cx, cy, w, h, confidence), entry in zip(lines, mine, strict=True):
            x, y, width, height = entry["bbox"]
            assert int(label) == entry["category_id"]
            expected = [(x + width / 2) / 90, (y + height / 2) / 60, width / 90, height / 60]
            np.testing.assert_allclose([float(value) for value in (cx, cy, w, h)], expected, atol=3e-4)
            assert float(confidence) == pytest.approx(entry["score"], abs=1e-4)
    crops = list((run / "crops").rglob("*.jpg"))
    assert 0 < len(crops) <= len(results)
    assert all(path.parent.parent == run / "crops" for path in crops)  # the class b/c is one folder
    assert main(["predict", "--weights", "small.safetensors", "--source", "pictures/0.png", "--classes", "1", "--save-json", "--nosave"]) == 0
    run = folder / "runs/predict/exp2"
    assert {entry["category_id"] for entry in json.loads((run / "predictions.json").read_text())} <= {1}
    assert not list(run.glob("*.png"))


def test_names_that_collide_lose_nothing(folder: Path) -> None:
    (folder / "same").mkdir()
    for index, name in enumerate(("bus-2.png", "bus.jpg", "bus.png")):
        write(folder / "same" / name, drawn_scene(index, 60, 90))
    assert main(["predict", "--weights", "small.safetensors", "--source", "same", "--save-txt", "--save-json", "--save-crop"]) == 0
    run = folder / "runs/predict/exp"
    results = json.loads((run / "predictions.json").read_text())
    assert len(list((run / "labels").iterdir())) == len({entry["image_id"] for entry in results}) == 3
    assert sum(len(path.read_text().splitlines()) for path in (run / "labels").iterdir()) == len(results)
    drawn = [entry for entry in results if round(entry["bbox"][2]) and round(entry["bbox"][3])]
    assert abs(len(list((run / "crops").rglob("*.jpg"))) - len(drawn)) <= len(results) - len(drawn) + 2


@pytest.mark.slow
def test_names_are_not_markup(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a[bold]x[").mkdir()
    write(folder / "a[bold]x[/y].png", drawn_scene(0, 60, 90))
    assert main(["predict", "--weights", "small.safetensors", "--source", "a[bold]x[/y].png"]) == 0
    assert "a[bold]x[/y].png: " in capsys.readouterr().out
    assert main(["prune", "--weights", "small.safetensors", "--exclude", "model.[0-1]", "--dry-run"]) == 0
    assert "excluded by model.[0-1]" in (folder / "runs/prune/exp/plan.txt").read_text()


def test_predict_on_a_video(folder: Path) -> None:
    make_video(folder / "a.avi", 9)
    assert main(["predict", "--weights", "small.safetensors", "--source", "a.avi", "--save-txt"]) == 0
    run = folder / "runs/predict/exp"
    capture = cv2.VideoCapture(str(run / "a.mp4"))
    assert (capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)) == (9, 25)
    assert len(list((run / "labels").iterdir())) == 9
    assert not list(run.glob(".*"))  # no temporary file is left


def test_predict_on_a_folder_of_videos(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "videos").mkdir()
    for name, count in (("a.avi", 3), ("b.avi", 5)):
        make_video(folder / "videos" / name, count)
    write(folder / "videos/a.png", drawn_scene(0, 60, 90))
    options = ["--hide-labels", "--line-thickness", "2", "--vid-stride", "2"]
    assert main(["predict", "--weights", "small.safetensors", "--source", "videos", "--save-txt", *options]) == 0
    run = folder / "runs/predict/exp"
    assert {path.name for path in run.glob("*.mp4")} == {"a-2.mp4", "b.mp4"}  # a.png was there before a.avi
    assert [cv2.VideoCapture(str(run / name)).get(cv2.CAP_PROP_FRAME_COUNT) for name in ("a-2.mp4", "b.mp4")] == [2, 3]
    assert {path.stem for path in (run / "labels").iterdir()} == {"a", "a-2_0", "a-2_2", "b_0", "b_2", "b_4"}
    said = capsys.readouterr().out
    assert "videos/a.avi: 2 frames" in said and "videos/b.avi: 3 frames" in said


def test_predict_on_a_stream_that_does_not_come_back(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FIRST_PAUSE", 0.001)
    with server(dropping([[10, 20, 30, 40], [50, 60, 70]], {})) as address:
        error = failed(capsys, "predict", "--weights", "small.safetensors", "--source", f"{address}/live.mjpg", "--retries", "2", "--save-txt")
    run = folder / "runs/predict/exp"
    assert "live.mjpg: lost after 7 frames, and not there again at any of 2 attempts (--retries 0 ends without an error); " in error
    assert f"the 7 frames before are in {Path('runs/predict/exp')}" in error
    assert len(list((run / "labels").iterdir())) == 7
    assert cv2.VideoCapture(str(run / "live.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 7
    assert (run / "log.txt").read_text().count("trying again in") == 3


def test_predict_keeps_what_it_has_when_a_picture_is_broken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pictures/1.png").write_bytes(b"broken")
    error = failed(capsys, "predict", "--weights", "small.safetensors", "--source", "pictures", "--save-txt")
    assert "1 of 3 pictures could not be read: pictures/1.png: not a readable picture" in error
    assert {path.name for path in (folder / "runs/predict/exp/labels").iterdir()} == {"0.txt", "2.txt"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--source", "none.jpg"], "none.jpg: no such file or folder"),
        (["--source", "empty.jpg"], "empty.jpg: the file is empty"),
        (["--source", "text.jpg"], "text.jpg: not a readable picture"),
        (["--source", "text.mp4"], "text.mp4: not a readable video"),
        (["--source", "pictures", "--conf", "2"], "conf is 2"),
        (["--source", "pictures", "--classes", "3"], "class 3 was asked for; this network has classes 0 to 2"),
        (["--source", "pictures", "--max-det", "0"], "--max-det is 0"),
        (["--source", "pictures", "--device", "0", "--runtime", "openvino"], "openvino runs on processors, and device is gpu"),
        (["--source", "97"], "camera 97: cannot be opened"),
        (["--source", "²"], "²: no such file or folder"),
        (["--source", "pictures", "--threads", "-3"], "threads is -3"),
        (["--source", "broken"], "2 of 2 pictures could not be read"),
    ],
)
def test_predict_refuses(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no picture")
    (folder / "text.mp4").write_text("no video")
    (folder / "broken").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / "broken" / name).write_text("no picture")
    assert told in failed(capsys, "predict", "--weights", "small.safetensors", *arguments)
    assert not (folder / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino"])
@pytest.mark.parametrize("options", [[], ["--dynamic"], ["--batch", "2", "--precision", "fp16"], ["--imgsz", "64", "96"]])
def test_export_and_what_runs_on_it(folder: Path, format: str, options: list[str]) -> None:
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    assert main(["export", "--weights", "small.safetensors", "--format", format, *options]) == 0
    run = folder / "runs/export/exp"
    report = json.loads((run / "export.json").read_text())
    path = run / ("model.onnx" if format == "onnx" else "openvino")
    assert report["path"] == str(path.relative_to(folder))
    assert report["bytes"] == sum(file.stat().st_size for file in ([path] if format == "onnx" else path.iterdir()))
    assert report["score_error"] < (0.05 if "fp16" in options else 1e-4)
    assert report["batch"] == (None if "--dynamic" in options else 2 if "--batch" in options else 1)
    if "--batch" in options:
        assert main(["bench", "--weights", str(path), "--iterations", "2", "--batch", "2"]) == 0
        return
    arguments = ["--source", "pictures", "--save-json", "--nosave"]
    assert main(["predict", "--weights", str(path), *arguments]) == 0
    size = ["--imgsz", "64", "96"] if "--imgsz" in options else []
    assert main(["predict", "--weights", "small.safetensors", *arguments, *size]) == 0
    found, expected = (json.loads((folder / f"runs/predict/{name}/predictions.json").read_text()) for name in ("exp", "exp2"))
    assert abs(len(found) - len(expected)) <= max(3, len(expected) // 2)  # square against rectangular letterbox
    assert {entry["name"] for entry in found} <= {"a", "b/c", "ü"}


@pytest.mark.slow
def test_the_onnx_contract(folder: Path) -> None:
    """As OpenCV, ONNX Runtime and DeepStream examples for YOLOv5 expect it."""
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    import onnx

    assert main(["export", "--weights", "small.safetensors"]) == 0
    graph = onnx.load("runs/export/exp/model.onnx")
    (image,), (output,) = graph.graph.input, graph.graph.output
    shape = [dimension.dim_value for dimension in image.type.tensor_type.shape.dim]
    assert (image.name, output.name, shape) == ("images", "output0", [1, 3, 64, 64])
    assert [dimension.dim_value for dimension in output.type.tensor_type.shape.dim] == [1, 3 * (64 + 16 + 4), 8]
    metadata = {item.key: item.value for item in graph.metadata_props}
    assert (metadata["names"], metadata["stride"], metadata["task"]) == ("{0: 'a', 1: 'b/c', 2: 'ü'}", "32", "detect")
    blob = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    network = cv2.dnn.readNetFromONNX("runs/export/exp/model.onnx")
    network.setInput(blob)
    import onnxruntime

    expected = onnxruntime.InferenceSession("runs/export/exp/model.onnx").run(["output0"], {"images": blob})[0]
    np.testing.assert_allclose(network.forward(), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_a_wrong_export_is_not_called_done(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    from octrim.targets.onnx.graph import OnnxOps

    # fresh weights let so little through that a missing layer would not show
    lively_model(yolov5_network("yolov5n", 3)).save("lively.safetensors")
    right = OnnxOps.maxpool
    monkeypatch.setattr(OnnxOps, "maxpool", lambda self, row, x: x if row.name.endswith("m.0") else right(self, row, x))
    assert "differs from Paddle" in failed(capsys, "export", "--weights", "lively.safetensors", "--imgsz", "128")
    assert not (folder / "runs").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["lively.safetensors", "pictures", "small.safetensors"]


def test_export_leaves_other_files_alone(folder: Path) -> None:
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    model = load("small.safetensors")
    (folder / "mine").mkdir()
    (folder / "mine/precious.txt").write_text("x")
    export(model, "mine", "openvino", imgsz=64)
    assert sorted(path.name for path in (folder / "mine").iterdir()) == ["model.bin", "model.xml", "precious.txt"]
    for path, format, told in (
        ("none/a.onnx", "onnx", "folder does not exist"),
        ("small.safetensors", "openvino", "folder name"),
        ("mine", "onnx", "ends in .onnx"),
    ):
        with pytest.raises(InputError, match=told):
            export(model, path, format, imgsz=64)
    with pytest.raises(InputError, match="no pictures"):
        export(model, "a.onnx", imgsz=64, pictures=[])


@pytest.mark.slow
def test_bench_compares_equal_sizes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--cfg", "yolov5n6", "--weights", "small.safetensors", "--imgsz", "96", "--iterations", "1", "--warmup", "0"]) == 0
    written = json.loads((folder / "runs/bench/exp/bench.json").read_text())
    assert written["header"]["height"] == 128
    assert written["networks"][1]["macs"] == network_cost(load("small.safetensors").network, 128).macs
    assert "runs at 128x128 where small.safetensors runs at 96x96" in failed(
        capsys, "bench", "--weights", "small.safetensors", save(fresh_model("yolov5n6", 3), "six.safetensors"), "--imgsz", "96"
    )


def save(model: Model, path: str) -> str:
    model.save(path)
    return path


@pytest.mark.slow
def test_precision_of_an_onnx_file_is_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    assert main(["export", "--weights", "small.safetensors", "--precision", "fp16"]) == 0
    path = "runs/export/exp/model.onnx"
    assert open_session(path).info.precision == "fp16"
    assert "was exported in fp16; ONNX Runtime cannot run it in bf16" in failed(
        capsys, "predict", "--weights", path, "--source", "pictures", "--precision", "bf16"
    )


@pytest.mark.slow
def test_bench(folder: Path) -> None:
    assert main(["prune", "--weights", "small.safetensors"]) == 0
    small = "runs/prune/exp/model.safetensors"
    assert main(["bench", "--weights", "small.safetensors", small, "--imgsz", "64", "--iterations", "3", "--warmup", "1", "--threads", "1"]) == 0
    written = json.loads(Path("runs/bench/exp/bench.json").read_text())
    first, second = written["networks"]
    assert (written["header"]["precision"], written["header"]["threads"], written["header"]["height"]) == ("fp32", 1, 64)
    assert first["network_speedup"] == first["mac_reduction"] == first["speedup_per_mac_reduction"] == 1
    assert second["file_bytes"] == Path(small).stat().st_size
    assert second["mac_reduction"] == pytest.approx(first["macs"] / second["macs"], abs=1e-4)
    # Milliseconds are written with four decimals, of which the ratio is off by the sum of both relative errors.
    rounding = 5e-5 / first["network_p50_ms"] + 5e-5 / second["network_p50_ms"]
    ratio = first["network_p50_ms"] / second["network_p50_ms"]
    assert second["network_speedup"] == pytest.approx(ratio, abs=ratio * rounding + 1e-4)
    assert second["speedup_per_mac_reduction"] == pytest.approx(second["network_speedup"] / second["mac_reduction"], abs=1e-3)
    for row in (first, second):
        assert row["network_p50_ms"] <= row["network_p90_ms"] <= row["network_p99_ms"]
        assert row["pictures_per_second"] == pytest.approx(1000 / row["total_p50_ms"], rel=1e-2)
    with Path("runs/bench/exp/bench.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["small.safetensors", small]


def test_info(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--cfg", "yolov5s"]) == 0
    out = capsys.readouterr().out
    assert "7,235,389" in out
    assert "8,216,780,800" in out
    assert "model.24.m.2" in out


@pytest.mark.slow
def test_full_disks_and_closed_pipes(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "model.safetensors")

    monkeypatch.setattr("octrim.network.model.Model.save", full)
    assert "model.safetensors: No space left on device" in failed(capsys, "prune", "--weights", "small.safetensors")
    if os.geteuid() != 0:  # root may write anywhere
        folder.chmod(0o500)
        try:
            assert "cannot make the run folder" in failed(capsys, "predict", "--weights", "small.safetensors", "--source", "pictures")
        finally:
            folder.chmod(0o700)

"""What YOLOv5's users type: taken, or answered with OcTrim's way, in one line each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from octrim.cli import main, parse, parsed
from octrim.errors import InputError
from octrim.yolov5_flags import BENCH, DETECT, EXPORT, FLAGS, SCRIPTS, TRAIN, VAL

ROOT = Path(__file__).parents[1]

# command, arguments, and the fields that they give
TAKEN: list[tuple[str, str, dict[str, Any]]] = [
    ("train", "--weights '' --cfg yolov5n.yaml", {"weights": None, "cfg": "yolov5n.yaml"}),
    ("train", "--weights= --cfg yolov5n.yaml", {"weights": None, "cfg": "yolov5n.yaml"}),
    ("train", "--weights '' --cfg=yolov5n.yaml", {"weights": None, "cfg": "yolov5n.yaml"}),
    ("train", "weights= cfg=yolov5n.yaml", {"weights": None, "cfg": "yolov5n.yaml"}),
    ("train", "--weights yolov5s.pt", {"weights": "yolov5s.pt"}),
    ("train", "--hyp data/hyps/hyp.scratch-med.yaml", {"hyp": "med"}),
    ("train", "--hyp hyp.scratch.yaml", {"hyp": "low"}),
    ("train", "--hyp mine.yaml", {"hyp": "mine.yaml"}),
    ("train", "--batch 8", {"batch": 8}),
    ("train", "--batch-size 8", {"batch": 8}),
    ("train", "--cache", {"cache": "ram"}),
    ("train", "--cache ram", {"cache": "ram"}),
    ("train", "--cache disk", {"cache": "disk"}),
    ("train", "--cache epochs=3", {"cache": "ram", "epochs": 3}),
    ("train", "--device 0", {"device": "gpu", "devices": None}),
    ("train", "--device cpu", {"device": "cpu"}),
    ("train", "--device cuda:0", {"device": "gpu"}),
    ("train", "--device 0,1", {"device": "gpu", "devices": 2}),
    ("train", "device=0 imgsz=320", {"device": "gpu", "imgsz": (320,)}),
    ("train", "--device ''", {"device": "auto"}),
    ("train", "--resume run", {"resume": "run"}),
    ("train", "--freeze 10", {"freeze": ("10",)}),
    ("train", "--freeze 0 1 2", {"freeze": ("model.0", "model.1", "model.2")}),
    ("train", "--optimizer AdamW", {"optimizer": "AdamW"}),
    ("train", "--label-smoothing 0.0", {}),
    (
        "train",
        "--img 320 --epochs 3 --multi-scale --single-cls --sync-bn --cos-lr --noval --noautoanchor --patience 5",
        {"epochs": 3, "no_autoanchor": True},
    ),
    ("train", "--img-size 320 --seed 1 --workers 2 --project p --name n --exist-ok --data d.yaml", {"imgsz": (320,), "seed": 1}),
    ("train.py", "--epochs 3", {"epochs": 3}),
    ("compress", "--device cpu --cache --weights '' --cfg yolov5n", {"device": "cpu", "cache": "ram", "weights": None}),
    ("finetune", "--device cpu", {"device": "cpu"}),
    ("sparsify", "--cache ram", {"cache": "ram"}),
    ("val", "--task test", {"split": "test"}),
    ("val.py", "--task val", {"split": "val"}),
    ("test", "--task train", {"split": "train"}),
    ("val", "--weights a.pt", {"weights": "a.pt"}),
    ("val", "--device cpu --half imgsz=320", {"device": "cpu", "precision": "fp16", "imgsz": (320,)}),
    ("val", "--device 0", {"device": "gpu"}),
    ("val", "--device cuda:0", {"device": "gpu"}),
    ("val", "--device ''", {"device": "auto"}),
    ("val", "--batch-size 2 --conf-thres 0.01 --iou-thres 0.5 --max-det 100", {"batch": 2, "conf": 0.01, "iou": 0.5, "max_det": 100}),
    ("val", "--weights model.engine --device 0", {"weights": "model.engine", "device": "gpu"}),
    ("detect", "--source 0 --classes person 2", {"source": "0", "classes": ("person", 2)}),
    ("detect.py", "--line-thickness 3 --hide-labels --hide-conf --vid-stride 2", {"line_thickness": 3, "hide_labels": True, "vid_stride": 2}),
    ("predict", "--weights a.pt --device cpu --half", {"precision": "fp16", "device": "cpu"}),
    ("detect", "device=0 source=a.jpg", {"device": "gpu", "source": "a.jpg"}),
    ("predict", "--agnostic-nms --save-crop --nosave --save_txt --save-conf", {"agnostic": True, "save_txt": True}),
    ("export", "--include onnx", {"format": "onnx"}),
    ("export", "--include tflite", {"format": "litert"}),
    ("export.py", "--include engine --device 0 --half --dynamic --workspace 4", {"format": "tensorrt", "precision": "fp16", "dynamic": True}),
    ("export", "--int8", {"precision": "int8"}),
    ("export", "--cache times.bin", {"timing_cache": "times.bin"}),
    ("export", "--opset 13", {}),
    ("export", "--weights a.pt", {"weights": "a.pt"}),
    ("benchmarks", "--device cpu --half", {"precision": "fp16", "device": "cpu"}),
    ("bench", "--device 0", {"device": "gpu"}),
]

# command, arguments, and what the note on standard error says
NOTED = [
    ("train", "--linear-lr", "unless --cos-lr"),
    ("train", "--nosave", "best.safetensors and last.safetensors"),
    ("train", "--notest", "--noval"),
    ("train", "--noplots", "curves"),
    ("train", "--save-period 5", "a checkpoint to resume from"),
    ("train", "--local_rank -1", "--devices N"),
    ("train", "--entity me", "--tensorboard"),
    ("train", "--upload_dataset", "--tensorboard"),
    ("train", "--bbox_interval 3", "--tensorboard"),
    ("train", "--artifact_alias latest", "--tensorboard"),
    ("train", "--log-imgs 16", "--tensorboard"),
    ("train", "--log-artifacts", "--tensorboard"),
    ("train", "--ndjson-console", "results.csv"),
    ("train", "--ndjson-file", "results.csv"),
    ("val", "--save-json", "always"),
    ("val", "--verbose", "every class"),
    ("val", "--rect", "rectangles always"),
    ("val", "--workers 8", "beside the network"),
    ("val", "--dnn", "ONNX Runtime"),
    ("predict", "--view-img", "no window"),
    ("predict", "--data data/coco128.yaml", "come with the weights"),
    ("predict", "--update", "nothing to strip"),
    ("predict", "--rect", "rectangles always"),
    ("predict", "--dnn", "ONNX Runtime"),
    ("export", "--opset 17", "opset 13"),
    ("export", "--simplify", "without anything to simplify"),
    ("export", "--inplace", "from the table"),
    ("export", "--optimize", "folded always"),
    ("export", "--per-tensor", "scale per channel"),
    ("export", "--verbose", "log.txt"),
    ("export", "--grid", "in the graph always"),
]

# command, arguments, and what the one line says
REFUSED = [
    ("train", "--weights ''", "give --cfg yolov5n"),
    ("train", "--batch -1", "give a number"),
    ("train", "--batch-size -1", "give a number"),
    ("train", "--device 2,3", "set CUDA_VISIBLE_DEVICES=2,3 and give --device gpu --devices 2"),
    ("train", "--device mps", "cpu and on NVIDIA's GPUs"),
    ("train", "--optimizer Adam", "SGD, Muon and AdamW"),
    ("train", "--adam", "--optimizer AdamW"),
    ("train", "--label-smoothing 0.1", "without label smoothing"),
    ("train", "--rect", "square"),
    ("train", "--image-weights", "several times in a list"),
    ("train", "--quad", "--multi-scale"),
    ("train", "--evolve", "--hyp takes a file"),
    ("train", "--evolve 300", "--evolve 300: hyper-parameters are not evolved"),
    ("train", "--evolve_population x", "--hyp takes a file"),
    ("train", "--resume_evolve x", "--hyp takes a file"),
    ("train", "--bucket gs://x", "nothing is uploaded"),
    ("train", "--logdir runs/", "--project and --name"),
    ("val", "--merge", "--score-voting"),
    ("val", "--task speed", "octrim bench"),
    ("val", "--task study", "octrim bench"),
    ("val", "--task predict", "expected train, val, test"),
    ("val", "--weights a.pt b.pt", "no ensembles"),
    ("val", "--device 2", "set CUDA_VISIBLE_DEVICES=2 and give --device gpu"),
    ("val", "--single-cls", "train with --single-cls"),
    ("val", "--augment", "at test time"),
    ("val", "--save-txt", "octrim predict --save-txt"),
    ("val", "--save-hybrid", "predictions.json"),
    ("val", "--save-conf", "octrim predict --save-txt --save-conf"),
    ("detect", "--weights a.pt b.pt", "no ensembles"),
    ("detect", "--device 0,1", "one GPU runs a network"),
    ("detect", "--augment", "at test time"),
    ("detect", "--visualize", "octrim info"),
    ("detect", "--output inference/output", "--project and --name"),
    ("detect", "--save-csv", "--save-json"),
    ("detect", "--save-format 1", "corners in pixels"),
    ("export", "--include torchscript onnx", "does not use PyTorch"),
    ("export", "--include coreml", "on a Mac"),
    ("export", "--include saved_model", "onnx2tf"),
    ("export", "--include edgetpu", "--format litert --precision int8"),
    ("export", "--include rknn", "unknown format"),
    ("export", "--device 3", "set CUDA_VISIBLE_DEVICES=3"),
    ("export", "--weights a.pt b.pt", "no ensembles"),
    ("export", "--opset 11", "nothing older"),
    ("export", "--nms", "octrim predict does it"),
    ("export", "--agnostic-nms", "octrim predict does it"),
    ("export", "--topk-per-class 100", "octrim predict does it"),
    ("export", "--topk-all 100", "octrim predict does it"),
    ("export", "--conf-thres 0.25", "octrim predict does it"),
    ("export", "--iou-thres 0.45", "octrim predict does it"),
    ("export", "--keras", "onnx2tf"),
    ("export", "--mlmodel", "on a Mac"),
    ("export", "--train", "octrim train"),
    ("bench", "--device mps", "cpu and on NVIDIA's GPUs"),
    ("bench", "--data coco128.yaml", "octrim val"),
    ("bench", "--test", "compares every file"),
    ("bench", "--pt-only", "--weights A B"),
    ("bench", "--hard-fail", "ends the command"),
    ("segment/train.py", "", "detectors only"),
    ("classify/predict.py", "", "detectors only"),
    ("hubconf.py", "", "octrim.load"),
]


def words(command: str, arguments: str) -> list[str]:
    return [command, *("" if word == "''" else word for word in arguments.split())]


@pytest.mark.parametrize(("command", "arguments", "fields"), TAKEN)
def test_taken(command: str, arguments: str, fields: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    config = parse(words(command, arguments))
    assert {name: getattr(config, name) for name in fields} == fields
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("command", "arguments", "told"), NOTED)
def test_taken_without_effect(command: str, arguments: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(words(command, arguments)) == parse([command])
    error = capsys.readouterr().err
    assert error.startswith(f"octrim {command}: note: {arguments.partition(' ')[0]}") and told in error and error.count("\n") == 1


@pytest.mark.parametrize(("command", "arguments", "told"), REFUSED)
def test_answered_with_another_way(command: str, arguments: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(command, arguments)) == 2
    captured = capsys.readouterr()
    assert told in captured.err and captured.err.count("\n") == 1 and captured.out == ""


def test_every_flag_is_tried() -> None:
    tried = {
        (SCRIPTS.get(command, command), word.removeprefix("--").partition("=")[0].replace("_", "-"))
        for command, arguments, _ in [*TAKEN, *NOTED, *REFUSED]
        for word in arguments.split()
        if word.startswith("--")
    }
    for command, flags in (("train", TRAIN), ("val", VAL), ("predict", DETECT), ("export", EXPORT), ("bench", BENCH)):
        assert not {flag.name for flag in flags} - {name for one, name in tried if one == command}
    assert FLAGS["compress"] is TRAIN


def test_several_formats_are_several_exports() -> None:
    configs = parsed(["export", "--weights", "a.pt", "--include", "onnx", "openvino", "--half"])
    assert [(config.format, config.precision, config.weights) for config in configs] == [("onnx", "fp16", "a.pt"), ("openvino", "fp16", "a.pt")]
    assert len(parsed(["export", "--include", "onnx", "onnx"])) == 1


def test_runs_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--resume: there is no run in runs/train to go on with"):
        parse(["train", "--resume"])
    for number, name in enumerate(("exp2", "exp", "exp3")):
        folder = tmp_path / "runs/train" / name
        folder.mkdir(parents=True)
        for file in ("config.yaml", "log.txt"):
            (folder / file).write_text("")
            os.utime(folder / file, (1000 + number, 1000 + number))
    os.utime(tmp_path / "runs/train/exp/log.txt", (2000, 2000))  # the one that was at work last
    for arguments in (["--resume"], ["--resume", "True"], ["resume=True"], ["--resume", "--epochs", "100"]):
        assert parse(["train", *arguments]).resume == "runs/train/exp"
    Path("runs/train").rename("c2")
    for arguments in (["--resume", "--project", "c2"], ["--resume", "--project=c2"], ["resume=", "project=c2"]):
        assert parse(["train", *arguments]).resume == "c2/exp"
    Path("c2").rename("runs/train")
    assert "--resume goes on with runs/train/exp" in capsys.readouterr().err
    for path in ("runs/train/exp2/weights/last.pt", "runs/train/exp2/last.safetensors", "runs/train/exp2"):
        assert parse(["train", "--resume", path]).resume == "runs/train/exp2"
    with pytest.raises(InputError, match=r"a run of YOLOv5 cannot be resumed; .*: --weights elsewhere/weights/last.pt"):
        parse(["train", "--resume", "elsewhere/weights/last.pt"])
    assert parse(["train", "--resume", "nowhere"]).resume == "nowhere"


def test_the_docs_have_every_flag() -> None:
    text = (ROOT / "docs/yolov5.md").read_text("utf-8")
    for flags in (TRAIN, VAL, DETECT, EXPORT, BENCH):
        for flag in flags:
            assert f"| `--{flag.name}` | {flag.does} |" in text, flag.name

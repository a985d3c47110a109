"""Tables of the options of YOLOv5's scripts and of what each becomes in OcTrim. docs/yolov5.md shows these tables; a test compares them.

An option that OcTrim has under the same name stands in no table, unless it takes other values in YOLOv5.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from octrim.errors import InputError


@dataclass(frozen=True)
class Typed:
    """An option of YOLOv5 as it was typed. command: OcTrim's command. values: values behind the option. arguments: all arguments of the command."""

    command: str
    option: str
    values: tuple[str, ...]
    arguments: Sequence[str]

    def note(self, line: str) -> None:
        """Print a note, which is no error, on standard error."""
        print(f"octrim {self.command}: note: {line}", file=sys.stderr)

    @property
    def text(self) -> str:
        return " ".join((self.option, *self.values))

    def value_of(self, name: str) -> str | None:
        """The value of another option, typed as `--name value`, `--name=value` or `name=value`; of several the last. None where there is none."""
        found = None
        for argument, following in zip(self.arguments, [*self.arguments[1:], None], strict=True):
            spelling, equals, text = argument.partition("=")
            if spelling == f"--{name}" or (spelling == name and equals):
                found = text if equals else following
        return found


Rewrite = Callable[[Typed], list[str]]


@dataclass(frozen=True)
class Flag:
    """An option of YOLOv5. most: largest number of its values. does: description, for the docs, of what OcTrim makes of it. rewrite: function that
    returns OcTrim's arguments for it.

    words: the only values that it takes, where given; other words behind it are arguments of their own.
    """

    name: str
    most: int
    does: str
    rewrite: Rewrite
    words: tuple[str, ...] = ()


def refused(name: str, way: str, most: int = 0) -> Flag:
    """Flag for an option that OcTrim refuses, because it has nothing like it. way: what to do instead."""

    def rewrite(given: Typed) -> list[str]:
        raise InputError(f"{given.text}: {way}")

    return Flag(name, most, f"refused: {way}", rewrite)


def without_effect(name: str, why: str, most: int = 0) -> Flag:
    """Flag for an option that is accepted and ignored, because results are the same without it. why: reason, which is printed as a note."""

    def rewrite(given: Typed) -> list[str]:
        given.note(f"{given.text} changes nothing: {why}")
        return []

    return Flag(name, most, f"taken, changes nothing: {why}", rewrite)


def becomes(name: str, *arguments: str, most: int = 0) -> Flag:
    """Flag for an option that OcTrim spells differently. arguments: OcTrim's spelling, behind which the values follow."""

    def rewrite(given: Typed) -> list[str]:
        return [*arguments, *given.values]

    return Flag(name, most, f"`{' '.join(arguments)}`", rewrite)


def _empty_weights(given: Typed) -> list[str]:
    if len(given.values) > 1:
        raise InputError(f"{given.text}: OcTrim runs one network at a time, no ensembles")
    if given.values and given.values[0] not in ("''", '""', ""):
        return [f"--{given.option.removeprefix('--')}", *given.values]
    if not given.value_of("cfg"):
        raise InputError(f"{given.option} is empty: give --cfg yolov5n (or another layout) to start from fresh weights")
    return []


def _cache(given: Typed) -> list[str]:
    return ["--cache", given.values[0] if given.values else "ram"]


_AUTOMATIC = "OcTrim does not look for the largest batch; give a number, and less where memory ends (the default is 16)"


def _batch(given: Typed) -> list[str]:
    if given.values == ("-1",):
        raise InputError(f"{given.text}: {_AUTOMATIC}")
    return [f"--{given.option.removeprefix('--')}", *given.values]


def _train_device(given: Typed) -> list[str]:
    text = ",".join(given.values).lower().replace("cuda:", "").replace(" ", "")
    if text in ("", "''"):
        return []
    if text in ("cpu", "gpu", "auto", "cuda"):
        return ["--device", "gpu" if text == "cuda" else text]
    numbers = [part for part in text.split(",") if part]
    if not all(part.isdecimal() for part in numbers):
        raise InputError(f"{given.text}: Paddle trains on cpu and on NVIDIA's GPUs here: --device cpu, gpu, or numbers such as 0 and 0,1")
    several = ["--devices", str(len(numbers))] if len(numbers) > 1 else []
    if sorted(map(int, numbers)) != list(range(len(numbers))):
        raise InputError(f"{given.text}: set CUDA_VISIBLE_DEVICES={','.join(numbers)} and give {' '.join(['--device gpu', *several])}")
    return ["--device", "gpu", *several]


def _run_device(given: Typed) -> list[str]:
    text = ",".join(given.values).lower().removeprefix("cuda:").replace(" ", "")
    if text in ("", "''"):
        return []
    if text in ("cpu", "auto"):
        return ["--device", text]
    if text in ("0", "cuda", "gpu"):
        return ["--device", "gpu"]
    if not text.replace(",", "").isdecimal():
        raise InputError(f"{given.text}: networks run on cpu and on NVIDIA's GPUs here: --device cpu, gpu or 0")
    if "," in text:
        raise InputError(f"{given.text}: one GPU runs a network here: set CUDA_VISIBLE_DEVICES and give --device gpu")
    raise InputError(f"{given.text}: set CUDA_VISIBLE_DEVICES={text} and give --device gpu")


def _export_device(given: Typed) -> list[str]:
    if given.values and given.values[0].lower() not in ("", "''", "cpu", "0", "cuda", "cuda:0"):
        raise InputError(f"{given.text}: an engine is built for the first visible GPU: set CUDA_VISIBLE_DEVICES={given.values[0]}")
    return []


def _resume(given: Typed) -> list[str]:
    """Rewrite `--resume`: alone it means the newest run; `--resume runs/train/exp/weights/last.pt` means the run's folder."""
    value = given.values[0] if given.values else ""
    if value.lower() in ("", "true", "1"):
        project = Path(given.value_of("project") or f"runs/{given.command}")
        runs = sorted(project.glob("*/config.yaml"), key=lambda path: (max(path.stat().st_mtime, _changed(path.with_name("log.txt"))), str(path)))
        if not runs:
            raise InputError(f"--resume: there is no run in {project} to go on with")
        given.note(f"--resume goes on with {runs[-1].parent}")
        return ["--resume", str(runs[-1].parent)]
    path = Path(value)
    for folder in (path, *path.parents[:3]):
        if folder != Path() and (folder / "config.yaml").is_file():
            return ["--resume", str(folder)]
    if path.suffix == ".pt":
        raise InputError(f"{given.text}: a run of YOLOv5 cannot be resumed; a new one starts from what it learned: --weights {value}")
    return ["--resume", value]


def _changed(path: Path) -> float:
    return path.stat().st_mtime if path.is_file() else 0.0


def _hyp(given: Typed) -> list[str]:
    """Rewrite `--hyp`: `data/hyps/hyp.scratch-low.yaml` means a recipe of OcTrim where there is no such file."""
    name = Path(given.values[0]).name if given.values else ""
    published = re.fullmatch(r"hyp\.scratch(?:-(low|med|high))?\.yaml", name)
    if published and not Path(given.values[0]).is_file():
        return ["--hyp", published[1] or "low"]
    return ["--hyp", *given.values]


def _freeze(given: Typed) -> list[str]:
    """Rewrite `--freeze`: in YOLOv5 one number is a count of layers, and several numbers are the layers themselves."""
    if len(given.values) > 1 and all(value.isdecimal() for value in given.values):
        return ["--freeze", *(f"model.{value}" for value in given.values)]
    return ["--freeze", *given.values]


def _optimizer(given: Typed) -> list[str]:
    if given.values == ("Adam",):
        raise InputError(f"{given.text}: OcTrim has SGD, Muon and AdamW")
    return ["--optimizer", *given.values]


def _smoothing(given: Typed) -> list[str]:
    try:
        if given.values and float(given.values[0]) == 0:
            return []
    except ValueError:
        pass
    raise InputError(f"{given.text}: OcTrim trains without label smoothing")


def _task(given: Typed) -> list[str]:
    value = given.values[0] if given.values else ""
    if value in ("train", "val", "test"):
        return ["--split", value]
    if value in ("speed", "study"):
        raise InputError(f"{given.text}: octrim bench --weights FILE [FILE ..] measures times; octrim val --imgsz PX the accuracy at a size")
    raise InputError(f"{given.text}: expected train, val, test, speed or study")


_FORMATS = {
    "onnx": "onnx",
    "openvino": "openvino",
    "engine": "tensorrt",
    "paddle": "paddle",
    "tensorrt": "tensorrt",
    "tflite": "litert",
    "litert": "litert",
    "ncnn": "ncnn",
}
_OTHER_FORMATS = {
    "torchscript": "OcTrim does not use PyTorch; onnx runs wherever TorchScript does",
    "coreml": "Core ML's tools convert the ONNX file on a Mac",
    "saved_model": "TensorFlow's formats are made from the ONNX file by onnx2tf",
    "pb": "TensorFlow's formats are made from the ONNX file by onnx2tf",
    "edgetpu": "Google's compiler makes it of what --format litert --precision int8 writes",
    "tfjs": "TensorFlow's formats are made from the ONNX file by onnx2tf",
}


def _include(given: Typed) -> list[str]:
    """Rewrite `--include` as `--format` with all its values; `one_format_each` makes a command of each value."""
    formats = [part for value in given.values for part in value.split(",") if part]
    for name in formats:
        if name in _OTHER_FORMATS:
            raise InputError(f"--include {name}: {_OTHER_FORMATS[name]}; OcTrim writes {', '.join(dict.fromkeys(_FORMATS.values()))}")
        if name not in _FORMATS:
            raise InputError(f"--include {name}: unknown format; OcTrim writes {', '.join(dict.fromkeys(_FORMATS.values()))}")
    return ["--format", *dict.fromkeys(_FORMATS[name] for name in formats)]


def _opset(given: Typed) -> list[str]:
    value = given.values[0] if given.values else ""
    if not value.isdecimal() or int(value) < 13:
        raise InputError(f"{given.text}: OcTrim writes opset 13, and nothing older")
    if int(value) > 13:
        given.note(f"{given.text}: written in opset 13, which newer runtimes read, too")
    return []


_ONE_AT_A_TIME = "results are files in the run's folder; there is no window"
_NO_LOGGER = "there is no Weights & Biases and no ClearML here; --tensorboard writes curves"
_NO_SUPPRESSION = "boxes are suppressed behind the network, not in it; octrim predict does it with --conf and --iou"
_AUGMENT = "there is no augmentation at test time; octrim val without it measures what is deployed"
_DNN = "an .onnx file runs in ONNX Runtime, or in OpenVINO with --runtime openvino"

TRAIN: tuple[Flag, ...] = (
    Flag("weights", 9, "the same; `''` with `--cfg` means fresh weights", _empty_weights),
    Flag("hyp", 1, "the same; `hyp.scratch-low.yaml` (`-med`, `-high`) are the recipes `low`, `med`, `high` where there is no such file", _hyp),
    Flag("batch", 1, f"the same; -1 is refused: {_AUTOMATIC}", _batch),
    Flag("batch-size", 1, "as `--batch`", _batch),
    Flag("cache", 1, "the same; without a value `ram`", _cache, ("ram", "disk", "auto", "none")),
    Flag("device", 9, "`cpu`; `0` is `--device gpu`, `0,1` is `--device gpu --devices 2`; others by CUDA_VISIBLE_DEVICES", _train_device),
    Flag("resume", 1, "without a value the newest run in runs/train (or `--project`); `RUN/weights/last.pt` means the folder of the run", _resume),
    Flag("freeze", 99, "the same: one number is so many layers, several are those layers", _freeze),
    Flag("optimizer", 1, "SGD and AdamW, and Muon besides; Adam is refused", _optimizer),
    Flag("label-smoothing", 1, "0 is taken, others are refused: OcTrim trains without", _smoothing),
    refused("rect", "training pictures are square (mosaics); octrim val and predict use rectangles always"),
    refused("image-weights", "pictures are drawn evenly; rare classes are helped by listing their pictures several times in a list of paths"),
    refused("quad", "there is no quad loader; give a larger --imgsz or --multi-scale"),
    refused("evolve", "hyper-parameters are not evolved; --hyp takes a file of them", 1),
    refused("evolve-population", "hyper-parameters are not evolved; --hyp takes a file of them", 1),
    refused("resume-evolve", "hyper-parameters are not evolved; --hyp takes a file of them", 1),
    refused("bucket", "nothing is uploaded; copy the run's folder", 1),
    refused("adam", "--optimizer AdamW is the nearest"),
    without_effect("linear-lr", "the learning rate falls along a line unless --cos-lr is given"),
    without_effect("nosave", "best.safetensors and last.safetensors are kept, nothing else"),
    without_effect("notest", "give --noval to evaluate the last epoch only"),
    without_effect("noplots", "curves are drawn at the end only"),
    without_effect("save-period", "best.safetensors and last.safetensors are kept, and a checkpoint to resume from", 1),
    without_effect("local-rank", "--devices N starts the processes itself", 1),
    without_effect("entity", _NO_LOGGER, 1),
    without_effect("upload-dataset", _NO_LOGGER, 1),
    without_effect("bbox-interval", _NO_LOGGER, 1),
    without_effect("artifact-alias", _NO_LOGGER, 1),
    without_effect("log-imgs", _NO_LOGGER, 1),
    without_effect("log-artifacts", _NO_LOGGER),
    refused("logdir", "--project and --name say where results go", 1),
    without_effect("ndjson-console", "the log is log.txt and results.csv"),
    without_effect("ndjson-file", "the log is log.txt and results.csv"),
)

VAL: tuple[Flag, ...] = (
    Flag("weights", 9, "the same, one network", _empty_weights),
    Flag("task", 1, "`--split train`, `val` or `test`; `speed` and `study` are refused: octrim bench", _task),
    Flag("device", 9, "`cpu`; `0` is `--device gpu`; others by CUDA_VISIBLE_DEVICES", _run_device),
    becomes("half", "--precision", "fp16"),
    refused("single-cls", "train with --single-cls; the network then has one class"),
    refused("augment", _AUGMENT),
    refused("save-txt", "octrim predict --save-txt writes labels"),
    refused("save-hybrid", "labels and predictions are not mixed; predictions.json has what was found"),
    refused("save-conf", "octrim predict --save-txt --save-conf writes labels with confidences"),
    refused("merge", "boxes that overlap are averaged by octrim val --score-voting"),
    without_effect("save-json", "predictions.json is written always"),
    without_effect("verbose", "the table shows every class always"),
    without_effect("rect", "pictures are rectangles always"),
    without_effect("workers", "pictures are read beside the network always", 1),
    without_effect("dnn", _DNN),
)

DETECT: tuple[Flag, ...] = (
    Flag("weights", 9, "the same, one network", _empty_weights),
    Flag("device", 9, "`cpu`; `0` is `--device gpu`; others by CUDA_VISIBLE_DEVICES", _run_device),
    becomes("half", "--precision", "fp16"),
    refused("augment", _AUGMENT),
    refused("visualize", "feature maps are not drawn; octrim info shows every map's shape"),
    refused("save-csv", "--save-json writes predictions.json, --save-txt a text file per picture"),
    refused("save-format", "--save-txt writes YOLO's format; --save-json has corners in pixels", 1),
    without_effect("view-img", _ONE_AT_A_TIME),
    without_effect("data", "class names come with the weights", 1),
    without_effect("update", "weights are model files; there is nothing to strip"),
    refused("output", "--project and --name say where results go", 1),
    without_effect("rect", "pictures are rectangles always"),
    without_effect("dnn", _DNN),
)

EXPORT: tuple[Flag, ...] = (
    Flag("weights", 9, "the same, one network", _empty_weights),
    Flag("include", 9, "`--format`, once for each: onnx, openvino, engine (tensorrt), paddle, tflite (litert), ncnn; others are refused", _include),
    Flag("device", 9, "`cpu` and 0 are taken: only an engine needs a GPU, and finds it", _export_device),
    becomes("half", "--precision", "fp16"),
    becomes("int8", "--precision", "int8"),
    becomes("cache", "--timing-cache", most=1),
    Flag("opset", 1, "13 is what is written; older ones are refused", _opset),
    refused("nms", _NO_SUPPRESSION),
    refused("agnostic-nms", _NO_SUPPRESSION),
    refused("topk-per-class", _NO_SUPPRESSION, 1),
    refused("topk-all", _NO_SUPPRESSION, 1),
    refused("conf-thres", _NO_SUPPRESSION, 1),
    refused("iou-thres", _NO_SUPPRESSION, 1),
    refused("keras", "TensorFlow's formats are made from the ONNX file by onnx2tf"),
    refused("mlmodel", "Core ML's tools convert the ONNX file on a Mac"),
    refused("train", "the graph that is written detects; octrim train trains the model file"),
    without_effect("grid", "boxes are decoded in the graph always"),
    without_effect("simplify", "the graph is written without anything to simplify"),
    without_effect("inplace", "the graph is written from the table"),
    without_effect("optimize", "batch norm is folded always"),
    without_effect("per-tensor", "int8 weights have a scale per channel, maps one per tensor"),
    without_effect("verbose", "progress is shown, and log.txt has the rest"),
)

BENCH: tuple[Flag, ...] = (
    Flag("device", 9, "`cpu`; `0` is `--device gpu`; others by CUDA_VISIBLE_DEVICES", _run_device),
    becomes("half", "--precision", "fp16"),
    refused("data", "octrim val measures accuracy", 1),
    refused("test", "octrim export compares every file before it is called done"),
    refused("pt-only", "give the files to compare: --weights A B"),
    refused("hard-fail", "every failure ends the command", 1),
)

FLAGS: Mapping[str, tuple[Flag, ...]] = {
    "train": TRAIN,
    "sparsify": TRAIN,
    "finetune": TRAIN,
    "compress": TRAIN,
    "val": VAL,
    "predict": DETECT,
    "export": EXPORT,
    "bench": BENCH,
}
"""Tables of YOLOv5's options by OcTrim's command."""

SCRIPTS: Mapping[str, str] = {
    "detect": "predict",
    "detect.py": "predict",
    "predict.py": "predict",
    "train.py": "train",
    "val.py": "val",
    "test": "val",
    "test.py": "val",
    "export.py": "export",
    "benchmarks": "bench",
    "benchmarks.py": "bench",
}
"""OcTrim's commands by the names of YOLOv5's scripts and commands that do the same."""

"""The command line: one frozen dataclass per command. Its fields are the options, and the `config.yaml` in the run's folder.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import arg

from octrim.errors import InputError

ImageSize = Annotated[tuple[int, ...] | None, arg(aliases=["--img", "--img-size"], metavar="PX [PX]", help_behavior_hint="")]
Text = Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")]
Number = Annotated[int | None, arg(metavar="N", help_behavior_hint="")]
Runtime = Annotated[
    Literal["openvino", "onnxruntime", "paddle", "numpy"] | None, arg(metavar="{openvino,onnxruntime,paddle,numpy}", help_behavior_hint="")
]
Conf = Annotated[float, arg(aliases=["--conf-thres"])]
Iou = Annotated[float, arg(aliases=["--iou-thres"])]
Batch = Annotated[int, arg(aliases=["--batch-size"])]


@dataclass(frozen=True)
class Weights:
    """Options of every command that reads one network."""

    weights: Text = None
    """Model file (.safetensors) or YOLOv5 checkpoint (.pt)."""
    cfg: Text = None
    """Instead of weights: yolov5n .. yolov5x6 or a YAML layout, freshly initialised."""
    seed: int = 0
    """Of the fresh weights and of the criterion random."""


@dataclass(frozen=True)
class Folder:
    """Options of every command that leaves files."""

    project: Text = None
    """Folder of runs (default: runs/COMMAND)."""
    name: str = "exp"
    """The run's name; numbered where it exists."""
    exist_ok: bool = False
    """Write into an existing run folder."""


@dataclass(frozen=True)
class Execution:
    """Options of every command that runs networks."""

    runtime: Runtime = None
    """What runs the network (default: openvino; onnxruntime for an .onnx file)."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """What it computes in."""
    threads: Number = None
    """Processor threads (default: all)."""


@dataclass(frozen=True)
class Info(Weights):
    """Show a network: its rows, parameters, MACs, coupled channels and lineage."""

    imgsz: ImageSize = None
    """Side, or height and width, that MACs are counted for."""

    def run(self) -> None:
        from octrim.network.describe import info

        info(self)


@dataclass(frozen=True)
class Predict(Execution, Folder):
    """Detect objects in a picture, folder, glob, video, stream or camera."""

    weights: str = "best.safetensors"
    """Model file, checkpoint (.pt), .onnx file, or OpenVINO IR (.xml or its folder)."""
    source: str = "0"
    """Picture, folder, glob, video, stream address, or camera number."""
    imgsz: ImageSize = None
    """Side, or height and width, in pixels (default: what the network was made for)."""
    conf: Conf = 0.25
    """Least confidence."""
    iou: Iou = 0.45
    """IoU above which boxes of one class suppress each other."""
    max_det: int = 300
    """Boxes per picture at most."""
    classes: Annotated[tuple[int, ...] | None, arg(metavar="N [N ...]", help_behavior_hint="")] = None
    """Keep only these class numbers."""
    agnostic: Annotated[bool, arg(aliases=["--agnostic-nms"])] = False
    """Suppress across classes."""
    save_txt: bool = False
    """Write labels/*.txt in YOLO format."""
    save_conf: bool = False
    """Confidence as the last column of the labels."""
    save_json: bool = False
    """Write predictions.json (COCO results)."""
    save_crop: bool = False
    """Write every box as a picture, by class."""
    nosave: bool = False
    """No annotated pictures and videos."""
    device: str = "cpu"
    """Only cpu so far."""

    def run(self) -> None:
        from octrim.evaluate.predict import predict

        predict(self)


@dataclass(frozen=True)
class Data(Folder):
    """Look at a data set: counts, class balance, box sizes, what is broken, and a contact sheet of labelled pictures."""

    check: Annotated[str | None, arg(metavar="DATA", aliases=["--data"], help_behavior_hint="")] = None
    """data.yaml, a folder (YOLO, COCO, VOC), or a COCO annotation file."""
    split: str = "train"
    """Which part of it."""
    names: Annotated[tuple[str, ...], arg(metavar="NAME [NAME ...]", help_behavior_hint="")] = ()
    """Class names, where the format has none."""

    def run(self) -> None:
        from octrim.data.check import check

        check(self)


@dataclass(frozen=True)
class Val(Execution, Folder):
    """Evaluate a network on labelled pictures: COCO mAP, per class, curves."""

    weights: str = "best.safetensors"
    """Model file, checkpoint (.pt), .onnx file, or OpenVINO IR (.xml or its folder)."""
    data: Text = None
    """data.yaml, a folder (YOLO, COCO, VOC), or a COCO annotation file."""
    split: str = "val"
    """Which part of it."""
    imgsz: ImageSize = None
    """Side, or height and width, in pixels (default: what the network was made for)."""
    batch: Batch = 8
    """Pictures per batch."""
    conf: Conf = 0.001
    """Least confidence."""
    iou: Iou = 0.6
    """IoU above which boxes of one class suppress each other."""
    max_det: int = 300
    """Boxes per picture at most."""
    bootstrap: int = 1000
    """Resamplings for the confidence interval of mAP; 0 leaves it out."""
    seed: int = 0
    """Of the resampling."""

    def run(self) -> None:
        from octrim.evaluate.val import val

        val(self)


@dataclass(frozen=True)
class Training(Weights, Folder):
    """Options of every command that trains."""

    data: Text = None
    """data.yaml, a folder (YOLO, COCO, VOC), or a COCO annotation file."""
    epochs: int = 100
    """Passes over the pictures."""
    batch: Batch = 16
    """Pictures per batch, of all processes together."""
    nominal_batch: int = 64
    """Pictures per optimizer step: batches are accumulated up to it. Small data sets want fewer."""
    imgsz: ImageSize = None
    """Side of the pictures in pixels (default: what the network was made for)."""
    hyp: str = "low"
    """Recipe: low, med, high (augmentation), or a YAML file with the published names."""
    optimizer: Literal["SGD", "AdamW"] = "SGD"
    """What steps."""
    cos_lr: bool = False
    """Learning rate falls along a cosine instead of a line."""
    multi_scale: bool = False
    """Vary the size of every batch by half."""
    close_mosaic: int = 0
    """Last epochs without mosaic."""
    freeze: Annotated[tuple[str, ...], arg(metavar="N|PATTERN [..]", help_behavior_hint="")] = ()
    """Do not train the first N layers, or rows that fit a pattern."""
    single_cls: bool = False
    """Take all objects for one class."""
    no_autoanchor: Annotated[bool, arg(aliases=["--noautoanchor"])] = False
    """Keep the anchors whatever the labels look like."""
    patience: int = 100
    """Stop after so many epochs without a better one; 0 never does."""
    noval: bool = False
    """Evaluate the last epoch only."""
    workers: Number = None
    """Processes that load pictures (default: one per processor; 0 loads between the steps)."""
    cache: Literal["auto", "ram", "disk", "none"] = "auto"
    """Where decoded pictures are kept (auto: in memory where they fit)."""
    amp: bool = False
    """bfloat16 on devices that have it."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """What trains (auto: a GPU where Paddle has one)."""
    devices: Number = None
    """Processes on this machine, each with a part of every batch (default: 1)."""
    sync_bn: bool = False
    """Batch-norm statistics over all processes (GPUs only)."""
    tensorboard: bool = False
    """Write TensorBoard events (needs tensorboardX)."""
    resume: Annotated[str | None, arg(metavar="RUN", help_behavior_hint="")] = None
    """Folder of a run to go on with; everything else is as it was."""


@dataclass(frozen=True)
class Train(Training):
    """Train a detector, from given weights or from scratch."""

    def run(self) -> None:
        from octrim.training.train import train_command

        train_command(self)


@dataclass(frozen=True)
class Prune(Weights, Folder):
    """Cut channels: plan, show the plan, cut, and write one model file."""

    keep: Text = None
    """Fraction of its channels that every convolution keeps (default: 1/8); with --budget the least that any keeps."""
    align: int = 8
    """Channel counts are multiples of this, and at least this."""
    budget: Annotated[str | None, arg(metavar="{channels,params,macs}=F", help_behavior_hint="")] = None
    """Instead of the same fraction everywhere: cut the least important channels anywhere until this fraction of the whole is left."""
    criterion: Literal["bn", "l1", "l2", "group-l2", "fpgm", "scale", "signal", "random"] = "signal"
    """What ranks the channels."""
    exclude: Annotated[tuple[str, ...], arg(metavar="PATTERN [PATTERN ...]", help_behavior_hint="")] = ()
    """Convolutions to keep whole: model.0, 'model.2.*', ..."""
    keep_map: Text = None
    """JSON or YAML file: pattern to fraction, where it differs from --keep."""
    imgsz: ImageSize = None
    """Side, or height and width, that the plan counts MACs for."""
    compensate: bool = False
    """Put the constant that each cut channel stood for into its consumers."""
    reconstruct: Annotated[str | None, arg(metavar="DATA", help_behavior_hint="")] = None
    """Pictures (folder, glob, data set): fit the consumers' weights to what the original computes on them."""
    recalibrate: Annotated[str | None, arg(metavar="DATA", help_behavior_hint="")] = None
    """Pictures: move batch-norm statistics by as much as the cut has moved them there."""
    pictures: int = 200
    """How many of them are used at most."""
    dry_run: bool = False
    """Stop after the plan."""

    def run(self) -> None:
        from octrim.pruning.command import prune_command

        prune_command(self)


@dataclass(frozen=True)
class Export(Weights, Folder):
    """Write a deployable, compared with Paddle on pictures before it is called done."""

    format: Literal["onnx", "openvino"] = "onnx"
    """What to write."""
    precision: Literal["fp32", "fp16"] = "fp32"
    """fp16: float16 feature maps and weights (onnx), float16 weights (openvino)."""
    imgsz: ImageSize = None
    """Side, or height and width, in pixels (default: what the network was made for)."""
    batch: Batch = 1
    """Pictures per batch."""
    dynamic: bool = False
    """Any number of pictures per batch."""
    source: Text = None
    """Pictures to compare on (default: generated ones)."""

    def run(self) -> None:
        from octrim.deploy.export import export_command

        export_command(self)


@dataclass(frozen=True)
class Bench(Execution, Folder):
    """Time networks side by side, interleaved in one process, stage by stage."""

    weights: Annotated[tuple[str, ...], arg(metavar="FILE [FILE ...]", help_behavior_hint="")] = ()
    """Any number of model files, checkpoints, .onnx files or OpenVINO IR; the first is the yardstick."""
    cfg: Text = None
    """A freshly initialised network in front of them."""
    seed: int = 0
    """Of the fresh weights."""
    imgsz: ImageSize = None
    """Side, or height and width, in pixels (default: what the first network was made for)."""
    batch: Batch = 1
    """Pictures per batch."""
    iterations: int = 100
    """Timed rounds; every network runs once in each."""
    warmup: int = 10
    """Rounds before the timed ones."""
    source: Text = None
    """A picture to run on (default: a generated one, 1280x720)."""
    conf: Conf = 0.25
    """Least confidence."""
    iou: Iou = 0.45
    """IoU of suppression."""

    def run(self) -> None:
        from octrim.deploy.bench import bench_command

        bench_command(self)


_SWITCH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}

COMMANDS: dict[str, Any] = {command.__name__.lower(): command for command in (Info, Data, Predict, Val, Train, Prune, Export, Bench)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0 on success, 2 for bad input (one line on standard error), 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):  # file names and pipes need not be UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments in (["--version"], ["-V"]):
        from importlib.metadata import version

        print(f"octrim {version('octrim')}")
        return 0
    name = arguments[0] if arguments and arguments[0] in COMMANDS else ""
    try:
        parse(arguments).run()
    except SystemExit as error:  # tyro: 0 after --help
        return error.code if isinstance(error.code, int) else 2
    except InputError as error:
        return _fail(name, str(error))
    except KeyboardInterrupt:
        print(f"octrim {name}: interrupted", file=sys.stderr)
        return 130
    except OSError as error:  # a full disk, a folder without permission
        where = f"{error.filename}: " if error.filename else ""
        return _fail(name, str(InputError(f"{where}{error.strerror or error}")))
    except MemoryError:
        return _fail(name, "out of memory")
    return 0


def _fail(name: str, message: str) -> int:
    print(f"octrim {name}".strip() + ": error: " + message, file=sys.stderr)
    return 2


def parse(arguments: Sequence[str]) -> Any:
    """The command's dataclass from its arguments. Raises InputError in one line where tyro would print a box."""
    arguments = list(arguments)
    if arguments and arguments[0] in COMMANDS:
        arguments[1:] = _assignments(COMMANDS[arguments[0]], arguments[1:])
    kinds = tuple(Annotated[command, tyro.conf.subcommand(name)] for name, command in COMMANDS.items())
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(
                tyro.conf.OmitSubcommandPrefixes[tyro.conf.FlagCreatePairsOff[typing.Union[kinds]]],  # type: ignore[valid-type] # noqa: UP007 (built at run time)
                prog="octrim",
                description="Make a YOLOv5 detector small enough for the edge.",
                args=arguments,
            )
    except SystemExit as error:
        if not error.code:
            raise
        raise InputError(_one_line(printed.getvalue())) from None


def arguments_of(config: Any) -> list[str]:
    """The command line that gives this configuration."""
    arguments = [type(config).__name__.lower()]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != field.default:
            arguments.append(f"--{field.name.replace('_', '-')}")
            arguments += [] if value is True else map(str, value) if isinstance(value, tuple) else [str(value)]
    return arguments


def _one_line(box: str) -> str:
    """The message inside tyro's box: the lines between its title and its rule, without the frame."""
    lines = [line.strip().strip("│").strip() for line in box.splitlines()]
    message = []
    for line in lines:
        if line.startswith("╭") or not line:
            continue
        if line.startswith(("─", "╰")):
            break
        message.append(line)
    return " ".join(message) or "the arguments make no sense; see --help"


def _assignments(command: Any, arguments: list[str]) -> list[str]:
    """`key=value` as `--key value`, for fields of the command, and never where an option's value stands."""
    fields = _field_names(command)
    result: list[str] = []
    for token in arguments:
        match = re.fullmatch(r"([A-Za-z][\w-]*)=(.*)", token, re.DOTALL)
        field = fields.get(match[1].replace("_", "-")) if match else None
        before = result[-1] if result else ""
        awaited = before.startswith("--") and "=" not in before and not _is_flag(fields.get(before[2:].replace("_", "-")))
        if match is None or field is None or awaited:
            result.append(token)
        elif _is_flag(field):
            if match[2].lower() not in _SWITCH:
                raise InputError(f"{token}: expected {field.name}=True or {field.name}=False")
            result += [f"--{field.name.replace('_', '-')}"] * _SWITCH[match[2].lower()]
        else:
            # Several numbers may stand in one value, as `imgsz=480,640` or `classes=[0, 2]`; text is taken as it is.
            values = re.findall(r"[^,\s]+", match[2].strip("[]() ")) if field.name in ("imgsz", "classes") else [match[2]]
            result += [f"--{field.name.replace('_', '-')}", *values]
    return result


def _field_names(command: Any) -> dict[str, dataclasses.Field[Any]]:
    """The command's fields by every spelling of their names (dashes for underscores)."""
    hints = typing.get_type_hints(command, include_extras=True)
    names: dict[str, dataclasses.Field[Any]] = {}
    for field in dataclasses.fields(command):
        names[field.name.replace("_", "-")] = field
        for extra in getattr(hints[field.name], "__metadata__", ()):
            names |= {alias.lstrip("-"): field for alias in getattr(extra, "aliases", None) or ()}
    return names


def _is_flag(field: dataclasses.Field[Any] | None) -> bool:
    """Flags are False unless given: they take no value."""
    return field is not None and field.default is False


if __name__ == "__main__":
    sys.exit(main())

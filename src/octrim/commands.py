"""The commands: one frozen dataclass each. Its fields are the options, and the `config.yaml` in the run's folder.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

ImageSize = Annotated[tuple[int, ...] | None, arg(aliases=["--img", "--img-size"], metavar="PX [PX]", help_behavior_hint="")]
Text = Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")]
Number = Annotated[int | None, arg(metavar="N", help_behavior_hint="")]
Runtime = Annotated[
    Literal["openvino", "onnxruntime", "paddle", "numpy"] | None, arg(metavar="{openvino,onnxruntime,paddle,numpy}", help_behavior_hint="")
]
Conf = Annotated[float, arg(aliases=["--conf-thres"])]
Iou = Annotated[float, arg(aliases=["--iou-thres"])]
Batch = Annotated[int, arg(aliases=["--batch-size"])]
Criterion = Literal["bn", "l1", "l2", "group-l2", "fpgm", "scale", "signal", "taylor", "random"]


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
    """What runs the network (default: openvino; onnxruntime for an .onnx file; engines and Paddle Inference have their own)."""
    precision: Literal["fp32", "bf16", "fp16", "int8"] = "fp32"
    """What it computes in; int8 after octrim quantize."""
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
    """Model file, checkpoint (.pt), or what octrim export wrote: .onnx, .engine, OpenVINO IR or a Paddle Inference folder."""
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
    """Model file, checkpoint (.pt), or what octrim export wrote: .onnx, .engine, OpenVINO IR or a Paddle Inference folder."""
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
    lr0: Annotated[float | None, arg(metavar="F", help_behavior_hint="")] = None
    """Learning rate at the start (default: the recipe's)."""
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
class Distilled(Training):
    """Options of every command that may train against a teacher."""

    teacher: Text = None
    """Model file or checkpoint to learn from besides the labels: usually the network before it was cut."""
    distill: Literal["both", "output", "feature", "none"] = "output"
    """What of the teacher: its boxes and scores, its feature maps in front of Detect, or both."""
    output_weight: float = 2.0
    """Weight of the teacher's boxes and scores, in units of the weight that labels have."""
    feature_weight: float = 0.1
    """Weight of the teacher's feature maps."""


@dataclass(frozen=True)
class Sparsify(Distilled):
    """Train with a penalty that drives whole channels to zero, so that cutting them costs nothing. The last epoch is the result; no patience."""

    strength: Annotated[float | None, arg(metavar="S", help_behavior_hint="")] = None
    """How strongly batch-norm scales are drawn to zero; its meaning does not depend on batch, accumulation or processes."""
    target: Text = None
    """Instead of a strength: fraction of the channels that is to be dead at the end (0.5, 7/8); the strength is found on the way."""
    strength_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the strength grows from 0 over the first half of the training (constant: it does not)."""
    scope: Literal["network", "group"] = "network"
    """Where --target holds: over all channels, or in every group of coupled channels alike."""
    align: int = 8
    """Least number of live channels in a group; with --scope group, live channels are a multiple of it."""
    exclude: Annotated[tuple[str, ...], arg(metavar="PATTERN [PATTERN ...]", help_behavior_hint="")] = ()
    """Convolutions whose channels are left alone: model.0, 'model.2.*', ..."""

    def run(self) -> None:
        from octrim.training.sparsify import sparsify_command

        sparsify_command(self)


@dataclass(frozen=True)
class Finetune(Distilled):
    """Train a cut network, with the network before the cut as its teacher; without --teacher from the labels alone."""

    def run(self) -> None:
        from octrim.training.finetune import finetune_command

        finetune_command(self)


@dataclass(frozen=True)
class Sensitivity(Weights, Folder):
    """Accuracy or loss as each group of channels is cut by 10 .. 90 %, the rest left whole; and a keep-map that follows from it."""

    data: Text = None
    """data.yaml, a folder (YOLO, COCO, VOC), or a COCO annotation file."""
    split: str = "val"
    """Which part of it."""
    metric: Literal["map", "loss"] = "map"
    """What is measured: mAP50-95, or the training loss."""
    criterion: Criterion = "signal"
    """What ranks the channels of a group."""
    imgsz: ImageSize = None
    """Side of the pictures in pixels (default: what the network was made for)."""
    batch: Batch = 16
    """Pictures per batch."""
    pictures: int = 200
    """How many pictures are used at most."""
    tolerance: float = 0.005
    """For the keep-map: how far a cut of one group may lower mAP50-95, or raise the loss relative to what it was; the harm of all adds up."""
    align: int = 8
    """For the keep-map: fractions are rounded up to multiples of this."""
    resume: Annotated[str | None, arg(metavar="RUN", help_behavior_hint="")] = None
    """Folder of a run to go on with; everything else is as it was."""

    def run(self) -> None:
        from octrim.training.sensitivity import sensitivity_command

        sensitivity_command(self)


@dataclass(frozen=True)
class Compress(Weights, Folder):
    """From a detector to a small one: train, sparsify if asked to, cut, fine-tune, export, bench; each stage evaluated, all of it resumable."""

    data: Text = None
    """data.yaml, a folder (YOLO, COCO, VOC), or a COCO annotation file (default: pictures of Pong, made on the spot)."""
    keep: Text = None
    """Fraction of its channels that every convolution keeps (default: 1/8); with --budget the least that any keeps."""
    align: int = 8
    """Channel counts are multiples of this, and at least this."""
    budget: Annotated[str | None, arg(metavar="{channels,params,macs}=F", help_behavior_hint="")] = None
    """Instead of the same fraction everywhere: cut the least important channels anywhere until this fraction of the whole is left."""
    criterion: Annotated[Criterion | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """What ranks the channels (default: the preset's)."""
    exclude: Annotated[tuple[str, ...], arg(metavar="PATTERN [PATTERN ...]", help_behavior_hint="")] = ()
    """Convolutions to keep whole: model.0, 'model.2.*', ..."""
    keep_map: Text = None
    """JSON or YAML file: pattern to fraction, where it differs from --keep."""
    preset: Annotated[Literal["fast", "default", "best", "demo"] | None, arg(metavar="{fast,default,best,demo}", help_behavior_hint="")] = None
    """How much is trained; every number of it can be given by itself (default: default; demo where no data are given)."""
    control: bool = False
    """Also train the same small network from scratch, for as many epochs as all stages of this run together."""
    imgsz: ImageSize = None
    """Side of the pictures in pixels (default: what the network was made for)."""
    batch: Annotated[int | None, arg(aliases=["--batch-size"], metavar="N", help_behavior_hint="")] = None
    """Pictures per batch of the first training and of sparsity training (default: the preset's)."""
    nominal_batch: Number = None
    """Pictures per optimizer step there (default: the preset's)."""
    finetune_batch: Number = None
    """Pictures per batch and step of fine-tuning and of the control (default: the preset's)."""
    finetune_lr0: Annotated[float | None, arg(metavar="F", help_behavior_hint="")] = None
    """Learning rate there (default: the preset's)."""
    train_epochs: Number = None
    """Epochs of the first training; 0: the weights are trained on this data already."""
    sparsify_epochs: Number = None
    """Epochs of sparsity training; 0 leaves it out (default: the preset's, 0 but for demo: docs/compression.md says what it gave)."""
    finetune_epochs: Number = None
    """Epochs of the last fine-tuning."""
    iterations: Number = None
    """Cut in so many steps, with a short fine-tuning after each but the last."""
    step_epochs: Number = None
    """Epochs of each of those."""
    distill: Literal["both", "output", "feature", "none", "preset"] = "preset"
    """What the fine-tuning takes from the teacher, which is the network of the first stage."""
    hyp: str = "low"
    """Recipe: low, med, high (augmentation), or a YAML file with the published names."""
    workers: Number = None
    """Processes that load pictures (default: one per processor; 0 loads between the steps)."""
    cache: Literal["auto", "ram", "disk", "none"] = "auto"
    """Where decoded pictures are kept (auto: in memory where they fit)."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """What trains (auto: a GPU where Paddle has one)."""
    iterations_bench: int = 50
    """Timed rounds of the bench."""
    match_games: Number = None
    """Games of Pong that original and cut network each play at the end; for data with the classes ball and paddle (default: the preset's)."""
    resume: Annotated[str | None, arg(metavar="RUN", help_behavior_hint="")] = None
    """Folder of a run to go on with; everything else is as it was."""

    def run(self) -> None:
        from octrim.compression import compress_command

        compress_command(self)


@dataclass(frozen=True)
class Prune(Weights, Folder):
    """Cut channels: plan, show the plan, cut, and write one model file."""

    keep: Text = None
    """Fraction of its channels that every convolution keeps (default: 1/8); with --budget the least that any keeps."""
    align: int = 8
    """Channel counts are multiples of this, and at least this."""
    budget: Annotated[str | None, arg(metavar="{channels,params,macs}=F", help_behavior_hint="")] = None
    """Instead of the same fraction everywhere: cut the least important channels anywhere until this fraction of the whole is left."""
    criterion: Criterion = "signal"
    """What ranks the channels."""
    data: Text = None
    """Labelled data for the criterion taylor: data.yaml, a folder (YOLO, COCO, VOC), or a COCO annotation file."""
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
    """Write a deployable, compared on pictures with another runtime before it is called done."""

    format: Literal["onnx", "openvino", "tensorrt", "paddle"] = "onnx"
    """What to write: a file for ONNX Runtime and others, OpenVINO IR, an engine for this machine's GPU, a folder for Paddle Inference."""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """fp16: float16 feature maps and weights (onnx, tensorrt), float16 weights (openvino). int8: after octrim quantize; not for paddle."""
    imgsz: ImageSize = None
    """Side, or height and width, in pixels (default: what the network was made for)."""
    batch: Annotated[tuple[int, ...], arg(aliases=["--batch-size"], metavar="N [N N]")] = (1,)
    """Pictures per batch; for tensorrt also three numbers: fewest, typical, most."""
    dynamic: bool = False
    """Any number of pictures per batch; for tensorrt 1 to --batch."""
    source: Text = None
    """Pictures to compare on (default: generated ones)."""
    verify: bool = False
    """Also show the differences by part of the output, and demand that the detected boxes agree."""
    data: Text = None
    """Labelled data on which mAP must agree: data.yaml, a folder (YOLO, COCO, VOC), or a COCO annotation file."""
    split: str = "val"
    """Which part of it."""
    pad_channels: int = 1
    """tensorrt: zeros up to a multiple of this many channels."""
    high_precision: Literal["fp16", "fp32"] = "fp16"
    """tensorrt in int8: what is not int8. fp32 makes the integers that ONNX makes."""
    workspace: float = 1.0
    """tensorrt: GiB of GPU memory for the build."""
    builder_level: int = 3
    """tensorrt: 0 builds fast, 5 runs fast."""
    timing_cache: Annotated[str | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """tensorrt: kernel times, read and written, so that later builds are faster."""

    def run(self) -> None:
        from octrim.deploy.export import export_command

        export_command(self)


@dataclass(frozen=True)
class Quantize(Weights, Folder):
    """Calibrate int8 scales on pictures and write them into a model file; the weights stay as they are."""

    data: Text = None
    """Data set whose training pictures calibrate: data.yaml, a folder (YOLO, COCO, VOC), or a COCO annotation file."""
    source: Text = None
    """Instead of a data set: a picture, folder or glob."""
    method: Literal["max", "percentile", "histogram"] = "percentile"
    """Where values are clipped: the largest, a percentile, or the least squared error."""
    percentile: float = 99.999
    """For the method percentile: so many percent of the magnitudes are not clipped."""
    pictures: int = 200
    """How many are used at most."""
    imgsz: ImageSize = None
    """Side, or height and width, in pixels (default: what the network was made for)."""
    skip: Annotated[tuple[str, ...], arg(metavar="PATTERN [PATTERN ...]", help_behavior_hint="")] = ()
    """Convolutions and additions that stay in high precision: model.0, 'model.2.*', ... Detect's always do."""
    sensitivity: bool = False
    """Also quantize each layer by itself and measure the error of the logits."""

    def run(self) -> None:
        from octrim.quantization.command import quantize_command

        quantize_command(self)


@dataclass(frozen=True)
class Bench(Execution, Folder):
    """Time networks side by side, interleaved in one process, stage by stage."""

    weights: Annotated[tuple[str, ...], arg(metavar="FILE [FILE ...]", help_behavior_hint="")] = ()
    """Any number of model files, checkpoints and deployables (.onnx, .engine, folders); the first is the yardstick."""
    cfg: Text = None
    """A freshly initialised network in front of them."""
    seed: int = 0
    """Of the fresh weights."""
    imgsz: ImageSize = None
    """Side, or height and width, in pixels (default: what the first network was made for)."""
    batch: Annotated[tuple[int, ...], arg(aliases=["--batch-size"], metavar="N [N ...]")] = (1,)
    """Pictures per batch; with several numbers everything is timed at each, say 1 8 32."""
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


@dataclass(frozen=True)
class Report:
    """Write report.html into the folder of a run: numbers, charts and pictures in one file that needs nothing else."""

    folder: Annotated[Positional[str], arg(metavar="RUN")]
    """Folder of a run, above all of octrim compress; of others what there is."""

    def run(self) -> None:
        from octrim.report import report_command

        report_command(self)


@dataclass(frozen=True)
class Doctor:
    """What works on this machine, and what to install for what does not. Ends with 2 where networks cannot be run."""

    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> None:
        from octrim.doctor import doctor

        doctor(self)


COMMANDS: dict[str, Any] = {
    command.__name__.lower(): command
    for command in (Info, Data, Predict, Val, Train, Sparsify, Prune, Sensitivity, Finetune, Compress, Quantize, Export, Bench, Report, Doctor)
}

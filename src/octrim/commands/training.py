"""Commands that train, and what needs training or its data: sensitivity, the whole pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from octrim.commands.options import Batch, Criterion, Folder, ImageSize, Number, Text, Weights


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

"""Options of `octrim train`, `finetune` and `sparsify`; `config.yaml` in the run's folder keeps their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from tyro.conf import arg

from octrim.latency.options import TimeOptions
from octrim.options import (
    ActivationName,
    BatchSize,
    CriterionName,
    Folder,
    ImageSize,
    Number,
    OneNetwork,
    OptimizerName,
    Range,
    Reading,
    TeacherPrecision,
    Text,
    Widths,
)
from octrim.pruning.options import Cutting


@dataclass(frozen=True)
class AnyTraining:
    """Options of every command that trains, once or in several stages."""

    imgsz: ImageSize = None
    """Side of the pictures in pixels (default: what the network was made for)."""
    hyp: str = "low"
    """Hyper-parameters: low, med or high (how much is augmented), or a YAML file with YOLOv5's names."""
    workers: Annotated[Number, Range(0, 256)] = None
    """Processes that load pictures (default: one per processor; 0 loads between the steps)."""
    cache: Literal["auto", "ram", "disk", "none"] = "auto"
    """Where decoded pictures are kept between epochs (auto: in memory where they fit)."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Device that trains (auto: a GPU where Paddle has one)."""


@dataclass(frozen=True)
class Taught:
    """Options of every command that may train against a teacher, one that is named or one of its own."""

    teacher_precision: TeacherPrecision = "fp32"
    """Precision that the teacher computes in: fp32, or bf16, which takes about half of its time on processors that have it (AVX-512 BF16, AMX)."""
    unlabelled: Annotated[tuple[str, ...], arg(metavar="DIR [DIR ...]", help_behavior_hint="")] = ()
    """Pictures without labels that join what is trained with a teacher, which says what is on them: folders, lists (.txt), globs or data sets."""
    unlabelled_share: Annotated[float | None, arg(metavar="F", help_behavior_hint=""), Range(0, 0.99, above=True)] = None
    """Share of every batch that is unlabelled pictures (default: their share of all pictures, at most 3/4)."""


@dataclass(frozen=True)
class Training(OneNetwork, AnyTraining, Reading, Folder):
    """Options of every command that is one training."""

    command: ClassVar[str] = "train"

    data: Text = None
    """Data set: data.yaml, a folder (YOLO, COCO, VOC, labelme), or a COCO annotation file."""
    epochs: Annotated[int, Range(1, 100_000)] = 100
    """Number of passes over the training pictures."""
    batch: BatchSize = 16
    """Pictures per batch, counted over all processes."""
    nominal_batch: Annotated[int, Range(1, 65536)] = 64
    """Pictures per optimizer step: the gradients of several batches are added up to it. Small data sets want fewer."""
    lr0: Annotated[float | None, arg(metavar="F", help_behavior_hint=""), Range(0, 10, above=True)] = None
    """Learning rate at the start (default: the recipe's)."""
    box_weight: Annotated[float, Range(0, 1000)] = 1.0
    """Factor of the recipe's gain of the boxes' loss, against labels and teacher alike."""
    optimizer: OptimizerName = "SGD"
    """Optimizer that changes the weights: SGD with momentum, Muon (orthogonal steps: a small network learns faster), or AdamW."""
    cos_lr: bool = False
    """Let the learning rate fall along a cosine instead of a line."""
    ema: Literal["auto", "published"] = "auto"
    """Moving average of the weights, which is evaluated and saved: over a share of the training (auto), or as long as YOLOv5's (published)."""
    multi_scale: bool = False
    """Vary the picture size from batch to batch, by up to half of it."""
    close_mosaic: Annotated[int, Range(0, 100_000)] = 0
    """Number of epochs at the end without mosaic augmentation."""
    freeze: Annotated[tuple[str, ...], arg(metavar="N|PATTERN [..]", help_behavior_hint="")] = ()
    """Do not train the first N layers, or rows that fit a pattern."""
    single_cls: bool = False
    """Take all objects for one class."""
    no_autoanchor: Annotated[bool, arg(aliases=["--noautoanchor"])] = False
    """Keep the anchors whatever the labels look like."""
    patience: Annotated[int, Range(0, 100_000)] = 100
    """Number of epochs without a better one after which training stops; 0: it never stops early."""
    noval: bool = False
    """Evaluate the network after the last epoch only."""
    amp: bool = False
    """Train in bfloat16 on devices that have it (mixed precision)."""
    devices: Annotated[Number, Range(1, 64)] = None
    """Processes on this machine, each with a part of every batch (default: 1)."""
    sync_bn: bool = False
    """Compute batch-norm statistics over the pictures of all processes (GPUs only)."""
    tensorboard: bool = False
    """Write TensorBoard events (needs tensorboardX)."""
    resume: Annotated[str | None, arg(metavar="RUN", help_behavior_hint="")] = None
    """Folder of a run to go on with; only --device(s), --workers, --cache and where data and teacher lie now may be given with it."""


@dataclass(frozen=True)
class Distilled(Training, Taught):
    """Options of every command that may train against a teacher that is named."""

    command: ClassVar[str] = "finetune"

    teacher: Text = None
    """Model file or checkpoint to learn from besides the labels: usually the network before it was cut."""
    distill: Literal["both", "output", "feature", "none"] = "output"
    """What is learnt from the teacher: its boxes and scores (output), its feature maps in front of Detect (feature), both or none."""
    output_weight: Annotated[float, Range(0, 1000)] = 2.0
    """Weight of the loss against the teacher's boxes and scores, relative to the loss against labels."""
    feature_weight: Annotated[float, Range(0, 1000)] = 0.1
    """Weight of the loss against the teacher's feature maps."""


@dataclass(frozen=True)
class Finetuning(Distilled, Cutting, TimeOptions):
    """Options of fine-tuning, which may drop blocks and levels, give the network another activation, and cut channels on its way."""

    activation: Annotated[ActivationName | None, arg(metavar="{relu,relu6,leaky_relu:0.1,hardswish}", help_behavior_hint="")] = None
    """Activation that takes the place of the network's own (SiLU in YOLOv5 v5 and later): OpenVINO and C are faster with each of these, OpenVINO in
    int8 with all but hardswish."""
    qat: bool = False
    """Train a quantized network (octrim quantize) with the roundings of int8, so that its weights get used to them; its scales stay."""
    keep: Text = None
    """Fraction of its channels that every convolution keeps, cut while the network trains; with --budget the least that any keeps."""
    widths: Widths = "importance"
    """What says how many channels each group keeps: importance within --budget, as the training sees it then, and --keep alike everywhere without
    one; or the variance of its feature maps before the first cut, within --budget, or for the MACs that --keep leaves in multiples of 8."""
    cut_epochs: Annotated[Number, Range(1, 100_000)] = None
    """Number of epochs over which channels go, little by little (default: a third of all); with what is left the training goes on."""
    cut_interval: Annotated[int, Range(1, 1_000_000)] = 1
    """Least number of optimizer steps between two cuts."""
    criterion: Annotated[CriterionName | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """Criterion by which channels are ranked (default: taylor, by the gradients that the training computes anyway)."""


@dataclass(frozen=True)
class Sparsifying(Distilled):
    """Options of sparsity training."""

    command: ClassVar[str] = "sparsify"

    strength: Annotated[float | None, arg(metavar="S", help_behavior_hint=""), Range(0, 1_000_000)] = None
    """How strongly all batch-norm scales are drawn to zero; its meaning does not depend on batch, accumulation or processes."""
    target: Text = None
    """Fraction of the channels to be dead at the end (0.5, 7/8), those that the loss needs least, one after the other; instead of a strength."""
    strength_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How a --strength grows from 0 over the first half of the training (constant: it is the same from the start)."""
    scope: Literal["network", "group"] = "network"
    """Where --target holds: over all channels, or in every group of coupled channels alike."""
    align: Annotated[int, Range(1)] = 8
    """Least number of channels that stay alive in a group; with --scope group their number is a multiple of it."""
    exclude: Annotated[tuple[str, ...], arg(metavar="PATTERN [PATTERN ...]", help_behavior_hint="")] = ()
    """Convolutions whose channels are left alone: model.0, 'model.2.*', ..."""

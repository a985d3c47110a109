"""What can be chosen of a compression: the options of `octrim compress`, which `config.yaml` keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from tyro.conf import arg

from octrim.options import Criterion, Folder, ImageSize, Number, Range, Text, Weights


@dataclass(frozen=True)
class Compression(Weights, Folder):
    """Options of a compression."""

    command: ClassVar[str] = "compress"

    data: Text = None
    """data.yaml, a folder (YOLO, COCO, VOC), or a COCO annotation file (default: pictures of Pong, made on the spot)."""
    keep: Text = None
    """Fraction of its channels that every convolution keeps (default: 1/8); with --budget the least that any keeps."""
    align: Annotated[int, Range(1)] = 8
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
    batch: Annotated[int | None, arg(aliases=["--batch-size"], metavar="N", help_behavior_hint=""), Range(1, 65536)] = None
    """Pictures per batch of the first training and of sparsity training (default: the preset's)."""
    nominal_batch: Annotated[Number, Range(1, 65536)] = None
    """Pictures per optimizer step there (default: the preset's)."""
    finetune_batch: Annotated[Number, Range(1, 65536)] = None
    """Pictures per batch and step of fine-tuning and of the control (default: the preset's)."""
    finetune_lr0: Annotated[float | None, arg(metavar="F", help_behavior_hint=""), Range(0, 10, above=True)] = None
    """Learning rate there (default: the preset's)."""
    train_epochs: Annotated[Number, Range(0, 100_000)] = None
    """Epochs of the first training; 0: the weights are trained on this data already."""
    sparsify_epochs: Annotated[Number, Range(0, 100_000)] = None
    """Epochs of sparsity training; 0 leaves it out (default: the preset's, 0 but for demo: docs/compression.md says what it gave)."""
    finetune_epochs: Annotated[Number, Range(1, 100_000)] = None
    """Epochs of the last fine-tuning."""
    iterations: Annotated[Number, Range(1, 100)] = None
    """Cut in so many steps, with a short fine-tuning after each but the last."""
    step_epochs: Annotated[Number, Range(1, 100_000)] = None
    """Epochs of each of those."""
    distill: Literal["both", "output", "feature", "none", "preset"] = "preset"
    """What the fine-tuning takes from the teacher, which is the network of the first stage."""
    hyp: str = "low"
    """Recipe: low, med, high (augmentation), or a YAML file with the published names."""
    workers: Annotated[Number, Range(0, 256)] = None
    """Processes that load pictures (default: one per processor; 0 loads between the steps)."""
    cache: Literal["auto", "ram", "disk", "none"] = "auto"
    """Where decoded pictures are kept (auto: in memory where they fit)."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """What trains (auto: a GPU where Paddle has one)."""
    iterations_bench: Annotated[int, Range(1, 1_000_000)] = 50
    """Timed rounds of the bench."""
    match_games: Annotated[Number, Range(0, 10_000)] = None
    """Games of Pong that original and cut network each play at the end; for data with the classes ball and paddle (default: the preset's)."""
    resume: Annotated[str | None, arg(metavar="RUN", help_behavior_hint="")] = None
    """Folder of a run to go on with; everything else is as it was."""

"""Options of `octrim compress`; `config.yaml` in the run's folder keeps their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from tyro.conf import arg

from octrim.latency.options import TimeOptions
from octrim.options import (
    ActivationName,
    CriterionName,
    Folder,
    Number,
    OptimizerName,
    Range,
    Reading,
    Text,
    Widths,
)
from octrim.pruning.options import Cutting
from octrim.training.options import AnyTraining, Taught


@dataclass(frozen=True)
class Compression(Cutting, AnyTraining, Taught, Reading, TimeOptions, Folder):
    """Options of a compression."""

    command: ClassVar[str] = "compress"

    data: Text = None
    """Data set: data.yaml, a folder (YOLO, COCO, VOC, labelme), or a COCO annotation file (default: pictures of Pong, made on the spot)."""
    keep: Text = None
    """Fraction of its channels that every convolution keeps (1 cuts none); with --budget the least that any keeps. Without both the network costs the
    MACs of 1/8, and --widths says what each layer keeps."""
    student: Text = None
    """Layout of the small network (a YAML file; picodet or picodet-p3), which starts from fresh weights and learns from the whole network's outputs,
    instead of being cut from it; with --keep or --budget it is cut then, too, and their fractions are of it."""
    criterion: Annotated[CriterionName | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """Criterion by which channels are ranked (default: the preset's)."""
    widths: Annotated[Widths | None, arg(metavar="{importance,variance}", help_behavior_hint="")] = None
    """What says how many channels each group keeps: importance within --budget, and --keep alike everywhere without one; or the variance of the
    trained network's feature maps, within --budget, or for the MACs that --keep leaves in multiples of 8 (default: importance with --keep, a
    keep-map or sparsity training, else variance)."""
    search: Annotated[Number, Range(2, 64)] = None
    """Number of shapes that cost the same (channels spread otherwise, blocks and levels dropped) to try; the best one gets the long fine-tuning."""
    search_epochs: Annotated[Number, Range(1, 100_000)] = None
    """Epochs of each shape of --search in the first round; the better half goes on with twice as many (default: 1/20 of fine-tuning's, or 2)."""
    preset: Annotated[Literal["fast", "default", "best", "demo"] | None, arg(metavar="{fast,default,best,demo}", help_behavior_hint="")] = None
    """Set of numbers that say how much is trained, each of which can be given by itself (default: default; demo where no data are given)."""
    control: bool = False
    """Also train the same small network from scratch, for as many epochs as all stages of this run together."""
    batch: Annotated[int | None, arg(aliases=["--batch-size"], metavar="N", help_behavior_hint=""), Range(1, 65536)] = None
    """Pictures per batch of the first training and of sparsity training (default: the preset's)."""
    nominal_batch: Annotated[Number, Range(1, 65536)] = None
    """Pictures per optimizer step of the first training and of sparsity training (default: the preset's)."""
    train_lr0: Annotated[float | None, arg(metavar="F", help_behavior_hint=""), Range(0, 10)] = None
    """Learning rate of the first training at the start (default: the preset's); 0: the one of --hyp."""
    train_optimizer: Annotated[OptimizerName | None, arg(metavar="{SGD,Muon,AdamW}", help_behavior_hint="")] = None
    """Optimizer of the first training (default: the preset's; SGD, and Muon for demo, which starts from random weights)."""
    finetune_batch: Annotated[Number, Range(1, 65536)] = None
    """Pictures per batch and step of fine-tuning and of the control (default: the preset's)."""
    finetune_lr0: Annotated[float | None, arg(metavar="F", help_behavior_hint=""), Range(0, 10, above=True)] = None
    """Learning rate of fine-tuning and of the control at the start (default: the preset's)."""
    finetune_optimizer: Annotated[OptimizerName | None, arg(metavar="{SGD,Muon,AdamW}", help_behavior_hint="")] = None
    """Optimizer of fine-tuning and of the control (default: the preset's, Muon)."""
    box_weight: Annotated[float | None, arg(metavar="F", help_behavior_hint=""), Range(0, 1000)] = None
    """Factor of the boxes' loss in fine-tuning and in the control (default: 1)."""
    train_epochs: Annotated[Number, Range(0, 100_000)] = None
    """Epochs of the first training (default: the preset's); 0: the weights are trained on this data already."""
    sparsify_epochs: Annotated[Number, Range(0, 100_000)] = None
    """Epochs of sparsity training; 0 leaves it out (default: 0; docs/compression.md says what it gives)."""
    student_epochs: Annotated[Number, Range(1, 100_000)] = None
    """Epochs for which a student that is cut afterwards is trained before (default: those of fine-tuning)."""
    finetune_epochs: Annotated[Number, Range(1, 100_000)] = None
    """Epochs of the last fine-tuning (default: the preset's)."""
    cut_steps: Annotated[Number, arg(aliases=["--iterations"]), Range(1, 100)] = None
    """Number of steps in which channels are cut, with a short fine-tuning after each but the last (default: the preset's)."""
    cut_epochs: Annotated[Number, Range(0, 100_000)] = None
    """Epochs of the fine-tuning over which channels go, little by little; 0 cuts before it, all at once (default: the preset's)."""
    step_epochs: Annotated[Number, Range(1, 100_000)] = None
    """Epochs of each short fine-tuning between two cuts (default: the preset's)."""
    distill: Literal["both", "output", "feature", "none", "preset"] = "preset"
    """What the fine-tuning learns from its teacher, the network of the first stage: its boxes and scores (output), its feature maps in front of
    Detect (feature), both or none."""
    activation: Annotated[ActivationName | None, arg(metavar="{relu,relu6,leaky_relu:0.1,hardswish}", help_behavior_hint="")] = None
    """Activation of the small network in place of the original's, which teaches it: OpenVINO and C are faster with each of these than with SiLU,
    OpenVINO in int8 with all but hardswish."""
    int8: bool = False
    """Also calibrate the small network for int8, and export and time it in OpenVINO and C, in int8, too."""
    qat: Annotated[Literal["auto", "always", "never"] | None, arg(metavar="{auto,always,never}", help_behavior_hint="")] = None
    """With --int8: whether to train the calibrated network with the roundings of int8 (default: auto, where calibration alone loses more than 0.005
    mAP50-95)."""
    qat_epochs: Annotated[Number, Range(1, 100_000)] = None
    """Epochs of that training with the roundings of int8 (default: 1/10 of fine-tuning's)."""
    ema: Annotated[Literal["auto", "published"] | None, arg(metavar="{auto,published}", help_behavior_hint="")] = None
    """Moving average of the weights in every training: over a share of the training (auto, the default), or as long as YOLOv5's (published)."""
    bench_rounds: Annotated[int, arg(aliases=["--iterations-bench"]), Range(1, 1_000_000)] = 50
    """Number of timed rounds in the stage that measures latency."""
    match_games: Annotated[Number, Range(0, 10_000)] = None
    """Games of Pong that original and cut network each play at the end; for data with the classes ball and paddle (default: the preset's)."""
    resume: Annotated[str | None, arg(metavar="RUN", help_behavior_hint="")] = None
    """Folder of a run to go on with; only --device, --workers, --cache and where data, weights, .. lie now may be given with it."""

    @property
    def cuts_student(self) -> bool:
        """Whether a student is trained and then cut."""
        return self.student is not None and (self.keep is not None or self.budget is not None)

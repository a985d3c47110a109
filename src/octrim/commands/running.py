"""Commands that run networks or look at what there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from octrim.commands.options import Batch, Conf, Execution, Folder, ImageSize, Iou, Text


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

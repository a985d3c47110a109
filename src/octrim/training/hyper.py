"""Hyper-parameters under their published names: the recipes low, med and high, or a user's own YAML file."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import yaml

from octrim.data.augment import Augmentation
from octrim.errors import InputError, shown
from octrim.plain_yaml import parse, read_text


@dataclass(frozen=True)
class Hyperparameters(Augmentation):
    """The numbers of a recipe; the defaults are those of `low` (YOLOv5's hyp.scratch-low).

    The numbers of augmentation come from `octrim.data.augment.Augmentation`. No formula reads iou_t; it is kept because published files have it.
    """

    lr0: float = 0.01  # learning rate at the start
    lrf: float = 0.01  # learning rate at the end, as a fraction of lr0
    momentum: float = 0.937  # momentum of SGD and Muon, or beta1 of AdamW
    weight_decay: float = 0.0005  # weight decay for steps of the nominal batch
    warmup_epochs: float = 3.0
    warmup_momentum: float = 0.8
    warmup_bias_lr: float = 0.1
    box: float = 0.05  # box, cls, obj: gains of the three losses, before they are scaled to levels, classes and picture size
    cls: float = 0.5
    cls_pw: float = 1.0  # weight of positive values in the cross entropy of the class loss
    obj: float = 1.0
    obj_pw: float = 1.0
    iou_t: float = 0.2
    anchor_t: float = 4.0  # a label goes to an anchor that is less than so many times larger or smaller
    fl_gamma: float = 0.0  # gamma of the focal loss; 0 gives plain cross entropy
    label_smoothing: float = 0.0
    copy_paste: float = 0.0

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} is {value:g}, expected {low:g} to {high:g}")
        if self.lr0 <= 0:
            raise InputError(f"lr0 is {self.lr0:g}, expected more than 0")
        super().__post_init__()

    @property
    def augmentation(self) -> Augmentation:
        """The numbers of augmentation, as loaders take them."""
        return Augmentation(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Augmentation)})

    @property
    def notes(self) -> list[str]:
        """Lines for people about the parts of this recipe that OcTrim cannot do."""
        return ["copy_paste cuts objects out along their outlines; boxes have none, so it is left out"] if self.copy_paste else []


_RANGES = {
    "lr0": (0, 10),
    "lrf": (0, 1),
    "momentum": (0, 0.9999),
    "weight_decay": (0, 1),
    "warmup_epochs": (0, 1000),
    "warmup_momentum": (0, 0.9999),
    "warmup_bias_lr": (0, 10),
    "box": (0, 1000),
    "cls": (0, 1000),
    "cls_pw": (1e-6, 1000),
    "obj": (0, 1000),
    "obj_pw": (1e-6, 1000),
    "iou_t": (0, 1),
    "anchor_t": (1.0, 100),
    "fl_gamma": (0, 10),
    "label_smoothing": (0, 0.5),
    "copy_paste": (0, 1),
}  # the numbers of augmentation are checked where they are used

_MED = {"lrf": 0.1, "cls": 0.3, "obj": 0.7, "scale": 0.9, "mixup": 0.1}

RECIPES = {
    "low": Hyperparameters(),
    "med": Hyperparameters(**_MED),
    "high": Hyperparameters(**_MED, copy_paste=0.1),
}
"""The published recipes by name, from little to much augmentation."""


def read_hyperparameters(recipe: str) -> Hyperparameters:
    """`low`, `med`, `high`, or a YAML file with any of the published names; what it leaves out is as in `low`.

    Raises InputError for an unknown name, a value that is no number, or one out of range.
    """
    if recipe in RECIPES:
        return RECIPES[recipe]
    path = Path(recipe)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"hyp is {shown(recipe)}, expected {', '.join(RECIPES)} or a YAML file")
    known = {field.name for field in dataclasses.fields(Hyperparameters)}
    values: dict[str, float] = {}
    content, root = parse(read_text(path), str(path))
    if not isinstance(content, dict) or not isinstance(root, yaml.MappingNode):
        raise InputError(f"{path}: expected lines of `name: number`, found {shown(content)}")
    lines = {node.value: node.start_mark.line + 1 for node, _ in root.value}
    for key, value in content.items():
        if key == "anchors":  # anchors come from the layout; published files only have a number of anchors per level, in a comment
            continue
        if key not in known:
            raise InputError(f"{path}:{lines.get(key, 1)}: unknown hyper-parameter {shown(key)}")
        number = _number(value)
        if number is None:
            raise InputError(f"{path}:{lines.get(key, 1)}: {key} is {shown(value)}, expected a number")
        values[key] = number
    try:
        return Hyperparameters(**values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def stored_hyperparameters(values: object) -> Hyperparameters:
    """The numbers that a checkpoint keeps of the recipe that its run began with. Raises InputError for anything but known names with numbers."""
    known = {field.name for field in dataclasses.fields(Hyperparameters)}
    if not isinstance(values, dict):
        raise InputError(f"hyper-parameters are {shown(values)}, expected names with numbers")
    for name, value in values.items():
        if name not in known or type(value) not in (int, float) or not math.isfinite(value):
            raise InputError(f"hyper-parameter {shown(name)} is {shown(value)}, which no training has written")
    return Hyperparameters(**values)


def _number(value: object) -> float | None:
    """The value as a finite number, also where YAML takes it for text (1e-3 without a point); None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None

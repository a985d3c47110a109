"""Compressions of a small network as the tests run them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SMALL = ["--imgsz", "64", "--batch", "4", "--finetune-batch", "4", "--nominal-batch", "4", "--workers", "0"]
EPOCHS = ["--train-epochs", "2", "--sparsify-epochs", "1", "--iterations", "2", "--step-epochs", "1", "--finetune-epochs", "2"]
COMMON = [
    "--imgsz",
    "64",
    "--batch",
    "4",
    "--nominal-batch",
    "8",
    "--finetune-batch",
    "4",
    "--workers",
    "0",
    "--keep",
    "1/4",
    "--align",
    "2",
    "--iterations-bench",
    "5",
]
STAGES = ("1-train", "2-sparsify", "3-prune", "4-finetune", "5-export", "6-bench", "control")


def arguments(data: Path, weights: Path, project: Path, *more: str) -> list[str]:
    return ["compress", "--weights", str(weights), "--data", str(data), "--project", str(project), "--name", "run", *COMMON, *more]


GRADUAL = ["--train-epochs", "1", "--finetune-epochs", "3", "--cut-epochs", "2", "--budget", "channels=0.7", "--exclude", "model.0"]
GRADUAL += ["--activation", "relu"]


def without_keep(command: list[str]) -> list[str]:
    at = command.index("--keep")
    return command[:at] + command[at + 2 :]


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def untimed(folder: Path) -> dict[str, Any]:
    return {key: value for key, value in summary(folder).items() if key != "times"}

"""The commands, one per file: a frozen dataclass whose fields are its options, which `config.yaml` in the run's folder keeps; `run()` does the work.

Nothing heavy is imported outside `run()`, so that `--help` answers at once.
"""

from __future__ import annotations

from typing import Any

from octrim.commands.bench import Bench
from octrim.commands.compress import Compress
from octrim.commands.data import Data
from octrim.commands.doctor import Doctor
from octrim.commands.export import Export
from octrim.commands.finetune import Finetune
from octrim.commands.info import Info
from octrim.commands.predict import Predict
from octrim.commands.prune import Prune
from octrim.commands.quantize import Quantize
from octrim.commands.report import Report
from octrim.commands.sensitivity import Sensitivity
from octrim.commands.sparsify import Sparsify
from octrim.commands.train import Train
from octrim.commands.val import Val

COMMANDS: dict[str, Any] = {
    command.command: command
    for command in (Info, Data, Predict, Val, Train, Sparsify, Prune, Sensitivity, Finetune, Compress, Quantize, Export, Bench, Report, Doctor)
}

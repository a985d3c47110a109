"""The commands: one frozen dataclass each. Its fields are the options, and the `config.yaml` in the run's folder.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

from typing import Any

from octrim.commands.networks import Export, Info, Prune, Quantize
from octrim.commands.running import Bench, Data, Doctor, Predict, Report, Val
from octrim.commands.training import Compress, Finetune, Sensitivity, Sparsify, Train

COMMANDS: dict[str, Any] = {
    command.__name__.lower(): command
    for command in (Info, Data, Predict, Val, Train, Sparsify, Prune, Sensitivity, Finetune, Compress, Quantize, Export, Bench, Report, Doctor)
}

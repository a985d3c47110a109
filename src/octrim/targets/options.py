"""Options about targets and runtimes. Their choices come from the table of targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from octrim.options import Number, Range
from octrim.targets.table import TARGETS, export_precisions, run_precisions, runtimes

if TYPE_CHECKING:  # a type checker knows no Literal that is computed
    Format = ExportPrecision = Precision = str
    Runtime = TimedPrecision = str | None
else:
    Format = Annotated[
        Literal[tuple(TARGETS)],
        arg(help=f"Kind of deployable to write. {'; '.join(f'{name}: {one.purpose}' for name, one in TARGETS.items())}."),
    ]
    ExportPrecision = Annotated[
        Literal[export_precisions()],
        arg(
            help="Precision of the deployable: "
            + "; ".join(f"{one} ({', '.join(name for name in TARGETS if one in TARGETS[name].precisions)})" for one in export_precisions())
            + ". fp16 in openvino: of the weights only. int8: after octrim quantize."
        ),
    ]
    Precision = Literal[run_precisions()]
    TimedPrecision = Annotated[Literal[run_precisions()] | None, arg(metavar=f"{{{','.join(run_precisions())}}}", help_behavior_hint="")]
    Runtime = Annotated[Literal[runtimes()] | None, arg(metavar=f"{{{','.join(runtimes())}}}", help_behavior_hint="")]


@dataclass(frozen=True)
class Execution:
    """Options of every command that runs networks."""

    runtime: Runtime = None
    """Program that runs the network (default: openvino; a deployable runs in its own)."""
    precision: Precision = "fp32"
    """Precision that the network computes in; int8 after octrim quantize."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where the network runs. gpu: an engine always does, a model file in Paddle (--runtime paddle) where Paddle has GPUs, nothing else."""
    threads: Annotated[Number, Range(1, 1024)] = None
    """Number of processor threads (default: all)."""

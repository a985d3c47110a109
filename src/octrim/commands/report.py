"""`octrim report`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Report:
    """Write report.html into the folder of a run: numbers, charts and pictures in one file that needs nothing else."""

    command: ClassVar[str] = "report"

    folder: Annotated[Positional[str], arg(metavar="FOLDER")]
    """Folder of a run of octrim compress, or of another command, whose report has what there is."""

    def run(self) -> None:
        from octrim.report.page import write_report

        path = write_report(self.folder)
        print(f"report: {path} ({path.stat().st_size / 1e6:.2f} MB)")

"""`octrim doctor`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from json import dumps
from typing import ClassVar


@dataclass(frozen=True)
class Doctor:
    """Show what works on this machine, and what to install for what does not. Exit code 2: networks cannot be run here."""

    command: ClassVar[str] = "doctor"

    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> None:
        from rich.table import Table
        from rich.text import Text

        from octrim.doctor.checks import checks, verdict
        from octrim.runs import wide_console

        found = checks()
        if self.json:
            print(dumps([asdict(check) for check in found], indent=1, ensure_ascii=False))
        else:
            table = Table("", "", "found", "what to do", box=None, pad_edge=False)
            for check in found:
                style = {"works": "green", "fails": "red"}.get(check.state, "yellow")
                table.add_row(Text(check.what), Text(check.state, style), Text(check.found), Text(check.advice))
            wide_console().print(table)
        verdict(found)

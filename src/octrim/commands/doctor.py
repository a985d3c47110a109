"""`octrim doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Doctor:
    """What works on this machine, and what to install for what does not. Ends with 2 where networks cannot be run."""

    command: ClassVar[str] = "doctor"

    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> None:
        from octrim.doctor.checks import doctor

        doctor(self)

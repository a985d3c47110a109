"""Options of commands that make a network smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from octrim.errors import InputError, shown
from octrim.options import Align, Budget, OneNetwork, Range, Text

AUTO = "auto"
"""Word in place of what a command is to choose by itself."""

NONE = "none"
"""Word in place of patterns where no row is to be dropped, also where a command would choose some by itself."""


@dataclass(frozen=True)
class Dropping:
    """Options of every command that may drop blocks and detection levels of a network."""

    drop: Annotated[tuple[str, ...], arg(metavar="auto|none|PATTERN [PATTERN ...]", help_behavior_hint="")] = ()
    """Rows to drop, whose readers then read what came before: a bottleneck (model.8.m.0), the chain of a C3 ('model.8.m.*'), a C3 (model.8), ...;
    auto: within a --budget, those blocks that are missed less than the channels for which they make room, measured on training pictures (default:
    auto in compress with a budget of milliseconds in a runtime where every row costs its start, such as OpenVINO; otherwise none)."""
    levels: Annotated[tuple[int | Literal["auto"], ...], arg(metavar="auto|S [S ...]", help_behavior_hint=""), Range(1, 1024)] = ()
    """Strides of the detection levels that stay, such as 8 16; the others are dropped, with everything that only they need (default: all stay);
    auto: within a --budget, those levels go that are missed less than the channels for which they make room, measured on training pictures."""

    @property
    def chooses(self) -> tuple[bool, bool]:
        """Whether blocks, and whether levels, are to be chosen by measuring."""
        return AUTO in self.drop, AUTO in self.levels

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns of the rows that are dropped in any case. Raises InputError where the word none stands beside other words."""
        if NONE in self.drop and len(self.drop) > 1:
            raise InputError(f"drop is {shown(self.drop)}: give {NONE} alone, or leave it out")
        return tuple(pattern for pattern in self.drop if pattern not in (AUTO, NONE))

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the levels that stay in any case; empty where all stay, or where the levels are to be chosen."""
        return tuple(stride for stride in self.levels if not isinstance(stride, str))


@dataclass(frozen=True)
class Cutting(OneNetwork, Dropping):
    """Options of every command that may cut channels of a network, too."""

    budget: Budget = None
    """Fraction of the whole network's channels, parameters or MACs to reach by cutting the least important channels, wherever they are; or its
    time, latency=2 (milliseconds) or latency=1/6 (of the whole network's), by --latency-table or as measured here."""
    keep_map: Text = None
    """JSON or YAML file that maps patterns of convolutions to fractions, where these differ from --keep."""
    align: Align = "auto"
    """Number that all channel counts are multiples of, and at least; auto: what --latency-table's runtime wants, else 8, 4 with --widths variance."""
    exclude: Annotated[tuple[str, ...], arg(metavar="PATTERN [PATTERN ...]", help_behavior_hint="")] = ()
    """Convolutions to keep whole: model.0, 'model.2.*', ..."""

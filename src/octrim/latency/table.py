"""A latency table: what rows of a network cost on one machine in one runtime, as a JSON file, and the time of any network that it predicts.

table = read_table("pi.json")
table.predict(model.network)  # milliseconds of one picture
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from octrim.atomic import write_text
from octrim.errors import InputError, shown
from octrim.latency.fit import Fit
from octrim.latency.terms import TERMS, Rows, rows_of
from octrim.network.rows import Network, parse_activation
from octrim.pruning.budget import EVEN, latency_value

FORMAT = 1
"""Version of the file's format."""

_EVEN = ("openvino", "tensorrt")  # runtimes whose fast kernels want multiples of 8

_LEAST = 4  # least number that counts are made multiples of without being asked for

_MOST_BYTES = 4_000_000  # most bytes of a file that is read

_LARGEST = 1e12  # largest number in a table; sums of its products are finite

_DEPTHWISE = " depthwise "  # in the words of a kind of row

_WIDER = 1.02  # networks with more channels than this times the widest measured one are not predicted


@dataclass(frozen=True)
class Machine:
    """The machine and the program that a table was measured on.

    cores: cores that the process could use. threads: threads that the runtime was given. version: the runtime's own.
    """

    processor: str
    cores: int
    runtime: str
    version: str
    precision: str
    threads: int

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.processor}, {self.runtime} {self.version}, {self.precision}, {threads}"


@dataclass(frozen=True)
class Check:
    """Errors of a table on random plans that were measured but not fitted. networks: their number. errors: share of the time, may be 0 networks."""

    networks: int
    median_error: float
    largest_error: float

    @property
    def disturbed(self) -> bool:
        """Whether the errors are far more than those of quiet machines, whose median is 1 to 4 % and whose largest 6 to 16 %."""
        return self.median_error > 0.08 or self.largest_error > 0.4


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """Predicts milliseconds of one picture for networks that are made of the rows of one network: cut, with rows left out, with other classes.

    height, width: picture size in pixels. name: name of the network. fit: coefficients. widths: for each kind of row the most channels read and
    written. reference: a network that was measured beside every other one, and its milliseconds.
    correction: what predictions are multiplied by, because a network like the one asked for was measured (see `octrim.latency.budget`).
    """

    machine: Machine
    height: int
    width: int
    name: str
    fit: Fit
    widths: Mapping[str, tuple[int, int]]
    reference: tuple[Network, float]
    check: Check
    seconds: float = 0.0
    correction: float = 1.0

    @property
    def align(self) -> int:
        """Number that counts of channels should be multiples of: 8 in OpenVINO and TensorRT, elsewhere the block of the kernels that write them.

        At least 4: the block is fitted to times, and on a busy machine 1 may fit as well, with which a plan would leave single channels.
        """
        return EVEN if self.machine.runtime in _EVEN else min(max(self.fit.blocks[1], _LEAST), EVEN)

    def predict(self, network: Network) -> float:
        """Milliseconds of one picture. Raises InputError for a network with rows that the table does not know."""
        return float(self.variants(network)[0])

    def variants(self, network: Network, channels: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """Milliseconds of networks that differ from `network` in their numbers of channels, float64 `[networks]`.

        channels: for every convolution its output channels in each of the networks, int `[networks]`; by default those of `network` itself.
        """
        rows = rows_of(network, self.height, self.width, channels)
        rows = replace(rows, kinds=tuple(self._known(kind) for kind in rows.kinds))
        for place, kind in enumerate(rows.kinds):
            most = self.widths.get(kind)
            if most is None:
                raise InputError(
                    f"the latency table is of {self.name}, which has no row like {network.rows[place + 1].name} ({kind}): "
                    "octrim bench --latency-table FILE --weights .. makes one for this network"
                )
            if (rows.read[:, place] > _WIDER * most[0]).any() or (rows.written[:, place] > _WIDER * most[1]).any():
                found = f"{rows.read[0, place]:.0f} channels to {rows.written[0, place]:.0f}"
                raise InputError(
                    f"the latency table is of {self.name}, where {kind} has at most {most[0]} channels to {most[1]}, and "
                    f"{network.rows[place + 1].name} has {found}: octrim bench --latency-table FILE --weights .. makes one for this network"
                )
        return self.correction * (self.fit.times(rows) + self._of_single_channels(rows))

    def _of_single_channels(self, rows: Rows) -> np.ndarray:
        """Milliseconds that networks take longer because depthwise convolutions have one channel left and are ordinary ones then, `[networks]`.

        rows: with kinds that are known.
        """
        longer = np.zeros(len(rows.read))
        for place, kind in enumerate(rows.kinds):
            ordinary, single = kind.replace(_DEPTHWISE, " "), rows.read[:, place] == 1
            if ordinary != kind and ordinary in self.widths and single.any():
                one = Rows((kind,), *(part[single, place : place + 1] for part in (rows.read, rows.written, rows.groups)))
                longer[single] += self.fit.times(replace(one, kinds=(ordinary,))) - self.fit.times(one)
        return longer

    def _known(self, kind: str) -> str:
        """The kind itself, or that of depthwise convolutions where only they are known: one that is cut to a single channel is an ordinary one."""
        first, _, rest = kind.partition(" ")
        window, _, rest = rest.partition(" ")
        depthwise = f"{first} {window} depthwise {rest}"
        return depthwise if kind not in self.widths and depthwise in self.widths else kind

    def with_activation(self, activation: str) -> LatencyTable:
        """The table for networks whose convolutions get this activation, too, as `octrim.network.adapt.with_activation` gives them it.

        Rows that were not measured with it take as long as those with another one: SiLU is slower than ReLU, ReLU6, leaky ReLU and hard swish in
        OpenVINO and C.
        """
        places = {kind: place for place, kind in enumerate(self.fit.kinds)}
        sources: dict[str, str] = {}
        for kind in self.fit.kinds:
            words, _, size = kind.rpartition(" at ")
            before, _, last = words.rpartition(" ")
            if parse_activation(last) and last != "sigmoid":  # gates keep their sigmoid
                sources.setdefault(f"{before} {activation} at {size}", kind)
        missing = {kind: source for kind, source in sources.items() if kind not in places}
        rows = [places[source] for source in missing.values()]
        fit = replace(self.fit, kinds=(*self.fit.kinds, *missing), coefficients=np.concatenate([self.fit.coefficients, self.fit.coefficients[rows]]))
        return replace(self, fit=fit, widths={**self.widths, **{kind: self.widths[source] for kind, source in missing.items()}})

    def require_size(self, height: int, width: int) -> None:
        """Raise InputError where the table was measured at another picture size."""
        if (height, width) != (self.height, self.width):
            raise InputError(
                f"the latency table is of {self.height}x{self.width} pixels, and the network is planned for {height}x{width}: give --imgsz "
                f"{self.height if self.height == self.width else f'{self.height} {self.width}'}, or make a table of that size"
            )

    def limit(self, value: str, whole: Network) -> float:
        """Milliseconds that a budget allows, given as in `latency=2` or `latency=1/6`. Raises InputError for more than the whole network takes.

        whole: the network that a fraction is of. A correction does not move the limit.
        """
        wanted = latency_value(value)
        now = replace(self, correction=1.0).predict(whole)
        if isinstance(wanted, Fraction):
            return float(wanted) * now
        if wanted > now:
            raise InputError(f"budget latency={value} is above the {now:.3g} ms that the network takes before it is cut: nothing would be cut")
        return wanted

    def to_json(self) -> dict[str, Any]:
        network, milliseconds = self.reference
        kinds = {
            kind: {"widest": list(self.widths[kind]), **{name: float(value) for name, value in zip(TERMS, line, strict=True) if value}}
            for kind, line in zip(self.fit.kinds, self.fit.coefficients, strict=True)
        }
        return {
            "octrim_latency_table": FORMAT,
            **vars(self.machine),
            "height": self.height,
            "width": self.width,
            "network": self.name,
            "check": vars(self.check),
            "seconds": round(self.seconds, 1),
            "correction": self.correction,
            "overhead": self.fit.overhead,
            "blocks": list(self.fit.blocks),
            "rows": kinds,
            "reference": {"milliseconds": milliseconds, "table": network.to_json(), "anchors": network.anchors},
        }

    @classmethod
    def from_json(cls, content: object) -> LatencyTable:
        """The table of what `to_json` gave. Raises InputError for anything else."""
        if not isinstance(content, dict) or "octrim_latency_table" not in content:
            raise InputError("is no latency table: octrim bench --latency-table FILE makes one")
        if content["octrim_latency_table"] != FORMAT:
            raise InputError(
                f"is a latency table of format {shown(content['octrim_latency_table'])}, and this OcTrim reads format {FORMAT}: make it anew with "
                "octrim bench --latency-table FILE"
            )
        try:
            return _parsed(content)
        except InputError as error:
            raise InputError(f"is a damaged latency table: {error}") from None
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"is a damaged latency table: {type(error).__name__} {shown(str(error))}") from None


def _parsed(content: Mapping[str, Any]) -> LatencyTable:
    kinds = tuple(content["rows"])
    coefficients = np.array([[_number(line.get(name, 0.0)) for name in TERMS] for line in content["rows"].values()]).reshape(len(kinds), len(TERMS))
    read, written = (_count(block, 1) for block in content["blocks"])
    texts = {name: content[name] for name in ("processor", "runtime", "version", "precision", "network")}
    for name, value in texts.items():
        if not isinstance(value, str) or not value.isprintable():
            raise InputError(f"{name} is {shown(value)}")
    name = texts.pop("network")
    check, reference = content["check"], content["reference"]
    return LatencyTable(
        Machine(**texts, cores=_count(content["cores"], 1), threads=_count(content["threads"], 1)),
        _count(content["height"], 1),
        _count(content["width"], 1),
        name,
        Fit(_number(content["overhead"]), kinds, coefficients, (read, written)),
        {kind: (_count(line["widest"][0], 1), _count(line["widest"][1], 1)) for kind, line in content["rows"].items()},
        (Network.from_json(reference["table"], reference["anchors"]), _number(reference["milliseconds"])),
        Check(_count(check["networks"], 0), _number(check["median_error"]), _number(check["largest_error"])),
        _number(content["seconds"]),
        _number(content["correction"]),
    )


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
        raise InputError(f"found {shown(value)}, expected a number of 0 or more")
    return float(value)


def _count(value: object, least: int) -> int:
    if type(value) is not int or not least <= value <= 10_000_000:
        raise InputError(f"found {shown(value)}, expected a whole number from {least}")
    return value


def read_table(path: str | Path) -> LatencyTable:
    """Read a latency table. Raises InputError, naming the file, for one that is missing, damaged, or of another version."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    if len(data) > _MOST_BYTES:
        raise InputError(f"{path}: more than {_MOST_BYTES:,} bytes; no latency table needs that")
    try:
        content = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):  # no UTF-8, no JSON, or a number of thousands of digits
        raise InputError(f"{path}: is no latency table: it is no JSON") from None
    try:
        return LatencyTable.from_json(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def write_table(table: LatencyTable, path: str | Path) -> None:
    """Write a latency table as a JSON file."""
    write_text(path, json.dumps(table.to_json(), indent=1))

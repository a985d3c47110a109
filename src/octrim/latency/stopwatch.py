"""Times of networks in a runtime on this machine, each beside one reference network, so that busy moments and a changing clock cancel out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from statistics import median
from time import perf_counter

import numpy as np

from octrim.data.scenes import drawn_scene
from octrim.detector import Detector
from octrim.errors import InputError
from octrim.machine import processor_name, usable_cores
from octrim.network.folding import folded_conv
from octrim.network.initialize import fresh_tensors
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.network.scales import scales_of
from octrim.quantization.placement import placement
from octrim.targets.table import live_targets, program

OPENINGS = 3
"""Times that a network is opened and measured anew where one number has to be right."""

_SECONDS = 0.12  # that one network is timed for at least, the reference beside it not counted
_BURSTS = 4  # turns of a network and the reference
_FEWEST, _MOST = 1, 8  # timed runs in a burst
_QUANTILE = 0.4  # a little below the median, because disturbances only add
_COMPILED_INT8 = ("c",)  # runtimes that compile each network of int8 for seconds; a table of 230 of them would take a quarter of an hour
_CLIP = 4.0  # value at which maps are clipped in int8; times do not depend on it


@dataclass(frozen=True)
class Conditions:
    """The runtime, and how it runs. threads: number of its threads."""

    runtime: str
    precision: str
    threads: int
    height: int
    width: int

    def require(self) -> None:
        """Raise InputError for a runtime that tables are not made of, or not in this precision."""
        targets = live_targets()
        if self.runtime not in targets:
            raise InputError(f"a latency table is of {', '.join(targets)}; {program(self.runtime)} was asked for")
        offered = targets[self.runtime].live
        if self.precision not in offered:
            raise InputError(f"{self.runtime} runs in {', '.join(offered)}; {self.precision} was asked for")
        if self.precision == "int8" and self.runtime in _COMPILED_INT8:
            others = ", ".join(name for name, one in targets.items() if "int8" in one.live and name not in _COMPILED_INT8)
            raise InputError(f"a latency table of int8 is of {others}; {self.runtime} would compile each of its networks for seconds")

    def detector(self, network: Network) -> Detector:
        """The network with random weights, on which times do not depend, ready to run."""
        names = tuple(f"class{index}" for index in range(network.classes))
        model = Model(network, fresh_tensors(network), names, max(self.height, self.width), ())
        if self.precision == "int8":
            model = _with_some_scales(model)
        size = (self.height, self.width)
        detector = Detector(model, size, runtime=self.runtime, precision=self.precision, threads=self.threads)
        detector.rectangular = False
        return detector


def _with_some_scales(model: Model) -> Model:
    """The model with scales wherever `octrim quantize` makes them by default; those of maps are made up."""
    placed = placement(model.network)
    scales = {f"{group}.scale": scales_of(np.full(1, _CLIP)) for group in placed.groups}
    scales |= {f"{row.name}.weight_scale": scales_of(np.abs(folded_conv(model, row)[0]).max((1, 2, 3))) for row in placed.convs}
    return replace(model, scales=scales)


@dataclass(eq=False)
class Stopwatch:
    """Measures networks. reference: network that runs beside every other one; its own seconds are kept in `seconds`."""

    conditions: Conditions
    reference: Network
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.conditions.require()
        self.image = drawn_scene(0)
        self.yardstick = self.conditions.detector(self.reference)
        self.runs(self.yardstick, 5)

    @property
    def version(self) -> str:
        return self.yardstick.info.version

    def runs(self, detector: Detector, count: int) -> list[float]:
        """Seconds of `count` runs of one picture, which is letterboxed before each as in use and in `octrim bench`: that fills the caches."""
        found = []
        for _ in range(count):
            batch, _box = detector.prepare(self.image)
            start = perf_counter()
            detector.session(batch)
            found.append(perf_counter() - start)
        return found

    def settled(self, network: Network) -> float:
        """Time of a network as a multiple of the reference's, the median of OPENINGS: where its memory lies makes up to 15 %."""
        return median(self.relative(network) for _ in range(OPENINGS))

    def relative(self, network: Network, bursts: int = _BURSTS) -> float:
        """Time of a network, opened once, as a multiple of the reference's."""
        detector = self.conditions.detector(network)
        first = min(self.runs(detector, 2))
        count = min(max(round(_SECONDS / _BURSTS / first), _FEWEST), _MOST)
        own: list[float] = []
        others: list[float] = []
        for _ in range(bursts):
            # The first run of a burst does not count: the other's weights are in the caches, and its threads may still be spinning.
            others += self.runs(self.yardstick, 1 + max(count // 2, 2))[1:]
            own += self.runs(detector, 1 + count)[1:]
        detector.session.close()
        self.seconds += others
        return float(np.quantile(own, _QUANTILE) / np.quantile(others, _QUANTILE))

    def milliseconds(self) -> float:
        """Time of the reference over all measurements so far."""
        return 1000 * float(np.quantile(self.seconds, _QUANTILE))


def this_machine() -> tuple[str, int]:
    """The processor's name, and the number of cores that this process may use."""
    return processor_name(), usable_cores()

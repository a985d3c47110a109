"""The state of a training on disk: one safetensors file, written whole or not at all, from which a run goes on as if nothing had happened.

States of random generators are not stored, because every stream of random numbers starts from (seed, epoch, sample).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from octrim.atomic import write_bytes
from octrim.errors import InputError, shown
from octrim.latency.table import LatencyTable
from octrim.network.cost import tensor_shapes
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.network.scales import Scales
from octrim.training.schedule import PUBLISHED, Averaging
from octrim.training.vectors import kind_of, unflattened

FORMAT = 1

CHECKPOINT = "checkpoint/state.safetensors"
"""Path of the checkpoint in the folder of a run."""

LAST, BEST = "last.safetensors", "best.safetensors"
"""Files in the folder of a run with the weights of the last epoch, and of the best one by the validation part."""

QUANTIZATION = "quantization"
"""Key of `State.extra` with the scales of a network that trains with the roundings of int8: lists of numbers by the names of `Model.scales`."""

_KEY = "octrim-training"


@dataclass(eq=False)
class State:
    """State of a training before batch `batch` of epoch `epoch`.

    lineage: lineage of the weights that the training began with. data: digest of the data that it learns from. arrays: float32 vectors `values`
    (parameters, then statistics), `average` (their moving average), `gradient` (of the batches that wait for an optimizer step), `moment0`,
    `moment1`, and `taylor` (one score per batch-norm weight, where channels are ranked by them); empty before the first step. waiting: number of
    batches that wait for a step; waiting_pictures: number of their pictures, of all processes together. steps: optimizer steps so far. updates:
    updates of the average so far.
    losses: sums of box, objectness and class loss over the epoch's batches so far; labels: number of boxes in these batches. rows: rows of
    results.csv. best: the best fitness and its epoch. extra: JSON values by name that parts of a training keep.
    """

    network: Network
    names: tuple[str, ...]
    image_size: int
    lineage: tuple[dict[str, Any], ...]
    data: str
    arrays: dict[str, np.ndarray]
    epoch: int = 0
    batch: int = 0
    waiting: int = 0
    waiting_pictures: int = 0
    steps: int = 0
    updates: int = 0
    losses: tuple[float, ...] = (0.0, 0.0, 0.0)
    labels: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    best: tuple[float, int] = (-1.0, -1)
    extra: dict[str, Any] = field(default_factory=dict)

    def count_batch(self, losses: Sequence[float], labels: int, pictures: int) -> None:
        """Count one more batch of the epoch, whose gradient waits for a step.

        losses: its losses, as many as `self.losses` has. labels: number of its boxes. pictures: number of its pictures, of all processes together.
        """
        self.losses = tuple(total + loss for total, loss in zip(self.losses, losses, strict=True))
        self.labels += labels
        self.waiting += 1
        self.waiting_pictures += pictures
        self.batch += 1

    def note_fitness(self, fitness: float, epoch: int) -> None:
        """Keep the epoch as the best one where no earlier epoch was as good; among epochs with fitness 0 the last one is the best."""
        if fitness > self.best[0] or fitness == self.best[0] == 0:
            self.best = (fitness, epoch)

    def close_epoch(self, epoch: int, row: dict[str, float]) -> None:
        """Add the row of results.csv of `epoch`, and start counting the next epoch. row: columns but for the epoch's number."""
        self.rows.append({"epoch": epoch, **row})
        self.losses, self.labels = (0.0,) * len(self.losses), 0
        self.epoch, self.batch = epoch + 1, 0

    def averaged(self, action: dict[str, Any]) -> Model:
        """The moving average as a model. action: entry to add to the model's lineage."""
        tensors = unflattened(self.network, self.arrays["average"])
        return Model(self.network, tensors, self.names, self.image_size, (*self.lineage, action), self.scales)

    @property
    def scales(self) -> dict[str, np.ndarray]:
        """The scales of a network that trains with the roundings of int8; empty for others."""
        return {name: np.asarray(values, np.float32) for name, values in self.extra.get(QUANTIZATION, {}).items()}


def stored_averaging(state: State) -> Averaging:
    """The moving average that a run began with. Runs that do not say it are older than the choice, and have the published one."""
    return Averaging(**state.extra["average"]) if "average" in state.extra else PUBLISHED


def chooses_best(state: State) -> bool:
    """Whether the result of a run is its best epoch instead of its last one, as it was when the run began: in runs of OcTrim 0.1."""
    return "average" not in state.extra


_COUNTS = ("image_size", "epoch", "batch", "waiting", "waiting_pictures", "steps", "updates", "labels")
_PLAIN = (*_COUNTS, "data", "rows", "extra")


def training_bytes(network: Network) -> int:
    """Bytes of disk space that a training takes: checkpoint and weights, each a second time while it is written, and some pictures."""
    total = sum(math.prod(shape) for shape in tensor_shapes(network).values())
    vectors = 5  # values, average, gradient and up to two moments
    return 4 * total * (2 * vectors + 3) + 20_000_000


def save_state(state: State, path: Path) -> None:
    from safetensors.numpy import save

    header: dict[str, Any] = {name: getattr(state, name) for name in _PLAIN}
    header |= {"format": FORMAT, "table": state.network.to_json(), "anchors": state.network.anchors, "names": state.names}
    header |= {"lineage": state.lineage, "losses": state.losses, "best": state.best}
    metadata = {_KEY: json.dumps(header, sort_keys=True, ensure_ascii=False)}
    path.parent.mkdir(exist_ok=True)
    write_bytes(path, save(state.arrays, metadata))


def load_state(path: Path) -> State:
    """Read a checkpoint. Raises InputError for a file that is missing, damaged, or of a newer version."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path}: no such file; a run that can be resumed has one")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_KEY)
            if text is None:
                raise InputError(f"{path}: not a training checkpoint of OcTrim")
            header = json.loads(text)
            if header["format"] > FORMAT:
                raise InputError(f"{path}: written by a newer OcTrim (format {header['format']}, this one reads up to {FORMAT}); upgrade octrim")
            header.setdefault("waiting_pictures", 0)  # OcTrim 0.1 did not count them
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        state = State(
            network=Network.from_json(header["table"], header["anchors"]),
            names=tuple(header["names"]),
            lineage=tuple(header["lineage"]),
            losses=tuple(header["losses"]),
            best=(header["best"][0], header["best"][1]),
            arrays=arrays,
            **{name: header[name] for name in _PLAIN},
        )
        _check_values(state)
        _check_arrays(state)
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError, IndexError) as error:
        raise InputError(f"{path}: a damaged checkpoint: {shown(str(error))}") from None
    return state


def _check_values(state: State) -> None:
    rows = state.rows if isinstance(state.rows, list) and all(isinstance(row, dict) for row in state.rows) else None
    numbers = [*state.losses, *state.best, *(value for row in rows or () for value in row.values())]
    sound = {
        "names": all(isinstance(name, str) for name in state.names),
        "lineage": all(isinstance(step, dict) for step in state.lineage),
        "losses, best or rows": rows is not None and len(state.losses) >= 3 and all(type(value) in (int, float) for value in numbers),
        "data": isinstance(state.data, str),
        "extra": isinstance(state.extra, dict) and _sound_extra(state),
        **{name: type(getattr(state, name)) is int and getattr(state, name) >= 0 for name in _COUNTS},
    }
    for name, fine in sound.items():
        if not fine:
            raise InputError(f"a damaged checkpoint: {name} cannot be what training wrote")


def _sound_extra(state: State) -> bool:
    """Whether what the parts of a training keep in `extra`, each under names of its own, is what they write."""
    extra = state.extra
    scales = extra.get(QUANTIZATION, {})
    if not isinstance(scales, dict) or not all(isinstance(one, list) and all(type(value) is float for value in one) for one in scales.values()):
        return False
    Scales(state.network, state.scales)  # raises InputError for scales that do not fit
    return _sound_sparsity(extra) and _sound_averaging(extra) and _sound_unlabelled(extra) and _sound_cutting(state)


def _sound_sparsity(extra: dict[str, Any]) -> bool:
    """Whether the values of sparsity training in `extra`, if any, are valid: the strength, which channels are dead, and per epoch a histogram of the
    scales up to `top`."""
    dead = extra.get("dead", [])
    if not isinstance(dead, list) or not all(type(one) is bool for one in dead):
        return False
    strength, scales = extra.get("strength", 0.0), extra.get("scales", {"top": 1.0, "counts": []})
    if type(strength) not in (int, float) or not 0 <= strength < math.inf or not isinstance(scales, dict):
        return False
    top: Any = scales.get("top")
    counts = scales.get("counts")
    if type(top) not in (int, float) or not 0 < top < math.inf or not isinstance(counts, list):
        return False
    return all(isinstance(row, list) and len(row) == len(counts[0]) and all(type(count) is int for count in row) for row in counts)


def _sound_unlabelled(extra: dict[str, Any]) -> bool:
    """Whether what `extra` says of unlabelled pictures, if anything, is what `Unlabelled.facts` gives."""
    facts = extra.get("unlabelled")
    if facts is None:
        return True
    names = ("pictures", "places", "batch")
    return isinstance(facts, dict) and isinstance(facts.get("digest"), str) and all(type(facts.get(name)) is int for name in names)


def _sound_cutting(state: State) -> bool:
    """Whether what the cutting keeps in `extra`, if anything, is valid: the first network's table, and which channels of each convolution are left.

    Raises InputError for a table that is none.
    """
    noted = state.extra.get("cutting")
    if noted is None:
        return True
    if not isinstance(noted, dict) or not all(isinstance(noted.get(name), dict) for name in ("kept", "wanted", "removed")):
        return False
    anchors = [list(level) for level in state.network.anchors]
    first = {row.name: row.channels for row in Network.from_json(noted["table"], noted.get("anchors", anchors)).convs}
    now = {row.name: row.channels for row in state.network.convs}
    for name, channels in noted["kept"].items():
        ascending = all(type(channel) is int for channel in channels) and channels == sorted(set(channels))
        if not ascending or len(channels) != now[name] or not 0 <= channels[0] <= channels[-1] < first[name]:
            return False
    if "latency" in noted:
        LatencyTable.from_json(noted["latency"])  # raises an error for one that is damaged
    wanted, removed, share = {"planned": None, **noted["wanted"]}, noted["removed"], noted["share"]  # earlier cuttings planned nothing
    texts = all(value is None or isinstance(value, str) for value in (wanted["keep"], wanted["budget"], wanted["criterion"], wanted["planned"]))
    counts = all(type(value) is int and value >= 0 for value in (noted["level"], noted["step"], wanted["seed"]))
    counts = counts and all(type(wanted[name]) is int and wanted[name] >= 1 for name in ("epochs", "align", "interval"))
    shares = all(type(value) in (int, float) and 0 <= value <= 1 for value in (*removed.values(), share)) and share > 0
    fractions = all(isinstance(name, str) and isinstance(value, str | int | float) for name, value in dict(wanted["keep_map"]).items())
    kinds = isinstance(wanted["exclude"], list) and fractions and type(noted["done"]) is bool and len(wanted) == 10
    scored = ("taylor" in state.arrays) == (wanted["criterion"] == "taylor") or not state.arrays
    return texts and counts and shares and kinds and scored and noted["kept"].keys() == now.keys() <= first.keys()


def _sound_averaging(extra: dict[str, Any]) -> bool:
    """Whether `extra` says how the moving average decays in numbers that a training has written, or says nothing of it."""
    numbers = extra.get("average", {"decay": PUBLISHED.decay, "ramp": PUBLISHED.ramp})
    if not isinstance(numbers, dict) or numbers.keys() != {"decay", "ramp"}:
        return False
    decay, ramp = numbers["decay"], numbers["ramp"]
    return all(type(number) in (int, float) for number in (decay, ramp)) and 0 <= decay < 1 and 0 < ramp < math.inf


def _check_arrays(state: State) -> None:
    shapes = tensor_shapes(state.network)
    total = sum(math.prod(shape) for shape in shapes.values())
    parameters = sum(math.prod(shape) for name, shape in shapes.items() if kind_of(name) < 3)
    wanted = {"values": total, "average": total, "gradient": parameters, "moment0": parameters, "moment1": parameters}
    wanted["taylor"] = sum(math.prod(shape) for name, shape in shapes.items() if kind_of(name) == 1)
    for name in ("values", "average", "gradient", "moment0"):
        if name not in state.arrays:
            raise InputError(f"a damaged checkpoint: no vector {name}")
    for name, array in state.arrays.items():
        if array.shape != (wanted.get(name),) or array.dtype != np.float32:
            raise InputError(f"a damaged checkpoint: {shown(name)} is {array.dtype} {list(array.shape)}, expected float32 [{wanted.get(name)}]")

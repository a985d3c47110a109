"""How many channels a group of a network wants: as many as hold the variance of its feature maps.

Channels of a map depend on each other, and a network that is trained anew after the cut can mix what is left. What a map of k channels can hold at
most is then the variance of its k largest principal components. Early layers have little to spare by this measure, deep ones much.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from rich.console import Console

from octrim.backends.numpy import NumpyOps
from octrim.data.pictures import Readable, network_inputs
from octrim.errors import InputError
from octrim.network.cost import network_cost
from octrim.network.model import Model
from octrim.network.rows import Network, Row, walk
from octrim.progress import progress_bar
from octrim.pruning.budget import EVEN
from octrim.pruning.importance import Criterion, channel_scores, criterion_name
from octrim.pruning.labels import ChannelLabels, Group, channel_labels
from octrim.targets.session import float_batch

PICTURES = 200
"""Number of pictures on which variance is measured where nothing else is said; on twice as many, shares change in the third decimal."""

_ENOUGH_MACS = 110e9  # of all pictures together, as of 200 in a YOLOv5n at 320 px: larger pictures have more positions each

_LEAST_PICTURES = 16  # however large network and pictures are

_STILL = 1e-12  # variance of a channel up to which it counts as one that does not vary

_TINY = 1e-12  # more than the rounding errors of shares


def fraction_align(align: int, keep_map: Mapping[str, object]) -> int:
    """Number that counts of channels are multiples of in the network whose MACs a plan by variance spends where a fraction says what is left.

    It is 8 for finer plans, too, which then cost what the fraction leaves by default; `align` itself where that is more, and where a keep-map says
    what some groups keep in multiples of it: that network must be a plan, too, or its MACs might be out of reach.
    """
    return align if keep_map else max(align, EVEN)


def held_variance(model: Model, pictures: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Share of the variance of each group's maps that its 1, 2, .. largest principal components hold, by the group's name, float64 `[channels]`.

    Shares rise to 1, and are the mean over all maps that have the group's channels. Channels are scaled to a variance of 1 before; those that do not
    vary hold nothing. pictures: uint8 RGB arrays `[height, width, 3]`, sides multiples of the stride. Raises InputError where there is none, and
    where a map overflows.
    """
    labels = channel_labels(model.network)
    maps = {group.name: _maps(group, labels, model.network) for group in labels.groups}
    ops = _WatchingOps(model, {name for names in maps.values() for name in names})
    for picture in pictures:
        walk(model.network, ops, float_batch(picture[None]))
    if not ops.sums:
        raise InputError("no picture can be read, and the variance of feature maps is measured on pictures")
    shares = {name: _shares(*sums) for name, sums in ops.sums.items()}
    return {group: np.mean([shares[name] for name in names], 0) for group, names in maps.items() if names}


def measured_by_variance(
    criterion: str | Criterion, model: Model, paths: Sequence[str], size: tuple[int, int], console: Console | None = None
) -> tuple[Criterion, list[str]]:
    """The criterion that `by_variance` makes of another one, by maps of the pictures in these files, and a line for each that cannot be read.

    Of many pictures for a large network some are used, spread evenly, so that a YOLOv5n at 320 px sees 200 of them and a YOLOv5s at 640 px 16.
    size: height and width that pictures are letterboxed to. console: where progress shows. Raises InputError where no picture can be read.
    """
    most = max(int(_ENOUGH_MACS / network_cost(model.network, *size).macs), _LEAST_PICTURES)
    count = min(most, len(paths))
    readable = Readable([paths[number * len(paths) // count] for number in range(count)])
    readable.require()
    with progress_bar("variance of feature maps", len(readable.paths), console, after=2.0) as bar:

        def counted() -> Iterator[np.ndarray]:
            for picture in network_inputs(readable, *size):
                yield picture
                bar.advance()

        held = held_variance(model, counted())
    return by_variance(criterion, held), [f"left out: {line}" for line in readable.failures]


def by_variance(criterion: str | Criterion, held: Mapping[str, np.ndarray]) -> Criterion:
    """A criterion that ranks channels as another one does, and by which a group's first k channels have the share of its importance that k principal
    components hold of the variance.

    held: as `held_variance` gives it, for the same model. Groups that are not in it are scored by the other criterion.
    """

    def ranked(model: Model, labels: ChannelLabels, seed: int) -> np.ndarray:
        scores = channel_scores(criterion, model, labels, seed)
        for group in labels.groups:
            if group.name in held:
                order = np.argsort(-scores[group.labels], kind="stable")
                more = np.maximum(np.diff(held[group.name], prepend=0), 0)
                scores[group.labels[order]] = more + _TINY * np.arange(len(order), 0, -1)  # channels that hold nothing more stay in order, too
        return scores

    ranked.__name__ = f"{criterion_name(criterion)}, variance"
    return ranked


def _maps(group: Group, labels: ChannelLabels, network: Network) -> list[str]:
    """Names of the convolutions and sums whose output is a map of just the group's channels."""
    rows = [row.name for row in network.rows if row.op in ("conv", "add")]
    return [name for name in rows if np.array_equal(np.sort(labels.labels[name]), np.sort(group.labels))]


def _shares(count: int, total: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Share of the variance that the largest principal components hold, from sums over positions of the channels and of their products."""
    mean = total / count
    covariance = products / count - np.outer(mean, mean)
    variances = np.diag(covariance)
    scale = np.where(variances > _STILL, 1 / np.sqrt(np.maximum(variances, _STILL)), 0.0)
    values = np.maximum(np.linalg.eigvalsh(covariance * scale * scale[:, None])[::-1], 0)
    return np.cumsum(values) / values.sum() if values.any() else np.arange(1, len(values) + 1) / len(values)


class _WatchingOps(NumpyOps):
    """Computes maps and sums up their channels and the products of these. sums: positions, `[channels]` and `[channels, channels]`, by row."""

    def __init__(self, model: Model, watched: set[str]) -> None:
        super().__init__(model)
        self.watched = watched
        self.first: dict[str, np.ndarray] = {}  # values at the first position, which are subtracted: a constant channel then sums up to exactly 0
        self.sums: dict[str, tuple[int, np.ndarray, np.ndarray]] = {}

    def conv(self, row: Row, x: np.ndarray) -> np.ndarray:
        return self._seen(row, super().conv(row, x))

    def add(self, row: Row, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self._seen(row, super().add(row, a, b))

    def _seen(self, row: Row, x: np.ndarray) -> np.ndarray:
        if row.name in self.watched:
            flat = x[0].reshape(x.shape[1], -1).astype(np.float64)
            if not np.isfinite(flat).all():
                raise InputError(f"{row.name} overflows on a picture, and the variance of its feature maps cannot be measured")
            flat -= self.first.setdefault(row.name, flat[:, :1].copy())
            count, total, products = self.sums.get(row.name, (0, np.zeros(len(flat)), np.zeros((len(flat), len(flat)))))
            self.sums[row.name] = (count + flat.shape[1], total + flat.sum(1), products + flat @ flat.T)
        return x

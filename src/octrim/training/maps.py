"""Moments of feature maps in the middle of a training, by which cut channels are merged into those that stay."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from octrim.backends.paddle import paddle
from octrim.data.augment import Augmentation
from octrim.data.dataset import Dataset
from octrim.data.loader import Loader
from octrim.pruning.merging import MapMoments
from octrim.targets.session import float_batch
from octrim.training.learner import Learner

PICTURES = 16
"""Pictures that one cut looks at: with 4 instead of 16 pictures, merging kept .27 instead of .42 of mAP50-95 .70 at a cut to 3/4 of the channels."""

_SIDE = 640  # side in pixels up to which so many are looked at; of larger ones fewer, because their maps take memory

SETS = 4
"""Different sets of that many pictures, which cuts use in turn."""

_SAMPLES = 3000  # positions per map, of all pictures together


def cut_pictures(dataset: Dataset, side: int, augmentation: Augmentation, seed: int, epochs: int) -> list[np.ndarray]:
    """Sets of augmented training pictures, uint8 RGB `[pictures, side, side, 3]`, the same whenever they are asked for.

    epochs: number of epochs of the training, in none of which these pictures appear as they are here.
    """
    count = max(int(PICTURES * min(_SIDE / side, 1) ** 2), 1)
    with Loader(dataset, side, count, augmentation, seed, workers=0, cache="none") as loader:
        return list(_first(loader.epoch(epochs)))


def _first(batches: Any) -> Iterator[np.ndarray]:
    for number, batch in enumerate(batches, 1):
        if len(batch.images):
            yield batch.images.copy()
        if number == SETS:
            break


def map_moments(learner: Learner, pictures: np.ndarray, names: Collection[str], seed: int) -> dict[str, MapMoments]:
    """Moments of the maps of the rows `names` for pictures, by row, with the statistics of this batch, as in training; the learner does not change.

    pictures: uint8 RGB `[pictures, side, side, 3]`. seed: seed of the positions that are drawn.
    """
    network, found = learner.network, {}
    generator = np.random.default_rng(seed)

    def watch(name: str) -> Any:
        def look(_layer: Any, inputs: Any) -> None:
            if name not in found:
                found[name] = _moments(inputs[0], generator)

        return look

    hooks = [network._sub_layers[row.name].register_forward_pre_hook(watch(row.inputs[0])) for row in network.network.convs if row.inputs[0] in names]
    statistics = learner.weights.statistics.values()
    try:
        with paddle.no_grad():
            network(paddle.to_tensor(float_batch(pictures)))
    finally:
        for hook in hooks:
            hook.remove()
        learner.weights.statistics.assign(statistics)
    return found


def _moments(x: Any, generator: np.random.Generator) -> MapMoments:
    """Moments of a map `[batch, channels, height, width]` over positions that are drawn."""
    batch, channels, height, width = x.shape
    values = x.numpy().reshape(batch, channels, height * width)
    places = generator.permutation(batch * height * width)[:_SAMPLES]
    picture, place = np.divmod(places, height * width)
    samples = values[picture, :, place].astype(np.float64)
    mean = samples.mean(0)
    samples -= mean
    return MapMoments(mean, samples.T @ samples / len(samples))

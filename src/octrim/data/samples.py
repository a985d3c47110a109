"""Makes training samples. A sample depends on (seed, turn, index) alone, so that no process, order or restart changes it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from octrim.data.augment import Augmentation, TrainingScene, flips, hsv, mixup, mosaic, random_perspective
from octrim.data.dataset import Dataset
from octrim.data.labelfiles import word_array, words_of
from octrim.data.pictures import letterbox
from octrim.data.store import Store
from octrim.errors import InputError

REPLACEMENTS = 20  # most pictures tried in the place of one that cannot be read


class Samples:
    """Maker of training samples of side x side pixels. seed: 0 or more. store: a store of the same data set and side.

    labelled: number of pictures with labels, which come first in the data set; None where all have them. A mosaic, a mixup and a replacement are
    made of labelled pictures alone or of unlabelled pictures alone, because in a mosaic of both the objects of some parts would have no labels.
    failures: a line for every picture that could not be read since the list was last emptied, each once. Another picture, drawn from the
    sample's own random numbers, takes its place.
    """

    def __init__(self, dataset: Dataset, side: int, augmentation: Augmentation, seed: int, store: Store, labelled: int | None = None) -> None:
        self.failures: list[str] = []
        self._dataset = dataset
        self._labelled = len(dataset) if labelled is None else labelled
        self._side = side
        self._augmentation = augmentation
        self._seed = seed
        self._store = store
        sizes = dataset.sizes[:, ::-1]
        self._scales = np.tile(store.shapes[:, ::-1] / sizes, 2).astype(np.float32)

    def sample(self, turn: int, index: int, mosaic: bool = True) -> TrainingScene:
        """Return a sample of picture `index`: image uint8 RGB `[side, side, 3]`, boxes in pixels inside it, labels.

        turn: epoch, or pass over the unlabelled pictures, as `Shuffle.share` counts it; the picture looks different in every turn. mosaic: whether
        the sample may be a mosaic of four pictures, with the augmentation's probability; published recipes end without mosaics.
        Raises InputError where a picture and all pictures drawn in its place could not be read.
        """
        generator = np.random.default_rng((self._seed, turn, index))
        if generator.random() < self._augmentation.mosaic and mosaic:
            scene = self._mosaic(generator, index)
            if generator.random() < self._augmentation.mixup:
                scene = mixup(generator, scene, self._mosaic(generator, self._other(generator, index)))
        else:
            scene = random_perspective(generator, self._letterboxed(generator, index), self._augmentation, self._side)
        scene = TrainingScene(hsv(generator, scene.image, self._augmentation), scene.boxes_xyxy, scene.labels)
        return flips(generator, scene, self._augmentation)

    def batch(
        self, turns: Sequence[int], indices: Sequence[int], mosaic: bool, images: np.ndarray, wanted: Callable[[], bool] = lambda: True
    ) -> tuple[np.ndarray, list[str]]:
        """Write the samples of pictures `indices`, each in its turn, into `images`, uint8 `[n, side, side, 3]`. Stops once `wanted` returns false.

        Returns targets, float32 `[boxes, 6]`: number of the picture in the batch, class, and cx cy w h as shares of the side; and the failures.
        """
        self.failures.clear()
        rows = [np.empty((0, 6), np.float32)]
        for number, (turn, index) in enumerate(zip(turns, indices, strict=True)):
            if not wanted():
                break
            images[number], boxes, labels = self.sample(turn, index, mosaic)
            upper, lower = boxes[:, :2] / self._side, boxes[:, 2:] / self._side
            numbers = np.full(len(labels), number)
            rows.append(np.column_stack([numbers, labels, (upper + lower) / 2, lower - upper]).astype(np.float32))
        return np.concatenate(rows), list(self.failures)

    def _mosaic(self, generator: np.random.Generator, index: int) -> TrainingScene:
        scenes = [self._picture(generator, index), *(self._picture(generator, self._other(generator, index)) for _ in range(3))]
        order = generator.permutation(4)  # the sample's own picture stands in every place equally often
        whole = mosaic(generator, [scenes[place] for place in order], self._side)
        return random_perspective(generator, whole, self._augmentation, self._side)

    def _letterboxed(self, generator: np.random.Generator, index: int) -> TrainingScene:
        scene = self._picture(generator, index)
        image, box = letterbox(scene.image, self._side, self._side)
        return TrainingScene(image, scene.boxes_xyxy + np.asarray((box.left, box.top, box.left, box.top), np.float32), scene.labels)

    def _other(self, generator: np.random.Generator, index: int) -> int:
        """Draw the number of a picture with labels for a picture `index` that has some, of one without for one that has none."""
        if index < self._labelled:
            return int(generator.integers(self._labelled))
        return int(generator.integers(self._labelled, len(self._dataset)))

    def _picture(self, generator: np.random.Generator, index: int) -> TrainingScene:
        """Return a picture as it is stored, BGR, with its boxes; another one where it cannot be read. Raises InputError where none can be."""
        failure = ""
        for _ in range(REPLACEMENTS + 1):
            try:
                image = self._store.read(index)
            except InputError as error:
                failure = str(error)
                if failure not in self.failures:
                    self.failures.append(failure)
                index = self._other(generator, index)
                continue
            boxes, labels, crowd = self._dataset.targets(index)
            return TrainingScene(image, (boxes * self._scales[index])[~crowd], labels[~crowd])
        raise InputError(f"{failure} (and {REPLACEMENTS} pictures drawn in the place of another could not be read either)")


_ARRAYS = ("sizes", "boxes", "labels", "crowd", "starts")


def packed(dataset: Dataset) -> bytes:
    """Return the parts of a data set that samples need, as the bytes of an .npz without pickles."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {name: getattr(dataset, name) for name in _ARRAYS}
    np.savez(buffer, paths=word_array(dataset.paths), **arrays)
    return buffer.getvalue()


def unpacked(data: bytes) -> Dataset:
    """Return the data set that `packed` wrote, without names and ids."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        paths = tuple(words_of(file["paths"]))
        arrays: dict[str, Any] = {name: file[name] for name in _ARRAYS}
    return Dataset(names=(), paths=paths, picture_ids=(), category_ids=(), **arrays)

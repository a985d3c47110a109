"""The choice of pictures for every batch of a training: the same in every process that makes batches, and after every restart."""

from __future__ import annotations

from math import ceil

import numpy as np

_UNLABELLED = 2  # number that keeps the random order of unlabelled pictures apart from that of labelled ones


class Shuffle:
    """Choice of pictures for each batch of a data set whose first `labelled` pictures have labels and whose other `unlabelled` ones have none.

    An epoch is one pass over the labelled pictures. Of the `batch` places of every batch of all `ranks` processes together, `places` are for
    unlabelled pictures; these come in turns: each of them once before any of them a second time, going on from one epoch to the next. This process is
    number `rank`. `places` is 0 where there are no unlabelled pictures, and leaves at least one labelled picture to every rank.
    """

    def __init__(self, labelled: int, unlabelled: int, places: int, seed: int, batch: int, rank: int, ranks: int) -> None:
        self.arguments = labelled, unlabelled, places, seed, batch, rank, ranks
        self._labelled, self._unlabelled, self._places = labelled, unlabelled, places
        self._seed, self._own, self._rank, self._ranks = seed, batch - places, rank, ranks
        self._epoch = -1  # epoch of the orders that are kept
        self._orders: dict[tuple[int, ...], np.ndarray] = {}

    def __len__(self) -> int:
        """Return the number of batches per epoch, the same for every rank."""
        return ceil(self._labelled / self._own)

    def pictures(self, number: int) -> int:
        """Return the number of pictures of batch `number` of an epoch, of all ranks together; an epoch's last batch may have fewer."""
        return min(self._own, self._labelled - number * self._own) + self._places

    def share(self, epoch: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return this rank's part of batch `number` of `epoch`: picture numbers and turns, int64 `[n]` each, the labelled pictures first.

        A picture's turn is the epoch for a labelled one, and the number of the pass for an unlabelled one; with the seed and the picture's number
        it decides how the picture is augmented. The last batch of an epoch is filled up from the epoch's beginning, so that every rank has a part.
        """
        order = self._order(epoch, self._labelled, (self._seed, epoch))
        start, stop = number * self._own, min((number + 1) * self._own, self._labelled)
        if not self._places:
            each = -(-(stop - start) // self._ranks)
            indices = order.take(np.arange(start + self._rank * each, start + (self._rank + 1) * each), mode="wrap")
            return indices, np.full(len(indices), epoch)
        labelled = order.take(np.arange(start, max(stop, start + self._ranks)), mode="wrap")
        turns, places = np.divmod((epoch * len(self) + number) * self._places + np.arange(self._places), self._unlabelled)
        passes = {int(turn): self._order(epoch, self._unlabelled, (self._seed, int(turn), 0, _UNLABELLED)) for turn in np.unique(turns)}
        others = [self._labelled + int(passes[turn][place]) for turn, place in zip(turns.tolist(), places.tolist(), strict=True)]
        # The ranks take turns, so that each has about the same number of labelled pictures.
        indices = np.concatenate([labelled, np.asarray(others, np.int64)])[self._rank :: self._ranks]
        return indices, np.concatenate([np.full(len(labelled), epoch), turns])[self._rank :: self._ranks]

    def _order(self, epoch: int, count: int, key: tuple[int, ...]) -> np.ndarray:
        """Return the numbers below `count` in the order that the key gives; orders are kept while batches of the same epoch are asked for."""
        if epoch != self._epoch:
            self._epoch, self._orders = epoch, {}
        if key not in self._orders:
            self._orders[key] = np.random.default_rng(key).permutation(count)
        return self._orders[key]

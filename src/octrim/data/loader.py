"""Training batches, made by child processes while the network works on earlier ones.

Every batch depends on (seed, epoch, batch number) alone: not on the process that makes it, their number, or where an epoch is entered.
The processes are started by `crew`. A batch's pictures come back through memory that both sides map, everything else through a pipe.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from subprocess import Popen, TimeoutExpired
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from octrim.data.augment import Augmentation
from octrim.data.crew import child_pipes, end_child, receive, send, start_child
from octrim.data.dataset import Dataset
from octrim.data.samples import Samples, packed, unpacked
from octrim.data.shuffle import Shuffle
from octrim.data.store import Store, anonymous_file, warn
from octrim.errors import InputError

if TYPE_CHECKING:
    from octrim.data.unlabelled import Unlabelled

AHEAD = 2  # batches that a process may be ahead: one is made while one waits
MOST_WORKERS = 8  # most processes by default; the network is the slower side long before that
NICE = 5  # niceness of the processes: the network's threads wait for each other at every layer, and the loader waits for none
_PAGE = 4096


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """A batch of training pictures with their targets.

    images: uint8 RGB `[b, side, side, 3]`. targets: float32 `[n, 6]`: number of the picture in the batch, class, and cx cy w h as shares of the
    side, sorted by picture. indices: int64 `[b]`, the pictures' numbers in the data set, behind whose pictures the unlabelled ones are counted.
    labelled: number of pictures with labels, which come first. failures: lines on pictures that could not be read and were replaced by others; a
    loader gives each line once.
    """

    images: np.ndarray
    targets: np.ndarray
    indices: np.ndarray
    failures: list[str]
    labelled: int


class Loader:
    """Loader of shuffled, augmented batches of a data set; a context manager, which ends its processes.

    side: side of the training pictures in pixels. batch: number of pictures in a batch of all `ranks` training processes together, a multiple of
    `ranks`; this process is number `rank`. workers: number of loader processes; 0 makes batches in this process when they are asked for; None takes
    as many as there are processors for this rank, at most 8. cache: as `Store` takes it. unlabelled: pictures without labels that take some places
    of every batch; an epoch is a pass over the data set all the same. Raises InputError for values out of range.
    """

    def __init__(
        self,
        dataset: Dataset,
        side: int,
        batch: int,
        augmentation: Augmentation,
        seed: int = 0,
        workers: int | None = None,
        cache: str = "auto",
        rank: int = 0,
        ranks: int = 1,
        unlabelled: Unlabelled | None = None,
    ) -> None:
        if not len(dataset):
            raise InputError("the data set has no pictures to train on")
        for name, value, least in (("side", side, 32), ("batch", batch, 1), ("seed", seed, 0), ("ranks", ranks, 1), ("workers", workers or 0, 0)):
            if value < least:
                raise InputError(f"{name} is {value}, expected {least} or more")
        if not 0 <= rank < ranks:
            raise InputError(f"rank is {rank}, expected 0 to {ranks - 1}")
        if batch % ranks:
            raise InputError(f"batch is {batch}, expected a multiple of the {ranks} processes that share it")
        self._side, self._augmentation, self._seed, self._labelled = side, augmentation, seed, len(dataset)
        others, places = (0, 0) if unlabelled is None else (len(unlabelled.dataset), unlabelled.places)
        self._shuffle = Shuffle(len(dataset), others, places, seed, batch, rank, ranks)
        self._dataset = dataset = dataset if unlabelled is None else dataset.with_unlabelled(unlabelled.dataset)
        if workers is None:
            from octrim.machine import usable_cores  # imported here: the children import this file, too, and do not need it

            workers = min(max(usable_cores() // ranks, 1), MOST_WORKERS)
        self._store = Store(dataset, side, cache, ranks)
        self._samples = Samples(dataset, side, augmentation, seed, self._store, self._labelled)
        self._generation = 0  # number of epochs begun or given up: batches made for an earlier one are thrown away
        self._reported: set[str] = set()
        self._warned = self._closed = False
        # On Windows no descriptors can be handed on, so there are no processes. More processes than batches would have nothing to do.
        self._slots = _Slots(min(workers, len(self)) if os.name == "posix" else 0, batch // ranks, side)
        self._workers = [_Worker() for _ in range(self._slots.workers)]

    def __len__(self) -> int:
        """Return the number of batches per epoch, the same for every rank."""
        return len(self._shuffle)

    def pictures_in(self, number: int) -> int:
        """Number of pictures in batch `number` of an epoch, of all ranks together, without those that fill it up to a multiple of the ranks."""
        return self._shuffle.pictures(number)

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes and give up memory. Batches that were handed out stay valid."""
        if not self._closed:
            self._closed = True
            self._generation += 1
            for worker in self._workers:
                worker.end()
            self._slots.close()
            self._store.close()

    def epoch(self, epoch: int, mosaic: bool = True, first: int = 0) -> Iterator[TrainingBatch]:
        """Return an iterator of the batches of an epoch from number `first` on. The processes begin with the first ones at once.

        Every picture with labels comes once, in the order `default_rng((seed, epoch)).permutation(n)`; the last batch may be smaller, and is filled
        up from the order's beginning so that all ranks have a part. Pictures without labels come as `Shuffle` says. mosaic: as `Samples.sample`
        takes it.
        An earlier call's epoch is given up; its iterator then raises RuntimeError. Raises InputError for an `epoch` or `first` out of range,
        and while iterating where a picture and all pictures drawn in its place could not be read.
        """
        if self._closed:
            raise RuntimeError("the loader is closed")
        if epoch < 0 or not 0 <= first <= len(self):
            raise InputError(f"epoch is {epoch} and its first batch {first}, expected 0 or more and 0 to {len(self)}")
        generation = self._begin()
        plan = [self._shuffle.share(epoch, number) for number in range(first, len(self))]
        for number in range(min(AHEAD * len(self._workers), len(plan))):
            self._hand_out(generation, epoch, first, number, mosaic)
        return self._deliver(generation, epoch, first, plan, mosaic)

    def _begin(self) -> int:
        self._generation += 1
        self._slots.generation[0] = self._generation
        for worker in self._workers:
            worker.drain()
        fresh = [worker for worker in self._workers if worker.process is None]
        if fresh:
            settings = {
                "parent": os.getpid(),
                "slots": [self._slots.descriptor, self._slots.workers, self._slots.batch],
                "store": [self._store.mode, self._store.descriptor],
                "side": self._side,
                "seed": self._seed,
                "labelled": self._labelled,
                "shuffle": self._shuffle.arguments,
                "augmentation": asdict(self._augmentation),
            }
            for worker in fresh:
                worker.start([descriptor for descriptor in (self._slots.descriptor, self._store.descriptor) if descriptor >= 0])
            data = packed(self._dataset)
            for worker in fresh:  # only after all have been started, so that they import in parallel
                worker.introduce(json.dumps(settings).encode(), data)
        return self._generation

    def _hand_out(self, generation: int, epoch: int, first: int, number: int, mosaic: bool) -> None:
        """Ask a process for batch `number` after `first`.

        The message gives the batch's number, from which the process derives the pictures, so it is short however large batches are: a process
        that waits for its answer to be taken reads nothing, and the message must find room in the pipe meanwhile.
        """
        slot = number % (AHEAD * len(self._workers))
        job = {"generation": generation, "epoch": epoch, "number": first + number, "mosaic": mosaic, "slot": slot}
        self._workers[number % len(self._workers)].give(json.dumps(job).encode())

    def _deliver(self, generation: int, epoch: int, first: int, plan: list[tuple[np.ndarray, np.ndarray]], mosaic: bool) -> Iterator[TrainingBatch]:
        ahead = AHEAD * len(self._workers)
        try:
            for number, (indices, turns) in enumerate(plan):
                if generation != self._generation:
                    raise RuntimeError("a later epoch was begun, or the loader closed, before this one was at its end")
                batch = self._collect(number, indices) if ahead else None
                if batch is None:
                    images = np.empty((len(indices), self._side, self._side, 3), np.uint8)
                    targets, failures = self._samples.batch(turns.tolist(), indices.tolist(), mosaic, images)
                    batch = TrainingBatch(images, targets, indices, failures, self._with_labels(indices))
                if ahead and number + ahead < len(plan):
                    self._hand_out(generation, epoch, first, number + ahead, mosaic)
                new = [line for line in batch.failures if line not in self._reported]
                self._reported.update(new)
                yield replace(batch, failures=new)
        finally:
            if generation == self._generation and not self._closed:  # the iterator was left early: batches in the making are given up
                self._generation += 1
                self._slots.generation[0] = self._generation

    def _collect(self, number: int, indices: np.ndarray) -> TrainingBatch | None:
        """Return a batch from the process that makes it; None where that process has ended."""
        worker = self._workers[number % len(self._workers)]
        reply = worker.take()
        if reply is None:
            if not self._warned:
                warn(f"a loader process {worker.ended}; until the next epoch its batches are made by the training process")
            self._warned = True
            return None
        head, data = reply
        if head["error"]:
            raise InputError(head["error"])
        images = self._slots.images(number % (AHEAD * len(self._workers)))[: len(indices)].copy()
        targets = np.frombuffer(data, np.float32).reshape(-1, 6).copy()
        return TrainingBatch(images, targets, indices, head["failures"], self._with_labels(indices))

    def _with_labels(self, indices: np.ndarray) -> int:
        return int((indices < self._labelled).sum())


class _Slots:
    """Shared memory for the pictures of batches in the making, AHEAD for each process; before them, the generation that is wanted now."""

    def __init__(self, workers: int, batch: int, side: int, descriptor: int | None = None) -> None:
        self.workers, self.batch, self._side = workers, batch, side
        self._each = -(-batch * side * side * 3 // _PAGE) * _PAGE
        size = _PAGE + AHEAD * workers * self._each
        if descriptor is None:
            descriptor = anonymous_file(size) if workers else -1
        self.descriptor = descriptor
        self._bytes = np.frombuffer(mmap.mmap(self.descriptor, size), np.uint8) if workers else np.zeros(_PAGE, np.uint8)
        self.generation = self._bytes[:8].view(np.int64)

    def images(self, slot: int) -> np.ndarray:
        start = _PAGE + slot * self._each
        return self._bytes[start : start + self.batch * self._side**2 * 3].reshape(self.batch, self._side, self._side, 3)

    def close(self) -> None:
        self._bytes = self.generation = np.zeros(1, np.int64)
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class _Worker:
    """A loader process as the parent sees it. process: None before it is started and once it has failed; ended: how it ended, for a warning."""

    def __init__(self) -> None:
        self.process: Popen[bytes] | None = None
        self.ended = ""
        self._due = 0  # replies that have not been taken yet

    def start(self, descriptors: list[int]) -> None:
        try:
            self.process = start_child(__name__, descriptors)
        except OSError as error:
            self.ended = f"cannot be started ({error.strerror})"

    def introduce(self, *messages: bytes) -> None:
        """Send messages that the process does not reply to."""
        for message in messages:
            self.give(message)
        self._due = 0

    def give(self, message: bytes) -> None:
        with self._guarded():
            if self.process is not None and self.process.stdin is not None:
                send(self.process.stdin, message)
                self._due += 1

    def take(self) -> tuple[dict[str, Any], bytes] | None:
        """Return the next reply, as its head and the bytes of its targets; None where the process has died."""
        with self._guarded():
            if self.process is not None and self.process.stdout is not None:
                self._due -= 1
                head, _, data = receive(self.process.stdout).partition(b"\n")
                return json.loads(head), data
        return None

    def drain(self) -> None:
        """Take all outstanding replies and throw them away, so that they do not fill the pipe. Unwanted batches are answered at once."""
        while self.process is not None and self._due:
            self.take()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError):
            assert self.process is not None
            with contextlib.suppress(TimeoutExpired):
                code = self.process.wait(1)  # a process's pipes close a moment before it has ended
                self.ended = f"was killed by signal {-code}" if code < 0 else f"has ended with status {code}"
            self.end()
        except BaseException:  # Ctrl-C may come within a message, and the process would not understand the next one
            self.end()
            raise

    def end(self) -> None:
        if self.process is not None:
            end_child(self.process)
        self.process, self._due = None, 0


def serve() -> None:
    """Make batches in a child process until the parent closes the pipe or has ended."""
    source, output = child_pipes()
    settings = json.loads(receive(source))
    threading.Thread(target=_end_with, args=(settings["parent"],), daemon=True).start()
    cv2.setNumThreads(1)
    with contextlib.suppress(OSError):
        os.nice(NICE)
    dataset, side = unpacked(receive(source)), settings["side"]
    descriptor, workers, batch = settings["slots"]
    slots = _Slots(workers, batch, side, descriptor)
    shuffle = Shuffle(*settings["shuffle"])
    store = Store.shared(dataset, side, *settings["store"])
    samples = Samples(dataset, side, Augmentation(**settings["augmentation"]), settings["seed"], store, settings["labelled"])
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            job = json.loads(receive(source))
            reply: dict[str, Any] = {"error": "", "failures": []}
            targets = np.empty((0, 6), np.float32)
            wanted = partial(_equal, slots.generation, job["generation"])
            indices, turns = (part.tolist() for part in shuffle.share(job["epoch"], job["number"]))
            try:
                targets, reply["failures"] = samples.batch(turns, indices, job["mosaic"], slots.images(job["slot"]), wanted)
            except InputError as error:
                reply["error"] = str(error)
            send(output, json.dumps(reply).encode() + b"\n" + targets.tobytes())


def _equal(shared: np.ndarray, value: int) -> bool:
    return shared[0] == value


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, even if killed, and even if another process still holds the pipe's other end."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)

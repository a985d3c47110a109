"""The loader: the same batches from any number of processes, all pictures once, and no process left behind."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octrim.data import crew
from octrim.data import loader as loader_module
from octrim.data.augment import Augmentation
from octrim.data.dataset import Dataset
from octrim.data.loader import Loader, TrainingBatch
from octrim.errors import InputError
from tests.data.test_samples import trainable

AUGMENTATION = Augmentation(mixup=0.3, degrees=5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return trainable(tmp_path_factory.mktemp("set"), [(40 + number, 64) for number in range(21)])


def digest(batches: Iterable[TrainingBatch]) -> list[tuple[bytes, bytes, list[int], list[str]]]:
    return [(batch.images.tobytes(), batch.targets.tobytes(), batch.indices.tolist(), batch.failures) for batch in batches]


def loader(dataset: Dataset, batch: int = 4, workers: int = 1, **rest: Any) -> Loader:
    return Loader(dataset, 64, batch, AUGMENTATION, workers=workers, **rest)


def until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether it comes true within what is far more than it takes."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_shapes(dataset: Dataset) -> None:
    with loader(dataset, workers=0) as batches:
        assert len(batches) == 6
        found = list(batches.epoch(0))
    assert [len(batch.images) for batch in found] == [4, 4, 4, 4, 4, 1]
    assert sorted(np.concatenate([batch.indices for batch in found]).tolist()) == list(range(21))
    assert np.concatenate([batch.indices for batch in found]).tolist() == np.random.default_rng((0, 0)).permutation(21).tolist()
    for batch in found:
        assert batch.images.dtype == np.uint8
        assert batch.images.shape[1:] == (64, 64, 3)
        assert batch.targets.dtype == np.float32
        assert batch.targets.shape[1] == 6
        assert set(batch.targets[:, 0].tolist()) <= set(range(len(batch.images)))
        assert (np.diff(batch.targets[:, 0]) >= 0).all()
        assert (batch.targets[:, 2:] >= 0).all()
        assert (batch.targets[:, 2:] <= 1).all()


@pytest.mark.slow
def test_any_number_of_workers_and_any_cache_give_the_same(dataset: Dataset) -> None:
    expected = None
    for workers, cache in ((0, "none"), (1, "ram"), (2, "disk"), (3, "none"), (2, "ram"), (2, "disk")):
        with loader(dataset, workers=workers, cache=cache, seed=5) as batches:
            found = [digest(batches.epoch(0)), digest(batches.epoch(1, mosaic=False)), digest(batches.epoch(7))]
        expected = expected or found
        assert found == expected, (workers, cache)
        assert found[0] != found[2]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_is_entered_anywhere(dataset: Dataset, workers: int) -> None:
    with loader(dataset, workers=workers) as batches:
        whole = digest(batches.epoch(3))
        for first in (0, 1, 4, 5, 6):
            assert digest(batches.epoch(3, first=first)) == whole[first:]
        for first in (-1, 7):
            with pytest.raises(InputError, match=f"its first batch {first}, expected 0 or more and 0 to 6"):
                batches.epoch(3, first=first)
        with pytest.raises(InputError, match="epoch is -1"):
            batches.epoch(-1)


@pytest.mark.parametrize(("batch", "ranks"), [(4, 1), (4, 2), (6, 3), (8, 4), (20, 20), (64, 32)])
def test_ranks_share_every_batch(dataset: Dataset, batch: int, ranks: int) -> None:
    loaders = [loader(dataset, batch, 0, rank=rank, ranks=ranks) for rank in range(ranks)]
    order = np.random.default_rng((0, 2)).permutation(21).tolist()
    shares = [[found._shuffle.share(2, number)[0].tolist() for number in range(len(found))] for found in loaders]
    for number in range(len(loaders[0])):
        parts = [share[number] for share in shares]
        assert len({len(part) for part in parts}) == 1
        assert len(parts[0]) >= 1
        joined = [index for part in parts for index in part]
        rest = order[number * batch : (number + 1) * batch]
        assert joined[: len(rest)] == rest
        assert joined[len(rest) :] == (order * 3)[: len(joined) - len(rest)]
        assert len(joined) - len(rest) < ranks
    for found in loaders:
        found.close()


def test_ranks_deliver_their_share(dataset: Dataset) -> None:
    with loader(dataset, 4, 0) as whole, loader(dataset, 4, 1, rank=1, ranks=2) as half:
        for all_of_it, part in zip(whole.epoch(1), half.epoch(1), strict=True):
            if len(all_of_it.indices) == 4:
                assert part.indices.tolist() == all_of_it.indices[2:].tolist()
                np.testing.assert_array_equal(part.images, all_of_it.images[2:])


def test_values_that_make_no_sense(dataset: Dataset) -> None:
    for message, values in (
        ("batch is 0, expected 1 or more", {"batch": 0}),
        ("batch is 5, expected a multiple of the 2", {"batch": 5, "ranks": 2}),
        ("rank is 2, expected 0 to 1", {"rank": 2, "ranks": 2}),
        ("workers is -1", {"workers": -1}),
        ("seed is -1", {"seed": -1}),
        ("cache is 'disc'", {"cache": "disc"}),
    ):
        with pytest.raises(InputError, match=message):
            loader(dataset, **values)
    with pytest.raises(InputError, match="side is 8"):
        Loader(dataset, 8, 4, AUGMENTATION)
    empty = dataclasses.replace(dataset, paths=(), sizes=dataset.sizes[:0])
    with pytest.raises(InputError, match="no pictures to train on"):
        loader(empty)


@pytest.mark.slow
def test_an_epoch_left_early(dataset: Dataset) -> None:
    with loader(dataset, workers=2) as batches:
        expected = digest(batches.epoch(1))
        for _ in batches.epoch(0):
            break
        assert digest(batches.epoch(1)) == expected
        for number in range(2000):  # begun and forgotten; as many replies would not fit into a pipe
            batches.epoch(number)
        earlier = batches.epoch(0)
        next(earlier)
        assert digest(batches.epoch(1)) == expected
        with pytest.raises(RuntimeError, match="a later epoch was begun"):
            next(earlier)
        assert digest(batches.epoch(1)) == expected
        open_one = batches.epoch(1)
        kept = next(open_one)
        processes = [worker.process.pid for worker in batches._workers if worker.process]
    assert len(processes) == 2
    assert not any(map(alive, processes))
    assert kept.images.tobytes() == expected[0][0]
    with pytest.raises(RuntimeError, match="or the loader closed"):
        next(open_one)
    with pytest.raises(RuntimeError, match="the loader is closed"):
        batches.epoch(0)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux changes the size of a pipe")
def test_batches_of_thousands_do_not_wait_for_each_other(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the parent waited for room to ask for a batch, and the process for somebody to take the one before.

    The pipe is as small as it can be, as on a system that lacks memory for more; what is asked for then fills it with 5,000 pictures.
    """
    import fcntl

    start = loader_module.start_child

    def start_with_small_pipes(module: str, keep: Sequence[int]) -> subprocess.Popen[bytes]:
        child = start(module, keep)
        for pipe in (child.stdin, child.stdout):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
        return child

    monkeypatch.setattr(loader_module, "start_child", start_with_small_pipes)
    many = dataset.subset([number % len(dataset) for number in range(10_000)])
    counts: list[int] = []

    def work() -> None:
        with Loader(many, 32, 5000, Augmentation(), workers=1) as batches:
            counts.extend(len(batch.images) for batch in batches.epoch(0, mosaic=False))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(120)  # forever, where they wait for each other
    assert counts == [5000] * 2


def test_batches_are_the_callers(dataset: Dataset) -> None:
    """They do not change while later ones are made, and may be written to."""
    with loader(dataset, workers=1) as batches:
        expected = digest(batches.epoch(0))
        found = list(batches.epoch(0))
        assert digest(found) == expected
        found[0].images[:] = 0
        found[0].targets[:] = 0
        assert digest(found)[1:] == expected[1:]


@pytest.mark.slow
def test_pictures_that_are_gone(tmp_path: Path) -> None:
    dataset = trainable(tmp_path, [(64, 64)] * 12)
    for number in (3, 7):
        Path(dataset.paths[number]).unlink()
    expected = None
    for workers in (0, 2):
        with loader(dataset, workers=workers) as batches:
            found = digest(batches.epoch(0))
            lines = [line for *_, failures in found for line in failures]
            assert sorted(lines) == [f"{dataset.paths[number]}: No such file or directory" for number in (3, 7)]
            assert all(not batch.failures for batch in batches.epoch(1))  # told once
        expected = expected or found
        assert found == expected
    for path in dataset.paths:
        Path(path).unlink(missing_ok=True)
    for workers in (0, 2):
        with loader(dataset, workers=workers) as batches, pytest.raises(InputError, match="No such file"):
            list(batches.epoch(0))


@pytest.mark.slow
def test_a_process_that_is_killed(dataset: Dataset, capfd: pytest.CaptureFixture[str]) -> None:
    with loader(dataset, workers=0) as batches:
        expected = digest(batches.epoch(0))
    with loader(dataset, workers=2) as batches:
        iterator = batches.epoch(0)
        found = digest([next(iterator)])
        process = batches._workers[1].process
        assert process is not None
        process.kill()
        found += digest(iterator)
        assert found == expected
        assert capfd.readouterr().err == (
            "octrim: warning: a loader process was killed by signal 9; until the next epoch its batches are made by the training process\n"
        )
        assert batches._workers[1].process is None
        assert digest(batches.epoch(0)) == expected
        assert batches._workers[1].process is not None
        for worker in batches._workers:
            assert worker.process is not None
            worker.process.kill()
        assert digest(batches.epoch(0)) == expected
    assert capfd.readouterr().err == ""  # one warning is enough


@pytest.mark.parametrize("executable", ["/bin/false", "/none"])
def test_processes_that_cannot_be_started(
    dataset: Dataset, executable: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crew.sys, "executable", executable)
    with loader(dataset, workers=2) as batches:
        assert sorted(index for batch in batches.epoch(0) for index in batch.indices.tolist()) == list(range(21))
    assert capfd.readouterr().err.count("\n") == 1


PARENT = """
import signal, sys, time
from pathlib import Path
from octrim.data.augment import Augmentation
from octrim.data.loader import Loader
from octrim.data.open import open_dataset

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background of a shell
    loader = Loader(open_dataset(sys.argv[1], "train"), 64, 4, Augmentation(), workers=2, cache="ram")
    iterator = loader.epoch(0)
    next(iterator)
    try:
        print(*[worker.process.pid for worker in loader._workers], flush=True)
        if sys.argv[2] == "busy":
            for number in range(1, 10**6):
                list(loader.epoch(number))
        time.sleep(600)
    except KeyboardInterrupt:
        print(len(list(iterator)), flush=True)
"""


def start_parent(tmp_path: Path, what: str) -> tuple[subprocess.Popen[str], list[int]]:
    trainable(tmp_path / "images" / "train", [(64, 64)] * 12)
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "000.txt").write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "parent.py").write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, str(tmp_path / "parent.py"), str(tmp_path), what]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    parent = subprocess.Popen(command, env=environment, cwd=tmp_path, start_new_session=True, **pipes)
    assert parent.stdout is not None
    children = [int(word) for word in parent.stdout.readline().split()]
    assert len(children) == 2
    assert all(map(alive, children))
    return parent, children


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked at in /proc")
@pytest.mark.parametrize(("what", "number"), [("busy", signal.SIGKILL), ("idle", signal.SIGKILL), ("busy", signal.SIGTERM)])
def test_no_process_outlives_its_parent(tmp_path: Path, what: str, number: signal.Signals) -> None:
    parent, children = start_parent(tmp_path, what)
    with parent:
        parent.send_signal(number)
        parent.wait()
    assert until(lambda: not any(map(alive, children)), 3)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked at in /proc")
def test_not_even_where_another_process_holds_the_pipe(tmp_path: Path) -> None:
    """Whatever the user's program has started may have inherited everything."""
    parent, children = start_parent(tmp_path, "idle")
    holders = [os.open(f"/proc/{child}/fd/0", os.O_WRONLY) for child in children]  # a pipe is opened from either side
    with parent:
        parent.kill()
    assert until(lambda: not any(map(alive, children)), 3)
    for holder in holders:
        os.close(holder)


@pytest.mark.slow
def test_ctrl_c_is_the_parents(tmp_path: Path) -> None:
    """The terminal sends it to the parent's whole process group, of which the children are none; they go on until they are told."""
    parent, children = start_parent(tmp_path, "idle")
    with parent:
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.communicate() == ("2\n", "")  # the epoch's other batches, made by the children
        assert parent.returncode == 0
    assert until(lambda: not any(map(alive, children)), 3)


@pytest.mark.slow
def test_memory_is_flat(dataset: Dataset) -> None:
    def used() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc")
    with loader(dataset, workers=1) as batches:
        for number in range(20):
            list(batches.epoch(number))
        before, descriptors = used(), len(list(Path("/proc/self/fd").iterdir()))
        for number in range(60):
            list(batches.epoch(number))
        assert used() - before < 500  # pages; an epoch's pictures are 63
        assert len(list(Path("/proc/self/fd").iterdir())) == descriptors

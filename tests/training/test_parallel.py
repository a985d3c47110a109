"""Two processes against one that does the work of both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octrim.backends.paddle import PaddleNetwork, paddle
from octrim.cli import main
from octrim.data.loader import Loader
from octrim.data.open import open_dataset
from octrim.data.pictures import network_input, read_picture
from octrim.network.loading import load
from octrim.pruning.plan import plan
from octrim.pruning.spectra import by_variance, held_variance
from octrim.targets.session import float_batch
from octrim.training.checkpoint import CHECKPOINT, State, load_state
from octrim.training.cutting import Cutting, GradualCut
from octrim.training.finetune import counted_by_the_first
from octrim.training.hyper import Hyperparameters
from octrim.training.learner import Learner
from octrim.training.loss import DetectionLoss
from octrim.training.maps import cut_pictures
from octrim.training.optimizer import MovingAverage, Optimizer, Weights
from octrim.training.options import Finetuning
from octrim.training.parallel import World
from octrim.training.schedule import Schedule, averaging
from tests.training.conftest import COUNTS, draw_shapes

pytestmark = pytest.mark.usefixtures("unrendered")

EPOCHS, BATCH, SIDE = 2, 8, 64
ACCUMULATE = 4
"""Batches per optimizer step, of 6 batches in all: the second step is incomplete."""


def command(shapes: Path, weights: Path, project: Path) -> list[str]:
    recipe = project / "recipe.yaml"
    recipe.write_text("warmup_epochs: 0\n")
    names = ["--weights", str(weights), "--data", str(shapes), "--project", str(project), "--name", "run", "--imgsz", str(SIDE), "--noval"]
    sizes = ["--epochs", str(EPOCHS), "--batch", str(BATCH), "--nominal-batch", str(BATCH * ACCUMULATE), "--hyp", str(recipe)]
    return ["train", *names, *sizes, "--workers", "0", "--no-autoanchor"]


def by_hand(shapes: Path, weights: Path, kind: str = "SGD") -> tuple[np.ndarray, np.ndarray]:
    """Parameters and statistics, and their average, after training with every batch in two halves: gradients added, statistics averaged at steps."""
    model, hyper = load(weights), Hyperparameters(warmup_epochs=0.0)
    dataset = open_dataset(shapes, "train")
    network = PaddleNetwork(model)
    network.train()
    flat, loss = Weights(network), DetectionLoss(model.network, hyper, SIDE)
    optimizer = Optimizer.create(flat, kind, 0.0005)
    loaders = [Loader(dataset, SIDE, BATCH, hyper.augmentation, 0, 0, "none", rank, 2) for rank in range(2)]
    schedule = Schedule(hyper, EPOCHS, len(loaders[0]), ACCUMULATE)
    average = MovingAverage(flat.values(), averaging(schedule.updates))
    statistics, gradient, batches = [flat.statistics.values()] * 2, 0.0, 0
    for epoch in range(EPOCHS):
        for number, halves in enumerate(zip(*(loader.epoch(epoch) for loader in loaders), strict=True)):
            for rank, half in enumerate(halves):
                flat.statistics.assign(statistics[rank])
                loss(network(paddle.to_tensor(float_batch(half.images))), half.targets).total.backward()
                gradient = gradient + flat.parameters.gradient()
                statistics[rank] = flat.statistics.values()
            batches += 1
            if batches in (ACCUMULATE, EPOCHS * len(loaders[0])):
                optimizer.step(gradient, schedule.at(epoch, number))
                flat.statistics.assign((statistics[0] + statistics[1]) / 2)
                average.update(flat.values())
                gradient = 0.0
            if batches == ACCUMULATE or number == len(loaders[0]) - 1:
                statistics = [(statistics[0] + statistics[1]) / 2] * 2
    return flat.values().numpy(), average.values.numpy()


@pytest.fixture(scope="module")
def halves(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """What `by_hand` finds on a data set like that of the fixture `shapes`."""
    return by_hand(draw_shapes(tmp_path_factory.mktemp("halves"), COUNTS), tiny_weights)


@pytest.mark.slow
def test_two_processes_equal_two_halves(shapes: Path, tiny_weights: Path, tmp_path: Path, halves: tuple[np.ndarray, np.ndarray]) -> None:
    # Through the command line, in a process of its own: this one's Paddle must not be part of a group.
    done = subprocess.run([sys.executable, "-m", "octrim", *command(shapes, tiny_weights, tmp_path), "--devices", "2"], check=False)
    assert done.returncode == 0
    state = load_state(tmp_path / "run" / CHECKPOINT)
    values, average = halves
    np.testing.assert_allclose(state.arrays["values"], values, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(state.arrays["average"], average, rtol=1e-5, atol=1e-5)

    assert len(state.rows) == EPOCHS


@pytest.mark.slow
def test_two_processes_take_the_same_steps_of_muon(shapes: Path, tiny_weights: Path, tmp_path: Path) -> None:
    """Each process orthogonalises by itself what both have added up, and nothing of the result is sent."""
    values, average = by_hand(draw_shapes(tmp_path / "halves", COUNTS), tiny_weights, "Muon")
    arguments = [*command(shapes, tiny_weights, tmp_path), "--optimizer", "Muon", "--devices", "2"]
    assert subprocess.run([sys.executable, "-m", "octrim", *arguments], check=False).returncode == 0
    state = load_state(tmp_path / "run" / CHECKPOINT)
    np.testing.assert_allclose(state.arrays["values"], values, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(state.arrays["average"], average, rtol=1e-5, atol=1e-5)


def cut_by_hand(shapes: Path, weights: Path, wanted: GradualCut) -> State:
    """The state after a training whose steps are batches in two halves: gradients added, statistics averaged, then channels cut."""
    model, hyper = load(weights), Hyperparameters(warmup_epochs=0.0)
    dataset = open_dataset(shapes, "train")
    learner = Learner(model, Finetuning(batch=BATCH, nominal_batch=BATCH), hyper, World(), scored=wanted.criterion == "taylor")
    state = State(model.network, model.names, SIDE, (), "digest", {})
    wanted.begin(model, state)
    loss = DetectionLoss(model.network, hyper, SIDE)
    loaders = [Loader(dataset, SIDE, BATCH, hyper.augmentation, 0, 0, "none", rank, 2) for rank in range(2)]
    schedule = Schedule(hyper, EPOCHS, len(loaders[0]), 1)
    learner.begin(state, averaging(schedule.updates))
    cutting = Cutting(wanted, state, schedule, cut_pictures(dataset, SIDE, hyper.augmentation, 0, EPOCHS))
    for epoch in range(EPOCHS):
        state.epoch, state.batch = epoch, 0
        for number, halves in enumerate(zip(*(loader.epoch(epoch) for loader in loaders), strict=True)):
            before, after = learner.weights.statistics.values(), []
            for half in halves:
                learner.weights.statistics.assign(before)
                learner.add(loss(learner.network(paddle.to_tensor(float_batch(half.images))), half.targets).total)
                after.append(learner.weights.statistics.values())
            learner.weights.statistics.assign((after[0] + after[1]) / 2)
            learner.step(schedule.at(epoch, number))
            learner.follow()
            state.batch += 1
            if cutting.due(state, learner.optimizer.steps):
                cutting.cut(state, learner)
    return learner.snapshot(state)


@pytest.mark.slow
@pytest.mark.parametrize("criterion", ["taylor", "signal"])
def test_two_processes_cut_as_one(shapes: Path, tiny_weights: Path, tmp_path: Path, criterion: str) -> None:
    goal = ["--keep", "1/2", "--align", "2", "--cut-epochs", "1", "--criterion", criterion, "--nominal-batch", str(BATCH)]
    arguments = ["finetune", *command(shapes, tiny_weights, tmp_path)[1:], *goal]
    done = subprocess.run([sys.executable, "-m", "octrim", *arguments, "--devices", "2"], check=False)
    assert done.returncode == 0
    found = load_state(tmp_path / "run" / CHECKPOINT)
    wanted = cut_by_hand(shapes, tiny_weights, GradualCut(1, "1/2", 2, criterion=criterion))
    assert found.extra["cutting"]["kept"] == wanted.extra["cutting"]["kept"]
    assert found.network == wanted.network != load(tiny_weights).network
    for name, array in wanted.arrays.items():
        np.testing.assert_allclose(found.arrays[name], array, rtol=1e-4, atol=1e-4, err_msg=name)


@dataclass(frozen=True, eq=False)
class Second(World):
    """The second of two processes. gathered: what the first one gathers."""

    rank: int = 1
    size: int = 2
    gathered: Any = None

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        return [self.gathered, array]


def test_the_shape_is_the_one_that_the_first_process_plans(tiny_weights: Path) -> None:
    """Sums may differ in the last bits between machines, and processes that cut to different shapes could not train together."""
    first, own = (plan(load(tiny_weights), keep, 2, "l2") for keep in ("1/2", "1/4"))
    counts = np.array([[group.after] for group in first.groups], np.float32)
    assert counted_by_the_first(own, Second(gathered=counts)).keep_map() == first.keep_map() != own.keep_map()
    assert counted_by_the_first(own, World()).keep_map() == own.keep_map()


@pytest.mark.slow
def test_two_processes_cut_to_a_shape_that_the_variance_of_maps_plans(shapes: Path, tiny_weights: Path, tmp_path: Path) -> None:
    whole = load(tiny_weights)
    more = ["--align", "2", "--cut-epochs", "1", "--widths", "variance", "--keep", "1/2", "--epochs", "1"]
    arguments = ["finetune", *command(shapes, tiny_weights, tmp_path)[1:], *more]
    done = subprocess.run([sys.executable, "-m", "octrim", *arguments, "--devices", "2"], check=False)
    assert done.returncode == 0
    pictures = [network_input(read_picture(path), SIDE, SIDE)[0] for path in open_dataset(shapes, "train").paths]
    uniform = plan(whole, "1/2", 8, nearest=True, image_size=(SIDE, SIDE)).macs_budget(whole.network)
    criterion = by_variance("signal", held_variance(whole, pictures))
    made = plan(whole, None, 2, criterion, budget=uniform, nearest=True, image_size=(SIDE, SIDE))
    assert load(tmp_path / "run/last.safetensors").network == made.network


@pytest.mark.slow
def test_paddles_own_launcher(shapes: Path, tiny_weights: Path, tmp_path: Path, halves: tuple[np.ndarray, np.ndarray]) -> None:
    """As several machines are started: the same result as --devices."""
    script = Path(sys.executable).parent / "octrim"
    launcher = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--backend", "gloo", "--log_dir", str(tmp_path / "log")]
    done = subprocess.run([*launcher, str(script), *command(shapes, tiny_weights, tmp_path)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    state = load_state(tmp_path / "run" / CHECKPOINT)
    np.testing.assert_allclose(state.arrays["values"], halves[0], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_bad_input_is_told_once_and_ends_all(shapes: Path, tiny_weights: Path, tmp_path: Path) -> None:
    arguments = [*command(shapes, tiny_weights, tmp_path), "--devices", "2", "--hyp", "nothing"]
    done = subprocess.run([sys.executable, "-m", "octrim", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("hyp is 'nothing'") == 1 and done.stderr.count("\n") == 1


def started(arguments: list[str], log: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A training of 200 epochs in its second one, and the numbers of its two processes."""
    process = subprocess.Popen([sys.executable, "-m", "octrim", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (log.is_file() and "2/200" in log.read_text()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    group = [int(pid) for pid in subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout.split()]
    assert len(group) == 2
    return process, group


@pytest.mark.slow
def test_stopping_two_processes_keeps_what_they_did(shapes: Path, tiny_weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = [*command(shapes, tiny_weights, tmp_path), "--devices", "2"]
    arguments[arguments.index("--epochs") + 1] = "200"
    process, group = started(arguments, tmp_path / "run" / "log.txt")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    state = load_state(tmp_path / "run" / CHECKPOINT)
    assert state.epoch >= 1 and state.waiting == 0
    for pid in group:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    # It goes on, in one process too.
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 200", f"epochs: {state.epoch + 1}"))
    assert "devices: 2" in config.read_text()
    assert main(["train", "--resume", str(tmp_path / "run"), "--devices", "1"]) == 0


@pytest.mark.slow
def test_patience_and_waits_longer_than_gloos(shapes: Path, tiny_weights: Path, tmp_path: Path) -> None:
    """Process 0 evaluates for 35 s, where gloo gives up after 30; and only it knows which epoch is the best."""
    slow = tmp_path / "sitecustomize.py"
    slow.write_text(
        "import os, time\n"
        "if os.environ.get('PADDLE_TRAINER_ID') == '0':\n"
        "    import octrim.evaluate.evaluation as val\n"
        "    measure, calls = val.measure, []\n"
        "    def slowly(*args, **more):\n"
        "        calls.append(1)\n"
        "        time.sleep(35 if len(calls) == 1 else 0)\n"
        "        return measure(*args, **more)\n"
        "    val.measure = slowly\n"
    )
    arguments = [word for word in command(shapes, tiny_weights, tmp_path) if word != "--noval"]
    arguments[arguments.index("--epochs") + 1] = "5"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "octrim", *arguments, "--devices", "2", "--patience", "4"],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    state = load_state(tmp_path / "run" / CHECKPOINT)
    assert len(state.rows) == min(5, state.best[1] + 1 + 4)


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_others(shapes: Path, tiny_weights: Path, tmp_path: Path) -> None:
    arguments = [*command(shapes, tiny_weights, tmp_path), "--devices", "2"]
    arguments[arguments.index("--epochs") + 1] = "200"
    process, group = started(arguments, tmp_path / "run" / "log.txt")
    os.kill(max(group), signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in error
    assert "ended by signal 9" in error
    assert load_state(tmp_path / "run" / CHECKPOINT).epoch >= 1

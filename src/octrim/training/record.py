"""Files and display of a training: checkpoint, weights, results.csv, pictures, progress."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Sequence
from math import inf
from pathlib import Path
from statistics import median
from time import monotonic
from types import TracebackType
from typing import Any

from octrim.atomic import append_text, write_text
from octrim.data.dataset import Dataset
from octrim.data.loader import TrainingBatch
from octrim.data.pictures import read_picture
from octrim.errors import InputError
from octrim.evaluate.evaluation import Evaluation
from octrim.progress import WORK_AHEAD, Bar, progress_bar, remaining
from octrim.runs import Run, typed
from octrim.training.checkpoint import BEST, CHECKPOINT, LAST, State, save_state
from octrim.training.options import Training
from octrim.training.pictures import MOST_PICTURES, save_batch, save_curves, save_predictions, save_scales

COLUMNS = (
    *("epoch", "train/box_loss", "train/obj_loss", "train/cls_loss"),
    *("metrics/precision", "metrics/recall", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95"),
    *("val/box_loss", "val/obj_loss", "val/cls_loss", "x/lr0", "x/lr1", "x/lr2"),
)
"""Columns of results.csv, as YOLOv5 names them. lr0 is the learning rate of the biases."""

PREDICTIONS = "val_predictions.jpg"
"""Picture of labels and detections, side by side, in the folder of a training."""

_SHOWN_BATCHES = 3
_REDRAWN_AFTER = 20.0
"""Least number of seconds between two drawings of the curves: one takes half a second, which is as long as an epoch on a few pictures."""

_LOOKED_AFTER = 60.0
"""Seconds from the start of a training, and between two times, after which what the network finds is drawn."""

_TOLD_FROM = 60.0
"""Least number of seconds of remaining work that is told of."""

_FILES = (
    "times.csv",
    "results.csv",
    "results.png",
    "scales.png",
    BEST,
    LAST,
    "metrics.json",
    "curves.json",
    "predictions.json",
    PREDICTIONS,
    "plan.json",
    "plan.txt",
    "channels.png",
)


class Record:
    """Context manager that writes the files and the display of one run; it does nothing in all processes but the first (`run` is None there)."""

    def __init__(self, run: Run | None, config: Training, val_set: Dataset | None) -> None:
        self.run, self.config, self.val_set = run, config, val_set
        self.action = config.command
        self.events = _events(run.path) if run is not None and config.tensorboard else None
        self._shown = contextlib.ExitStack()
        self._bar: Bar | None = None
        self._headed = False
        self._drawn = -inf
        self._undrawn: State | None = None
        self._paces: list[float] = []
        self._looked, self._invited = monotonic(), False

    def __enter__(self) -> Record:
        if self.run is not None:
            self._bar = self._shown.enter_context(progress_bar("", 1, self.run.console))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._shown.close()
        try:
            if self._undrawn is not None:
                # After an error of the training, an error in drawing must not take its place.
                with contextlib.nullcontext() if error is None else contextlib.suppress(OSError, InputError):
                    self._draw(self._undrawn)
        finally:
            if self.events is not None:
                self.events.close()

    def print(self, *items: Any) -> None:
        if self.run is not None:
            self.run.print(*items)

    def begin(self, state: State) -> None:
        """Remove the files of an earlier run in the same folder and write the first checkpoint, before the first step."""
        if self.run is not None:
            for name in _FILES:
                (self.run.path / name).unlink(missing_ok=True)
        self.save(state)

    def start_epoch(self, batches: int, state: State) -> None:
        if not self._headed:
            self._headed = True
            names = ("box_loss", "obj_loss", "cls_loss", "output", "feature")[: len(state.losses)]
            self.print(f"{'epoch':>9} {'memory':>8} {' '.join(f'{name:>9}' for name in names)} {'labels':>7} {'size':>5}")
        if self._bar is not None:
            self._bar.restart(batches, state.batch)

    def batch(self, epoch: int, batch: TrainingBatch, side: int, state: State) -> None:
        if self.run is None:
            return
        for line in batch.failures:
            self.print(f"left out: {line}")
        if epoch == 0 and state.batch <= _SHOWN_BATCHES:
            save_batch(batch.images, batch.targets, state.names, self.run.path / f"train_batch{state.batch - 1}.jpg")
        if self._bar is not None:
            self._bar.advance(title=self._line(epoch, state.losses, state.batch, state.labels, side))

    def _line(self, epoch: int, losses: Sequence[float], batches: int, labels: int, side: int) -> str:
        means = " ".join(f"{loss / max(batches, 1):9.5f}" for loss in losses)
        return f"{epoch + 1:>4}/{self.config.epochs:<4} {_memory():>8} {means} {labels:>7} {side:>5}"

    def interrupt(self, state: State) -> None:
        self.save(state)
        if self.run is not None:
            self.print(f"stopped in epoch {state.epoch + 1}, batch {state.batch}; go on with: {typed(self.action, '--resume', self.run.path)}")

    def end_epoch(self, state: State, evaluation: Evaluation | None, labels: int, pictures: int, seconds: tuple[float, float]) -> None:
        """Write the files and lines of an epoch: the checkpoint first, because everything else can be made from it."""
        if self.run is None:
            return
        self.save(state)
        self.write_results(state)
        row, epoch = state.rows[-1], state.epoch - 1
        losses = [value for name, value in row.items() if name.startswith("train/")]
        line = self._line(epoch, losses, 1, labels, state.image_size)
        if evaluation is not None:
            line += f"   P {evaluation.precision:.3f} R {evaluation.recall:.3f} mAP50 {evaluation.map50:.4f} mAP50-95 {evaluation.map:.4f}"
            for failure in evaluation.failures:
                self.print(f"not evaluated: {failure}")
        if "sparsity/dead" in row:
            line += f"   dead {row['sparsity/dead']:.1%}"
        if "sparsity/strength" in row:
            line += f" strength {row['sparsity/strength']:.3g}"
        if "cut/channels" in row:
            line += f"   channels {row['cut/channels']:.1%}"
        latest = self.config.noval or "sparsity/dead" in row  # then every epoch counts as the best so far
        best = " best" if state.best[1] == epoch and not latest else ""
        self._paces.append(sum(seconds))
        self.print(f"{line}   {seconds[0]:.1f} + {seconds[1]:.1f} s{best}{self._remaining(state.epoch)}")
        self._look(evaluation)
        head = "" if (self.run.path / "times.csv").exists() else "epoch,train_s,val_s,images_per_s\n"
        append_text(self.run.path / "times.csv", f"{head}{epoch},{seconds[0]:.3f},{seconds[1]:.3f},{pictures / max(seconds[0], 1e-9):.2f}\n")
        if self.events is not None:
            for name, value in row.items():
                if name != "epoch":
                    self.events.add_scalar(name, value, epoch)

    def _remaining(self, epochs: int) -> str:
        """Text about the time that is left when `epochs` epochs are done: of this training, and of what follows it in a longer job. The first epoch
        of a process compiles, so the median of the latest few counts."""
        pace = median(self._paces[-5:])
        left = pace * (self.config.epochs - epochs) + WORK_AHEAD.get()(pace)
        return f"   about {remaining(left)} to go" if left >= _TOLD_FROM else ""

    def _look(self, evaluation: Evaluation | None) -> None:
        """Draw what the network finds so far, once a minute, so that there is something to look at long before the end."""
        if evaluation is None or monotonic() - self._looked < _LOOKED_AFTER:
            return
        self.show_predictions(evaluation)
        self._looked = monotonic()
        if not self._invited and self.run is not None:
            self._invited = True
            self.print(f"what it finds so far, drawn anew every minute: {self.run.path / PREDICTIONS}")

    def write_results(self, state: State) -> None:
        """Write what follows from a state: results.csv, and the averaged weights as last, and as best where this epoch is the best.

        In the middle of an epoch, where a run may be resumed, weights are not written, because the average belongs to no epoch.
        """
        if self.run is None or not state.rows:
            return
        folder, epoch = self.run.path, state.epoch - 1
        write_text(folder / "results.csv", results_csv(state.rows))
        self._undrawn = state
        if monotonic() - self._drawn > _REDRAWN_AFTER:
            self._draw(state)
        if state.batch:
            return
        config = self.config
        # The lineage names no full paths, because the weights may be given away.
        action = {"action": self.action, "data": _place(config.data), "epoch": epoch + 1, "epochs": config.epochs, "hyp": Path(config.hyp).name}
        action |= {"seed": config.seed}
        if "unlabelled" in state.extra:
            action["unlabelled"] = "{pictures} pictures in {places} of {batch} places of a batch, digest {digest}".format(**state.extra["unlabelled"])
        model = state.averaged(action)
        model.save(folder / LAST)
        if state.best[1] == epoch:
            model.save(folder / BEST)

    def _draw(self, state: State) -> None:
        """Draw the curves, and the scales of sparsity training. `__exit__` calls this again where the last state was not drawn."""
        assert self.run is not None
        folder = self.run.path
        save_curves(folder / "results.csv", folder / "results.png")
        if "scales" in state.extra:
            dead = [row["sparsity/dead"] for row in state.rows]
            save_scales(state.extra["scales"]["counts"], state.extra["scales"]["top"], dead, folder / "scales.png")
        self._drawn, self._undrawn = monotonic(), None

    def show_predictions(self, evaluation: Evaluation) -> None:
        """Write a picture with labels and detections of the first readable validation pictures, side by side."""
        if self.run is None or self.val_set is None:
            return
        shown, pictures = [], []
        for index in range(len(self.val_set)):
            if len(shown) == MOST_PICTURES:
                break
            with contextlib.suppress(InputError):  # the evaluation has told of unreadable pictures
                pictures.append(read_picture(self.val_set.paths[index]))
                shown.append(index)
        truths = [self.val_set.targets(index)[:2] for index in shown]
        detections = [evaluation.detections[index] for index in shown]
        save_predictions(pictures, detections, truths, self.val_set.names, self.run.path / PREDICTIONS)

    def save(self, state: State) -> None:
        if self.run is not None:
            save_state(state, self.run.path / CHECKPOINT)


def _place(data: str | None) -> str | None:
    """A data set's name for people: the last two parts of its path."""
    return data and "/".join(Path(data).parts[-2:])


def results_csv(rows: Sequence[dict[str, float]]) -> str:
    """The text of results.csv; an epoch that was not evaluated leaves its columns empty."""
    names = [*COLUMNS, *sorted({key for row in rows for key in row} - set(COLUMNS))]  # a resumed run's rows have their keys in another order
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([row["epoch"], *(f"{row[name]:.6g}" if name in row else "" for name in names[1:])])
    return text.getvalue()


def _memory() -> str:
    """Memory in GiB for the log: of the GPU where Paddle uses one, else of the process now or, where the system does not tell it, at its peak."""
    from octrim.backends.paddle import paddle

    if paddle.device.get_device().startswith("gpu"):
        return f"{paddle.device.cuda.max_memory_reserved() / 2**30:.3g}G"
    status = Path("/proc/self/statm")
    if status.is_file():
        return f"{int(status.read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**30:.3g}G"
    try:
        import resource
    except ImportError:  # Windows has no module `resource`
        return ""
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.3g}G"


def _events(folder: Path) -> Any:
    from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]

    return SummaryWriter(str(folder))

"""What makes a network smaller while it trains: a sparsity penalty that drives channels to zero, cuts that take channels away, or neither.

The loop in `fit` tells when a step is done; what is shrunk, how and when, is decided in `sparsity`, `dying` and `cutting`.
"""

from __future__ import annotations

from octrim.backends.paddle import paddle
from octrim.data.dataset import Dataset
from octrim.training.checkpoint import State
from octrim.training.cutting import Cutting, GradualCut
from octrim.training.dying import DyingChannels
from octrim.training.learner import Learner
from octrim.training.maps import cut_pictures
from octrim.training.schedule import Schedule
from octrim.training.sparsity import PenalisedChannels, Penalty, Sparsity, histogram


class Shrinking:
    """The sparsity penalty and the cuts of one training, each of which may be missing.

    sparsity: steps that pull scales to zero or let channels die, None without a penalty. cutting: cuts, None where the network keeps its channels.
    shaped: epoch, counted from 0, after which the network keeps its shape; -1 where nothing is cut.
    """

    def __init__(
        self, penalty: Penalty | None, cut: GradualCut | None, learner: Learner, state: State, schedule: Schedule, train_set: Dataset
    ) -> None:
        """Prepare what shrinks the network of `learner`, with what `state` remembers of earlier steps.

        penalty: sparsity penalty, cut: what is to be left of the network, None where there is none. train_set: pictures to merge channels on.
        """
        self.learner, self.state, self.schedule = learner, state, schedule
        merging = scores_channels(penalty, cut) or cut is not None
        pictures = cut_pictures(train_set, state.image_size, schedule.hyper.augmentation, learner.config.seed, schedule.epochs) if merging else ()
        self.sparsity: Sparsity | DyingChannels | None = None
        if penalty is not None:
            penalised = PenalisedChannels(learner.network.network, penalty.exclude, learner.config.freeze)
            if penalty.target is not None:
                warmup = schedule.warmup / (schedule.batches * schedule.epochs)
                self.sparsity = DyingChannels(learner, penalised, penalty, pictures, state.extra.get("dead"), warmup)
            else:
                self.sparsity = Sparsity(learner.weights, penalised, penalty, state.extra.get("strength", 0.0))
        self.cutting = Cutting(cut, state, schedule, pictures) if cut is not None else None
        self.shaped = cut.epochs - 1 if cut is not None else -1

    def begin(self) -> None:
        """Note in the state how large the scales are before the first step."""
        if self.sparsity is not None:
            self._note_scales(self.sparsity, 0)

    def penalise(self) -> None:
        """Shrink scales or let channels die, right after an optimizer step with the pictures that the state counts as waiting."""
        if self.sparsity is None:
            return
        state, schedule = self.state, self.schedule
        rate = schedule.hyper.lr0 * schedule.factor(state.epoch)  # without warm-up
        share = (state.epoch + state.batch / schedule.batches) / schedule.epochs
        self.sparsity.step(rate, state.waiting_pictures, share)
        state.extra |= self.sparsity.notes()

    def cut(self) -> None:
        """Cut the channels that are due, once a step is done; the training then goes on with those that stay."""
        if self.cutting is not None and self.cutting.due(self.state, self.learner.optimizer.steps):
            self.cutting.cut(self.state, self.learner)

    def columns(self, epoch: int, last: bool) -> dict[str, float]:
        """Columns of results.csv at the end of `epoch`. Keeps the histogram of the scales and, in the last epoch, silences the moving average."""
        columns: dict[str, float] = {}
        if self.sparsity is not None:
            columns |= self.sparsity.columns()
            self._note_scales(self.sparsity, epoch + 1)
            if last:  # the moving average of a dead channel still holds earlier values
                average = self.learner.average
                average.values = paddle.to_tensor(self.sparsity.silence(average.values.numpy()))
        if self.cutting is not None:
            columns |= self.cutting.columns(self.state)
        return columns

    def _note_scales(self, sparsity: Sparsity | DyingChannels, number: int) -> None:
        """Keep the histogram of the scales after `number` epochs in the state; a resumed run that notes the same epoch again replaces it."""
        norms = sparsity.norms()
        scales = self.state.extra.setdefault("scales", {"top": max(1.05 * float(norms.max()), 1e-6), "counts": []})
        scales["counts"][number:] = [histogram(norms, scales["top"])]


def scores_channels(penalty: Penalty | None, cut: GradualCut | None) -> bool:
    """Whether channels are ranked by the training's gradients."""
    return (penalty is not None and penalty.target is not None) or (cut is not None and cut.criterion == "taylor")

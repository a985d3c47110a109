"""The changing parts of a training: weights, the optimizer's moments, the weights' moving average, and the gradient that waits for a step."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from octrim.backends.paddle import PaddleNetwork, paddle
from octrim.backends.quantized import trainable
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.training.checkpoint import State, stored_averaging
from octrim.training.freezing import frozen
from octrim.training.hyper import Hyperparameters
from octrim.training.optimizer import MovingAverage, Optimizer, Weights
from octrim.training.options import Training
from octrim.training.parallel import World
from octrim.training.schedule import Averaging, Settings
from octrim.training.taylor import TaylorScores
from octrim.training.vectors import unflattened


class Learner:
    """The changing parts of a training, and the steps from a loss to new weights.

    network: the network in training mode. accumulate: batches per optimizer step, once the warm-up is over. gradient: the sum over the batches that
    wait for a step, a flat vector like the parameters. taylor: scores of the channels by the gradients of all steps, None where nobody asks for them.
    """

    def __init__(self, model: Model, config: Training, hyper: Hyperparameters, world: World, scored: bool = False) -> None:
        """Begin with the weights of `model`. scored: whether to keep scores of its channels."""
        self.world, self.config = world, config
        self.accumulate = max(round(config.nominal_batch / config.batch), 1)
        # The recipe's weight decay is meant for steps of nominal_batch pictures.
        self._decay = hyper.weight_decay * config.batch * self.accumulate / config.nominal_batch
        self.taylor = TaylorScores(model.network) if scored else None
        self._build(model)

    def _build(self, model: Model) -> None:
        """Make the network, and everything that has its sizes."""
        self.network = trainable(model)
        if self.config.sync_bn:
            _synchronise_batch_norm(self.network)
        self.network.train()
        self.weights = Weights(self.network)
        constant = [row.weight_name for row in model.network.convs if row.pads]
        self.optimizer = Optimizer.create(self.weights, self.config.optimizer, self._decay, _freeze(self.weights, self.config.freeze, constant))
        self.average = MovingAverage(self.weights.values())
        self.gradient = paddle.zeros([self.weights.parameters.size])

    def begin(self, state: State, averaging: Averaging) -> None:
        """Begin a new training: choose the moving average, and note it in the state, so that a resumed run averages as it began."""
        self.average.averaging = averaging
        state.extra["average"] = dataclasses.asdict(averaging)

    def restore(self, state: State) -> None:
        """Take over the vectors of a checkpoint. Raises InputError where the checkpoint was written with another optimizer."""
        arrays = state.arrays
        if len(self.optimizer.moments) != sum(name.startswith("moment") for name in arrays):
            raise InputError(f"the checkpoint is of another optimizer than {self.config.optimizer}")
        self.weights.assign(paddle.to_tensor(arrays["values"]))
        self.average = MovingAverage(paddle.to_tensor(arrays["average"]), stored_averaging(state), state.updates)
        self.gradient = paddle.to_tensor(arrays["gradient"]) / self.world.size
        self.optimizer.moments = [paddle.to_tensor(arrays[f"moment{index}"]) for index in range(len(self.optimizer.moments))]
        self.optimizer.steps = state.steps
        if self.taylor is not None:
            self.taylor = TaylorScores(self.network.network, arrays.get("taylor"))  # none where OcTrim 0.1 began the run

    def go_on_with(self, state: State) -> None:
        """Go on with the network and the vectors of `state`, out of which channels have been cut."""
        tensors = unflattened(state.network, state.arrays["values"])
        self._build(Model(state.network, tensors, state.names, state.image_size))
        self.restore(state)

    def snapshot(self, state: State) -> State:
        """Put copies of the current vectors into `state`, and return it.

        The waiting gradient is stored as the sum over the processes, because a resumed run may have another number of them.
        """
        gradient = self.gradient * self.world.size
        state.arrays = {"values": self.weights.values().numpy(), "average": self.average.values.numpy(), "gradient": gradient.numpy()}
        state.arrays |= {f"moment{index}": moment.numpy() for index, moment in enumerate(self.optimizer.moments)}
        if self.taylor is not None:
            state.arrays["taylor"] = self.taylor.values
        state.steps, state.updates = self.optimizer.steps, self.average.updates
        return state

    def add(self, loss: Any) -> None:
        """Add the gradient of a batch's loss, a scalar tensor, to the gradient that waits for a step."""
        loss.backward()
        self.gradient = self.gradient + self.weights.parameters.gradient()

    def step(self, settings: Settings) -> bool:
        """Do an optimizer step with the waiting gradient; False, and no step, where it is not finite. `follow` moves the average afterwards."""
        gradient = self.world.sum(self.gradient)
        if self.taylor is not None:
            self.taylor.observe(self.weights, gradient)
        if not self.optimizer.step(gradient, settings):
            return False
        self.world.average_in_place(self.weights.statistics.vector)
        self.gradient = paddle.zeros([self.weights.parameters.size])
        return True

    def follow(self) -> None:
        """Move the average towards the weights, after everything that changes them in a step, such as the sparsity penalty."""
        self.average.update(self.weights.vector)

    def synchronise(self) -> None:
        """Make batch-norm statistics and waiting gradient the same in all processes, as a checkpoint needs them."""
        self.world.average_in_place(self.weights.statistics.vector)
        self.gradient = self.world.mean(self.gradient)

    def finite(self) -> bool:
        """Whether all weights, statistics and gradients that wait for a step are finite numbers."""
        return all(bool(paddle.isfinite(vector).all().numpy().item()) for vector in (self.weights.vector, self.gradient))


def _freeze(weights: Weights, freeze: tuple[str, ...], constant: list[str]) -> Any:
    """Stop the gradients of frozen parameters. Returns a flat vector, 1 where a parameter trains and 0 where not, or None where all train."""
    chosen = frozen(tuple(weights.parameters.tensors), freeze, constant)
    if not chosen:
        return None
    mask = np.ones(weights.parameters.size, np.float32)
    for name in chosen:
        weights.parameters.tensors[name].stop_gradient = True
        mask[weights.parameters.slices[name]] = 0
    return paddle.to_tensor(mask)


def _synchronise_batch_norm(network: PaddleNetwork) -> None:
    """Replace every batch norm by Paddle's layer that computes its statistics over all processes."""
    for layer in network.sublayers():
        if isinstance(getattr(layer, "bn", None), paddle.nn.BatchNorm2D):
            layer.bn = paddle.nn.SyncBatchNorm.convert_sync_batchnorm(layer.bn)

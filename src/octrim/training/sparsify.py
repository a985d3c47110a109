"""Training that drives whole channels to zero, so that cutting them costs nothing."""

from __future__ import annotations

from typing import Any

from octrim.errors import InputError
from octrim.network.model import Model
from octrim.options import from_python
from octrim.pruning.fractions import parse_fraction
from octrim.training.finetune import checked_teacher, distillation, with_teacher
from octrim.training.options import Sparsifying
from octrim.training.setup import begun, resumed
from octrim.training.train import Trained, alone, to_the_end


def sparsify(**options: Any) -> Trained:
    """Sparsity training from Python: `sparsify(weights="best.safetensors", data="bccd", target=0.5)`.

    Takes the options of `octrim sparsify`, and leaves a run folder as that command does. Raises InputError for bad input.
    """
    return run_sparsity_training(alone(from_python(Sparsifying, options)))


def run_sparsity_training(config: Sparsifying) -> Trained:
    """Train with a sparsity penalty in this process, which may be one of several that a launcher has started."""
    from octrim.training.sparsity import PenalisedChannels

    if config.resume is None:
        _check_penalty(config)
        setup = begun(with_teacher(config), lambda model, config, _: _check_against_model(model, config))
    else:
        setup = resumed(config)
    penalty = _penalty(setup.config)
    if setup.run is not None:
        penalised = PenalisedChannels(setup.model.network, penalty.exclude, setup.config.freeze)
        setup.run.print(f"{len(penalised.group):,} channels in {len(penalised.counts)} groups may die")
    return to_the_end(setup, distillation(setup), penalty)


def _check_penalty(config: Sparsifying) -> None:
    """Raise InputError for options of the penalty that are wrong for every network."""
    if (config.strength is None) == (config.target is None):
        raise InputError("give either --strength (how strong) or --target (fraction of channels that is dead at the end)")
    if config.target is not None and config.strength_schedule != type(config).strength_schedule:
        raise InputError(f"strength_schedule {config.strength_schedule} is for --strength: with --target the penalty grows by itself")
    if config.target is not None and parse_fraction(config.target, "target") == 1:
        raise InputError(f"target is {config.target}, expected less than 1")


def _check_against_model(model: Model, config: Sparsifying) -> None:
    """Raise InputError where the teacher does not fit the network, or the network has not enough channels that may die."""
    from octrim.training.sparsity import PenalisedChannels

    checked_teacher(model, config)
    penalised = PenalisedChannels(model.network, config.exclude, config.freeze)
    if config.target is not None:
        penalised.dead_counts(_penalty(config))


def _penalty(config: Sparsifying) -> Any:
    from octrim.training.sparsity import Penalty

    target = None if config.target is None else parse_fraction(config.target, "target")
    return Penalty(config.strength, target, config.strength_schedule, config.scope, config.align, config.exclude)

"""`octrim sparsify`: training that drives whole channels to zero."""

from __future__ import annotations

from typing import Any

from octrim.errors import InputError
from octrim.network.model import Model
from octrim.options import from_python
from octrim.pruning.plan import parse_fraction
from octrim.training.finetune import checked_teacher, distillation, with_teacher
from octrim.training.options import Sparsifying
from octrim.training.train import Trained, alone, prepare, run, start


def sparsify_command(config: Sparsifying) -> None:
    """`octrim sparsify`."""
    start(config, _sparsify)


def sparsify(**options: Any) -> Trained:
    """Sparsity training from Python; options as of `octrim sparsify`: `sparsify(weights="best.safetensors", data="bccd", target=0.5)`.

    Leaves a run folder as the command does. Raises InputError for bad input.
    """
    return _sparsify(alone(from_python(Sparsifying, options)))


def _sparsify(config: Sparsifying) -> Trained:
    from octrim.training.sparsity import PenalisedChannels

    if config.resume is None:
        if (config.strength is None) == (config.target is None):
            raise InputError("give either --strength (how strong) or --target (fraction of channels that is dead at the end)")
        if config.target is not None and parse_fraction(config.target, "target") == 1:
            raise InputError(f"target is {config.target}, expected less than 1")
    setup = prepare(with_teacher(config), lambda model, config: (checked_teacher(model, config), _check_target(model, config)))
    penalty = _penalty(setup.config)
    if setup.run is not None:
        penalised = PenalisedChannels(setup.model.network, penalty.exclude, setup.config.freeze)
        setup.run.print(f"{len(penalised.group):,} channels in {len(penalised.counts)} groups may die")
    return run(setup, distillation(setup), penalty)


def _penalty(config: Sparsifying) -> Any:
    from octrim.training.sparsity import Penalty

    target = None if config.target is None else parse_fraction(config.target, "target")
    return Penalty(config.strength, target, config.strength_schedule, config.scope, config.align, config.exclude)


def _check_target(model: Model, config: Sparsifying) -> None:
    from octrim.training.sparsity import PenalisedChannels

    penalised = PenalisedChannels(model.network, config.exclude, config.freeze)
    if config.target is not None:
        penalised.dead_counts(_penalty(config))

"""Which class of a data set each class of a network stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from octrim.errors import InputError, counted, shown


def distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names, each once: where classes share a name, theirs are followed by "(class N)" with the class's number from 0."""
    counts = Counter(names)
    found: list[str] = []
    for number, name in enumerate(names):
        distinct = name if counts[name] == 1 else f"{name} (class {number})"
        while distinct in found or (distinct != name and distinct in counts):  # a class may really be called so
            distinct = f"{distinct} (class {number})"
        found.append(distinct)
    return tuple(found)


def map_classes(network: Sequence[str], dataset: Sequence[str]) -> tuple[np.ndarray, str | None]:
    """Return, per class of the network, the data set's class number, or -1 for what the data set does not know; and what to tell people, or None.

    By name where the network knows every name of the data set (letter case aside, unless that confuses two), else by number where
    there are equally many. Raises InputError where neither works.
    """
    if tuple(network) == tuple(dataset):
        return np.arange(len(network)), None
    for spelling in (str, str.casefold):
        known, wanted = [spelling(name) for name in network], [spelling(name) for name in dataset]
        if len(set(wanted)) == len(wanted) and set(wanted) <= set(known):
            numbers = {name: number for number, name in enumerate(wanted)}
            mapping = np.asarray([numbers.get(name, -1) for name in known])
            dropped = int((mapping < 0).sum())
            others = counted(dropped, "other class", "other classes")
            return mapping, f"classes by name; predictions of {others} of the network are dropped" if dropped else None
    if len(network) == len(dataset):
        different = [f"{ours} is {theirs}" for ours, theirs in zip(network, dataset, strict=True) if ours != theirs]
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        return np.arange(len(network)), f"classes by number, because names differ (network, data set): {', '.join(different[:3])}{more}"
    unknown = [name for name in dataset if name not in network]
    raise InputError(
        f"the network has {counted(len(network), 'class', 'classes')} ({_some(network)}) and the data set {len(dataset)} ({_some(dataset)}), "
        f"and the network does not know {_some(unknown)}"
    )


def _some(names: Sequence[str]) -> str:
    first = [shown(str(name))[1:-1] for name in names[:3]]
    if len(names) > 3:
        first.append("..")
    return ", ".join(first)

"""Drops rows from a network: blocks that are bypassed, detection levels, and whatever only these need.

One operation does all of it: rows vanish from the table, and a row that read one of them reads what came before it. So a bottleneck leaves the map
that it added something to, and the chain of a C3 leaves the map in front of it:

    gone = rows_to_drop(network, drop=["model.8.m.*"], levels=[8, 16])
    smaller = without_rows(model, gone)
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from octrim.errors import InputError, shown
from octrim.network.cost import shapes, tensor_shapes
from octrim.network.model import Model
from octrim.network.rows import Network, Row

_PROBE_SIDE = 1024  # side of the picture for which maps must keep their sizes; a table that loads runs on it

LEVEL = "level "
"""Prefix of detection levels among the names of `droppable`; the level's stride follows."""

Sources = Mapping[str, tuple[str, ...]]
"""For a bypassed row, the rows that its readers read instead: one, or the first two where there are several."""


def rows_to_drop(network: Network, drop: Sequence[str] = (), levels: Sequence[int] = ()) -> tuple[str, ...]:
    """Return the names of all rows that vanish, in the table's order, when rows are bypassed and levels go.

    drop: patterns of rows to bypass (`model.8.m.*`; the name of a row also stands for what is below it). levels: strides, in pixels, of the detection
    levels that stay; all where it is empty. Rows that nobody reads any more vanish with them.
    Raises InputError for a pattern that matches no row or an output of Detect, for rows that cannot be bypassed because what came before has another
    shape or is more than one map, and for a stride that no level has.
    """
    bypassed = {name: pattern for pattern in drop for name in _matching_rows(network, pattern)}
    heads = _heads_that_stay(network, levels)
    sources = _sources(network, bypassed)
    alive = {network.rows[-1].name, *heads}
    for row in reversed(network.rows):
        if row.name in alive and row.op != "detect":
            _check_readable(row, sources)
            alive.update(name for source in row.inputs for name in sources.get(source, (source,)))
    maps = shapes(network, _PROBE_SIDE, _PROBE_SIDE) if bypassed else {}
    for row in network.rows:
        for name in row.inputs:
            if row.name in alive and row.op != "detect" and name in sources:
                _check_shape(maps, row, name, sources[name][0], bypassed[name])
    alive.add(network.rows[0].name)
    return tuple(row.name for row in network.rows if row.name not in alive)


def without(network: Network, gone: Collection[str]) -> Network:
    """Return the network without the rows `gone`, as `rows_to_drop` names them; rows that read one of them read what came before it."""
    return _without(network, tuple(gone))


@lru_cache(maxsize=4)  # plan and prune ask for the same network; what is known of it, such as labels, is then known of one object
def _without(network: Network, gone: tuple[str, ...]) -> Network:
    sources = _sources(network, dict.fromkeys(gone, ""))
    stays = [row for row in network.rows[:-1] if row.name not in sources]
    rows = [replace(row, inputs=tuple(sources.get(name, (name,))[0] for name in row.inputs)) for row in stays]
    detect = network.rows[-1]
    heads = tuple(name for name in detect.inputs if name not in sources)
    anchors = tuple(level for name, level in zip(detect.inputs, network.anchors, strict=True) if name not in sources)
    return Network((*rows, replace(detect, inputs=heads)), anchors)


def without_rows(model: Model, gone: Collection[str]) -> Model:
    """Return the model without the rows `gone`, as `rows_to_drop` names them; all other tensors stay as they are. int8 scales are left out."""
    if not gone:
        return model
    network = without(model.network, gone)
    return replace(model, network=network, tensors={name: model.tensors[name] for name in tensor_shapes(network)}, scales={})


def missing_rows(original: Network, network: Network) -> tuple[str, ...]:
    """Return the names of the rows of the original that a network made from it lacks, in the table's order."""
    there = {row.name for row in network.rows}
    return tuple(row.name for row in original.rows if row.name not in there)


def only_levels(network: Network, places: Sequence[int]) -> tuple[str, ...]:
    """Return the names of the rows that vanish when only the detection levels at these places, counted from 0, stay."""
    heads = {network.rows[-1].inputs[place] for place in places}
    alive = {network.rows[0].name, network.rows[-1].name, *heads}
    for row in reversed(network.rows[:-1]):
        if row.name in alive:
            alive.update(row.inputs)
    return tuple(row.name for row in network.rows if row.name not in alive)


def droppable(network: Network) -> dict[str, tuple[str, ...]]:
    """Return what can be dropped by itself, by name in the table's order, with the rows that vanish: blocks, then levels, as `level 32`.

    A block is all rows below a name (`model.8.m`, `model.8`), or a row by itself where no block has it. Of names for the same rows the first one,
    which is the shortest, stands.
    """
    names = {".".join(parts[:count]): None for row in network.rows[1:-1] for parts in [row.name.split(".")] for count in range(1, len(parts) + 1)}
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        inside = any(name.startswith(f"{above}.") for above in found)
        if inside and not any(row.name.startswith(f"{name}.") for row in network.rows):
            continue
        try:
            gone = rows_to_drop(network, [name])
        except InputError:
            continue
        if gone not in found.values():
            found[name] = gone
    if len(network.strides) > 1:
        for place, stride in enumerate(network.strides):
            found[f"{LEVEL}{stride}"] = only_levels(network, [other for other in range(len(network.strides)) if other != place])
    return found


def told(network: Network, gone: Sequence[str]) -> str:
    """Return a line for people about rows that vanish: the strides of levels, and the rows, those of one block by its name."""
    strides = [str(stride) for name, stride in zip(network.rows[-1].inputs, network.strides, strict=True) if name in gone]
    levels = f"level{'s' * (len(strides) > 1)} {', '.join(strides)}; " if strides else ""
    return f"{levels}{len(gone)} rows ({', '.join(_blocks(network, gone))})"


def _blocks(network: Network, gone: Sequence[str]) -> list[str]:
    """The rows `gone`, with the longest prefixes all of whose rows go in place of those rows."""
    stays = [row.name for row in network.rows if row.name not in gone]
    found: dict[str, None] = {}
    for name in gone:
        parts = name.split(".")
        prefixes = [".".join(parts[:count]) for count in range(1, len(parts))]
        whole = [prefix for prefix in prefixes if not any(row == prefix or row.startswith(f"{prefix}.") for row in stays)]
        found[f"{whole[0]}.*" if whole else name] = None
    return list(found)


def _matching_rows(network: Network, pattern: str) -> list[str]:
    """Names of the rows that a pattern, or the name of a row above them, stands for. Raises InputError where there are none, or one may not go."""
    names = [row.name for row in network.rows[1:-1] if fnmatch.fnmatchcase(row.name, pattern) or row.name.startswith(f"{pattern}.")]
    if not names:
        raise InputError(f"drop: {shown(pattern)} matches no row; their names look like {network.rows[1].name}, {network.rows[-2].name}")
    for name in names:
        if name in network.heads:
            raise InputError(f"drop: {shown(pattern)} matches {name}, an output of {network.rows[-1].name}; levels says which levels stay")
    return names


def _heads_that_stay(network: Network, levels: Sequence[int]) -> list[str]:
    """Names of the rows that Detect goes on reading. Raises InputError for a stride that no level has."""
    for stride in levels:
        if stride not in network.strides:
            raise InputError(f"levels: no level has the stride {shown(stride)}; there are {', '.join(map(str, network.strides))}")
    return [name for name, stride in zip(network.rows[-1].inputs, network.strides, strict=True) if not levels or stride in levels]


def _sources(network: Network, bypassed: Collection[str]) -> Sources:
    """For each bypassed row, what its readers read instead."""
    sources: dict[str, tuple[str, ...]] = {}
    for row in network.rows[:-1]:
        if row.name in bypassed:
            before = dict.fromkeys(source for name in row.inputs for source in sources.get(name, (name,)))
            sources[row.name] = tuple(before)[:2]
    return sources


def _check_readable(row: Row, sources: Sources) -> None:
    """Raise InputError where a row would have to read two maps in place of one."""
    for name in row.inputs:
        if len(sources.get(name, ())) > 1:
            one, other = sources[name]
            raise InputError(f"drop: {name} cannot go: {row.name} reads it, and two maps come before it, {one} and {other}")


def _check_shape(maps: Mapping[str, tuple[int, int, int]], row: Row, name: str, source: str, pattern: str) -> None:
    """Raise InputError where a row would read a map of another shape. maps: channels, height and width of every row."""
    before, after = maps[name], maps[source]
    if before != after:
        had, has = (f"{channels} channels at stride {_PROBE_SIDE // height}" for channels, height, _ in (before, after))
        raise InputError(f"drop: {shown(pattern)} cannot go: {row.name} reads {name} ({had}), and what comes before it is {source} ({has})")

"""Fractions of channels: how they are written, which convolutions a pattern gives one to, and how many channels one leaves."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

from octrim.errors import InputError, shown
from octrim.network.rows import Network
from octrim.options import plain
from octrim.pruning.labels import Group, channel_labels, group_key

LIVE = "live"
"""What stands in place of a fraction where every group keeps the channels that sparsity training has left alive."""


def parse_fraction(value: object, what: str) -> Fraction:
    """Return a fraction 0 < f <= 1 from a number, or from text such as `1/8` and `0.125`.

    Raises InputError, with the name `what`, for anything else.
    """
    value = plain(value)
    small = not isinstance(value, int) or abs(value) < 10  # an integer of thousands of digits cannot even be printed
    text = str(value) if small and isinstance(value, str | int | float | Fraction) else ""
    if not re.fullmatch(r"-?[0-9]{1,9}(/[0-9]{1,9}|\.[0-9]{0,20}(e-?[0-9]{1,2})?|e-?[0-9]{1,2})?", text.strip()):
        raise InputError(f"{what} is {shown(value)}, expected a fraction such as 1/8 or 0.125")
    try:
        fraction = Fraction(text)
    except ZeroDivisionError:
        raise InputError(f"{what} is {shown(value)}, expected a fraction such as 1/8 or 0.125") from None
    if not 0 < fraction <= 1:
        raise InputError(f"{what} is {text}, expected more than 0 and at most 1")
    return fraction


def aligned_count(channels: int, fraction: Fraction, align: int, nearest: bool = False) -> int:
    """Return how many of `channels` stay for a fraction, a multiple of `align`, at least one `align`, at most all.

    nearest: whether to round to the nearest multiple, of two equally near ones to the lower, instead of down.
    """
    if fraction == 1:
        return channels
    multiples = channels * fraction / align
    rounded = math.ceil(multiples - Fraction(1, 2)) if nearest else int(multiples)
    return min(max(rounded * align, align), channels)


def matching_convs(network: Network, pattern: str, what: str) -> list[str]:
    """Return the names of the convolutions that a pattern, or the name of a row above them, stands for.

    Raises InputError, with the name `what` of the option, for a pattern that matches none.
    """
    names = [row.name for row in network.convs if fnmatch.fnmatchcase(row.name, pattern) or row.name.startswith(f"{pattern}.")]
    if not names:
        raise InputError(f"{what}: {shown(pattern)} matches no convolution; their names look like {network.convs[0].name}, {network.convs[-1].name}")
    return names


def require_matches(network: Network, exclude: Sequence[str], keep_map: Mapping[str, float | str]) -> None:
    """Raise InputError for a pattern that matches no convolution, and for a fraction that is none."""
    for pattern in exclude:
        matching_convs(network, pattern, "exclude")
    mapped_fractions(network, keep_map)


def mapped_fractions(network: Network, keep_map: Mapping[str, float | str]) -> dict[str, Fraction]:
    """Return the fraction of each convolution that a keep-map names, and of each group that it names by the `key` of it.

    Where several patterns match, the last one counts, so that exceptions can follow the rule.
    """
    if not isinstance(keep_map, Mapping):
        raise InputError(f"keep-map is {shown(keep_map)}, expected a mapping of patterns to fractions")
    keys = {group_key(group.name) for group in channel_labels(network).groups}
    found: dict[str, Fraction] = {}
    for pattern, value in keep_map.items():
        fraction = parse_fraction(value, f"keep-map: {pattern}")
        found |= dict.fromkeys([pattern] if pattern in keys else matching_convs(network, str(pattern), "keep-map"), fraction)
    return found


def group_fraction(group: Group, fractions: Mapping[str, Fraction], default: Fraction | None) -> Fraction | None:
    """Return the fraction that a group is given by its key, else that of its convolutions, `default` where there is none.

    Raises InputError where coupled convolutions differ.
    """
    if group_key(group.name) in fractions:
        return fractions[group_key(group.name)]
    named = {name: fractions[name] for name in group.convs if name in fractions}
    if len(set(named.values())) > 1:
        (one, first), (other, second) = next((a, b) for a in named.items() for b in named.items() if a[1] != b[1])
        raise InputError(f"keep-map: {one} and {other} are coupled and must keep the same fraction, found {first} and {second}")
    return next(iter(named.values()), default)

"""Reads values in users' JSON, YAML and XML by their meaning: numbers may be texts, whole numbers may have a fraction of zero, flags may be words.

Python itself would take the text "0" for true, and in dictionaries `true` for 1.
"""

from __future__ import annotations

import math
import re
from typing import Any

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_LONGEST = 400  # most characters of a number that is written as text
_FLAGS = {"0": False, "false": False, "no": False, "n": False, "off": False, "": False, "none": False, "null": False}
_FLAGS |= {"1": True, "true": True, "yes": True, "y": True, "on": True}


def number(value: Any) -> float | None:
    """Return a number, or a text of one, as a finite float; None for everything else: booleans, null, NaN, infinity, other text, lists."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and (len(value) > _LONGEST or not _NUMBER.fullmatch(value)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole(value: Any) -> int | None:
    """Return a whole number, a float without a fraction, or a text of either, as an int; None for everything else and beyond 64 bits."""
    if isinstance(value, str) and len(value) <= _LONGEST and re.fullmatch(r"\s*[+-]?\d+\s*", value, re.ASCII):
        found = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        found = value
    else:
        parsed = number(value)
        if parsed is None or parsed != math.floor(parsed) or abs(parsed) > 2**53:
            return None
        found = int(parsed)
    return found if -(2**63) <= found < 2**63 else None


def flag(value: Any) -> bool | None:
    """Return a boolean, 0 or 1, a word for either, or null, which is false, as a boolean; None for everything else."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str) and value.strip().casefold() in _FLAGS:
        return _FLAGS[value.strip().casefold()]
    return {0: False, 1: True}.get(whole(value))  # type: ignore[arg-type]  (None is in no dictionary of numbers)


def name(value: Any) -> str | None:
    """Return a name: text that is not blank, or the text of a number, which some tools write for a name; None for everything else."""
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, bool) or number(value) is None:
        return None
    return str(value)

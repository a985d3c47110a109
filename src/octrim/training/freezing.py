"""Selection of the tensors that `--freeze` keeps from being trained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from octrim.errors import InputError, shown


def frozen(names: Sequence[str], freeze: Sequence[str], constant: Sequence[str] = ()) -> list[str]:
    """Names of the tensors that `--freeze` selects: a number N means the first N layers of the layout, other text is a pattern of rows or tensors.

    constant: names of tensors that never train, which are always among them.
    Raises InputError for a pattern that fits nothing, and when nothing is left to train.
    """
    chosen = list(constant)
    for item in freeze:
        if re.fullmatch("[0-9]{1,9}", item):  # str.isdigit also takes what int() does not, such as a superscript two
            found = [name for name in names if (layer := re.match(r"model\.([0-9]{1,9})\.", name)) and int(layer[1]) < int(item)]
        else:
            found = [name for name in names if any(fnmatchcase(name, pattern) for pattern in (item, f"{item}.*"))]
        if not found and item != "0":
            raise InputError(f"freeze: {shown(item)} fits no layer of this network")
        chosen += found
    if len(set(chosen)) == len(names):
        raise InputError(f"freeze: {' '.join(freeze)} leaves nothing to train")
    return [name for name in names if name in set(chosen)]

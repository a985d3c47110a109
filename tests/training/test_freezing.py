"""Which layers and tensors an option to freeze names."""

from __future__ import annotations

import pytest

from octrim.errors import InputError
from octrim.training.freezing import frozen


def test_frozen_layers() -> None:
    names = ("model.0.conv.weight", "model.0.bn.weight", "model.1.cv1.conv.weight", "model.10.conv.weight", "model.24.m.0.weight")
    assert frozen(names, ("2",)) == list(names[:3])
    assert frozen(names, ("1",), [names[2]]) == [names[0], names[1], names[2]]
    assert frozen(names, ("0",)) == []
    assert frozen(names, ("model.1",)) == [names[2]]
    assert frozen(names, ("model.1*",)) == [names[2], names[3]]
    assert frozen(names, ("1", "model.24.m.*")) == [names[0], names[1], names[4]]


def test_what_counts_as_a_number_of_layers() -> None:
    """A superscript two is a digit to `str.isdigit` and no number to `int`: both names and patterns may hold such characters."""
    names = ("model.0.conv.weight", "model.1.conv.weight", "model.\u00b2.conv.weight", "stem.conv.weight")
    assert frozen(names, ("1",)) == [names[0]]
    assert frozen(names, ("model.\u00b2",)) == [names[2]]
    for item in ("\u00b2", "9" * 5000, "-1"):
        with pytest.raises(InputError, match="fits no layer"):
            frozen(names, (item,))

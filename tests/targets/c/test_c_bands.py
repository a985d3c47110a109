"""The two bands of a picture: where they part, what they share, and that nothing of an earlier picture stays in their margins."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from octrim.network.model import Model
from octrim.network.rows import Row
from octrim.network.yolov5 import yolov5_network
from octrim.targets.c.bands import Bands, banded, halo
from octrim.targets.c.compiler import has_compiler
from octrim.targets.c.folder import write_folder
from octrim.targets.c.lowering import Kind, lowered
from octrim.targets.c.maps import place
from octrim.targets.c.program import program
from octrim.targets.c.schedule import scheduled
from octrim.targets.c.session import CSession
from tests.networks import lively_model
from tests.targets.c.material import assert_close, calm, one_level, picture, reference


@pytest.fixture(scope="module")
def nano() -> Model:
    return calm(lively_model(yolov5_network("yolov5n", 3)))


@pytest.mark.parametrize(("height", "first", "narrow"), [(320, 5, {20}), (416, 7, {13, 26}), (64, 1, set()), (32, 0, set())])
def test_where_bands_part(nano: Model, height: int, first: int, narrow: set[int]) -> None:
    """Half of the smallest map's rows, rounded up; a map of one row is not parted. narrow: heights of the maps whose lines are joined."""
    ops = lowered(nano, height, height)
    bands = banded(ops.ops)
    assert bands == (Bands(2, height // 32, first) if first else Bands(1, 1, 1))
    for op in ops.ops:
        if op.out is not None:
            assert op.out.rows == op.out.height * first // (height // 32) if first else op.out.rows == op.out.height
    assert {op.out.height for op in ops.ops if op.narrow and op.kind == Kind.WINOGRAD and op.out} == narrow


SHIFTED = {
    "without padding": (1, [Row("a", "conv", ("images",), 4, 3, 1, 0, bias=True), Row("b", "conv", ("a",), 4, 3, 1, 2, bias=True)]),
    "pool that shrinks": (2, [Row("b", "maxpool", ("images",), kernel=2, stride=2)]),
    "stride 4": (4, [Row("b", "conv", ("images",), 4, 4, 4, 0, bias=True)]),
}


@pytest.mark.parametrize("name", SHIFTED)
def test_what_has_one_band(name: str) -> None:
    """Steps whose rows come from another part of what they read."""
    cell, rows = SHIFTED[name]
    assert banded(lowered(lively_model(one_level(*rows, last="b", cell=cell)), 64, 64).ops).count == 1


def test_rows_of_the_other_band(nano: Model) -> None:
    """By the definition of the windows: 3 x 3 needs a row above and below, with stride 2 only the odd row above."""
    ops = lowered(nano, 320, 320).ops
    banded(ops)
    for op in ops:
        reach, above, below = halo(op)
        window = op.kind in (Kind.CONVOLUTION, Kind.WINOGRAD) and op.row.kernel == 3
        assert reach == int(window)
        assert len(above) == (len(op.x) * (op.row.stride if op.row.stride == 2 else 1) if window else 0)
        assert len(below) == (len(op.x) if window and op.row.stride == 1 else 0)


@pytest.mark.parametrize("height", [96, 320])
def test_maps_that_share_memory(nano: Model, height: int) -> None:
    """Maps that are needed at the same time lie apart; those at the same place begin whole planes apart, and all or none of them are padded."""
    ops = lowered(nano, height, 320).ops
    scheduled(ops, banded(ops))
    maps = [op.out for op in ops if op.out is not None]
    floats = place(maps)
    for a, b in combinations(maps, 2):
        apart = a.at + a.planes * a.plane <= b.at or b.at + b.planes * b.plane <= a.at
        assert apart or a.last < b.first or b.last < a.first
        if not apart:
            assert (a.size, a.plane, a.padded) == (b.size, b.plane, b.padded)
            assert (a.at - b.at) % a.plane == 0
    assert max(m.at + m.planes * m.plane for m in maps) <= floats


def test_memory_that_the_readme_tells(tmp_path: Path) -> None:
    """The maps of both bands: less than that, all rows of all maps that are needed at once, does not fit."""
    model = lively_model(one_level(Row("a", "conv", ("images",), 8, 3, 2, 1, norm=True, activation="silu"), last="a", cell=2))
    write_folder(model, tmp_path, 64, 64)
    told = re.search(r"needs (\d+) KB of memory", (tmp_path / "README.md").read_text())
    planes = 12 * 32 * 32 + 8 * 32 * 32  # the picture's parts by parity, a
    assert told is not None
    assert 4 * planes / 1000 < int(told[1]) < 1.3 * 4 * planes / 1000


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="no C compiler")
@pytest.mark.parametrize("size", [(320, 64), (352, 96), (224, 416)])
def test_pictures_one_after_the_other(nano: Model, size: tuple[int, int]) -> None:
    """Equal and unequal bands: the second picture's result is that of an instance that has seen no other."""
    first, second = picture(*size), picture(*size, 1)
    assert program(nano, *size).bands == 2
    used, fresh = CSession(nano, "fp32", 2), CSession(nano, "fp32", 3)
    used(np.full_like(first, 255))
    assert_close(used(first), reference(nano, first))
    found = fresh(second)
    assert np.array_equal(used(second), found)
    assert_close(found, reference(nano, second))
    used.close()
    fresh.close()

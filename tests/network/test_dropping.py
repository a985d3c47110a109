"""Rows that are dropped: the smaller network computes what the whole one computes when these rows pass on what came before them."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.backends.numpy import NumpyOps, decode
from octrim.errors import InputError
from octrim.network.cost import network_cost, tensor_shapes
from octrim.network.dropping import droppable, only_levels, rows_to_drop, told, without, without_rows
from octrim.network.layout import MORE, VARIANTS
from octrim.network.model import Model
from octrim.network.rows import Network, Row, walk
from octrim.network.yolov5 import yolov5_network
from octrim.pruning.plan import plan
from octrim.targets.opening import open_session
from octrim.targets.table import TARGETS
from octrim.targets.target import Order
from tests.networks import lively_model, random_networks, variant
from tests.targets.test_table import runnable


class BypassingOps(NumpyOps):
    """The whole network, in which some rows hand on the map in front of them. Knows nothing of the table without them.

    Rows that only lead to levels which go may get maps that do not fit; they compute anything.
    """

    def __init__(self, model: Model, bypassed: Collection[str]) -> None:
        super().__init__(model)
        self.bypassed = bypassed

    def conv(self, row: Row, x: np.ndarray) -> np.ndarray:
        return x if row.name in self.bypassed else super().conv(row, self.fitting(row, x))

    def add(self, row: Row, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a if row.name in self.bypassed or a.shape != b.shape else a + b

    def concat(self, row: Row, xs: Sequence[np.ndarray]) -> np.ndarray:
        return xs[0] if row.name in self.bypassed else super().concat(row, [x for x in xs if x.shape[2:] == xs[0].shape[2:]])

    def maxpool(self, row: Row, x: np.ndarray) -> np.ndarray:
        return x if row.name in self.bypassed else super().maxpool(row, x)

    def upsample(self, row: Row, x: np.ndarray) -> np.ndarray:
        return x if row.name in self.bypassed else super().upsample(row, x)

    def fitting(self, row: Row, x: np.ndarray) -> np.ndarray:
        """The input of a convolution, with channels added or left out where a bypassed map has another number."""
        wanted = self.weights[row.name][0].shape[1] * row.groups
        return np.resize(x, (len(x), wanted, *x.shape[2:])) if x.shape[1] != wanted else x


def expected_heads(model: Model, patterns: Sequence[str], levels: Sequence[int], image: np.ndarray) -> list[np.ndarray]:
    """Logits of the levels that stay, as the whole network computes them with the rows bypassed that fit the patterns literally."""
    network = model.network
    bypassed = {
        row.name for row in network.rows if any(row.name == p or row.name.startswith(p.removesuffix("*").rstrip(".") + ".") for p in patterns)
    }
    heads = walk(network, BypassingOps(model, bypassed), image)
    return [head for head, stride in zip(heads, network.strides, strict=True) if not levels or stride in levels]


def check_drop(model: Model, patterns: Sequence[str], levels: Sequence[int], side: int) -> Model:
    smaller = without_rows(model, rows_to_drop(model.network, patterns, levels))
    image = np.random.default_rng(0).random((1, 3, side, side), np.float32)
    found = walk(smaller.network, NumpyOps(smaller), image)
    for one, other in zip(expected_heads(model, patterns, levels, image), found, strict=True):
        assert one.std() > 0
        np.testing.assert_array_equal(one, other)
    return smaller


def drawn_rows(network: Network, seed: int) -> tuple[list[str], tuple[int, ...]]:
    """About half of the blocks that can go together, and the strides of the levels that stay: all but one, where there are several."""
    generator = np.random.default_rng(seed)
    strides = network.strides
    lost = strides[generator.integers(len(strides))]
    levels = tuple(stride for stride in strides if stride != lost) if len(strides) > 1 else ()
    chosen: list[str] = []
    for name in droppable(network):
        if not name.startswith("level ") and generator.random() < 0.5:
            with contextlib.suppress(InputError):  # not together with those before
                rows_to_drop(network, [*chosen, name], levels)
                chosen.append(name)
    return chosen, levels


def narrow(name: str) -> Network:
    """The table of a published layout with an eighth of its channels."""
    return plan(lively_model(yolov5_network(name, classes=3, to_fit=True)), "1/8", align=1, criterion="l1").network


C3S = {"n": 1, "s": 1, "m": 2, "l": 3, "x": 4}  # bottlenecks of a C3 that the layout repeats three times


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_dropped_equals_bypassed_on_every_variant(name: str) -> None:
    """One bottleneck, the chain of another C3, a C3 of the backbone, the SPPF, a convolution within a bottleneck; with all levels and without one."""
    model = variant(name)
    pool = "model.11" if name.endswith("6") else "model.9"
    after = "model.15.m" if name.endswith("6") else "model.13.m"
    patterns = ["model.2.m.0", "model.4.m.*", "model.6.m.0.cv2", pool, after]
    last = model.network.strides[-1]
    smaller = check_drop(model, patterns, model.network.strides[:-1], 2 * last)
    assert smaller.network.strides == model.network.strides[:-1]
    assert smaller.network.anchors == model.network.anchors[:-1]
    names = {row.name for row in smaller.network.rows}
    assert not any(row.startswith((f"{pool}.", "model.4.m.", f"{after}.")) for row in names)
    assert sum(row.startswith("model.2.m.") and row.endswith(".add") for row in names) == C3S[name[6]] - 1


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_dropped_equals_bypassed_on_every_further_layout(name: str) -> None:
    """Half of the blocks that can go, and a level, by two seeds; the layouts have few channels here, but all of their rows."""
    model = lively_model(narrow(name))
    for seed in range(2):
        patterns, levels = drawn_rows(model.network, seed)
        smaller = check_drop(model, patterns, levels, 2 * model.network.stride)
        assert len(smaller.network.rows) < len(model.network.rows)


@pytest.mark.slow
@settings(max_examples=200)
@given(random_networks(), st.data())
def test_dropped_equals_bypassed_on_random_networks(network: Network, data: st.DataObject) -> None:
    """Any rows and any levels: either the smaller network computes the same, or what is refused really changes a shape or leaves two maps."""
    model = lively_model(network, seed=3)
    names = [row.name for row in network.rows[1:-1] if row.name not in network.heads]
    patterns = data.draw(st.lists(st.sampled_from(names), min_size=0, max_size=4, unique=True))
    levels = data.draw(st.lists(st.sampled_from(network.strides), unique=True, max_size=2))
    try:
        smaller = check_drop(model, patterns, levels, 64)
    except InputError as error:
        assert str(error).startswith("drop: ")
        assert patterns
        assert any(f" {row.name} " in f" {error} " for row in network.rows)
        return
    gone = {row.name for row in network.rows} - {row.name for row in smaller.network.rows}
    assert gone.issuperset(patterns)
    assert smaller.tensors.keys() == tensor_shapes(smaller.network).keys()
    assert all(np.array_equal(smaller.tensors[name], model.tensors[name]) for name in smaller.tensors)
    if not patterns and not levels:
        assert not gone


@pytest.mark.slow
def test_every_block_of_yolov5n_can_go() -> None:
    """Bottlenecks, chains, the C3 of the backbone (as wide at their end as at their start), the SPPF, and every single level."""
    model = variant("yolov5n")
    bottlenecks = [row.name.removesuffix(".cv1") for row in model.network.rows if ".m." in row.name and row.name.endswith(".cv1")]
    assert len(bottlenecks) == 1 + 2 + 3 + 1 + 4
    for name in [*bottlenecks, "model.2.m", "model.4.m", "model.2", "model.4", "model.6", "model.8", "model.9"]:
        check_drop(model, [name], (), 64)
    for stride in model.network.strides:
        check_drop(model, (), [stride], 64)


def test_what_can_be_dropped_by_itself() -> None:
    """In yolov5n: bottlenecks, chains, C3 that are as wide at their end as at their start, the last convolutions of others, the SPPF, levels."""
    network = yolov5_network("yolov5n", classes=3)
    found = droppable(network)
    assert list(found) == [
        *("model.2", "model.2.m", "model.4", "model.4.m", "model.4.m.0", "model.4.m.1"),
        *("model.6", "model.6.m", "model.6.m.0", "model.6.m.1", "model.6.m.2", "model.8", "model.8.m", "model.9", "model.9.m"),
        *("model.13.m", "model.13.cv3", "model.17.m", "model.17.cv3", "model.20", "model.20.m", "model.23", "model.23.m"),
        *("level 8", "level 16", "level 32"),
    ]
    assert all(found[name] == rows_to_drop(network, [name]) for name in found if not name.startswith("level"))
    assert found["level 8"] == rows_to_drop(network, levels=[16, 32])
    assert list(droppable(CHAIN)) == ["b", "level 2", "level 4"]
    assert "level 4" not in droppable(without(CHAIN, rows_to_drop(CHAIN, levels=[4])))


CHAIN = Network(
    (
        Row("images", "image", channels=3),
        Row("a", "conv", ("images",), 4, 3, 2, 1, norm=True),
        Row("b.one", "conv", ("a",), 2, 1, norm=True),
        Row("b.two", "conv", ("b.one",), 4, 3, 1, 1, norm=True),
        Row("b.add", "add", ("a", "b.two")),
        Row("c", "conv", ("b.add",), 4, 3, 2, 1, norm=True),
        Row("d", "upsample", ("c",), stride=2),
        Row("e", "concat", ("d", "b.add")),
        Row("level2", "conv", ("e",), 6, bias=True),
        Row("level4", "conv", ("c",), 6, bias=True),
        Row("detect", "detect", ("level2", "level4")),
    ),
    (((8.0, 8.0),), ((16.0, 16.0),)),
)


def test_what_vanishes_by_hand() -> None:
    assert rows_to_drop(CHAIN) == ()
    assert rows_to_drop(CHAIN, ["b"]) == ("b.one", "b.two", "b.add")
    assert rows_to_drop(CHAIN, ["b.*"], [4, 2]) == ("b.one", "b.two", "b.add")
    assert rows_to_drop(CHAIN, levels=[4]) == ("d", "e", "level2")
    assert rows_to_drop(CHAIN, levels=[2]) == ("level4",)
    smaller = without(CHAIN, ("b.one", "b.two", "b.add", "d", "e", "level2"))
    assert smaller.to_json() == [
        {"name": "images", "op": "image", "channels": 3},
        {"name": "a", "op": "conv", "inputs": ("images",), "channels": 4, "kernel": 3, "stride": 2, "padding": 1, "norm": True},
        {"name": "c", "op": "conv", "inputs": ("a",), "channels": 4, "kernel": 3, "stride": 2, "padding": 1, "norm": True},
        {"name": "level4", "op": "conv", "inputs": ("c",), "channels": 6, "bias": True},
        {"name": "detect", "op": "detect", "inputs": ("level4",)},
    ]
    assert smaller.anchors == (((16.0, 16.0),),)
    assert only_levels(CHAIN, [1]) == ("d", "e", "level2")
    assert told(CHAIN, ("b.one", "b.two", "b.add", "d", "e", "level2")) == "level 2; 6 rows (b.*, d, e, level2)"


def test_rows_that_may_only_go_with_a_level() -> None:
    """Without the level of stride 4, rows of another stride than what came before them can go; the level itself would change its stride."""
    assert rows_to_drop(CHAIN, ["c", "d"], [2]) == ("c", "d", "level4")
    assert without(CHAIN, ("c", "d", "level4")).rows[5] == Row("e", "concat", ("b.add", "b.add"))
    with pytest.raises(InputError, match=r"drop: 'c' cannot go: level4 reads c \(4 channels at stride 4\), and what comes before it is b.add"):
        rows_to_drop(CHAIN, ["c", "d"])


@pytest.mark.parametrize(
    ("drop", "levels", "message"),
    [
        (["a"], (), "drop: 'a' cannot go: b.one reads a (4 channels at stride 2), and what comes before it is images (3 channels at stride 1)"),
        (
            ["b.one"],
            (),
            "drop: 'b.one' cannot go: b.two reads b.one (2 channels at stride 2), and what comes before it is a (4 channels at stride 2)",
        ),
        (["b.add"], (), "drop: b.add cannot go: e reads it, and two maps come before it, a and b.two"),
        (["e"], (), "drop: e cannot go: level2 reads it, and two maps come before it, d and b.add"),
        (["level*"], (), "drop: 'level*' matches level2, an output of detect; levels says which levels stay"),
        (["*"], (), "drop: '*' matches level2, an output of detect; levels says which levels stay"),
        (["f"], (), "drop: 'f' matches no row; their names look like a, level4"),
        (["detect"], (), "drop: 'detect' matches no row; their names look like a, level4"),
        (["images"], (), "drop: 'images' matches no row; their names look like a, level4"),
        ((), [8], "levels: no level has the stride 8; there are 2, 4"),
        ((), [2, 8], "levels: no level has the stride 8; there are 2, 4"),
    ],
)
def test_what_cannot_go(drop: Sequence[str], levels: Sequence[int], message: str) -> None:
    with pytest.raises(InputError) as caught:
        rows_to_drop(CHAIN, drop, levels)
    assert str(caught.value) == message


def test_a_level_takes_its_share_of_the_cost() -> None:
    """yolov5n for three classes without P5 loses a C3 and the convolutions around it, counted by hand from the table."""
    network = yolov5_network("yolov5n", classes=3)
    smaller = without(network, rows_to_drop(network, levels=[8, 16]))
    before, after = network_cost(network, 320), network_cost(smaller, 320)
    lost = {name for name in before.convs if name not in after.convs}
    assert lost == {"model.21", *(f"model.23.{part}" for part in ("cv1", "cv2", "cv3", "m.0.cv1", "m.0.cv2")), "model.24.m.2"}
    c3 = 128 * 2 * 256 + 256 * 256 + 128 * 128 + 9 * 128 * 128
    assert before.parameters - after.parameters == 9 * 128 * 128 + c3 + 256 * 24 + 24 + 2 * (128 + 128 + 128 + 256 + 128 + 128)
    assert before.macs - after.macs == (9 * 128 * 128 + c3 + 256 * 24) * 100


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_every_target_computes_the_network_with_dropped_rows(target: str, tmp_path: Path) -> None:
    """Against the whole network in NumPy, with the rows bypassed."""
    kind = runnable(TARGETS[target])
    model = variant("yolov5n")
    patterns, levels = ["model.2.m", "model.6.m.1", "model.8", "model.13.m.*"], (8, 16)
    smaller = without_rows(model, rows_to_drop(model.network, patterns, levels))
    picture = np.random.default_rng(5).integers(0, 256, (1, 64, 96, 3), np.uint8)
    image = picture.transpose(0, 3, 1, 2).astype(np.float32) / 255
    expected = decode(smaller.network, expected_heads(model, patterns, levels, image))
    path = tmp_path / f"small{kind.ending}"
    kind.write(smaller, path, Order("fp32", 64, 96))
    session = open_session(path)
    try:
        found = session(picture)
    finally:
        session.close()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found[..., 4:], expected[..., 4:], atol=1e-4)
    np.testing.assert_allclose(found[..., :4], expected[..., :4], atol=2e-2)

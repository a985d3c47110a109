"""The C runtime against the reference in float64: what rows can say, sizes, threads, batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from octrim.network.adapt import with_activation
from octrim.network.model import Model
from octrim.network.rows import Network, Row
from octrim.network.yolov5 import yolov5_network
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.targets.c.compiler import has_compiler
from octrim.targets.c.folder import write_folder
from octrim.targets.c.lowering import Kind
from octrim.targets.c.program import program
from octrim.targets.c.session import CFolderSession, CSession
from tests.networks import ACTIVATIONS, lively_model, random_networks, variant
from tests.targets.c.material import assert_close, calm, one_level, picture, reference

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not has_compiler(), reason="no C compiler")]


def found_by(model: Model, batch: np.ndarray, threads: int = 1) -> np.ndarray:
    session = CSession(model, "fp32", threads)
    try:
        return session(batch)
    finally:
        session.close()


def kinds_of(model: Model, height: int, width: int) -> set[Kind]:
    return {Kind(step.kind) for step in program(model, height, width).steps}


@pytest.mark.slow
@settings(max_examples=40, phases=[Phase.explicit, Phase.generate])
@given(network=random_networks(), cells=st.tuples(st.integers(1, 12), st.integers(1, 16)))
def test_random_networks(network: Network, cells: tuple[int, int]) -> None:
    """The same bits for any number of threads, and every time, on maps of a single cell and on wide ones."""
    model = lively_model(network, seed=1)
    size = [count * network.stride for count in cells]
    batch = np.random.default_rng(2).integers(0, 256, (2, *size, 3), np.uint8)
    found = found_by(model, batch)
    assert_close(found, reference(model, batch))
    for threads in (2, 3):
        assert np.array_equal(found_by(model, batch, threads), found)


STEM = Row("stem", "conv", ("images",), 8, 3, 2, 1, norm=True, activation="silu")


def after_stem(*rows: Row, cell: int) -> Network:
    return one_level(STEM, *rows, last=rows[-1].name, cell=cell)


UNUSUAL = {
    "even window": (after_stem(Row("a", "conv", ("stem",), 6, 2, 2, 0, norm=True, activation="silu"), cell=4), Kind.CONVOLUTION),
    "no padding": (
        after_stem(Row("a", "conv", ("stem",), 6, 3, 1, 0, bias=True), Row("b", "conv", ("a",), 5, 3, 1, 2, norm=True, activation="relu"), cell=2),
        Kind.CONVOLUTION,
    ),
    "stride 4": (after_stem(Row("a", "conv", ("stem",), 6, 4, 4, 0, norm=True, activation="silu"), cell=8), Kind.PLAIN),
    "window of 17": (after_stem(Row("a", "conv", ("stem",), 3, 17, 1, 8, norm=True, activation="mish"), cell=2), Kind.PLAIN),
    "large stride 2": (after_stem(Row("a", "conv", ("stem",), 6, 7, 2, 3, norm=True, activation="silu"), cell=4), Kind.CONVOLUTION),
    "groups and stride": (after_stem(Row("a", "conv", ("stem",), 12, 3, 2, 1, 4, norm=True, activation="silu"), cell=4), Kind.CONVOLUTION),
    **{
        f"depthwise {kernel}x{kernel}, stride {stride}": (
            after_stem(Row("a", "conv", ("stem",), 8, kernel, stride, kernel // 2, 8, norm=True, activation="hardswish"), cell=2 * stride),
            Kind.CONVOLUTION if kernel == 13 else Kind.DEPTHWISE,
        )
        for kernel in (1, 3, 5, 11, 13)
        for stride in (1, 2)
    },
    "depthwise of several maps, and a sum": (
        after_stem(
            Row("a", "conv", ("stem",), 8, 3, 1, 1, norm=True, activation="silu"),
            Row("b", "concat", ("stem", "a")),
            Row("c", "conv", ("b",), 16, 3, 1, 1, 16, norm=True, activation="silu"),
            Row("d", "conv", ("c",), 16, 5, 1, 2, 16, bias=True, activation="relu6"),
            Row("e", "add", ("c", "d")),
            cell=2,
        ),
        Kind.DEPTHWISE,
    ),
    "depthwise by the activation that blocks compute, and a sum": (
        after_stem(
            Row("a", "conv", ("stem",), 8, 5, 1, 2, 8, norm=True, activation="hardswish"),
            Row("b", "add", ("stem", "a")),
            Row("c", "conv", ("b",), 20, 1, 1, 0, norm=True, activation="hardswish"),
            Row("d", "conv", ("c",), 20, 1, 1, 0, norm=True, activation="hardswish"),
            Row("e", "add", ("c", "d")),
            cell=2,
        ),
        Kind.DEPTHWISE,
    ),
    "depthwise without padding, behind a narrow map": (
        after_stem(
            Row("a", "maxpool", ("stem",), kernel=4, stride=4),
            Row("b", "conv", ("a",), 8, 3, 1, 2, 8, norm=True, activation="mish"),
            Row("c", "conv", ("b",), 8, 3, 1, 0, 8, bias=True),
            cell=8,
        ),
        Kind.DEPTHWISE,
    ),
    "two channels of every plane": (after_stem(Row("a", "conv", ("stem",), 16, 3, 1, 1, 8, norm=True, activation="silu"), cell=2), Kind.CONVOLUTION),
    "more padding than the window": (
        after_stem(
            Row("a", "conv", ("stem",), 4, 1, 1, 1, bias=True),
            Row("b", "conv", ("a",), 4, 3, 1, 0, norm=True, activation="silu"),
            cell=2,
        ),
        Kind.CONVOLUTION,
    ),
    "pool of stride 4": (after_stem(Row("a", "maxpool", ("stem",), kernel=5, stride=4, padding=2), cell=8), Kind.POOL),
    **{
        f"pool of stride 2, {kernel}x{kernel}": (
            after_stem(Row("a", "maxpool", ("stem",), kernel=kernel, stride=2, padding=(kernel - 1) // 2), cell=4),
            Kind.POOL,
        )
        for kernel in (2, 3, 5)
    },
    "pool without padding": (
        after_stem(Row("a", "maxpool", ("stem",), kernel=3), Row("b", "conv", ("a",), 4, 3, 1, 2, norm=True), cell=2),
        Kind.POOL,
    ),
    "pools of several maps, split": (
        after_stem(
            Row("a", "add", ("stem", "stem")),
            Row("b", "concat", ("stem", "a")),
            Row("c", "maxpool", ("b",), kernel=3, padding=1),
            Row("d", "conv", ("c",), 6, 3, 2, 1, norm=True, activation="silu"),
            cell=4,
        ),
        Kind.PARITY,
    ),
    "upsampling by 4": (
        after_stem(Row("a", "maxpool", ("stem",), kernel=2, stride=2), Row("b", "upsample", ("a",), stride=4), cell=1),
        Kind.UPSAMPLE,
    ),
    "a map added to itself": (after_stem(Row("a", "add", ("stem", "stem")), cell=2), Kind.ADD),
    "a sum with what the window reads": (
        after_stem(Row("a", "conv", ("stem",), 8, 3, 1, 1, norm=True, activation="silu"), Row("b", "add", ("stem", "a")), cell=2),
        Kind.CONVOLUTION,
    ),
    "a sum read twice": (
        after_stem(
            Row("a", "conv", ("stem",), 8, 3, 1, 1, norm=True, activation="silu"),
            Row("b", "add", ("stem", "a")),
            Row("c", "concat", ("a", "b", "a")),
            cell=2,
        ),
        Kind.ADD,
    ),
    "a concat added": (
        after_stem(
            Row("a", "conv", ("stem",), 4, norm=True, activation="silu"),
            Row("b", "concat", ("a", "a")),
            Row("c", "conv", ("b",), 8, 3, 1, 1, norm=True),
            Row("d", "add", ("b", "c")),
            cell=2,
        ),
        Kind.ADD,
    ),
    "no convolution but Detect's": (one_level(Row("a", "maxpool", ("images",), kernel=2, stride=2), last="a", cell=2), Kind.POOL),
    "the picture everywhere": (
        one_level(
            Row("a", "maxpool", ("images",), kernel=2, stride=2),
            Row("b", "conv", ("images",), 4, 2, 2, 0, norm=True, activation="sigmoid"),
            Row("c", "concat", ("a", "b", "a")),
            last="c",
            cell=2,
        ),
        Kind.IMAGE,
    ),
}


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_unusual_rows(name: str, size: tuple[int, int]) -> None:
    network, kind = UNUSUAL[name]
    model = calm(lively_model(network, seed=3))
    assert kind in kinds_of(model, *size)
    batch = picture(*size)
    found = found_by(model, batch)
    assert_close(found, reference(model, batch))
    assert np.array_equal(found_by(model, batch, 3), found)


@pytest.mark.parametrize("size", [(6, 32), (12, 32), (10, 64), (12, 64), (14, 60), (24, 64), (40, 64), (56, 96)])
@pytest.mark.parametrize("kernel", [2, 6])
def test_bands_whose_height_is_no_multiple_of_four(kernel: int, size: tuple[int, int]) -> None:
    """Winograd's transform makes four lines at once: those below the band are not written, or the next window would read them as padding."""
    rows = [Row("stem", "conv", ("images",), 4, kernel, 2, kernel // 2 - 1, norm=True, activation="silu")]
    for source, name in (("stem", "a"), ("a", "b"), ("b", "c")):
        rows.append(Row(name, "conv", (source,), 5, 3, 1, 1, norm=True, activation="silu"))
    model = calm(lively_model(one_level(*rows, last="c", cell=2)))
    batch = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    for threads in (1, 2):
        session = CSession(model, "fp32", threads)
        found, again = session(batch), session(batch)
        session.close()
        assert_close(found, reference(model, batch))
        assert np.array_equal(found, again)


@pytest.mark.parametrize("name", [*UNUSUAL, "silu", "relu", "relu6", "hardswish", "mish", "leaky_relu:0.1"])
def test_a_folder_holds_the_kernels_that_its_network_calls(name: str, tmp_path: Path) -> None:
    """It leaves out the others, and computes the same bits as the runtime that has all of them."""
    network = UNUSUAL[name][0] if name in UNUSUAL else with_activation(variant("yolov5n"), name).network
    model = calm(lively_model(network, seed=3))
    write_folder(model, tmp_path, 32, 64)
    session = CFolderSession(tmp_path, "fp32", 1)
    batch = picture(32, 64)
    found = session(batch)
    session.close()
    assert np.array_equal(found, found_by(model, batch))


@pytest.mark.parametrize("size", [(32, 32), (36, 60), (64, 64), (36, 68), (32, 164), (96, 320)])
@pytest.mark.parametrize("kernel", [3, 5])
def test_a_picture_read_by_one_window_of_stride_2(size: tuple[int, int], kernel: int) -> None:
    """Where lines are long enough, bytes go to planes by parity at once."""
    first = Row("a", "conv", ("images",), 6, kernel, 2, kernel // 2, norm=True, activation="hardswish")
    model = calm(lively_model(one_level(first, Row("b", "conv", ("a",), 6, 3, 1, 1, 6, norm=True, activation="hardswish"), last="b", cell=2)))
    assert kinds_of(model, *size) == {Kind.IMAGE, Kind.CONVOLUTION, Kind.DEPTHWISE, Kind.HEAD} | ({Kind.PARITY} if size[1] < 64 else set())
    batch = np.random.default_rng(4).integers(0, 256, (1, *size, 3), np.uint8)
    found = found_by(model, batch)
    assert_close(found, reference(model, batch))
    assert np.array_equal(found_by(model, batch, 3), found)


def test_a_picture_read_by_two_windows_keeps_its_planes() -> None:
    rows = (
        Row("a", "conv", ("images",), 6, 3, 2, 1, norm=True, activation="silu"),
        Row("b", "maxpool", ("images",), kernel=2, stride=2),
        Row("c", "concat", ("a", "b")),
    )
    model = calm(lively_model(one_level(*rows, last="c", cell=2)))
    assert Kind.PARITY in kinds_of(model, 64, 64)
    batch = picture(64, 64)
    assert_close(found_by(model, batch), reference(model, batch))


def test_a_head_that_is_a_window() -> None:
    network = one_level(STEM, Row("a", "conv", ("stem",), 8, 3, 2, 1, norm=True, activation="silu"), last="a", cell=4)
    rows = (*network.rows[:-2], replace(network.rows[-2], kernel=3, padding=1), network.rows[-1])
    model = calm(lively_model(Network(rows, network.anchors)))
    batch = picture(64, 64)
    assert_close(found_by(model, batch), reference(model, batch))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("channels", [3, 4, 16])
def test_activations(activation: str | None, channels: int) -> None:
    """Behind the stem, a window of Winograd's, any window and a sum, for channels that fill a block and those that do not."""
    rows = (
        Row("stem", "conv", ("images",), channels, 6, 2, 2, norm=True, activation=activation),
        Row("a", "conv", ("stem",), channels, 3, 1, 1, norm=True, activation=activation),
        Row("b", "add", ("stem", "a")),
        Row("c", "conv", ("b",), channels, 3, 2, 1, norm=True, activation=activation),
    )
    model = calm(lively_model(one_level(*rows, last="c", cell=4)))
    assert kinds_of(model, 64, 128) == {Kind.STEM, Kind.WINOGRAD, Kind.CONVOLUTION, Kind.PARITY, Kind.HEAD}
    batch = picture(64, 128)
    assert_close(found_by(model, batch, 2), reference(model, batch))


@pytest.mark.parametrize("kernel", [3, 5, 7, 9, 15])
@pytest.mark.parametrize("size", [(64, 1536), (192, 512), (160, 96)])
def test_windows_that_reach_over_a_chunk(kernel: int, size: tuple[int, int]) -> None:
    """Rows of the other band are there for every chunk whose windows read them, however few rows a chunk has."""
    network = one_level(
        Row("a", "conv", ("images",), 4, 2, 2, 0, bias=True),
        Row("b", "conv", ("a",), 4, 2, 2, 0, bias=True),
        Row("c", "conv", ("b",), 4, 2, 2, 0, bias=True),
        Row("d", "conv", ("c",), 4, kernel, 1, kernel // 2, bias=True),
        Row("e", "conv", ("d",), 4, kernel, 1, kernel // 2, 4, bias=True),
        last="e",
        cell=8,
    )
    model = calm(lively_model(network))
    batch = picture(*size)
    found = found_by(model, batch)
    assert_close(found, reference(model, batch))
    assert np.array_equal(found_by(model, batch, 2), found)


def test_activations_far_from_zero() -> None:
    """No overflow where 2^-z has left the range of floats, on either side."""
    rows = (Row("a", "conv", ("images",), 16, 1, 1, 0, bias=True, activation="silu"), Row("b", "conv", ("a",), 4, 2, 2, 0, bias=True))
    model = lively_model(one_level(*rows, last="b", cell=2))
    biases = np.array([-1e4, -300, -130, -127, -100, -90, -20, 0, 20, 90, 100, 127, 130, 300, 1e4, 3e4], np.float32)
    tensors = {**model.tensors, "a.bias": biases, "b.weight": model.tensors["b.weight"] * np.float32(1e-5)}
    model = replace(model, tensors=tensors)
    batch = picture(32, 32)
    assert_close(found_by(model, batch), reference(model, batch))


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 5, 11, 80])
@pytest.mark.parametrize("cfg", ["yolov5n", "yolov5n6"])
def test_levels_and_classes(cfg: str, classes: int) -> None:
    model = calm(lively_model(yolov5_network(cfg, classes)))
    batch = picture(64, 128)
    assert_close(found_by(model, batch, 2), reference(model, batch))


@pytest.mark.parametrize("size", [(64, 64), (96, 416), (416, 96), (160, 224)])
@pytest.mark.parametrize("align", [1, 8])
def test_cut_networks(size: tuple[int, int], align: int) -> None:
    model = calm(lively_model(yolov5_network("yolov5n", 3)))
    small = prune(model, plan(model, keep="1/8", align=align))
    batch = picture(*size)
    found = found_by(small, batch)
    assert_close(found, reference(small, batch))
    assert np.array_equal(found_by(small, batch, 4), found)


def test_a_session_serves_sizes_and_batches() -> None:
    model = calm(lively_model(yolov5_network("yolov5n", 2)))
    with_one, with_two = CSession(model, "fp32", 1), CSession(model, "fp32", 2)
    for size in ((64, 64), (64, 96), (64, 64)):
        batch = np.concatenate([picture(*size, seed) for seed in range(3)])
        found = with_one(batch)
        assert np.array_equal(found, with_two(batch))
        assert np.array_equal(found[1:2], with_one(batch[1:2]))
        assert_close(found, reference(model, batch))
    assert with_one(batch[:0]).shape == (0, *found.shape[1:])

"""Checkpoints of older releases, of pruned forks and after `model.fuse()`: read, and run against the published arithmetic (`published`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octrim.backends.numpy import NumpyOps
from octrim.errors import InputError
from octrim.network.cost import network_cost
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.rows import walk
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from tests.checkpoints import CheckpointWriter, official_names
from tests.network.published import Maker, Published, concat, maxpool, upsample, zero_pad

ANCHORS = (((10.0, 13.0), (33.0, 23.0)), ((61.0, 45.0), (116.0, 90.0)))


def read(path: Path, network: Published, root: str = "models.yolo.Model", wrapped: str | None = None) -> Model:
    with official_names() as name:
        writer = CheckpointWriter(name, "f8")
        tree = network.tree(writer, root)
        if wrapped:
            tree = writer.module(wrapped, {"module" if "parallel" in wrapped else "model": tree})
        writer.save(path, {"model": tree, "ema": None, "epoch": -1})
    return load(path)


def holds(model: Model, network: Published) -> None:
    """The rows compute what the modules compute."""
    picture = np.random.default_rng(1).uniform(0, 1, (2, 3, 64, 96))
    expected, found = network(picture), walk(model.network, NumpyOps(model, np.float64), picture)
    assert (model.network.strides, model.network.anchors) == (network.strides, network.anchors)
    for one, other in zip(expected, found, strict=True):
        assert np.abs(one).max() > 0.5  # signals that have died would prove nothing
        np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-9)


def layout(backbone: list[Any], head: list[Any], levels: list[int]) -> dict[str, Any]:
    detect = [levels, 1, "Detect", ["nc", "anchors"]]
    return {"depth_multiple": 1.0, "width_multiple": 1.0, "anchors": [[1] * 4] * 2, "backbone": backbone, "head": [*head, detect]}


def older(maker: Maker) -> Published:
    """As releases 3 to 5 are built: Focus, BottleneckCSP, SPP before the last block; C3 as in 4 and 5."""
    layers = [
        (-1, maker.focus(3, 16, 3)),
        (-1, maker.conv(16, 16, 3, 2)),
        (-1, maker.csp(16, 16, 2, True)),
        (-1, maker.conv(16, 32, 3, 2)),
        (-1, maker.spp(32, 32, [5, 9, 13])),
        (-1, maker.csp(32, 32, 1, False)),
        (-1, upsample(2)),
        ([-1, 2], concat()),
        (-1, maker.c3(48, (8, 8, 8), 16, [maker.bottleneck(8, 8, 8, False)])),
    ]
    backbone = [
        [-1, 1, "Focus", [16, 3]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 2, "BottleneckCSP", [16]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "SPP", [32, [5, 9, 13]]],
        [-1, 1, "BottleneckCSP", [32, False]],
    ]
    head = [[-1, 1, "nn.Upsample", [None, 2, "nearest"]], [[-1, 2], 1, "Concat", [1]], [-1, 1, "C3", [16, False]]]
    return Published(maker, layers, [8, 5], layout(backbone, head, [8, 5]), [16, 32], (4, 8), ANCHORS)


def tiny(maker: Maker, written: object = (0, 1, 0, 1), built: tuple[int, ...] = (0, 1, 0, 1)) -> Published:
    """The end of YOLOv3-tiny's backbone: a pool of stride 1 behind padding on two sides. written: padding in the layout; built: in the module."""
    layers = [
        (-1, maker.conv(3, 8, 3)),
        (-1, maxpool(2, 2, 0)),
        (-1, maker.conv(8, 16, 3, 4)),
        (-1, maker.conv(16, 32, 3, 2)),
        (-1, zero_pad(*built)),
        (-1, maxpool(2, 1, 0)),
        (-1, maker.conv(32, 16, 1)),
        (-1, upsample(2)),
        ([-1, 2], concat()),
    ]
    backbone = [
        [-1, 1, "Conv", [8, 3, 1]],
        [-1, 1, "nn.MaxPool2d", [2, 2, 0]],
        [-1, 1, "Conv", [16, 3, 4]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "nn.ZeroPad2d", [list(written) if isinstance(written, tuple) else written]],
        [-1, 1, "nn.MaxPool2d", [2, 1, 0]],
    ]
    head = [[-1, 1, "Conv", [16, 1, 1]], [-1, 1, "nn.Upsample", [None, 2, "nearest"]], [[-1, 2], 1, "Concat", [1]]]
    return Published(maker, layers, [8, 6], layout(backbone, head, [8, 6]), [32, 16], (8, 16), ANCHORS)


def test_padding_on_two_sides(tmp_path: Path) -> None:
    """As a depthwise convolution whose weights copy, exactly; they are no parameters, and no criterion asks for a batch norm of it."""
    network = tiny(Maker(5))
    model = read(tmp_path / "a.pt", network)
    holds(model, network)
    pad = next(row for row in model.network.convs if row.pads)
    assert (pad.name, pad.kernel, pad.padding, pad.groups) == ("model.4", 2, 1, 32)
    x = np.random.default_rng(0).normal(size=(1, 32, 5, 7))
    np.testing.assert_array_equal(NumpyOps(model, np.float64).conv(pad, x), np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1))))
    small = prune(model, plan(model, "1/2", criterion="signal"))
    assert sorted(set(small.tensors["model.4.weight"].ravel().tolist())) == [0.0, 1.0]
    assert next(row for row in small.network.convs if row.pads).channels == 16
    assert network_cost(small.network, 64).convs["model.4"].parameters == 0


def test_padding_that_the_checkpoint_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model.4: expected a ZeroPad2d module by \(0, 1, 0, 1\), found .* by '?\(1, 0, 1, 0\)"):
        read(tmp_path / "a.pt", tiny(Maker(5), built=(1, 0, 1, 0)))


@pytest.mark.parametrize("act", ["torch.nn.modules.activation.SiLU", "utils.activations.Hardswish", "torch.nn.modules.activation.LeakyReLU"])
def test_releases_with_focus_and_csp(tmp_path: Path, act: str) -> None:
    network = older(Maker(1, act))
    model = read(tmp_path / "a.pt", network)
    assert (model.network.rows[1].kernel, model.network.rows[1].stride, model.network.rows[1].padding) == (6, 2, 2)
    holds(model, network)
    plan(model, "1/2")  # and it can be cut


@pytest.mark.parametrize("protocol", [2, 4])
def test_fused(tmp_path: Path, protocol: int) -> None:
    """After `model.fuse()`: biases instead of batch norm in every Conv, and its forward replaced by a bound method."""
    network = older(Maker(2, fused=True))
    with official_names() as name:
        writer = CheckpointWriter(name, "f8")
        writer.save(tmp_path / "a.pt", {"model": network.tree(writer), "ema": None}, protocol)
    model = load(tmp_path / "a.pt")
    normed = {row.name for row in model.network.convs if row.norm}
    assert normed == {f"model.{index}.{conv}" for index in (2, 5) for conv in ("cv2", "cv3")}  # only the one batch norm of each CSP is left
    holds(model, network)


def test_ghost(tmp_path: Path) -> None:
    maker = Maker(3)
    layers = [
        (-1, maker.conv(3, 16, 6, 2, 2)),
        (-1, maker.ghost_conv(16, 32, 3, 2)),
        (-1, maker.c3(32, (16, 16, 16), 32, [maker.ghost_bottleneck(16, 16) for _ in range(2)], "C3Ghost")),
        (-1, maker.ghost_bottleneck(32, 48, 3, 2)),
        (-1, maker.dwconv(48, 32, 3)),
        (-1, maxpool(3, 1, 1)),
    ]
    backbone = [
        [-1, 1, "Conv", [16, 6, 2, 2]],
        [-1, 1, "GhostConv", [32, 3, 2]],
        [-1, 2, "C3Ghost", [32]],
        [-1, 1, "GhostBottleneck", [48, 3, 2]],
        [-1, 1, "DWConv", [32, 3]],
    ]
    network = Published(maker, layers, [2, 5], layout(backbone, [[-1, 1, "nn.MaxPool2d", [3, 1, 1]]], [2, 5]), [32, 32], (4, 8), ANCHORS)
    model = read(tmp_path / "a.pt", network)
    holds(model, network)
    plan(model, "1/2")


def pruned(maker: Maker, suffix: str) -> Published:
    """Channel counts that no width multiple gives, as pruning leaves them, while the layout still says 32 everywhere."""
    layers = [
        (-1, maker.conv(3, 11, 6, 2, 2)),
        (-1, maker.conv(11, 13, 3, 2)),
        (
            -1,
            maker.c3(
                13,
                (9, 9, 5),
                17,
                [maker.bottleneck(9, 4, 9, True, f"Bottleneck{suffix}"), maker.bottleneck(9, 6, 9, True, f"Bottleneck{suffix}")],
                f"C3{suffix}",
            ),
        ),
        (-1, maker.conv(17, 19, 3, 2)),
        (-1, maker.c3(19, (7, 10, 6), 21, [maker.bottleneck(7, 3, 10, False, f"Bottleneck{suffix}")], f"C3{suffix}")),
        (-1, maker.sppf(21, 7, 23, 5, f"SPPF{suffix}")),
        (-1, maker.conv(23, 12)),
        (-1, upsample(2)),
        ([-1, 2], concat()),
        (-1, maker.c3(29, (5, 8, 3), 14, [maker.bottleneck(5, 5, 8, False, f"Bottleneck{suffix}")], f"C3{suffix}")),
    ]
    backbone = [
        [-1, 1, "Conv", [32, 6, 2, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 2, f"C3{suffix}", [32]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, f"C3{suffix}", [32]],
        [-1, 1, f"SPPF{suffix}", [32, 5]],
    ]
    head = [
        [-1, 1, "Conv", [32, 1, 1]],
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 2], 1, "Concat", [1]],
        [-1, 1, f"C3{suffix}", [32, False]],
    ]
    return Published(maker, layers, [9, 5], layout(backbone, head, [9, 5]), [14, 23], (4, 8), ANCHORS)


@pytest.mark.parametrize(
    ("suffix", "root", "wrapped"),
    [
        ("Pruned", "models.yolo.ModelPruned", None),
        ("", "models.yolo.DetectionModel", None),  # as Torch-Pruning leaves it: the published classes with fewer channels
        ("", "models.yolo.Model", "torch.nn.parallel.data_parallel.DataParallel"),
        ("", "models.yolo.DetectionModel", "models.common.AutoShape"),  # from torch.hub
    ],
)
def test_pruned_forks(tmp_path: Path, suffix: str, root: str, wrapped: str | None) -> None:
    network = pruned(Maker(4), suffix)
    model = read(tmp_path / "a.pt", network, root, wrapped)
    assert [row.channels for row in model.network.convs][:2] == [11, 13]
    holds(model, network)


def test_blocks_that_were_taken_out(tmp_path: Path) -> None:
    """A pruned network may have fewer bottlenecks than its layout says, down to none."""
    network = pruned(Maker(6), "")
    network.layers[9] = (-1, network.maker.c3(29, (5, 5, 3), 14, []))
    network.layers[2] = (-1, network.maker.c3(13, (9, 9, 5), 17, [network.maker.bottleneck(9, 4, 9, True)]))
    model = read(tmp_path / "a.pt", network)
    assert {row.name for row in model.network.rows if ".m." in row.name and row.name.startswith(("model.2.", "model.9."))} == {
        "model.2.m.0.cv1",
        "model.2.m.0.cv2",
        "model.2.m.0.add",
    }
    holds(model, network)


@pytest.mark.parametrize(("more", "told"), [(10, "landmarks, as yolov5-face"), (180, "angles, as yolov5-obb"), (3, "expected 2 x ")])
def test_detect_that_gives_more(tmp_path: Path, more: int, told: str) -> None:
    network = older(Maker(5))
    with pytest.raises(InputError, match=told):
        read(tmp_path / "a.pt", replace(network, more=more))

"""Layouts against the published sizes, and errors that name the line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from octrim.errors import InputError
from octrim.network.cost import network_cost, tensor_shapes
from octrim.network.layout import VARIANTS, read_layout
from octrim.network.rows import Row
from octrim.network.yolov5 import anchors_to_fit, yolov5_network

# parameters with batch norm, convolution MACs at 640x640, convolutions, sum of their output channels; 80 classes (published networks)
SIZES = {
    "yolov5n": (1_872_157, 2_234_060_800, 60, 5_517),
    "yolov5s": (7_235_389, 8_216_780_800, 60, 10_269),
    "yolov5m": (21_190_557, 24_436_224_000, 82, 19_149),
    "yolov5l": (46_563_709, 54_496_870_400, 104, 30_781),
    "yolov5x": (86_749_405, 102_724_096_000, 126, 45_165),
    "yolov5n6": (3_246_940, 2_279_526_400, 79, 8_076),
    "yolov5s6": (12_626_620, 8_398_643_200, 79, 15_132),
    "yolov5m6": (35_731_932, 24_956_006_400, 107, 28_044),
    "yolov5l6": (76_770_172, 55_617_536_000, 135, 44_860),
    "yolov5x6": (140_794_780, 104_782_336_000, 163, 65_580),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_published_sizes(name: str) -> None:
    network = yolov5_network(name)
    cost = network_cost(network, 640)
    assert (cost.parameters, cost.macs, len(cost.convs), cost.channels) == SIZES[name]
    assert network.strides == ((8, 16, 32, 64) if name.endswith("6") else (8, 16, 32))
    assert sum(name.endswith("running_var") for name in tensor_shapes(network)) == len(cost.convs) - len(network.strides)


def test_yaml_suffix_and_class_count() -> None:
    assert yolov5_network("yolov5s.yaml") == yolov5_network("yolov5s")
    # 3 anchors x (5 + classes) outputs on 64, 128 and 256 channels, each with a bias
    assert network_cost(yolov5_network("yolov5n", 3)).parameters == SIZES["yolov5n"][0] - 3 * 77 * (64 + 128 + 256 + 3)


LAYOUT = """\
nc: 4
depth_multiple: 0.5
width_multiple: 0.5
activation: nn.LeakyReLU(0.1)
anchors:
  - [10, 13, 16, 30]
  - [30, 61, 62, 45]
backbone:
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, Conv, [64, 3, 2, None, 2]]
  - [-1, 3, Bottleneck, [64, True]]
  - [-1, 1, Conv, [64, 3, 2, act=nn.ReLU()]]
  - [-1, 1, SPP, [64, [3, 5]]]
  - [-1, 1, Conv, [64, 3, 2, None, 1, 1, False]]
head:
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 4], 1, Concat, [1]]
  - [-1, 2, C3, [48, False, 1, 1.0]]
  - [-1, 1, Conv, [64, 3, 2, None, 1, nn.Hardswish()]]
  - [[8, 9], 1, Detect, [nc, anchors]]
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, "utf-8")
    return str(path)


def test_users_layout(tmp_path: Path) -> None:
    network = yolov5_network(write(tmp_path, LAYOUT))
    rows = {row.name: row for row in network.rows}
    assert rows["model.0"] == Row("model.0", "conv", ("images",), 16, 3, 2, 1, norm=True, activation="leaky_relu:0.1")
    assert (rows["model.1"].channels, rows["model.1"].groups) == (32, 2)
    # 3 repeats at depth 0.5 are round(1.5) = 2, in a sequence; hidden channels are half
    assert rows["model.2.1.cv1"].inputs == ("model.2.0.add",)
    assert (rows["model.2.0.cv1"].channels, rows["model.2.1.cv2"].channels) == (16, 32)
    assert rows["model.3"].activation == "relu"
    assert [rows[f"model.4.m.{index}"].kernel for index in (0, 1)] == [3, 5]
    assert rows["model.4.concat"].inputs == ("model.4.cv1", "model.4.m.0", "model.4.m.1")
    assert rows["model.5"].activation is None
    # 2 repeats at depth 0.5 are 1; no shortcut; expansion 1
    assert (rows["model.8.cv1"].channels, "model.8.m.0.add" in rows, "model.8.m.1.cv1" in rows) == (24, False, False)
    assert rows["model.9"].activation == "hardswish"
    assert (rows["model.10.m.0"].channels, rows["model.10.m.0"].bias, rows["model.10.m.0"].norm) == (18, True, False)
    assert network.strides == (8, 16)
    assert network.anchors == (((10.0, 13.0), (16.0, 30.0)), ((30.0, 61.0), (62.0, 45.0)))


def test_channels_that_equal_detects_output_are_not_scaled(tmp_path: Path) -> None:
    # 2 anchors x (5 + 27 classes) = 64
    network = yolov5_network(write(tmp_path, LAYOUT.replace("nc: 4", "nc: 27")))
    assert next(row.channels for row in network.rows if row.name == "model.1") == 64


@pytest.mark.parametrize(("count", "detect"), [(3, "anchors"), (1, "anchors"), (2.0, "anchors"), (4, "4")])
def test_number_of_anchors(tmp_path: Path, count: float, detect: str) -> None:
    """A number says how many anchors to fit to the data; without data there are none."""
    head, rest = LAYOUT.split("anchors:\n")
    text = f"{head}anchors: {count}\n{rest[rest.index('backbone') :]}".replace("[nc, anchors]", f"[nc, {detect}]")
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=rf"mine.yaml:18: anchors is {count}, a number: training fits them to data .* list of 2 anchor lists"):
        yolov5_network(path)
    path = shutil.move(path, tmp_path / "my own.yaml")
    with pytest.raises(InputError, match=r"\(octrim train --data DATA --cfg '.*/my own.yaml'\)"):
        yolov5_network(path)
    network = yolov5_network(path, to_fit=True)
    assert [len(level) for level in network.anchors] == [count, count]
    assert anchors_to_fit(path)
    assert not anchors_to_fit(write(tmp_path, LAYOUT))
    # provisional ones grow with the stride
    assert network.anchors[0][0][0] == 12.0 and network.anchors[1][0][0] == 24.0


HUB = {  # parameters with 80 classes, and strides; those of YOLOv3's three are published
    "yolov3": (61_949_149, (8, 16, 32)),
    "yolov3-spp": (62_998_749, (8, 16, 32)),
    "yolov3-tiny": (8_852_366, (16, 32)),
    "picodet": (226_726, (16, 32)),
    "picodet-p3": (277_237, (8, 16, 32)),
    "yolov5-p2": (47_493_372, (4, 8, 16, 32)),
    "yolov5-p34": (5_331_518, (8, 16)),
    "yolov5-p6": (SIZES["yolov5l6"][0], (8, 16, 32, 64)),
    "yolov5-p7": (144_281_723, (8, 16, 32, 64, 128)),
    "yolov5-bifpn": (46_825_853, (8, 16, 32)),
    "yolov5-fpn": (41_117_565, (8, 16, 32)),
    "yolov5-panet": (SIZES["yolov5l"][0], (8, 16, 32)),
    "yolov5s-ghost": (3_897_605, (8, 16, 32)),
}


@pytest.mark.parametrize("name", HUB)
def test_layouts_published_beside_the_variants(name: str) -> None:
    network = yolov5_network(f"models/hub/{name}.yaml", to_fit=True)
    assert (network_cost(network, 640).parameters, network.strides) == HUB[name]
    assert network == yolov5_network(name, to_fit=True)


def test_p34_is_s_without_its_last_level() -> None:
    down = 256 * 256 * 9 + 2 * 256
    c3 = 2 * (512 * 256 + 2 * 256) + 512 * 512 + 2 * 512 + 256 * 256 + 2 * 256 + 256 * 256 * 9 + 2 * 256
    assert SIZES["yolov5s"][0] - HUB["yolov5-p34"][0] == down + c3 + 512 * 255 + 255


def test_bifpn_is_panet_with_one_more_input() -> None:
    """P4's first convolutions read 512 more channels of the backbone: C3's cv1 and cv2 of 256 channels each."""
    assert HUB["yolov5-bifpn"][0] - HUB["yolov5-panet"][0] == 512 * 2 * 256


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("SPP, [64, [3, 5]]", "CBAM, [64]", "mine.yaml:13: module 'CBAM' is not supported; supported are Conv, DWConv"),
        ("SPP, [64, [3, 5]]", "C3TR, [64]", "mine.yaml:13: module 'C3TR' is a transformer"),
        ("SPP, [64, [3, 5]]", "nn.ConvTranspose2d, [64, 4, 2, 1]", "mine.yaml:13: module 'nn.ConvTranspose2d' is a transposed convolution"),
        ("SPP, [64, [3, 5]]", "C2f, [64]", "mine.yaml:13: module 'C2f' is a module of YOLOv8 or newer"),
        ("SPP, [64, [3, 5]]", "C3Pruned, [64]", "mine.yaml:13: C3Pruned comes from a pruned fork"),
        ("SPP, [64, [3, 5]]", "nn.MaxPool2d, [3, 1, 2]", "mine.yaml:13: model.4: padding 2 is more than half of the pooling window 3"),
        ("SPP, [64, [3, 5]]", "nn.ZeroPad2d, [[1, 0, 1, 0]]", "mine.yaml:13: nn.ZeroPad2d by 1 before the map and 0 behind it; rows can say no less"),
        ("SPP, [64, [3, 5]]", "nn.ZeroPad2d, [[0, 1, 1, 1]]", "mine.yaml:13: nn.ZeroPad2d pads by [0, 1, 1, 1], expected"),
        ("SPP, [64, [3, 5]]", "nn.ZeroPad2d, [0]", "mine.yaml:13: nn.ZeroPad2d by 0 before the map and 0 behind it"),
        ("SPP, [64, [3, 5]]", "GhostBottleneck, [64, 3, 3]", "mine.yaml:13: GhostBottleneck with stride 3"),
        ("SPP, [64, [3, 5]]", "GhostBottleneck, [32]", "mine.yaml:13: GhostBottleneck adds 32 channels to 16"),
        ("SPP, [64, [3, 5]]", "DWConv, [64, 3, 1, 2, True]", "mine.yaml:13: dilation 2 is not supported"),
        ("Detect, [nc, anchors]", "Segment, [nc, anchors, 32, 256]", "mine.yaml:20: the last module must be Detect, Segment is the head of a segm"),
        ("Detect, [nc, anchors]", "Detect, [nc, 0]", "mine.yaml:20: anchors is 0, expected lists, or how many a level has"),
        ("SPP, [64, [3, 5]]", "SPP, [64, [4]]", "mine.yaml:13: a pooling window of 4"),
        ("nn.ReLU()", "nn.GELU()", "mine.yaml:12: activation 'nn.GELU()' is not supported"),
        ("nn.ReLU()", "__import__('os').system('true')", "mine.yaml:12: activation"),
        ("act=nn.ReLU()", "colour=3", "mine.yaml:12: unknown argument 'colour'"),
        ("nn.LeakyReLU(0.1)", "nn.Tanh()", "mine.yaml: activation 'nn.Tanh()'"),
        ("[32, 3, 2]", "[32, 3, 2, 1, 1, 1, True, 9]", "mine.yaml:9: 8 arguments"),
        ("[32, 3, 2]", "[many, 3, 2]", "mine.yaml:9: channels is 'many'"),
        ("[32, 3, 2]", "[]", "mine.yaml:9: argument c2 is missing"),
        ("None, 2]]", "None, 3]]", "mine.yaml:10: 3 groups do not divide 16 input and 32 output"),
        ("None, 1, 1, False", "None, 1, 2", "mine.yaml:14: dilation 2 is not supported"),
        ("[-1, 4], 1, Concat", "[-1, 99], 1, Concat", "mine.yaml:17: reads layer 99"),
        ("[-1, 4], 1, Concat", "[-1, 0], 1, Concat", "mine.yaml:17: model.7: cannot concatenate maps"),
        ("-1, 1, Conv, [32", "-1, 0, Conv, [32", "mine.yaml:9: repeats is 0"),
        ("[-1, 1, Conv, [32, 3, 2]]", "[-1, 1, Conv]", "mine.yaml:9: expected [from, repeats, module, arguments]"),
        ("Detect, [nc, anchors]", "Conv, [64]", "mine.yaml:20: the last module must be Detect"),
        ("Detect, [nc, anchors]", "Detect, [7, anchors]", "mine.yaml:20: Detect has 7 classes, nc is 4"),
        ("[30, 61, 62, 45]", "[30, 61, 62]", "anchors must be width, height"),
        ("[30, 61, 62, 45]", f"[30, 61, 62, 0x{'f' * 400}]", "anchors must be width, height"),
        ("[-1, 4], 1, Concat", f"{[-1] * 70}, 1, Concat", "mine.yaml:17: reads 70 layers"),
        ("  - [30, 61, 62, 45]\n", "", "2 levels need a list of 2 anchor lists"),
        ("nc: 4", "nc: none", "nc is 'none'"),
        ("nc: 4", "nc: 4\nch: 1", "ch is 1"),
        ("nc: 4", "scales: {n: [1, 1]}", "mine.yaml:1: unknown key 'scales'; that is a YOLOv8 layout"),
        ("nc: 4", "nc: [", "mine.yaml:3: not YAML"),
        ("depth_multiple: 0.5", "depth_multiple: -1", "depth_multiple is -1"),
        ("nn.Upsample, [None, 2, nearest]", "nn.Upsample, [None, 2, bilinear]", "mine.yaml:16: nn.Upsample is supported as"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in LAYOUT
    with pytest.raises(InputError) as caught:
        yolov5_network(write(tmp_path, LAYOUT.replace(old, new, 1)))
    assert told in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected a mapping"),
        ("- 1\n- 2\n", "expected a mapping"),
        ("nc: 3\n", "no backbone"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n", "mine.yaml:2: not YAML: aliases"),
        ("[" * 5000, "not"),
        ("nc: !!python/object/apply:os.system ['true']\n", "not YAML"),
        ("nc: 2026-99-99\nbackbone: 1\nhead: 1\n", "mine.yaml"),
        ("nc: !!int ''\n", "not YAML that can be read"),
        ("nc: !!bool x\n", "not YAML that can be read"),
        ("nc: !!timestamp x\n", "not YAML that can be read"),
        ("# " + "x" * 200_000, "more than 100000 bytes"),
    ],
)
def test_text_that_is_no_layout(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        yolov5_network(write(tmp_path, text))


def test_a_small_file_cannot_ask_for_endless_rows(tmp_path: Path) -> None:
    modules = "  - [-1, 1000, C3, [8]]\n" * 50
    with pytest.raises(InputError, match="more than 10000 rows"):
        yolov5_network(
            write(tmp_path, f"nc: 1\ndepth_multiple: 100\nanchors: [[1, 2]]\nbackbone:\n{modules}head:\n  - [[-1], 1, Detect, [nc, anchors]]\n")
        )


def test_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00nc")
    with pytest.raises(InputError, match="not a UTF-8 text file"):
        read_layout(path)
    with pytest.raises(InputError, match="no such YAML file, and not one of yolov5n"):
        read_layout("yolov5q")

"""Official checkpoints in, hostile ones refused; the files are made by `tests.checkpoints`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from octrim.errors import InputError
from octrim.network.initialize import fresh_model
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.network.yolov5 import yolov5_network
from tests.checkpoints import CheckpointWriter, layout_of, official_names, save_checkpoint
from tests.networks import lively_model


def made(cfg: str = "yolov5n", classes: int = 3) -> Model:
    return lively_model(yolov5_network(cfg, classes))


def same(found: Model, expected: Model, half: bool) -> None:
    assert found.network == expected.network
    for name, tensor in expected.tensors.items():
        np.testing.assert_array_equal(found.tensors[name], tensor.astype(np.float16).astype(np.float32) if half else tensor, err_msg=name)


def test_the_official_file(real_weights: Path) -> None:
    model = load(real_weights)
    assert model.network == yolov5_network("yolov5n")
    assert (len(model.names), model.names[0], model.names[79], model.image_size) == (80, "person", "toothbrush", 640)
    # tests of the backends compare its outputs; here only that values arrive in the right place and type
    assert all(tensor.dtype == np.float32 and tensor.flags.c_contiguous for tensor in model.tensors.values())
    assert all((model.tensors[f"{row.name}.bn.running_var"] > 0).all() for row in model.network.convs if row.norm)
    assert model.lineage[0]["sha256"] == "4f180cf23ba0717ada0badd6c685026d73d48f184d00fc159c2641284b2ac0a3"


@pytest.mark.slow
@pytest.mark.parametrize(("cfg", "classes"), [("yolov5n", 1), ("yolov5s", 80), ("yolov5m", 3), ("yolov5n6", 7)])
def test_scales_and_class_counts(tmp_path: Path, cfg: str, classes: int) -> None:
    model = made(cfg, classes)
    save_checkpoint(tmp_path / "best.pt", model, cfg)
    found = load(tmp_path / "best.pt")
    same(found, model, half=True)
    assert found.image_size == (1280 if cfg.endswith("6") else 640)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_unstripped_with_optimizer_and_options(tmp_path: Path, protocol: int) -> None:
    model = made()
    save_checkpoint(tmp_path / "last.pt", model, "yolov5n", stripped=False, dtype="f4", protocol=protocol, names=dict(enumerate("abc")))
    found = load(tmp_path / "last.pt")
    same(found, model, half=False)
    assert (found.names, found.image_size) == (("a", "b", "c"), 416)


def test_channels_last_tensors(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", made(), "yolov5n", dtype="f4", channels_last=True)
    same(load(tmp_path / "a.pt"), made(), half=False)


def test_learned_anchors_and_changed_activation(tmp_path: Path) -> None:
    """AutoAnchor changes Detect's buffer, not the layout; in v6 users changed the activation in the code."""
    model = made()
    rows = tuple(replace(row, activation="leaky_relu:0.1") if row.activation else row for row in model.network.rows)
    anchors = tuple(tuple((width + 8, height + 16) for width, height in level) for level in model.network.anchors)
    changed = replace(model, network=Network(rows, anchors))
    save_checkpoint(tmp_path / "a.pt", changed, "yolov5n")
    assert load(tmp_path / "a.pt").network == changed.network


def big_endian(path: Path, model: Model) -> None:
    with official_names() as name:
        writer = CheckpointWriter(name, "f4")
        tree = writer.tree(model, layout=layout_of("yolov5n"))
        # every record holds float32, but for batch norm's counters, which are one int64 each
        writer.records = {key: np.frombuffer(data, "<f4" if len(data) != 8 else "<i8").byteswap().tobytes() for key, data in writer.records.items()}
        writer.save(path, {"model": tree, "ema": None}, extra={"byteorder": b"big"})


def test_big_endian(tmp_path: Path) -> None:
    big_endian(tmp_path / "a.pt", made())
    same(load(tmp_path / "a.pt"), made(), half=False)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("ultralytics.nn.tasks.DetectionModel", "anchor-free checkpoint of the ultralytics package"),
        ("models.yolo.SegmentationModel", "YOLOv5 segmentation checkpoint"),
        ("models.common.Classify", "YOLOv5 classification checkpoint"),
        ("models.common.StemBlock", "yolov5-face"),
        ("models.common.Shuffle_Block", "YOLOv5-Lite"),
        ("models.yolo.IDetect", "YOLOv7"),
        ("models.yolo.DualDDetect", "YOLOv9"),
        ("yolox.models.yolo_head.YOLOXHead", "YOLOX"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_other_families_are_recognised(tmp_path: Path, path: str, told: str, protocol: int) -> None:
    with official_names() as name:
        writer = CheckpointWriter(name)
        writer.save(tmp_path / "a.pt", {"model": writer.module(path), "ema": None}, protocol)
    with pytest.raises(InputError, match=told):
        load(tmp_path / "a.pt")


def test_small_views_of_a_large_storage_do_not_keep_it_alive(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", made(), "yolov5n", dtype="f4")
    assert all(tensor.base is None for tensor in load(tmp_path / "a.pt").tensors.values())


@pytest.mark.slow
def test_what_the_tree_says_must_agree_with_the_layout(tmp_path: Path) -> None:
    def refused(change: object, told: str) -> None:
        with official_names() as name:
            writer = CheckpointWriter(name)
            tree = writer.tree(made(), layout=layout_of("yolov5n"))
            change(tree, writer)  # type: ignore[operator]
            writer.save(tmp_path / "a.pt", {"model": tree, "ema": None})
        with pytest.raises(InputError, match=told):
            load(tmp_path / "a.pt")

    def inner(tree: object, *path: str) -> object:
        for name in path:
            tree = tree._modules[name]  # type: ignore[attr-defined]
        return tree

    refused(
        lambda tree, _: inner(tree, "model", "1", "conv").__dict__.update(stride=(1, 1)),
        r"model\.1\.conv: stride is \(1, 1\), the layout says \(2, 2\)",
    )
    refused(lambda tree, _: inner(tree, "model", "1", "bn").__dict__.update(eps=1e-5), r"model\.1\.bn has eps 1e-05")
    refused(lambda tree, _: tree.__dict__.update(names=["one"]), "names are .*, expected 3 class names")
    refused(lambda tree, _: tree.__dict__.update(yaml=None), "carries no YOLOv5 layout")
    refused(lambda tree, _: inner(tree, "model", "1")._modules.pop("conv"), r"model\.1\.conv: expected a Conv2d module, found none")  # type: ignore[attr-defined]
    refused(lambda tree, _: inner(tree, "model", "1", "bn")._parameters.pop("weight"), r"tensor model\.1\.bn\.weight is missing")  # type: ignore[attr-defined]
    refused(
        lambda tree, writer: inner(tree, "model", "2")._parameters.update(attention=writer.tensor(np.ones(3))),  # type: ignore[attr-defined]
        r"tensor 'model\.2\.attention' belongs to no layer",
    )
    refused(
        lambda tree, _: tree.yaml["backbone"].__setitem__(2, [-1, 3, "CBAM", [128]]),
        r"the layout in the checkpoint: module 2: module 'CBAM' is not supported",
    )


@pytest.mark.parametrize("name", ["A.PT", "a.ckpt", "a.bin", "a b", "猫.Pth"])
def test_checkpoints_and_model_files_of_any_name(tmp_path: Path, name: str) -> None:
    save_checkpoint(tmp_path / "a.pt", fresh_model("yolov5n", classes=2), "yolov5n")
    (tmp_path / "a.pt").rename(tmp_path / name)
    model = load(tmp_path / name)
    assert model.network.classes == 2
    model.save(tmp_path / "b.safetensors")
    (tmp_path / "b.safetensors").rename(tmp_path / "model")
    assert load(tmp_path / "model").network == model.network


def test_errors_do_not_need_the_file_name_twice(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"x")
    with pytest.raises(InputError) as caught:
        load(tmp_path / "a.pt")
    assert str(caught.value).count("a.pt") == 1
    with pytest.raises(InputError, match=r"b\.pt: no such file$"):
        load(tmp_path / "b.pt")
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "best.safetensors").touch()
    with pytest.raises(InputError, match=r"weights/best\.pt: no such file; OcTrim's own is .*/exp/best\.safetensors$"):
        load(tmp_path / "exp" / "weights" / "best.pt")
    with pytest.raises(InputError, match=r"yolov5s\.pt: no such file; OcTrim downloads nothing: https.*yolov5s.pt .*, or --cfg yolov5s for fresh"):
        load(tmp_path / "yolov5s.pt")
    with pytest.raises(InputError, match="is a folder"):
        load(tmp_path)
    for name, content, told in (
        ("a.h5", b"\x89HDF\r\n", "not a PyTorch checkpoint but an HDF5 file"),
        ("a.tflite", b"\x1c\0\0\0TFL3", "not a PyTorch checkpoint but a TensorFlow Lite model"),
        ("a.pt.zip", b"PK\x03\x04", "a zip archive: unpack it"),
        ("a.yaml", b"nc: 3\n", "a layout goes to --cfg"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}: expected a model file .*{told}"):
            load(tmp_path / name)
    (tmp_path / "a.weights").write_bytes(b"x")
    with pytest.raises(InputError, match=r"expected a model file \(\.safetensors\) or a YOLOv5 checkpoint"):
        load(tmp_path / "a.weights")

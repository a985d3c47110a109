"""The model file, folding and fresh weights."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from safetensors import safe_open
from safetensors.numpy import save_file

from octrim.backends.numpy import NumpyOps
from octrim.errors import InputError
from octrim.network.folding import folded
from octrim.network.initialize import fresh_model
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.rows import Network, walk
from octrim.network.yolov5 import yolov5_network
from tests.networks import lively_model, random_networks


@pytest.mark.slow
@settings(max_examples=40)
@given(random_networks())
def test_save_and_load_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, network: Network) -> None:
    model = lively_model(network)
    path = tmp_path_factory.mktemp("model") / "a.safetensors"
    model.save(path)
    found = load(path)
    assert (found.network, found.names, found.image_size, found.lineage) == (model.network, model.names, model.image_size, model.lineage)
    assert found.tensors.keys() == model.tensors.keys()
    assert all(found.tensors[name].tobytes() == tensor.tobytes() for name, tensor in model.tensors.items())


@pytest.mark.slow
def test_the_same_file_from_two_processes(tmp_path: Path) -> None:
    program = "import sys, octrim; octrim.fresh_model('yolov5n', classes=3, seed=7).save(sys.argv[1])"
    digests = set()
    for index in range(2):
        path = tmp_path / f"{index}.safetensors"
        subprocess.run([sys.executable, "-c", program, str(path)], check=True, env={"PYTHONHASHSEED": str(index)})
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_one_metadata_key(tmp_path: Path) -> None:
    fresh_model("yolov5n", classes=2).save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "numpy") as file:
        assert list(file.metadata()) == ["octrim"]


def changed(tmp_path: Path, **changes: object) -> Path:
    """A good model file whose header then claims something else."""
    path = tmp_path / "a.safetensors"
    model = fresh_model("yolov5n", classes=2)
    model.save(path)
    with safe_open(path, "numpy") as file:
        header = json.loads(file.metadata()["octrim"])
    save_file(dict(model.tensors), path, {"octrim": json.dumps(header | changes)})
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": 3}, "written by a newer OcTrim"),
        ({"format": None}, "no format number"),
        ({"names": ["one"]}, "1 class name for a network of 2 classes"),
        ({"names": [1, 2]}, "names must be text"),
        ({"strides": [8, 16, 64]}, "strides .* do not match"),
        ({"anchors": [[[1, 2]]]}, "levels need as many"),
        ({"anchors": "x"}, "anchors is 'x', expected list"),
        ({"table": []}, "starts with an image row"),
        ({"table": [{"name": "a"}] * 20_000}, "longer than any network"),
        ({"image_size": -5}, "image_size is -5"),
        ({"lineage": ["x"]}, "lineage objects"),
        ({"anchors": [[[10**400, 2]]]}, "anchors must be pairs of numbers"),
        ({"names": ["\ud800", "b"]}, "unprintable"),
        ({"names": ["a\nb", "b"]}, "unprintable"),
    ],
)
def test_headers_that_lie(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        load(changed(tmp_path, **changes))


def test_tables_that_do_not_match_the_tensors(tmp_path: Path) -> None:
    table = fresh_model("yolov5n", classes=2).network.to_json()
    narrower = [{**row, "channels": 8} if row["name"] == "model.0" else row for row in table]
    with pytest.raises(InputError, match=r"tensor model\.0\.bn\.\w+ is F32 \[16\]; the table expects F32 \[8\]|model\.0\.conv\.weight"):
        load(changed(tmp_path, table=narrower))
    model = fresh_model("yolov5n", classes=2)
    model.save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "numpy") as file:
        metadata = file.metadata()
    tensors = dict(model.tensors)
    removed = tensors.pop("model.1.conv.weight")
    save_file(tensors, tmp_path / "a.safetensors", metadata)
    with pytest.raises(InputError, match=r"tensor model\.1\.conv\.weight is missing"):
        load(tmp_path / "a.safetensors")
    save_file({**model.tensors, "more": np.ones(3, np.float32)}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(InputError, match="tensor 'more' belongs to no row"):
        load(tmp_path / "a.safetensors")
    save_file({**tensors, "model.1.conv.weight": removed.astype(np.float16)}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(InputError, match=r"model\.1\.conv\.weight is F16"):
        load(tmp_path / "a.safetensors")


def test_files_that_are_no_model(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.safetensors: the file is empty"):
        load(path)
    for data in (
        b"short",
        b"text that is no model file at all",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 10**6) + b"{}",
        struct.pack("<Q", 2) + b"[]",
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match="not a readable safetensors file"):
            load(path)
    archive = "a zip archive, as the checkpoints of YOLOv5 are: name those .pt"
    for start, kind in ((b"\xff\xd8\xff\xe0", "a picture (JPEG)"), (b"PK\x03\x04", archive)):
        path.write_bytes(start + bytes(range(100)))
        with pytest.raises(InputError, match=re.escape(f"a.safetensors: not a safetensors file but {kind}")):
            load(path)
    save_file({"x": np.ones(3, np.float32)}, path)
    with pytest.raises(InputError, match="no network table"):
        load(path)
    save_file({"x": np.ones(3, np.float32)}, path, {"octrim": "[" * 100_000})
    with pytest.raises(InputError, match="not JSON"):
        load(path)
    good = fresh_model("yolov5n", classes=2)
    good.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(InputError, match="not a readable safetensors file .+ truncated or damaged, copy or download it again"):
        load(path)
    with pytest.raises(InputError, match="is a folder, expected a file, or a folder that octrim export wrote"):
        load(tmp_path)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    model = fresh_model("yolov5n", classes=2)
    model.save(path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        fresh_model("yolov5n", classes=3).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_models_check_their_tensors() -> None:
    model = fresh_model("yolov5n", classes=2)
    with pytest.raises(InputError, match=r"tensor model\.0\.conv\.weight is float64"):
        replace(model, tensors={**model.tensors, "model.0.conv.weight": model.tensors["model.0.conv.weight"].astype(np.float64)})


@settings(max_examples=40)
@given(random_networks())
def test_folding_keeps_the_function(network: Network) -> None:
    """Against batch norm applied as its definition says, in float64."""
    model = lively_model(network, seed=3)

    class Unfolded(NumpyOps):
        def __init__(self, model: Model) -> None:
            self.weights = {}
            for row in model.network.convs:
                weight = model.tensors[row.weight_name].astype(np.float64)
                self.weights[row.name] = (weight, model.tensors[f"{row.name}.bias"].astype(np.float64) if row.bias else np.zeros(row.channels))
            self.model = model

        def conv(self, row, x):
            from octrim.backends.numpy import activate, convolution

            weight, bias = self.weights[row.name]
            y = convolution(x, weight, row.stride, row.padding, row.groups) + bias[:, None, None]
            if row.norm:
                gamma, beta, mean, var = (
                    self.model.tensors[f"{row.name}.bn.{p}"].astype(np.float64)[:, None, None]
                    for p in ("weight", "bias", "running_mean", "running_var")
                )
                y = (y - mean) / np.sqrt(var + 1e-3) * gamma + beta
            return activate(row, y)

    image = np.random.default_rng(0).random((1, 3, 32, 32))
    flat = folded(model)
    assert not any(row.norm for row in flat.network.convs)
    expected = walk(network, Unfolded(model), image)
    for one, two, three in zip(
        expected, walk(network, NumpyOps(model, np.float64), image), walk(flat.network, NumpyOps(flat, np.float64), image), strict=True
    ):
        np.testing.assert_allclose(two, one, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(three, one, rtol=1e-4, atol=1e-4)  # folded weights are stored in float32
    again = folded(flat)
    assert again.network == flat.network
    assert all(np.array_equal(again.tensors[name], tensor) for name, tensor in flat.tensors.items())


def test_fresh_weights() -> None:
    model = fresh_model("yolov5n", classes=80, seed=1)
    stem = model.tensors["model.0.conv.weight"]
    bound = 1 / math.sqrt(3 * 36)
    assert abs(stem).max() <= bound
    # uniform: standard deviation bound / sqrt(3); 1,728 values put its error under 5 %
    assert stem.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    bias = model.tensors["model.24.m.1.bias"].reshape(3, 85)
    bound = 1 / math.sqrt(128)
    assert abs(bias[:, 4] - math.log(8 / 40**2)).max() <= bound
    assert abs(bias[:, 5:] - math.log(0.6 / 79.00001)).max() <= bound
    assert abs(bias[:, :4]).max() <= bound
    assert (model.tensors["model.0.bn.weight"] == 1).all()
    assert (model.tensors["model.0.bn.running_mean"] == 0).all()
    again = fresh_model("yolov5n", classes=80, seed=1)
    assert all(np.array_equal(again.tensors[name], tensor) for name, tensor in model.tensors.items())
    assert not np.array_equal(fresh_model("yolov5n", classes=80, seed=2).tensors["model.0.conv.weight"], stem)
    assert yolov5_network("yolov5n6").classes == 80
    assert fresh_model("yolov5n6", classes=1).image_size == 1280

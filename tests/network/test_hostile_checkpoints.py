"""Checkpoints made to harm, and damaged ones: nothing is executed, nothing grows without limit, every refusal is a line."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from octrim.errors import InputError
from octrim.network.loading import load
from tests.checkpoints import CheckpointWriter, layout_of, official_names, save_checkpoint, write_archive
from tests.network.test_checkpoint import made


class Calls:
    def __init__(self, function: object, *arguments: object) -> None:
        self.parts = (function, arguments)

    def __reduce__(self) -> object:
        return self.parts


MARKER = "octrim-was-executed"
HOSTILE = {
    "os.system": Calls(os.system, f"touch {MARKER}"),
    "eval": Calls(eval, f"open('{MARKER}', 'w')"),
    "exec": Calls(exec, f"open('{MARKER}', 'w')"),
    "getattr": Calls(getattr, os, "system"),
    "import": Calls(__import__, "subprocess"),
    "open": Calls(open, MARKER, "w"),
    "bytearray": Calls(bytearray, 10**12),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_pickles_that_call(tmp_path: Path, kind: str, protocol: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        data = pickle.dumps({"model": HOSTILE[kind]}, protocol)
    except (pickle.PicklingError, TypeError):
        data = pickle.dumps({"model": Calls(os.system, f"touch {MARKER}")}, protocol)  # a module cannot be pickled
    write_archive(tmp_path / "a.pt", data)
    with pytest.raises(InputError, match="nothing was executed"):
        load(tmp_path / "a.pt")
    assert not (tmp_path / MARKER).exists()


def raw(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


BOMBS = {
    "nested tuples as a dictionary key": raw(b"}", b")", b"2\x86" * 200, b"Ns"),  # hashing it would take 2^200 steps
    "nested tuples": raw(b")", b"2\x86" * 100_000),
    "huge memo index": raw(b"N", b"r\xff\xff\xff\xff"),
    "huge byte string": raw(b"B" + struct.pack("<I", 2**32 - 1) + b"x"),
    "huge text": raw(b"X" + struct.pack("<I", 2**32 - 1) + b"x"),
    "huge byte string, 64 bit": raw(b"\x8e" + struct.pack("<Q", 2**60) + b"x"),
    "huge number": raw(b"\x8b" + struct.pack("<i", 2**31 - 1) + b"x"),
    "long decimal": raw(b"L" + b"9" * 100_000 + b"L\n"),
    "stack underflow": raw(b"0" * 10),
    "no mark": raw(b"t"),
    "missing memo": raw(b"h\x07"),
    "persistent id of nonsense": raw(b"NQ"),
    "build on nothing": raw(b"K\x01Nb"),
    "reduce of a number": raw(b"K\x01)R"),
    "extension registry": raw(b"\x82\x01"),
    "old-style instance": raw(b"(ios\nsystem\n"),
    "endless stack": b"\x80\x02" + b"N" * 5_000_000 + b".",
    "integer of many digits": raw(b"\x8b" + struct.pack("<i", 4000) + b"\x7f" * 4000),
    "odd dictionary": raw(b"(K\x01K\x02K\x03d"),
    "endless name": raw(b"X" + struct.pack("<I", 10**6) + b"a" * 10**6 + b"\x94X\x01\0\0\0B\x94" + b"h\0h\1\x93" * 1000),
    "name with a line break": raw(b"X\x0a\0\0\0models.a\nbX\x01\0\0\0B\x93"),
    "many dimensions": raw(
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\00X\x03\0\0\0cpuK\x04tQK\0("
        + (b"J" + struct.pack("<i", 2**31 - 1)) * 200_000
        + b"t("
        + b"K\x01" * 200_000
        + b"t\x89}tR"
    ),
    "copies without end": raw(
        b"}\x94(" + b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(50_000)) + b"ucmodels.a\nB\n\x94" + b"h\1)Rh\0b" * 5000
    ),
    "attribute of a text": raw(b"c__builtin__\ngetattr\nX\x01\0\0\0aX\x05\0\0\0upper\x86R"),
    "attribute of a class": raw(b"c__builtin__\ngetattr\ncmodels.a\nB\nX\x05\0\0\0upper\x86R"),
    "attribute that is a path": raw(b"cbuiltins\ngetattr\ncmodels.a\nB\n)RX\x05\0\0\0a.b.c\x86R"),
    "attribute without a name": raw(b"cbuiltins\ngetattr\ncmodels.a\nB\n)R\x85R"),
    "not a pickle": b"hello",
    "empty": b"",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOMBS)
def test_pickle_bombs_and_nonsense(tmp_path: Path, kind: str) -> None:
    write_archive(tmp_path / "a.pt", BOMBS[kind])
    with pytest.raises(InputError) as caught:
        load(tmp_path / "a.pt")
    assert len(str(caught.value)) < 500


def tampered(tmp_path: Path, **changes: object) -> Path:
    """A good checkpoint in which the first convolution's weight lies about itself."""
    model = made()
    with official_names() as name:
        writer = CheckpointWriter(name, "f4")
        tree = writer.tree(model, layout=layout_of("yolov5n"))
        conv = tree._modules["model"]._modules["0"]._modules["conv"]
        tensor = conv._parameters["weight"].tensor
        storage, offset, shape, strides, *rest = tensor.parts
        if "count" in changes:
            storage.count = changes.pop("count")
        if "key" in changes:
            storage.key = changes.pop("key")
        found = {"offset": offset, "shape": shape, "strides": strides} | changes
        tensor.parts = (storage, found["offset"], found["shape"], found["strides"], *rest)
        writer.save(tmp_path / "a.pt", {"model": tree, "ema": None})
    return tmp_path / "a.pt"


WEIGHTS = 16 * 3 * 6 * 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"shape": (16, 3, 6, 7)}, "does not fit into its storage"),
        ({"shape": (10**6, 10**6, 6, 6), "strides": (0, 0, 6, 1)}, "does not fit into its storage"),
        ({"shape": (8, 3, 6, 6)}, r"tensor model.0.bn.weight has shape \[16\]; expected \[8\]"),
        ({"shape": (16, 3, 5, 6)}, r"tensor model.0.conv.weight has shape \[16, 3, 5, 6\]; expected \[16, 3, 6, 6\]"),
        ({"strides": (10**9, 36, 6, 1)}, "does not fit into its storage"),
        ({"strides": (-108, 36, 6, 1)}, "makes no sense"),
        ({"strides": (108, 36, 6)}, "makes no sense"),
        ({"offset": 1}, "does not fit into its storage"),
        ({"offset": -1}, "makes no sense"),
        ({"shape": (16.0, 3, 6, 6)}, "makes no sense"),
        ({"shape": [16, 3, 6, 6]}, "makes no sense"),
        ({"count": 10**15}, f"has {4 * WEIGHTS} bytes, expected 1000000000000000 values of 4"),
        ({"count": 100}, "does not fit into its storage"),
        ({"key": "nowhere"}, "record 'data/nowhere' is missing"),
        ({"key": "../data.pkl"}, r"record 'data/../data.pkl' is missing"),
    ],
)
def test_tensors_that_lie(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        load(tampered(tmp_path, **changes))


def test_truncated_anywhere(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", made(), "yolov5n")
    data = (tmp_path / "a.pt").read_bytes()
    for length in (0, 1, 3, 4, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "b.pt").write_bytes(data[:length])
        with pytest.raises(InputError, match=r"b\.pt: "):
            load(tmp_path / "b.pt")


@pytest.mark.slow
def test_a_flipped_flag_in_the_zip(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", made(classes=1), "yolov5n")
    whole = (tmp_path / "a.pt").read_bytes()
    for position in range(60):
        damaged = bytearray(whole)
        damaged[position] = 0xFF
        (tmp_path / "b.pt").write_bytes(damaged)
        with contextlib.suppress(InputError):
            load(tmp_path / "b.pt")


@pytest.mark.slow
def test_flipped_bytes_never_end_in_another_exception(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", made(classes=1), "yolov5n")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        pickled = archive.read("archive/data.pkl")
        records = {name.removeprefix("archive/data/"): archive.read(name) for name in archive.namelist() if "/data/" in name}
    generator = np.random.default_rng(5)
    for _ in range(60):
        damaged = bytearray(pickled)
        for _ in range(generator.integers(1, 4)):
            damaged[generator.integers(len(damaged))] = generator.integers(256)
        write_archive(tmp_path / "b.pt", bytes(damaged), records)
        with contextlib.suppress(InputError):
            load(tmp_path / "b.pt")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "the file is empty"),
        (b"these are not the weights", "not a PyTorch checkpoint: it starts with"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "a bare pickle, as PyTorch before 1.6 wrote it"),
        (b"PK\x03\x04 and then nothing", "truncated or damaged zip"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 3872\n",
            "a Git LFS pointer, not the file itself: run git lfs pull",
        ),
        (b"<!DOCTYPE html><html><head><title>404</title>", "a web page, not a file of weights"),
        (b"\n\n<html lang=en>", "a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page"),
        (b"\x08\x07\x12\x07pytorch\x1a\x051.7.0:", "an ONNX file: name it .onnx"),
        (b'\x40\0\0\0\0\0\0\0{"a":{}}', "a safetensors file"),
        (b"\x1c\0\0\0TFL3", "a TensorFlow Lite model"),
        (b"\x1f\x8b\x08\0", "a gzip archive"),
        (b"\x89PNG\r\n", "a picture"),
        (bytes(4096), "the file holds zeros only"),
    ],
)
def test_files_that_are_no_checkpoint(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(InputError, match=told):
        load(tmp_path / "a.pt")


def test_archives_that_are_no_checkpoint(tmp_path: Path) -> None:
    def archive(**records: bytes) -> Path:
        with zipfile.ZipFile(tmp_path / "a.pt", "w") as made:
            for name, data in records.items():
                made.writestr(name.replace("__", "/"), data)
        return tmp_path / "a.pt"

    with pytest.raises(InputError, match=r"without one data\.pkl"):
        load(archive(readme=b"hello"))
    with pytest.raises(InputError, match="TorchScript"):
        load(archive(**{"x__data.pkl": b"", "x__code__a.py": b""}))
    with pytest.raises(InputError, match="bare state dict"), official_names() as name:
        writer = CheckpointWriter(name)
        writer.save(tmp_path / "a.pt", {"model.0.conv.weight": writer.tensor(np.ones(3))})
        load(tmp_path / "a.pt")
    with pytest.raises(InputError, match="a bare state dict under 'model'"), official_names() as name:
        writer = CheckpointWriter(name)
        writer.save(tmp_path / "a.pt", {"model": {"model.0.conv.weight": writer.tensor(np.ones(3))}, "epoch": 3})
        load(tmp_path / "a.pt")
    with pytest.raises(InputError, match="the checkpoint has no model; it holds"):
        write_archive(tmp_path / "a.pt", pickle.dumps({"weights": 3}, 2))
        load(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as made_:
        made_.writestr("x/data.pkl", b"\x80\x02" + b"N" * 10**7 + b".")
    with pytest.raises(InputError, match="compressed"):
        load(tmp_path / "a.pt")

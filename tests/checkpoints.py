"""Writes `.pt` files as YOLOv5's training does, without PyTorch: stand-in classes under the official names, storages as raw records."""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from octrim.network.layout import read_layout
from octrim.network.model import Model

_STORAGES = {"f2": "HalfStorage", "f4": "FloatStorage", "f8": "DoubleStorage", "i8": "LongStorage"}


@contextmanager
def official_names() -> Iterator[Any]:
    """Importable stand-ins, as pickle insists on, for as long as the block lasts."""
    made: dict[str, types.ModuleType] = {}

    def name(path: str, function: bool = False) -> Any:
        module, _, attribute = path.rpartition(".")
        parts = module.split(".")
        for end in range(1, len(parts) + 1):  # importing a.b.c imports a and a.b first
            package = ".".join(parts[:end])
            if package not in made:
                assert package not in sys.modules, package
                made[package] = sys.modules[package] = types.ModuleType(package)
        if not hasattr(made[module], attribute):
            value: Any = type(attribute, (), {"__module__": module})
            if function:
                value = lambda *_: None  # noqa: E731
                value.__module__, value.__qualname__, value.__name__ = module, attribute, attribute
            setattr(made[module], attribute, value)
        return getattr(made[module], attribute)

    try:
        yield name
    finally:
        for module in made:
            del sys.modules[module]


class _Storage:
    def __init__(self, kind: Any, key: str, count: int) -> None:
        self.kind, self.key, self.count = kind, key, count


class _Tensor:
    def __init__(self, rebuild: Any, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.parts = (storage, offset, shape, strides, False, OrderedDict())
        self.rebuild = rebuild

    def __reduce__(self) -> Any:
        return self.rebuild, self.parts


class _Parameter:
    def __init__(self, rebuild: Any, tensor: _Tensor) -> None:
        self.rebuild, self.tensor = rebuild, tensor

    def __reduce__(self) -> Any:
        return self.rebuild, (self.tensor, True, OrderedDict())


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return ("storage", obj.kind, obj.key, "cpu", obj.count) if isinstance(obj, _Storage) else None


class CheckpointWriter:
    """Collects storages; `module` and `tensor` make what goes into the pickle."""

    def __init__(self, name: Any, dtype: str = "f2") -> None:
        self.name, self.dtype = name, dtype
        self.records: dict[str, bytes] = {}

    def tensor(self, values: np.ndarray, dtype: str | None = None, channels_last: bool = False) -> _Tensor:
        dtype = dtype or self.dtype
        values = np.asarray(values).astype(f"<{dtype}", order="C")
        key = str(len(self.records))
        stored = np.ascontiguousarray(values.transpose(0, 2, 3, 1)) if channels_last else values
        self.records[key] = stored.tobytes()
        strides = tuple(step // values.itemsize for step in (stored.transpose(0, 3, 1, 2) if channels_last else values).strides)
        storage = _Storage(self.name(f"torch.{_STORAGES[dtype]}"), key, values.size)
        return _Tensor(self.name("torch._utils._rebuild_tensor_v2", True), storage, 0, values.shape, strides)

    def parameter(self, values: np.ndarray, **options: Any) -> _Parameter:
        return _Parameter(self.name("torch._utils._rebuild_parameter", True), self.tensor(values, **options))

    def module(
        self, path: str, children: dict[str, Any] | None = None, parameters: dict[str, Any] | None = None, buffers: Any = None, **state: Any
    ) -> Any:
        made = self.name(path)()
        made.__dict__.update(training=False, _parameters=OrderedDict(parameters or {}), _buffers=OrderedDict(buffers or {}))
        made.__dict__.update(_non_persistent_buffers_set=set(), _forward_hooks=OrderedDict(), _modules=OrderedDict(children or {}), **state)
        return made

    def tree(
        self, model: Model, root: str = "models.yolo.DetectionModel", layout: dict[str, Any] | None = None, names: Any = None, **options: Any
    ) -> Any:
        """The module tree of a model whose rows came from a YOLOv5 layout."""
        network = model.network
        tree: dict[str, Any] = {}
        for row in network.convs:
            conv: dict[str, Any] = {
                key: (getattr(row, field),) * 2 for key, field in (("kernel_size", "kernel"), ("stride", "stride"), ("padding", "padding"))
            }
            weight = self.parameter(model.tensors[row.weight_name], **options)
            bias = self.parameter(model.tensors[f"{row.name}.bias"]) if row.bias else None
            plain = self.module(
                "torch.nn.modules.conv.Conv2d", parameters={"weight": weight, "bias": bias}, **conv, dilation=(1, 1), groups=row.groups
            )
            if not row.norm:
                self._place(tree, row.name, plain)
                continue
            parts = {part: model.tensors[f"{row.name}.bn.{part}"] for part in ("weight", "bias", "running_mean", "running_var")}
            bn = self.module(
                "torch.nn.modules.batchnorm.BatchNorm2d",
                parameters={key: self.parameter(parts[key]) for key in ("weight", "bias")},
                buffers={key: self.tensor(parts[key]) for key in ("running_mean", "running_var")}
                | {"num_batches_tracked": self.tensor(np.asarray(7), dtype="i8")},
                eps=0.001,
            )
            act = {"silu": "SiLU", "relu": "ReLU", None: "Identity"}.get(row.activation, "LeakyReLU")
            extra = {"negative_slope": row.slope} if act == "LeakyReLU" else {}
            self._place(
                tree,
                row.name,
                self.module("models.common.Conv", {"conv": plain, "bn": bn, "act": self.module(f"torch.nn.modules.activation.{act}", **extra)}),
            )
        anchors = np.asarray(network.anchors) / np.asarray(network.strides)[:, None, None]
        stride = self.tensor(np.asarray(network.strides), dtype="f4")
        modules = self._nested(tree["model"], network.rows[-1].name.split(".")[1])
        detect = modules[network.rows[-1].name.split(".")[1]]
        detect.__dict__.update(nc=network.classes, stride=stride, _buffers=OrderedDict(anchors=self.tensor(anchors)))
        sequence = self.module("torch.nn.modules.container.Sequential", modules)
        return self.module(
            root, {"model": sequence}, yaml=layout, names=list(model.names) if names is None else names, stride=stride, nc=network.classes
        )

    @staticmethod
    def _place(tree: dict[str, Any], path: str, module: Any) -> None:
        *parents, last = path.split(".")
        for name in parents:
            tree = tree.setdefault(name, {})
        tree[last] = module

    def _nested(self, tree: dict[str, Any], detect: str) -> dict[str, Any]:
        made = {}
        for name, child in tree.items():
            if isinstance(child, dict):
                kind = "models.yolo.Detect" if name == detect else "torch.nn.modules.container.ModuleList" if name == "m" else "models.common.C3"
                child = self.module(kind, self._nested(child, ""))
            made[name] = child
        return made

    def save(self, path: Path, contents: Any, protocol: int = 2, extra: dict[str, bytes] | None = None) -> None:
        buffer = io.BytesIO()
        _Pickler(buffer, protocol).dump(contents)
        write_archive(path, buffer.getvalue(), self.records, extra)


def write_archive(path: Path, pickled: bytes, records: dict[str, bytes] | None = None, extra: dict[str, bytes] | None = None) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in (records or {}).items():
            archive.writestr(f"archive/data/{key}", data)
        for key, data in (extra or {}).items():
            archive.writestr(f"archive/{key}", data)
        archive.writestr("archive/version", b"3\n")


def layout_of(cfg: str) -> dict[str, Any]:
    """A published layout as it travels in a checkpoint."""
    return yaml.safe_load(yaml.safe_dump(read_layout(cfg).values))


def save_checkpoint(
    path: Path, model: Model, cfg: str, stripped: bool = True, dtype: str = "f2", protocol: int = 2, names: Any = None, **options: Any
) -> None:
    """A checkpoint of `model`, whose rows came from `cfg`; unstripped, with what training leaves in it."""
    with official_names() as name:
        writer = CheckpointWriter(name, dtype)
        tree = writer.tree(model, layout=layout_of(cfg), names=names, **options)
        contents: dict[str, Any] = {"epoch": -1, "best_fitness": None, "model": tree, "ema": None, "optimizer": None, "date": "2022-11-22"}
        if not stripped:
            import argparse
            import pathlib

            wrong = writer.module("models.yolo.DetectionModel")  # the EMA counts, not this one
            momentum = {"state": {0: {"momentum_buffer": writer.tensor(np.ones(4))}}, "param_groups": [{"lr": np.float64(0.01), "params": [0]}]}
            options_ = argparse.Namespace(imgsz=416, save_dir=pathlib.PurePosixPath("runs/train/exp"), device=name("torch.device")())
            contents |= {"model": wrong, "ema": tree, "epoch": 12, "best_fitness": np.float64(0.5), "optimizer": momentum, "opt": options_}
        writer.save(path, contents, protocol)

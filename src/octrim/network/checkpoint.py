"""Reads official YOLOv5 v6 and v7 detection checkpoints (`.pt`), and those that users trained, without PyTorch and without YOLOv5.

The layout that travels in the checkpoint is expanded to rows; every row then takes its tensors from the module tree, and what the
tree says of kernel, stride, activation and batch norm must agree. Nothing in the file is executed (see `pickles`).
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from octrim.errors import InputError, shown
from octrim.network.cost import tensor_shapes
from octrim.network.layout import Layout
from octrim.network.model import Model, sha256
from octrim.network.pickles import Instance, StoredTensor, named_globals, read_pickle
from octrim.network.rows import BATCH_NORM_EPS, Network, Row
from octrim.network.yolov5 import TORCH_ACTIVATIONS, expand

_FAMILIES = (
    ("ultralytics.", "an anchor-free checkpoint of the ultralytics package (YOLOv5u, YOLOv8 or newer)"),
    ("models.yolo.Segment", "a YOLOv5 segmentation checkpoint"),
    ("models.common.Proto", "a YOLOv5 segmentation checkpoint"),
    ("models.yolo.Classif", "a YOLOv5 classification checkpoint"),
    ("models.common.Classify", "a YOLOv5 classification checkpoint"),
    ("models.common.Focus", "a checkpoint of YOLOv5 v5.0 or older (Focus stem)"),
    ("models.common.BottleneckCSP", "a checkpoint of YOLOv5 v3.1 or older (BottleneckCSP)"),
)

# Tensors of the tree that are no weights: Detect's anchors are read apart, its grids and the counters are not needed.
_NO_WEIGHTS = ("num_batches_tracked", "anchors", "anchor_grid")


def load_checkpoint(path: Path) -> Model:
    """Read a `.pt` checkpoint into a model with float32 weights; EMA weights where it has them.

    Errors (InputError) do not name the file; `octrim.load` adds that.
    """
    with _open_archive(path) as archive:
        data = archive.read("data.pkl")
        names = named_globals(data)
        for prefix, family in _FAMILIES:
            if any(name.startswith(prefix) for name in names):
                raise InputError(f"this is {family}; OcTrim reads detection checkpoints of YOLOv5 v6 and v7")
        contents = read_pickle(data)
        root, options = _model_of(contents)
        tree = _modules(root)
        network = _network(root, tree, archive)
        stored = _tensors(tree)
        network = _rows_from_tree(network, tree, stored)
        tensors = {name: archive.tensor(stored[name], name, shape) for name, shape in tensor_shapes(network).items()}
    lineage = {"action": "read", "file": path.name, "sha256": sha256(path), "licence": "YOLOv5 checkpoint: AGPL-3.0 where Ultralytics published it"}
    return Model(network, tensors, _names(root.state.get("names"), network.classes), _image_size(options, network), (lineage,))


class _Archive:
    """The zip that `torch.save` writes: one folder with `data.pkl` and raw storages under `data/`."""

    def __init__(self, path: Path) -> None:
        self.size = path.stat().st_size
        self.zip = zipfile.ZipFile(path)
        entries = self.zip.namelist()
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            self.zip.close()
            raise InputError("a zip archive without one data.pkl in a folder; torch.save writes one")
        self.folder = pickles[0].removesuffix("data.pkl")
        if any(name.startswith(f"{self.folder}code/") for name in entries):
            self.zip.close()
            raise InputError("this is a TorchScript export; OcTrim reads the checkpoint it was made from")
        self.entries = set(entries)
        self.last: tuple[str | None, bytes] = (None, b"")

    @cached_property
    def big_endian(self) -> bool:
        return f"{self.folder}byteorder" in self.entries and self.read("byteorder") == b"big"

    def __enter__(self) -> _Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.zip.close()

    def read(self, record: str) -> bytes:
        try:
            entry = self.zip.getinfo(self.folder + record)
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size or entry.file_size > self.size:
                raise InputError(f"record {record} is compressed or claims {entry.file_size} bytes; torch.save stores records as they are")
            return self.zip.read(entry)
        except KeyError:
            raise InputError(f"record {shown(record)} is missing") from None
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, UnicodeDecodeError, OSError) as error:
            raise InputError(f"record {shown(record)} is damaged: {shown(str(error))}") from None

    def tensor(self, stored: StoredTensor, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """The values of a stored tensor as float32 in C order; `shape` is what it must have."""
        if shape is not None and stored.shape != shape:
            raise InputError(f"tensor {name} has shape {list(stored.shape)}; the layout expects {list(shape)}")
        storage = stored.storage
        if storage.key != self.last[0]:  # a hostile file may put all its tensors into one large record
            self.last = (storage.key, self.read(f"data/{storage.key}"))
        raw = self.last[1]
        if len(raw) != storage.count * storage.dtype.itemsize:
            raise InputError(
                f"tensor {name}: storage {storage.key} has {len(raw)} bytes, expected {storage.count} values of {storage.dtype.itemsize}"
            )
        values = np.frombuffer(raw, storage.dtype.newbyteorder(">" if self.big_endian else "<"))
        strides = [stride * storage.dtype.itemsize for stride in stored.strides]
        view = np.lib.stride_tricks.as_strided(values[stored.offset :], stored.shape, strides, writeable=False)
        if storage.kind == "bf16":
            return (view.astype(np.uint32) << 16).view(np.float32)
        with np.errstate(all="ignore"):
            return np.array(view, np.float32, order="C", copy=True)  # a view would keep the whole record alive


def _open_archive(path: Path) -> _Archive:
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise InputError("the file is empty")
    if start[:2] == b"\x80\x02" or start[:2] == b"\x80\x04":
        raise InputError("a bare pickle, as PyTorch before 1.6 wrote it; checkpoints of YOLOv5 v6 and v7 are zip archives")
    if start != b"PK\x03\x04":
        raise InputError(f"not a PyTorch checkpoint: it starts with {start!r}, expected a zip archive")
    try:
        return _Archive(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"a truncated or damaged zip archive: {shown(str(error))}") from None


def _model_of(contents: Any) -> tuple[Instance, dict[str, Any]]:
    """The model's root module, and the training options (empty where stripped)."""
    if isinstance(contents, Instance):
        return contents, {}
    if not isinstance(contents, dict):
        raise InputError(f"the checkpoint holds {shown(contents)}, expected a dictionary with a model")
    options = contents.get("opt")
    options = options.state if isinstance(options, Instance) else options
    for key in ("ema", "model"):
        if isinstance(contents.get(key), Instance):
            return contents[key], options if isinstance(options, dict) else {}
    if contents and all(isinstance(value, StoredTensor) for value in contents.values()):
        raise InputError("a bare state dict: it holds tensors but not the network; OcTrim needs the checkpoint that training wrote")
    raise InputError(f"the checkpoint has no model; it holds {shown(sorted(map(str, contents)))}")


def _modules(root: Instance) -> dict[str, Instance]:
    """Every module of the tree by its dotted name."""
    found: dict[str, Instance] = {}
    waiting = [("", root)]
    while waiting:
        prefix, module = waiting.pop()
        children = module.state.get("_modules", {})
        if not isinstance(children, dict) or len(found) > 100_000:
            raise InputError(f"malformed module tree at {prefix or 'its root'}")
        for name, child in children.items():
            if isinstance(child, Instance):
                path = f"{prefix}{name}"
                if len(path) > 200:
                    raise InputError(f"malformed module tree: {path[:60]}.. is nested without end")
                found[path] = child
                waiting.append((f"{path}.", child))
    return found


def _tensors(tree: dict[str, Instance]) -> dict[str, StoredTensor]:
    """Every parameter and buffer of the tree by its dotted name, without those that are no weights."""
    found: dict[str, StoredTensor] = {}
    for path, module in tree.items():
        for kind in ("_parameters", "_buffers"):
            values = module.state.get(kind, {})
            if len(found) > 100_000:
                raise InputError(f"malformed module tree: more than 100,000 tensors at {path}")
            if isinstance(values, dict):
                found |= {f"{path}.{name}": value for name, value in values.items() if isinstance(value, StoredTensor) and name not in _NO_WEIGHTS}
    return found


def _network(root: Instance, tree: dict[str, Instance], archive: _Archive) -> Network:
    """The rows of the checkpoint's own layout, with the class count and anchors that Detect ended up with."""
    values = root.state.get("yaml")
    if not isinstance(values, dict) or not isinstance(values.get("head"), list) or not values["head"]:
        raise InputError(f"the model ({root.name}) carries no YOLOv5 layout")
    detect = next((module for module in tree.values() if module.name == "models.yolo.Detect"), None)
    if detect is None:
        raise InputError(f"the model ({root.name}) has no models.yolo.Detect module")
    buffers = detect.state.get("_buffers")
    anchors = buffers.get("anchors") if isinstance(buffers, dict) else None
    stride = next((s for s in (detect.state.get("stride"), root.state.get("stride")) if isinstance(s, StoredTensor)), None)
    if (
        not isinstance(anchors, StoredTensor)
        or stride is None
        or len(anchors.shape) != 3
        or not anchors.shape[0]
        or stride.shape != anchors.shape[:1]
    ):
        raise InputError("Detect carries no anchors and strides that fit together")
    strides = archive.tensor(stride, "stride")
    with np.errstate(all="ignore"):
        pixels = archive.tensor(anchors, "anchors") * strides[:, None, None]
    last = values["head"][-1]
    if not isinstance(last, list) or len(last) != 4:
        raise InputError(f"the layout in the checkpoint ends with {shown(last)}, expected Detect")
    head = [*values["head"][:-1], [*last[:3], ["nc", "anchors"]]]
    layout = {**values, "head": head, "nc": detect.state.get("nc"), "anchors": pixels.reshape(len(pixels), -1).tolist()}
    network = expand(Layout("the layout in the checkpoint", layout))
    if strides.tolist() != list(network.strides):
        raise InputError(f"Detect's strides are {strides.tolist()}, the layout's {list(network.strides)}")
    return network


def _rows_from_tree(network: Network, tree: dict[str, Instance], stored: dict[str, StoredTensor]) -> Network:
    """Compare every convolution with its module, and all tensors with what the rows ask for; take over the activations."""
    rows: list[Row] = []
    for row in network.rows:
        if row.op != "conv":
            rows.append(row)
            continue
        inner = f"{row.name}.conv" if row.norm else row.name
        _check_conv(row, tree.get(inner), inner)
        eps = tree[f"{row.name}.bn"].state.get("eps") if f"{row.name}.bn" in tree else BATCH_NORM_EPS
        if eps != BATCH_NORM_EPS:
            raise InputError(f"{row.name}.bn has eps {shown(eps)}, YOLOv5's is {BATCH_NORM_EPS}")
        rows.append(replace(row, activation=_activation(row, tree)) if row.norm else row)
    expected = tensor_shapes(network)
    for name in expected:
        if name not in stored:
            raise InputError(f"tensor {name} is missing")
    extra = stored.keys() - expected.keys()
    if extra:
        raise InputError(f"tensor {shown(min(extra))} belongs to no layer that the layout describes; was the network's code changed?")
    return Network(tuple(rows), network.anchors)


def _check_conv(row: Row, module: Instance | None, path: str) -> None:
    if module is None or module.name != "torch.nn.modules.conv.Conv2d":
        raise InputError(f"{path}: expected a Conv2d module, found {module or 'none'}")
    expected = {
        "kernel_size": (row.kernel,) * 2,
        "stride": (row.stride,) * 2,
        "padding": (row.padding,) * 2,
        "dilation": (1, 1),
        "groups": row.groups,
    }
    for key, value in expected.items():
        if module.state.get(key) != value:
            raise InputError(f"{path}: {key} is {shown(module.state.get(key))}, the layout says {value}")


def _activation(row: Row, tree: dict[str, Instance]) -> str | None:
    """The activation that the module tree has, whatever the layout says: in v6 users changed it in the code."""
    module = tree.get(f"{row.name}.act")
    if module is None:
        return row.activation
    name = module.name.rpartition(".")[2]
    if name == "LeakyReLU":
        slope = module.state.get("negative_slope")
        return f"leaky_relu:{slope:g}" if isinstance(slope, float) else row.activation
    if name not in TORCH_ACTIVATIONS:
        raise InputError(f"{row.name}: activation {name} is not supported")
    return TORCH_ACTIVATIONS[name]


def _names(names: Any, classes: int) -> tuple[str, ...]:
    if isinstance(names, dict):
        names = [names.get(index) for index in range(len(names))]
    if not isinstance(names, list) or len(names) != classes or not all(isinstance(name, str) for name in names):
        raise InputError(f"names are {shown(names)}, expected {classes} class names")
    return tuple(names)


def _image_size(options: dict[str, Any], network: Network) -> int:
    size = options.get("imgsz")
    return size if type(size) is int and 32 <= size <= 8192 else 1280 if len(network.strides) == 4 else 640

"""Reads official YOLOv5 v6 and v7 detection checkpoints (`.pt`), and those that users trained, without PyTorch and without YOLOv5.

The layout in the checkpoint is expanded to rows, and every row takes its tensors from the module tree, whose kernels, strides, paddings and groups
must agree with the row's. Nothing in the file is executed (see `pickles`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from octrim.errors import InputError, shown
from octrim.network.archive import Archive, open_archive
from octrim.network.cost import tensor_shapes
from octrim.network.foreign import family_of
from octrim.network.initialize import pad_weight, usual_image_size
from octrim.network.layout import Layout
from octrim.network.model import Model, sha256
from octrim.network.modules import TORCH_ACTIVATIONS
from octrim.network.pickles import Instance, StoredTensor, named_globals, read_pickle
from octrim.network.rows import BATCH_NORM_EPS, Network, Row
from octrim.network.table import Stored, Tree
from octrim.network.yolov5 import expanded

# These tensors of the tree are no weights: Detect's anchors are read apart, its grids and the counters are not needed.
_NO_WEIGHTS = ("num_batches_tracked", "anchors", "anchor_grid")

_NORM = ("weight", "bias", "running_mean", "running_var")


def load_checkpoint(path: Path) -> Model:
    """Read a `.pt` checkpoint into a model with float32 weights, the EMA weights where it has them.

    Raises InputError without the file's name, which `octrim.network.loading.load` adds.
    """
    with open_archive(path) as archive:
        data = archive.read("data.pkl")
        names = named_globals(data)
        family = family_of(names)
        if family is not None:
            raise InputError(f"this is {family}; OcTrim reads YOLOv5's detection checkpoints up to v7")
        contents = read_pickle(data)
        root, options = _model_of(contents)
        tree = _modules(root)
        network, places = _network(root, tree, archive)
        stored = _tensors(tree)
        network = _rows_from_tree(network, places, tree, stored)
        tensors = _read_tensors(network, places, stored, archive)
    lineage = {"action": "read", "file": path.name, "sha256": sha256(path), "licence": "YOLOv5 checkpoint: AGPL-3.0 where Ultralytics published it"}
    return Model(network, tensors, _names(root.state.get("names"), network.classes), _image_size(options, network), (lineage,))


def _model_of(contents: Any) -> tuple[Instance, dict[str, Any]]:
    """Return the root module of the network in a checkpoint, and the training options (empty where stripped). Raises InputError without a network."""
    if isinstance(contents, Instance):
        return _unwrapped(contents), {}
    if not isinstance(contents, dict):
        raise InputError(f"the checkpoint holds {shown(contents)}, expected a dictionary with a model")
    options = contents.get("opt")
    options = options.state if isinstance(options, Instance) else options
    for key in ("ema", "model"):
        if isinstance(contents.get(key), Instance):
            return _unwrapped(contents[key]), options if isinstance(options, dict) else {}
    for key, values in (("", contents), *contents.items()):
        if isinstance(values, dict) and values and all(isinstance(value, StoredTensor) for value in values.values()):
            where = f" under {shown(key)}" if key else ""
            raise InputError(f"a bare state dict{where}: it holds tensors but not the network; OcTrim needs the checkpoint that training wrote")
    raise InputError(f"the checkpoint has no model; it holds {shown(sorted(map(str, contents)))}")


def _unwrapped(root: Instance) -> Instance:
    """Return the network inside the wrappers of training scripts and `torch.hub`: `DataParallel`, `AutoShape`, `DetectMultiBackend`."""
    for _ in range(4):
        children = root.state.get("_modules")
        if not root.name.startswith(("torch.nn.parallel.", "models.common.")) or not isinstance(children, dict):
            break
        inner = children.get("module", children.get("model"))
        if not isinstance(inner, Instance):
            break
        root = inner
    return root


def _modules(root: Instance) -> dict[str, Instance]:
    """Return every module of the tree below `root` by its dotted name."""
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
    """Return every parameter and buffer of the tree by its dotted name, without those that are no weights."""
    found: dict[str, StoredTensor] = {}
    for path, module in tree.items():
        for kind in ("_parameters", "_buffers"):
            values = module.state.get(kind, {})
            if len(found) > 100_000:
                raise InputError(f"malformed module tree: more than 100,000 tensors at {path}")
            if isinstance(values, dict):
                found |= {f"{path}.{name}": value for name, value in values.items() if isinstance(value, StoredTensor) and name not in _NO_WEIGHTS}
    return found


def _network(root: Instance, tree: dict[str, Instance], archive: Archive) -> tuple[Network, Mapping[str, Stored]]:
    """Expand the checkpoint's own layout, with the class count and anchors of its Detect module; return the network and the places of its tensors."""
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
    known = _known(tree)
    for level in range(len(pixels)):
        _check_head(known.widths.get(f"model.{_last_index(values)}.m.{level}"), pixels.shape[1], detect.state.get("nc"))
    network, places = expanded(Layout("the layout in the checkpoint", layout), known)
    if strides.tolist() != list(network.strides):
        raise InputError(f"Detect's strides are {strides.tolist()}, the layout's {list(network.strides)}")
    return network, places


def _last_index(values: dict[str, Any]) -> int:
    backbone = values.get("backbone")
    return (len(backbone) if isinstance(backbone, list) else 0) + len(values["head"]) - 1


def _check_head(channels: int | None, anchors: int, classes: object) -> None:
    """Raise InputError for a Detect that gives other values per box than box, objectness and classes; for known forks the error says which."""
    if channels is None or type(classes) is not int or channels == anchors * (5 + classes):
        return
    more = {10: " (landmarks, as yolov5-face has them)", 180: " (angles, as yolov5-obb has them)"}.get(channels // anchors - 5 - classes, "")
    raise InputError(f"Detect gives {channels} values per cell, expected {anchors} x (5 + {classes} classes){more}; OcTrim reads plain detectors")


def _known(tree: dict[str, Instance]) -> Tree:
    """Return the channel counts, batch norms, shortcuts and lengths of sequences that the module tree has."""
    widths, norms, adds, members = {}, set(), {}, {}
    for path, module in tree.items():
        if module.name == "torch.nn.modules.conv.Conv2d":
            parameters = module.state.get("_parameters")
            weight = parameters.get("weight") if isinstance(parameters, dict) else None
            if isinstance(weight, StoredTensor) and weight.shape and weight.shape[0] >= 1:
                widths[path] = weight.shape[0]
        elif module.name.startswith("torch.nn.modules.batchnorm."):
            norms.add(path)
        elif module.name == "torch.nn.modules.container.Sequential":
            members[path] = len(module.state.get("_modules") or ())
        elif type(module.state.get("add")) is bool:
            adds[path] = module.state["add"]
    return Tree(widths, frozenset(norms), adds, members)


def _rows_from_tree(network: Network, places: Mapping[str, Stored], tree: dict[str, Instance], stored: dict[str, StoredTensor]) -> Network:
    """Check every convolution against its module and the names of all tensors against the rows; return the network with the tree's activations."""
    rows: list[Row] = []
    expected: set[str] = set()
    for row in network.rows:
        if row.op != "conv":
            rows.append(row)
            continue
        place = places[row.name]
        if place.pads:
            _check_pad(place, tree.get(place.conv))
            rows.append(row)
            continue
        _check_conv(row, place, tree.get(place.conv))
        eps = tree[place.norm].state.get("eps") if row.norm else BATCH_NORM_EPS
        if eps != BATCH_NORM_EPS:
            raise InputError(f"{place.norm} has eps {shown(eps)}, YOLOv5's is {BATCH_NORM_EPS}")
        rows.append(replace(row, activation=_activation(row, tree.get(place.activation))) if place.activation else row)
        names = [f"{place.conv}.weight", *[f"{place.conv}.bias"] * row.bias, *(f"{place.norm}.{part}" for part in _NORM if row.norm)]
        for name in names:
            if name not in stored:
                raise InputError(f"tensor {name} is missing")
        expected.update(names)
    extra = stored.keys() - expected
    if extra:
        raise InputError(f"tensor {shown(min(extra))} belongs to no layer that the layout describes; was the network's code changed?")
    return Network(tuple(rows), network.anchors)


def _read_tensors(network: Network, places: Mapping[str, Stored], stored: dict[str, StoredTensor], archive: Archive) -> dict[str, np.ndarray]:
    """Read the tensors of all rows from the places where the tree keeps them."""
    shared = Counter[str]()  # number of channels of each batch norm, which several convolutions may share
    for row in network.convs:
        shared[places[row.name].norm] += row.channels
    shapes, tensors = tensor_shapes(network), {}
    for row in network.convs:
        place, shape = places[row.name], shapes[row.weight_name]
        if place.pads:
            tensors[row.weight_name] = pad_weight(shape)
            continue
        if place.focus:
            stacked = archive.tensor(stored[f"{place.conv}.weight"], f"{place.conv}.weight", (shape[0], 4 * shape[1], shape[2] // 2, shape[3] // 2))
            tensors[row.weight_name] = _unstacked(stacked)
        else:
            tensors[row.weight_name] = archive.tensor(stored[f"{place.conv}.weight"], f"{place.conv}.weight", shape)
        if row.bias:
            tensors[f"{row.name}.bias"] = archive.tensor(stored[f"{place.conv}.bias"], f"{place.conv}.bias", (row.channels,))
        for part in _NORM if row.norm else ():
            name = f"{place.norm}.{part}"
            whole = archive.tensor(stored[name], name, (shared[place.norm],))
            own = whole[place.first : place.first + row.channels]
            tensors[f"{row.name}.bn.{part}"] = own.copy() if len(own) < len(whole) else whole  # a view would keep the whole alive
    return tensors


def _unstacked(weight: np.ndarray) -> np.ndarray:
    """Convert weights `[out, 4 in, k, k]` over stacked pixels to weights `[out, in, 2k, 2k]` over the pixels themselves.

    `Focus` stacks, in this order, the pixels at (line, column) (0, 0), (1, 0), (0, 1) and (1, 1) of every 2x2 square.
    """
    out, stacked, kernel, _ = weight.shape
    by_column = weight.reshape(out, 2, 2, stacked // 4, kernel, kernel)  # axes: out, column, line, channel, and the window's line and column
    return np.ascontiguousarray(by_column.transpose(0, 3, 4, 2, 5, 1)).reshape(out, stacked // 4, 2 * kernel, 2 * kernel)


def _check_conv(row: Row, place: Stored, module: Instance | None) -> None:
    path = place.conv
    if module is None or module.name != "torch.nn.modules.conv.Conv2d":
        raise InputError(f"{path}: expected a Conv2d module, found {module or 'none'}")
    pixels = 2 if place.focus else 1
    expected = {
        "kernel_size": (row.kernel // pixels,) * 2,
        "stride": (row.stride // pixels,) * 2,
        "padding": (row.padding // pixels,) * 2,
        "dilation": (1, 1),
        "groups": row.groups,
    }
    for key, value in expected.items():
        if module.state.get(key) != value:
            raise InputError(f"{path}: {key} is {shown(module.state.get(key))}, the layout says {value}")


def _check_pad(place: Stored, module: Instance | None) -> None:
    sides = None if module is None else module.state.get("padding")
    if module is None or module.name != "torch.nn.modules.padding.ZeroPad2d" or sides != place.pads * 2:
        raise InputError(f"{place.conv}: expected a ZeroPad2d module by {place.pads * 2}, found {module or 'none'} by {shown(sides)}")


def _activation(row: Row, module: Instance | None) -> str | None:
    """Return the activation of the module tree, whatever the layout says: in v6 users changed it in the code. Raises InputError for unknown ones."""
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
    return size if type(size) is int and 32 <= size <= 8192 else usual_image_size(network)

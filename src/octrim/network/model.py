"""A model is a network and its tensors. One `.safetensors` file holds both, and is enough to train on, prune, export and run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from octrim.atomic import write_bytes
from octrim.errors import InputError, counted, shown
from octrim.network.cost import tensor_shapes
from octrim.network.foreign import kind_of, placeholder
from octrim.network.rows import Network
from octrim.network.scales import Scales

FORMAT = 2
"""Newest version of the model file that is read; newer files are refused. Version 2 adds scales; without them 1 is written, for older readers."""

_KEY = "octrim"


@dataclass(frozen=True, eq=False)
class Model:
    """A network with its weights. Two models are equal only if they are one object; `network` and `tensors` can be compared.

    tensors: float32 arrays by the names that `tensor_shapes(network)` asks for; treated as read-only.
    names: one name per class. image_size: the picture side in pixels that the network was made for.
    lineage: the steps that made the model, oldest first, as JSON objects with at least `action`; the first says where the weights come from.
    scales: the scales of a quantized model, as `octrim.network.scales` names them; they hold for these weights only.
    Raises InputError where these do not fit together.
    """

    network: Network
    tensors: Mapping[str, np.ndarray]
    names: tuple[str, ...]
    image_size: int = 640
    lineage: tuple[dict[str, Any], ...] = ()
    scales: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.names) != self.network.classes:
            raise InputError(f"{counted(len(self.names), 'class name')} for a network of {counted(self.network.classes, 'class', 'classes')}")
        for name in self.names:
            if not name.isprintable():  # some file formats could not carry such a name
                raise InputError(f"class name {shown(name)} has unprintable characters")
        expected = tensor_shapes(self.network)
        for name, shape in expected.items():
            tensor = self.tensors.get(name)
            if tensor is None:
                raise InputError(f"tensor {name} is missing; the table expects it with shape {list(shape)}")
            if tensor.shape != shape or tensor.dtype != np.float32:
                raise InputError(f"tensor {name} is {tensor.dtype} {list(tensor.shape)}; the table expects float32 {list(shape)}")
        unknown = self.tensors.keys() - expected.keys()
        if unknown:
            raise InputError(f"tensor {min(unknown)} belongs to no row of the table")
        Scales(self.network, self.scales)  # raises InputError for scales that do not fit

    def save(self, path: str | Path) -> None:
        """Write the model file, completely or not at all. The same model gives the same bytes on every run.

        Raises InputError where `path` does not end in `.safetensors`, or its folder does not exist.
        """
        from safetensors.numpy import save

        path = Path(path)
        if path.suffix != ".safetensors":
            raise InputError(f"{path}: a model file's name ends in .safetensors")
        if not path.parent.is_dir():
            raise InputError(f"{path}: its folder does not exist")
        header = {
            "format": 2 if self.scales else 1,
            "table": self.network.to_json(),
            "anchors": self.network.anchors,
            "strides": self.network.strides,
            "names": self.names,
            "image_size": self.image_size,
            "lineage": self.lineage,
        }
        # The metadata has one key: safetensors writes several in random order, and the file's hash would change from run to run.
        metadata = {_KEY: json.dumps(header, sort_keys=True, ensure_ascii=False, separators=(",", ":"))}
        tensors = {name: self.tensors[name] for name in tensor_shapes(self.network)} | dict(sorted(self.scales.items()))
        write_bytes(path, save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, metadata))


def load_model_file(path: Path) -> Model:
    """Read a `.safetensors` model file. Raises InputError without the file's name, which `octrim.network.loading.load` adds."""
    from safetensors import SafetensorError, safe_open

    instead = placeholder(path)
    if instead is not None:
        raise InputError(instead)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise InputError("no network table in this safetensors file; OcTrim reads model files that it has written")
            header = _header(metadata[_KEY])
            network = Network.from_json(header["table"], header["anchors"])
            if list(network.strides) != header["strides"]:
                raise InputError(f"strides {shown(header['strides'])} do not match the table's {list(network.strides)}")
            tensors: dict[str, np.ndarray] = {}
            scales: dict[str, np.ndarray] = {}
            expected = tensor_shapes(network)
            for name in file.keys():  # noqa: SIM118 (not a dict)
                part = file.get_slice(name)
                if header["format"] > 1 and name.endswith((".scale", ".weight_scale")) and name not in expected and part.get_dtype() == "F32":
                    scales[name] = file.get_tensor(name)
                    continue
                if name not in expected:
                    raise InputError(f"tensor {shown(name)} belongs to no row of the table")
                if tuple(part.get_shape()) != expected[name] or part.get_dtype() != "F32":
                    raise InputError(f"tensor {name} is {part.get_dtype()} {part.get_shape()}; the table expects F32 {list(expected[name])}")
                tensors[name] = file.get_tensor(name)
    except SafetensorError as error:
        kind = kind_of(path)
        if kind is not None and "safetensors" not in kind:
            raise InputError(f"not a safetensors file but {kind}") from None
        raise InputError(f"not a readable safetensors file ({error}): it is truncated or damaged, copy or download it again") from None
    return Model(network, tensors, tuple(header["names"]), header["image_size"], tuple(header["lineage"]), scales)


def _header(text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the network table is not JSON: {shown(str(error))}") from None
    if not isinstance(header, dict) or not isinstance(header.get("format"), int):
        raise InputError("the network table has no format number")
    if header["format"] > FORMAT:
        raise InputError(f"written by a newer OcTrim (format {header['format']}, this one reads up to {FORMAT}); upgrade octrim")
    kinds = {"table": list, "anchors": list, "strides": list, "names": list, "image_size": int, "lineage": list}
    for key, kind in kinds.items():
        if not isinstance(header.get(key), kind):
            raise InputError(f"{key} is {shown(header.get(key))}, expected {kind.__name__}")
    if not all(isinstance(name, str) for name in header["names"]) or not all(isinstance(step, dict) for step in header["lineage"]):
        raise InputError("names must be text and lineage objects")
    if not 1 <= header["image_size"] <= 65536:
        raise InputError(f"image_size is {header['image_size']}, expected pixels")
    return header


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

"""What was recorded: a program of nodes, as plain data that can be checked, executed and written to bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MAGIC = b"TRTSTAND"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """One layer. kind: its LayerType. inputs, output: ids of tensors. attributes: plain data, without what was never set and has no default."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Port:
    """An input or output of the network. dtype: of DataType. profile: per optimization profile the least, best and largest shape; inputs only."""

    id: str
    name: str
    dtype: str
    shape: Shape
    profiles: tuple[tuple[Shape, Shape, Shape], ...] = ()


@dataclass(frozen=True)
class Program:
    """Nodes in an order in which they can run."""

    version: str
    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: tuple[Node, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the builder's configuration: what a test may want to see."""

    def to_bytes(self) -> bytes:
        blobs: list[np.ndarray] = []
        nodes = []
        for node in self.nodes:
            weights = {}
            for key, array in node.weights.items():
                weights[key] = [len(blobs), array.dtype.name, list(array.shape)]
                blobs.append(array)
            nodes.append([node.kind, node.name, node.inputs, node.output, node.attributes, weights])
        ports = [[[port.id, port.name, port.dtype, port.shape, port.profiles] for port in ports] for ports in (self.inputs, self.outputs)]
        header = json.dumps([self.version, self.name, *ports, nodes, self.settings]).encode()
        parts = [len(header).to_bytes(8, "little"), header, *(array.reshape(-1).view(np.uint8).data for array in blobs)]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        return b"".join([MAGIC, digest.digest(), *parts])

    @classmethod
    def from_bytes(cls, data: bytes) -> Program:
        """Raises ValueError where the bytes are not those of `to_bytes`."""
        body = memoryview(data)[40:]
        if data[:8] != MAGIC or hashlib.sha256(body).digest() != data[8:40]:
            raise ValueError(f"{len(data)} bytes are no engine, or not a whole one")
        position = 8 + int.from_bytes(body[:8], "little")
        version, name, inputs, outputs, entries, settings = json.loads(bytes(body[8:position]))
        nodes = []
        for kind, label, sources, output, attributes, stored in entries:
            weights = {}
            for key, (_, dtype, shape) in stored.items():
                count = int(np.prod(shape))
                weights[key] = np.frombuffer(body, dtype, count, position).reshape(shape)
                position += weights[key].nbytes
            nodes.append(Node(kind, label, tuple(sources), output, attributes, weights))
        ports = [tuple(_port(*entry) for entry in entries) for entries in (inputs, outputs)]
        return cls(version, name, ports[0], ports[1], tuple(nodes), settings)


def _port(key: str, name: str, dtype: str, shape: list[int], profiles: list[list[list[int]]]) -> Port:
    return Port(key, name, dtype, tuple(shape), tuple((tuple(least), tuple(best), tuple(most)) for least, best, most in profiles))

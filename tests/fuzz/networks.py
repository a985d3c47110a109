"""Readers of networks and of what runs write: checkpoints, model and layout files, hyper-parameters, run folders."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import yaml

from octrim.errors import InputError
from octrim.network.cost import network_cost
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.network.yolov5 import anchors_to_fit, yolov5_network
from tests.checkpoints import CheckpointWriter, official_names, save_checkpoint, write_archive
from tests.fuzz.mutations import altered, flipped, mutated, rewired
from tests.fuzz.reader import TINY, BytesReader, Reader, decoded, tiny_model
from tests.network.published import Maker
from tests.network.test_published import older, pruned

HYP = (
    b"lr0: 0.01\nlrf: 0.1\nmomentum: 0.9\nwarmup_epochs: 3.0\nhsv_h: 0.015\nhsv_s: 0.7\n"
    b"degrees: 5\nscale: 0.5\nfliplr: 0.5\nmosaic: 1.0\nmixup: 1e-1\n"
)


class Checkpoint(BytesReader):
    name = "a.pt"

    def whole(self) -> Sequence[bytes]:
        model = tiny_model(self.folder)
        files = []
        for stripped, protocol in ((True, 2), (False, 2), (True, 4)):
            save_checkpoint(self.folder / self.name, model, str(self.folder / "tiny.yaml"), stripped=stripped, protocol=protocol)
            files.append((self.folder / self.name).read_bytes())
        for network in (older(Maker(1)), older(Maker(2, fused=True)), pruned(Maker(3), "Pruned")):
            with official_names() as name:
                writer = CheckpointWriter(name)
                writer.save(self.folder / self.name, {"model": network.tree(writer), "ema": None})
            files.append((self.folder / self.name).read_bytes())
        return files

    def damaged(self, dice: random.Random, data: bytes) -> bytes:
        kind = dice.randrange(5)
        if kind == 0:  # the archive, whose check sums then seldom fit
            return flipped(dice, data)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        pickled = parts.pop("data.pkl")
        records = {key.partition("/")[2]: value for key, value in parts.items() if key.startswith("data/")}
        if kind == 1:
            key = dice.choice(sorted(records))
            records[key] = flipped(dice, records[key])
        else:
            pickled = rewired(dice, pickled) if kind < 4 else flipped(dice, pickled)
        write_archive(self.path, pickled, records)
        return self.path.read_bytes()

    def open(self, path: Path) -> None:
        holds(load(path))


class ModelFile(BytesReader):
    name = "a.safetensors"
    key = "octrim"

    def whole(self) -> Sequence[bytes]:
        model = tiny_model(self.folder)
        model.save(self.folder / self.name)
        files = [(self.folder / self.name).read_bytes()]
        scales = {"model.0.scale": np.float32(0.5), "model.1.weight_scale": np.full(8, 0.25, np.float32)}
        try:
            Model(model.network, model.tensors, model.names, scales={key: np.asarray(value, np.float32) for key, value in scales.items()}).save(
                self.folder / self.name
            )
        except InputError:
            return files
        return [*files, (self.folder / self.name).read_bytes()]

    def damaged(self, dice: random.Random, data: bytes) -> bytes:
        kind = dice.randrange(4)
        if kind == 0:
            return flipped(dice, data)
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + size])
        if kind == 1:  # the container's own header: shapes, types, places
            header = altered(dice, header)
        else:
            inner = json.loads(header["__metadata__"][self.key])
            header["__metadata__"][self.key] = json.dumps(altered(dice, inner)) if kind == 2 else decoded(mutated(dice, json.dumps(inner).encode()))
        text = json.dumps(header).encode("utf-8", "surrogatepass")
        text = mutated(dice, text) if dice.random() < 0.05 else text
        return struct.pack("<Q", len(text)) + text + data[8 + size :]

    def open(self, path: Path) -> None:
        holds(load(path))


class TrainingState(ModelFile):
    name = "state.safetensors"
    key = "octrim-training"

    def whole(self) -> Sequence[bytes]:
        from octrim.training.checkpoint import State, save_state, tensor_shapes
        from octrim.training.vectors import kind_of

        network = tiny_model(self.folder).network
        sizes = {name: int(np.prod(shape)) for name, shape in tensor_shapes(network).items()}
        total, parameters = sum(sizes.values()), sum(size for name, size in sizes.items() if kind_of(name) < 3)
        counts = {"values": total, "average": total, "gradient": parameters, "moment0": parameters, "moment1": parameters}
        arrays = {name: np.zeros(count, np.float32) for name, count in counts.items()}
        rows = [{"epoch": 0, "loss": 1.5}]
        extra = {"hyper": {"lr0": 0.01, "mosaic": 1.0}, "strength": 0.5, "scales": {"top": 1.0, "counts": [[1, 2], [3, 0]]}}
        state = State(network, ("a", "b"), 64, ({"action": "made up"},), "digest", arrays, 1, 2, 1, 8, 8, rows=rows, best=(0.5, 0), extra=extra)
        save_state(state, self.folder / self.name)
        return [(self.folder / self.name).read_bytes()]

    def open(self, path: Path) -> None:
        from octrim.training.checkpoint import load_state
        from octrim.training.hyper import stored_hyperparameters

        state = load_state(path)
        holds(state.averaged({"action": "test"}))
        stored_hyperparameters(state.extra.get("hyper"))


def holds(model: Model) -> None:
    """What was accepted is a network that can be counted, planned and saved."""
    from octrim.pruning.plan import plan

    try:
        network_cost(model.network, model.network.stride, model.network.stride)
        plan(model, "1/2", criterion="random")
    except InputError:
        pass  # a picture of one cell may be too small, and all convolutions may be heads
    assert model.names
    assert all(tensor.dtype == np.float32 for tensor in model.tensors.values())
    Network.from_json(json.loads(json.dumps(model.network.to_json())), json.loads(json.dumps(model.network.anchors)))


MODULES = """\
nc: 2
anchors: 2
activation: nn.LeakyReLU(0.1)
backbone:
  - [-1, 1, Focus, [8, 3]]
  - [-1, 1, GhostConv, [16, 3, 2]]
  - [-1, 2, C3Ghost, [16]]
  - [-1, 1, GhostBottleneck, [16, 3, 2]]
  - [-1, 1, BottleneckCSP, [16, False]]
  - [-1, 1, DWConv, [16, 3, 1]]
  - [-1, 1, nn.MaxPool2d, [3, 1, 1]]
head:
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 2], 1, Concat, [1]]
  - [[8, 6], 1, Detect, [nc, anchors]]
"""


class LayoutYaml(BytesReader):
    name = "a.yaml"

    def whole(self) -> Sequence[bytes]:
        return [TINY.encode(), MODULES.encode()]

    def damaged(self, dice: random.Random, data: bytes) -> bytes:
        return mutated(dice, data) if dice.random() < 0.6 else yaml.safe_dump(altered(dice, yaml.safe_load(data))).encode()

    def open(self, path: Path) -> None:
        anchors_to_fit(path)
        network = yolov5_network(path, to_fit=True)
        network_cost(network, network.stride * 4, network.stride * 4)


class Hyper(LayoutYaml):
    name = "hyp.yaml"

    def whole(self) -> Sequence[bytes]:
        return [HYP]

    def open(self, path: Path) -> None:
        from octrim.training.hyper import read_hyperparameters

        found = read_hyperparameters(str(path))
        assert np.isfinite([found.lr0, found.box, found.mosaic]).all()


class KeepMap(LayoutYaml):
    name = "map.yaml"

    def whole(self) -> Sequence[bytes]:
        self.model = tiny_model(self.folder)
        return [b'{"model.0": 1, "model.2.*": "1/2", "model.7.cv?": 0.25}', b"model.0: 1\nmodel.[12].*: 1/8\n'model.4.*': 3/4\n"]

    def open(self, path: Path) -> None:
        from octrim.pruning.plan import plan
        from octrim.pruning.plan_files import read_keep_map

        made = plan(self.model, "1/2", criterion="random", keep_map=read_keep_map(str(path)))
        json.dumps(made.to_json())


class LatencyTables(Reader):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from tests.latency.analytic import exact_table

        self.network = tiny_model(folder).network
        self.table = json.loads(json.dumps(exact_table(self.network).to_json()))

    def read(self, dice: random.Random | None) -> None:
        from octrim.latency.table import read_table

        text = json.dumps(self.table).encode()
        if dice:
            text = mutated(dice, text) if dice.random() < 0.3 else json.dumps(altered(dice, self.table)).encode()
        path = self.folder / "table.json"
        path.write_bytes(text)
        table = read_table(path)
        json.dumps(table.to_json())
        assert np.isfinite([table.predict(self.network), table.align, table.limit("1/2", self.network)]).all()


class RunFolder(Reader):
    """What a run reads of its own folder to go on: config.yaml, start.json, stage.json, sensitivity.json."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from dataclasses import asdict

        from octrim.commands import Compress, Train
        from octrim.compression.presets import PRESETS
        from octrim.runs import Run
        from octrim.training.sensitivity_curves import FRACTIONS

        Run(folder, Train(weights="a.pt", data="b", imgsz=(64, 96), freeze=("1",), epochs=2, lr0=0.1))
        train = (folder / "config.yaml").read_bytes()
        Run(folder, Compress(weights="a.pt", data="b", keep="1/4"))
        compress = (folder / "config.yaml").read_bytes()
        start = {"preset": asdict(next(iter(PRESETS.values()))), "sha256": {"weights": "a" * 64, "data": "b" * 64}}
        curve = {"name": "model.0", "convs": ["model.0"], "channels": 8, "kept": [4] * len(FRACTIONS), "values": [0.5] * len(FRACTIONS)}
        curves = {"baseline": 0.5, "metric": "map", "pictures": 3, "fractions": list(FRACTIONS), "digest": "a", "groups": [curve]}
        row = {
            "parameters": 34103,
            "macs": 27_000_000,
            "channels": 735,
            "file_bytes": 180_000,
            "epochs": 3,
            "mAP50": 0.5,
            "mAP50-95": 0.4,
            "interval": [0.3, 0.5],
        }
        self.kinds: list[tuple[str, bytes, Callable[[Path], object]]] = [
            ("config.yaml", train, self.trained),
            ("config.yaml", compress, self.compressed),
            ("start.json", json.dumps(start).encode(), self.started),
            ("stage.json", json.dumps({"seconds": 1.5, "network": "a.safetensors", "row": row}).encode(), self.stage),
            ("sensitivity.json", json.dumps(curves).encode(), self.curves),
        ]

    def read(self, dice: random.Random | None) -> None:
        for kind in [dice.choice(self.kinds)] if dice else self.kinds:
            name, data, reader = kind
            if dice and dice.random() < 0.5:
                document = altered(dice, yaml.safe_load(data))
                data = (yaml.safe_dump(document) if name.endswith("yaml") else json.dumps(document)).encode("utf-8", "replace")
            elif dice:
                data = mutated(dice, data)
            (self.folder / name).write_bytes(data)
            reader(self.folder / name)

    def trained(self, path: Path) -> None:
        from octrim.commands import Train
        from octrim.runs import stored_config

        stored_config(Train(resume=str(path.parent)), path.parent)

    def compressed(self, path: Path) -> None:
        from octrim.commands import Compress
        from octrim.runs import stored_config

        stored_config(Compress(resume=str(path.parent)), path.parent)

    def started(self, path: Path) -> None:
        from octrim.commands import Compress
        from octrim.compression.start import remembered

        remembered(path.parent, Compress())

    def stage(self, path: Path) -> None:
        from octrim.compression.job import stored

        stored(path.parent)

    def curves(self, path: Path) -> None:
        from octrim.training.sensitivity_curves import load_curves

        load_curves(path)

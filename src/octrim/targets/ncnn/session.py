"""Sessions that run a model's own network, or an exported folder, in ncnn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ncnn
import numpy as np

from octrim.errors import InputError, shown
from octrim.machine import quiet_stderr, usable_cores
from octrim.network.model import Model
from octrim.targets.metadata import file_info, read_header, values_per_box
from octrim.targets.ncnn.folder import BIN, HEADER, PARAM
from octrim.targets.ncnn.graph import OUTPUT, ncnn_files, output_shape
from octrim.targets.session import PerShape, Session, float_batch, model_info


def version() -> str:
    return str(ncnn.__version__)


class NcnnSession(Session):
    """Session that writes a model's network for ncnn in memory, once per size, and runs it. Batches are a loop over pictures."""

    def __init__(self, model: Model, precision: str, threads: int | None) -> None:
        super().__init__(model_info(model, "ncnn", version(), precision))

        def build(_batch: int, height: int, width: int) -> _LoadedNet:
            text, weights = ncnn_files(model, height, width, half=precision == "fp16")

            def load(net: Any) -> int:
                failed = net.load_param_mem(text)
                net.load_model_mem(weights)
                return failed

            return _LoadedNet("this network", load, precision, threads, output_shape(model.network, height, width), weights)

        self.networks = PerShape(build)

    def ready(self, batch: int, height: int, width: int) -> None:
        self.networks(1, height, width)

    def run(self, batch: np.ndarray) -> np.ndarray:
        return self.networks(1, *batch.shape[1:3])(float_batch(batch))


class NcnnFolderSession(Session):
    """Session that runs a folder of OcTrim's own export. Its files are compared with their sha256 first: ncnn trusts what it reads."""

    def __init__(self, path: Path, precision: str, threads: int | None) -> None:
        folder = path.parent
        if path.name != PARAM:
            raise InputError(
                f"{path}: OcTrim opens {PARAM}, as it writes it beside {BIN} and {HEADER}; of other .param files it does not know the outputs"
            )
        described = read_header(folder / HEADER, {name: _bytes(folder / name) for name in (PARAM, BIN)})
        actual, size = _contract(folder / HEADER, described)
        if precision not in ("fp32", actual):  # fp32 is the default, so it is accepted for every file
            raise InputError(f"{folder}: was exported in {actual}; ncnn cannot run it in {precision}")
        super().__init__(file_info(folder, described, (None, 3, *size), (None, None, values_per_box(described)), "ncnn", version(), actual))

        if self.info.network is None:
            raise InputError(f"{folder / HEADER}: it is damaged: no table")

        def load(net: Any) -> int:
            return net.load_param(str(folder / PARAM)) or net.load_model(str(folder / BIN))

        self.network = _LoadedNet(str(folder), load, actual, threads, output_shape(self.info.network, *size))

    def run(self, batch: np.ndarray) -> np.ndarray:
        return self.network(float_batch(batch))


class _LoadedNet:
    """A loaded network: `network(pictures) -> boxes`.

    load: called with ncnn's Net, gives 0 or an error. output: boxes and values per box. memory: what ncnn keeps pointers into. Raises InputError
    where ncnn cannot load it, and where it cannot run it, most likely for lack of memory.
    """

    def __init__(
        self, name: str, load: Callable[[Any], int], precision: str, threads: int | None, output: tuple[int, int], memory: bytes = b""
    ) -> None:
        self.name, self.output, self.memory = name, output, memory
        self.net = ncnn.Net()  # pyright: ignore[reportAttributeAccessIssue] (a compiled module without stubs)
        options = self.net.opt
        options.num_threads = threads or usable_cores()
        if precision == "fp32":  # ncnn's defaults are float16 wherever the processor has it
            options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = options.use_bf16_storage = False
        with quiet_stderr():
            failed = load(self.net)
        if failed:
            raise InputError(f"{name}: ncnn cannot load it")

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """Boxes `[n, boxes, 5 + classes]` of pictures, float32 `[n, 3, height, width]` in 0..1."""
        found = np.empty((len(pictures), *self.output), np.float32)
        for picture, boxes in zip(pictures, found, strict=True):
            run = self.net.create_extractor()
            run.input("images", ncnn.Mat(picture))  # pyright: ignore[reportAttributeAccessIssue]
            failed, given = run.extract(OUTPUT)
            values = np.empty(0) if failed else np.array(given)
            if values.shape != self.output:  # a header may say another size than the one that the network was written for
                raise InputError(f"{self.name}: ncnn cannot run it on pictures of {picture.shape[1]}x{picture.shape[2]}")
            boxes[:] = values
        return found


def _contract(header: Path, described: dict[str, Any]) -> tuple[str, tuple[int, int]]:
    """Precision and size of pictures (height, width) as the header describes them."""
    try:
        _, height, width = (int(side) for side in described["input"]["shape"])
        return str(described["precision"]), (height, width)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(f"{header}: it is damaged: {shown(str(error))}") from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; a folder of ncnn has {PARAM}, {BIN} and {HEADER}") from None

"""The header of an engine, with everything that an engine does not tell about itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from octrim.errors import InputError, shown
from octrim.network.rows import Network
from octrim.targets.tensorrt.cuda import Gpu

ENGINE_FORMAT = 1
"""Version of the header that OcTrim writes, and the newest that it reads."""


@dataclass(frozen=True)
class EngineHeader:
    """Header of an engine: the network, and what the engine was built with, for and from.

    precision: "fp32", "fp16" or "int8". high_precision: precision of the layers of an int8 engine that are not int8; otherwise `precision`.
    names: one per class. image_size: the side in pixels that the network was made for. size: height and width of the pictures, pixels.
    batch: fewest, typical and most pictures per batch. tensorrt: version of TensorRT. gpu: GPU that it was built on; None where it is unknown.
    input: "uint8" for pictures `[batch, height, width, 3]`, "float32" for `[batch, 3, height, width]` in 0..1. decode: whether it gives boxes.
    engine_sha256: hash of the engine's bytes. weights_sha256: hash of the tensors that it was built from. lineage: the model's.
    """

    precision: str
    high_precision: str
    names: tuple[str, ...]
    image_size: int
    size: tuple[int, int]
    batch: tuple[int, int, int]
    tensorrt: str
    gpu: Gpu | None
    network: Network
    input: str
    decode: bool
    engine_sha256: str
    weights_sha256: str
    lineage: tuple[dict[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The header as JSON values."""
        return {
            "format": ENGINE_FORMAT,
            "tensorrt": self.tensorrt,
            "gpu": None if self.gpu is None else asdict(self.gpu),
            "names": list(self.names),
            "anchors": [[list(pair) for pair in anchors] for anchors in self.network.anchors],
            "strides": list(self.network.strides),
            "stride": self.network.stride,
            "image_size": self.image_size,
            "size": list(self.size),
            "table": self.network.to_json(),
            "precision": self.precision,
            "high_precision": self.high_precision,
            "batch": list(self.batch),
            "input": self.input,
            "decode": self.decode,
            "sha256": {"engine": self.engine_sha256, "weights": self.weights_sha256},
            "lineage": list(self.lineage),
        }

    @classmethod
    def from_json(cls, content: Any) -> EngineHeader:
        """The header that `to_json` wrote. Raises InputError, which does not name the file, for whatever it would not have written."""
        if not isinstance(content, dict) or not isinstance(content.get("format"), int):
            raise InputError("has no format number")
        if content["format"] > ENGINE_FORMAT:
            raise InputError(f"written by a newer OcTrim (format {content['format']}, this one reads up to {ENGINE_FORMAT}); upgrade octrim")
        try:
            return _header(content)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"the header is damaged: {type(error).__name__} {shown(str(error))}") from None


def _header(content: dict[str, Any]) -> EngineHeader:
    (height, width), (low, typical, high) = content["size"], content["batch"]
    gpu, names, digests = content["gpu"], content["names"], content.get("sha256")
    numbers = (height, width, low, typical, high, content["stride"], content["image_size"])
    if not all(type(number) is int and 1 <= number <= 65536 for number in numbers) or not low <= typical <= high:
        raise InputError(f"size, batch, stride and image_size are {shown(list(numbers))}")
    if not isinstance(digests, dict):
        digests = {}  # no engine has an empty digest, so a comparison with it fails
    found = Gpu(gpu["name"], gpu["capability"], gpu.get("cuda", ""), gpu.get("driver", ""))
    texts = (content["precision"], content["tensorrt"], *asdict(found).values(), digests.get("engine", ""), *names)
    if not isinstance(names, list) or not all(isinstance(text, str) and text.isprintable() for text in texts):
        raise InputError("precision, versions and class names must be printable text")
    if content["decode"] is not True:
        raise InputError("the engine was built without decoding; it gives logits, no boxes")
    network = Network.from_json(content["table"], content["anchors"])
    if len(names) != network.classes or network.stride != content["stride"]:
        raise InputError(f"{len(names)} names and stride {content['stride']} for a table of {network.classes} classes and stride {network.stride}")
    return EngineHeader(
        precision=content["precision"],
        high_precision=content.get("high_precision", content["precision"]),
        names=tuple(names),
        image_size=content["image_size"],
        size=(height, width),
        batch=(low, typical, high),
        tensorrt=content["tensorrt"],
        gpu=found,
        network=network,
        input=content.get("input", "uint8"),
        decode=True,
        engine_sha256=digests.get("engine", ""),
        weights_sha256=digests.get("weights", ""),
        lineage=tuple(content.get("lineage", ())),
    )

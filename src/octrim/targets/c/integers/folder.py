"""The folder `c/` of an export in int8: detector.h, detector.c, example.c, README.md, detector.json. All arithmetic is in integers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import sha256
from importlib import resources
from math import gcd
from pathlib import Path

import numpy as np

from octrim.backends.numpy import sigmoid
from octrim.network.cost import network_cost
from octrim.network.model import Model
from octrim.targets.c.folder import HEADER
from octrim.targets.c.integers.lowering import IntegerMap, Step, StepOps, lowered
from octrim.targets.c.source import comment, filled, quoted
from octrim.targets.integers import BOX_LOGITS, LOGITS
from octrim.targets.metadata import export_metadata

_MOST_DEPTHWISE = 65_536  # the same of a depthwise convolution, for its lines, a row of its output, and its weights each
_MOST_PERIOD = 256  # scalings of 8 channels that it takes at most until they go round
_MOST_LINES = 262_144  # bytes of stack that a convolution on a processor with vectors takes at most for lines of its input; wider maps go without


def write_folder(model: Model, folder: Path, height: int, width: int) -> None:
    """Write the files into `folder`, which must be there. The same model gives the same bytes. Raises InputError where a map has no scale."""
    files = integer_files(model, height, width)
    described = {
        "sha256": {name: sha256(files[name].encode()).hexdigest() for name in ("detector.c", "detector.h")},
        "precision": "int8",
        **export_metadata(model),
    }
    files[HEADER] = json.dumps(described, indent=1, ensure_ascii=True) + "\n"
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")


def integer_files(model: Model, height: int, width: int) -> dict[str, str]:
    """Contents of the C files and of README.md, by name."""
    ops, heads, memory = lowered(model, height, width)
    cost = network_cost(model.network, height, width)
    weights = sum(step.packed().size for step in ops.steps if step.kind == "CONVOLUTION")
    values = {
        "title": f"A YOLOv5 detector for {width} x {height} pixels in integers: {cost.parameters:,} parameters, "
        f"{cost.macs / 1e6:.1f} M multiply-adds. Written by OcTrim.",
        "width": width,
        "height": height,
        "classes": model.network.classes,
        "memory": memory + window_bytes(ops.steps),
        "window": memory,
        "logits": sum(head.size for head in heads),
        "logit_steps": round(1 / LOGITS.step),
        "box_logit_steps": round(1 / BOX_LOGITS.step),
        "names": comment(", ".join(model.names)).replace("|", " ").replace("`", " "),
        "weights": -(-weights // 1000),
        "most_anchors": max(len(level) for level in model.network.anchors),
        "tables": tables(model, ops, heads),
    }
    parts = {
        "vectors": _template("vectors.h"),
        "stem": filled(_template("stem.h"), _stem(ops)),
        "depthwise": "".join(filled(_template("depthwise.h"), limits) for limits in _depthwise(ops.steps)),
    }
    values["wide"] = filled(_template("wide.h"), {**_wide(ops.steps), **parts})
    return {name: filled(_template(name), values) for name in ("detector.h", "detector.c", "example.c", "README.md")}


def window_bytes(steps: Sequence[Step]) -> int:
    """Memory for the largest window of a convolution: 16-bit numbers, then bytes, each line filled up to a multiple of 4."""
    whole = 4 * max(step.row.kernel * step.words for step in steps if step.kind == "CONVOLUTION")
    return 2 * whole + whole + 4


def _wide(steps: Sequence[Step]) -> dict[str, int | str]:
    """What wide.h has to know of the convolutions: bytes of their widest lines, channels, sums of their weights, and whether no weight is -128."""
    convs = [step for step in steps if step.kind == "CONVOLUTION" and step.row.groups == 1]
    lines = [step.row.kernel * ((step.inputs[0].width + 2 * step.row.padding) * step.inputs[0].channels + 8) for step in convs]
    taps = max(step.row.kernel * ((step.words + 1) // 2) for step in convs)
    narrow = all(step.weight.min() > -128 for step in steps if step.kind == "CONVOLUTION")
    totals = [step.weight.reshape(step.channels, -1).sum(axis=1, dtype=np.int64) for step in steps if step.kind == "CONVOLUTION"]
    found: dict[str, int | str] = {"lines": min(max(lines), _MOST_LINES), "most_channels": max(step.channels for step in convs)}
    return found | {"most_taps": taps, "narrow": int(narrow), "totals": _array("int32_t", "totals[]", np.concatenate(totals))}


def _depthwise(steps: Sequence[Step]) -> list[dict[str, int]]:
    """What depthwise.h has to know of the depthwise convolutions that it can compute: what they need at most. Empty where there are none."""
    limits = [
        {
            "lines": step.row.kernel * -(-(step.inputs[0].width + 2 * step.row.padding) // step.row.stride) * step.row.stride * step.channels,
            "weights": -(-(step.row.kernel**2) // 4) * 4 * (step.channels + 16),
            "row": step.output.width * step.channels,
            "channels": step.channels,
            "period": step.channels // gcd(step.channels, 8),
            "taps": step.row.kernel**2,
        }
        for step in steps
        if step.kind == "CONVOLUTION" and step.depthwise
    ]
    fitting = [one for one in limits if max(one["lines"], one["weights"], one["row"]) <= _MOST_DEPTHWISE and one["period"] <= _MOST_PERIOD]
    return [{name: max(one[name] for one in fitting) for name in fitting[0]}] if fitting else []


def _stem(ops: StepOps) -> dict[str, int]:
    """What stem.h has to know of the convolutions of the picture: words in which it lays out the lines that a window covers, and fours of weights."""
    readers = [step for step in ops.steps if step.kind == "CONVOLUTION" and step.inputs[0] is ops.picture]
    words = max((step.row.kernel * step.words * -(-step.output.width // 16) * 16 for step in readers), default=1)
    fours = max((step.row.kernel * step.words * -(-step.channels // 4) for step in readers), default=1)
    return {"most_words": words, "most_fours": fours} if 4 * words + 16 * fours <= _MOST_LINES else {"most_words": 1, "most_fours": 1}


def tables(model: Model, ops: StepOps, heads: Sequence[IntegerMap]) -> str:
    """The network as constants of C."""
    convs = [step for step in ops.steps if step.kind == "CONVOLUTION"]
    found: dict[bytes, int] = {}
    for step in ops.steps:
        if step.table is not None:
            found.setdefault(step.table.tobytes(), len(found))
    looked_up = np.frombuffer(b"".join(found), np.int8)
    zeros = np.zeros(64, np.int64)  # a vector of weights or numbers is read beyond the last
    scores, boxes = (np.rint(65535 * sigmoid(np.arange(-128, 128) * np.float64(one.step))).astype(np.int64) for one in (LOGITS, BOX_LOGITS))
    return "\n".join(
        [
            _array("int8_t", "weights[]", np.concatenate([*(step.packed() for step in convs), zeros])),
            _array("int32_t", "biases[]", np.concatenate([*(step.biases for step in convs), zeros])),
            _array("int32_t", "multipliers[]", np.concatenate([*(step.multipliers for step in convs), zeros])),
            _array("uint8_t", "shifts[]", np.concatenate([*(step.shifts for step in convs), zeros])),
            _array("int8_t", "tables[][256]", looked_up if len(looked_up) else np.zeros(256, np.int8), braces=256),
            _array("uint16_t", "sigmoids[256]", scores),
            _array("uint16_t", "box_sigmoids[256]", boxes),
            "static const Step steps[] = {\n" + "".join(_steps(ops.steps, found)) + "};",
            "static const Level levels[] = {\n" + "".join(_levels(model, heads)) + "};",
            "const char *const OCTRIM_(names)[OCTRIM_(classes)] = {" + ", ".join(quoted(name) for name in model.names) + "};",
        ]
    )


def _steps(steps: Sequence[Step], found: dict[bytes, int]) -> Iterable[str]:
    """An initializer and the row's name per line."""
    weights = values = 0
    for step in steps:
        row, first = step.row, step.inputs[0]
        output, place = (step.output, step.place) if step.output.inside is None else (step.output.inside, step.output.place)
        fields: dict[str, int | str] = {
            "kind": step.kind,
            "height": output.height,
            "width": output.width,
            "channels": step.channels,
            "in_height": first.height,
            "in_width": first.width,
            "in_channels": first.channels,
            "kernel": row.kernel,
            "stride": row.stride,
            "padding": row.padding,
            "groups": row.groups,
            "words": step.words,
            "positive": int(first.positive),
            "place": place,
            "pitch": output.channels,
            "table": -1 if step.table is None else found[step.table.tobytes()],
            "zero": step.zero,
            "low": step.low,
            "high": step.high,
            "input": first.offset,
            "second": step.inputs[-1].offset,
            "output": output.offset,
            "weights": weights,
            "values": values,
        }
        text = ", ".join(f".{name} = {value}" for name, value in fields.items())
        if step.kind == "ADD":
            a, b = step.multipliers.tolist()
            text += f", .shift = {int(step.shifts[0])}, .multiplier = {{{a}, {b}}}"
        yield f"    {{{text}}}, /* {comment(row.name)} */\n"
        if step.kind == "CONVOLUTION":
            weights, values = weights + step.packed().size, values + step.channels


def _levels(model: Model, heads: Sequence[IntegerMap]) -> Iterable[str]:
    network = model.network
    for head, anchors, stride in zip(heads, network.anchors, network.strides, strict=True):
        sides = ", ".join(f"{{{round(16 * w)}, {round(16 * h)}}}" for w, h in anchors)
        yield f"    {{{head.offset}, {head.height}, {head.width}, {len(anchors)}, {stride}, {{{sides}}}}},\n"


def _array(kind: str, name: str, values: np.ndarray, braces: int = 0) -> str:
    """A constant array in lines of at most 150 characters. braces: how many numbers an inner pair of braces holds."""
    lines, line = [], "   "
    for index, value in enumerate(values.tolist()):
        text = f"{value}," if not braces else f"{'{' if index % braces == 0 else ''}{value}{'},' if index % braces == braces - 1 else ','}"
        if len(line) + len(text) > 148:
            lines.append(line)
            line = "   "
        line += f" {text}"
    return f"static const {kind} {name} = {{\n" + "\n".join([*lines, line]) + "\n};"


@lru_cache
def _template(name: str) -> str:
    return (resources.files("octrim.targets.c.integers") / "runtime" / name).read_text("utf-8")

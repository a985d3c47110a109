"""Texts of the C files: the runtime of `runtime/` with its includes written out, and a network's tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from importlib import resources

import numpy as np

from octrim.targets.c.lowering import Activation, Kind
from octrim.targets.c.program import MapEntry, Program, StageEntry, StepEntry

WEIGHTS_IN_C = 2_000_000
"""Most bytes of weights that stand in the C file; larger ones have a file of their own."""

_CONVOLUTIONS = {Kind.STEM, Kind.CONVOLUTION, Kind.DEPTHWISE, Kind.WINOGRAD, Kind.PLAIN}  # kinds of steps that apply an activation

_INCLUDE = re.compile(r'^#include "(\w+\.h)"\n', re.MULTILINE)
_PLACE = re.compile(r"@(\w+)@")
_FIELDS = {"input": "in", "output": "out"}  # fields whose names in C are keywords of Python


def template(name: str) -> str:
    """The text of a file of `runtime/`."""
    return (resources.files("octrim.targets.c") / "runtime" / name).read_text("utf-8")


def filled(text: str, values: Mapping[str, object]) -> str:
    """The text with every `@name@` replaced by its value."""
    return _PLACE.sub(lambda match: str(values[match[1]]), text)


def assembled(name: str, generated: Mapping[str, str]) -> str:
    """A file of `runtime/` in which every included file stands where its #include stood, except `detector.h`."""

    def body(match: re.Match[str]) -> str:
        if match[1] == "detector.h":
            return match[0]
        return "\n" + (generated[match[1]] if match[1] in generated else template(match[1]))

    return _INCLUDE.sub(body, template(name))


def tables(program: Program, names: Sequence[str], checksum: int) -> str:
    """Maps, steps, stages, offsets, and the weights up to `WEIGHTS_IN_C`, as C. checksum: of the weights."""
    in_file = program.weights.nbytes > WEIGHTS_IN_C
    parts = [
        "/* The network. */",
        f"#define WEIGHTS {program.weights.size}u",
        f"#define WEIGHTS_IN_FILE {int(in_file)}",
        f"#define WEIGHTS_CHECKSUM 0x{checksum:016x}u",
        _array("static const Map maps[]", _commented(program.maps, program.map_names)),
        _array("static const Step steps[]", _commented(program.steps, program.step_names)),
        _array("static const Stage stages[]", (f"{_struct(one)}, /* {_steps_of(program, one)} */" for one in program.stages)),
        _array("static const int32_t taps[]", _lines(str(value) for value in program.taps.tolist())),
    ]
    if not in_file:
        parts.append(_array("static const float compiled_weights[]", _lines(map(_number, program.weights))))
    sizes = (program.height, program.width, program.boxes, program.values, program.arena, program.scratch, len(program.stages), program.bands)
    parts.append(f"static const Network network = {{{', '.join(map(str, sizes))}, maps, steps, stages, taps}};")
    parts.append(_array("const char *const OCTRIM_(names)[OCTRIM_(classes)]", (f"{quoted(name)}," for name in names)))
    return "\n".join(parts) + "\n"


def step_kinds(program: Program) -> set[Kind]:
    """Kinds of the program's steps."""
    return {Kind(step.kind) for step in program.steps}


def step_activations(program: Program) -> set[Activation]:
    """Activations of the program's convolutions, `LINEAR` for those without one."""
    return {Activation(step.activation) for step in program.steps if Kind(step.kind) in _CONVOLUTIONS}


def bits(members: Iterable[Kind | Activation]) -> str:
    """The members as a C expression that has a bit each: `1u << IMAGE | 1u << HEAD`; `0u` where there are none."""
    return " | ".join(f"1u << {one.name}" for one in sorted(members)) or "0u"


def quoted(text: str) -> str:
    """The text as a C string literal in ASCII: octal escapes, which cannot swallow what follows them."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\?' else f"\\{byte:03o}" for byte in text.encode())
    return '"' + "".join(plain) + '"'


def comment(text: str) -> str:
    """The text as it may stand in a C comment, whatever it is made of."""
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable.replace("*/", "* /").replace("/*", "/ *")


def _commented(entries: Sequence[MapEntry] | Sequence[StepEntry], names: Sequence[str]) -> Iterator[str]:
    """Lines of an initializer and its name each."""
    for one, name in zip(entries, names, strict=True):
        yield f"{_struct(one)}, /* {comment(name)} */"


def _struct(one: MapEntry | StepEntry | StageEntry) -> str:
    """Designated initializers of an entry's fields that are not zero."""
    values = [(field.name, getattr(one, field.name)) for field in fields(one)]
    shown = [f".{_FIELDS.get(name, name)} = {_constant(name, value)}" for name, value in values if value or name in ("kind", "first")]
    return "{" + ", ".join(shown) + "}"


def _constant(name: str, value: int) -> str:
    if name == "kind":
        return Kind(value).name
    return Activation(value).name if name == "activation" else str(value)


def _steps_of(program: Program, stage: StageEntry) -> str:
    rows = program.step_names[stage.first : stage.first + stage.steps]
    return comment(", ".join(dict.fromkeys(name.partition(":")[0] for name in rows)))


def _array(declaration: str, lines: Iterable[str]) -> str:
    return declaration + " = {\n" + "".join(f"    {line}\n" for line in lines) + "};"


def _lines(values: Iterable[str]) -> Iterator[str]:
    """Values in lines of at most 150 characters."""
    line = ""
    for value in values:
        if len(line) + len(value) > 144:
            yield line.rstrip()
            line = ""
        line += f"{value}, "
    yield line.rstrip()


def _number(value: np.float32) -> str:
    text = f"{float(value):.9g}"
    if text in ("nan", "inf", "-inf"):  # damaged weights are written as they were read
        return {"nan": "0.0f / 0.0f", "inf": "1.0f / 0.0f", "-inf": "-1.0f / 0.0f"}[text]
    return f"{text}f" if any(mark in text for mark in ".e") else f"{text}.0f"

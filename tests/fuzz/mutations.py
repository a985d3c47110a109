"""Damage: what disks, transfers, careless editors and attackers do to files, drawn by a `random.Random`."""

from __future__ import annotations

import copy
import pickletools
import random
import re
import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

TOKENS = (
    *("NaN", "inf", "-Infinity", "1e999", "1e308", "-1e308", "1e-320", "9" * 30, "9" * 5000, "-1", "-0.0", "0", "0.99999999", "65535", "1_0"),
    *("9223372036854775808", "true", "null", '""', "[]", "{}", "[[1,2,3,4]]", '{"a":1}', '"\\ud800"', "\udcff", "\x00", "\ufeff", "\u2028", "\x85"),
    *("\x1b[31m", "١", "💥", "A" * 3000, "../..", "/dev/zero", "&a;", "<!DOCTYPE a>", "</object>", "<object>" * 50, "[" * 50, "\r", "\r\n", "\t"),
)
WHOLE = (b"", b" ", b"\n", b"\0" * 100, b"[" * 100_000, b'{"a":' * 100_000, b"<a>" * 100_000, b"1 " * 9999)


def mutated(dice: random.Random, data: bytes) -> bytes:
    """Text with numbers, words and bytes replaced, cut, repeated and moved."""
    if dice.random() < 0.01:
        return dice.choice(WHOLE)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        start = dice.randrange(len(data) + 1)
        stop = start + dice.choice((1, 1, 2, 5, 20, 80))
        token = dice.choice(TOKENS).encode("utf-8", "surrogateescape")
        numbers = list(re.finditer(rb"-?\d+\.?\d*", data))
        kind = dice.randrange(9)
        if kind < 3 and numbers:
            spot = dice.choice(numbers)
            data = data[: spot.start()] + token + data[spot.end() :]
        elif kind == 3:
            data = data[:start] + token + data[start:]
        elif kind == 4:
            data = data[:start] + data[stop:]
        elif kind == 5:
            data = data[:stop] + data[start:stop] * dice.choice((1, 1, 30)) + data[stop:]
        elif kind == 6:
            data = data[:start] + bytes(byte ^ 1 << dice.randrange(8) for byte in data[start : start + 1]) + data[start + 1 :]
        elif kind == 7:
            data = dice.choice((data[:start], b"\xef\xbb\xbf" + data, data.replace(b"\n", b"\r\n"), data.decode("latin-1").encode("utf-16")))
        else:
            data = data[:start] + dice.randbytes(dice.choice((1, 4, 30))) + data[stop:]
    return data


_LIMITS = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1)


def flipped(dice: random.Random, data: bytes) -> bytes:
    """Binary data with bits turned, numbers replaced by the ends of their ranges, pieces cut, repeated, moved or made of noise."""
    for _ in range(dice.choice((1, 1, 1, 2, 4, 8))):
        size = len(data)
        # Half of the damage goes where headers are.
        start = dice.randrange(min(size, 200) + 1) if dice.random() < 0.5 else dice.randrange(size + 1)
        stop = min(start + dice.choice((1, 1, 2, 4, 8, 50, 1000)), size)
        kind = dice.randrange(8)
        if kind < 2 and start < size:
            data = data[:start] + bytes([data[start] ^ 1 << dice.randrange(8)]) + data[start + 1 :]
        elif kind < 4:
            width, order = dice.choice((1, 2, 4, 8)), dice.choice("<>")
            number = dice.choice(_LIMITS) & (1 << 8 * width) - 1
            data = data[:start] + struct.pack(order + {1: "B", 2: "H", 4: "I", 8: "Q"}[width], number) + data[start + width :]
        elif kind == 4:
            data = dice.choice((data[:start], data[:start] + data[stop:], data + data[start:stop]))
        elif kind == 5:
            place = dice.randrange(size + 1)
            data = data[:place] + data[start:stop] * dice.choice((1, 1, 40)) + data[place:]
        elif kind == 6:
            data = data[:start] + dice.randbytes(stop - start) + data[stop:]
        else:
            data = data[:start] + bytes([dice.choice((0, 255))]) * (stop - start) + data[stop:]
    return data


# fmt: off
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 7, 31, 64, 255, 256, 1000, 65536, 10**6, 2**31, 2**63, -(2**63), 10**30, int("9" * 400),
    0.0, -0.0, 0.5, 1.5, 1e-320, 1e308, float("inf"), float("nan"), "", " ", "0", "1", "a", "\n", "\0", "\ud800", "\x1b[2J",
    "A" * 3000, "../..", "/dev/zero", "[" * 200, "conv", "images", "silu", "detect", [], {}, [[]], [None], {"a": 1}, {"": {}},
    [0, 0], [1, 2, 3], [[1, 2], [3, 4]], ["a"] * 100, [[[[[[[[1]]]]]]]],
)
# fmt: on


def altered(dice: random.Random, document: Any) -> Any:
    """A JSON document with values replaced, moved to where another one stood, left out, repeated or renamed."""
    document = copy.deepcopy(document)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 6))):
        places = list(_places(document))
        if not places:
            return dice.choice(VALUES)
        home, key = dice.choice(places)
        kind = dice.randrange(10)
        if kind < 4:
            home[key] = copy.deepcopy(dice.choice(VALUES))
        elif kind < 6:
            source, name = dice.choice(places)
            home[key] = copy.deepcopy(source[name])  # of another one that need not be of its kind
        elif kind == 6:
            del home[key]
        elif kind == 7 and isinstance(home, list):
            home[key:key] = copy.deepcopy(home[key : key + 1]) * dice.choice((1, 1, 70))
        elif kind == 7:
            home[dice.choice(("", "x", "inputs", "scale", "\n", "A" * 300))] = home.pop(key)
        elif type(home[key]) in (int, float) and abs(home[key]) < 2**60:
            home[key] += dice.choice((1, -1, 0.5, 1000, -1000, home[key]))
        elif isinstance(home[key], str):
            home[key] = mutated(dice, home[key].encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
        else:
            home[key] = dice.choice((str(home[key])[:2000], [home[key]], {"a": home[key]}))
    return document


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key in it."""
    if isinstance(document, dict | list):
        for key in list(document) if isinstance(document, dict) else range(len(document)):
            yield document, key
            yield from _places(document[key])


def rewired(dice: random.Random, pickled: bytes) -> bytes:
    """A pickle with instructions replaced, moved, repeated and left out, each of them whole."""
    starts = [position for _, _, position in pickletools.genops(pickled)] + [len(pickled)]
    pieces = [pickled[start:stop] for start, stop in pairwise(starts)]
    for _ in range(dice.choice((1, 1, 1, 2, 4, 10))):
        place, other = dice.randrange(1, len(pieces)), dice.randrange(1, len(pieces))
        kind = dice.randrange(6)
        if kind == 0:
            pieces[place] = pieces[other]
        elif kind == 1:
            pieces[place] = dice.choice(_INSTRUCTIONS)
        elif kind == 2:
            pieces[place:place] = [dice.choice(_INSTRUCTIONS)]
        elif kind == 3:
            del pieces[place : place + dice.choice((1, 1, 2, 20))]
        elif kind == 4:
            pieces[place:place] = pieces[other : other + dice.choice((1, 3, 20))] * dice.choice((1, 1, 30))
        elif pieces[place][:1] == b"K":  # a small number, of which there are many: shapes, strides, kernels
            pieces[place] = b"K" + bytes([dice.choice((0, 1, 2, 3, 8, 64, 255))])
        else:
            pieces[place], pieces[other] = pieces[other], pieces[place]
        if len(pieces) < 2:
            break
    return b"".join(pieces)


_INSTRUCTIONS = (
    *(b"N", b"\x88", b"]", b"}", b")", b"\x8f", b"0", b"1", b"2", b"(", b"t", b"\x85", b"\x86", b"\x87", b"a", b"e", b"s", b"u", b"\x90", b"b", b"R"),
    *(b"\x81", b"Q", b"l", b"d", b"o", b"\x94", b"h\x00", b"h\x05", b"q\x00", b"j\xff\xff\xff\xff", b"r\xff\xff\xff\x7f", b"K\x00", b"K\xff", b"."),
    *(b"J\xff\xff\xff\xff", b"J\xff\xff\xff\x7f", b"\x8a\x08" + b"\xff" * 8, b"\x8b\xe8\x03\x00\x00" + b"\x7f" * 1000, b"G\x7f\xf8" + b"\0" * 6),
    *(b"X\x00\x00\x00\x00", b"X\x03\x00\x00\x00abc", b"X\x03\x00\x00\x00\xed\xa0\x80", b"C\x03abc", b"cos\nsystem\n", b"cbuiltins\neval\n", b"P1\n"),
    *(
        b"ctorch\nFloatStorage\n",
        b"cmodels.common\nConv\n",
        b"ccollections\nOrderedDict\n",
        b"cbuiltins\nset\n",
        b"\x93",
        b"\x95" + b"\xff" * 8,
        b"\x80\x09",
    ),
)
